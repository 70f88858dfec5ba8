//! Bluesky, and other servers of its protocol: a post.
use std::time::Duration;

use async_trait::async_trait;
use chrono::SecondsFormat;
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Answer, Call},
    count, links, read, words,
};
use crate::config::{
    mistake::Problem,
    secret::{Secret, SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "bluesky",
    summary: "A post on Bluesky",
    example: r#"[notifier.feed]
kind     = "bluesky"
user     = "attic.bsky.social"        # the handle
password = { env = "BLUESKY_PASSWORD" }   # an app password, not the account's own
url      = "https://bsky.social"      # another server
"#,
    parse: read::<Bluesky>,
    schema: Bluesky::json_schema,
};

/// What a post takes: both.
const MOST_GRAPHEMES: usize = 300;
const MOST_BYTES: usize = 3000;
const POST: &str = "app.bsky.feed.post";

/// An account.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bluesky {
    /// The account's handle, such as `attic.bsky.social`.
    user: String,
    /// An app password: it can be taken back, and cannot change the account.
    password: TextOrSecret,
    /// The server [default: https://bsky.social].
    #[serde(default = "server")]
    url: TextOrSecret,
    /// A session is opened once and refreshed: opening is what a server counts most strictly.
    #[serde(skip)]
    session: Mutex<Option<Session>>,
}

fn server() -> TextOrSecret {
    TextOrSecret::Text("https://bsky.social".to_owned())
}

#[derive(Clone, Debug)]
struct Session {
    account: String,
    access: Secret,
    refresh: Secret,
}

#[async_trait]
impl Notifier for Bluesky {
    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = call::check_address("url", &self.url).into_iter().collect();
        if self.user.starts_with('@') || !self.user.contains(['.', ':']) {
            problems.push(
                Problem::new("user", format!("`{}` is no handle", self.user))
                    .hint("write it whole and without the `@`, such as `attic.bsky.social`"),
            );
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.password, &self.url])
    }

    fn spacing(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let server = call::address("url", call::read(cx, "url", &self.url).await?.reveal())?;
        let told = words::write(message);
        let text = told.whole().fit(|text| count::graphemes(text) <= MOST_GRAPHEMES && text.len() <= MOST_BYTES);
        let mut record = json!({
            "$type": POST,
            "text": text,
            "createdAt": message.now.to_rfc3339_opts(SecondsFormat::Millis, true),
            "langs": [message.language.code()],
            "facets": facets(&text),
        });
        if let Some(first) = &message.thread {
            record["reply"] = json!({ "root": first, "parent": first });
        }
        let mut held = self.session.lock().await;
        let mut session = match &*held {
            Some(session) => session.clone(),
            None => self.open(cx, &server).await?,
        };
        *held = Some(session.clone());
        let mut answer = session.put(cx, &server, &message.key, message, &record).await?;
        if is_expired(&answer) {
            session = match session.refreshed(cx, &server).await? {
                Some(session) => session,
                None => self.open(cx, &server).await?,
            };
            *held = Some(session.clone());
            answer = session.put(cx, &server, &message.key, message, &record).await?;
        }
        match answer.status.as_u16() {
            200..=299 => match answer.json().filter(|json| json.get("uri").is_some() && json.get("cid").is_some()) {
                Some(json) => {
                    let post = json!({ "uri": json["uri"], "cid": json["cid"] });
                    Ok(Receipt { reference: Some(message.thread.clone().unwrap_or(post)), cost: 0 })
                }
                None => Err(answer.not_understood()),
            },
            401 | 403 => {
                *held = None;
                Err(answer.never("look at `user` and `password`"))
            }
            _ => Err(answer.refusal()),
        }
    }
}

impl Bluesky {
    async fn open(&self, cx: &Sending, server: &Url) -> Result<Session, Refusal> {
        let password = call::read(cx, "password", &self.password).await?;
        let url = call::below(server, &["xrpc", "com.atproto.server.createSession"]);
        let body = json!({ "identifier": self.user, "password": password.reveal() });
        let answer = Call::new(cx, "Bluesky", Method::POST, url).hide(&password).json(&body).answer().await?;
        match answer.status.as_u16() {
            200..=299 => Session::read(&answer).ok_or_else(|| answer.not_understood()),
            401 => Err(answer.never("look at `user`, and make a new app password")),
            _ => Err(answer.refusal()),
        }
    }
}

