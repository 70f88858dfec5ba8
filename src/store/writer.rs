//! The one thread that writes. Whatever waits is written in one transaction, so ten thousand rows cost one fsync.
//!
//! When the disk is full, a ballast file beside the ledger is given up first; after that, writes are held back in memory,
//! in order, and tried again: runs go on, and the ledger says later what it could not write in time.
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::oneshot;

use crate::clock::Clock;

/// Bytes that can be given up when the disk is full: room for several thousand rows.
const BALLAST: usize = 4 << 20;
/// How long to wait between tries while the disk is full.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Writes held back at most; beyond it, log lines are let go first.
const MOST_HELD: usize = 50_000;
/// Writes of one transaction at most.
const MOST_AT_ONCE: usize = 4096;

/// A write that can be tried again: nothing is kept of a try that fails.
pub(super) type Work = Box<dyn FnMut(&Connection) -> rusqlite::Result<()> + Send>;

/// What becomes of a write when the disk is full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// Held back; the caller goes on.
    Hold,
    /// Held back, or let go when too much is held: a log line.
    MayDrop,
    /// The caller is told that it could not be written.
    Fail,
}

/// A message to the thread.
pub(super) struct Order {
    pub(super) work: Work,
    pub(super) when_full: WhenFull,
    pub(super) reply: oneshot::Sender<anyhow::Result<()>>,
}

