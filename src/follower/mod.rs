//! What happens to containers, for the jobs that want it: one subscription to the engine for all of them, and none when there are none.
//!
//! Subscribe, list, compare: the list is the truth, events only tell when to look. Whenever the connection breaks, because the engine
//! is restarted for instance, all of that is done again from where the events were heard last.
mod keeper;
mod offers;
mod past;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    docker::{Engine, EngineError, Event, Events, Following, Policy, Settled},
    job::Job,
    model::{JobName, Trigger, happening::Happens},
    runner::Runner,
    scheduler::Scheduler,
    store::Store,
};
use keeper::Keeper;
use offers::{Offers, Ready, because};
use past::Past;

/// The list is looked at that often, whatever is heard.
const LOOK: Duration = Duration::from_secs(300);
/// An engine that is away is knocked at after this, twice that and so on, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// What an engine may take to answer all that it is asked at the beginning.
const PATIENCE: Duration = Duration::from_secs(60);
/// What was seen is written down so long after it has changed.
const WRITE: Duration = Duration::from_secs(1);
/// What the engine remembers of the time before a connection comes so soon after its beginning.
const OF_THE_PAST: Duration = Duration::from_secs(5);
/// What could not be looked at is looked at again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows containers while the server runs.
#[derive(Debug)]
pub struct Follower(Arc<House>);

/// What all parts of it use.
#[derive(Debug)]
struct House {
    scheduler: Arc<Scheduler>,
    runner: Arc<Runner>,
    store: Store,
    clock: Clock,
}

/// The connection to the engine.
enum Link {
    Up { engine: Engine, events: Box<Events>, look_at: Instant },
    Down { knock_at: Instant },
}

/// What is known while somebody wants it.
struct Watch {
    house: Arc<House>,
    jobs: Vec<Arc<Job>>,
    keepers: BTreeMap<JobName, Keeper>,
    following: Following,
    offers: Offers,
    link: Link,
    /// It was said that the engine is away.
    is_said: bool,
    past: Past,
    /// When the containers were listed for the first time, and when this connection began.
    began: Option<DateTime<Utc>>,
    linked: Instant,
    linked_at: DateTime<Utc>,
    /// How long it is waited before the engine is knocked at.
    wait: Duration,
    write_at: Option<Instant>,
}

enum Heard {
    Jobs,
    Event(Result<Option<Event>, EngineError>),
    Time,
}

impl Follower {
    /// A follower that does nothing yet.
    #[must_use]
    pub fn new(scheduler: Arc<Scheduler>, runner: Arc<Runner>, store: Store, clock: Clock) -> Self {
        Self(Arc::new(House { scheduler, runner, store, clock }))
    }

    /// Follows containers as long as a job wants it, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.0.scheduler.changes();
        loop {
            changes.borrow_and_update();
            if self.0.wanting().is_empty() {
                // What is known now says nothing about what happens until somebody wants it again.
                past::forget(&self.0).await;
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = changes.changed() => continue,
                }
            }
            let mut watch = Watch::begin(&self.0).await;
            loop {
                let next = watch.next_moment();
                let heard = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    _ = changes.changed() => Heard::Jobs,
                    event = watch.link.next() => Heard::Event(event),
                    () = tokio::time::sleep_until(next) => Heard::Time,
                };
                match heard {
                    Heard::Jobs => watch.take_jobs().await,
                    Heard::Event(Ok(Some(event))) => watch.hear(&event).await,
                    Heard::Event(Ok(None)) => watch.lost("it has ended the stream of its events"),
                    Heard::Event(Err(error)) => watch.lost(&error.to_string()),
                    Heard::Time => {}
                }
                if watch.jobs.is_empty() {
                    break;
                }
                watch.act(&stop).await;
            }
            watch.write().await;
            if stop.is_cancelled() {
                return;
            }
        }
    }
}

impl House {
    fn wanting(&self) -> Vec<Arc<Job>> {
        self.scheduler.awake().into_iter().filter(|job| job.follows_containers()).collect()
    }
}

impl Link {
    /// The next event; never, while there is no connection.
    async fn next(&mut self) -> Result<Option<Event>, EngineError> {
        match self {
            Self::Up { events, .. } => events.next().await,
            Self::Down { .. } => std::future::pending().await,
        }
    }
}

impl Watch {
    async fn begin(house: &Arc<House>) -> Self {
        let jobs = house.wanting();
        let past = Past::read(house, &jobs).await;
        let mut watch = Self {
            house: Arc::clone(house),
            keepers: BTreeMap::new(),
            following: past.following(),
            offers: Offers::default(),
            link: Link::Down { knock_at: Instant::now() },
            linked: Instant::now(),
            linked_at: house.clock.now(),
            wait: FIRST_WAIT,
            is_said: false,
            past,
            began: None,
            write_at: None,
            jobs,
        };
        watch.keep();
        watch
    }