impl Session {
    fn read(answer: &Answer) -> Option<Self> {
        let json = answer.json()?;
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        let (access, refresh) = (Secret::new(text("accessJwt")?), Secret::new(text("refreshJwt")?));
        Some(Self { account: text("did")?.to_owned(), access, refresh })
    }

    /// Another session for this one; none when it is too old even for that.
    async fn refreshed(&self, cx: &Sending, server: &Url) -> Result<Option<Self>, Refusal> {
        let url = call::below(server, &["xrpc", "com.atproto.server.refreshSession"]);
        let answer = Call::new(cx, "Bluesky", Method::POST, url).bearer(&self.refresh)?.answer().await?;
        match answer.status.as_u16() {
            200..=299 => Ok(Self::read(&answer)),
            400..=403 => Ok(None),
            _ => Err(answer.refusal()),
        }
    }

    /// Puts the post under a name of its own, so that a second try is the same post.
    async fn put(
        &self,
        cx: &Sending,
        server: &Url,
        key: &str,
        message: &Message,
        record: &Value,
    ) -> Result<Answer, Refusal> {
        let url = call::below(server, &["xrpc", "com.atproto.repo.putRecord"]);
        let at = message.news.first().map_or(message.now, |news| news.at);
        let body = json!({
            "repo": self.account,
            "collection": POST,
            "rkey": record_key(at.timestamp_micros(), key),
            "record": record,
        });
        Call::new(cx, "Bluesky", Method::POST, url).bearer(&self.access)?.hide(&self.refresh).json(&body).answer().await
    }
}

fn is_expired(answer: &Answer) -> bool {
    let error = answer.json().and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
    matches!(answer.status.as_u16(), 400 | 401) && matches!(error.as_deref(), Some("ExpiredToken" | "InvalidToken"))
}

/// A name as the protocol wants it for posts: 53 bits of time in microseconds and 10 that tell apart, in 13 letters that sort.
/// The time is that of the news, to the second; the rest comes of the message's key.
fn record_key(micros: i64, key: &str) -> String {
    const LETTERS: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";
    let digest = Sha256::digest(key);
    let own = u64::from_be_bytes([0, 0, 0, 0, digest[0], digest[1], digest[2], digest[3]]);
    let second = micros.max(0).unsigned_abs() / 1_000_000;
    let number = (((second * 1_000_000 + own % 1_000_000) << 10) | ((own >> 20) & 0x3ff)) & (u64::MAX >> 1);
    (0..13).rev().map(|place| char::from(LETTERS[((number >> (place * 5)) & 31) as usize])).collect()
}

/// Links that are written with their scheme, by their places in bytes: without these they would be dead text.
fn facets(text: &str) -> Vec<Value> {
    let written = links::find(text).into_iter().filter(|link| text[link.clone()].contains("://"));
    let facet = |link: std::ops::Range<usize>| {
        json!({
            "index": { "byteStart": link.start, "byteEnd": link.end },
            "features": [{ "$type": "app.bsky.richtext.facet#link", "uri": &text[link] }],
        })
    };
    written.map(facet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_name_for_ever_and_no_other_has_it() {
        let at = 1_795_791_600_123_456;
        assert_eq!(record_key(at, "incident-7:failed"), record_key(at + 500_000, "incident-7:failed"));
        assert_ne!(record_key(at, "incident-7:failed"), record_key(at, "incident-7:recovered"));
        let key = record_key(at, "a");
        assert_eq!(key.len(), 13);
        assert!(key.starts_with(|first: char| ('2'..='j').contains(&first)), "{key}");
        assert!(record_key(at, "b") < record_key(at + 60_000_000, "a"));
    }

    #[test]
    fn links_are_told_by_their_bytes() {
        let text = "停止: https://a.example/b。次";
        let facets = facets(text);
        let (start, end) = (&facets[0]["index"]["byteStart"], &facets[0]["index"]["byteEnd"]);
        let range = usize::try_from(start.as_u64().unwrap()).unwrap()..usize::try_from(end.as_u64().unwrap()).unwrap();
        assert_eq!(&text[range], "https://a.example/b");
        assert_eq!(facets.len(), 1);
    }
}
