//! Ten thousand jobs due in one second, for `dev/bench`: `bench_due JOBS`.
//!
//! The whole server with its ledger on the disk; only the work itself is left out, so that what is measured is ours.
//! Prints, as one line of JSON, how often jobs were started, how late, and what it took.
#![expect(clippy::print_stdout, reason = "it is what the example is for")]
use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Timelike as _, Utc};
use rustix::time::{ClockId, clock_gettime};
use rusuban::{
    app::{self, App, Opened},
    clock::Clock,
    config::{self, Environment, Home, mistake::Problem},
    job::Job,
    kinds::{Cx, Kind, Site, Summary},
    model::{JobName, RunState},
    store::RunFilter,
};

/// From the start to the slot: reading so many files comes before.
const AHEAD: TimeDelta = TimeDelta::seconds(5);

/// Which job began when.
type Begun = Vec<(JobName, DateTime<Utc>)>;

/// A kind that only notes when its work began.
#[derive(Clone, Debug, Default)]
struct Began(Arc<Mutex<Begun>>);

#[async_trait]
impl Kind for Began {
    fn check(&self, _: &Site) -> Vec<Problem> {
        Vec::new()
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        self.all().push((cx.job.clone(), cx.clock.now()));
        Ok("nothing".to_owned())
    }
}

impl Began {
    fn all(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let count: usize = std::env::args().nth(1).context("usage: bench_due JOBS")?.parse()?;
    let folder = tempfile::tempdir()?;
    let clock = Clock::system();
    let due = (clock.now() + AHEAD).with_nanosecond(0).context("a whole second")?;
    let began = Began::default();
    let app = open(folder.path(), &clock, due, count, &began).await?;
    let server = tokio::spawn(app::serve::serve(Arc::clone(&app)));

    clock.sleep_until(due - TimeDelta::milliseconds(200)).await;
    if clock.now() >= due {
        bail!("the machine is too slow: the slot came before all was ready");
    }
    let processor_before = processor_seconds();
    clock.sleep_until(due).await;
    while began.all().len() < count {
        clock.sleep(Duration::from_millis(20)).await;
    }
    app.shut_down().await;
    let (processor, took) = (processor_seconds() - processor_before, clock.now() - due);

    let began = std::mem::take(&mut *began.all());
    let mut times = BTreeMap::<_, u32>::new();
    began.iter().for_each(|(job, _)| *times.entry(job.clone()).or_default() += 1);
    let mut late: Vec<_> = began.iter().map(|(_, at)| (*at - due).num_milliseconds()).collect();
    late.sort_unstable();
    let at = |share: usize| late.get(late.len() * share / 100).or(late.last()).copied().unwrap_or_default();
    let everything = RunFilter { job: None, before: None, limit: u32::MAX };
    let ended =
        app.store().runs(everything).await?.into_iter().filter(|run| matches!(run.state, RunState::Finished { .. }));
    println!(
        r#"{{"once": {}, "in_ledger": {}, "p50_ms": {}, "p99_ms": {}, "worst_ms": {}, "processor_s": {processor:.3}, "all_ended_ms": {}}}"#,
        times.values().filter(|times| **times == 1).count(),
        ended.count(),
        at(50),
        at(99),
        at(100),
        took.num_milliseconds(),
    );
    server.abort();
    Ok(())
}

/// A home whose jobs are all due at `due`.
async fn open(
    home: &std::path::Path,
    clock: &Clock,
    due: DateTime<Utc>,
    count: usize,
    began: &Began,
) -> anyhow::Result<Arc<App>> {
    fs::create_dir(home.join("jobs"))?;
    let schedule = due.format("%-S %-M %-H * * *");
    let file = format!("kind = \"command\"\ncommand = [\"true\"]\ntime_zone = \"UTC\"\nschedule = \"{schedule}\"\n");
    fs::write(home.join("jobs/job.toml"), file)?;
    // One place for each: what is measured is how late they start, not how they wait for each other.
    fs::write(home.join("rusuban.toml"), format!("[limits]\ncommand = {count}\n"))?;
    let environment = Environment::default();
    let home = Home::find(Some(home.to_owned()), &environment)?;
    let loaded = config::load(&home, &environment);
    let mut config = loaded.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?.config;
    let pattern = config.jobs.pop_first().context("one job")?.1;
    for number in 0..count {
        let name: JobName = format!("job-{number}").parse().map_err(anyhow::Error::msg)?;
        let job = Job { name: name.clone(), kind: Arc::new(began.clone()), ..Job::clone(&pattern) };
        config.jobs.insert(name, Arc::new(job));
    }
    match App::open(home, config, clock.clone(), "bench").await? {
        Opened::Ours(app) => Ok(app),
        Opened::Taken(holder) => bail!("{holder} has it"),
    }
}

fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
