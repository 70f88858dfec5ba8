//! Pings as healthchecks.io understands them, and what is compatible: a service outside that watches over one thing of ours.
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Call},
    count, read,
    words::{self, Mood},
};
use crate::config::{
    mistake::Problem,
    secret::{SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "healthchecks",
    summary: "A check of healthchecks.io or a server like it: failure and success",
    example: r#"[notifier.pager]
kind = "healthchecks"
url  = { env = "HEALTHCHECK_URL" }    # https://hc-ping.com/…; one for each job that is told there
"#,
    parse: read::<Healthchecks>,
    schema: Healthchecks::json_schema,
};

/// What servers keep of a ping's body, with certainty.
const MOST_BYTES: usize = 10_000;

/// A check somewhere else.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Healthchecks {
    /// The address of the check, which is a secret.
    url: TextOrSecret,
}

#[async_trait]
impl Notifier for Healthchecks {
    fn check(&self) -> Vec<Problem> {
        call::check_address("url", &self.url).into_iter().collect()
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.url])
    }

    fn spacing(&self) -> Duration {
        // Five a minute.
        Duration::from_secs(12)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let secret = call::read(cx, "url", &self.url).await?;
        let check = call::address("url", secret.reveal())?;
        let told = words::write(message);
        let url = match told.mood {
            Mood::Bad => call::below(&check, &["fail"]),
            Mood::Good => check,
            Mood::Neutral => call::below(&check, &["log"]),
        };
        let body = told.whole().fit(|text| count::bytes(text) <= MOST_BYTES);
        let call = Call::new(cx, "the ping's server", Method::POST, url).hide_address(&secret);
        let answer = call.body("text/plain; charset=utf-8", body.into_bytes()).done().await?;
        let said = String::from_utf8_lossy(&answer.body);
        if said.contains("not found") {
            return Err(answer.never("there is no such check: look at `url`"));
        }
        if said.contains("rate limited") {
            return Err(answer.later(None));
        }
        let is_ok = said.trim_start().starts_with("OK")
            || answer.json().is_some_and(|json| json.get("ok") == Some(&Value::Bool(true)));
        if is_ok { Ok(Receipt::default()) } else { Err(answer.not_understood()) }
    }
}
