//! Containers that our own jobs hold, or have just let go: what their sites do meanwhile is not a failure.
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    model::{Debt, DebtId, JobName, RunId},
    store::Store,
};

/// So many that have ended are remembered, and so long.
const MOST: usize = 1000;
const LONGEST: TimeDelta = TimeDelta::hours(2);

/// A container in our hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    debt: DebtId,
    /// Its name.
    pub(super) container: String,
    /// Whose hands.
    pub(super) job: JobName,
    /// In which run.
    pub(super) run: RunId,
    /// What was done with it: `paused` …
    pub(super) how: &'static str,
    /// Since when.
    pub(super) since: DateTime<Utc>,
    /// Until when; still, when there is none.
    pub(super) until: Option<DateTime<Utc>>,
}

/// Those that this process knows of.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<VecDeque<Held>>);

/// The container that a debt is about, while it does not run as it should, and what is done with it.
pub(in crate::runner) fn container_of(debt: &Debt) -> Option<(&str, &'static str)> {
    match debt {
        Debt::Start { container, .. } => Some((&container.name, "stopped")),
        Debt::Thaw { container } => Some((&container.name, "paused")),
        Debt::Swap(swap) => Some((&swap.name, "replaced")),
        _ => None,
    }
}

impl Holds {
    /// A debt was written down: the container is about to be held.
    pub(super) fn begin(&self, id: DebtId, debt: &Debt, job: &JobName, run: RunId, now: DateTime<Utc>) {
        if let Some(held) = held(id, debt, job, run, now) {
            let mut all = self.all();
            all.retain(|one| one.until.is_none_or(|until| now - until < LONGEST));
            while all.len() >= MOST {
                all.pop_front();
            }
            all.push_back(held);
        }
    }

    /// The debt was paid: it was let go.
    pub(super) fn end(&self, id: DebtId, now: DateTime<Utc>) {
        for held in self.all().iter_mut().filter(|held| held.debt == id) {
            held.until.get_or_insert(now);
        }
    }

    /// All of them, with what an earlier process owed and nobody has paid.
    pub(super) async fn now(&self, store: &Store, now: DateTime<Utc>) -> Vec<Held> {
        let mut all: Vec<Held> = self.all().iter().cloned().collect();
        // A ledger that cannot be read has its own alarm.
        for (id, run, job, debt) in store.debts().await.unwrap_or_default() {
            if !all.iter().any(|held| held.debt == id) {
                all.extend(held(id, &debt, &job, run, now));
            }
        }
        all
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn held(debt: DebtId, of: &Debt, job: &JobName, run: RunId, now: DateTime<Utc>) -> Option<Held> {
    let (container, how) = container_of(of)?;
    let since = match of {
        Debt::Start { container, .. } | Debt::Thaw { container } => container.since.min(now),
        _ => now,
    };
    Some(Held { debt, container: container.to_owned(), job: job.clone(), run, how, since, until: None })
}
