//! A run that has not ended.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{ActiveRun, Runner, gate::Gate, locks::Lock, record::RunRecord};
use crate::{
    job::Job,
    model::{JobName, Run, RunId, Trigger},
};

/// A run that has not ended.
pub(super) struct Active {
    pub(super) id: RunId,
    pub(super) job: JobName,
    pub(super) trigger: Trigger,
    pub(super) queued: DateTime<Utc>,
    pub(super) record: Arc<RunRecord>,
    /// Set when it is asked to stop as a whole; a time limit asks one attempt.
    pub(super) stopping: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    since: Option<DateTime<Utc>>,
    attempt: u32,
    waits: Option<Waits>,
    why: Option<String>,
}

#[derive(Clone)]
enum Waits {
    /// For these locks and a place in this class.
    Gate(Vec<Lock>, String),
    /// For the next attempt.
    Retry(DateTime<Utc>),
}

impl Active {
    pub(super) fn new(runner: &Runner, job: &Arc<Job>, run: &Run) -> Arc<Self> {
        Arc::new(Self {
            id: run.id,
            job: run.job.clone(),
            trigger: run.trigger.clone(),
            queued: run.queued,
            record: RunRecord::new(runner, job, run.id),
            stopping: CancellationToken::new(),
            state: Mutex::default(),
        })
    }

    /// Asks it to stop; the first reason is kept.
    pub(super) fn stop(&self, why: &str) {
        self.state().why.get_or_insert_with(|| why.to_owned());
        self.stopping.cancel();
    }

    /// Why it was asked to stop.
    pub(super) fn why(&self) -> String {
        self.state().why.clone().unwrap_or_else(|| "it was asked to stop".to_owned())
    }

    /// Whether it has not begun.
    pub(super) fn waits(&self) -> bool {
        self.state().since.is_none()
    }

    pub(super) fn waits_at_gate(&self, locks: &[Lock], class: &str) {
        self.state().waits = Some(Waits::Gate(locks.to_vec(), class.to_owned()));
    }

    pub(super) fn waits_to_retry(&self, at: DateTime<Utc>) {
        self.state().waits = Some(Waits::Retry(at));
    }

    pub(super) fn begins(&self, at: DateTime<Utc>, attempt: u32) {
        let mut state = self.state();
        state.waits = None;
        state.since.get_or_insert(at);
        state.attempt = attempt;
    }

    pub(super) fn show(&self, gate: &Gate) -> ActiveRun {
        let (step, progress) = self.record.position();
        let (since, attempt, waits, stopping) = {
            let state = self.state();
            (state.since, state.attempt, state.waits.clone(), state.why.clone())
        };
        let waits_for = waits.and_then(|waits| match waits {
            Waits::Gate(locks, class) => gate.obstacle(&locks, &class),
            Waits::Retry(at) => Some(format!("its next attempt at {}", at.format("%H:%M:%S UTC"))),
        });
        let (id, job, queued) = (self.id, self.job.clone(), self.queued);
        ActiveRun { id, job, queued, since, waits_for, attempt, step, progress, stopping }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
