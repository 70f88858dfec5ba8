//! A program of one's own on the web: news as JSON, signed as Standard Webhooks has it and as GitHub does.
use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::SecondsFormat;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, header::HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Call},
    count, read, slack,
    words::{self, Told},
};
use crate::{
    config::{
        mistake::Problem,
        secret::{SecretSource, TextOrSecret},
    },
    model::news::{About, News},
    text,
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "webhook",
    summary: "A program of one's own: news as JSON, signed",
    example: r#"[notifier.own]
kind       = "webhook"
url        = "https://example.org/hooks/rusuban"
secret     = { env = "WEBHOOK_SECRET" }       # whsec_…, as of `echo whsec_$(openssl rand -base64 32)`
old_secret = { env = "WEBHOOK_OLD_SECRET" }   # signs too, while receivers change to the new one
body       = "standard"               # or "slack", for what takes Slack's webhooks
headers    = { authorization = { env = "WEBHOOK_AUTHORIZATION" } }
"#,
    parse: read::<Webhook>,
    schema: Webhook::json_schema,
};

/// Receivers take 20 kB.
const MOST_BYTES: usize = 20_000;
/// What of the words is sent beside the news.
const MOST_TEXT: usize = 4000;

/// A receiver.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    /// Where to.
    url: TextOrSecret,
    /// What signs it: `whsec_` and base64, or any text; without it nothing is signed.
    #[serde(default)]
    secret: Option<TextOrSecret>,
    /// The secret before this one: it signs too, while receivers change over.
    #[serde(default)]
    old_secret: Option<TextOrSecret>,
    /// What is sent [default: standard].
    #[serde(default)]
    body: Form,
    /// Further headers.
    #[serde(default)]
    headers: BTreeMap<String, TextOrSecret>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// The news, with words for people beside them.
    #[default]
    Standard,
    /// The words alone, as Slack takes them.
    Slack,
}

#[async_trait]
impl Notifier for Webhook {
    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = call::check_address("url", &self.url).into_iter().collect();
        for (key, secret) in [("secret", &self.secret), ("old_secret", &self.old_secret)] {
            if let Some(TextOrSecret::Text(secret)) = secret
                && let Err(why) = key_of(secret)
            {
                problems.push(Problem::new(key, why).hint("make one with `echo whsec_$(openssl rand -base64 32)`"));
            }
        }
        if self.old_secret.is_some() && self.secret.is_none() {
            problems.push(Problem::new("old_secret", "there is no `secret` that takes its place"));
        }
        for name in self.headers.keys() {
            let key = format!("headers.{name}");
            if HeaderName::try_from(name).is_err() {
                problems.push(Problem::new(key, format!("`{name}` cannot be a header's name")));
            } else if name.to_ascii_lowercase().starts_with("webhook-") {
                problems.push(Problem::new(key, "the signature's headers are written by Rusuban"));
            }
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.url].into_iter().chain(&self.secret).chain(&self.old_secret).chain(self.headers.values()))
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let url = call::read(cx, "url", &self.url).await?;
        let mut call = Call::new(cx, "the webhook", Method::POST, call::address("url", url.reveal())?);
        if self.url.secret().is_some() {
            call = call.hide_address(&url);
        }
        let told = words::write(message);
        let body = match self.body {
            Form::Standard => standard(message, &told),
            Form::Slack => json!({ "text": slack::fallback(&told) }),
        };
        let body = body.to_string();
        let mut secrets = Vec::new();
        for (key, secret) in [("secret", &self.secret), ("old_secret", &self.old_secret)] {
            if let Some(secret) = secret {
                secrets.push((key, call::read(cx, key, secret).await?));
            }
        }
        if !secrets.is_empty() {
            let id = format!("msg_{}", super::name(&message.key));
            let at = cx.clock.now().timestamp();
            let mut signatures = Vec::new();
            for (key, secret) in &secrets {
                let secret =
                    key_of(secret.reveal()).map_err(|why| Refusal::Never { why: format!("`{key}`: {why}") })?;
                signatures.push(signature(&secret, &id, at, &body));
            }
            call = call.header("webhook-id", &id)?.header("webhook-timestamp", &at.to_string())?;
            call = call.header("webhook-signature", &signatures.join(" "))?;
        }
        // GitHub's way knows one signature only: the newest secret's, with the secret as it is written.
        if let Some((_, secret)) = secrets.first() {
            let digest = hmac(secret.reveal().as_bytes(), body.as_bytes());
            call = call.header("x-hub-signature-256", &format!("sha256={}", text::hexadecimal(&digest)))?;
        }
        for (_, secret) in &secrets {
            call = call.hide(secret);
        }
        for (name, value) in &self.headers {
            let secret = call::read(cx, &format!("headers.{name}"), value).await?;
            call = call.named_header(name, &secret)?;
        }
        let answer = call.body("application/json", body.into_bytes()).answer().await?;
        match answer.status.as_u16() {
            200..=299 => Ok(Receipt::default()),
            410 => Err(answer.never("the receiver wants no more: remove this notifier, or change `url`")),
            _ => Err(answer.refusal()),
        }
    }
}

