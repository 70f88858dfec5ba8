//! What the engine says as it happens.
use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Engine, EngineError, PATIENCE};
use crate::http;

/// A line longer than this is no event.
const LONGEST: usize = 1 << 20;

/// Events that are read of one container at once.
const MOST: usize = 1000;
/// What is heard of all containers and of their places in networks. Not the commands in them: a health check alone says three
/// times each time that it looks, and the engine remembers no more than 256 events.
const FOLLOWED: [&str; 12] = [
    "start",
    "die",
    "destroy",
    "oom",
    "health_status",
    "rename",
    "kill",
    "stop",
    "pause",
    "unpause",
    "connect",
    "disconnect",
];

/// Something that happened to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What: `pause`, `die`, `health_status: healthy` …
    pub action: String,
    /// When, in nanoseconds since 1970, by the engine's clock.
    pub at: i64,
    /// The container's 64 hexadecimal digits.
    pub id: String,
    /// What else is said of it: its `name`, its `exitCode`, the `signal` it was sent, and its labels.
    pub attributes: BTreeMap<String, String>,
}

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    unread: Vec<u8>,
}

impl Engine {
    /// What happens from now on to a container, of these kinds.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn events(&self, container: &str, kinds: &[&str]) -> Result<Events, EngineError> {
        let filters = json!({ "type": ["container"], "container": [container], "event": kinds }).to_string();
        let response = self.open(Method::GET, "/events", &[("filters", &filters)], None).await?;
        Ok(Events { response, unread: Vec::new() })
    }
}

impl Engine {
    /// What happened to a container between two moments, as far as the engine remembers: it ends by itself.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn happened(
        &self,
        container: &str,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Vec<Event>, EngineError> {
        let filters = json!({ "type": ["container"], "container": [container] }).to_string();
        let (since, until) = (since.timestamp().to_string(), until.timestamp().to_string());
        let query = [("since", since.as_str()), ("until", &until), ("filters", &filters)];
        let response = self.open(Method::GET, "/events", &query, None).await?;
        let (mut events, mut all) = (Events { response, unread: Vec::new() }, Vec::new());
        while let Some(event) = events.next().await? {
            if all.len() >= MOST {
                break;
            }
            all.push(event);
        }
        Ok(all)
    }

    /// What happens from `since` on to any container: nanoseconds since 1970, by the engine's clock. What it remembers of the time
    /// before now comes first.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn all_events(&self, since: Option<i64>) -> Result<Events, EngineError> {
        let filters = json!({ "type": ["container", "network"], "event": FOLLOWED }).to_string();
        let since = since.map(|at| format!("{}.{:09}", at.div_euclid(SECOND), at.rem_euclid(SECOND)));
        let mut query = vec![("filters", filters.as_str())];
        query.extend(since.iter().map(|since| ("since", since.as_str())));
        // The engine sends the head of its answer at once, whether there is anything to say or not.
        let opening = self.open(Method::GET, "/events", &query, None);
        let response = tokio::time::timeout(PATIENCE, opening).await.map_err(|_| EngineError::Silent(PATIENCE))??;
        Ok(Events { response, unread: Vec::new() })
    }
}

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

impl Events {
    /// The next one; none when the engine has ended the stream.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Event>, EngineError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                if let Some(event) = serde_json::from_slice(&line).ok().as_ref().and_then(read) {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.unread.len() > LONGEST {
                return Err(EngineError::Broken("an event has no end".to_owned()));
            }
            match self.response.chunk().await.map_err(|error| EngineError::Broken(http::why(error)))? {
                Some(chunk) => self.unread.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// What has happened until this `last` action, or until nothing more has come for `silence`.
    pub async fn until(mut self, last: &str, silence: Duration) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        while events.last().is_none_or(|event| event.action != last)
            && let Ok(Ok(Some(event))) = tokio::time::timeout(silence, self.next()).await
        {
            events.push(event);
        }
        events
    }
}

fn read(said: &Value) -> Option<Event> {
    let said_of_it = said["Actor"]["Attributes"].as_object().into_iter().flatten();
    let attributes: BTreeMap<String, String> =
        said_of_it.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect();
    let id = match (said["Type"].as_str(), attributes.get("container")) {
        (Some("network"), Some(container)) => container.clone(),
        _ => said["Actor"]["ID"].as_str().unwrap_or_default().to_owned(),
    };
    // Podman's own word.
    let action = said["Action"].as_str().map(|action| if action == "remove" { "destroy" } else { action })?;
    Some(Event { action: action.to_owned(), at: said["timeNano"].as_i64()?, id, attributes })
}
