//! ntfy: a message to everybody who listens to a topic.
use std::time::Duration;

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
    name: "ntfy",
    summary: "A topic of ntfy, on ntfy.sh or a server of one's own",
    example: r#"[notifier.phone]
kind  = "ntfy"
topic = { env = "NTFY_TOPIC" }        # whoever knows it can listen
token = { env = "NTFY_TOKEN" }        # where the server asks for one
url   = "https://ntfy.sh"             # another server
"#,
    parse: read::<Ntfy>,
    schema: Ntfy::json_schema,
};

/// What the service takes.
const MOST_BYTES: usize = 4096;
const MOST_TITLE: usize = 250;

/// A topic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ntfy {
    /// The topic; whoever knows it can listen.
    topic: TextOrSecret,
    /// An access token, where the server asks for one.
    #[serde(default)]
    token: Option<TextOrSecret>,
    /// The server [default: https://ntfy.sh].
    #[serde(default = "server")]
    url: TextOrSecret,
}

fn server() -> TextOrSecret {
    TextOrSecret::Text("https://ntfy.sh".to_owned())
}

#[async_trait]
impl Notifier for Ntfy {
    fn check(&self) -> Vec<Problem> {
        call::check_address("url", &self.url).into_iter().collect()
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.topic, &self.url].into_iter().chain(&self.token))
    }

    fn spacing(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let topic = call::read(cx, "topic", &self.topic).await?;
        let url = call::address("url", call::read(cx, "url", &self.url).await?.reveal())?;
        let told = words::write(message);
        let tag = match told.mood {
            Mood::Good => "white_check_mark",
            Mood::Bad => "rotating_light",
            Mood::Neutral => "information_source",
        };
        let priority = match (told.mood, told.severity) {
            (Mood::Bad, Severity::Critical) => 5,
            (Mood::Bad, Severity::Warning) => 4,
            (Mood::Neutral, Severity::Info) => 2,
            _ => 3,
        };
        let body = json!({
            "topic": topic.reveal(),
            "title": count::cut(&told.title, |text| count::bytes(text) <= MOST_TITLE),
            "message": told.below_title().fit(|text| count::bytes(text) <= MOST_BYTES),
            "priority": priority,
            "tags": [tag],
        });
        let mut call = Call::new(cx, "ntfy", Method::POST, url).hide(&topic).json(&body);
        if let Some(token) = &self.token {
            call = call.bearer(&call::read(cx, "token", token).await?)?;
        }
        let answer = call.done().await?;
        // A proxy's page of welcome is a 200 too.
        match answer.json().filter(|json| json.get("id").is_some()) {
            Some(_) => Ok(Receipt::default()),
            None => Err(answer.not_understood()),
        }
    }
}