/// The thread's side that others see.
pub(super) struct Writer {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

/// A full disk, as told to people.
struct Trouble {
    since: DateTime<Utc>,
    held: usize,
    dropped: usize,
    error: String,
}

impl Writer {
    pub(super) fn start(connection: Connection, path: Option<&Path>, clock: Clock) -> anyhow::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let trouble = Arc::default();
        let mut desk = Desk {
            connection,
            clock,
            ballast: path.map(|path| path.with_extension("db-ballast")),
            held: VecDeque::new(),
            trouble: Arc::clone(&trouble),
        };
        desk.restore_ballast();
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || desk.work(&inbox))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), trouble })
    }

    pub(super) async fn write(&self, when_full: WhenFull, work: Work) -> anyhow::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.orders
            .as_ref()
            .and_then(|orders| orders.send(Order { work, when_full, reply }).ok())
            .ok_or_else(|| anyhow!("the ledger is closed"))?;
        answer.await.map_err(|_| anyhow!("the ledger is closed"))?
    }

    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(|trouble| {
            format!(
                "the ledger cannot be written since {} ({}): {} entries are held in memory{}; make room on its disk",
                trouble.since.format("%Y-%m-%d %H:%M:%SZ"),
                trouble.error,
                trouble.held,
                if trouble.dropped == 0 {
                    String::new()
                } else {
                    format!(", {} log lines were let go", trouble.dropped)
                }
            )
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends when nobody can give it orders any more.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own side.
struct Desk {
    connection: Connection,
    clock: Clock,
    ballast: Option<PathBuf>,
    held: VecDeque<(Work, WhenFull)>,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Desk {
    fn work(&mut self, inbox: &mpsc::Receiver<Order>) {
        let mut tried = Instant::now();
        loop {
            let first = if self.held.is_empty() {
                inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(TRY_AGAIN)
            };
            match first {
                Ok(first) => {
                    let batch: Vec<Order> = std::iter::once(first).chain(inbox.try_iter().take(MOST_AT_ONCE)).collect();
                    if self.held.is_empty() {
                        self.write(batch);
                        tried = Instant::now();
                    } else {
                        self.hold(batch, None);
                        // Orders that keep coming must not keep what is held from being written.
                        if tried.elapsed() >= TRY_AGAIN {
                            self.write_held();
                            tried = Instant::now();
                        }
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.write_held();
                    tried = Instant::now();
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.write_held();
                    return;
                }
            }
        }
    }

    fn write(&mut self, mut batch: Vec<Order>) {
        let mut written = self.try_batch(&mut batch);
        if matches!(&written, Err(error) if is_full(error)) && self.give_up_ballast() {
            written = self.try_batch(&mut batch);
        }
        match written {
            Ok(errors) => {
                for (order, error) in batch.into_iter().zip(errors) {
                    let _ = order.reply.send(error.map_or(Ok(()), |error| Err(error.into())));
                }
            }
            Err(error) if is_full(&error) => self.hold(batch, Some(&error)),
            Err(error) => {
                let error = error.to_string();
                for order in batch {
                    let _ = order.reply.send(Err(anyhow!("write the ledger: {error}")));
                }
            }
        }
    }

    /// One transaction for all; what is wrong with one of them alone leaves the others be.
    fn try_batch(&mut self, batch: &mut [Order]) -> rusqlite::Result<Vec<Option<rusqlite::Error>>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match batch.iter_mut().try_for_each(|order| (order.work)(&transaction)) {
            Ok(()) => {
                transaction.commit()?;
                return Ok(batch.iter().map(|_| None).collect());
            }
            Err(error) if batch.len() == 1 || is_full(&error) => return Err(error),
            // As good as never: each by itself then, which takes half as long again.
            Err(_) => transaction.rollback()?,
        }
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut errors = Vec::with_capacity(batch.len());
        for order in batch {
            let point = transaction.savepoint()?;
            match (order.work)(&point) {
                Ok(()) => {
                    point.commit()?;
                    errors.push(None);
                }
                Err(error) if is_full(&error) => return Err(error),
                Err(error) => errors.push(Some(error)),
            }
        }
        transaction.commit()?;
        Ok(errors)
    }

    fn hold(&mut self, batch: Vec<Order>, error: Option<&rusqlite::Error>) {
        let mut dropped = 0;
        for Order { work, when_full, reply } in batch {
            let answer = match when_full {
                WhenFull::Fail => {
                    Err(anyhow!("the ledger's disk is full, so this could not be written down before the deed"))
                }
                WhenFull::MayDrop if self.held.len() >= MOST_HELD => {
                    dropped += 1;
                    Ok(())
                }
                WhenFull::Hold | WhenFull::MayDrop => {
                    self.held.push_back((work, when_full));
                    Ok(())
                }
            };
            let _ = reply.send(answer);
        }
        let now = self.clock.now();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let known = trouble.get_or_insert_with(|| {
            let error = error.map_or_else(String::new, ToString::to_string);
            tracing::error!(error, "the ledger's disk is full; runs go on, and what happens is held in memory");
            Trouble { since: now, held: 0, dropped: 0, error }
        });
        known.held = self.held.len();
        known.dropped += dropped;
    }

    fn write_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let Ok(transaction) = self.connection.transaction_with_behavior(TransactionBehavior::Immediate) else { return };
        for (work, _) in &mut self.held {
            match work(&transaction) {
                Err(error) if is_full(&error) => return,
                Err(error) => tracing::error!(%error, "an entry that was held back cannot be written"),
                Ok(()) => {}
            }
        }
        let known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let text = known.as_ref().map_or_else(String::new, |trouble| {
            format!(
                "the disk was full from {} on: {} entries were written only now, {} log lines were let go",
                trouble.since.format("%Y-%m-%d %H:%M:%SZ"),
                self.held.len(),
                trouble.dropped
            )
        });
        drop(known);
        let now = self.clock.now().timestamp_millis();
        let written = transaction
            .execute("INSERT INTO notes (at, text) VALUES (?1, ?2)", (now, &text))
            .and_then(|_| transaction.commit());
        if written.is_err() {
            return;
        }
        // Only now: whoever asks is told of the trouble until all is on the disk.
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        tracing::warn!("{text}");
        self.held.clear();
        self.restore_ballast();
    }

    fn restore_ballast(&mut self) {
        let Some(path) = &self.ballast else { return };
        if fs::metadata(path).is_ok_and(|file| file.len() == BALLAST as u64) {
            return;
        }
        let written =
            File::create(path).and_then(|mut file| file.write_all(&vec![0; BALLAST]).and_then(|()| file.sync_all()));
        if written.is_err() {
            // No room for it now: then it must not take what little there is.
            let _ = fs::remove_file(path);
        }
    }

    fn give_up_ballast(&mut self) -> bool {
        self.ballast.as_ref().is_some_and(|path| fs::remove_file(path).is_ok())
    }
}

/// SQLite reports a full disk as `FULL`, and as an IO error where the file system told it at another moment.
fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}
