//! The ledger: runs, slots, lines, steps, facts, debts, checks, in SQLite (WAL, one writer thread). The only shared mutable state.
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::{
    clock::Clock,
    model::{JobName, Missed, RunId, Skipped, Trigger, news::Outgoing},
};

mod checks;
mod debts;
mod history;
mod outbox;
mod past;
mod runs;
mod schema;
mod slots;
mod tidy;
mod writer;

pub use checks::{Begun, CheckRow, Found, Incident};
pub use history::Span;
pub use outbox::{Answer, End, Line, OpenMessage, OutboxRow};
pub use past::{Past, Standing};
pub use runs::RunFilter;
pub use slots::{Cursor, SlotRow};
use writer::{WhenFull, Work, Writer};

/// The ledger. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    writer: Writer,
    /// A second connection that only reads; none for a ledger in memory, whose one connection is the writer's.
    reader: Option<Arc<Mutex<Connection>>>,
    clock: Clock,
    next_run: AtomicI64,
    next_debt: AtomicI64,
    next_incident: AtomicI64,
}

/// What is settled for one job in one go.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The job.
    pub job: JobName,
    /// Its slots, oldest first.
    pub slots: Vec<Settled>,
    /// Everything up to here is settled now.
    pub cursor: DateTime<Utc>,
    /// What is to be told of it.
    pub news: Vec<Outgoing>,
}

