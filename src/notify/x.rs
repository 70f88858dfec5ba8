//! X: a post, for which one pays. Its second API, signed by OAuth 1.0a with four keys that do not expire.
use std::{num::NonZeroU64, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use icu_normalizer::ComposingNormalizerBorrowed;
use oauth1_request as oauth;
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use unicode_segmentation::UnicodeSegmentation as _;

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Answer, Call},
    clean, links,
    money::Dollars,
    read, words,
};
use crate::config::{
    mistake::Problem,
    secret::{Secret, SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "x",
    summary: "A post on X, which costs money",
    example: r#"[notifier.feed]
kind            = "x"
consumer_key    = { env = "X_CONSUMER_KEY" }      # these four: of an app with the right to write
consumer_secret = { env = "X_CONSUMER_SECRET" }
access_token    = { env = "X_ACCESS_TOKEN" }
access_secret   = { env = "X_ACCESS_SECRET" }
cap             = "$5"                # a month at most
price           = "$0.015"            # of a post
price_with_link = "$0.20"             # of one with a link
links           = false               # true: host names stay links, and are paid for
"#,
    parse: read::<X>,
    schema: X::json_schema,
};

/// What a post takes, in X's own weights.
const MOST: usize = 280;
/// A link weighs so much, however long it is.
const LINK: usize = 23;
/// Where the meter is kept.
const METER: &str = "spent";

/// An account.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct X {
    /// The key of the app.
    consumer_key: TextOrSecret,
    /// Its secret.
    consumer_secret: TextOrSecret,
    /// The token of the account.
    access_token: TextOrSecret,
    /// Its secret.
    access_secret: TextOrSecret,
    /// What may be spent in a calendar month; what would cost more is not posted [default: $5].
    #[serde(default = "cap")]
    cap: Dollars,
    /// What a post costs [default: $0.015].
    #[serde(default = "price")]
    price: Dollars,
    /// What a post with a link costs [default: $0.20].
    #[serde(default = "price_with_link")]
    price_with_link: Dollars,
    /// Whether addresses and host names stay links; else they are written so that X makes none of them [default: false].
    #[serde(default)]
    links: bool,
    /// The server [default: https://api.x.com].
    #[serde(default = "server")]
    url: TextOrSecret,
}

fn cap() -> Dollars {
    Dollars(5_000_000)
}

fn price() -> Dollars {
    Dollars(15_000)
}

fn price_with_link() -> Dollars {
    Dollars(200_000)
}

fn server() -> TextOrSecret {
    TextOrSecret::Text("https://api.x.com".to_owned())
}

/// What was spent in a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Meter {
    month: String,
    millionths: u64,
}

#[async_trait]
impl Notifier for X {
    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = call::check_address("url", &self.url).into_iter().collect();
        if self.cap < self.price {
            let message = format!("nothing would ever be posted: a post costs {}, more than {}", self.price, self.cap);
            problems.push(Problem::new("cap", message).hint("give what may be spent in a month, such as `\"$5\"`"));
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        let keys = [&self.consumer_key, &self.consumer_secret, &self.access_token, &self.access_secret];
        call::secrets(keys.into_iter().chain([&self.url]))
    }

