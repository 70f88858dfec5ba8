//! Slots, cursors, pauses: what the schedule has settled.
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rusqlite::{CachedStatement, Connection};

use super::{Settled, Settlement, Store, Verdict, WhenFull, from_json, job_name, moment, outbox, runs, to_json};
use crate::model::{JobName, Run, RunId, RunState, SlotEnd, Trigger};

/// What the schedule knows of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Everything up to here is settled; absent for a job that was only paused so far.
    pub at: Option<DateTime<Utc>>,
    /// Since when it is paused.
    pub paused: Option<DateTime<Utc>>,
}

/// A slot as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SlotRow {
    /// When it was due; of a long gap's many, the first.
    pub due: DateTime<Utc>,
    /// Of many, the last; else the same.
    pub last: DateTime<Utc>,
    /// How many share this row.
    pub count: u64,
    /// What became of it.
    pub end: SlotEnd,
}

impl Store {
    /// Where each job's schedule stands.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn cursors(&self) -> anyhow::Result<HashMap<JobName, Cursor>> {
        self.read(|connection| {
            let mut rows = connection.prepare_cached("SELECT name, cursor, paused FROM jobs")?;
            let rows = rows.query_map((), |row| {
                let name: String = row.get(0)?;
                let at: Option<i64> = row.get(1)?;
                let paused: Option<i64> = row.get(2)?;
                Ok((job_name(&name)?, Cursor { at: at.map(moment), paused: paused.map(moment) }))
            })?;
            rows.collect()
        })
        .await
    }

    /// Writes what becomes of these slots, in one transaction that is on the disk when this returns. Returns the runs that
    /// slots became, in order. A slot that was settled before is left as it is and gets no run, unless it went by under a clock
    /// that was ahead and comes on time now.
    ///
    /// # Errors
    /// When the ledger cannot be written (a full disk is no error: see the module).
    pub async fn settle(&self, settlements: Vec<Settlement>) -> anyhow::Result<Vec<Run>> {
        let queued = self.0.clock.now();
        let mut runs = Vec::new();
        let rows: Vec<(Settlement, Vec<Option<RunId>>)> = settlements
            .into_iter()
            .map(|settlement| {
                let ids = settlement.slots.iter().map(|slot| {
                    let Verdict::Run(trigger) = &slot.verdict else { return None };
                    let id = self.0.new_run();
                    runs.push(Run {
                        id,
                        job: settlement.job.clone(),
                        trigger: trigger.clone(),
                        queued,
                        state: RunState::Queued,
                        attempts: 0,
                        message: String::new(),
                    });
                    Some(id)
                });
                let ids = ids.collect();
                (settlement, ids)
            })
            .collect();
        let (reply, already) = std::sync::mpsc::channel();
        self.write(WhenFull::Hold, move |connection| {
            let (mut slots, mut cursors) = (prepare_slot(connection)?, prepare_cursor(connection)?);
            let mut runs = runs::prepare_insert(connection)?;
            for (settlement, ids) in &rows {
                for (slot, id) in settlement.slots.iter().zip(ids) {
                    if !write_slot(&mut slots, settlement, slot, *id)? {
                        if let Some(id) = id {
                            let _ = reply.send(*id);
                        }
                        continue;
                    }
                    if let (Some(id), Verdict::Run(trigger)) = (id, &slot.verdict) {
                        runs::insert(&mut runs, *id, &settlement.job, trigger, queued)?;
                    }
                }
                outbox::put(connection, &settlement.news)?;
                cursors.execute((settlement.job.as_str(), settlement.cursor.timestamp_millis()))?;
            }
            Ok(())
        })
        .await?;
        let already: Vec<RunId> = already.try_iter().collect();
        runs.retain(|run| !already.contains(&run.id));
        Ok(runs)
    }

    /// Takes back cursors that a clock which was far ahead has moved. Slots that ran then do not run again.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn anchor(&self, jobs: Vec<JobName>, cursor: DateTime<Utc>) -> anyhow::Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        self.write(WhenFull::Hold, move |connection| {
            let mut set = connection.prepare_cached("UPDATE jobs SET cursor = ?2 WHERE name = ?1")?;
            for job in &jobs {
                set.execute((job.as_str(), cursor.timestamp_millis()))?;
            }
            Ok(())
        })
        .await
    }

    /// Notes that a job is paused from now on, or no longer.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn pause(&self, job: &JobName, paused: bool) -> anyhow::Result<()> {
        let job = job.clone();
        let since = paused.then(|| self.0.clock.now().timestamp_millis());
        self.write(WhenFull::Hold, move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO jobs (name, paused) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET paused = CASE WHEN ?2 IS NULL THEN NULL ELSE coalesce(paused, ?2) END",
                )?
                .execute((job.as_str(), since))?;
            Ok(())
        })
        .await
    }

    /// A job's newest slots, the newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn slots(&self, job: &JobName, limit: u32) -> anyhow::Result<Vec<SlotRow>> {
        let job = job.clone();
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT due, last, count, end, reason, run FROM slots WHERE job = ?1 ORDER BY due DESC LIMIT ?2",
            )?;
            let rows = rows.query_map((job.as_str(), limit), |row| {
                let end: String = row.get(3)?;
                let reason: Option<String> = row.get(4)?;
                let reason = reason.unwrap_or_default();
                let end = match end.as_str() {
                    "run" => SlotEnd::Run(RunId(row.get(5)?)),
                    "skipped" => SlotEnd::Skipped(from_json(&reason)?),
                    _ => SlotEnd::Missed(from_json(&reason)?),
                };
                let count: i64 = row.get(2)?;
                Ok(SlotRow { due: moment(row.get(0)?), last: moment(row.get(1)?), count: count.unsigned_abs(), end })
            })?;
            rows.collect()
        })
        .await
    }
}

fn prepare_slot(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(
        "INSERT INTO slots (job, due, last, count, end, reason, run) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (job, due) DO UPDATE SET last = ?3, count = ?4, end = ?5, reason = ?6, run = ?7
         WHERE end <> 'run' AND ?8",
    )
}

/// Whether the slot was new. One that a clock far ahead let go by, and that truly comes now, is new as well: it has not run, and
/// would not for as long as that clock was ahead.
fn write_slot(
    insert: &mut CachedStatement<'_>,
    settlement: &Settlement,
    slot: &Settled,
    run: Option<RunId>,
) -> rusqlite::Result<bool> {
    let (end, reason) = match &slot.verdict {
        Verdict::Run(_) => ("run", None),
        Verdict::Skip(reason) => ("skipped", Some(to_json(reason)?)),
        Verdict::Miss(reason) => ("missed", Some(to_json(reason)?)),
    };
    let written = insert.execute((
        settlement.job.as_str(),
        slot.due.timestamp_millis(),
        slot.last.timestamp_millis(),
        i64::try_from(slot.count).unwrap_or(i64::MAX),
        end,
        reason,
        run.map(|run| run.0),
        matches!(slot.verdict, Verdict::Run(Trigger::Schedule(_))),
    ))?;
    Ok(written == 1)
}

/// The cursor never goes back, whatever the clock does.
fn prepare_cursor(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(
        "INSERT INTO jobs (name, cursor) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET cursor = max(coalesce(cursor, ?2), ?2)",
    )
}