    /// The jobs have changed, or the settings have.
    async fn take_jobs(&mut self) {
        self.jobs = self.house.wanting();
        let jobs = &self.jobs;
        self.offers.keep_only(|name| jobs.iter().any(|job| job.name == *name));
        self.keep();
        self.past.take_jobs(&self.house, &self.jobs).await;
        self.write_at.get_or_insert(Instant::now() + WRITE);
        let services = self.house.runner.services();
        if let Link::Up { engine, .. } = &self.link
            && engine.address() != services.docker.address()
        {
            // Another engine has other containers.
            self.following = Following::default();
            self.link = Link::Down { knock_at: Instant::now() };
        }
    }

    /// Each job whose work is never done has its keeper, and no other.
    fn keep(&mut self) {
        let jobs = &self.jobs;
        let is_same = |keeper: &Keeper| jobs.iter().any(|job| Arc::ptr_eq(job, &keeper.job));
        self.keepers.retain(|_, keeper| is_same(keeper));
        for job in jobs {
            if let Some(follow) = job.kind.follows()
                && !self.keepers.contains_key(&job.name)
            {
                self.keepers.insert(job.name.clone(), Keeper::start(&self.house, job, follow));
            }
        }
    }

    fn next_moment(&self) -> Instant {
        let link = match &self.link {
            Link::Up { look_at, .. } => *look_at,
            Link::Down { knock_at } => *knock_at,
        };
        let others = [self.following.settles_at(), self.offers.due_at(), self.write_at];
        others.into_iter().flatten().fold(link, Instant::min)
    }

    async fn hear(&mut self, event: &Event) {
        let name = event.attributes.get("name").map_or("", String::as_str);
        // While it happens, not a moment later, when the run may have let go.
        let is_held = event.action == "die" && self.is_held(&event.id, name).await;
        if let Some(seen) = self.following.event(event, is_held, Instant::now()) {
            let heeds_labels = self.house.runner.services().docker.heeds_labels();
            self.keepers.values().for_each(|keeper| keeper.tell(&seen, heeds_labels));
            self.write_at.get_or_insert(Instant::now() + WRITE);
        }
    }

    async fn is_held(&self, id: &str, name: &str) -> bool {
        self.house.runner.holds(id, name).await.unwrap_or_else(|error| {
            tracing::warn!("look whether a run has the container {name} in its hands: {error:#}");
            false
        })
    }

    /// The connection is gone.
    fn lost(&mut self, why: &str) {
        tracing::debug!(why, "the engine is no longer heard");
        // One that ends each connection at once is not asked without end.
        if self.linked.elapsed() > LONGEST_WAIT {
            self.wait = FIRST_WAIT;
        }
        self.knock_later();
    }

