//! The words of the house as values: jobs' names, runs, slots and their ends. No IO.
use std::{fmt, str::FromStr, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub mod happening;
pub mod heartbeat;
pub mod news;
pub mod overview;
pub mod watch;

/// A job's name: its file's name without `.toml`. Lower-case letters, digits and single hyphens, at most 63 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct JobName(Arc<str>);

impl JobName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let well_formed = !name.is_empty()
            && name.len() <= 63
            && name
                .split('-')
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        if well_formed {
            Ok(Self(name.into()))
        } else {
            Err(format!(
                "`{name}` cannot be a job's name: use lower-case letters, digits and single hyphens, such as `nightly-photos`"
            ))
        }
    }
}

impl TryFrom<String> for JobName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl<'de> Deserialize<'de> for JobName {
    /// By a visitor, so that an error has the place of the one name that is wrong in a list of them.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl serde::de::Visitor<'_> for Name {
            type Value = JobName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a job's name in quotes")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<JobName, E> {
                name.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Name)
    }
}

impl schemars::JsonSchema for JobName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JobName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$", "maxLength": 63 })
    }
}

impl From<JobName> for String {
    fn from(name: JobName) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The number of a run in the ledger; grows by one, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.trim_start_matches('#').parse().map(Self)
    }
}

/// One moment at which a job is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The job that is due.
    pub job: JobName,
    /// When, to the second.
    pub due: DateTime<Utc>,
}

/// What became of a slot. Every slot gets exactly one end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotEnd {
    /// It became this run.
    Run(RunId),
    /// It came on time, and there was a reason not to run it.
    Skipped(Skipped),
    /// Its time went by unseen.
    Missed(Missed),
}

/// Why a slot that came on time was not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// The run before it had not ended, and the job says `overlap = "skip"`.
    Overlap(RunId),
    /// As many runs of this job as may wait are waiting already.
    QueueFull,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap(run) => write!(f, "run {run} had not ended"),
            Self::QueueFull => f.write_str("enough runs of this job are waiting already"),
        }
    }
}

/// Why nobody was there when a slot came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Rusuban was not running, the machine slept, or the clock was set forward; a later slot was run in its place or the job says `missed = "skip"`.
    Away,
    /// It was found too late: longer ago than the job's `missed_window`.
    TooOld,
    /// The job was paused by hand, and un-paused later.
    Paused,
    /// The next one was due before it was looked at, and runs of the job may not overlap.
    Overtaken,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Away => "nobody was there at that time",
            Self::TooOld => "found too late, beyond the job's missed_window",
            Self::Paused => "the job was paused at that time",
            Self::Overtaken => "the next one was due at the same moment",
        })
    }
}

/// What started a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// This slot of its schedule.
    Schedule(DateTime<Utc>),
    /// A slot that was missed, made up for.
    CatchUp(DateTime<Utc>),
    /// Rusuban's start (`@reboot`).
    Startup,
    /// A person.
    Manual,
    /// The jobs named in its `after` succeeded; this run was the last of them.
    After(RunId),
    /// This run was cut off by a crash, and the job says `on_crash = "rerun"`.
    Rerun(RunId),
    /// Something happened to a container, and the job says `on`.
    Container(Box<happening::Because>),
    /// Containers that the job's kind follows have changed; how.
    Followed(String),
}

impl Trigger {
    /// The slot this run stands for, if it stands for one.
    #[must_use]
    pub fn slot(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Schedule(due) | Self::CatchUp(due) => Some(*due),
            _ => None,
        }
    }

    /// What a run's log begins with, where that says more than the list of runs does.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        match self {
            Self::Container(because) => Some(format!("started because {because}")),
            Self::Followed(why) => Some(format!("started because {why}")),
            _ => None,
        }
    }

    /// What a command of the owner's finds in its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        match self {
            Self::Container(because) => because.environment(),
            _ => Vec::new(),
        }
    }
}

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RunState {
    /// Its row is written; it waits for a lock, a place in its class, or the run before it.
    Queued,
    /// At work.
    Running {
        /// Since when.
        since: DateTime<Utc>,
    },
    /// Over.
    Finished {
        /// When work began; absent when it never did.
        since: Option<DateTime<Utc>>,
        /// When it ended.
        at: DateTime<Utc>,
        /// How.
        outcome: Outcome,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All of it was done, and looked at again where the kind can.
    Succeeded,
    /// Its message says what went wrong.
    Failed,
    /// A person, a newer run or the server's end asked it to stop.
    Cancelled,
    /// It took longer than its `timeout`.
    TimedOut,
    /// The process died under it.
    Interrupted,
}

impl Outcome {
    /// The word used in TOML, SQL, JSON and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TimedOut => "timed out",
            other => other.word(),
        })
    }
}

