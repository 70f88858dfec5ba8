//! Gotify: a server of one's own that pushes to phones.
use async_trait::async_trait;
use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Call},
    count, read,
    words::{self, Mood},
};
use crate::{
    config::{
        mistake::Problem,
        secret::{SecretSource, TextOrSecret},
    },
    model::news::Severity,
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "gotify",
    summary: "A Gotify server",
    example: r#"[notifier.push]
kind  = "gotify"
url   = "https://gotify.example.org"
token = { env = "GOTIFY_TOKEN" }      # of an application
"#,
    parse: read::<Gotify>,
    schema: Gotify::json_schema,
};

/// No limit is told; a phone shows less.
const MOST_BYTES: usize = 16_000;

/// A server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Gotify {
    /// The server's address.
    url: TextOrSecret,
    /// The token of an application.
    token: TextOrSecret,
}

#[async_trait]
impl Notifier for Gotify {
    fn check(&self) -> Vec<Problem> {
        call::check_address("url", &self.url).into_iter().collect()
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.url, &self.token])
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let token = call::read(cx, "token", &self.token).await?;
        let server = call::address("url", call::read(cx, "url", &self.url).await?.reveal())?;
        let told = words::write(message);
        let priority = match (told.mood, told.severity) {
            (Mood::Bad, Severity::Critical) => 8,
            (Mood::Bad, _) => 5,
            (Mood::Good, _) => 4,
            (Mood::Neutral, _) => 2,
        };
        let body = json!({
            "title": count::cut(&told.title, |text| count::bytes(text) <= 500),
            "message": told.below_title().fit(|text| count::bytes(text) <= MOST_BYTES),
            "priority": priority,
        });
        let call = Call::new(cx, "Gotify", Method::POST, call::below(&server, &["message"])).hide(&token);
        let answer = call.header("x-gotify-key", token.reveal())?.json(&body).done().await?;
        match answer.json().filter(|json| json.get("id").is_some()) {
            Some(_) => Ok(Receipt::default()),
            None => Err(answer.not_understood()),
        }
    }
}
