//! What is on the host, and who keeps it: every volume, folder, database and writable layer of its containers beside the jobs that
//! keep them. [`host`] looks, `passing` tells what would not be missed, [`judge`](judge::judge) compares, and [`propose`] writes job
//! files for what is left.
pub mod host;
pub mod judge;
mod passing;
pub mod propose;
pub mod settings;

use chrono::{DateTime, Utc};
use serde::Serialize;

pub use host::Host;
pub use settings::CoverageSettings;

use crate::{docker::Database, model::JobName};

/// Who keeps what.
#[derive(Clone, Debug, Serialize)]
pub struct Coverage {
    /// All that was found: what nobody keeps first.
    pub things: Vec<Thing>,
    /// What a person should know of how it was looked: what could not be looked into, patterns that fit nothing.
    pub notes: Vec<String>,
}

/// Something on the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Thing {
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// The containers that use it, each with where it sees it.
    pub used_by: Vec<String>,
    /// Whether it is kept.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum What {
    /// A database in a container.
    Database {
        /// The container.
        name: String,
        /// Which engine.
        engine: Database,
        /// How that is known.
        because: String,
        /// Where its files are, in words.
        place: String,
    },
    /// A SQLite database, met in a volume or a folder.
    Sqlite {
        /// Where it is, as this process sees it.
        name: String,
        /// The volume or folder that it is in.
        place: String,
    },
    /// A volume.
    Volume {
        /// Its name.
        name: String,
    },
    /// A folder or file of the host that is bound into containers.
    Folder {
        /// Its path on the host.
        name: String,
    },
    /// What a container has written outside of its volumes.
    Layer {
        /// The container.
        name: String,
        /// How much.
        bytes: u64,
    },
}

/// Whether it is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// No job keeps it.
    Unkept {
        /// Jobs that would, and why they do not count.
        but: Vec<String>,
    },
    /// A job names it, and has not kept it well yet.
    NotYet {
        /// The jobs.
        by: Vec<Keeper>,
    },
    /// It is a database, kept as files that others write to at that moment.
    Inconsistent {
        /// The jobs.
        by: Vec<Keeper>,
    },
    /// It is kept.
    Kept {
        /// By these jobs.
        by: Vec<Keeper>,
    },
    /// It would not be missed.
    Passing {
        /// Why.
        because: String,
    },
    /// The settings say that it need not be kept.
    Accepted {
        /// The pattern that says so.
        pattern: String,
    },
}

/// A job that keeps something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Keeper {
    /// The job.
    pub job: JobName,
    /// When it was last kept well.
    pub last: Option<DateTime<Utc>>,
    /// It was due several times since, and was not kept.
    pub is_late: bool,
}

impl Verdict {
    /// Whether a person must act: nobody keeps it, or nobody has yet.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        matches!(self, Self::Unkept { .. } | Self::NotYet { .. })
    }

    /// Whether a person should look although it is kept.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        match self {
            Self::Inconsistent { .. } => true,
            Self::Kept { by } => by.iter().all(|keeper| keeper.is_late),
            _ => false,
        }
    }

    /// What stands first in a list.
    fn rank(&self) -> u8 {
        match self {
            Self::Unkept { .. } => 0,
            Self::NotYet { .. } => 1,
            Self::Inconsistent { .. } => 2,
            Self::Kept { .. } => 3,
            Self::Accepted { .. } => 4,
            Self::Passing { .. } => 5,
        }
    }
}

impl What {
    /// What kind of thing it is, in a word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Database { .. } => "database",
            Self::Sqlite { .. } => "SQLite",
            Self::Volume { .. } => "volume",
            Self::Folder { .. } => "folder",
            Self::Layer { .. } => "layer",
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Database { name, .. }
            | Self::Sqlite { name, .. }
            | Self::Volume { name }
            | Self::Folder { name }
            | Self::Layer { name, .. } => name,
        }
    }
}

impl Coverage {
    /// What nobody keeps, or nobody has kept yet.
    pub fn gaps(&self) -> impl Iterator<Item = &Thing> {
        self.things.iter().filter(|thing| thing.verdict.is_gap())
    }

    /// In one line what a person must know, if there is something: for a check and for reports.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let gaps = self.gaps().count();
        let doubtful = self.things.iter().filter(|thing| thing.verdict.is_doubtful()).count();
        let all = self.things.iter().filter(|thing| thing.verdict.rank() < 4).count();
        match (gaps, doubtful) {
            (0, 0) => None,
            (0, doubtful) => Some(format!(
                "of {all} things of containers all are kept, but {doubtful} not as they should be; `rusuban coverage` shows which"
            )),
            (gaps, _) => {
                Some(format!("of {all} things of containers {gaps} are not kept; `rusuban coverage` shows which"))
            }
        }
    }
}
