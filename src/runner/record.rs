//! A run's record: what the kind says, kept in the ledger in order and told to whoever follows.
//!
//! A line is told only after it was written, so whoever subscribes first and then reads the ledger misses nothing.
//! Memory is bounded whatever a run prints: the first lines are kept as they come, of the rest the last ones.
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use super::{
    Event, Runner,
    clean::Cleaner,
    watch::{Report, Watch, container_of},
};
use crate::{
    clock::Clock,
    job::Job,
    kinds::{Progress, Record, Services, Told},
    model::{
        Debt, DebtId, JobName, Level, Line, RunId, Step,
        overview::{Card, Overview},
        watch::Checked,
    },
    store::Store,
};

/// Lines that are kept as they come, and how many bytes they may have.
const FIRST: (u64, usize) = (8_000, 8 << 20);
/// Lines beyond those, of which the last are kept.
const LAST: (usize, usize) = (2_000, 2 << 20);
/// Steps that are kept.
const STEPS: usize = 5_000;
/// News that one run may have, beside its end.
const MOST_TOLD: usize = 20;
/// Lines are written this long after the first of them was said, or when there are so many.
const GATHER: (Duration, usize) = (Duration::from_millis(200), 100);

/// A run's record, written to the ledger by a task of its own until [`RunRecord::close`].
pub(super) struct RunRecord {
    store: Store,
    clock: Clock,
    job: JobName,
    run: RunId,
    /// The job's file, as it was when the run began.
    file: Arc<Job>,
    services: Arc<Services>,
    watch: Arc<Watch>,
    /// All jobs, as this run may know them.
    cards: Arc<Vec<Card>>,
    /// Made when the first one follows: its memory is taken at once.
    events: OnceLock<broadcast::Sender<Event>>,
    kept: Mutex<Kept>,
    said: Notify,
    enough: Notify,
    closing: CancellationToken,
}

#[derive(Default)]
struct Kept {
    cleaner: Arc<Cleaner>,
    /// What is to be written, in order.
    pending: Vec<Entry>,
    /// The last line's number.
    number: u64,
    /// Lines and bytes kept as they came.
    first: (u64, usize),
    /// The last of the lines beyond those, and their bytes.
    last: VecDeque<Line>,
    last_bytes: usize,
    dropped: u64,
    /// The number of the newest line that followers were told of without it being written.
    told: u64,
    steps: usize,
    open_steps: HashMap<String, DateTime<Utc>>,
    progress: Option<Progress>,
    progress_is_new: bool,
    step: Option<String>,
    debts: Vec<(DebtId, Debt)>,
    /// Containers that it stopped, paused or replaced.
    held: BTreeSet<String>,
    /// What is to be told when the run ends.
    news: Vec<Told>,
    closed: bool,
}

enum Entry {
    Line(Line),
    Step(Step),
}

impl fmt::Debug for RunRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunRecord({})", self.run)
    }
}

impl RunRecord {
    pub(super) fn new(runner: &Runner, job: &Arc<Job>, run: RunId) -> Arc<Self> {
        Arc::new(Self {
            store: runner.store.clone(),
            clock: runner.clock.clone(),
            job: job.name.clone(),
            run,
            file: Arc::clone(job),
            services: runner.services(),
            watch: Arc::clone(&runner.watch),
            cards: runner.cards(),
            events: OnceLock::new(),
            kept: Mutex::default(),
            said: Notify::new(),
            enough: Notify::new(),
            closing: CancellationToken::new(),
        })
    }

    /// From here on these secrets are removed.
    pub(super) fn set_cleaner(&self, cleaner: Cleaner) {
        self.kept().cleaner = Arc::new(cleaner);
    }

    /// `text` as one line without secrets.
    pub(super) fn clean(&self, text: &str) -> String {
        let cleaner = Arc::clone(&self.kept().cleaner);
        cleaner.line(text)
    }

    pub(super) fn follow(&self) -> broadcast::Receiver<Event> {
        self.events.get_or_init(|| broadcast::channel(1024).0).subscribe()
    }

    /// Tells followers.
    pub(super) fn tell(&self, event: Event) {
        if let Some(events) = self.events.get() {
            // Nobody follows any more: nobody is told.
            let _ = events.send(event);
        }
    }

