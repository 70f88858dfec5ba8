//! Slack, by an incoming webhook.
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Call},
    clean, count, read,
    words::{self, Told},
};
use crate::config::{
    mistake::Problem,
    secret::{SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "slack",
    summary: "A channel of Slack, by an incoming webhook",
    example: r#"[notifier.team]
kind = "slack"
url  = { env = "SLACK_WEBHOOK" }      # https://hooks.slack.com/services/…
"#,
    parse: read::<Slack>,
    schema: Slack::json_schema,
};

/// What a section of text and a header take.
const MOST: usize = 3000;
const MOST_TITLE: usize = 150;

/// A webhook.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Slack {
    /// The webhook's address, which is a secret: whoever has it can write into the channel.
    url: TextOrSecret,
}

#[async_trait]
impl Notifier for Slack {
    fn check(&self) -> Vec<Problem> {
        call::check_address("url", &self.url).into_iter().collect()
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.url])
    }

    fn spacing(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let secret = call::read(cx, "url", &self.url).await?;
        let url = call::address("url", secret.reveal())?;
        let told = words::write(message);
        let body = told.below_title().fit(|text| count::utf16(&clean::slack(text)) <= MOST);
        let body = json!({
            "text": fallback(&told),
            "blocks": [
                { "type": "header", "text": {
                    "type": "plain_text",
                    "text": count::cut(&told.title, |text| count::utf16(text) <= MOST_TITLE),
                    "emoji": false,
                }},
                // Verbatim: names of channels and people that stand in it are not looked up.
                { "type": "section", "text": { "type": "mrkdwn", "text": clean::slack(&body), "verbatim": true } },
            ],
        });
        let answer = Call::new(cx, "Slack", Method::POST, url).hide_address(&secret).json(&body).answer().await?;
        match (answer.status.as_u16(), answer.body.as_slice()) {
            (200, b"ok") => Ok(Receipt::default()),
            (200..=299, _) => Err(answer.not_understood()),
            (403 | 404 | 410, _) => Err(answer.never("make a new webhook and set `url`")),
            _ => Err(answer.refusal()),
        }
    }
}

/// What is shown where blocks are not, such as on a locked screen.
pub(super) fn fallback(told: &Told) -> String {
    clean::slack(&told.whole().fit(|text| count::utf16(&clean::slack(text)) <= MOST))
}