/// One execution of a job, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its number.
    pub id: RunId,
    /// Whose run it is.
    pub job: JobName,
    /// What started it.
    pub trigger: Trigger,
    /// When its row was written.
    pub queued: DateTime<Utc>,
    /// How far it has come.
    #[serde(rename = "progress")]
    pub state: RunState,
    /// Attempts begun so far: more than 1 after retries.
    pub attempts: u32,
    /// One line: what was done, or what went wrong.
    pub message: String,
}

/// A named phase of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, such as `redmine.db`.
    pub name: String,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ended; absent while it goes on, or when the process died under it.
    pub ended: Option<DateTime<Utc>>,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

/// How much a line of a run's log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// What a command printed.
    Output,
    /// What we did.
    Info,
    /// We went on, but look.
    Warning,
    /// It did not work.
    Error,
}

/// One line of a run's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counted from 1 within the run, without gaps.
    pub number: u64,
    /// When it was said.
    pub at: DateTime<Utc>,
    /// How much it matters.
    pub level: Level,
    /// One line, secrets removed.
    pub text: String,
}

/// Something that must be undone even if we die half way. Written before the deed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "owed")]
pub enum Debt {
    /// The job's `after` hook: its `before` hook has run.
    AfterHook {
        /// The hook's argument list.
        command: Vec<String>,
    },
    /// A temporary file or folder of ours.
    Remove {
        /// Its absolute path.
        path: std::path::PathBuf,
    },
    /// An upload in parts that was begun and not ended.
    Upload {
        /// The bucket's name in the settings.
        bucket: String,
        /// The object's key within the bucket.
        key: String,
        /// What the server calls this upload.
        upload: String,
    },
    /// A container of ours that was made for one command: it is removed.
    Container {
        /// Its name.
        name: String,
        /// What tells it from a later one of that name.
        mark: String,
    },
    /// A process of ours in a container of the owner's: it is ended.
    Process {
        /// The container's name.
        name: String,
        /// The container's id: the name may be another's by now.
        container: String,
        /// What the engine calls the process.
        process: String,
        /// The mark in its environment.
        mark: String,
        /// Its user.
        user: Option<String>,
    },
    /// A container that ran and that we stop: it is started again.
    Start {
        /// Which one.
        container: HeldContainer,
        /// Seconds that it has to end before it is killed: so long it may still run although it is being stopped.
        grace: u64,
    },
    /// A command to be run in a container, because another was run in it before.
    Tell {
        /// In which one.
        container: HeldContainer,
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// A container that ran and that we pause: it is thawed.
    Thaw {
        /// Which one.
        container: HeldContainer,
    },
    /// A container that takes another's place: it is made to be there, or the other is brought back.
    Swap(Swap),
    /// Containers that take the places of others, all of them or none.
    Swaps {
        /// Each of them, in the order in which they are stopped.
        all: Vec<Swap>,
    },
    /// A volume that was made to be filled: removed, unless it is whole.
    Volume {
        /// Its name.
        name: String,
    },
    /// A container that was made and perhaps not started: removed, unless it has run.
    Unstarted {
        /// Its name.
        container: String,
        /// A label that it has and no other of that name, and its value.
        label: (String, String),
    },
}

/// A container that ran when we stopped, paused or told it, written so that it is found again when it was re-created meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldContainer {
    /// Its name.
    pub name: String,
    /// Its 64 hexadecimal digits; another container of its name has others.
    pub id: String,
    /// What it is to compose, if compose made it.
    pub compose: Option<ComposePlace>,
    /// When it was started, in the engine's words: a container that was started since says something else.
    pub started: String,
    /// When this was written, just before the deed.
    pub since: DateTime<Utc>,
}

/// A container's place in a compose project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComposePlace {
    /// The project.
    pub project: String,
    /// The service in it.
    pub service: String,
    /// Which of the service's containers.
    pub number: String,
}

/// A container takes another's place. With what is found on the engine these facts tell how that is ended, however far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The name that both are to have, one after the other.
    pub name: String,
    /// The id of the one that is there.
    pub old: String,
    /// The id of the one that takes its place, once it is known.
    pub new: Option<String>,
    /// Whether one of them is to run afterwards, and whether the old one did.
    pub runs: Runs,
    /// The restart policy of the old one, in the engine's words: taken away meanwhile, so that the engine starts neither by itself.
    pub restart: serde_json::Value,
    /// The new one has been found well, so it stays; and whether the old one is kept beside it.
    pub well: Option<Old>,
}

/// Who runs in a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// The old one did.
    pub old: bool,
    /// The new one is to.
    pub new: bool,
}

/// What becomes of a container whose place another has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Old {
    /// It is removed.
    Removed,
    /// It is kept under another name.
    Kept,
}

/// The number of a debt in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebtId(pub i64);

/// The host's own name for the time between two of its starts; empty where it has none.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// This host's name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