    /// The step it is in and how far that has come.
    pub(super) fn position(&self) -> (Option<String>, Option<Progress>) {
        let kept = self.kept();
        (kept.step.clone(), kept.progress.clone())
    }

    /// Debts that were written down and not paid; they are the caller's now.
    pub(super) fn take_debts(&self) -> Vec<(DebtId, Debt)> {
        std::mem::take(&mut self.kept().debts)
    }

    /// The containers that it stopped, paused or replaced.
    pub(super) fn take_held(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.kept().held)
    }

    /// Writes what is said, until the record is closed.
    pub(super) async fn keep_writing(self: Arc<Self>) {
        while !self.closing.is_cancelled() {
            tokio::select! {
                () = self.said.notified() => {}
                () = self.closing.cancelled() => break,
            }
            tokio::select! {
                () = tokio::time::sleep(GATHER.0) => {}
                () = self.enough.notified() => {}
                () = self.closing.cancelled() => {}
            }
            self.write().await;
        }
    }

    /// Writes all that is left, once [`RunRecord::keep_writing`], whose handle this is, has ended. What is said later is not heard.
    pub(super) async fn close(&self, writing: tokio::task::JoinHandle<()>) {
        self.closing.cancel();
        let _ = writing.await;
        self.write().await;
        let last = {
            let mut kept = self.kept();
            kept.closed = true;
            let mut last: Vec<Line> = kept.last.drain(..).collect();
            if kept.dropped > 0
                && let Some(first) = last.first()
            {
                let text = format!("… {} lines dropped: a run keeps {} lines or {} MiB …", kept.dropped, 10_000, 10);
                last.insert(0, Line { number: 0, at: first.at, level: Level::Warning, text });
            }
            // In the ledger they follow the first ones without a gap.
            for (line, number) in last.iter_mut().zip(kept.first.0 + 1..) {
                line.number = number;
            }
            last
        };
        self.write_lines(last).await;
    }

    /// What is to be told; it is the caller's now.
    pub(super) fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut self.kept().news)
    }

    async fn write(&self) {
        let (pending, progress) = {
            let mut kept = self.kept();
            let is_new = std::mem::take(&mut kept.progress_is_new);
            (std::mem::take(&mut kept.pending), kept.progress.clone().filter(|_| is_new))
        };
        let mut lines = Vec::new();
        for entry in pending {
            match entry {
                Entry::Line(line) => lines.push(line),
                Entry::Step(step) => {
                    self.write_lines(std::mem::take(&mut lines)).await;
                    self.write_step(step).await;
                }
            }
        }
        self.write_lines(lines).await;
        if let Some(progress) = progress {
            self.tell(Event::Progress(progress));
        }
        if self.is_followed() {
            self.tell_unwritten();
        }
    }

    /// Lines beyond the first are written when the run ends; whoever follows hears of them now.
    fn tell_unwritten(&self) {
        let lines: Vec<Line> = {
            let mut kept = self.kept();
            let told = kept.told;
            kept.told = kept.number;
            kept.last.iter().filter(|line| line.number > told).cloned().collect()
        };
        for line in lines {
            self.tell(Event::Line(line));
        }
    }

    async fn write_lines(&self, lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        let told = lines.clone();
        if let Err(error) = self.store.add_lines(self.run, lines).await {
            tracing::error!(job = %self.job, run = %self.run, error = format!("{error:#}"), "lines of the run's log are lost");
        }
        // Asked now and not before: whoever followed in between may have looked into the ledger too early.
        if self.is_followed() && !self.kept().closed {
            for line in told {
                self.tell(Event::Line(line));
            }
        }
    }

    async fn write_step(&self, step: Step) {
        let event = match &step.ended {
            None => Event::StepBegan(step.name.clone()),
            Some(_) => Event::StepEnded { name: step.name.clone(), error: step.error.clone() },
        };
        if let Err(error) = self.store.write_step(self.run, step).await {
            tracing::error!(job = %self.job, run = %self.run, error = format!("{error:#}"), "a step of the run is lost");
        }
        self.tell(event);
    }

    fn is_followed(&self) -> bool {
        self.events.get().is_some_and(|events| events.receiver_count() > 0)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, kept: &mut Kept, entry: Entry) {
        if kept.closed {
            return;
        }
        kept.pending.push(entry);
        if kept.pending.len() >= GATHER.1 {
            self.enough.notify_one();
        }
        self.said.notify_one();
    }
}

