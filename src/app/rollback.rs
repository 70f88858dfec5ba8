//! Rolling a container back: a run like any other, of a job that has no file.
use std::{num::NonZeroU32, sync::Arc};

use super::{App, Events, Refusal};
use crate::{
    config::units::Span,
    job::Job,
    kinds::rollback::Rollback,
    model::{JobName, Run, Trigger},
    notify::routes::{Notify, Target},
    policy::{History, Hooks, MissedPolicy, OnCrash, Overlap, Policies, Retry},
};

/// The name under which rollbacks are in the ledger.
const NAME: &str = "rollback";

/// That name, and how much of its history is kept.
pub(super) fn history() -> Option<(JobName, History)> {
    Some((NAME.parse().ok()?, History::default()))
}

impl App {
    /// Queues a rollback and tells what happens in it.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn rollback(&self, rollback: Rollback) -> Result<(Run, Events), Refusal> {
        let run = self.scheduler.run_now(Arc::new(job(rollback)?), Trigger::Manual).await?;
        let events = Events::new(self.store.clone(), self.clock.clone(), run.id, self.runner.follow(run.id));
        Ok((run, events))
    }
}

fn job(rollback: Rollback) -> anyhow::Result<Job> {
    Ok(Job {
        name: NAME.parse().map_err(anyhow::Error::msg)?,
        kind_name: NAME,
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
            class: NAME.to_owned(),
            hooks: Hooks::default(),
            history: History::default(),
        },
        notify: Notify::default(),
        target: Target::default(),
        source: serde_json::to_string(&rollback).map_err(anyhow::Error::from)?.into(),
        kind: rollback.kind(),
    })
}
