//! How much history is kept.
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension as _};

use super::{Histories, Store, WhenFull};

/// Runs removed in one transaction at most: others write between two of them.
const AT_ONCE: usize = 500;

impl Store {
    /// Trims the history of these jobs by age and count. The newest run and the newest success of each job stay, and so do
    /// the first failures after it, which say since when it fails, and what has not ended. Returns how many runs went.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub async fn tidy(&self, histories: &Histories) -> anyhow::Result<usize> {
        let now = self.0.clock.now();
        let mut gone = 0;
        for (job, history) in histories {
            let oldest = TimeDelta::from_std(history.age.0)
                .ok()
                .and_then(|age| now.checked_sub_signed(age))
                .unwrap_or(DateTime::<Utc>::MIN_UTC)
                .timestamp_millis();
            loop {
                let (name, most) = (job.clone(), history.runs.get());
                let doomed = self.read(move |connection| doomed(connection, name.as_str(), most, oldest)).await?;
                if doomed.is_empty() {
                    break;
                }
                let runs = doomed.len();
                self.write(WhenFull::Hold, move |connection| remove(connection, &doomed)).await?;
                // What is only held back is still there to be read: the same runs would be found for ever.
                if self.trouble().is_some() {
                    return Ok(gone);
                }
                gone += runs;
            }
            let name = job.clone();
            self.write(WhenFull::Hold, move |connection| {
                connection
                    .prepare_cached(
                        "DELETE FROM slots WHERE job = ?1 AND due < ?2
                         AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = slots.run)",
                    )?
                    .execute((name.as_str(), oldest))?;
                Ok(())
            })
            .await?;
        }
        Ok(gone)
    }
}

fn doomed(connection: &Connection, job: &str, most: u32, oldest: i64) -> rusqlite::Result<Vec<i64>> {
    let first_beyond: Option<i64> = connection
        .prepare_cached("SELECT id FROM runs WHERE job = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2")?
        .query_row((job, most), |row| row.get(0))
        .optional()?;
    let mut rows = connection.prepare_cached(
        "SELECT id FROM runs WHERE job = ?1 AND finished IS NOT NULL AND (id <= ?2 OR queued < ?3)
         AND id <> (SELECT max(id) FROM runs WHERE job = ?1)
         AND id <> coalesce((SELECT max(id) FROM runs WHERE job = ?1 AND outcome = 'succeeded'), 0)
         AND id NOT IN (SELECT min(id) FROM runs WHERE job = ?1 AND outcome IN ('failed', 'timed_out', 'interrupted')
                        AND id > coalesce((SELECT max(id) FROM runs WHERE job = ?1 AND outcome = 'succeeded'), 0)
                        GROUP BY outcome)
         ORDER BY id LIMIT ?4",
    )?;
    let rows = rows.query_map((job, first_beyond.unwrap_or(0), oldest, AT_ONCE as i64), |row| row.get(0))?;
    rows.collect()
}

fn remove(connection: &Connection, runs: &[i64]) -> rusqlite::Result<()> {
    for table in
        ["DELETE FROM lines WHERE run = ?1", "DELETE FROM steps WHERE run = ?1", "DELETE FROM runs WHERE id = ?1"]
    {
        let mut delete = connection.prepare_cached(table)?;
        for run in runs {
            delete.execute([run])?;
        }
    }
    Ok(())
}