    fn spacing(&self) -> Duration {
        // A hundred in fifteen minutes.
        Duration::from_secs(9)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let keys = Keys {
            consumer: call::read(cx, "consumer_key", &self.consumer_key).await?,
            consumer_secret: call::read(cx, "consumer_secret", &self.consumer_secret).await?,
            token: call::read(cx, "access_token", &self.access_token).await?,
            token_secret: call::read(cx, "access_secret", &self.access_secret).await?,
        };
        let server = call::address("url", call::read(cx, "url", &self.url).await?.reveal())?;
        let url = call::below(&server, &["2", "tweets"]);
        let text = self.text(message);
        let cost = if links::find(&text).is_empty() { self.price } else { self.price_with_link };
        let spent = self.pay(cx, message.now, cost).await?;
        let first = message.thread.as_ref().and_then(|thread| thread.get("post")).and_then(Value::as_str);
        let mut body = json!({ "text": text });
        if let Some(first) = first {
            body["reply"] = json!({ "in_reply_to_tweet_id": first });
        }
        let mut answer = keys.post(cx, &url, &body).await?;
        if first.is_some() && matches!(answer.status.as_u16(), 400 | 403 | 404) && !is_duplicate(&answer) {
            // The first post was deleted, or may not be answered.
            if let Some(body) = body.as_object_mut() {
                body.remove("reply");
            }
            answer = keys.post(cx, &url, &body).await?;
        }
        let told = judge(&answer);
        if told.is_err() && !answer.status.is_success() {
            // What was refused costs nothing.
            remember(cx, &Meter { millionths: spent.millionths - cost.0, ..spent }).await;
        }
        let post = told?;
        let reference = first.map(str::to_owned).or(post).map(|post| json!({ "post": post }));
        Ok(Receipt { reference, cost: cost.0 })
    }
}

impl X {
    /// The post: as much as fits, with a mark at its end that makes it unlike every other.
    fn text(&self, message: &Message) -> String {
        let mark = super::mark(&message.key);
        let dress = |text: &str| {
            let text = if self.links { text.to_owned() } else { links::defang(text) };
            normal(&format!("{} ({mark})", clean::without_mentions(&text)))
        };
        dress(&words::write(message).whole().fit(|text| weight(&dress(text)) <= MOST))
    }

    /// Writes down what a post will cost, before it is posted: a crash in between costs the meter a post, and never the owner.
    async fn pay(&self, cx: &Sending, now: DateTime<Utc>, cost: Dollars) -> Result<Meter, Refusal> {
        let month = now.format("%Y-%m").to_string();
        let known = cx.state(METER).await.and_then(|value| serde_json::from_value::<Meter>(value).ok());
        let spent = known.filter(|meter| meter.month == month).map_or(0, |meter| meter.millionths);
        let would_be = spent.saturating_add(cost.0);
        if would_be > self.cap.0 {
            let (spent, cap) = (Dollars(spent), self.cap);
            let why = format!(
                "X: {spent} of {cap} are spent this month, and this post would cost {cost}; raise `cap` if that is worth it"
            );
            return Err(Refusal::NotThis { why });
        }
        let meter = Meter { month, millionths: would_be };
        remember(cx, &meter).await;
        Ok(meter)
    }
}

async fn remember(cx: &Sending, meter: &Meter) {
    cx.remember(METER, json!(meter)).await;
}

/// The number of the post, if the answer has one.
fn judge(answer: &Answer) -> Result<Option<String>, Refusal> {
    match answer.status.as_u16() {
        200..=299 => match answer.json().and_then(|json| Some(json.pointer("/data/id")?.as_str()?.to_owned())) {
            Some(post) => Ok(Some(post)),
            None => Err(answer.not_understood()),
        },
        // The mark makes every message another: this very one was posted by a try whose answer was lost.
        403 if is_duplicate(answer) => Ok(None),
        401 => Err(answer.never("look at the four keys, and at this machine's clock")),
        402 => Err(answer.never("the account's credits are used up: buy more in the developer console")),
        403 => Err(answer.never("has the app the right to write, and were the keys made after it got it?")),
        429 => {
            Err(answer.later(answer.after_header("x-user-limit-24hour").or(answer.after_header("x-app-limit-24hour"))))
        }
        _ => Err(answer.refusal()),
    }
}

fn is_duplicate(answer: &Answer) -> bool {
    answer.status.as_u16() == 403 && answer.reason().is_some_and(|reason| reason.contains("duplicate content"))
}

/// The four keys.
struct Keys {
    consumer: Secret,
    consumer_secret: Secret,
    token: Secret,
    token_secret: Secret,
}

