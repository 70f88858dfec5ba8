//! Runs that a person asks for and no file describes: taking a container back, bringing back what a backup holds. Runs like any other.
use std::{num::NonZeroU32, sync::Arc};

use super::{App, Events, Refusal};
use crate::{
    config::units::Span,
    job::Job,
    kinds::{Kind, restore::Restore, rollback::Rollback},
    model::{JobName, Run, Trigger},
    notify::routes::{Notify, Target},
    policy::{History, Hooks, MissedPolicy, OnCrash, Overlap, Policies, Retry},
};

/// The names under which they are in the ledger.
const ROLLBACK: &str = "rollback";
const RESTORE: &str = "restore";

/// Those names, and how much of their history is kept.
pub(super) fn histories() -> impl Iterator<Item = (JobName, History)> {
    [ROLLBACK, RESTORE].into_iter().filter_map(|name| Some((name.parse().ok()?, History::default())))
}

impl App {
    /// Queues a rollback and tells what happens in it.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn rollback(&self, rollback: Rollback) -> Result<(Run, Events), Refusal> {
        let source = serde_json::to_string(&rollback).map_err(anyhow::Error::from)?;
        self.ask(ROLLBACK, source, rollback.kind()).await
    }

    /// Queues a restore into Docker and tells what happens in it.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn restore(&self, restore: Restore) -> Result<(Run, Events), Refusal> {
        let source = serde_json::to_string(&restore).map_err(anyhow::Error::from)?;
        self.ask(RESTORE, source, restore.kind()).await
    }

    async fn ask(&self, name: &'static str, source: String, kind: Arc<dyn Kind>) -> Result<(Run, Events), Refusal> {
        let run = self.scheduler.run_now(Arc::new(job(name, source, kind)?), Trigger::Manual).await?;
        let events = Events::new(self.store.clone(), self.clock.clone(), run.id, self.runner.follow(run.id));
        Ok((run, events))
    }
}

fn job(name: &'static str, source: String, kind: Arc<dyn Kind>) -> anyhow::Result<Job> {
    Ok(Job {
        name: name.parse().map_err(anyhow::Error::msg)?,
        kind_name: name,
        description: None,
        enabled: true,
        schedule: None,
        after: Vec::new(),
        on: None,
        policies: Policies {
            jitter: Span::seconds(0),
            missed: MissedPolicy::Skip,
            missed_window: Span::hours(1),
            // Two of one container wait for each other by its lock.
            overlap: Overlap::Allow,
            retry: Retry { attempts: NonZeroU32::MIN, ..Retry::default() },
            timeout: None,
            // Bringing the old container back takes as long as the new one takes to stop.
            grace: Span::seconds(180),
            on_crash: OnCrash::Fail,
            locks: Vec::new(),
            class: name.to_owned(),
            hooks: Hooks::default(),
            history: History::default(),
        },
        notify: Notify::default(),
        target: Target::default(),
        source: source.into(),
        kind,
    })
}
