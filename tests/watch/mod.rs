//! What becomes of what checks find, with a real ledger and runs that are cut off.
mod history;
mod incidents;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use rusuban::{
    clock::Clock,
    config::mistake::Problem,
    job::Job,
    kinds::{Cx, Kind, Services, Site, Summary},
    model::{
        RunId, RunState, Trigger,
        news::{About, Event, News},
        watch::{Checked, Rules, State, Trouble, Verdict},
    },
    notify::routes::Notify,
    runner::{Limits, Runner},
    store::Store,
    watch::WatchSettings,
};

/// Moments from 1970 on that are whole minutes of tests.
fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_000_000 / 86_400 * 86_400, 0).unwrap() + TimeDelta::minutes(minutes)
}

fn rules(failures: u32, successes: u32) -> Rules {
    Rules { failures, successes, remind: None, parent: None, container: None, host: None }
}

fn verdict(state: State) -> Verdict {
    Verdict {
        state,
        what: if state == State::Up { "200 in 84 ms".into() } else { "connection refused".into() },
        took: (state == State::Up).then_some(Duration::from_millis(84)),
        trouble: (state == State::Down).then_some(Trouble::Refused),
        certificate: None,
        address: Some("127.0.0.1".parse().unwrap()),
    }
}

fn checked(check: &str, at: DateTime<Utc>, state: State, rules: &Rules) -> Checked {
    Checked { check: check.into(), at, verdict: verdict(state), rules: rules.clone() }
}

/// A kind whose runs find what they are told to find.
#[derive(Debug, Default)]
struct Finds {
    next: Mutex<Vec<Checked>>,
    said: Mutex<Vec<String>>,
}

#[async_trait]
impl Kind for Finds {
    fn check(&self, _: &Site) -> Vec<Problem> {
        Vec::new()
    }

    fn watches(&self) -> Vec<(String, Rules)> {
        self.next.lock().unwrap().iter().map(|one| (one.check.clone(), one.rules.clone())).collect()
    }

    async fn look(&self, _: &Cx, checks: &[String]) -> anyhow::Result<Vec<Checked>> {
        let found = self.next.lock().unwrap().clone();
        Ok(found.into_iter().filter(|one| checks.contains(&one.check)).collect())
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let found = self.next.lock().unwrap().clone();
        let said = cx.record.checked(found).await?;
        *self.said.lock().unwrap() = said;
        Ok("looked".into())
    }
}

/// A house that can be left as by a crash, and entered again.
struct House {
    path: PathBuf,
    _folder: tempfile::TempDir,
    store: Store,
    runner: Arc<Runner>,
    kind: Arc<Finds>,
    services: Arc<Services>,
    clock: Clock,
    settings: WatchSettings,
}

impl House {
    async fn new(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rusuban.db");
        let (cx, _) = crate::support::kind::context(folder.path(), clock.clone(), []);
        let store = Store::open(&path, clock.clone()).await.unwrap();
        let services = Arc::clone(&cx.services);
        let runner = Runner::new(store.clone(), clock.clone(), Arc::clone(&services), Limits::default());
        let settings = WatchSettings::default();
        Self { path, _folder: folder, store, runner, kind: Arc::default(), services, clock, settings }
    }

    /// All that is in memory is gone.
    async fn crash(&mut self) {
        self.runner.shutdown().await;
        let nothing = Store::in_memory(self.clock.clone()).unwrap();
        self.runner = Runner::new(nothing.clone(), self.clock.clone(), Arc::clone(&self.services), Limits::default());
        self.store = nothing;
        self.store = Store::open(&self.path, self.clock.clone()).await.unwrap();
        self.runner =
            Runner::new(self.store.clone(), self.clock.clone(), Arc::clone(&self.services), Limits::default());
        self.runner.set_watch(self.settings.clone(), []);
    }

    fn job(&self, notifiers: &[&str]) -> Arc<Job> {
        let job = crate::runner::job("sites", Arc::clone(&self.kind) as Arc<dyn Kind>);
        Arc::new(tells(job, notifiers))
    }

    /// A run that finds this; what its log has of it.
    async fn look(&self, job: &Arc<Job>, found: Vec<Checked>) -> Vec<String> {
        *self.kind.next.lock().unwrap() = found;
        self.run(job).await;
        self.kind.said.lock().unwrap().clone()
    }

    async fn run(&self, job: &Arc<Job>) -> RunId {
        let run = self.store.queue_run(&job.name, Trigger::Manual).await.unwrap();
        let id = run.id;
        self.runner.start(Arc::clone(job), run);
        loop {
            let run = self.store.run(id).await.unwrap().unwrap();
            if let RunState::Finished { .. } = run.state {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What is in the outbox: whom, what, of which incident.
    fn told(&self) -> Vec<(String, Event, i64, News)> {
        told(&self.path)
    }
}

fn told(ledger: &Path) -> Vec<(String, Event, i64, News)> {
    let ledger = rusqlite::Connection::open(ledger).unwrap();
    let mut rows = ledger.prepare("SELECT notifier, news FROM outbox ORDER BY id").unwrap();
    let rows = rows.query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let news = rows.map(|row| {
        let (notifier, news) = row.unwrap();
        let news: News = serde_json::from_str(&news).unwrap();
        (notifier, news.event, news.incident.map_or(0, |incident| incident.0), news)
    });
    // What a run tells of itself is not looked at here.
    news.filter(|(.., news)| !matches!(news.about, About::Job { .. })).collect()
}

/// The job, telling these.
fn tells(mut job: Job, notifiers: &[&str]) -> Job {
    job.notify = Notify::all(notifiers.iter().map(|name| (*name).to_owned()));
    job
}
