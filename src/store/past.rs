//! What came before, as far as it matters for what is told: derived from the runs themselves, so it survives whatever happens.
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _};

use super::{Store, moment};
use crate::model::{
    JobName, Outcome, RunId,
    overview::{Card, JobOverview, Overview},
};

/// What came before a run's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// So many runs in a row have failed, this one included if it did.
    pub failures: u32,
    /// When the first of them ended.
    pub failing: Option<DateTime<Utc>>,
    /// The job had succeeded before.
    pub has_succeeded: bool,
    /// The success that a target was missed for, and no success has been told since.
    pub target_missed: Option<DateTime<Utc>>,
}

/// How a job stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// So many runs in a row have failed.
    pub failures: u32,
    /// When the first of them ended.
    pub failing: Option<DateTime<Utc>>,
    /// The newest one's message.
    pub message: String,
    /// When its newest success began; of a job without one, when it was first looked at.
    pub success: DateTime<Utc>,
    /// It has succeeded.
    pub has_succeeded: bool,
    /// Its runs that have not ended, since when, and whether they wait or run.
    pub open: Vec<(RunId, DateTime<Utc>, &'static str)>,
}

/// What came before the end of this run, which has been written.
pub(super) fn of(connection: &Connection, run: RunId, failures: &[Outcome]) -> rusqlite::Result<Past> {
    let job: Option<String> = connection
        .prepare_cached("SELECT job FROM runs WHERE id = ?1")?
        .query_row([run.0], |row| row.get(0))
        .optional()?;
    let Some(job) = job else { return Ok(Past::default()) };
    let success: Option<i64> = connection
        .prepare_cached("SELECT max(id) FROM runs WHERE job = ?1 AND outcome = 'succeeded' AND id <> ?2")?
        .query_row((&job, run.0), |row| row.get(0))?;
    let (failing, count) = in_a_row(connection, &job, success.unwrap_or(0), failures)?;
    let target_missed = target_missed(connection, &job)?;
    Ok(Past { failures: count, failing, has_succeeded: success.is_some(), target_missed })
}

/// When the first run after this one failed, and how many did.
fn in_a_row(
    connection: &Connection,
    job: &str,
    after: i64,
    failures: &[Outcome],
) -> rusqlite::Result<(Option<DateTime<Utc>>, u32)> {
    let is = |outcome| failures.contains(&outcome).then_some(outcome.word());
    let (first, count): (Option<i64>, u32) = connection
        .prepare_cached(
            "SELECT min(finished), count(*) FROM runs
             WHERE job = ?1 AND id > ?2 AND finished IS NOT NULL AND outcome IN (?3, ?4, ?5)",
        )?
        .query_row((job, after, is(Outcome::Failed), is(Outcome::TimedOut), is(Outcome::Interrupted)), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok((first.map(moment), count))
}

/// The newest target that was told as missed, and not as met since. Keys are `job:NAME:SINCE:EVENT:NOTIFIER`.
fn target_missed(connection: &Connection, job: &str) -> rusqlite::Result<Option<DateTime<Utc>>> {
    let story: Option<String> = connection
        .prepare_cached(
            "SELECT story FROM outbox AS missed
             WHERE story >= 'job:' || ?1 || ':' AND story < 'job:' || ?1 || ';'
             AND key >= story || ':target_missed:' AND key < story || ':target_missed;'
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE story = missed.story
                             AND key >= missed.story || ':recovered:' AND key < missed.story || ':recovered;')
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row([job], |row| row.get(0))
        .optional()?;
    Ok(story.and_then(|story| story.rsplit(':').next()?.parse().ok()).map(moment))
}

impl Store {
    /// How a job stands now. `failures` are the outcomes that count as failing.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn standing(
        &self,
        job: &JobName,
        failures: &'static [Outcome],
        watched_since: DateTime<Utc>,
    ) -> anyhow::Result<Standing> {
        let job = job.clone();
        self.read(move |connection| {
            let success: Option<(i64, i64)> = connection
                .prepare_cached(
                    "SELECT id, coalesce(started, queued) FROM runs WHERE job = ?1 AND outcome = 'succeeded'
                     ORDER BY id DESC LIMIT 1",
                )?
                .query_row([job.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let after = success.map_or(0, |(id, _)| id);
            let (failing, count) = in_a_row(connection, job.as_str(), after, failures)?;
            let message: Option<String> = connection
                .prepare_cached(
                    "SELECT message FROM runs WHERE job = ?1 AND id > ?2 AND finished IS NOT NULL
                     AND outcome <> 'cancelled' ORDER BY id DESC LIMIT 1",
                )?
                .query_row((job.as_str(), after), |row| row.get(0))
                .optional()?;
            let mut open = connection.prepare_cached(
                "SELECT id, queued, started IS NULL FROM runs WHERE finished IS NULL AND job = ?1 ORDER BY id",
            )?;
            let open = open.query_map([job.as_str()], |row| {
                let waits: bool = row.get(2)?;
                Ok((
                    RunId(row.get(0)?),
                    moment(row.get(1)?),
                    if waits { "has been waiting" } else { "has been running" },
                ))
            })?;
            Ok(Standing {
                failures: count,
                failing,
                message: message.unwrap_or_default(),
                success: success.map_or(watched_since, |(_, at)| moment(at)),
                has_succeeded: success.is_some(),
                open: open.collect::<Result<_, _>>()?,
            })
        })
        .await
    }
}

/// The ends that count as failing, for a report.
const FAILURES: &[Outcome] = &[Outcome::Failed, Outcome::TimedOut, Outcome::Interrupted];

impl Store {
    /// How these jobs were since then.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn overview(&self, cards: &[Card], since: DateTime<Utc>) -> anyhow::Result<Overview> {
        let cursors = self.cursors().await?;
        let mut jobs = Vec::with_capacity(cards.len());
        for card in cards {
            let standing = self.standing(&card.job, FAILURES, since).await?;
            let job = card.job.clone();
            let (runs, failures): (i64, i64) = self
                .read(move |connection| {
                    connection
                        .prepare_cached(
                            "SELECT count(*), count(*) FILTER (WHERE outcome <> 'succeeded') FROM runs
                             WHERE job = ?1 AND finished >= ?2 AND outcome <> 'cancelled'",
                        )?
                        .query_row((job.as_str(), since.timestamp_millis()), |row| Ok((row.get(0)?, row.get(1)?)))
                })
                .await?;
            jobs.push(JobOverview {
                card: card.clone(),
                runs: runs.unsigned_abs(),
                failures: failures.unsigned_abs(),
                success: standing.has_succeeded.then_some(standing.success),
                failing: standing.failing,
                message: if standing.failing.is_some() { standing.message } else { String::new() },
                paused: cursors.get(&card.job).and_then(|cursor| cursor.paused),
            });
        }
        // Checks of jobs that are gone, and the house's own, are not what a report is about.
        let all = self.checks().await?.into_iter();
        let of_jobs = all.filter(|check| cards.iter().any(|card| card.job.as_str() == check.job));
        let checks = of_jobs.map(|check| (check.check, check.known.state)).collect();
        Ok(Overview { jobs, checks })
    }
}
