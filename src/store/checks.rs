//! Checks: how each is, its incidents, and what is written after a run that looked at them, in one transaction.
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;

use super::{Store, WhenFull, from_json, moment, outbox, to_json};
use crate::{
    model::{
        news::{Cause, IncidentId, Offer, Outgoing},
        watch::State,
    },
    watch::{Known, Look, Mark, Open, Pause, number, state},
};

/// What a run found of one check.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its label.
    pub check: String,
    /// The look itself.
    pub look: Look,
    /// What is known now, if that is more than before.
    pub known: Option<Known>,
    /// What the history of states gets.
    pub marks: Vec<Mark>,
    /// An incident that begins, or that is told of for the first time, or changes.
    pub incident: Option<Begun>,
    /// An incident that ends, and when it did.
    pub ended: Option<(IncidentId, DateTime<Utc>)>,
    /// What is to be told.
    pub outgoing: Vec<Outgoing>,
}

/// An incident that begins, or of which more is known.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The incident.
    pub open: Open,
    /// How the check is.
    pub state: State,
    /// What was found.
    pub what: String,
    /// Why.
    pub causes: Vec<Cause>,
    /// What can be done.
    pub offers: Vec<Offer>,
}

/// A check as the ledger has it.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckRow {
    /// Its number there.
    pub id: i64,
    /// Whose check.
    pub job: String,
    /// Its label.
    pub check: String,
    /// What is known of it.
    pub known: Known,
}

/// An incident as the ledger has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// The job of the check; `house` for what concerns the house as a whole.
    pub job: String,
    /// The check's label.
    pub check: String,
    /// The first failing look.
    pub began: DateTime<Utc>,
    /// When it was first told of.
    pub told: Option<DateTime<Utc>>,
    /// The first look that was well again; absent while it goes on.
    pub ended: Option<DateTime<Utc>>,
    /// How the check was.
    pub state: State,
    /// Whether it came and went.
    pub flaps: bool,
    /// What was found.
    pub what: String,
    /// Why.
    pub causes: Vec<Cause>,
    /// What could be done.
    pub offers: Vec<Offer>,
}

impl Store {
    /// A number for an incident; never used twice.
    #[must_use]
    pub fn new_incident(&self) -> IncidentId {
        IncidentId(self.0.next_incident.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
    }

    /// What is known of a job's checks, by their labels.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn known(&self, job: &str) -> anyhow::Result<HashMap<String, Known>> {
        let job = job.to_owned();
        self.read(move |connection| {
            let mut rows = connection.prepare_cached("SELECT label, known FROM checks WHERE job = ?1")?;
            let rows = rows.query_map([&job], |row| {
                let known: String = row.get(1)?;
                Ok((row.get(0)?, from_json(&known)?))
            })?;
            rows.collect()
        })
        .await
    }

    /// Every check that the ledger knows, by job and label.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn checks(&self) -> anyhow::Result<Vec<CheckRow>> {
        self.read(|connection| {
            let mut rows = connection.prepare_cached("SELECT id, job, label, known FROM checks ORDER BY job, label")?;
            let rows = rows.query_map((), |row| {
                let known: String = row.get(3)?;
                Ok(CheckRow { id: row.get(0)?, job: row.get(1)?, check: row.get(2)?, known: from_json(&known)? })
            })?;
            rows.collect()
        })
        .await
    }

    /// Writes what a run found, with the incidents and what is to be told of them: all of it, or nothing.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn found(&self, job: &str, all: Vec<Found>) -> anyhow::Result<()> {
        let job = job.to_owned();
        self.write(WhenFull::Hold, move |connection| {
            for one in &all {
                write(connection, &job, one)?;
            }
            Ok(())
        })
        .await
    }

    /// Incidents, the newest first: those that go on, or all.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn incidents(&self, check: Option<i64>, only_open: bool, limit: u32) -> anyhow::Result<Vec<Incident>> {
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT incidents.id, job, label, began, told, ended, state, flaps, what, causes, offers
                 FROM incidents JOIN checks ON checks.id = subject
                 WHERE (?1 IS NULL OR subject = ?1) AND (NOT ?2 OR ended IS NULL) ORDER BY incidents.id DESC LIMIT ?3",
            )?;
            let rows = rows.query_map((check, only_open, limit), |row| {
                let (causes, offers): (String, String) = (row.get(9)?, row.get(10)?);
                Ok(Incident {
                    id: IncidentId(row.get(0)?),
                    job: row.get(1)?,
                    check: row.get(2)?,
                    began: moment(row.get(3)?),
                    told: row.get::<_, Option<i64>>(4)?.map(moment),
                    ended: row.get::<_, Option<i64>>(5)?.map(moment),
                    state: state(row.get(6)?),
                    flaps: row.get(7)?,
                    what: row.get(8)?,
                    causes: from_json(&causes)?,
                    offers: from_json(&offers)?,
                })
            })?;
            rows.collect()
        })
        .await
    }

    /// Lets checks be worked on until then; for ever, when there is no end.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn begin_pause(&self, target: &str, until: Option<DateTime<Utc>>) -> anyhow::Result<()> {
        let (target, since) = (target.to_owned(), self.0.clock.now().timestamp_millis());
        self.write(WhenFull::Fail, move |connection| {
            let until = until.map(|until| until.timestamp_millis());
            connection
                .prepare_cached("INSERT OR REPLACE INTO pauses (target, since, until) VALUES (?1, ?2, ?3)")?
                .execute((&target, since, until))?;
            Ok(())
        })
        .await
    }

    /// Ends that.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn end_pause(&self, target: &str) -> anyhow::Result<()> {
        let target = target.to_owned();
        self.write(WhenFull::Fail, move |connection| {
            connection.prepare_cached("DELETE FROM pauses WHERE target = ?1")?.execute([&target])?;
            Ok(())
        })
        .await
    }

    /// What is being worked on by hand.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn pauses(&self) -> anyhow::Result<Vec<Pause>> {
        let now = self.0.clock.now().timestamp_millis();
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT target, since, until FROM pauses WHERE until IS NULL OR until > ?1 ORDER BY target",
            )?;
            let rows = rows.query_map([now], |row| {
                let until: Option<i64> = row.get(2)?;
                Ok(Pause { target: row.get(0)?, since: moment(row.get(1)?), until: until.map(moment) })
            })?;
            rows.collect()
        })
        .await
    }
}