/// The key in a secret: what base64 holds after `whsec_`, or the text itself.
fn key_of(secret: &str) -> Result<Vec<u8>, String> {
    let Some(coded) = secret.strip_prefix("whsec_") else {
        return if secret.len() < 16 {
            Err("it is too short to be safe".to_owned())
        } else {
            Ok(secret.as_bytes().to_vec())
        };
    };
    let key = BASE64_STANDARD.decode(coded).map_err(|_| "what follows `whsec_` is no base64".to_owned())?;
    if (24..=64).contains(&key.len()) {
        Ok(key)
    } else {
        Err(format!("it holds {} bytes, and 24 to 64 are due", key.len()))
    }
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // A key of any length is one.
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mut hmac| {
            hmac.update(text);
            hmac.finalize().into_bytes().to_vec()
        },
    )
}

/// As Standard Webhooks has it.
fn signature(key: &[u8], id: &str, at: i64, body: &str) -> String {
    format!("v1,{}", BASE64_STANDARD.encode(hmac(key, format!("{id}.{at}.{body}").as_bytes())))
}

/// The news and their words, within what receivers take.
fn standard(message: &Message, told: &Told) -> Value {
    let one = match message.news.as_slice() {
        [one] => Some(one),
        _ => None,
    };
    let at = message.news.iter().map(|news| news.at).max().unwrap_or(message.now);
    let write = |news: &[News]| {
        json!({
            "type": one.map_or_else(|| "several".to_owned(), kind),
            "timestamp": at.to_rfc3339_opts(SecondsFormat::Secs, true),
            "data": {
                "key": message.key,
                "host": message.host,
                "severity": told.severity,
                "title": told.title,
                "text": told.whole().fit(|text| count::bytes(text) <= MOST_TEXT),
                "news": news,
                "more": message.news.len() - news.len(),
            },
        })
    };
    // Long lines go first, then the youngest news: what is left out is counted.
    let mut news: Vec<News> = message.news.clone();
    let mut body = write(&news);
    if body.to_string().len() > MOST_BYTES {
        news.iter_mut().for_each(|news| news.lines.clear());
        body = write(&news);
    }
    while body.to_string().len() > MOST_BYTES && !news.is_empty() {
        news.truncate(news.len() / 2);
        body = write(&news);
    }
    body
}

/// `check.failed`, `job.first_success`.
fn kind(news: &News) -> String {
    let about = match news.about {
        About::Job { .. } => "job",
        About::Check { .. } => "check",
        About::Notifier { .. } => "notifier",
        About::House => "house",
    };
    let event = json!(news.event);
    format!("{about}.{}", event.as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_of_the_standards_own_library() {
        let key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let said = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(said, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn githubs_own_example_is_signed_as_there() {
        let digest = hmac(b"It's a Secret to Everybody", b"Hello, World!");
        assert_eq!(text::hexadecimal(&digest), "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    }

    #[test]
    fn secrets_that_cannot_sign_are_found() {
        for wrong in ["whsec_", "whsec_!!", "whsec_aGVsbG8=", "short"] {
            key_of(wrong).unwrap_err();
        }
    }
}
