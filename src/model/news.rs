//! News: what people may want to be told, as facts. They are written in the transaction of what they are about; texts are made
//! of them only when they are sent, in the reader's language, so that what could not be sent for a while is told as it is then.
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{JobName, RunId};

/// The number of an incident in the ledger: from a check's first failure to its recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub i64);

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct News {
    /// What it is about.
    pub about: About,
    /// What happened.
    pub event: Event,
    /// How much it matters.
    pub severity: Severity,
    /// When it happened, which may be long before it is told.
    pub at: DateTime<Utc>,
    /// When what it is about began: the first failing check, the first failed run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// The incident it belongs to: its beginning, reminders and end are told in one thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// One line that says what was found or done, such as `the page lacks "Welcome"`; secrets removed.
    pub what: String,
    /// Why, as far as is known; the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// What a person can do, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<Offer>,
    /// Further lines, those of a report for example.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

impl News {
    /// What they belong to, if it has a beginning and an end: an incident, a time in which a job fails. Told in one thread.
    #[must_use]
    pub fn story(&self) -> Option<String> {
        if let Some(IncidentId(incident)) = self.incident {
            return Some(format!("incident:{incident}"));
        }
        Some(format!("{}:{}", self.about, self.since?.timestamp_millis()))
    }

    /// What tells them from all others, for ever: the same news, made again after a crash, have the same.
    #[must_use]
    pub fn key(&self) -> String {
        let event = self.event.word();
        match self.story() {
            // A story begins once and ends once.
            Some(story) if !self.event.comes_again() => format!("{story}:{event}"),
            Some(story) => format!("{story}:{event}:{}", self.at.timestamp_millis()),
            None => match &self.about {
                About::Job { job, run: Some(run) } => format!("job:{job}:run-{run}:{event}"),
                about => format!("{about}:{event}:{}", self.at.timestamp_millis()),
            },
        }
    }
}

impl fmt::Display for About {
    /// As keys have it, not for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job { job, .. } => write!(f, "job:{job}"),
            Self::Check { job, check } => write!(f, "check:{job}:{check}"),
            Self::Notifier { name } => write!(f, "notifier:{name}"),
            Self::House => f.write_str("house"),
        }
    }
}

impl Event {
    /// The word used in TOML, SQL, JSON and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::StillFailing => "still_failing",
            Self::Recovered => "recovered",
            Self::Late => "late",
            Self::Missed => "missed",
            Self::FirstSuccess => "first_success",
            Self::TooSmall => "too_small",
            Self::TargetMissed => "target_missed",
            Self::Changed => "changed",
            Self::Report => "report",
            Self::Test => "test",
            Self::NotifierBroken => "notifier_broken",
        }
    }

    /// Whether one story can have several of it.
    fn comes_again(self) -> bool {
        matches!(self, Self::StillFailing | Self::Changed | Self::Report | Self::Late | Self::Test)
    }
}

/// What news are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// A job and, where there was one, its run.
    Job {
        /// The job.
        job: JobName,
        /// The run.
        run: Option<RunId>,
    },
    /// One of the checks of a job.
    Check {
        /// The job.
        job: JobName,
        /// The check's label, for people and unique in the job, such as `blog`; never an address, which some services charge for.
        check: String,
    },
    /// A notifier.
    Notifier {
        /// Its name in the settings.
        name: String,
    },
    /// The host as a whole.
    House,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A check failed often enough, or a job's run failed for the first time.
    Failed,
    /// It still fails: a reminder.
    StillFailing,
    /// It is well again.
    Recovered,
    /// A run goes on for longer than it should, or a backup is older than it may be.
    Late,
    /// A slot went by unseen.
    Missed,
    /// A job succeeded for the first time.
    FirstSuccess,
    /// A backup is suspiciously small.
    TooSmall,
    /// A target, such as the age of the last proven restore, is missed.
    TargetMissed,
    /// Something changed, such as the host's address.
    Changed,
    /// A report that was asked for.
    Report,
    /// A trial, asked for by a person or by the weekly self-test.
    Test,
    /// A notifier refuses for good; told through another.
    NotifierBroken,
}

/// How much news matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it in the morning.
    Warning,
    /// A person must act.
    Critical,
}

/// A cause, with what speaks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// In words: `the container blog-db was killed for lack of memory`.
    pub what: String,
    /// Whether it is certain, or only likely.
    pub is_certain: bool,
    /// What was seen: `it ended at 02:14:05 with status 137, limit 256 MiB`.
    pub evidence: Vec<String>,
}

/// Something that a person can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it does: `go back to Tuesday's snapshot`.
    pub what: String,
    /// The command: `rusuban rollback blog Tue`.
    pub command: String,
}

/// News on their way to one notifier: a row of the outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    /// What tells it from all others, for ever: a second row of this key is not written. Also the services' idempotency key.
    pub key: String,
    /// The notifier's name in the settings.
    pub notifier: String,
    /// What is to be told.
    pub news: News,
    /// Not sent before this, unless it joins something that is.
    pub not_before: DateTime<Utc>,
    /// Written only if something of its story was written for this notifier before: who heard that it began hears that it is over.
    #[serde(default)]
    pub only_if_begun: bool,
}
