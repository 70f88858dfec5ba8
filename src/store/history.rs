//! The history of checks: what a span comes to, and how looks become hours and days as they grow old.
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension as _};

use super::{Store, WhenFull, moment};
use crate::watch::{Look, Looks, Summary, state};

/// Days for which each look is kept.
const LOOKS: i64 = 7;
/// Days for which hours are kept, and states with their very moments.
const HOURS: i64 = 62;
/// Days that are kept.
const DAYS: i64 = 5 * 366;
/// A day is summed up when it is so many days old: nothing is found out of it any more by then.
const SETTLED: i64 = 8;
/// Rows that are changed in one transaction, at most: others write between two of them.
const AT_ONCE: usize = 500;
/// What lies further ahead than this was written under a clock that was wrong.
const AHEAD: i64 = 2;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A stretch of time in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it begins; it goes on until the next one does.
    pub since: DateTime<Utc>,
    /// How it was.
    pub state: crate::model::watch::State,
}

impl Store {
    /// What a span comes to: looks and answers by the hour at its ends where single looks are no longer kept, time to the
    /// millisecond where the moments are.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn summary(&self, check: i64, of: Range<DateTime<Utc>>) -> anyhow::Result<Summary> {
        let now = self.0.clock.now().timestamp_millis();
        self.read(move |connection| {
            let mut all = looks_of(connection, check, &of, now)?;
            all.merge(&time_of(connection, check, &of, now)?);
            Ok(all)
        })
        .await
    }

    /// The newest looks, the newest first; those of the last week at most.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn looks(&self, check: i64, count: usize) -> anyhow::Result<Vec<Look>> {
        let now = self.0.clock.now().timestamp_millis();
        self.read(move |connection| {
            let mut looks = fresh(connection, check, i64::MIN..i64::MAX)?;
            let mut hour = now / HOUR;
            while looks.len() < count && hour > (now - LOOKS * DAY) / HOUR {
                looks.extend(packed(connection, check, hour)?.0);
                hour -= 1;
            }
            looks.sort_by_key(|look| std::cmp::Reverse(look.at));
            looks.truncate(count);
            Ok(looks)
        })
        .await
    }

    /// The newest looks of each check that was looked at in the last hours.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn last_looks(&self) -> anyhow::Result<BTreeMap<i64, Look>> {
        self.read(|connection| {
            let mut rows = connection
                .prepare_cached("SELECT subject, max(at), state, took, trouble FROM looks GROUP BY subject")?;
            let rows =
                rows.query_map((), |row| Ok((row.get(0)?, look(row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))))?;
            rows.collect()
        })
        .await
    }

    /// How it was, oldest first, from the state at the beginning of the span on.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn spans(&self, check: i64, of: Range<DateTime<Utc>>) -> anyhow::Result<Vec<Span>> {
        self.read(move |connection| {
            let marks = marks_of(connection, check, of.start.timestamp_millis()..of.end.timestamp_millis())?;
            Ok(marks.into_iter().map(|(since, state)| Span { since, state }).collect())
        })
        .await
    }

    /// Packs looks that are older than an hour or two, sums up hours and days, and removes what is too old, some at a time.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub async fn tidy_checks(&self) -> anyhow::Result<()> {
        let now = self.0.clock.now().timestamp_millis();
        self.pack(now).await?;
        self.sum_up_days(now).await?;
        for (table, key, before) in [
            ("packed", "hour", (now - LOOKS * DAY) / HOUR),
            ("hours", "hour", (now - HOURS * DAY) / DAY * 24),
            ("days", "day", now / DAY - DAYS),
        ] {
            self.remove(table, key, before).await?;
        }
        for (table, key, after) in [
            ("looks", "at", now + AHEAD * DAY),
            ("packed", "hour", (now + AHEAD * DAY) / HOUR),
            ("hours", "hour", (now + AHEAD * DAY) / HOUR),
            ("days", "day", now / DAY + AHEAD),
        ] {
            self.remove_ahead(table, key, after).await?;
        }
        let (spans, incidents) = ((now - HOURS * DAY) / DAY * DAY, now - DAYS * DAY);
        self.write(WhenFull::Hold, move |connection| {
            // The newest one before that goes on.
            connection
                .prepare_cached(
                    "DELETE FROM spans WHERE since < ?1 AND EXISTS (SELECT 1 FROM spans AS later
                         WHERE later.subject = spans.subject AND later.since > spans.since AND later.since <= ?1)",
                )?
                .execute([spans])?;
            connection.prepare_cached("DELETE FROM incidents WHERE ended < ?1")?.execute([incidents])?;
            connection.prepare_cached("DELETE FROM pauses WHERE until < ?1")?.execute([now])?;
            Ok(())
        })
        .await
    }

    /// Looks of hours that are over go into rows of an hour each.
    async fn pack(&self, now: i64) -> anyhow::Result<()> {
        // The last hour that is over stays one hour more: whoever asks for the newest finds them in one place.
        let until = (now / HOUR - 1) * HOUR;
        loop {
            let subjects: Vec<(i64, BTreeSet<i64>)> = self
                .read(move |connection| {
                    let first: Option<i64> = connection.query_row("SELECT min(at) FROM looks", (), |row| row.get(0))?;
                    let Some(first) = first.filter(|first| *first < until) else { return Ok(Vec::new()) };
                    let hour = first.div_euclid(HOUR);
                    let mut rows =
                        connection.prepare_cached("SELECT DISTINCT subject FROM looks WHERE at >= ?1 AND at < ?2")?;
                    let rows = rows.query_map((hour * HOUR, (hour + 1) * HOUR), |row| row.get(0))?;
                    Ok(vec![(hour, rows.collect::<rusqlite::Result<_>>()?)])
                })
                .await?;
            let Some((hour, subjects)) = subjects.into_iter().next() else { return Ok(()) };
            let subjects: Vec<i64> = subjects.into_iter().collect();
            for some in subjects.chunks(AT_ONCE / 5) {
                let some: BTreeSet<i64> = some.iter().copied().collect();
                self.write(WhenFull::Hold, move |connection| pack_hour(connection, hour, &some)).await?;
                // What is only held back is still there to be read: the same would be found for ever.
                if self.trouble().is_some() {
                    return Ok(());
                }
            }
        }
    }

    async fn sum_up_days(&self, now: i64) -> anyhow::Result<()> {
        let last = now / DAY - SETTLED;
        let first: Option<i64> = self
            .read(move |connection| {
                let done: Option<i64> = connection
                    .prepare_cached("SELECT max(day) FROM days WHERE day <= ?1")?
                    .query_row([last], |row| row.get(0))?;
                let hour: Option<i64> = connection
                    .prepare_cached("SELECT min(hour) FROM hours WHERE hour >= ?1")?
                    .query_row([done.map_or(0, |day| day * 24)], |row| row.get(0))?;
                // The last one that was done may have been cut off.
                Ok(hour.map(|hour| hour.div_euclid(24).max(done.unwrap_or(i64::MIN))))
            })
            .await?;
        let Some(first) = first else { return Ok(()) };
        for day in first..=last {
            let subjects: Vec<i64> = self
                .read(move |connection| {
                    let mut rows = connection.prepare_cached(
                        "SELECT DISTINCT subject FROM hours WHERE hour >= ?1 AND hour < ?2 ORDER BY subject",
                    )?;
                    let rows = rows.query_map((day * 24, (day + 1) * 24), |row| row.get(0))?;
                    rows.collect()
                })
                .await?;
            for some in subjects.chunks(AT_ONCE / 5) {
                let some = some.to_vec();
                self.write(WhenFull::Hold, move |connection| {
                    for subject in &some {
                        sum_up_day(connection, *subject, day, now)?;
                    }
                    Ok(())
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, table: &'static str, key: &'static str, before: i64) -> anyhow::Result<()> {
        self.remove_where(table, key, format!("{key} < ?1"), before).await
    }

    async fn remove_ahead(&self, table: &'static str, key: &'static str, after: i64) -> anyhow::Result<()> {
        self.remove_where(table, key, format!("{key} > ?1"), after).await
    }

    async fn remove_where(
        &self,
        table: &'static str,
        key: &'static str,
        which: String,
        limit: i64,
    ) -> anyhow::Result<()> {
        loop {
            let (reply, gone) = std::sync::mpsc::channel();
            let delete = format!(
                "DELETE FROM {table} WHERE ({key}, subject) IN
                     (SELECT {key}, subject FROM {table} WHERE {which} ORDER BY {key} LIMIT {AT_ONCE})"
            );
            self.write(WhenFull::Hold, move |connection| {
                let _ = reply.send(connection.prepare_cached(&delete)?.execute([limit])?);
                Ok(())
            })
            .await?;
            if gone.try_iter().last().unwrap_or(0) < AT_ONCE || self.trouble().is_some() {
                return Ok(());
            }
        }
    }
}

fn look(at: i64, number: u8, took: Option<i64>, trouble: u16) -> Look {
    let took = took.map(|took| std::time::Duration::from_micros(took.unsigned_abs()));
    Look { at: moment(at), state: state(number), took, trouble }
}

/// Looks that are not packed yet.
fn fresh(connection: &Connection, check: i64, of: Range<i64>) -> rusqlite::Result<Vec<Look>> {
    let mut rows = connection
        .prepare_cached("SELECT at, state, took, trouble FROM looks WHERE at >= ?1 AND at < ?2 AND subject = ?3")?;
    let rows =
        rows.query_map((of.start, of.end, check), |row| Ok(look(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    rows.collect()
}

fn packed(connection: &Connection, check: i64, hour: i64) -> rusqlite::Result<Looks> {
    let bytes: Option<Vec<u8>> = connection
        .prepare_cached("SELECT looks FROM packed WHERE hour = ?1 AND subject = ?2")?
        .query_row((hour, check), |row| row.get(0))
        .optional()?;
    Ok(bytes.map(|bytes| Looks::unpack(moment(hour * HOUR), &bytes)).unwrap_or_default())
}

fn summary_at(connection: &Connection, query: &str, at: i64, check: i64) -> rusqlite::Result<Option<Summary>> {
    let bytes: Option<Vec<u8>> =
        connection.prepare_cached(query)?.query_row((at, check), |row| row.get(0)).optional()?;
    Ok(bytes.and_then(|bytes| Summary::unpack(&bytes)))
}

const AT_HOUR: &str = "SELECT summary FROM hours WHERE hour = ?1 AND subject = ?2";
const AT_DAY: &str = "SELECT summary FROM days WHERE day = ?1 AND subject = ?2";

/// Looks and answers of a span.
fn looks_of(connection: &Connection, check: i64, of: &Range<DateTime<Utc>>, now: i64) -> rusqlite::Result<Summary> {
    let (start, end) = (of.start.timestamp_millis(), of.end.timestamp_millis());
    let mut all = Summary::default();
    fresh(connection, check, start..end)?.iter().for_each(|look| all.add(look));
    // Days where their hours are gone, then hours.
    let kept = (now - HOURS * DAY).div_euclid(DAY);
    let first = start.div_euclid(DAY).max(now / DAY - DAYS);
    for day in first..kept.min((end - 1).div_euclid(DAY) + 1) {
        let mut one = summary_at(connection, AT_DAY, day, check)?.unwrap_or_default();
        one.forget_time();
        all.merge(&one);
    }
    for hour in start.div_euclid(HOUR).max(kept * 24)..=(end.min(now + 1) - 1).div_euclid(HOUR) {
        let is_whole = hour * HOUR >= start && (hour + 1) * HOUR <= end;
        let looks = if is_whole { Looks::default() } else { packed(connection, check, hour)? };
        if looks.0.is_empty() {
            all.merge(&summary_at(connection, AT_HOUR, hour, check)?.unwrap_or_default());
        } else {
            looks.0.iter().filter(|look| of.contains(&look.at)).for_each(|look| all.add(look));
        }
    }
    Ok(all)
}

/// The time in each state of a span.
fn time_of(connection: &Connection, check: i64, of: &Range<DateTime<Utc>>, now: i64) -> rusqlite::Result<Summary> {
    let (start, end) = (of.start.timestamp_millis(), of.end.timestamp_millis().min(now));
    // Moments are kept from the beginning of this day on.
    let kept = (now - HOURS * DAY).div_euclid(DAY) * DAY;
    let mut all = Summary::default();
    for day in start.div_euclid(DAY).max(now / DAY - DAYS)..kept.min(end).div_euclid(DAY) {
        let mut one = summary_at(connection, AT_DAY, day, check)?.unwrap_or_default();
        one.only_time();
        all.merge(&one);
    }
    let (from, until) = (start.max(kept.min(end)), end);
    if from < until {
        all.add_time(&marks_of(connection, check, from..until)?, &(moment(from)..moment(until)));
    }
    Ok(all)
}

/// The states of a span, from the one that it begins with.
fn marks_of(
    connection: &Connection,
    check: i64,
    of: Range<i64>,
) -> rusqlite::Result<Vec<(DateTime<Utc>, crate::model::watch::State)>> {
    let mut rows = connection.prepare_cached(
        "SELECT since, state FROM spans WHERE subject = ?1 AND since < ?3 AND since >= coalesce(
             (SELECT max(since) FROM spans WHERE subject = ?1 AND since <= ?2), ?2) ORDER BY since",
    )?;
    let rows = rows.query_map((check, of.start, of.end), |row| Ok((moment(row.get(0)?), state(row.get(1)?))))?;
    rows.collect()
}

/// Moves the looks of these checks in this hour to where they are kept for days, and what they come to for months.
fn pack_hour(connection: &Connection, hour: i64, subjects: &BTreeSet<i64>) -> rusqlite::Result<()> {
    let (start, end) = (hour * HOUR, (hour + 1) * HOUR);
    let mut of: BTreeMap<i64, Vec<(i64, Look)>> = BTreeMap::new();
    {
        let mut rows = connection
            .prepare_cached("SELECT at, subject, state, took, trouble FROM looks WHERE at >= ?1 AND at < ?2")?;
        let mut rows = rows.query((start, end))?;
        while let Some(row) = rows.next()? {
            let (at, subject) = (row.get(0)?, row.get(1)?);
            if subjects.contains(&subject) {
                of.entry(subject).or_default().push((at, look(at, row.get(2)?, row.get(3)?, row.get(4)?)));
            }
        }
    }
    let mut delete = connection.prepare_cached("DELETE FROM looks WHERE at = ?1 AND subject = ?2")?;
    for (subject, looks) in of {
        let mut all = packed(connection, subject, hour)?;
        let mut summary = summary_at(connection, AT_HOUR, hour, subject)?.unwrap_or_default();
        for (at, look) in looks {
            delete.execute((at, subject))?;
            summary.add(&look);
            all.0.push(look);
        }
        connection
            .prepare_cached("INSERT OR REPLACE INTO packed (hour, subject, looks) VALUES (?1, ?2, ?3)")?
            .execute((hour, subject, all.pack(moment(start))))?;
        connection
            .prepare_cached("INSERT OR REPLACE INTO hours (hour, subject, summary) VALUES (?1, ?2, ?3)")?
            .execute((hour, subject, summary.pack()))?;
    }
    Ok(())
}

/// What a day came to: its hours, and its time in each state.
fn sum_up_day(connection: &Connection, subject: i64, day: i64, now: i64) -> rusqlite::Result<()> {
    let mut all = Summary::default();
    for hour in day * 24..(day + 1) * 24 {
        all.merge(&summary_at(connection, AT_HOUR, hour, subject)?.unwrap_or_default());
    }
    let of = moment(day * DAY)..moment(day * DAY) + TimeDelta::days(1);
    all.merge(&time_of(connection, subject, &of, now)?);
    connection.prepare_cached("INSERT OR REPLACE INTO days (day, subject, summary) VALUES (?1, ?2, ?3)")?.execute((
        day,
        subject,
        all.pack(),
    ))?;
    Ok(())
}
