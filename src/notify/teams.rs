//! Microsoft Teams, by the webhook of a workflow, which takes adaptive cards.
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Call},
    clean, count, read,
    words::{self, Mood},
};
use crate::config::{
    mistake::Problem,
    secret::{SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "teams",
    summary: "A channel or chat of Microsoft Teams, by the webhook of a workflow",
    example: r#"[notifier.office]
kind = "teams"
url  = { file = "secrets/teams" }     # of the workflow "when a webhook request is received"
"#,
    parse: read::<Teams>,
    schema: Teams::json_schema,
};

/// A card takes 28 KB with all that is around the text.
const MOST_BYTES: usize = 20_000;

/// A workflow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Teams {
    /// The workflow's address, which is a secret: whoever has it can write into the channel.
    url: TextOrSecret,
}

#[async_trait]
impl Notifier for Teams {
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
        let colour = match told.mood {
            Mood::Good => "Good",
            Mood::Bad => "Attention",
            Mood::Neutral => "Default",
        };
        let title = count::cut(&told.title, |text| count::bytes(text) <= 500);
        let block = |text: &str| json!({ "type": "TextBlock", "text": clean::markdown(text), "wrap": true });
        let blocks = |text: &str| text.lines().map(block).collect::<Vec<Value>>();
        let body = told.below_title().fit(|text| Value::from(blocks(text)).to_string().len() <= MOST_BYTES);
        let mut shown = vec![json!({
            "type": "TextBlock", "text": clean::markdown(&title), "wrap": true,
            "size": "Medium", "weight": "Bolder", "color": colour,
        })];
        shown.extend(blocks(&body));
        let card = json!({
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": shown,
            "msteams": { "width": "Full" },
        });
        let body = json!({
            "type": "message",
            "attachments": [{ "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card }],
        });
        let answer = Call::new(cx, "Teams", Method::POST, url).hide_address(&secret).json(&body).answer().await?;
        match (answer.status.as_u16(), answer.body.trim_ascii()) {
            // A workflow has accepted it; an old connector has written it.
            (202, _) | (200, b"" | b"1") => Ok(Receipt::default()),
            // Connectors say so within a 200 when Teams itself was too busy.
            (200..=299, _) => Err(answer.not_understood()),
            (401 | 403 | 404 | 410, _) => Err(answer.never("make the workflow anew and set `url`")),
            _ => Err(answer.refusal()),
        }
    }
}
