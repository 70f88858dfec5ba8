//! One attempt: a task of its own, asked to stop when its time is over, ended when it does not, and what that is called.
use std::{any::Any, sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::work::{End, Work};
use crate::{
    kinds::{Cx, Record, Summary},
    model::{Level, Outcome},
};

/// What a run that was killed has to go, before it is left to itself.
const LAST_MOMENTS: Duration = Duration::from_secs(2);

/// How an attempt ended, and the task if even killing did not end it.
pub(super) struct Attempt {
    pub(super) end: End,
    pub(super) stuck: Option<JoinHandle<anyhow::Result<Summary>>>,
}

impl Work<'_> {
    /// What the run's work is given.
    pub(super) fn cx(&self, cancelled: CancellationToken) -> Cx {
        let Work { job, active, .. } = self;
        Cx {
            job: active.job.clone(),
            run: active.id,
            trigger: active.trigger.clone(),
            clock: self.runner.clock.clone(),
            cancelled,
            grace: job.policies.grace.0,
            services: Arc::clone(&self.services),
            record: Arc::clone(&active.record) as Arc<dyn Record>,
        }
    }

    /// Does the work once.
    pub(super) async fn attempt(&self) -> Attempt {
        let Work { job, active, .. } = self;
        let cancelled = active.stopping.child_token();
        let cx = self.cx(cancelled.clone());
        let kind = Arc::clone(&job.kind);
        // A task of its own: its panic is its own, and it can be left to itself when it is stuck.
        let mut task = tokio::spawn(async move { kind.run(&cx).await });
        let limit = job.policies.timeout;
        let too_late = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit.0).await,
                None => std::future::pending().await,
            }
        };
        let (ended, timed_out) = tokio::select! {
            ended = &mut task => (Some(ended), None),
            () = too_late => (None, limit),
            () = active.stopping.cancelled() => (None, None),
        };
        let (ended, stuck) = match ended {
            Some(ended) if !active.stopping.is_cancelled() => (Some(ended), None),
            Some(ended) => {
                self.end_processes(job.policies.grace.0).await;
                (Some(ended), None)
            }
            None => {
                if let Some(limit) = timed_out {
                    self.warn(&format!("it has taken longer than its timeout of {limit} and is asked to stop"));
                } else {
                    active.record.line(Level::Info, &format!("asked to stop: {}", active.why()));
                }
                cancelled.cancel();
                self.stop(task).await
            }
        };
        let reason = match timed_out {
            Some(limit) => Some((Outcome::TimedOut, format!("it took longer than its timeout of {limit}"))),
            None if active.stopping.is_cancelled() => Some((Outcome::Cancelled, active.why())),
            None => None,
        };
        Attempt { end: self.judge(ended, reason), stuck }
    }

    /// Waits for a task that was asked to stop: for the grace period, then without its processes, then without mercy.
    async fn stop(
        &self,
        mut task: JoinHandle<anyhow::Result<Summary>>,
    ) -> (Option<Ended>, Option<JoinHandle<anyhow::Result<Summary>>>) {
        let grace = self.job.policies.grace.0;
        let until = Instant::now() + grace;
        if let Ok(ended) = tokio::time::timeout(grace, &mut task).await {
            self.end_processes(until.saturating_duration_since(Instant::now())).await;
            return (Some(ended), None);
        }
        self.warn(&format!("it has not stopped within {} and is killed", self.job.policies.grace));
        self.end_processes(Duration::ZERO).await;
        if let Ok(ended) = tokio::time::timeout(LAST_MOMENTS, &mut task).await {
            return (Some(ended), None);
        }
        task.abort();
        if tokio::time::timeout(LAST_MOMENTS, &mut task).await.is_ok() {
            self.end_processes(Duration::ZERO).await;
            return (None, None);
        }
        self.warn("even killed it has not ended, as when a disk or a network share does not answer; its locks are kept until it has");
        (None, Some(task))
    }

    async fn end_processes(&self, grace: Duration) {
        let ending = self.tree.end(grace).await;
        if ending.killed > 0 {
            self.warn(&format!("processes of it that had not stopped and were killed: {}", ending.killed));
        }
        if ending.left > 0 {
            self.warn(&format!("processes of it that are still there and cannot be killed: {}", ending.left));
        }
    }

    /// What an attempt's end is called. `reason`: it was asked to stop.
    fn judge(&self, ended: Option<Ended>, reason: Option<End>) -> End {
        match (ended, reason) {
            (Some(Err(error)), _) if error.is_panic() => (Outcome::Failed, our_mistake(&*error.into_panic())),
            (Some(Ok(Ok(summary))), None | Some((Outcome::Cancelled, _))) => (Outcome::Succeeded, summary),
            (Some(Ok(Ok(summary))), Some((outcome, reason))) => (outcome, format!("{reason}, but was done: {summary}")),
            (Some(Ok(Err(error))), None) => (Outcome::Failed, format!("{error:#}")),
            (Some(Ok(Err(error))), Some(reason)) => {
                // It may tell what could not be undone.
                self.active.record.line(Level::Info, &format!("it stopped: {error:#}"));
                reason
            }
            (None | Some(Err(_)), Some((outcome, reason))) => {
                (outcome, format!("{reason}; it did not stop and was killed"))
            }
            (None | Some(Err(_)), None) => (Outcome::Failed, "it was ended from outside".to_owned()),
        }
    }
}

type Ended = Result<anyhow::Result<Summary>, tokio::task::JoinError>;

/// What a panic is called.
pub(super) fn our_mistake(panic: &(dyn Any + Send)) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "without a text",
    };
    format!("this is a mistake in Rusuban, please report it: panic: {text}")
}
