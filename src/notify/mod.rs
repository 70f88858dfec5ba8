//! Telling people. A notifier is a struct in a file of its own, one line in [`NOTIFIERS`], and its section in `docs/notifiers.md`.
//!
//! A notifier sends one message and says what became of it; who is told what and when, and trying again, is not its business. It sees
//! neither jobs nor the ledger: what it must remember goes through [`Memory`].
mod apprise;
mod bluesky;
mod call;
mod clean;
mod command;
mod count;
pub mod delivery;
mod discord;
mod email;
mod gotify;
mod healthchecks;
mod limit;
mod links;
mod mastodon;
mod matrix;
mod misskey;
mod money;
mod ntfy;
pub mod plan;
pub mod routes;
pub mod settings;
mod slack;
mod teams;
mod telegram;
mod webhook;
pub mod words;
mod x;

use std::{fmt::Debug, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{
        mistake::Problem,
        secret::{Redactor, SecretReader, SecretSource},
    },
    model::news::News,
    text,
};
use words::{Language, Template};

/// How long one call to a service may take, all in all.
pub const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Somewhere that messages go, read from `[notifier.NAME]` and ready to send.
#[async_trait]
pub trait Notifier: Send + Sync + Debug {
    /// What only shows when the values are seen together; keys are those of its own table. No IO.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The secrets it reads, to be removed from all that is said.
    fn secrets(&self) -> Vec<SecretSource> {
        Vec::new()
    }

    /// At least so long lies between two messages: the service's own limit.
    fn spacing(&self) -> Duration {
        Duration::ZERO
    }

    /// Sends one message, once. It can be asked for again with the same key, after [`Refusal::Later`] or a crash; where the
    /// service has a means for it, people see the message only once all the same.
    ///
    /// # Errors
    /// When it was not sent, or nobody knows; whose fault that is, and in words that hold no secret.
    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal>;
}

/// What a notifier is given to send with.
#[derive(Clone, Debug)]
pub struct Sending {
    /// The one HTTP client.
    pub http: reqwest::Client,
    /// Reads secrets.
    pub secrets: SecretReader,
    /// Removes the secrets of the settings.
    pub redactor: Redactor,
    /// The time.
    pub clock: Clock,
    /// The home folder: relative paths in the settings start here.
    pub home: PathBuf,
    /// Set when Rusuban is to end.
    pub cancelled: CancellationToken,
    /// How long one call may take: [`TIME_LIMIT`], less in tests.
    pub time_limit: Duration,
    /// What this notifier remembers.
    pub memory: Arc<dyn Memory>,
}

impl Sending {
    /// What this notifier remembered under `key`. A memory that cannot be read is an empty one: a message matters more.
    pub async fn state(&self, key: &str) -> Option<Value> {
        self.memory.state(key).await.unwrap_or_else(|error| {
            tracing::warn!(key, error = format!("{error:#}"), "what a notifier remembered cannot be read");
            None
        })
    }

    /// Remembers something for later messages of this notifier.
    pub async fn remember(&self, key: &str, value: Value) {
        if let Err(error) = self.memory.remember(key, value).await {
            tracing::warn!(key, error = format!("{error:#}"), "what a notifier is to remember cannot be written");
        }
    }
}

/// What one notifier remembers between messages: what it has spent, a session, what a server allows. Not seen by others.
#[async_trait]
pub trait Memory: Send + Sync + Debug {
    /// What was remembered under `key`.
    async fn state(&self, key: &str) -> anyhow::Result<Option<Value>>;

    /// Remembers it.
    async fn remember(&self, key: &str, value: Value) -> anyhow::Result<()>;
}

/// What is to be told, to one notifier, at once.
#[derive(Clone, Debug)]
pub struct Message {
    /// What tells it from all others, for ever; the same for each try of it, and then the news are the same too.
    pub key: String,
    /// What happened: one thing, or several that are told together, the oldest first. Never empty.
    pub news: Vec<News>,
    /// In which language.
    pub language: Language,
    /// In words of the owner's own.
    pub template: Option<Arc<Template>>,
    /// What the first message of the incident left as [`Receipt::reference`]: this one answers it, where the service can do that.
    pub thread: Option<Value>,
    /// This host's name.
    pub host: String,
    /// Times are told in this zone.
    pub time_zone: Tz,
    /// When it is told.
    pub now: DateTime<Utc>,
    /// Why it is told later than it happened, if it is.
    pub delay: Option<Delay>,
}

/// Why something is told late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// It could not be sent before: our line or the service was down.
    Line,
    /// It came in quiet hours.
    Quiet,
    /// The notifier had told enough for a while.
    Limit,
}

/// What came of a message that was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Receipt {
    /// What a later message of the same incident needs to answer this one: [`Message::thread`].
    pub reference: Option<Value>,
    /// What it cost, in millionths of a dollar.
    pub cost: u64,
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It may go better later: the line, a busy server, too many messages. It may even have arrived.
    #[error("{why}")]
    Later {
        /// Not before this time, by the service's own word.
        after: Option<Duration>,
        /// In words.
        why: String,
    },
    /// This message will not be taken, but others may: too long, too dear. It is given up, and told through another notifier.
    #[error("{why}")]
    NotThis {
        /// In words.
        why: String,
    },
    /// No message will be taken until the settings change or a person does something: a wrong password, a channel that is gone.
    #[error("{why}")]
    Never {
        /// In words.
        why: String,
    },
}

/// A member of [`NOTIFIERS`].
pub struct NotifierEntry {
    /// Its name in `kind = "…"`.
    pub name: &'static str,
    /// One line for a list.
    pub summary: &'static str,
    /// Its table as one writes it, which is also in `docs/notifiers.md`.
    pub example: &'static str,
    /// Reads the notifier's own keys.
    pub parse: fn(toml::Deserializer<'_>) -> Result<Arc<dyn Notifier>, toml::de::Error>,
    /// Their JSON schema.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

/// The notifiers.
pub const NOTIFIERS: &[NotifierEntry] = &[
    apprise::ENTRY,
    bluesky::ENTRY,
    command::ENTRY,
    discord::ENTRY,
    email::ENTRY,
    gotify::ENTRY,
    healthchecks::ENTRY,
    mastodon::ENTRY,
    matrix::ENTRY,
    misskey::ENTRY,
    ntfy::ENTRY,
    slack::ENTRY,
    teams::ENTRY,
    telegram::ENTRY,
    webhook::ENTRY,
    x::ENTRY,
];

/// The notifier of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static NotifierEntry> {
    NOTIFIERS.iter().find(|entry| entry.name == name)
}

/// A message's name for a service that tells messages apart by it: 32 hexadecimal digits, the same for each try.
fn name(key: &str) -> String {
    text::hexadecimal(&Sha256::digest(key)[..16])
}

/// A message's mark for people, so short that it fits everywhere: services that refuse the same text twice take it.
fn mark(key: &str) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    Sha256::digest(key).iter().take(4).map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// Reads a notifier's own keys: [`NotifierEntry::parse`] of every one.
///
/// # Errors
/// Where the keys do not fit, with their place.
pub fn read<N: Notifier + serde::de::DeserializeOwned + 'static>(
    keys: toml::Deserializer<'_>,
) -> Result<Arc<dyn Notifier>, toml::de::Error> {
    Ok(Arc::new(N::deserialize(keys)?))
}
