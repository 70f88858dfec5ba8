//! One run from admission to its end: overlap, locks, classes, time limit, retries, cancel, panic, hooks, debts.
mod active;
mod attempt;
mod clean;
mod debts;
mod gate;
mod hooks;
mod locks;
pub mod news;
mod owed;
mod record;
mod recover;
mod watch;
mod work;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch as channel};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    job::Job,
    kinds::{Progress, Services, quiet},
    model::{Debt, JobName, Line, Outcome, Run, RunId, Skipped, overview::Card},
    notify::plan::Rules,
    policy::Overlap,
    store::Store,
    watch::WatchSettings,
};
use active::Active;
use gate::Gate;
use watch::Watch;

pub use gate::Limits;
pub use recover::recover;
pub use watch::{GATEWAY, HOUSE};

/// At most so many runs of one job wait.
const MOST_WAITING: usize = 10;

/// Runs jobs. Every run that it is given ends in the ledger, whatever happens to it.
pub struct Runner {
    store: Store,
    clock: Clock,
    services: Mutex<Arc<Services>>,
    /// All jobs, for reports.
    cards: Mutex<Arc<Vec<Card>>>,
    gate: Arc<Gate>,
    runs: Mutex<Runs>,
    /// How many runs have not ended.
    count: channel::Sender<usize>,
    finished: broadcast::Sender<(JobName, RunId, Outcome)>,
    closing: CancellationToken,
    watch: Arc<Watch>,
    /// The jobs that look at sites.
    watchers: Mutex<Vec<Arc<Job>>>,
}

#[derive(Default)]
struct Runs {
    active: BTreeMap<RunId, Arc<Active>>,
    /// Those of each job, oldest first.
    of_job: HashMap<JobName, Vec<RunId>>,
}

/// What becomes of a run that would like to start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It starts.
    Start,
    /// It waits for the run before it.
    Queue,
    /// It is not run.
    Skip(Skipped),
    /// It starts after this earlier run, which [`Runner::start`] asks to stop.
    CancelPrevious(RunId),
}

/// What followers of a run hear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A line, after it was written to the ledger.
    Line(Line),
    /// An attempt begins, counted from 1.
    Attempt(u32),
    /// A step begins.
    StepBegan(String),
    /// A step ended.
    StepEnded {
        /// Its name.
        name: String,
        /// What went wrong, if something did.
        error: Option<String>,
    },
    /// How far the current step has come.
    Progress(Progress),
    /// Something for the program that asked for the run.
    Told(serde_json::Value),
    /// The run ended: the last event.
    Finished(Outcome, String),
}

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveRun {
    /// Its number.
    pub id: RunId,
    /// Whose run.
    pub job: JobName,
    /// When its row was written.
    pub queued: DateTime<Utc>,
    /// When work began; absent while it waits.
    pub since: Option<DateTime<Utc>>,
    /// What it waits for, in words.
    pub waits_for: Option<String>,
    /// The attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// The step it is in.
    pub step: Option<String>,
    /// How far that has come.
    pub progress: Option<Progress>,
    /// Why it was asked to stop, if it was.
    pub stopping: Option<String>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runner({} runs)", self.runs().active.len())
    }
}

