//! `rusuban jobs` and `rusuban next`.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Context, Exit, paint};
use crate::{
    app,
    config::Config,
    job::Job,
    model::{Run, RunState},
    store::{Cursor, Store},
    text,
};

/// The jobs: how the last run ended, when the next is due.
pub(super) async fn list(context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let Some(config) = context.load()? else { return Ok(Exit::Configuration) };
    let now = context.clock.now();
    let ledger = context.ledger(&config).await?;
    let (last, cursors) = match &ledger {
        Some(store) => (store.last_runs(config.jobs.keys().cloned().collect()).await?, store.cursors().await?),
        None => Default::default(),
    };
    if context.json {
        let jobs = config.jobs.values().map(|job| {
            json!({
                "job": job.name,
                "kind": job.kind_name,
                "description": job.description,
                "enabled": job.enabled,
                "paused": cursors.get(&job.name).and_then(|cursor| cursor.paused),
                "schedule": job.schedule.as_ref().map(|schedule| schedule.line()),
                "next": next(job, cursors.get(&job.name), now),
                "last_run": last.get(&job.name),
            })
        });
        writeln!(context.out, "{}", serde_json::to_string_pretty(&jobs.collect::<Vec<_>>())?)?;
        return Ok(Exit::Fine);
    }
    if config.jobs.is_empty() {
        writeln!(
            context.out,
            "there are no jobs yet in {}; `rusuban init` writes the first",
            config.home.jobs().display()
        )?;
        return Ok(Exit::Fine);
    }
    let mut table = text::Table::new(["job", "kind", "last run", "", "next", "schedule"]);
    for job in config.jobs.values() {
        let cursor = cursors.get(&job.name);
        let (when, how) = last.get(&job.name).map_or_else(|| ("never".to_owned(), String::new()), |run| told(run, now));
        let next = if !job.enabled {
            paint::faint("not enabled")
        } else if cursor.is_some_and(|cursor| cursor.paused.is_some()) {
            paint::warning("paused")
        } else {
            next(job, cursor, now).map_or_else(|| "-".to_owned(), |at| text::ago(at, now))
        };
        table.row([job.name.to_string(), job.kind_name.to_owned(), when, how, next, schedule_in_words(job)]);
    }
    write!(context.out, "{table}")?;
    if let Some(store) = &ledger {
        for (at, note) in store.notes(now - chrono::TimeDelta::days(7)).await? {
            writeln!(context.out, "\n{} {}: {note}", paint::warning("note"), text::ago(at, now))?;
        }
    }
    Ok(Exit::Fine)
}

fn told(run: &Run, now: DateTime<Utc>) -> (String, String) {
    match &run.state {
        RunState::Queued => (text::ago(run.queued, now), paint::warning("waiting")),
        RunState::Running { since } => (text::ago(*since, now), paint::warning("running")),
        RunState::Finished { at, outcome, .. } => (text::ago(*at, now), paint::outcome(*outcome)),
    }
}

/// A schedule, what it waits for, or how it is started.
fn schedule_in_words(job: &Job) -> String {
    job.starts_in_words().unwrap_or_else(|| "by hand".to_owned())
}

fn next(job: &Job, cursor: Option<&Cursor>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let schedule = job.schedule.as_ref().filter(|_| job.enabled)?;
    let from = cursor.and_then(|cursor| cursor.at).map_or(now, |at| at.max(now));
    schedule.next_after(from)
}

/// When jobs are due next.
pub(super) async fn due(context: &mut Context<'_>, job: Option<&str>, count: usize) -> anyhow::Result<Exit> {
    let Some(config) = context.load()? else { return Ok(Exit::Configuration) };
    let now = context.clock.now();
    let chosen: Vec<_> = match job {
        Some(name) => match context.job(&config, name)? {
            Some(job) => vec![job],
            None => return Ok(Exit::Missing),
        },
        None => config.jobs.values().cloned().collect(),
    };
    let cursors = match context.ledger(&config).await? {
        Some(store) => store.cursors().await?,
        None => Default::default(),
    };
    let is_paused = |job: &Job| cursors.get(&job.name).is_some_and(|cursor| cursor.paused.is_some());
    let mut slots: Vec<_> = chosen
        .iter()
        .filter(|job| job.enabled || chosen.len() == 1)
        .filter_map(|job| Some((job, job.schedule.as_ref()?)))
        .flat_map(|(job, schedule)| schedule.slots_after(now).take(count).map(move |at| (at, job, schedule.zone())))
        .collect();
    slots.sort_by_key(|(at, job, _)| (*at, job.name.clone()));
    if context.json {
        let slots: Vec<_> = slots
            .iter()
            .map(|(at, job, zone)| {
                let local = at.with_timezone(zone).to_rfc3339();
                json!({ "job": job.name, "due": at, "local": local, "enabled": job.enabled, "paused": is_paused(job) })
            })
            .collect();
        writeln!(context.out, "{}", serde_json::to_string_pretty(&slots)?)?;
        return Ok(Exit::Fine);
    }
    if slots.is_empty() {
        writeln!(context.out, "nothing is due: no job that is enabled has a schedule")?;
    }
    let mut table = text::Table::new(["due", "", "job", ""]);
    for (at, job, zone) in slots {
        let state = match (job.enabled, is_paused(job)) {
            (false, _) => paint::faint("not enabled"),
            (true, true) => paint::warning("paused"),
            (true, false) => String::new(),
        };
        table.row([text::moment(at, zone), text::ago(at, now), job.name.to_string(), state]);
    }
    write!(context.out, "{table}")?;
    Ok(Exit::Fine)
}

impl Context<'_> {
    /// The ledger, if there is one yet.
    pub(super) async fn ledger(&self, config: &Config) -> anyhow::Result<Option<Store>> {
        let path = app::ledger(&config.settings.data);
        if !path.try_exists()? {
            return Ok(None);
        }
        Ok(Some(Store::open(&path, self.clock.clone()).await?))
    }
}