#[async_trait]
impl Record for RunRecord {
    fn line(&self, level: Level, text: &str) {
        let cleaner = Arc::clone(&self.kept().cleaner);
        let at = self.clock.now();
        let texts = if text.is_empty() { vec![String::new()] } else { cleaner.lines(text) };
        let mut kept = self.kept();
        for text in texts {
            kept.number += 1;
            let line = Line { number: kept.number, at, level, text };
            if kept.last.is_empty() && kept.first.0 < FIRST.0 && kept.first.1 < FIRST.1 {
                kept.first.0 += 1;
                kept.first.1 += line.text.len();
                self.push(&mut kept, Entry::Line(line));
            } else if !kept.closed {
                kept.keep_among_the_last(line);
                self.said.notify_one();
            }
        }
    }

    fn progress(&self, progress: Progress) {
        let mut kept = self.kept();
        kept.progress = Some(progress);
        if !std::mem::replace(&mut kept.progress_is_new, true) {
            self.said.notify_one();
        }
    }

    fn told(&self, value: serde_json::Value) {
        self.tell(Event::Told(value));
    }

    fn step_began(&self, name: &str) {
        let name = self.clean(name);
        let began = self.clock.now();
        let mut kept = self.kept();
        kept.progress = None;
        kept.step = Some(name.clone());
        kept.steps += 1;
        if kept.steps <= STEPS {
            kept.open_steps.insert(name.clone(), began);
            self.push(&mut kept, Entry::Step(Step { name, began, ended: None, error: None }));
        }
    }

    fn step_ended(&self, name: &str, error: Option<&str>) {
        let name = self.clean(name);
        let error = error.map(|error| self.clean(error));
        let ended = Some(self.clock.now());
        let mut kept = self.kept();
        if kept.step.as_ref() == Some(&name) {
            kept.step = None;
            kept.progress = None;
        }
        if let Some(began) = kept.open_steps.remove(&name) {
            self.push(&mut kept, Entry::Step(Step { name, began, ended, error }));
        }
    }

    async fn owe(&self, debt: Debt) -> anyhow::Result<DebtId> {
        let id = self.store.owe(self.run, &self.job, &debt).await?;
        self.watch.owed(id, &debt, &self.job, self.run);
        let mut kept = self.kept();
        kept.held.extend(container_of(&debt).map(|(name, _)| name.to_owned()));
        kept.debts.push((id, debt));
        Ok(id)
    }

    async fn paid(&self, debt: DebtId) -> anyhow::Result<()> {
        self.store.paid(debt).await?;
        self.watch.paid(debt);
        self.kept().debts.retain(|(id, _)| *id != debt);
        Ok(())
    }

    async fn fact(&self, key: &str) -> anyhow::Result<Option<serde_json::Value>> {
        self.store.fact(&self.job, key).await
    }

    async fn checked(&self, mut checks: Vec<Checked>) -> anyhow::Result<Vec<String>> {
        for one in &mut checks {
            one.verdict.what = self.clean(&one.verdict.what);
        }
        self.watch.checked(&Report { job: &self.file, services: &self.services }, checks).await
    }

    async fn overview(&self, since: DateTime<Utc>) -> anyhow::Result<Overview> {
        self.store.overview(&self.cards, since).await
    }

    fn tell(&self, told: Told) {
        let clean = |text: &str| self.clean(text);
        let Told { event, severity, what, lines } = told;
        let told = Told { event, severity, what: clean(&what), lines: lines.iter().map(|line| clean(line)).collect() };
        let mut kept = self.kept();
        if kept.news.len() < MOST_TOLD {
            kept.news.push(told);
        }
    }

    async fn remember(&self, key: &str, value: serde_json::Value) -> anyhow::Result<()> {
        self.store.set_fact(&self.job, key, &value).await
    }
}

impl Kept {
    fn keep_among_the_last(&mut self, line: Line) {
        self.last_bytes += line.text.len();
        self.last.push_back(line);
        while self.last.len() > LAST.0 || self.last_bytes > LAST.1 {
            let Some(gone) = self.last.pop_front() else { break };
            self.last_bytes -= gone.text.len();
            self.dropped += 1;
        }
    }
}
