//! One run from admission to its end: overlap, locks, classes, time limit, retries, cancel, panic, hooks, debts.
mod gate;

pub use gate::Limits;

use chrono::{DateTime, Utc};

use crate::{
    kinds::Progress,
    model::{JobName, Line, Outcome, RunId, Skipped},
};

/// What becomes of a run that would like to start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It starts.
    Start,
    /// It waits for the run before it.
    Queue,
    /// It is not run.
    Skip(Skipped),
    /// It starts after this earlier run, which the start of this one asks to stop.
    CancelPrevious(RunId),
}

/// What followers of a run hear.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A line, after it was written to the ledger.
    Line(Line),
    /// An attempt begins, counted from 1.
    Attempt(u32),
    /// A step begins.
    StepBegan(String),
    /// A step ended.
    StepEnded {
        /// Its name.
        name: String,
        /// What went wrong, if something did.
        error: Option<String>,
    },
    /// How far the current step has come.
    Progress(Progress),
    /// The run ended: the last event.
    Finished(Outcome, String),
}

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveRun {
    /// Its number.
    pub id: RunId,
    /// Whose run.
    pub job: JobName,
    /// When its row was written.
    pub queued: DateTime<Utc>,
    /// When work began; absent while it waits.
    pub since: Option<DateTime<Utc>>,
    /// What it waits for, in words.
    pub waits_for: Option<String>,
    /// The attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// The step it is in.
    pub step: Option<String>,
    /// How far that has come.
    pub progress: Option<Progress>,
    /// Why it was asked to stop, if it was.
    pub stopping: Option<String>,
}
