//! The first thing at every start: what a process that died left behind is ended, written down and undone.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{clean::Cleaner, debts, hooks::Hook, news};
use crate::{
    clock::Clock,
    job::Job,
    kinds::Services,
    model::{Debt, DebtId, JobName, Level, Line, Outcome, Run, RunId, RunState, Trigger},
    policy::OnCrash,
    process::{Ending, Tree},
    store::Store,
};

/// The whole start waits for these hooks, so they have no longer than this.
const LONGEST: Duration = Duration::from_secs(600);

/// The whole start waits for a Docker engine that is away, so no longer than this: it is tried again while Rusuban runs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Settles what an earlier process left: its unfinished runs are `interrupted`, processes that they had started are
/// killed, and debts are paid. An `after` hook that was cut off is run again, so it may run twice.
/// Only the one process that has this home to itself may call it. Returns the runs to run again (`on_crash = "rerun"`).
///
/// # Errors
/// When the ledger cannot be read or written. What cannot be undone is no error: it is said, and tried again at the next start.
pub async fn recover(
    store: &Store,
    clock: &Clock,
    services: &Services,
    jobs: &BTreeMap<JobName, Arc<Job>>,
) -> anyhow::Result<Vec<RunId>> {
    let past = Past { store, clock, services };
    let mut again = Vec::new();
    for run in store.unfinished().await? {
        past.close(&run, jobs.get(&run.job)).await?;
        if jobs.get(&run.job).is_some_and(|job| job.policies.on_crash == OnCrash::Rerun) {
            again.push(run.id);
        }
    }
    // What was done last is undone first: a container that others need is started before them.
    for (id, run, job, debt) in store.debts().await?.into_iter().rev() {
        past.settle(id, run, &job, &debt, jobs.get(&job)).await?;
    }
    Ok(again)
}

struct Past<'a> {
    store: &'a Store,
    clock: &'a Clock,
    services: &'a Services,
}

impl Past<'_> {
    async fn close(&self, run: &Run, job: Option<&Arc<Job>>) -> anyhow::Result<()> {
        let (ended, mut message) = match run.state {
            RunState::Queued => (Ending::default(), "Rusuban ended before this run began".to_owned()),
            _ => {
                let tree = Tree::new(&self.services.home, run.id);
                (tree.end(Duration::from_secs(5)).await, "Rusuban ended while this run was at work".to_owned())
            }
        };
        if ended.asked > 0 {
            message += &format!("; processes that it had left behind were stopped: {}", ended.asked);
        }
        if ended.left > 0 {
            message += &format!("; processes of it that cannot be killed: {}", ended.left);
        }
        self.say(run.id, vec![(Level::Error, message.clone())]).await?;
        match job {
            Some(job) => {
                let rules = Arc::clone(&self.services.rules);
                news::close(self.store, job, rules, run.id, Outcome::Interrupted, &message, Vec::new()).await?;
            }
            // Its file is gone, and with it who is to be told.
            None => self.store.run_finished(run.id, Outcome::Interrupted, &message).await?,
        }
        tracing::warn!(job = %run.job, run = %run.id, outcome = %Outcome::Interrupted, message, "run ended");
        Ok(())
    }

    async fn settle(
        &self,
        id: DebtId,
        run: RunId,
        job: &JobName,
        debt: &Debt,
        file: Option<&Arc<Job>>,
    ) -> anyhow::Result<()> {
        let what = debts::in_words(debt);
        let mut said = vec![(Level::Info, format!("at the next start: {what}"))];
        let paid = match debt {
            Debt::AfterHook { command } => {
                let result = self.after(run, job, command, file, &mut said).await;
                if let Err(error) = &result {
                    said.push((Level::Error, format!("`after` hook: {error:#}")));
                    tracing::error!(%job, %run, error = format!("{error:#}"), "the `after` hook of an interrupted run failed");
                }
                // It has run; running it at every start until it works would help nobody.
                true
            }
            other => match debts::pay(other, self.services, self.clock, PATIENCE).await {
                Ok(known) => {
                    said.extend(known.map(|known| (Level::Warning, known)));
                    true
                }
                Err(error) => {
                    let when = if debts::is_urgent(other) { "soon, and at" } else { "at" };
                    said.push((Level::Warning, format!("{error:#}; it is tried again {when} the next start")));
                    tracing::warn!(%job, %run, error = format!("{error:#}"), "what a run left behind could not be cleaned up; it is tried again at the next start");
                    false
                }
            },
        };
        if paid {
            self.store.paid(id).await?;
        }
        self.say(run, said).await
    }

    async fn after(
        &self,
        run: RunId,
        job: &JobName,
        command: &[String],
        file: Option<&Arc<Job>>,
        said: &mut Vec<(Level, String)>,
    ) -> anyhow::Result<()> {
        let (trigger, ended) = match self.store.run(run).await? {
            Some(Run { trigger, state: RunState::Finished { outcome, .. }, message, .. }) => {
                (trigger, (outcome, message))
            }
            _ => (Trigger::Manual, (Outcome::Interrupted, String::new())),
        };
        let policies = file.map(|job| &job.policies);
        let limit = policies.and_then(|policies| policies.timeout).map_or(LONGEST, |limit| limit.0.min(LONGEST));
        let grace = policies.map_or(Duration::from_secs(10), |policies| policies.grace.0);
        let (home, end) = (self.services.home.as_path(), Some((ended.0, &*ended.1)));
        let hook = Hook { job, run, trigger: &trigger, home, command, end, limit, grace };
        let mut dropped = 0;
        let result = hook
            .run(&CancellationToken::new(), |line| {
                if said.len() < 1000 {
                    said.push((Level::Output, line.to_owned()));
                } else {
                    dropped += 1;
                }
            })
            .await;
        if dropped > 0 {
            said.push((Level::Warning, format!("… {dropped} lines dropped …")));
        }
        result
    }

    async fn say(&self, run: RunId, said: Vec<(Level, String)>) -> anyhow::Result<()> {
        add_lines(self.store, self.clock, self.services, run, said).await
    }
}

/// Adds lines to the log of a run that has ended.
pub(super) async fn add_lines(
    store: &Store,
    clock: &Clock,
    services: &Services,
    run: RunId,
    said: Vec<(Level, String)>,
) -> anyhow::Result<()> {
    let cleaner = Cleaner::new(&services.redactor, Vec::new());
    let last = store.lines(run, 0, u32::MAX).await?.last().map_or(0, |line| line.number);
    let at = clock.now();
    let lines = said.iter().flat_map(|(level, text)| cleaner.lines(text).into_iter().map(|text| (*level, text)));
    let lines = (last + 1..).zip(lines).map(|(number, (level, text))| Line { number, at, level, text });
    store.add_lines(run, lines.collect()).await
}
