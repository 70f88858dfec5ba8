//! Mastodon, and what speaks its API: a post, unlisted unless one wants it otherwise.
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Answer, Call},
    clean, count, limit, links, read, words,
};
use crate::config::{
    mistake::Problem,
    secret::{Secret, SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "mastodon",
    summary: "A post on Mastodon",
    example: r#"[notifier.feed]
kind       = "mastodon"
url        = "https://mastodon.example"
token      = { env = "MASTODON_TOKEN" }   # with the right to write posts
visibility = "unlisted"               # public, unlisted, private or direct
mention    = "@me@mastodon.example"   # who is called by name; without it, nobody
"#,
    parse: read::<Mastodon>,
    schema: Mastodon::json_schema,
};

/// What an instance takes that does not say.
const MOST: usize = 500;
/// A link counts so much, however long it is.
const LINK: usize = 23;

/// An account.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Mastodon {
    /// The instance.
    url: TextOrSecret,
    /// The access token, with the right to write posts.
    token: TextOrSecret,
    /// Who sees it [default: unlisted].
    #[serde(default)]
    visibility: Visibility,
    /// Who is called by name, such as `@me@mastodon.example`.
    #[serde(default)]
    mention: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Visibility {
    /// Everybody, in the public timelines too.
    Public,
    /// Everybody, but not in the public timelines.
    #[default]
    Unlisted,
    /// Followers.
    Private,
    /// Who is mentioned.
    Direct,
}

#[async_trait]
impl Notifier for Mastodon {
    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = call::check_address("url", &self.url).into_iter().collect();
        match &self.mention {
            None if self.visibility == Visibility::Direct => problems.push(
                Problem::new("visibility", "nobody would see it: a direct post is for whom it mentions")
                    .hint("add `mention = \"@me@mastodon.example\"`"),
            ),
            Some(mention) if !mention.starts_with('@') || mention.contains(char::is_whitespace) => problems.push(
                Problem::new("mention", format!("`{mention}` is nobody's name"))
                    .hint("write it as in `\"@me@mastodon.example\"`"),
            ),
            _ => {}
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.url, &self.token])
    }

    fn spacing(&self) -> Duration {
        // Three hundred in five minutes.
        Duration::from_secs(1)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let token = call::read(cx, "token", &self.token).await?;
        let server = call::address("url", call::read(cx, "url", &self.url).await?.reveal())?;
        let most = limit::of_server(cx, MOST, most(cx, &server)).await;
        let dress = |text: &str| {
            let text = clean::without_mentions(text);
            self.mention.as_ref().map_or_else(|| text.clone(), |mention| format!("{mention} {text}"))
        };
        let text = dress(&words::write(message).whole().fit(|text| length(&dress(text)) <= most));
        let first = message.thread.as_ref().and_then(|thread| thread.get("post")).and_then(Value::as_str);
        let mut body = json!({
            "status": text,
            "visibility": self.visibility,
            "language": message.language.code(),
        });
        if let Some(first) = first {
            body["in_reply_to_id"] = first.into();
        }
        let key = super::name(&message.key);
        let mut answer = post(cx, &server, &token, &key, &body).await?;
        if first.is_some() && answer.status.as_u16() == 404 {
            // The first post was deleted.
            if let Some(body) = body.as_object_mut() {
                body.remove("in_reply_to_id");
            }
            answer = post(cx, &server, &token, &key, &body).await?;
        }
        match answer.status.as_u16() {
            200..=299 => match answer.json().and_then(|json| Some(json.get("id")?.as_str()?.to_owned())) {
                Some(post) => {
                    let first = first.map_or(post, str::to_owned);
                    Ok(Receipt { reference: Some(json!({ "post": first })), cost: 0 })
                }
                None => Err(answer.not_understood()),
            },
            401 | 403 => Err(answer.never("look at `token`: it needs the right `write:statuses`")),
            _ => Err(answer.refusal()),
        }
    }
}

/// Posts. The instance knows the key for an hour, and posts once only for it.
async fn post(cx: &Sending, server: &Url, token: &Secret, key: &str, body: &Value) -> Result<Answer, Refusal> {
    let call = Call::new(cx, "Mastodon", Method::POST, call::below(server, &["api", "v1", "statuses"]));
    call.bearer(token)?.header("idempotency-key", key)?.json(body).answer().await
}

/// How long a post may be on this instance, in its own words.
async fn most(cx: &Sending, server: &Url) -> Option<u64> {
    let call = Call::new(cx, "Mastodon", Method::GET, call::below(server, &["api", "v2", "instance"]));
    call.done().await.ok()?.json()?.pointer("/configuration/statuses/max_characters")?.as_u64()
}

/// What Mastodon counts: letters as they are seen, a link as 23; of those that are shorter as it is, too.
fn length(text: &str) -> usize {
    let written = links::find(text).into_iter().filter(|link| text[link.clone()].contains("://"));
    written.fold(count::graphemes(text), |sum, link| sum + LINK - count::graphemes(&text[link]).min(LINK))
}
