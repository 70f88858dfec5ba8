//! What is noticed while a tree is read, by one thread or by several.
use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{anyhow, bail};
use serde::{Deserialize, Serialize};

use super::TreeReport;

/// Unreadable things are looked for to the end of the tree, and so many are named.
const NAMED: usize = 20;
/// Warnings of one tree that are kept; the rest is counted.
const WARNINGS: usize = 100;

/// Who hears of it while it goes on.
pub trait Listener: Send + Sync {
    /// Something worth a line.
    fn info(&self, text: &str);
    /// We went on, but a person should look.
    fn warn(&self, text: &str);
    /// Bytes of the current source read, and how many there are if that is known.
    fn progress(&self, done: u64, total: Option<u64>);
    /// So many bytes more are new to where they are stored.
    fn added(&self, _bytes: u64) {}
}

/// Something that was noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// Worth a line.
    Info(String),
    /// A person should look.
    Warning(String),
    /// It changed or vanished under our hands.
    Changed(String),
    /// It cannot be read, and why.
    Unreadable(Vec<u8>, String),
}

/// Listens to nothing.
struct Nobody;

impl Listener for Nobody {
    fn info(&self, _: &str) {}

    fn warn(&self, _: &str) {}

    fn progress(&self, _: u64, _: Option<u64>) {}
}

/// Gathers what is noticed.
pub struct Notes {
    listener: Arc<dyn Listener>,
    /// Where it is to be told by another.
    handed_on: Option<Mutex<Vec<Note>>>,
    bytes: AtomicU64,
    /// Those among them that were not known already.
    anew: AtomicU64,
    /// So many bytes there were the last time.
    expected: u64,
    is_unreadable: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    report: TreeReport,
    dropped_warnings: usize,
    /// Things that cannot be read: once there is one, the rest is only looked at.
    unreadable: Vec<String>,
    unreadable_count: usize,
    files: u64,
}

impl Notes {
    /// Nothing noticed yet.
    #[must_use]
    pub fn new(listener: Arc<dyn Listener>) -> Self {
        let (bytes, anew, is_unreadable) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { listener, handed_on: None, bytes, anew, expected: 0, is_unreadable, inner: Mutex::default() }
    }

    /// What is noticed is told by another: see [`Notes::handed_on`].
    pub(crate) fn to_be_handed_on() -> Self {
        Self { handed_on: Some(Mutex::default()), ..Self::new(Arc::new(Nobody)) }
    }

    /// What was noticed since this was asked last.
    pub(crate) fn handed_on(&self) -> Vec<Note> {
        let notes = self.handed_on.as_ref().map(|notes| notes.lock().unwrap_or_else(PoisonError::into_inner));
        notes.map(|mut notes| std::mem::take(&mut *notes)).unwrap_or_default()
    }

    fn hand_on(&self, note: impl FnOnce() -> Note) {
        if let Some(notes) = &self.handed_on {
            notes.lock().unwrap_or_else(PoisonError::into_inner).push(note());
        }
    }

    /// The same, where the last time there were so many bytes: how far it has come is told by that.
    #[must_use]
    pub fn expecting(self, bytes: u64) -> Self {
        Self { expected: bytes, ..self }
    }

    /// Something worth a line.
    pub fn info(&self, text: &str) {
        self.hand_on(|| Note::Info(text.to_owned()));
        self.listener.info(text);
    }

    /// We went on, but a person should look.
    pub fn warn(&self, warning: String) {
        self.hand_on(|| Note::Warning(warning.clone()));
        self.tell_warning(warning);
    }

    fn tell_warning(&self, warning: String) {
        self.listener.warn(&warning);
        let mut inner = self.inner();
        if inner.report.warnings.len() < WARNINGS {
            inner.report.warnings.push(warning);
        } else {
            inner.dropped_warnings += 1;
        }
    }

    /// Something changed or vanished under our hands; a person should look.
    pub fn changed(&self, warning: String) {
        self.inner().report.changed += 1;
        self.hand_on(|| Note::Changed(warning.clone()));
        self.tell_warning(warning);
    }

    /// Something cannot be read: the whole will fail, once all such things are found.
    pub fn cannot(&self, path: &Path, error: io::Error) {
        self.is_unreadable.store(true, Ordering::Relaxed);
        self.hand_on(|| Note::Unreadable(path.as_os_str().as_encoded_bytes().to_vec(), error.to_string()));
        let mut inner = self.inner();
        inner.unreadable_count += 1;
        if inner.unreadable.len() < NAMED {
            inner.unreadable.push(format!("{}: {:#}", path.display(), anyhow!(error)));
        }
    }

    /// Whether something could not be read.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.is_unreadable.load(Ordering::Relaxed)
    }

    /// So many bytes more were read.
    pub fn read(&self, bytes: u64) {
        self.anew.fetch_add(bytes, Ordering::Relaxed);
        self.known(bytes);
    }

    /// So many bytes more need not be read: they are known.
    pub fn known(&self, bytes: u64) {
        let done = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.listener.progress(done, (done <= self.expected).then_some(self.expected));
    }

    /// So many bytes of what was read are new to where they are stored.
    pub fn added(&self, bytes: u64) {
        self.listener.added(bytes);
    }

    /// An entry was stored.
    pub fn entry(&self) {
        self.inner().report.entries += 1;
    }

    /// It was a file, or the like.
    pub fn file(&self) {
        self.inner().files += 1;
    }

    /// A database was copied while in use.
    pub fn database(&self, name: &str, rows: BTreeMap<String, u64>) {
        let named = rows.into_iter().map(|(table, count)| (format!("{name}: {table}"), count));
        self.inner().report.rows.extend(named);
    }

    /// Fails if something cannot be read, or if there is nothing.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn judge(&self, allow_empty: bool) -> anyhow::Result<()> {
        let inner = self.inner();
        if inner.unreadable_count > 0 {
            let more = inner.unreadable_count - inner.unreadable.len();
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            bail!("cannot be read: {}{more}", inner.unreadable.join("; "));
        }
        if inner.files == 0 && !allow_empty {
            bail!("there is not a single file in it: is it mounted? (`allow_empty = true` if that is right)");
        }
        Ok(())
    }

    /// What was read, and the bytes of it.
    #[must_use]
    pub fn report(&self) -> TreeReport {
        let mut inner = self.inner();
        let mut report = std::mem::take(&mut inner.report);
        if inner.dropped_warnings > 0 {
            report.warnings.push(format!("and {} warnings more", inner.dropped_warnings));
        }
        report.bytes = self.bytes.load(Ordering::Relaxed);
        report.anew = self.anew.load(Ordering::Relaxed);
        report
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
