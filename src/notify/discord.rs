//! Discord, by a webhook.
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

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
    name: "discord",
    summary: "A channel of Discord, by a webhook",
    example: r#"[notifier.guild]
kind = "discord"
url  = { env = "DISCORD_WEBHOOK" }    # https://discord.com/api/webhooks/…
"#,
    parse: read::<Discord>,
    schema: Discord::json_schema,
};

/// What a message takes, in the strictest way of counting.
const MOST: usize = 2000;
/// No previews of links that stand in the text.
const WITHOUT_PREVIEWS: u32 = 1 << 2;

/// A webhook.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Discord {
    /// The webhook's address, which is a secret: whoever has it can write into the channel.
    url: TextOrSecret,
    /// The thread in the channel, by its number.
    #[serde(default)]
    thread: Option<String>,
}

#[async_trait]
impl Notifier for Discord {
    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = call::check_address("url", &self.url).into_iter().collect();
        if self.thread.as_ref().is_some_and(|thread| thread.is_empty() || !thread.bytes().all(|b| b.is_ascii_digit())) {
            problems.push(Problem::new("thread", "a thread is named by its number").hint("copy its ID, a long number"));
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.url])
    }

    fn spacing(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let secret = call::read(cx, "url", &self.url).await?;
        let mut url = call::address("url", secret.reveal())?;
        // Waiting makes it say whether the message was taken.
        url.query_pairs_mut().append_pair("wait", "true");
        if let Some(thread) = &self.thread {
            url.query_pairs_mut().append_pair("thread_id", thread);
        }
        let told = words::write(message);
        let title = count::cut(&told.title, |text| count::utf16(text) <= 250);
        let write = |text: &str| format!("**{}**\n{}", clean::markdown(&title), clean::markdown(text));
        let body = json!({
            "content": write(&told.below_title().fit(|text| count::utf16(&write(text)) <= MOST)),
            "allowed_mentions": { "parse": [] },
            "flags": WITHOUT_PREVIEWS,
        });
        let answer = Call::new(cx, "Discord", Method::POST, url).hide_address(&secret).json(&body).answer().await?;
        let json = answer.json().unwrap_or_default();
        match answer.status.as_u16() {
            200..=299 if json.get("id").is_some() => Ok(Receipt::default()),
            200..=299 => Err(answer.not_understood()),
            401 | 403 | 404 => Err(answer.never("make a new webhook and set `url`")),
            429 => {
                let after = json.get("retry_after").and_then(serde_json::Value::as_f64);
                Err(answer.later(after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())))
            }
            _ => Err(answer.refusal()),
        }
    }
}
