//! Misskey, and what speaks its API: a note.
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Answer, Call},
    clean, count, limit, read, words,
};
use crate::config::{
    mistake::Problem,
    secret::{Secret, SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "misskey",
    summary: "A note on Misskey",
    example: r#"[notifier.feed]
kind       = "misskey"
url        = "https://misskey.example"
token      = { env = "MISSKEY_TOKEN" }    # with the right to write notes
visibility = "home"                   # public, home or followers
local      = true                     # not handed on to other servers
"#,
    parse: read::<Misskey>,
    schema: Misskey::json_schema,
};

/// What a server takes that does not say.
const MOST: usize = 3000;

/// An account.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Misskey {
    /// The server.
    url: TextOrSecret,
    /// The access token, with the right to write notes.
    token: TextOrSecret,
    /// Who sees it [default: home].
    #[serde(default)]
    visibility: Visibility,
    /// Whether it stays on this server [default: false].
    #[serde(default)]
    local: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Visibility {
    /// Everybody, in the public timelines too.
    Public,
    /// Everybody, but only in followers' timelines.
    #[default]
    Home,
    /// Followers.
    Followers,
}

#[async_trait]
impl Notifier for Misskey {
    fn check(&self) -> Vec<Problem> {
        call::check_address("url", &self.url).into_iter().collect()
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.url, &self.token])
    }

    fn spacing(&self) -> Duration {
        // Three hundred an hour.
        Duration::from_secs(12)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let token = call::read(cx, "token", &self.token).await?;
        let server = call::address("url", call::read(cx, "url", &self.url).await?.reveal())?;
        let most = limit::of_server(cx, MOST, most(cx, &server)).await;
        let text = words::write(message).whole().fit(|text| count::code_points(&clean::without_mentions(text)) <= most);
        let first = message.thread.as_ref().and_then(|thread| thread.get("note")).and_then(Value::as_str);
        let mut body = json!({
            "i": token.reveal(),
            "text": clean::without_mentions(&text),
            "visibility": self.visibility,
            "localOnly": self.local,
        });
        if let Some(first) = first {
            body["replyId"] = first.into();
        }
        let mut answer = create(cx, &server, &token, &body).await?;
        if first.is_some() && code(&answer).as_deref() == Some("NO_SUCH_REPLY_TARGET") {
            if let Some(body) = body.as_object_mut() {
                body.remove("replyId");
            }
            answer = create(cx, &server, &token, &body).await?;
        }
        match answer.status.as_u16() {
            200..=299 => {
                match answer.json().and_then(|json| Some(json.pointer("/createdNote/id")?.as_str()?.to_owned())) {
                    Some(note) => {
                        let first = first.map_or(note, str::to_owned);
                        Ok(Receipt { reference: Some(json!({ "note": first })), cost: 0 })
                    }
                    None => Err(answer.not_understood()),
                }
            }
            429 => {
                let reset = answer.json().and_then(|json| json.pointer("/error/info/resetMs")?.as_i64());
                let after = reset
                    .map(|reset| Duration::from_millis((reset - message.now.timestamp_millis()).max(0).unsigned_abs()));
                Err(answer.later(after))
            }
            401 | 403 => Err(answer.never("look at `token`: it needs the right to write notes")),
            _ => Err(answer.refusal()),
        }
    }
}

async fn create(cx: &Sending, server: &Url, token: &Secret, body: &Value) -> Result<Answer, Refusal> {
    let url = call::below(server, &["api", "notes", "create"]);
    Call::new(cx, "Misskey", Method::POST, url).hide(token).json(body).answer().await
}

fn code(answer: &Answer) -> Option<String> {
    Some(answer.json()?.pointer("/error/code")?.as_str()?.to_owned())
}

/// How long a note may be on this server, in its own words.
async fn most(cx: &Sending, server: &Url) -> Option<u64> {
    let call = Call::new(cx, "Misskey", Method::POST, call::below(server, &["api", "meta"]));
    call.json(&json!({ "detail": false })).done().await.ok()?.json()?.get("maxNoteTextLength")?.as_u64()
}