    /// Does what is due.
    async fn act(&mut self, stop: &CancellationToken) {
        let now = Instant::now();
        let is_due = match &self.link {
            Link::Up { look_at, .. } => *look_at <= now,
            Link::Down { knock_at } => *knock_at <= now,
        };
        if is_due {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look() => {}
            }
        }
        let now = Instant::now();
        let mut ready: BTreeMap<JobName, Vec<Ready>> = BTreeMap::new();
        for (job, one) in self.offers.due(now) {
            ready.entry(job).or_default().push(one);
        }
        for settled in self.following.settled(now) {
            self.offer(settled, &mut ready).await;
        }
        for (job, ready) in ready {
            self.start(&job, ready).await;
        }
        if self.write_at.is_some_and(|at| at <= Instant::now()) {
            self.write().await;
        }
    }

    /// Knocks at an engine that is away, and looks at its list.
    async fn look(&mut self) {
        let looked = tokio::time::timeout(PATIENCE, self.look_now()).await;
        match looked.unwrap_or(Err(EngineError::Silent(PATIENCE))) {
            Ok(()) if self.is_said => {
                self.is_said = false;
                tracing::info!("Docker answers again; its containers are followed");
            }
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.is_said, true) {
                    tracing::warn!(
                        "follow containers: {error}; what happens to them is not heard until this is mended"
                    );
                }
                self.knock_later();
            }
        }
    }

    fn knock_later(&mut self) {
        self.link = Link::Down { knock_at: Instant::now() + self.wait };
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    async fn look_now(&mut self) -> Result<(), EngineError> {
        let is_new = matches!(self.link, Link::Down { .. });
        if is_new {
            let engine = self.house.runner.services().docker.connect().await?;
            self.linked_at = self.house.clock.now();
            // First the events, then the list: what happens in between is in both.
            let events = Box::new(engine.all_events(self.following.since()).await?);
            self.list(&engine).await?;
            self.link = Link::Up { engine, events, look_at: Instant::now() + LOOK };
            self.linked = Instant::now();
            self.keepers.values().for_each(Keeper::tell_all);
        } else if let Link::Up { engine, .. } = &self.link {
            let engine = engine.clone();
            let has_missed = self.list(&engine).await?;
            if let Link::Up { look_at, .. } = &mut self.link {
                *look_at = Instant::now() + LOOK;
            }
            if has_missed {
                self.lost("its list shows what its events have not told");
            }
        }
        Ok(())
    }

    /// Compares the list with what is known; says whether they differ.
    async fn list(&mut self, engine: &Engine) -> Result<bool, EngineError> {
        let all = engine.containers().await?;
        let at = self.house.clock.now();
        self.began.get_or_insert(at);
        let changed = self.following.list(&all, at, Instant::now());
        if !changed.is_empty() {
            self.write_at.get_or_insert(Instant::now() + WRITE);
        }
        Ok(!changed.is_empty())
    }

    /// Offers what happened to the jobs that want it.
    async fn offer(&mut self, settled: Settled, ready: &mut BTreeMap<JobName, Vec<Ready>>) {
        let Some(Settled { mut happening, labels, .. }) = self.look_closer(settled).await else { return };
        // What the engine repeats of the time before. Only then are its clock and ours compared, which may differ.
        happening.late |= self.linked.elapsed() < OF_THE_PAST && happening.at < self.linked_at;
        let is_of_the_past = self.began.is_none_or(|began| happening.at <= began);
        let disabled =
            self.house.runner.services().docker.heeds_labels() && Policy::read(&labels).enable == Some(false);
        for job in &self.jobs {
            let Some(on) = &job.on else { continue };
            let is_meant = on.events.contains(&happening.event) && on.is_meant(&happening.container, &labels);
            let is_out = disabled && !on.choice.names(&happening.container);
            // What happened before the job was there is none of its business.
            let is_before = is_of_the_past && !self.past.knew(&job.name);
            if is_meant && !is_out && !is_before {
                let started = self.offers.offer(&job.name, happening.clone(), on.rest.0, Instant::now());
                ready.entry(job.name.clone()).or_default().extend(started);
            }
        }
    }

    /// How a container ended that only the list shows to have ended; nothing, when it did not die.
    async fn look_closer(&mut self, mut settled: Settled) -> Option<Settled> {
        let happening = &mut settled.happening;
        let is_unclear = settled.is_guessed || (happening.status == Some(137) && !happening.out_of_memory);
        if happening.event != Happens::Died || !is_unclear {
            return Some(settled);
        }
        let is_guessed = settled.is_guessed;
        if is_guessed
            && (self.following.was_asked(&happening.id) || self.is_held(&happening.id, &happening.container).await)
        {
            return None;
        }
        let Link::Up { engine, .. } = &self.link else {
            if is_guessed {
                self.following.put_off(settled, Instant::now() + AGAIN);
                return None;
            }
            return Some(settled);
        };
        let found = tokio::time::timeout(PATIENCE, engine.container(&happening.id)).await;
        let container = match found {
            Ok(Ok(container)) => container,
            // Removed by somebody since; of one that removes itself the events have told.
            Ok(Err(error)) if error.is_not_found() && is_guessed => return None,
            _ => return Some(settled),
        };
        let state = &container.raw()["State"];
        if container.state().is_up() {
            return (!is_guessed).then_some(settled);
        }
        happening.out_of_memory |= state["OOMKilled"] == true;
        if is_guessed {
            happening.status = state["ExitCode"].as_i64();
        }
        (!is_guessed || happening.status != Some(0) || happening.out_of_memory).then_some(settled)
    }

    async fn start(&mut self, name: &JobName, ready: Vec<Ready>) {
        let job = self.jobs.iter().find(|job| job.name == *name);
        let (Some(job), Some(because)) = (job, because(&ready)) else { return };
        let trigger = Trigger::Container(Box::new(because));
        let started = self.house.scheduler.start_unless_busy(job, trigger).await;
        match started.context("write it down") {
            Ok(Ok(_)) => self.offers.started(name, &ready),
            Ok(Err(busy)) => {
                let (container, event) = (ready[0].0.container.clone(), ready[0].0.event.word());
                if self.offers.put_back(name, ready, Instant::now()) {
                    tracing::info!(job = %name, container, event, "held back until it may run: {busy}");
                }
            }
            Err(error) => {
                tracing::error!(job = %name, "start it for what happened to a container: {error:#}");
                self.offers.put_back(name, ready, Instant::now());
            }
        }
    }

    async fn write(&mut self) {
        self.write_at = None;
        let address = self.house.runner.services().docker.address().to_string();
        // Before the first look nothing is known.
        if matches!(self.link, Link::Up { .. }) || self.following.newest().is_some() {
            self.past.write(&self.house, address, &self.following, &self.jobs).await;
        }
    }
}
