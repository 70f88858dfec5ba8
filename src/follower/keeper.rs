//! A job whose work is never done: it is asked whether there is something to do whenever its containers change and from time to
//! time, and is run only then. So its history shows what changed, and not that all was well.
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use anyhow::bail;
use futures_util::FutureExt as _;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::House;
use crate::{
    docker::Seen,
    job::Job,
    kinds::Follow,
    model::{Outcome, RunId, RunState, Trigger},
};

/// Containers seldom change alone: so long it is waited for the next.
const TOGETHER: Duration = Duration::from_millis(300);
/// What cannot be asked for so long is run, to say what is wrong: an engine or a server that is restarted is back before.
const BLIND: Duration = Duration::from_secs(60);
/// A question has no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a run that failed it is asked again so soon, and run again then if it could not see before, and can now.
const AGAIN: Duration = Duration::from_secs(5);
/// A run that failed is repeated after [`AGAIN`], twice that and so on, up to this.
const LONGEST: Duration = Duration::from_secs(3600);

/// What keeps one job's work done, until it is dropped.
pub(super) struct Keeper {
    pub(super) job: Arc<Job>,
    follow: Follow,
    /// What has changed.
    changed: watch::Sender<String>,
    stop: CancellationToken,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Keeper {
    pub(super) fn start(house: &Arc<House>, job: &Arc<Job>, follow: Follow) -> Self {
        let (changed, changes) = watch::channel(String::new());
        let stop = CancellationToken::new();
        let work = Work {
            house: Arc::clone(house),
            job: Arc::clone(job),
            every: follow.every,
            stop: stop.clone(),
            changes,
            trouble: None,
        };
        tokio::spawn(work.go_on());
        Self { job: Arc::clone(job), follow, changed, stop }
    }

    /// A container has changed.
    pub(super) fn tell(&self, seen: &Seen, heeds_labels: bool) {
        if heeds_labels || self.follow.choice.is_meant(&seen.name, &seen.labels) {
            let _ = self.changed.send(format!("a container that it follows has changed: {}", seen.name));
        }
    }

    /// Perhaps something has changed that nobody heard.
    pub(super) fn tell_all(&self) {
        let _ = self.changed.send("containers that it follows may have changed while nobody looked".to_owned());
    }
}

struct Work {
    house: Arc<House>,
    job: Arc<Job>,
    every: Duration,
    stop: CancellationToken,
    changes: watch::Receiver<String>,
    trouble: Option<Trouble>,
}

/// The last run failed.
struct Trouble {
    /// It is run again then.
    at: Instant,
    wait: Duration,
    /// It could not even be seen whether there is something to do.
    is_blind: bool,
}

impl Work {
    async fn go_on(mut self) {
        self.trouble = self.last_failed().await.then(|| Trouble { at: Instant::now(), wait: AGAIN, is_blind: false });
        let mut why = "what it keeps is not as it should be".to_owned();
        let mut has_changed = false;
        let mut blind_since: Option<Instant> = None;
        loop {
            let asked = self.ask().await;
            match &asked {
                Ok(_) => blind_since = None,
                Err(error) => {
                    blind_since.get_or_insert_with(Instant::now);
                    tracing::debug!(job = %self.job.name, error = format!("{error:#}"), "it cannot be seen whether there is something to do");
                }
            }
            let goes = match (&asked, &self.trouble) {
                (Ok(is_due), None) => *is_due,
                (Err(_), None) => blind_since.is_some_and(|since| since.elapsed() >= BLIND),
                (Ok(is_due), Some(trouble)) => {
                    trouble.is_blind || (*is_due && has_changed) || trouble.at <= Instant::now()
                }
                (Err(_), Some(trouble)) => trouble.at <= Instant::now(),
            };
            if goes && let Some(outcome) = self.run(&why).await {
                self.judge(outcome, asked.is_err());
                has_changed = false;
            } else if let (Err(_), Some(trouble)) = (&asked, &mut self.trouble) {
                trouble.is_blind = true;
            }
            let pause =
                if self.trouble.is_some() || goes || asked.is_err() { self.every.min(AGAIN) } else { self.every };
            tokio::select! {
                () = self.stop.cancelled() => return,
                // The sender lives as long as this is not stopped.
                _ = self.changes.changed() => {
                    tokio::time::sleep(TOGETHER).await;
                    self.changes.borrow_and_update().clone_into(&mut why);
                    has_changed = true;
                }
                () = tokio::time::sleep(pause) => "what it keeps was found not to be as it should be".clone_into(&mut why),
            }
            if self.stop.is_cancelled() {
                return;
            }
        }
    }

    async fn ask(&self) -> anyhow::Result<bool> {
        let services = self.house.runner.services();
        let asking = AssertUnwindSafe(self.job.kind.is_due(&self.job.name, &services)).catch_unwind();
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                bail!("this is a mistake in Rusuban, please report it: a panic in the kind {}", self.job.kind_name)
            }
            Err(_) => bail!("no answer within a minute"),
        }
    }

    /// Runs it and waits for the end; none when it could not be started now.
    async fn run(&mut self, why: &str) -> Option<Outcome> {
        let mut finished = self.house.runner.finished();
        let started = self.house.scheduler.start_unless_busy(&self.job, Trigger::Followed(why.to_owned())).await;
        let run = match started {
            Ok(Ok(run)) => run.id,
            Ok(Err(_)) => return None,
            Err(error) => {
                tracing::error!(job = %self.job.name, "start it for containers that it follows: {error:#}");
                return None;
            }
        };
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                ended = finished.recv() => match ended {
                    Ok((_, id, outcome)) if id == run => return Some(outcome),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => if let Some(outcome) = self.outcome(run).await {
                        return Some(outcome);
                    },
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    fn judge(&mut self, outcome: Outcome, is_blind: bool) {
        let wait = self.trouble.as_ref().map_or(AGAIN, |trouble| (trouble.wait * 2).min(LONGEST));
        let failed = outcome != Outcome::Succeeded;
        self.trouble = failed.then(|| Trouble { at: Instant::now() + wait, wait, is_blind });
    }

    async fn outcome(&self, run: RunId) -> Option<Outcome> {
        match self.house.store.run(run).await.ok()??.state {
            RunState::Finished { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    async fn last_failed(&self) -> bool {
        let last = self.house.store.last_runs(vec![self.job.name.clone()]).await.unwrap_or_default();
        let state = last.into_values().next().map(|run| run.state);
        matches!(state, Some(RunState::Finished { outcome, .. }) if outcome != Outcome::Succeeded)
    }
}
