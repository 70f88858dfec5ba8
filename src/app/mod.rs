//! The composition root: everything opened once, and the verbs that all faces use.
use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;

use crate::{
    clock::Clock,
    config::{self, Config, Home},
    follower::Follower,
    job::Job,
    kinds::Services,
    model::{JobName, Run, RunId, RunState, Trigger, news::Event, overview::Card},
    notify,
    runner::{self, Limits, Runner},
    scheduler::Scheduler,
    store::Store,
};

mod alive;
mod asked;
pub mod control;
pub mod coverage;
pub mod deliver;
pub mod dns;
mod events;
mod heard;
mod lock;
mod memory;
mod overlook;
pub mod serve;

use deliver::{Delivery, Setup};
pub use events::Events;
use lock::Lock;

/// The file of the ledger within the data folder.
#[must_use]
pub fn ledger(data: &Path) -> PathBuf {
    data.join("rusuban.db")
}

/// A home with everything in it opened, in the one process that may start its runs.
#[derive(Debug)]
pub struct App {
    clock: Clock,
    home: Home,
    config: Mutex<Arc<Config>>,
    store: Store,
    runner: Arc<Runner>,
    scheduler: Arc<Scheduler>,
    delivery: Arc<Delivery>,
    keys: heard::Keys,
    _lock: Lock,
}

