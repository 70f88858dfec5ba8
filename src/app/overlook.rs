//! What only time brings, looked at once a minute: reminders, runs and backups that are late, the weekly trial, news that wait too long,
//! and the last-resort file. All of it follows from the ledger, so a look that comes late or twice changes nothing.
use std::{
    fmt::Write as _, fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc, time::Duration,
};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use super::{
    App,
    deliver::{Delivery, Setup, is_blocked, test_news},
};
use crate::{
    job::Job,
    model::{
        JobName,
        news::{About, Event, News, Severity},
    },
    notify::{delivery::SelfTest, plan},
    runner,
    store::{End, OutboxRow},
};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// A weekly trial that nobody was there for is not made up for after this.
const TRIAL: TimeDelta = TimeDelta::hours(12);
/// Rows that are given up or written to the last-resort file in one look.
const ROWS: u32 = 500;
/// The last-resort file is begun anew beyond this; the one before is kept beside it.
const LARGEST_FILE: u64 = 8 << 20;
/// What a job remembers: since when its target is watched, while it has no success.
const WATCHED: &str = "target-watched-since";

impl App {
    /// Looks once a minute, until `stop`.
    pub(super) async fn overlook(self: Arc<Self>, stop: CancellationToken) {
        loop {
            if let Err(error) = self.look_at_jobs().await {
                tracing::error!("look for what is late: {error:#}");
            }
            if let Err(error) = self.delivery.overlook().await {
                tracing::error!("look for what could not be told: {error:#}");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(LOOK) => {}
            }
        }
    }

    /// Reminders and what is late, of every job.
    async fn look_at_jobs(&self) -> anyhow::Result<()> {
        let (config, rules, now) = (self.config(), self.runner.rules(), self.clock.now());
        let mut news = Vec::new();
        for job in config.jobs.values().filter(|job| is_looked_at(job)) {
            let watched = match job.target.age {
                Some(_) => self.watched_since(&job.name, now).await?,
                None => now,
            };
            let standing = self.store.standing(&job.name, runner::news::failures(job), watched).await?;
            news.extend(runner::news::due(job, &rules, &standing, now));
        }
        self.store.tell(news).await
    }

    async fn watched_since(&self, job: &JobName, now: DateTime<Utc>) -> anyhow::Result<DateTime<Utc>> {
        let known = self.store.fact(job, WATCHED).await?;
        if let Some(since) = known.and_then(|since| serde_json::from_value(since).ok()) {
            return Ok(since);
        }
        self.store.set_fact(job, WATCHED, &serde_json::to_value(now)?).await?;
        Ok(now)
    }
}

/// Whether time alone can bring news of it that somebody hears.
fn is_looked_at(job: &Job) -> bool {
    let waits = job.notify.0.remind.is_some() || job.target.age.is_some() || job.target.time.is_some();
    let heard =
        [Event::Failed, Event::TargetMissed, Event::Late].into_iter().any(|event| job.notify.anybody_hears_of(event));
    job.enabled && waits && heard
}

