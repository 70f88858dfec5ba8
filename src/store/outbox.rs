//! The outbox: what is to be told, from the moment that it happens until it was told; and how each notifier is.
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::Value;

use super::{Store, WhenFull, from_json, moment, to_json};
use crate::model::news::{News, Outgoing};

/// A row of the outbox.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct OutboxRow {
    /// Its number: rows are told in this order.
    pub id: i64,
    /// What tells it from all others, for ever.
    pub key: String,
    /// The notifier.
    pub notifier: String,
    /// What is to be told.
    pub news: News,
    /// Not told before this.
    pub not_before: DateTime<Utc>,
}

/// How a notifier is.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Line {
    /// Tries in a row that did not get through.
    pub failures: u32,
    /// Since when.
    pub failing: Option<DateTime<Utc>>,
    /// Not tried before this.
    pub next_try: Option<DateTime<Utc>>,
    /// What was last said against it.
    pub error: Option<String>,
    /// It refuses for good since then.
    pub blocked: Option<DateTime<Utc>>,
    /// The settings with which it does, as a number that changes with them.
    #[serde(skip)]
    pub settings: Option<String>,
    /// When it last took something.
    pub told: Option<DateTime<Utc>>,
}

/// A message that a notifier was given and that has no end yet.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenMessage {
    /// Its number.
    pub id: i64,
    /// Its key.
    pub key: String,
    /// Its rows, in the words of whoever made it.
    pub parts: Value,
    /// The notifier has answered that it may go better later.
    pub is_put_off: bool,
}

/// How a message ended, and with it its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told.
    Told,
    /// It will not be taken.
    Refused,
    /// It waited too long.
    Expired,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

/// Rows that have ended are kept for so long, as a history, and so that nothing is told twice.
const KEPT: chrono::TimeDelta = chrono::TimeDelta::days(400);

/// Writes what is to be told, in the transaction of what it is about. What was written before is not written again.
pub(super) fn put(connection: &Connection, rows: &[Outgoing]) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO outbox (key, notifier, story, news, not_before) SELECT ?1, ?2, ?3, ?4, ?5
         WHERE NOT ?6 OR EXISTS (SELECT 1 FROM outbox WHERE story = ?3 AND notifier = ?2)
         ON CONFLICT (key) DO NOTHING",
    )?;
    for row in rows {
        let (story, not_before) = (row.news.story(), row.not_before.timestamp_millis());
        insert.execute((
            &row.key,
            &row.notifier,
            &story,
            to_json(&row.news)?,
            not_before,
            row.only_if_begun && story.is_some(),
        ))?;
    }
    Ok(())
}

/// The same for what another is told in a notifier's place. It may be its own that was refused before, while it was blocked itself.
fn put_instead(connection: &Connection, rows: &[Outgoing]) -> rusqlite::Result<()> {
    let mut revive = connection.prepare_cached(
        "UPDATE outbox SET end = NULL, ended = NULL, not_before = ?2 WHERE key = ?1 AND end = 'refused'",
    )?;
    for row in rows {
        revive.execute((&row.key, row.not_before.timestamp_millis()))?;
    }
    put(connection, rows)
}

const COLUMNS: &str = "id, key, notifier, news, not_before";

fn read(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    let news: String = row.get(3)?;
    Ok(OutboxRow {
        id: row.get(0)?,
        key: row.get(1)?,
        notifier: row.get(2)?,
        news: from_json(&news)?,
        not_before: moment(row.get(4)?),
    })
}

fn read_line(row: &Row<'_>) -> rusqlite::Result<(String, Line)> {
    let at = |index| row.get::<_, Option<i64>>(index).map(|at| at.map(moment));
    let line = Line {
        failures: row.get(1)?,
        failing: at(2)?,
        next_try: at(3)?,
        error: row.get(4)?,
        blocked: at(5)?,
        settings: row.get(6)?,
        told: at(7)?,
    };
    Ok((row.get(0)?, line))
}