/// Why a verb was not done.
#[derive(Debug)]
pub enum Refusal {
    /// There is no such job or run; a sentence for the person.
    Missing(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Whether a home could be opened.
#[derive(Debug)]
pub enum Opened {
    /// It is ours.
    Ours(Arc<App>),
    /// Another process has it; this is its name for people.
    Taken(String),
}

impl App {
    /// Opens a home. What a crash left undone is settled here: runs that were cut off become `interrupted`, debts are
    /// paid. `doing` is what other processes are told, such as `serve`.
    ///
    /// # Errors
    /// When the data folder or the ledger cannot be opened, or a bucket's settings cannot be used.
    pub async fn open(home: Home, config: Config, clock: Clock, doing: &str) -> anyhow::Result<Opened> {
        let data = config.settings.data.clone();
        make_data_folder(&data)?;
        let lock = match Lock::take(&data, doing)? {
            Ok(lock) => lock,
            Err(holder) => return Ok(Opened::Taken(holder)),
        };
        let store = Store::open(&ledger(&data), clock.clone()).await?;
        let services = config.services(&clock).await?;
        let runner = Runner::new(store.clone(), clock.clone(), Arc::clone(&services), limits(&config));
        runner.set_watch(config.settings.watch.clone(), config.jobs.values().cloned());
        runner.set_cards(config.jobs.values().map(|job| card(job)).collect());
        let scheduler = Scheduler::new(store.clone(), Arc::clone(&runner), clock.clone());
        let delivery = Delivery::new(store.clone(), clock.clone(), Setup::new(&config, &services), data);
        let app = Arc::new(Self {
            clock,
            home,
            config: Mutex::new(Arc::new(config)),
            store,
            runner,
            scheduler: Arc::new(scheduler),
            delivery,
            keys: heard::Keys::default(),
            _lock: lock,
        });
        app.recover(&services).await?;
        Ok(Opened::Ours(app))
    }

    /// Settles what the last process left, and starts again what may be.
    async fn recover(&self, services: &Arc<Services>) -> anyhow::Result<()> {
        let config = self.config();
        for run in runner::recover(&self.store, &self.clock, services, &config.jobs).await? {
            let Some(cut_off) = self.store.run(run).await? else { continue };
            if let Some(job) = config.jobs.get(&cut_off.job) {
                self.scheduler.run_now(Arc::clone(job), Trigger::Rerun(run)).await?;
            }
        }
        Ok(())
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What is configured now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The jobs' schedules and starts.
    pub(super) fn scheduler(&self) -> &Arc<Scheduler> {
        &self.scheduler
    }

    /// Who follows containers for the jobs that want it.
    pub(super) fn follower(&self) -> Follower {
        let (scheduler, runner) = (Arc::clone(&self.scheduler), Arc::clone(&self.runner));
        Follower::new(scheduler, runner, self.store.clone(), self.clock.clone())
    }

    /// The ledger.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whoever tells people what is in the outbox.
    #[must_use]
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// Queues a run by hand and tells what happens in it.
    ///
    /// # Errors
    /// When there is no such job, or the ledger cannot be written.
    pub async fn run_now(&self, name: &JobName) -> Result<(Run, Events), Refusal> {
        let config = self.config();
        let job = config.jobs.get(name).ok_or_else(|| no_such_job(name, &config.jobs))?;
        let run = self.scheduler.run_now(Arc::clone(job), Trigger::Manual).await?;
        let events = Events::new(self.store.clone(), self.clock.clone(), run.id, self.runner.follow(run.id));
        Ok((run, events))
    }

    /// Asks a run to stop.
    ///
    /// # Errors
    /// When there is no such run, or it has ended.
    pub async fn cancel(&self, run: RunId) -> Result<String, Refusal> {
        if self.runner.cancel(run, "cancelled by hand") {
            return Ok(format!("run {run} was asked to stop"));
        }
        Err(match self.store.run(run).await? {
            Some(Run { state: RunState::Finished { outcome, .. }, .. }) => {
                Refusal::Other(anyhow::anyhow!("run {run} has ended already: {outcome}"))
            }
            Some(_) => Refusal::Other(anyhow::anyhow!("run {run} is about to end")),
            None => Refusal::Missing(format!("there is no run {run}")),
        })
    }

    /// Pauses a job or resumes it.
    ///
    /// # Errors
    /// When there is no such job, or the ledger cannot be written.
    pub async fn pause(&self, name: &JobName, paused: bool) -> Result<String, Refusal> {
        let config = self.config();
        if !config.jobs.contains_key(name) {
            return Err(no_such_job(name, &config.jobs));
        }
        if paused {
            self.scheduler.pause(name).await?;
            Ok(format!("{name} is paused; its slots go by until `rusuban resume {name}`"))
        } else {
            self.scheduler.resume(name).await?;
            Ok(format!("{name} is resumed"))
        }
    }

    /// Reads the files again. Wrong files are refused as a whole, and the old ones stay in force.
    ///
    /// # Errors
    /// When the files have mistakes, or a bucket's settings cannot be used.
    pub async fn reload(&self) -> Result<String, Refusal> {
        let loaded = config::load(&self.home, &config::Environment::of_process()).map_err(|mistakes| {
            anyhow::anyhow!(
                "{} in the files; the old ones stay in force. `rusuban check` shows them",
                crate::text::count(mistakes.len(), "mistake")
            )
        })?;
        let config = loaded.config;
        if config.settings.data != self.config().settings.data {
            return Err(
                anyhow::anyhow!("`data` has changed, which needs a restart; the old files stay in force").into()
            );
        }
        if config.settings.listen != self.config().settings.listen {
            return Err(anyhow::anyhow!(
                "`listen` in [web] has changed, which needs a restart; the old files stay in force"
            )
            .into());
        }
        let services = config.services(&self.clock).await?;
        self.delivery.set_up(Setup::new(&config, &services));
        self.runner.set_services(services);
        self.runner.set_limits(limits(&config));
        self.runner.set_watch(config.settings.watch.clone(), config.jobs.values().cloned());
        self.runner.set_cards(config.jobs.values().map(|job| card(job)).collect());
        let changes = self.scheduler.reload(config.jobs.values().cloned().collect()).await?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(changes.to_string())
    }

    /// Sends a trial message through a notifier, and says what came of it.
    ///
    /// # Errors
    /// When there is no such notifier, or it did not take it.
    pub async fn test_notifier(&self, name: &str) -> Result<String, Refusal> {
        if !self.delivery.setup().notifiers.contains_key(name) {
            return Err(Refusal::Missing(format!("rusuban.toml has no notifier `{name}`")));
        }
        match self.delivery.test(name).await? {
            Ok(receipt) => {
                let cost = if receipt.cost == 0 { "" } else { ", and it was paid for" };
                let reference =
                    receipt.reference.map_or_else(String::new, |place| format!(" (the service calls it {place})"));
                Ok(format!("{name} took a trial message{reference}{cost}: look whether it is there"))
            }
            Err(refusal @ notify::Refusal::Later { .. }) => {
                Err(anyhow::anyhow!("{name} did not take it now, and it may go better later: {refusal}").into())
            }
            Err(refusal) => Err(anyhow::anyhow!("{name} did not take it: {refusal}").into()),
        }
    }

    /// Tries a notifier again that was blocked.
    ///
    /// # Errors
    /// When there is no such notifier, or the ledger cannot be written.
    pub async fn unblock_notifier(&self, name: &str) -> Result<String, Refusal> {
        if !self.delivery.setup().notifiers.contains_key(name) {
            return Err(Refusal::Missing(format!("rusuban.toml has no notifier `{name}`")));
        }
        Ok(if self.delivery.unblock(name).await? {
            format!("{name} is tried again, now")
        } else {
            format!("nothing was against {name}")
        })
    }

    /// Starts no new runs, asks those that go on to stop, and waits until all is in the ledger.
    pub async fn shut_down(&self) {
        self.runner.shutdown().await;
    }
}

/// A job as reports know it.
fn card(job: &Job) -> Card {
    Card {
        job: job.name.clone(),
        kind: job.kind_name,
        is_enabled: job.enabled,
        keeps: job.kind.bucket().or(job.kind.repository()).map(str::to_owned),
        is_heard: job.notify.anybody_hears_of(Event::Failed),
    }
}

/// Places by class: the house's, and what the settings say of them.
fn limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    limits.classes.extend(config.settings.limits.clone());
    limits
}

/// Makes the data folder, for its owner alone: the ledger's logs are nobody else's business.
fn make_data_folder(data: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .with_context(|| format!("make the data folder {}", data.display()))
}

/// The sentence for a job that is not there.
#[must_use]
pub fn no_such_job(name: &JobName, jobs: &std::collections::BTreeMap<JobName, Arc<Job>>) -> Refusal {
    let nearest = jobs
        .keys()
        .map(|known| (strsim::damerau_levenshtein(known.as_str(), name.as_str()), known))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    Refusal::Missing(match nearest {
        Some((_, known)) => format!("there is no job `{name}`; did you mean `{known}`?"),
        None => format!("there is no job `{name}`; `rusuban jobs` lists them"),
    })
}