impl Delivery {
    /// The weekly trial, what waits too long, and the last-resort file.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub async fn overlook(&self) -> anyhow::Result<()> {
        let (setup, now) = (self.setup(), self.clock.now());
        if setup.settings.self_test == Some(SelfTest::Weekly) {
            let monday = plan::last_monday(setup.rules.time_zone, now);
            if now - monday < TRIAL {
                let rows = setup.notifiers.keys().map(|name| plan::row(&test_news(name, monday), name, monday));
                self.store.tell(rows.collect()).await?;
            }
        }
        self.note_what_waits(&setup, now).await?;
        self.give_up_what_is_old(&setup, now).await
    }

    /// Writes to the last-resort file what has waited for too long because its notifier does not take it.
    async fn note_what_waits(&self, setup: &Setup, now: DateTime<Utc>) -> anyhow::Result<()> {
        let lines = self.store.lines_of_notifiers().await?;
        let nobody_is_left = setup.notifiers.keys().all(|name| is_blocked(setup, &lines, name));
        let patience = TimeDelta::from_std(setup.settings.patience()).unwrap_or(TimeDelta::MAX);
        let before = if nobody_is_left { now } else { now - patience };
        let rows = self.store.untold(before, ROWS).await?;
        // What waits for the morning waits by choice.
        let is_stuck = |row: &OutboxRow| {
            !setup.notifiers.contains_key(&row.notifier)
                || lines.get(&row.notifier).is_some_and(|line| line.failing.is_some() || line.blocked.is_some())
        };
        let rows: Vec<OutboxRow> = rows.into_iter().filter(is_stuck).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let text: String = rows
            .iter()
            .map(|row| {
                let why = lines.get(&row.notifier).and_then(|line| line.error.as_deref());
                line(&row.news, &row.notifier, why.unwrap_or("it is not in the settings"), now)
            })
            .collect();
        append(&setup.last_resort, &text).await?;
        let count = rows.len();
        tracing::warn!(news = count, file = %setup.last_resort.display(), "news that cannot be told are in the last-resort file");
        self.store.noted(rows.into_iter().map(|row| row.id).collect()).await
    }

    /// Gives up what nobody could be told for very long, and tells that.
    async fn give_up_what_is_old(&self, setup: &Setup, now: DateTime<Utc>) -> anyhow::Result<()> {
        let oldest = now - TimeDelta::from_std(setup.settings.expire.0).unwrap_or(TimeDelta::MAX);
        let mut old: std::collections::BTreeMap<String, Vec<OutboxRow>> = std::collections::BTreeMap::new();
        for row in self.store.waiting(None, ROWS).await?.into_iter().filter(|row| row.not_before < oldest) {
            old.entry(row.notifier.clone()).or_default().push(row);
        }
        for (name, rows) in old {
            let text: String = rows.iter().map(|row| line(&row.news, &name, "given up", now)).collect();
            append(&setup.last_resort, &text).await?;
            let instead = match self.stand_in(setup, &name).await? {
                Some(other) => vec![plan::row(&given_up(&name, &rows, setup, now), &other, now)],
                None => Vec::new(),
            };
            let (count, ids) = (rows.len(), rows.into_iter().map(|row| row.id).collect());
            tracing::error!(notifier = name, news = count, file = %setup.last_resort.display(), "news that could not be told for too long are given up; they are in the last-resort file");
            self.store.end_waiting(&name, ids, End::Expired, instead).await?;
        }
        Ok(())
    }

    /// Writes news to the last-resort file that no notifier is left for.
    pub(super) async fn write_last_resort(&self, setup: &Setup, name: &str, news: &[News], why: &str) {
        let now = self.clock.now();
        let text: String = news.iter().map(|news| line(news, name, why, now)).collect();
        if let Err(error) = append(&setup.last_resort, &text).await {
            tracing::error!(notifier = name, "news that nobody takes are lost: {text}: {error:#}");
        }
    }
}

fn given_up(name: &str, rows: &[OutboxRow], setup: &Setup, now: DateTime<Utc>) -> News {
    News {
        about: About::Notifier { name: name.to_owned() },
        event: Event::NotifierBroken,
        severity: Severity::Warning,
        at: now,
        since: rows.first().map(|row| row.news.at),
        incident: None,
        what: format!(
            "{} for it could not be told for {}: given up, and written into {}",
            crate::text::count(rows.len(), "message"),
            setup.settings.expire,
            setup.last_resort.display()
        ),
        causes: Vec::new(),
        offers: Vec::new(),
        lines: Vec::new(),
    }
}

/// One line of the file: when it was written, when it happened, what, for whom, and why it could not be told.
fn line(news: &News, name: &str, why: &str, now: DateTime<Utc>) -> String {
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let one_line = |text: &str| text.split(['\n', '\r']).collect::<Vec<_>>().join(" ");
    let mut text = format!("{} {} {} {}", time(now), time(news.at), news.about, news.event.word());
    if let Some(since) = news.since {
        let _ = write!(text, " since {}", time(since));
    }
    let _ = writeln!(text, ": {} [for {name}: {}]", one_line(&news.what), one_line(why));
    text
}

/// Adds to the file; it is on the disk when this returns.
async fn append(path: &Path, text: &str) -> anyhow::Result<()> {
    let (path, text) = (path.to_owned(), text.to_owned());
    let work = move || {
        if fs::metadata(&path).is_ok_and(|file| file.len() > LARGEST_FILE) {
            fs::rename(&path, path.with_extension("old"))?;
        }
        let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map(|()| path)
    };
    tokio::task::spawn_blocking(work).await?.context("write the last-resort file").map(|_| ())
}