fn write(connection: &Connection, job: &str, found: &Found) -> rusqlite::Result<()> {
    let id = match &found.known {
        Some(known) => connection
            .prepare_cached(
                "INSERT INTO checks (job, label, known) VALUES (?1, ?2, ?3)
                 ON CONFLICT (job, label) DO UPDATE SET known = ?3 RETURNING id",
            )?
            .query_row((job, &found.check, to_json(known)?), |row| row.get(0))?,
        None => connection
            .prepare_cached("SELECT id FROM checks WHERE job = ?1 AND label = ?2")?
            .query_row((job, &found.check), |row| row.get(0))?,
    };
    let Look { at, state, took, trouble } = found.look;
    let took = took.map(|took| i64::try_from(took.as_micros()).unwrap_or(i64::MAX));
    connection
        .prepare_cached("INSERT OR REPLACE INTO looks (at, subject, state, took, trouble) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute((at.timestamp_millis(), id, number(state), took, trouble))?;
    for mark in &found.marks {
        write_mark(connection, id, mark)?;
    }
    if let Some(Begun { open, state, what, causes, offers }) = &found.incident {
        // An incident that was told of without a cause keeps what is found later, and one with a cause keeps that.
        connection
            .prepare_cached(
                "INSERT INTO incidents (id, subject, began, told, state, flaps, what, causes, offers)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (id) DO UPDATE SET began = ?3, told = ?4, state = ?5, flaps = max(flaps, ?6), what = ?7,
                     causes = CASE ?8 WHEN '[]' THEN causes ELSE ?8 END, offers = CASE ?9 WHEN '[]' THEN offers ELSE ?9 END",
            )?
            .execute((
                open.id.0,
                id,
                open.began.timestamp_millis(),
                open.told.map(|told| told.timestamp_millis()),
                number(*state),
                open.flaps,
                what,
                to_json(causes)?,
                to_json(offers)?,
            ))?;
    }
    if let Some((incident, at)) = found.ended {
        connection
            .prepare_cached("UPDATE incidents SET ended = ?2, began = min(began, ?2) WHERE id = ?1 AND ended IS NULL")?
            .execute((incident.0, at.timestamp_millis()))?;
    }
    outbox::put(connection, &found.outgoing)
}

fn write_mark(connection: &Connection, subject: i64, mark: &Mark) -> rusqlite::Result<()> {
    match *mark {
        Mark::From(since, state) => put_span(connection, subject, since.timestamp_millis(), number(state)),
        Mark::Cut(at) => {
            connection
                .prepare_cached("DELETE FROM spans WHERE subject = ?1 AND since > ?2")?
                .execute((subject, at.timestamp_millis()))?;
            Ok(())
        }
        Mark::Was { since, thought, was } => {
            let since = since.timestamp_millis();
            let before: Option<u8> = connection
                .prepare_cached(
                    "SELECT state FROM spans WHERE subject = ?1 AND since <= ?2 ORDER BY since DESC LIMIT 1",
                )?
                .query_row((subject, since), |row| row.get(0))
                .optional()?;
            connection
                .prepare_cached("UPDATE spans SET state = ?4 WHERE subject = ?1 AND since > ?2 AND state = ?3")?
                .execute((subject, since, number(thought), number(was)))?;
            if before == Some(number(thought)) { put_span(connection, subject, since, number(was)) } else { Ok(()) }
        }
    }
}

fn put_span(connection: &Connection, subject: i64, since: i64, state: u8) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO spans (subject, since, state) VALUES (?1, ?2, ?3)")?
        .execute((subject, since, state))?;
    Ok(())
}
