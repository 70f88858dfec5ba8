//! How the house was for a while, as values: what a report is written of.
use chrono::{DateTime, Utc};

use super::{JobName, watch::State};

/// A job, as others may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its name.
    pub job: JobName,
    /// Its kind's name.
    pub kind: &'static str,
    /// It has slots.
    pub is_enabled: bool,
    /// Where it keeps backups, if it does.
    pub keeps: Option<String>,
    /// Somebody hears when it fails.
    pub is_heard: bool,
}

/// How the house was since a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// The jobs, in order of their names.
    pub jobs: Vec<JobOverview>,
    /// The checks, and how each is now.
    pub checks: Vec<(String, State)>,
}

/// How a job was.
#[derive(Clone, Debug, PartialEq)]
pub struct JobOverview {
    /// The job.
    pub card: Card,
    /// Runs that ended, those that were cancelled left out.
    pub runs: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Its newest success began then.
    pub success: Option<DateTime<Utc>>,
    /// It fails since then.
    pub failing: Option<DateTime<Utc>>,
    /// The newest run's message, while it fails.
    pub message: String,
    /// It is paused since then.
    pub paused: Option<DateTime<Utc>>,
}