impl Keys {
    async fn post(&self, cx: &Sending, url: &Url, body: &Value) -> Result<Answer, Refusal> {
        let nonce = nonce()?;
        let timestamp = NonZeroU64::new(u64::try_from(cx.clock.now().timestamp()).unwrap_or_default());
        let authorization = self.sign(url, &nonce, timestamp);
        let mut call = Call::new(cx, "X", Method::POST, url.clone());
        for secret in [&self.consumer, &self.consumer_secret, &self.token, &self.token_secret] {
            call = call.hide(secret);
        }
        call.header("authorization", &authorization)?.json(body).answer().await
    }

    /// The header that proves who posts. A JSON body is not part of what is signed.
    fn sign(&self, url: &Url, nonce: &str, timestamp: Option<NonZeroU64>) -> String {
        let client = oauth::Credentials::new(self.consumer.reveal(), self.consumer_secret.reveal());
        let token = oauth::Credentials::new(self.token.reveal(), self.token_secret.reveal());
        let mut builder = oauth::Builder::new(client, oauth::HMAC_SHA1);
        builder.token(token).nonce(nonce).timestamp(timestamp).version(true);
        builder.post(url.as_str(), &())
    }
}

fn nonce() -> Result<String, Refusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Refusal::Later { after: None, why: format!("X: no random number to sign with: {error}") })?;
    Ok(crate::text::hexadecimal(&bytes))
}

/// As X stores it: composed.
fn normal(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned()
}

/// What X counts: Latin and its like 1, all else 2, an emoji 2 whatever it is made of, a link 23.
fn weight(text: &str) -> usize {
    let text = normal(text);
    let (mut sum, mut from) = (0, 0);
    for link in links::find(&text) {
        sum += plain_weight(&text[from..link.start]) + LINK;
        from = link.end;
    }
    sum + plain_weight(&text[from..])
}

fn plain_weight(text: &str) -> usize {
    let of_letter = |letter: char| match u32::from(letter) {
        0..=0x10ff | 0x2000..=0x200d | 0x2010..=0x201f | 0x2032..=0x2037 => 1,
        _ => 2,
    };
    let of_grapheme = |grapheme: &str| {
        let joins = |letter: char| matches!(letter, '\u{fe0f}' | '\u{20e3}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{1f1e6}'..='\u{1f1ff}' | '\u{e0020}'..='\u{e007f}');
        let joined = grapheme.contains('\u{200d}') && grapheme.chars().any(|letter| u32::from(letter) > 0x2100);
        let is_emoji = grapheme.chars().nth(1).is_some() && (joined || grapheme.chars().any(joins));
        if is_emoji { 2 } else { grapheme.chars().map(of_letter).sum() }
    };
    text.graphemes(true).map(of_grapheme).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_others_compute() {
        let keys = Keys {
            consumer: Secret::new("ck"),
            consumer_secret: Secret::new("cs"),
            token: Secret::new("at"),
            token_secret: Secret::new("as"),
        };
        let url = Url::parse("http://127.0.0.1:18999/2/tweets").unwrap();
        let header = keys.sign(&url, "4O702yYD5YnnHT1slJDWVJ3OWsaeZu4r", NonZeroU64::new(1_795_216_240));
        assert!(header.contains("oauth_signature=\"96k5aIyQakbfkHMJSSYViaK72jg%3D\""), "{header}");
        assert!(header.contains("oauth_version=\"1.0\""), "{header}");
    }

    #[test]
    fn weights_are_those_of_x() {
        for (text, expected) in [
            ("a".repeat(280).as_str(), 280),
            ("あ".repeat(140).as_str(), 280),
            ("é", 1),
            ("e\u{301}", 1),
            ("…", 2),
            ("–", 1),
            ("👍", 2),
            ("👍🏽", 2),
            ("👨‍👩‍👧‍👦", 2),
            ("🇯🇵", 2),
            ("1️⃣", 2),
            ("see https://blog.example.org/a-very-long-path/which-goes-on-and-on-and-on", 27),
            ("https://t.co", 23),
        ] {
            assert_eq!(weight(text), expected, "{text}");
        }
    }
}
