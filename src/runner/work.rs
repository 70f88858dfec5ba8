//! One run, from the gate to its end.
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Event, Runner,
    active::Active,
    attempt::{Attempt, our_mistake},
    clean::Cleaner,
    debts,
    gate::{Pass, Turn},
    hooks::{self, Hook},
    locks::Lock,
};
use crate::{
    job::Job,
    kinds::{Record, Services, Summary},
    model::{Debt, DebtId, Level, Outcome},
    policy::{Overlap, Retry},
    process::Tree,
};

/// A Docker engine that is away at the end of a run is waited for so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) type End = (Outcome, String);

/// A run at work.
pub(super) struct Work<'a> {
    pub(super) runner: &'a Runner,
    pub(super) job: &'a Arc<Job>,
    pub(super) active: &'a Active,
    pub(super) services: Arc<Services>,
    pub(super) tree: Tree,
}

/// Does all of a run but closing its row; its record is complete when this returns.
pub(super) async fn work(runner: &Runner, job: &Arc<Job>, active: &Active, turn: Result<Turn, String>) -> End {
    let record = &active.record;
    let writing = tokio::spawn(Arc::clone(record).keep_writing());
    let all = async {
        match turn.map(|turn| enter(turn, active)) {
            Err(message) => (Outcome::Failed, message),
            Ok(enter) => match enter.await {
                Some(pass) => {
                    let services = runner.services();
                    let tree = Tree::new(&services.home, active.id);
                    Work { runner, job, active, services, tree }.with_hooks(pass).await
                }
                None => (Outcome::Cancelled, active.why()),
            },
        }
    };
    // A kind works in a task of its own, but it is asked this and that in this one, and may panic here too.
    let (outcome, message) =
        AssertUnwindSafe(all).catch_unwind().await.unwrap_or_else(|panic| (Outcome::Failed, our_mistake(&*panic)));
    let message = record.clean(&message);
    record.close(writing).await;
    (outcome, message)
}

fn label(active: &Active) -> String {
    format!("run {} of {}", active.id, active.job)
}

/// Queues at the gate, at once: runs are served in the order in which they were started.
///
/// # Errors
/// The message of a kind that panics.
pub(super) fn queue(runner: &Runner, job: &Job, active: &Active) -> Result<Turn, String> {
    let services = runner.services();
    active.record.set_cleaner(Cleaner::new(&services.redactor, Vec::new()));
    let mut locks = catch_unwind(AssertUnwindSafe(|| job.kind.locks())).map_err(|panic| our_mistake(&*panic))?;
    locks.extend(job.policies.locks.iter().cloned());
    if job.policies.overlap != Overlap::Allow {
        locks.push(format!("job:{}", job.name));
    }
    let (locks, class) = (Lock::all(&locks, &services.home), &job.policies.class);
    active.waits_at_gate(&locks, class);
    if let Some(obstacle) = runner.gate.obstacle(&locks, class) {
        active.record.line(Level::Info, &format!("waits for {obstacle}"));
    }
    Ok(runner.gate.queue(&label(active), locks, class))
}

/// Waits for its turn; none when it was asked to stop before.
async fn enter(turn: Turn, active: &Active) -> Option<Pass> {
    tokio::select! {
        biased;
        () = active.stopping.cancelled() => None,
        pass = turn.comes() => Some(pass),
    }
}