fn set_line(connection: &Connection, name: &str, line: &Line) -> rusqlite::Result<()> {
    let at = |at: Option<DateTime<Utc>>| at.map(|at| at.timestamp_millis());
    connection
        .prepare_cached(
            "INSERT INTO notifiers (name, failures, failing, next_try, error, blocked, settings, told)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (name) DO UPDATE SET
             failures = ?2, failing = ?3, next_try = ?4, error = ?5, blocked = ?6, settings = ?7, told = ?8",
        )?
        .execute((
            name,
            line.failures,
            at(line.failing),
            at(line.next_try),
            &line.error,
            at(line.blocked),
            &line.settings,
            at(line.told),
        ))?;
    Ok(())
}

fn end_rows(connection: &Connection, ids: &[i64], end: &str, now: i64) -> rusqlite::Result<()> {
    let mut update =
        connection.prepare_cached("UPDATE outbox SET end = ?2, ended = ?3 WHERE id = ?1 AND end IS NULL")?;
    for id in ids {
        update.execute((id, end, now))?;
    }
    Ok(())
}

/// What is written when a notifier has answered, in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The message.
    pub message: i64,
    /// It was put off: it stays open, and so do its rows.
    pub is_put_off: bool,
    /// The rows that were told, or refused.
    pub told: Vec<i64>,
    /// The rows that were in what was told of others.
    pub merged: Vec<i64>,
    /// Whether they were refused, or told.
    pub is_refused: bool,
    /// The stories of which this was the first message, and where that is at the service.
    pub threads: Vec<(String, Value)>,
    /// How the notifier is now.
    pub line: Line,
    /// What it cost, in millionths of a dollar.
    pub cost: u64,
    /// What another is told in its place.
    pub instead: Vec<Outgoing>,
}