/// One slot, or a long gap's many, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Settled {
    /// When it was due; of many, the first.
    pub due: DateTime<Utc>,
    /// Of many, the last; else the same.
    pub last: DateTime<Utc>,
    /// How many.
    pub count: u64,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a slot.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It becomes a run.
    Run(Trigger),
    /// It came on time and is not run.
    Skip(Skipped),
    /// It went by unseen.
    Miss(Missed),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the ledger in this file, making it if it is not there.
    ///
    /// # Errors
    /// When it is no ledger, is damaged, or is of a newer version.
    pub async fn open(path: &Path, clock: Clock) -> anyhow::Result<Self> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || Self::open_now(&path, clock)).await?
    }

    fn open_now(path: &Path, clock: Clock) -> anyhow::Result<Self> {
        let what = || format!("open the ledger {}", path.display());
        let mut connection = Connection::open(path).with_context(what)?;
        prepare(&connection).with_context(what)?;
        schema::migrate(&mut connection).with_context(what)?;
        let reader =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
                .with_context(what)?;
        reader.busy_timeout(BUSY)?;
        Self::with(connection, Some(reader), Some(path), clock).with_context(what)
    }

    /// A ledger that is gone with the process.
    ///
    /// # Errors
    /// When memory is short.
    pub fn in_memory(clock: Clock) -> anyhow::Result<Self> {
        let mut connection = Connection::open_in_memory()?;
        schema::migrate(&mut connection)?;
        Self::with(connection, None, None, clock)
    }

    fn with(
        connection: Connection,
        reader: Option<Connection>,
        path: Option<&Path>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let next = |table: &str| -> anyhow::Result<AtomicI64> {
            let last: Option<i64> = connection
                .query_row("SELECT seq FROM sqlite_sequence WHERE name = ?1", [table], |row| row.get(0))
                .optional()?;
            Ok(AtomicI64::new(last.unwrap_or(0) + 1))
        };
        let (next_run, next_debt, next_incident) = (next("runs")?, next("debts")?, next("incidents")?);
        let writer = Writer::start(connection, path, clock.clone())?;
        let reader = reader.map(|reader| Arc::new(Mutex::new(reader)));
        Ok(Self(Arc::new(Inner { writer, reader, clock, next_run, next_debt, next_incident })))
    }

    /// What keeps the ledger from being written, for a person; none when all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.0.writer.trouble()
    }

    /// What the ledger has to say of itself since `since`, oldest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn notes(&self, since: DateTime<Utc>) -> anyhow::Result<Vec<(DateTime<Utc>, String)>> {
        self.read(move |connection| {
            let mut rows = connection.prepare_cached("SELECT at, text FROM notes WHERE at >= ?1 ORDER BY id")?;
            let rows = rows.query_map([since.timestamp_millis()], |row| Ok((moment(row.get(0)?), row.get(1)?)))?;
            rows.collect()
        })
        .await
    }

    /// What an earlier run of the job remembered under `key`.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn fact(&self, job: &JobName, key: &str) -> anyhow::Result<Option<serde_json::Value>> {
        let (job, key) = (job.clone(), key.to_owned());
        let text: Option<String> = self
            .read(move |connection| {
                connection
                    .prepare_cached("SELECT value FROM facts WHERE job = ?1 AND key = ?2")?
                    .query_row((job.as_str(), &key), |row| row.get(0))
                    .optional()
            })
            .await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Remembers something for later runs of the job.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn set_fact(&self, job: &JobName, key: &str, value: &serde_json::Value) -> anyhow::Result<()> {
        let (job, key, value) = (job.clone(), key.to_owned(), value.to_string());
        self.write(WhenFull::Hold, move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO facts (job, key, value) VALUES (?1, ?2, ?3)")?
                .execute((job.as_str(), &key, &value))?;
            Ok(())
        })
        .await
    }

    /// Changes what is remembered of a job under `key`, in one go.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn change_fact(
        &self,
        job: &JobName,
        key: &str,
        change: impl Fn(Option<serde_json::Value>) -> serde_json::Value + Send + 'static,
    ) -> anyhow::Result<()> {
        let (job, key) = (job.clone(), key.to_owned());
        self.write(WhenFull::Hold, move |connection| {
            let before: Option<String> = connection
                .prepare_cached("SELECT value FROM facts WHERE job = ?1 AND key = ?2")?
                .query_row((job.as_str(), &key), |row| row.get(0))
                .optional()?;
            let after = change(before.as_deref().and_then(|before| serde_json::from_str(before).ok()));
            connection
                .prepare_cached("INSERT OR REPLACE INTO facts (job, key, value) VALUES (?1, ?2, ?3)")?
                .execute((job.as_str(), &key, after.to_string()))?;
            Ok(())
        })
        .await
    }

    /// What all jobs remember under `key`.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn facts(&self, key: &str) -> anyhow::Result<Vec<(JobName, serde_json::Value)>> {
        let key = key.to_owned();
        self.read(move |connection| {
            let mut rows = connection.prepare_cached("SELECT job, value FROM facts WHERE key = ?1")?;
            let rows = rows.query_map([&key], |row| {
                let (job, value): (String, String) = (row.get(0)?, row.get(1)?);
                Ok((job_name(&job)?, from_json(&value)?))
            })?;
            rows.collect()
        })
        .await
    }

    async fn write(
        &self,
        when_full: WhenFull,
        work: impl FnMut(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        self.0.writer.write(when_full, Box::new(work)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        if let Some(reader) = &self.0.reader {
            let reader = Arc::clone(reader);
            let answer =
                tokio::task::spawn_blocking(move || query(&reader.lock().unwrap_or_else(PoisonError::into_inner)));
            return answer.await?.context("read the ledger");
        }
        let (reply, mut answer) = tokio::sync::mpsc::unbounded_channel();
        let work: Work = Box::new(move |connection| {
            let _ = reply.send(query(connection)?);
            Ok(())
        });
        self.0.writer.write(WhenFull::Fail, work).await?;
        answer.recv().await.context("read the ledger")
    }
}

/// How long to wait for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A row that is written before the deed is on the disk before the deed.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -2048)?;
    connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn moment(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(milliseconds).unwrap_or_default()
}

/// A job's name as the ledger has it; it was a `JobName` when it was written.
fn job_name(text: &str) -> rusqlite::Result<JobName> {
    text.parse().map_err(|error: String| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))
}

fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

impl Inner {
    fn new_run(&self) -> RunId {
        RunId(self.next_run.fetch_add(1, Ordering::SeqCst))
    }
}

/// Jobs and how much of their history is kept.
pub type Histories = BTreeMap<JobName, crate::policy::History>;

/// The newest run of each job.
pub type LastRuns = HashMap<JobName, crate::model::Run>;