impl Runner {
    /// A runner without runs.
    #[must_use]
    pub fn new(store: Store, clock: Clock, services: Arc<Services>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            watch: Watch::new(store.clone(), clock.clone()),
            watchers: Mutex::default(),
            store,
            clock,
            services: Mutex::new(services),
            cards: Mutex::default(),
            gate: Gate::new(limits),
            runs: Mutex::default(),
            count: channel::channel(0).0,
            finished: broadcast::channel(4096).0,
            closing: CancellationToken::new(),
        })
    }

    /// What would become of a run of this job now. It takes no place: two runs that are admitted together and started
    /// together wait for each other all the same, unless the job allows otherwise.
    #[must_use]
    pub fn admit(&self, job: &Job) -> Admission {
        let runs = self.runs();
        let Some(of_job) = runs.of_job.get(&job.name) else { return Admission::Start };
        let (Some(first), Some(newest)) = (of_job.first(), of_job.last()) else { return Admission::Start };
        let waiting = || of_job.iter().filter(|run| runs.active.get(run).is_some_and(|run| run.waits())).count();
        match job.policies.overlap {
            Overlap::Skip => Admission::Skip(Skipped::Overlap(*first)),
            Overlap::CancelPrevious => Admission::CancelPrevious(*newest),
            Overlap::Queue | Overlap::Allow if waiting() >= MOST_WAITING => Admission::Skip(Skipped::QueueFull),
            Overlap::Queue => Admission::Queue,
            Overlap::Allow => Admission::Start,
        }
    }

    /// Runs the job; returns at once. The run's row is in the ledger already, queued; it ends there whatever happens.
    /// Runs of one job never overlap unless it says
    /// `overlap = "allow"`, and are served in the order in which they were started; with `cancel_previous`, its earlier ones are asked to stop.
    pub fn start(self: &Arc<Self>, job: Arc<Job>, run: Run) {
        let active = {
            let mut runs = self.runs();
            if runs.active.contains_key(&run.id) {
                return;
            }
            if job.policies.overlap == Overlap::CancelPrevious {
                for earlier in runs.of_job.get(&job.name).into_iter().flatten() {
                    if let Some(earlier) = runs.active.get(earlier) {
                        earlier.stop(&format!("run {} took its place", run.id));
                    }
                }
            }
            let active = Active::new(self, &job, &run);
            runs.of_job.entry(run.job.clone()).or_default().push(run.id);
            runs.active.insert(run.id, Arc::clone(&active));
            self.count.send_replace(runs.active.len());
            active
        };
        if self.closing.is_cancelled() {
            active.stop(STOPPING);
        }
        let turn = work::queue(self, &job, &active);
        let runner = Arc::clone(self);
        tokio::spawn(async move {
            let (outcome, message) = work::work(&runner, &job, &active, turn).await;
            runner.end(&job, &active, outcome, message).await;
        });
    }

    /// Asks a run to stop; says whether there was one. The run goes on until it has cleaned up after itself.
    pub fn cancel(&self, run: RunId, why: &str) -> bool {
        let active = self.runs().active.get(&run).cloned();
        active.is_some_and(|active| {
            active.stop(why);
            true
        })
    }

    /// The runs that have not ended, oldest first.
    #[must_use]
    pub fn active(&self) -> Vec<ActiveRun> {
        let active: Vec<_> = self.runs().active.values().cloned().collect();
        active.iter().map(|active| active.show(&self.gate)).collect()
    }

    /// What a run says from now on; none when it has ended. Subscribe first, then read its lines from the ledger: what was
    /// said between is in both, and told apart by its number.
    #[must_use]
    pub fn follow(&self, run: RunId) -> Option<broadcast::Receiver<Event>> {
        self.runs().active.get(&run).map(|active| active.record.follow())
    }

    /// Runs that end, after their end was written to the ledger. Whoever is told that he lagged behind looks into the ledger.
    #[must_use]
    pub fn finished(&self) -> broadcast::Receiver<(JobName, RunId, Outcome)> {
        self.finished.subscribe()
    }

    /// Whether a run has this container, by its id or name, in its hands at this moment: it stops it, lets it run again, or puts
    /// another in its place.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn holds(&self, id: &str, name: &str) -> anyhow::Result<bool> {
        if quiet::is_claimed(id) {
            return Ok(true);
        }
        let is_about = |debt: &Debt| match debt {
            Debt::Start { container, .. } | Debt::Thaw { container } => container.id == id || container.name == name,
            Debt::Swap(swap) => swap.name == name || swap.old == id || swap.new.as_deref() == Some(id),
            Debt::Unstarted { container, .. } | Debt::Container { name: container, .. } => container == name,
            _ => false,
        };
        Ok(self.store.debts().await?.iter().any(|(_, _, _, debt)| is_about(debt)))
    }

    /// Gives these services to runs that begin from now on; the others keep theirs.
    pub fn set_services(&self, services: Arc<Services>) {
        *self.services.lock().unwrap_or_else(PoisonError::into_inner) = services;
    }

    /// Sets what the settings say of checks, and which jobs look at sites.
    pub fn set_watch(&self, settings: WatchSettings, jobs: impl IntoIterator<Item = Arc<Job>>) {
        let watchers = jobs.into_iter().filter(|job| job.enabled && !job.kind.watches().is_empty()).collect();
        *self.watchers.lock().unwrap_or_else(PoisonError::into_inner) = watchers;
        self.watch.set(Arc::new(settings));
    }

    /// Tells runs that begin from now on which jobs there are.
    pub fn set_cards(&self, cards: Vec<Card>) {
        *self.cards.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(cards);
    }

    fn cards(&self) -> Arc<Vec<Card>> {
        Arc::clone(&self.cards.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets how many runs of each class are at work at once. Nobody who is at work is stopped.
    pub fn set_limits(&self, limits: Limits) {
        self.gate.set_limits(limits);
    }

    /// Asks all runs to stop, and returns when each has ended in the ledger: by itself, or killed after its grace period.
    /// What is started from now on is cancelled before it begins.
    pub async fn shutdown(&self) {
        self.closing.cancel();
        let active: Vec<_> = self.runs().active.values().cloned().collect();
        for active in active {
            active.stop(STOPPING);
        }
        // The sender is ours, so the channel is open.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    async fn end(&self, job: &Arc<Job>, active: &Active, outcome: Outcome, message: String) {
        let (store, rules, told) = (&self.store, Arc::clone(&self.services().rules), active.record.take_told());
        if let Err(error) = news::close(store, job, rules, active.id, outcome, &message, told).await {
            tracing::error!(job = %active.job, run = %active.id, %outcome, error = format!("{error:#}"), "the run's end could not be written");
        }
        match outcome {
            Outcome::Succeeded => tracing::info!(job = %active.job, run = %active.id, %outcome, message, "run ended"),
            _ => tracing::warn!(job = %active.job, run = %active.id, %outcome, message, "run ended"),
        }
        {
            let mut runs = self.runs();
            runs.active.remove(&active.id);
            if let Some(of_job) = runs.of_job.get_mut(&active.job) {
                of_job.retain(|run| *run != active.id);
                if of_job.is_empty() {
                    runs.of_job.remove(&active.job);
                }
            }
        }
        active.record.tell(Event::Finished(outcome, message));
        // Nobody listens: nobody is told.
        let _ = self.finished.send((active.job.clone(), active.id, outcome));
        // Last, so that whoever waits for the end of all has heard of each.
        let runs = self.runs();
        self.count.send_replace(runs.active.len());
    }

    /// What notifiers are told by.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.services().rules)
    }

    /// What runs that begin now share.
    #[must_use]
    pub fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const STOPPING: &str = "Rusuban was stopped";