impl Store {
    /// Writes news that are of no other transaction.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn tell(&self, rows: Vec<Outgoing>) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.write(WhenFull::Hold, move |connection| put(connection, &rows)).await
    }

    /// The notifiers for which something waits, and when the first of it may be told.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn awaited(&self) -> anyhow::Result<Vec<(String, DateTime<Utc>)>> {
        self.read(|connection| {
            let mut rows = connection
                .prepare_cached("SELECT notifier, min(not_before) FROM outbox WHERE end IS NULL GROUP BY notifier")?;
            let rows = rows.query_map((), |row| Ok((row.get(0)?, moment(row.get(1)?))))?;
            rows.collect()
        })
        .await
    }

    /// What waits for a notifier, or for all; the oldest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn waiting(&self, notifier: Option<&str>, limit: u32) -> anyhow::Result<Vec<OutboxRow>> {
        let notifier = notifier.map(str::to_owned);
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE end IS NULL AND (?1 IS NULL OR notifier = ?1) ORDER BY id LIMIT ?2"
            ))?;
            let rows = rows.query_map((&notifier, limit), read)?;
            rows.collect()
        })
        .await
    }

    /// How many rows wait for each notifier.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn queues(&self) -> anyhow::Result<std::collections::BTreeMap<String, u64>> {
        self.read(|connection| {
            let mut rows = connection
                .prepare_cached("SELECT notifier, count(*) FROM outbox WHERE end IS NULL GROUP BY notifier")?;
            let rows = rows.query_map((), |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
            rows.collect()
        })
        .await
    }

    /// How each notifier is, as far as there is something to say.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn lines_of_notifiers(&self) -> anyhow::Result<std::collections::BTreeMap<String, Line>> {
        self.read(|connection| {
            let mut rows = connection.prepare_cached(
                "SELECT name, failures, failing, next_try, error, blocked, settings, told FROM notifiers",
            )?;
            let rows = rows.query_map((), read_line)?;
            rows.collect()
        })
        .await
    }

    /// Writes how a notifier is.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn set_line(&self, name: &str, line: Line) -> anyhow::Result<()> {
        let name = name.to_owned();
        self.write(WhenFull::Hold, move |connection| set_line(connection, &name, &line)).await
    }

    /// The message that a notifier was given and that has no end.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn open_message(&self, notifier: &str) -> anyhow::Result<Option<OpenMessage>> {
        let notifier = notifier.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT id, key, parts, put_off FROM messages WHERE notifier = ?1 AND ended IS NULL")?
                .query_row([&notifier], |row| {
                    let parts: String = row.get(2)?;
                    Ok(OpenMessage {
                        id: row.get(0)?,
                        key: row.get(1)?,
                        parts: from_json(&parts)?,
                        is_put_off: row.get(3)?,
                    })
                })
                .optional()
        })
        .await
    }

    /// Writes down that a notifier is about to be given this message, in place of one that it did not take. It is on the disk when this
    /// returns. Returns its number.
    ///
    /// # Errors
    /// When it cannot be written: then it must not be sent.
    pub async fn begin_message(&self, notifier: &str, key: &str, parts: Value) -> anyhow::Result<i64> {
        let (notifier, key) = (notifier.to_owned(), key.to_owned());
        let now = self.0.clock.now().timestamp_millis();
        let (reply, id) = std::sync::mpsc::channel();
        self.write(WhenFull::Fail, move |connection| {
            connection
                .prepare_cached("DELETE FROM messages WHERE notifier = ?1 AND ended IS NULL")?
                .execute([&notifier])?;
            connection
                .prepare_cached("INSERT INTO messages (notifier, key, parts, begun) VALUES (?1, ?2, ?3, ?4)")?
                .execute((&notifier, &key, to_json(&parts)?, now))?;
            let _ = reply.send(connection.last_insert_rowid());
            Ok(())
        })
        .await?;
        id.try_iter().last().ok_or_else(|| anyhow::anyhow!("the message has no number"))
    }

    /// Writes what a notifier answered.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn answered(&self, notifier: &str, answer: Answer) -> anyhow::Result<()> {
        let notifier = notifier.to_owned();
        let now = self.0.clock.now().timestamp_millis();
        self.write(WhenFull::Hold, move |connection| {
            if answer.is_put_off {
                connection
                    .prepare_cached("UPDATE messages SET put_off = 1 WHERE id = ?1 AND ended IS NULL")?
                    .execute([answer.message])?;
            } else {
                connection
                    .prepare_cached("UPDATE messages SET ended = ?2, cost = ?3 WHERE id = ?1 AND ended IS NULL")?
                    .execute((answer.message, now, i64::try_from(answer.cost).unwrap_or(i64::MAX)))?;
                let (told, merged) = if answer.is_refused { ("refused", "refused") } else { ("told", "merged") };
                end_rows(connection, &answer.told, told, now)?;
                end_rows(connection, &answer.merged, merged, now)?;
            }
            let mut thread = connection.prepare_cached(
                "INSERT INTO threads (notifier, story, receipt, at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (notifier, story) DO NOTHING",
            )?;
            for (story, receipt) in &answer.threads {
                thread.execute((&notifier, story, receipt.to_string(), now))?;
            }
            set_line(connection, &notifier, &answer.line)?;
            put_instead(connection, &answer.instead)
        })
        .await
    }

    /// Gives rows an end, and writes what is told in their place, in one transaction. A message that they are part of ends with them.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn end_waiting(
        &self,
        notifier: &str,
        ids: Vec<i64>,
        end: End,
        instead: Vec<Outgoing>,
    ) -> anyhow::Result<()> {
        let notifier = notifier.to_owned();
        let now = self.0.clock.now().timestamp_millis();
        self.write(WhenFull::Hold, move |connection| {
            connection
                .prepare_cached("UPDATE messages SET ended = ?2 WHERE notifier = ?1 AND ended IS NULL")?
                .execute((&notifier, now))?;
            end_rows(connection, &ids, end.word(), now)?;
            put_instead(connection, &instead)
        })
        .await
    }

    /// Where the first message of this story is at the service.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn thread(&self, notifier: &str, story: &str) -> anyhow::Result<Option<Value>> {
        let (notifier, story) = (notifier.to_owned(), story.to_owned());
        self.read(move |connection| {
            let receipt: Option<String> = connection
                .prepare_cached("SELECT receipt FROM threads WHERE notifier = ?1 AND story = ?2")?
                .query_row((&notifier, &story), |row| row.get(0))
                .optional()?;
            receipt.map(|receipt| from_json(&receipt)).transpose()
        })
        .await
    }

    /// What a notifier remembered under `key`.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn memory_of_notifier(&self, name: &str, key: &str) -> anyhow::Result<Option<Value>> {
        let (name, key) = (name.to_owned(), key.to_owned());
        self.read(move |connection| {
            let value: Option<String> = connection
                .prepare_cached("SELECT value FROM memories WHERE notifier = ?1 AND key = ?2")?
                .query_row((&name, &key), |row| row.get(0))
                .optional()?;
            value.map(|value| from_json(&value)).transpose()
        })
        .await
    }

    /// Remembers something for a notifier.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn remember_of_notifier(&self, name: &str, key: &str, value: &Value) -> anyhow::Result<()> {
        let (name, key, value) = (name.to_owned(), key.to_owned(), value.to_string());
        self.write(WhenFull::Hold, move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO memories (notifier, key, value) VALUES (?1, ?2, ?3)")?
                .execute((&name, &key, &value))?;
            Ok(())
        })
        .await
    }

    /// Rows that wait since before this time, and that the last-resort file does not have yet.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn untold(&self, before: DateTime<Utc>, limit: u32) -> anyhow::Result<Vec<OutboxRow>> {
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE end IS NULL AND noted IS NULL AND not_before < ?1 ORDER BY id LIMIT ?2"
            ))?;
            let rows = rows.query_map((before.timestamp_millis(), limit), read)?;
            rows.collect()
        })
        .await
    }

    /// The last-resort file has these now.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn noted(&self, ids: Vec<i64>) -> anyhow::Result<()> {
        let now = self.0.clock.now().timestamp_millis();
        self.write(WhenFull::Hold, move |connection| {
            let mut update = connection.prepare_cached("UPDATE outbox SET noted = ?2 WHERE id = ?1")?;
            for id in &ids {
                update.execute((id, now))?;
            }
            Ok(())
        })
        .await
    }

    /// What each notifier has cost since then, in millionths of a dollar.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn costs(&self, since: DateTime<Utc>) -> anyhow::Result<std::collections::BTreeMap<String, u64>> {
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT notifier, sum(cost) FROM messages WHERE ended >= ?1 GROUP BY notifier HAVING sum(cost) > 0",
            )?;
            let rows = rows
                .query_map([since.timestamp_millis()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
            rows.collect()
        })
        .await
    }

    /// Fails when the ledger cannot be written now.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn can_be_written(&self) -> anyhow::Result<()> {
        self.write(WhenFull::Fail, |connection| {
            // A write of a page, and no growth.
            connection.execute("UPDATE pulse SET at = at + 1", ())?;
            Ok(())
        })
        .await
    }

    /// Removes what was told long ago.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn tidy_outbox(&self) -> anyhow::Result<()> {
        let before = (self.0.clock.now() - KEPT).timestamp_millis();
        self.write(WhenFull::Hold, move |connection| {
            connection.execute("DELETE FROM outbox WHERE ended < ?1", [before])?;
            connection.execute("DELETE FROM messages WHERE ended < ?1", [before])?;
            connection.execute("DELETE FROM threads WHERE at < ?1", [before])?;
            Ok(())
        })
        .await
    }
}
