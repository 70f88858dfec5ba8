//! What is due and what was missed (the pure planner in [`plan`]), and the short loop around it.
//!
//! The loop looks at the wall clock at least once a second, so a machine that slept or a clock that was set is noticed at
//! once. What becomes of a slot is written before its run starts.
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, broadcast::error::RecvError, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, LONGEST_SLEEP},
    job::Job,
    model::{JobName, Missed, Outcome, Run, RunId, Skipped, Trigger, news::Outgoing},
    policy::Overlap,
    runner::{Admission, Runner, news},
    store::{Settled, Settlement, Store, Verdict},
};

pub mod plan;

use plan::{Plan, Question, What};

/// A cursor further ahead of the clock than this is a clock's that was wrong: the schedule is anchored anew, since waiting
/// until the clock gets there may take years. The ledger still lets no slot run twice.
const WRONG_CLOCK: TimeDelta = TimeDelta::hours(25);

/// Jobs that are settled in one transaction.
const TOGETHER: usize = 500;

/// When to look at a job at once. It is no time of the clock, which may be set back before we come to it.
const AT_ONCE: DateTime<Utc> = DateTime::<Utc>::MIN_UTC;

/// Starts runs when they are due.
#[derive(Debug)]
pub struct Scheduler {
    store: Store,
    runner: Arc<Runner>,
    clock: Clock,
    entries: Mutex<Entries>,
    /// Entries have changed.
    changed: Notify,
    /// When the loop last came round.
    looked: AtomicI64,
    /// Counts changes of jobs, for whoever else looks at them.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Entries {
    jobs: HashMap<JobName, Entry>,
    /// When to look at which job again. Entries that are out of date are dropped when they come up.
    agenda: BinaryHeap<Reverse<(DateTime<Utc>, JobName)>>,
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    cursor: DateTime<Utc>,
    /// The cursor before that of a clock far behind it. Once the clock is there again, it was the clock behind that was wrong.
    left: Option<DateTime<Utc>>,
    paused: Option<DateTime<Utc>>,
    /// It was paused since then, and is no longer; the next plan settles what went by.
    was_paused: Option<DateTime<Utc>>,
    next: Option<DateTime<Utc>>,
}

