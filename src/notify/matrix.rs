//! Matrix: a room.
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Call},
    clean, count, read, words,
};
use crate::config::{
    mistake::Problem,
    secret::{SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "matrix",
    summary: "A room of Matrix",
    example: r#"[notifier.room]
kind  = "matrix"
url   = "https://matrix.example.org"  # the homeserver
room  = "!abcdefg:example.org"        # its inner name: room settings, Advanced
token = { env = "MATRIX_TOKEN" }
"#,
    parse: read::<Matrix>,
    schema: Matrix::json_schema,
};

/// An event takes 64 KiB, and the text is in it twice.
const MOST_BYTES: usize = 16_000;

/// A room.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Matrix {
    /// The homeserver's address.
    url: TextOrSecret,
    /// The room's inner name: `!…`.
    room: String,
    /// The access token.
    token: TextOrSecret,
}

#[async_trait]
impl Notifier for Matrix {
    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = call::check_address("url", &self.url).into_iter().collect();
        if !self.room.starts_with('!') {
            problems.push(
                Problem::new("room", format!("`{}` is not a room's inner name", self.room))
                    .hint("it begins with `!`, and stands in the room's settings under Advanced"),
            );
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.url, &self.token])
    }

    fn spacing(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let token = call::read(cx, "token", &self.token).await?;
        let server = call::address("url", call::read(cx, "url", &self.url).await?.reveal())?;
        // The server takes one message only for each name of a transaction.
        let transaction = super::name(&message.key);
        let path = ["_matrix", "client", "v3", "rooms", &self.room, "send", "m.room.message", &transaction];
        let told = words::write(message);
        let title = count::cut(&told.title, |text| count::bytes(text) <= 500);
        let text = told.below_title().fit(|text| count::bytes(&clean::html(text)) <= MOST_BYTES);
        let mut body = json!({
            "msgtype": "m.text",
            "body": format!("{title}\n{text}"),
            "format": "org.matrix.custom.html",
            "formatted_body": format!("<b>{}</b><br>{}", clean::html(&title), clean::html(&text).replace('\n', "<br>")),
            "m.mentions": {},
        });
        let first = message.thread.as_ref().and_then(|thread| thread.get("event")).and_then(Value::as_str);
        if let Some(first) = first {
            body["m.relates_to"] = json!({ "m.in_reply_to": { "event_id": first } });
        }
        let call = Call::new(cx, "Matrix", Method::PUT, call::below(&server, &path)).bearer(&token)?;
        let answer = call.json(&body).answer().await?;
        let json = answer.json().unwrap_or_default();
        match answer.status.as_u16() {
            200..=299 => match json.get("event_id").and_then(Value::as_str) {
                Some(event) => Ok(Receipt { reference: Some(json!({ "event": first.unwrap_or(event) })), cost: 0 }),
                None => Err(answer.not_understood()),
            },
            401 => Err(answer.never("look at `token`")),
            403 | 404 => Err(answer.never("is the account a member of `room`, and may it write there?")),
            429 => {
                let after = json.get("retry_after_ms").and_then(Value::as_u64);
                Err(answer.later(after.map(Duration::from_millis)))
            }
            _ => Err(answer.refusal()),
        }
    }
}
