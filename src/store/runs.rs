//! Runs, their lines and steps.
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row};

use super::{LastRuns, Past, Store, WhenFull, from_json, job_name, moment, outbox, past, to_json};
use crate::model::{JobName, Level, Line, Outcome, Run, RunId, RunState, Step, Trigger, news::Outgoing};

/// Which runs are asked for.
#[derive(Clone, Debug)]
pub struct RunFilter {
    /// Only this job's.
    pub job: Option<JobName>,
    /// Only those before this one.
    pub before: Option<RunId>,
    /// How many at most.
    pub limit: u32,
}

const COLUMNS: &str = "id, job, trigger, queued, started, finished, outcome, attempts, message";

pub(super) fn prepare_insert(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached("INSERT INTO runs (id, job, trigger, queued) VALUES (?1, ?2, ?3, ?4)")
}

pub(super) fn insert(
    insert: &mut CachedStatement<'_>,
    id: RunId,
    job: &JobName,
    trigger: &Trigger,
    queued: DateTime<Utc>,
) -> rusqlite::Result<()> {
    insert.execute((id.0, job.as_str(), to_json(trigger)?, queued.timestamp_millis()))?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Run> {
    let job: String = row.get(1)?;
    let trigger: String = row.get(2)?;
    let started: Option<i64> = row.get(4)?;
    let finished: Option<i64> = row.get(5)?;
    let outcome: Option<String> = row.get(6)?;
    let state = match (finished, outcome, started) {
        (Some(at), Some(outcome), since) => RunState::Finished {
            since: since.map(moment),
            at: moment(at),
            outcome: from_json(&format!("\"{outcome}\""))?,
        },
        (_, _, Some(since)) => RunState::Running { since: moment(since) },
        _ => RunState::Queued,
    };
    Ok(Run {
        id: RunId(row.get(0)?),
        job: job_name(&job)?,
        trigger: from_json(&trigger)?,
        queued: moment(row.get(3)?),
        state,
        attempts: row.get(7)?,
        message: row.get(8)?,
    })
}

impl Store {
    /// Writes the row of a run that no slot asked for.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn queue_run(&self, job: &JobName, trigger: Trigger) -> anyhow::Result<Run> {
        let run = Run {
            id: self.0.new_run(),
            job: job.clone(),
            trigger,
            queued: self.0.clock.now(),
            state: RunState::Queued,
            attempts: 0,
            message: String::new(),
        };
        let row = run.clone();
        self.write(WhenFull::Hold, move |connection| {
            insert(&mut prepare_insert(connection)?, row.id, &row.job, &row.trigger, row.queued)
        })
        .await?;
        Ok(run)
    }

    /// An attempt begins; the first one is the run's start.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn run_started(&self, run: RunId, attempt: u32) -> anyhow::Result<()> {
        let now = self.0.clock.now().timestamp_millis();
        self.write(WhenFull::Hold, move |connection| {
            connection
                .prepare_cached("UPDATE runs SET started = coalesce(started, ?2), attempts = ?3 WHERE id = ?1")?
                .execute((run.0, now, attempt))?;
            Ok(())
        })
        .await
    }

    /// The run is over. A run that has ended keeps its first end.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn run_finished(&self, run: RunId, outcome: Outcome, message: &str) -> anyhow::Result<()> {
        self.run_finished_with_news(run, outcome, message, &[], |_, _| Vec::new()).await
    }

    /// The run is over, and in the same transaction that is written which is to be told of it. `tell` is given what came before it, and
    /// when it ended; `failures` are the outcomes that count as the job's failing.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn run_finished_with_news(
        &self,
        run: RunId,
        outcome: Outcome,
        message: &str,
        failures: &'static [Outcome],
        tell: impl Fn(&Past, DateTime<Utc>) -> Vec<Outgoing> + Send + 'static,
    ) -> anyhow::Result<()> {
        let now = self.0.clock.now();
        let message = message.to_owned();
        self.write(WhenFull::Hold, move |connection| {
            let changed = connection
                .prepare_cached(
                    "UPDATE runs SET finished = ?2, outcome = ?3, message = ?4 WHERE id = ?1 AND finished IS NULL",
                )?
                .execute((run.0, now.timestamp_millis(), outcome.word(), &message))?;
            if changed == 1 {
                outbox::put(connection, &tell(&past::of(connection, run, failures)?, moment(now.timestamp_millis())))?;
            }
            Ok(())
        })
        .await
    }

    /// Adds lines to a run's log.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn add_lines(&self, run: RunId, lines: Vec<Line>) -> anyhow::Result<()> {
        self.write(WhenFull::MayDrop, move |connection| {
            let mut insert = connection.prepare_cached(
                "INSERT OR REPLACE INTO lines (run, number, at, level, text) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for line in &lines {
                let number = i64::try_from(line.number).unwrap_or(i64::MAX);
                insert.execute((run.0, number, line.at.timestamp_millis(), to_json(&line.level)?, &line.text))?;
            }
            Ok(())
        })
        .await
    }

    /// Writes a step with its beginning and, once it is over, its end.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn write_step(&self, run: RunId, step: Step) -> anyhow::Result<()> {
        self.write(WhenFull::Hold, move |connection| {
            let ended = step.ended.map(|at| at.timestamp_millis());
            let changed = connection
                .prepare_cached("UPDATE steps SET ended = ?4, error = ?5 WHERE run = ?1 AND name = ?2 AND began = ?3 AND ended IS NULL")?
                .execute((run.0, &step.name, step.began.timestamp_millis(), ended, &step.error))?;
            if changed == 0 {
                connection
                    .prepare_cached("INSERT INTO steps (run, name, began, ended, error) VALUES (?1, ?2, ?3, ?4, ?5)")?
                    .execute((run.0, &step.name, step.began.timestamp_millis(), ended, &step.error))?;
            }
            Ok(())
        })
        .await
    }

    /// One run.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn run(&self, run: RunId) -> anyhow::Result<Option<Run>> {
        self.read(move |connection| {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?1"))?
                .query_row([run.0], read)
                .optional()
        })
        .await
    }

    /// Runs, the newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn runs(&self, filter: RunFilter) -> anyhow::Result<Vec<Run>> {
        self.read(move |connection| {
            let before = filter.before.map_or(i64::MAX, |run| run.0);
            let mut rows;
            let rows = if let Some(job) = &filter.job {
                rows = connection.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM runs WHERE job = ?3 AND id < ?1 ORDER BY id DESC LIMIT ?2"
                ))?;
                rows.query_map((before, filter.limit, job.as_str()), read)?
            } else {
                rows = connection
                    .prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE id < ?1 ORDER BY id DESC LIMIT ?2"))?;
                rows.query_map((before, filter.limit), read)?
            };
            rows.collect()
        })
        .await
    }

    /// Each of these jobs' newest run.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn last_runs(&self, jobs: Vec<JobName>) -> anyhow::Result<LastRuns> {
        self.read(move |connection| {
            let mut newest = connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE job = ?1 ORDER BY id DESC LIMIT 1"))?;
            let mut found = HashMap::new();
            for job in &jobs {
                if let Some(run) = newest.query_row([job.as_str()], read).optional()? {
                    found.insert(job.clone(), run);
                }
            }
            Ok(found)
        })
        .await
    }

    /// When the newest run of this job ended that succeeded and did this step without an error.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn last_done(&self, job: &JobName, step: &str) -> anyhow::Result<Option<DateTime<Utc>>> {
        let (job, step) = (job.clone(), step.to_owned());
        self.read(move |connection| {
            let ended: Option<i64> = connection
                .prepare_cached(
                    "SELECT finished FROM runs WHERE job = ?1 AND outcome = 'succeeded' AND EXISTS (SELECT 1 FROM steps
                     WHERE steps.run = runs.id AND steps.name = ?2 AND steps.error IS NULL AND steps.ended IS NOT NULL)
                     ORDER BY id DESC LIMIT 1",
                )?
                .query_row((job.as_str(), &step), |row| row.get(0))
                .optional()?;
            Ok(ended.map(moment))
        })
        .await
    }

    /// Runs that are queued or running, oldest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn unfinished(&self) -> anyhow::Result<Vec<Run>> {
        self.read(|connection| {
            let mut rows =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE finished IS NULL ORDER BY id"))?;
            let rows = rows.query_map((), read)?;
            rows.collect()
        })
        .await
    }

    /// Whether each of `of` has succeeded since `job` was last queued.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn all_succeeded_since(&self, job: &JobName, of: &[JobName]) -> anyhow::Result<bool> {
        let (job, of) = (job.clone(), of.to_vec());
        self.read(move |connection| {
            let last: i64 = connection
                .prepare_cached("SELECT coalesce(max(id), 0) FROM runs WHERE job = ?1")?
                .query_row([job.as_str()], |row| row.get(0))?;
            // By the time of the end, not the number: a long run may have begun before.
            let since: i64 = connection
                .prepare_cached("SELECT coalesce(max(queued), 0) FROM runs WHERE id = ?1")?
                .query_row([last], |row| row.get(0))?;
            let mut succeeded = connection.prepare_cached(
                "SELECT 1 FROM runs WHERE job = ?1 AND outcome = 'succeeded' AND finished >= ?2 AND (id > ?3 OR finished > ?2) LIMIT 1",
            )?;
            for other in &of {
                if !succeeded.exists((other.as_str(), since, last))? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// Lines of a run's log after line `after`.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn lines(&self, run: RunId, after: u64, limit: u32) -> anyhow::Result<Vec<Line>> {
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT number, at, level, text FROM lines WHERE run = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
            )?;
            let rows = rows.query_map((run.0, i64::try_from(after).unwrap_or(i64::MAX), limit), |row| {
                let number: i64 = row.get(0)?;
                let level: String = row.get(2)?;
                let level: Level = from_json(&level)?;
                Ok(Line { number: number.unsigned_abs(), at: moment(row.get(1)?), level, text: row.get(3)? })
            })?;
            rows.collect()
        })
        .await
    }

    /// A run's steps, in order.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn steps(&self, run: RunId) -> anyhow::Result<Vec<Step>> {
        self.read(move |connection| {
            let mut rows =
                connection.prepare_cached("SELECT name, began, ended, error FROM steps WHERE run = ?1 ORDER BY id")?;
            let rows = rows.query_map([run.0], |row| {
                let ended: Option<i64> = row.get(2)?;
                Ok(Step { name: row.get(0)?, began: moment(row.get(1)?), ended: ended.map(moment), error: row.get(3)? })
            })?;
            rows.collect()
        })
        .await
    }
}
