//! The Apprise API: one server of one's own that speaks to a hundred services more.
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
use crate::config::{
    mistake::Problem,
    secret::{SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "apprise",
    summary: "A server of the Apprise API, and through it over a hundred services more",
    example: r#"[notifier.others]
kind = "apprise"
url  = "http://apprise:8000"
key  = { env = "APPRISE_KEY" }        # of a configuration that is kept there; or urls = { env = "APPRISE_URLS" }
tag  = "admins"
"#,
    parse: read::<Apprise>,
    schema: Apprise::json_schema,
};

/// The services behind it cut as they must.
const MOST_BYTES: usize = 16_000;

/// A server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Apprise {
    /// The server's address.
    url: TextOrSecret,
    /// The key of a configuration that the server keeps.
    #[serde(default)]
    key: Option<TextOrSecret>,
    /// Without a key: the services' Apprise addresses, with commas.
    #[serde(default)]
    urls: Option<TextOrSecret>,
    /// Of that configuration, those with this tag.
    #[serde(default)]
    tag: Option<String>,
}

#[async_trait]
impl Notifier for Apprise {
    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = call::check_address("url", &self.url).into_iter().collect();
        match (&self.key, &self.urls) {
            (None, None) => problems.push(
                Problem::new("", "it does not say to whom")
                    .hint("write the `key` of a configuration that the server keeps, or the services' `urls`"),
            ),
            (Some(_), Some(_)) => {
                problems.push(Problem::new("urls", "`key` and `urls` are both given").hint("keep one of the two"));
            }
            _ => {}
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.url].into_iter().chain(&self.key).chain(&self.urls))
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let server = call::address("url", call::read(cx, "url", &self.url).await?.reveal())?;
        let told = words::write(message);
        let mut body = json!({
            "title": count::cut(&told.title, |text| count::bytes(text) <= 250),
            "body": told.below_title().fit(|text| count::bytes(text) <= MOST_BYTES),
            "type": match told.mood {
                Mood::Bad => "failure",
                Mood::Good => "success",
                Mood::Neutral => "info",
            },
            "format": "text",
        });
        if let Some(tag) = &self.tag {
            body["tag"] = tag.as_str().into();
        }
        let (url, hidden) = match (&self.key, &self.urls) {
            (Some(key), _) => {
                let key = call::read(cx, "key", key).await?;
                (call::below(&server, &["notify", key.reveal()]), Some(key))
            }
            (None, Some(urls)) => {
                let urls = call::read(cx, "urls", urls).await?;
                body["urls"] = urls.reveal().into();
                (call::below(&server, &["notify"]), Some(urls))
            }
            (None, None) => (call::below(&server, &["notify"]), None),
        };
        let mut call = Call::new(cx, "the Apprise server", Method::POST, url).json(&body);
        if let Some(hidden) = &hidden {
            call = call.hide(hidden);
        }
        let answer = call.header("accept", "application/json")?.answer().await?;
        match answer.status.as_u16() {
            // Its answers are JSON, or a line of text in old versions.
            200 if answer.json().is_some_and(|json| json.is_object()) || answer.body.starts_with(b"Notification") => {
                Ok(Receipt::default())
            }
            204 => Err(answer.never("the server has no configuration under that `key`, or none with that `tag`")),
            200..=299 => Err(answer.not_understood()),
            // One of the services behind it did not take it.
            424 => Err(answer.later(None)),
            _ => Err(answer.refusal()),
        }
    }
}