impl Work<'_> {
    /// The hooks around the attempts. The hook after is owed before the hook before is run.
    async fn with_hooks(&self, pass: Pass) -> End {
        let owed = match self.begin().await {
            Ok(owed) => owed,
            Err(error) => return (Outcome::Failed, format!("{error:#}")),
        };
        let (mut end, stuck) = match self.before().await {
            Err(end) => (end, None),
            Ok(()) => self.attempts(&pass).await,
        };
        self.pay_what_is_left().await;
        end = self.look_whether_all_is_back(end).await;
        if let Some((debt, command)) = owed {
            end = self.after(debt, &command, end).await;
        }
        if let Some(stuck) = stuck {
            // Its locks are free when it has truly ended, and not before.
            tokio::spawn(async move {
                let _ = stuck.await;
                drop(pass);
            });
        }
        end
    }

    /// Writes down that it begins, and what it will owe.
    async fn begin(&self) -> anyhow::Result<Option<(DebtId, Vec<String>)>> {
        let Work { runner, job, active, .. } = self;
        let (reader, sources) = (self.services.secrets.clone(), job.kind.secrets());
        if !sources.is_empty() {
            // One that cannot be read is the kind's to complain of: it will not get it either.
            let read = move || sources.iter().filter_map(|source| reader.0(source).ok()).collect();
            let secrets = tokio::task::spawn_blocking(read).await?;
            active.record.set_cleaner(Cleaner::new(&self.services.redactor, secrets));
        }
        runner.store.run_started(active.id, 1).await?;
        active.begins(runner.clock.now(), 1);
        tracing::info!(job = %active.job, run = %active.id, "run began");
        if let Some(why) = active.trigger.in_words() {
            active.record.line(Level::Info, &why);
        }
        let Some(after) = &job.policies.hooks.after else { return Ok(None) };
        let command = after.arguments();
        let debt = Debt::AfterHook { command: command.clone() };
        Ok(Some((runner.store.owe(active.id, &active.job, &debt).await?, command)))
    }

    async fn before(&self) -> Result<(), End> {
        let Some(before) = &self.job.policies.hooks.before else { return Ok(()) };
        match self.hook("before", &before.arguments(), None, &self.active.stopping).await {
            _ if self.active.stopping.is_cancelled() => Err((Outcome::Cancelled, self.active.why())),
            Err(error) => Err((Outcome::Failed, format!("the work was not begun: `before` hook: {error:#}"))),
            Ok(()) => Ok(()),
        }
    }

    /// The hook after the work is not stopped with it: undoing is its purpose. Only when Rusuban itself ends it has no
    /// longer than the grace period, and stays owed until the next start.
    async fn after(&self, debt: DebtId, command: &[String], end: End) -> End {
        let closing = &self.runner.closing;
        let (stop, grace) = (CancellationToken::new(), self.job.policies.grace.0);
        let message = self.active.record.clean(&end.1);
        let hook = self.hook("after", command, Some((end.0, &message)), &stop);
        tokio::pin!(hook);
        let result = tokio::select! {
            result = &mut hook => result,
            () = async { closing.cancelled().await; tokio::time::sleep(grace).await } => {
                stop.cancel();
                hook.await
            }
        };
        let put_off = stop.is_cancelled() && result.is_err();
        if !put_off && let Err(error) = self.runner.store.paid(debt).await {
            self.warn(&format!(
                "the `after` hook has run, but this could not be written, and it will run again: {error:#}"
            ));
        }
        match (result, end) {
            (Ok(()), end) => end,
            (Err(_), end) if put_off => {
                self.warn("the `after` hook was cut short because Rusuban ends; it is run again at the next start");
                match end {
                    (Outcome::Succeeded, message) => (
                        Outcome::Failed,
                        format!("{message}; its `after` hook was cut short and is run again at the next start"),
                    ),
                    end => end,
                }
            }
            (Err(error), (Outcome::Succeeded, message)) => {
                (Outcome::Failed, format!("the work was done ({message}), but its `after` hook failed: {error:#}"))
            }
            (Err(error), (outcome, message)) => (outcome, format!("{message}; its `after` hook failed too: {error:#}")),
        }
    }

    async fn hook(
        &self,
        name: &str,
        command: &[String],
        end: Option<(Outcome, &str)>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let Work { job, active, .. } = self;
        let limit = job.policies.timeout.map_or(hooks::LONGEST, |limit| limit.0);
        let (home, grace) = (self.services.home.as_path(), job.policies.grace.0);
        let (job, run, trigger) = (&active.job, active.id, &active.trigger);
        let hook = Hook { job, run, trigger, home, command, end, limit, grace };
        active.record.step_began(name);
        let result = hook.run(stop, |line| active.record.line(Level::Output, line)).await;
        let error = result.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            active.record.line(Level::Error, &format!("`{name}` hook: {error}"));
        }
        active.record.step_ended(name, error.as_deref());
        result
    }

    /// Tries until it works, the attempts are used up, or it is asked to stop.
    async fn attempts(&self, pass: &Pass) -> (End, Option<JoinHandle<anyhow::Result<Summary>>>) {
        let Work { runner, job, active, .. } = self;
        let most = job.policies.retry.attempts.get();
        let mut number = 1;
        loop {
            active.record.tell(Event::Attempt(number));
            let Attempt { end: (outcome, message), stuck } = self.attempt().await;
            let again = matches!(outcome, Outcome::Failed | Outcome::TimedOut) && number < most && stuck.is_none();
            if !again || active.stopping.is_cancelled() {
                if outcome != Outcome::Succeeded {
                    active.record.line(Level::Error, &message);
                }
                return ((outcome, message), stuck);
            }
            self.pay_what_is_left().await;
            active.record.take_told();
            let wait = backoff(&job.policies.retry, number, random());
            self.warn(&format!("attempt {number} of {most}: {message}; the next one is in {}", in_words(wait)));
            number += 1;
            let next = async {
                pass.step_aside();
                active.waits_to_retry(runner.clock.now() + wait);
                runner.clock.sleep(wait).await;
                active.waits_at_gate(&[], &job.policies.class);
                pass.step_in(&label(active), &job.policies.class).await;
            };
            tokio::select! {
                biased;
                () = active.stopping.cancelled() => {
                    return ((Outcome::Cancelled, format!("{}, before attempt {number}; the last one: {message}", active.why())), None);
                }
                () = next => {}
            }
            if let Err(error) = runner.store.run_started(active.id, number).await {
                return ((Outcome::Failed, format!("write down attempt {number}: {error:#}")), None);
            }
            active.begins(runner.clock.now(), number);
            active.record.line(Level::Info, &format!("attempt {number} of {most}"));
        }
    }

    /// A run that held containers has not succeeded before their sites are well again.
    async fn look_whether_all_is_back(&self, end: End) -> End {
        let Work { runner, active, .. } = self;
        let held = active.record.take_held();
        let watchers = runner.watchers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if held.is_empty() || watchers.is_empty() || end.0 != Outcome::Succeeded || active.stopping.is_cancelled() {
            return end;
        }
        let sites = runner.watch.sites(&watchers, &held).await;
        if sites.is_empty() {
            return end;
        }
        active.record.step_began("look at the sites");
        let complaints = runner.watch.until_back(&self.cx(active.stopping.child_token()), sites).await;
        let error = (!complaints.is_empty()).then(|| complaints.join("; "));
        active.record.step_ended("look at the sites", error.as_deref());
        let Some(error) = error else { return end };
        let held: Vec<String> = held.into_iter().collect();
        let message =
            format!("the work was done ({}), but what it held ({}) did not come back: {error}", end.1, held.join(", "));
        active.record.line(Level::Error, &message);
        (Outcome::Failed, message)
    }

    /// Pays what the kind owes and has not paid: it failed, panicked or was killed.
    async fn pay_what_is_left(&self) {
        // What was done last is undone first: a container that others need is started before them.
        for (id, debt) in self.active.record.take_debts().into_iter().rev() {
            let paid = match debts::pay(&debt, &self.services, &self.runner.clock, PATIENCE).await {
                Ok(said) => {
                    said.into_iter().for_each(|said| self.warn(&said));
                    self.runner.watch.paid(id);
                    self.runner.store.paid(id).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = paid {
                let when = if debts::is_urgent(&debt) { "soon, and at" } else { "at" };
                self.warn(&format!("{error:#}; it is tried again {when} the next start"));
            }
        }
    }

    pub(super) fn warn(&self, text: &str) {
        self.active.record.line(Level::Warning, text);
    }
}

/// The wait after attempt `number`: doubled each time, up to the longest, give or take a tenth. `random` is from 0 to 1.
fn backoff(retry: &Retry, number: u32, random: f64) -> Duration {
    let doubled = 2u32.checked_pow(number.saturating_sub(1)).and_then(|times| retry.delay.0.checked_mul(times));
    doubled.unwrap_or(Duration::MAX).min(retry.max_delay.0).mul_f64(0.9 + 0.2 * random)
}

fn random() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness the wait is exact, which is fine.
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}

fn in_words(wait: Duration) -> String {
    let rounded = if wait < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(wait.as_secs())
    };
    crate::config::units::Span(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Span;

    #[test]
    fn the_wait_doubles_up_to_the_longest_give_or_take_a_tenth() {
        let retry = Retry { delay: Span::seconds(10), max_delay: Span::seconds(60), ..Retry::default() };
        let exact: Vec<_> = (1..6).map(|number| backoff(&retry, number, 0.5).as_secs_f64().round()).collect();
        assert_eq!(exact, [10.0, 20.0, 40.0, 60.0, 60.0]);
        assert_eq!(backoff(&retry, 1, 0.0), Duration::from_secs(9));
        assert_eq!(backoff(&retry, 1, 1.0), Duration::from_secs(11));
        assert!(backoff(&retry, 4_000_000, 1.0) <= Duration::from_secs(66));
        let (a, b): (f64, f64) = (random(), random());
        assert!((0.0..=1.0).contains(&a) && (0.0..=1.0).contains(&b));
    }
}