impl Entry {
    /// What the planner is asked; nothing, for a job without slots.
    fn question(&self) -> Option<Question<'_>> {
        let policies = &self.job.policies;
        Some(Question {
            job: &self.job.name,
            schedule: self.job.schedule.as_ref()?,
            jitter: policies.jitter.0,
            missed: policies.missed,
            window: policies.missed_window.0,
            cursor: self.cursor,
            paused_since: self.was_paused,
        })
    }
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Jobs that were not there before.
    pub added: Vec<JobName>,
    /// Jobs whose file has changed.
    pub changed: Vec<JobName>,
    /// Jobs that are gone; their runs go on.
    pub removed: Vec<JobName>,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(word, names)| {
                let names: Vec<&str> = names.iter().map(JobName::as_str).collect();
                format!("{word}: {}", names.join(", "))
            })
            .collect();
        f.write_str(if parts.is_empty() { "no job has changed" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

impl Scheduler {
    /// A scheduler without jobs.
    #[must_use]
    pub fn new(store: Store, runner: Arc<Runner>, clock: Clock) -> Self {
        let looked = AtomicI64::new(clock.now().timestamp_millis());
        let (entries, changed, version) = (Mutex::default(), Notify::new(), watch::channel(0).0);
        Self { store, runner, clock, entries, changed, looked, version }
    }

    /// Takes these jobs in place of those before. Runs that go on are not disturbed. A job that is new, or whose schedule has
    /// changed while this process ran, has its first slot after now; one that the ledger knows goes on where it was.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub async fn reload(&self, jobs: Vec<Arc<Job>>) -> anyhow::Result<Changes> {
        let now = self.clock.now();
        let cursors = self.store.cursors().await?;
        let mut changes = Changes::default();
        let mut anchors = Vec::new();
        let mut wrong = Vec::new();
        {
            let mut entries = self.lock();
            let mut old = std::mem::take(&mut entries.jobs);
            entries.agenda.clear();
            let first = old.is_empty();
            for job in jobs {
                let known = cursors.get(&job.name);
                let before = old.remove(&job.name);
                match &before {
                    Some(before) if before.job.source != job.source => changes.changed.push(job.name.clone()),
                    Some(_) => {}
                    None => changes.added.push(job.name.clone()),
                }
                let goes_on = match &before {
                    Some(before) => (before.job.schedule == job.schedule && before.job.enabled == job.enabled)
                        .then_some(before.cursor),
                    None if first => known.and_then(|known| known.at),
                    None => None,
                };
                let cursor = goes_on.filter(|cursor| *cursor < now + WRONG_CLOCK);
                let left = match cursor {
                    None => goes_on,
                    Some(_) => before.as_ref().and_then(|before| before.left),
                };
                if goes_on.is_some() && cursor.is_none() {
                    wrong.push(job.name.clone());
                }
                if cursor.is_none() && has_slots(&job) {
                    anchors.push(Settlement {
                        job: job.name.clone(),
                        slots: Vec::new(),
                        cursor: now,
                        news: Vec::new(),
                    });
                }
                let paused =
                    before.as_ref().map_or_else(|| known.and_then(|known| known.paused), |before| before.paused);
                let was_paused = before.and_then(|before| before.was_paused);
                let name = job.name.clone();
                let entry = Entry { job, cursor: cursor.unwrap_or(now), left, paused, was_paused, next: None };
                // Whatever went by is found when the loop looks at the job, at once.
                if has_slots(&entry.job) {
                    entries.agenda.push(Reverse((AT_ONCE, name.clone())));
                }
                entries.jobs.insert(name, entry);
            }
            changes.removed = old.into_keys().collect();
        }
        for names in [&mut changes.added, &mut changes.changed, &mut changes.removed] {
            names.sort();
        }
        self.store.anchor(wrong, now).await?;
        self.store.settle(anchors).await?;
        self.changed.notify_one();
        self.version.send_modify(|version| *version += 1);
        Ok(changes)
    }

    /// The jobs that may start by themselves: those that are enabled and not paused.
    #[must_use]
    pub fn awake(&self) -> Vec<Arc<Job>> {
        let entries = self.lock();
        let awake = entries.jobs.values().filter(|entry| entry.job.enabled && entry.paused.is_none());
        awake.map(|entry| Arc::clone(&entry.job)).collect()
    }

    /// Tells whenever the jobs have changed, or which of them are paused.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Starts a job for something that has happened, if its `overlap` lets it; else says what was in the way.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn start_unless_busy(&self, job: &Arc<Job>, trigger: Trigger) -> anyhow::Result<Result<Run, Skipped>> {
        match self.runner.admit(job) {
            Admission::Skip(why) => Ok(Err(why)),
            _ => Ok(Ok(self.run_now(Arc::clone(job), trigger).await?)),
        }
    }

    /// Starts runs when they are due, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut finished = self.runner.finished();
        if let Err(error) = self.start_up().await {
            tracing::error!("start the jobs that run at every start: {error:#}");
        }
        loop {
            if let Err(error) = self.look().await {
                tracing::error!("settle what is due: {error:#}");
                self.clock.sleep(LONGEST_SLEEP).await;
            }
            self.looked.store(self.clock.now().timestamp_millis(), Ordering::SeqCst);
            let wait = self.until_next();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                ended = finished.recv() => match ended {
                    Ok((job, run, Outcome::Succeeded)) => self.follow_up(Some((job, run))).await,
                    // So many ended at once that some were not heard of: look at all that wait.
                    Err(RecvError::Lagged(_)) => self.follow_up(None).await,
                    Ok(_) | Err(RecvError::Closed) => {}
                },
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// When the loop last came round: at most a second or two ago, while it is well.
    #[must_use]
    pub fn looked(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.looked.load(Ordering::SeqCst)).unwrap_or_default()
    }

    /// Runs a job now.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn run_now(&self, job: Arc<Job>, trigger: Trigger) -> anyhow::Result<Run> {
        let run = self.store.queue_run(&job.name, trigger).await?;
        self.runner.start(job, run.clone());
        Ok(run)
    }

    /// Lets a job's slots go by from now on.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn pause(&self, name: &JobName) -> anyhow::Result<()> {
        self.store.pause(name, true).await?;
        let now = self.clock.now();
        if let Some(entry) = self.lock().jobs.get_mut(name) {
            entry.paused.get_or_insert(now);
            entry.next = None;
        }
        self.version.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Takes up a paused job's schedule; what went by is up to its `missed` policy.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn resume(&self, name: &JobName) -> anyhow::Result<()> {
        self.store.pause(name, false).await?;
        {
            let mut entries = self.lock();
            if let Some(entry) = entries.jobs.get_mut(name) {
                entry.was_paused = entry.paused.take();
                if has_slots(&entry.job) {
                    entries.agenda.push(Reverse((AT_ONCE, name.clone())));
                }
            }
        }
        self.changed.notify_one();
        self.version.send_modify(|version| *version += 1);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start_up(&self) -> anyhow::Result<()> {
        let jobs: Vec<Arc<Job>> = self
            .lock()
            .jobs
            .values()
            .filter(|entry| entry.job.enabled && entry.paused.is_none())
            .filter(|entry| entry.job.schedule.as_ref().is_some_and(crate::schedule::Schedule::is_startup))
            .map(|entry| Arc::clone(&entry.job))
            .collect();
        for job in jobs {
            self.run_now(job, Trigger::Startup).await?;
        }
        Ok(())
    }

    fn until_next(&self) -> std::time::Duration {
        let now = self.clock.now();
        let next = self.lock().agenda.peek().map(|Reverse((at, _))| *at);
        next.and_then(|next| (next - now).to_std().ok()).map_or_else(
            || if next.is_some() { std::time::Duration::ZERO } else { LONGEST_SLEEP },
            |wait| wait.min(LONGEST_SLEEP),
        )
    }

    /// Settles all that is due, and starts what is settled. While some is written, what was written before is started and
    /// the next is planned, so that the ledger never waits for us.
    async fn look(&self) -> anyhow::Result<()> {
        let now = self.clock.now();
        self.leave_wrong_clock(now).await?;
        let (mut planned, mut to_start) = (self.plan_due(now), Vec::new());
        while !planned.is_empty() || !to_start.is_empty() {
            let (settled, next) = tokio::join!(self.settle(planned), async {
                to_start.into_iter().for_each(|(job, run)| self.runner.start(job, run));
                self.plan_due(now)
            });
            to_start = settled.inspect_err(|_| self.look_again(next.iter().map(|(job, _)| job)))?;
            planned = next;
        }
        Ok(())
    }

    /// Writes what became of slots. Returns what is to be run.
    async fn settle(&self, planned: Vec<(Arc<Job>, Settlement)>) -> anyhow::Result<Vec<(Arc<Job>, Run)>> {
        if planned.is_empty() {
            return Ok(Vec::new());
        }
        let (jobs, settlements): (Vec<_>, Vec<_>) = planned.into_iter().unzip();
        let cursors: Vec<_> = settlements.iter().map(|settlement| settlement.cursor).collect();
        let settled = self.store.settle(settlements).await;
        let runs = settled.inspect_err(|_| self.look_again(jobs.iter()))?;
        let mut entries = self.lock();
        for (job, cursor) in jobs.iter().zip(cursors) {
            if let Some(entry) = entries.jobs.get_mut(&job.name) {
                entry.cursor = entry.cursor.max(cursor);
                entry.was_paused = None;
            }
        }
        // Its file may have changed or gone while this was written; the run is in the ledger, so it is run.
        let planned: HashMap<_, _> = jobs.into_iter().map(|job| (job.name.clone(), job)).collect();
        let to_start = runs.into_iter().filter_map(|run| {
            let job = entries.jobs.get(&run.job).map(|entry| &entry.job).or_else(|| planned.get(&run.job))?;
            Some((Arc::clone(job), run))
        });
        Ok(to_start.collect())
    }

    /// Nothing was written of these jobs.
    fn look_again<'a>(&self, jobs: impl Iterator<Item = &'a Arc<Job>>) {
        let mut entries = self.lock();
        entries.agenda.extend(jobs.map(|job| Reverse((AT_ONCE, job.name.clone()))));
    }

    /// Anchors jobs anew whose cursor was moved by a clock that was far ahead and has been set back.
    async fn leave_wrong_clock(&self, now: DateTime<Utc>) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        {
            let mut entries = self.lock();
            let entries = &mut *entries;
            for (name, entry) in entries.jobs.iter_mut().filter(|(_, entry)| entry.cursor >= now + WRONG_CLOCK) {
                entry.left = entry.left.max(Some(entry.cursor));
                entry.cursor = now;
                if has_slots(&entry.job) {
                    entries.agenda.push(Reverse((AT_ONCE, name.clone())));
                }
                wrong.push(name.clone());
            }
        }
        if wrong.is_empty() { Ok(()) } else { self.store.anchor(wrong, now).await }
    }

    /// Plans jobs whose time has come, some at a time; puts them on the agenda again.
    fn plan_due(&self, now: DateTime<Utc>) -> Vec<(Arc<Job>, Settlement)> {
        let mut entries = self.lock();
        let entries = &mut *entries;
        let (mut settlements, mut due) = (Vec::new(), Vec::new());
        while due.len() < TOGETHER
            && let Some(Reverse((at, _))) = entries.agenda.peek()
            && *at <= now
            && let Some(Reverse((_, name))) = entries.agenda.pop()
        {
            let Some(entry) = entries.jobs.get_mut(&name) else { continue };
            if entry.paused.is_some() {
                continue;
            }
            if let Some(left) = entry.left.take_if(|left| *left <= now) {
                entry.cursor = entry.cursor.max(left);
                let (job, slots, cursor) = (name, Vec::new(), entry.cursor);
                settlements.push((Arc::clone(&entry.job), Settlement { job, slots, cursor, news: Vec::new() }));
            }
            due.push(Arc::clone(&entry.job));
        }
        let question = |job: &'_ Arc<Job>| entries.jobs.get(&job.name).and_then(Entry::question);
        let questions: Vec<Question<'_>> = due.iter().filter_map(question).collect();
        let plans: Vec<(JobName, Plan)> =
            questions.iter().map(|question| question.job.clone()).zip(plan::all(&questions, now)).collect();
        for (name, plan) in plans {
            let Some(entry) = entries.jobs.get_mut(&name) else { continue };
            entry.next = plan.next;
            if let Some(next) = plan.next {
                entries.agenda.push(Reverse((next, name.clone())));
            }
            if plan.slots.is_empty() {
                // No slot fell into the pause; the next one comes on time.
                entry.was_paused = None;
                continue;
            }
            let newest = plan.slots.len() - 1;
            let slots = plan.slots.iter().enumerate().map(|(index, slot)| Settled {
                due: slot.due,
                last: slot.last,
                count: slot.count,
                verdict: self.verdict(&entry.job, slot, index == newest),
            });
            let (slots, cursor): (Vec<Settled>, _) = (slots.collect(), plan.cursor);
            let news = self.missed(&entry.job, &slots, now);
            settlements.push((Arc::clone(&entry.job), Settlement { job: name, slots, cursor, news }));
        }
        settlements
    }

    /// What is told of slots that went by. Where one is run, it stands for them; where the job was paused, that was meant.
    fn missed(&self, job: &Job, slots: &[Settled], now: DateTime<Utc>) -> Vec<Outgoing> {
        let is_run = |slot: &Settled| matches!(slot.verdict, Verdict::Run(_));
        let missed = |slot: &Settled| match slot.verdict {
            Verdict::Miss(why @ (Missed::Away | Missed::TooOld)) => Some((slot.due, slot.last, slot.count, why)),
            _ => None,
        };
        let all: Vec<_> = slots.iter().filter_map(missed).collect();
        let (Some((first, ..)), Some((_, last, _, why))) = (all.first(), all.last()) else { return Vec::new() };
        if slots.iter().any(is_run) {
            return Vec::new();
        }
        let count = all.iter().fold(0, |sum: u64, (.., count, _)| sum.saturating_add(*count));
        news::missed(job, &self.runner.rules(), (*first, *last, count), *why, now)
    }

    fn verdict(&self, job: &Job, slot: &plan::Planned, is_newest: bool) -> Verdict {
        match slot.what {
            What::Missed(reason) => Verdict::Miss(reason),
            // Made up for one after the other, behind what runs.
            What::CatchUp => Verdict::Run(Trigger::CatchUp(slot.due)),
            // Several that are due at the same moment: where runs may not overlap, the newest stands for them.
            What::OnTime if !is_newest && matches!(job.policies.overlap, Overlap::Skip | Overlap::CancelPrevious) => {
                Verdict::Miss(Missed::Overtaken)
            }
            What::OnTime => match self.runner.admit(job) {
                Admission::Start | Admission::Queue | Admission::CancelPrevious(_) => {
                    Verdict::Run(Trigger::Schedule(slot.due))
                }
                Admission::Skip(reason) => Verdict::Skip(reason),
            },
        }
    }

    /// Queues the jobs that wait for the one that has succeeded, or for any.
    async fn follow_up(&self, succeeded: Option<(JobName, RunId)>) {
        let waits = |job: &Job| match &succeeded {
            Some((name, _)) => job.after.contains(name),
            None => !job.after.is_empty(),
        };
        let waiting: Vec<Arc<Job>> = self
            .lock()
            .jobs
            .values()
            .filter(|entry| entry.job.enabled && entry.paused.is_none() && waits(&entry.job))
            .map(|entry| Arc::clone(&entry.job))
            .collect();
        for job in waiting {
            if let Err(error) = self.start_after(&job, succeeded.as_ref().map(|(_, run)| *run)).await {
                tracing::error!(job = job.name.as_str(), "start it after the jobs it waits for: {error:#}");
            }
        }
    }

    async fn start_after(&self, job: &Arc<Job>, last: Option<RunId>) -> anyhow::Result<()> {
        if !self.store.all_succeeded_since(&job.name, &job.after).await? {
            return Ok(());
        }
        let last = match last {
            Some(last) => Some(last),
            None => self.store.last_runs(job.after.clone()).await?.into_values().map(|run| run.id).max(),
        };
        if let Some(last) = last {
            self.run_now(Arc::clone(job), Trigger::After(last)).await?;
        }
        Ok(())
    }
}

fn has_slots(job: &Job) -> bool {
    job.enabled && job.schedule.as_ref().is_some_and(|schedule| !schedule.is_startup())
}
