//! SQLite databases met in a tree: a plain copy of one that is in use is damaged more often than not, so it is copied
//! through SQLite's online backup, and its -wal, -shm and -journal stay behind.
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::cancelled_error;
use crate::database::sqlite;

/// What became of a copy.
pub(crate) enum Copied {
    /// A whole copy, in a file that has no name any more.
    Whole { copy: File, rows: BTreeMap<String, u64> },
    /// It only looks like a database.
    NoDatabase(String),
}

/// Whether it begins as a SQLite database does.
pub(crate) fn is_database(file: &mut File) -> io::Result<bool> {
    let mut header = Vec::with_capacity(16);
    file.by_ref().take(16).read_to_end(&mut header)?;
    file.rewind()?;
    Ok(header == b"SQLite format 3\0")
}

/// The files that SQLite keeps beside a database.
pub(crate) fn companions(name: &OsStr) -> impl Iterator<Item = OsString> {
    ["-wal", "-shm", "-journal"].into_iter().map(|ending| {
        let mut companion = name.to_owned();
        companion.push(ending);
        companion
    })
}

/// Copies a database that may be in use.
pub(crate) fn copy(path: &Path, spool: &Path, cancelled: &CancellationToken) -> anyhow::Result<Copied> {
    // Several threads may copy at once.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let to = spool.join(format!("met-{}.sqlite", NEXT.fetch_add(1, Ordering::Relaxed)));
    let report = match sqlite::backup(path, &to, |_, _| !cancelled.is_cancelled()) {
        Ok(report) => report,
        Err(_) if cancelled.is_cancelled() => return Err(cancelled_error().into()),
        Err(error) if is_damage(&error) => return Ok(Copied::NoDatabase(error.root_cause().to_string())),
        Err(error) => return Err(error),
    };
    let copy = File::open(&to).with_context(|| format!("open {}", to.display()))?;
    // It lives on until it is closed, and is gone whatever happens to us.
    std::fs::remove_file(&to).with_context(|| format!("remove {}", to.display()))?;
    Ok(Copied::Whole { copy, rows: report.rows })
}

/// Whether the file is at fault, and not a lock, a full disk or the like: then a plain copy is the best there can be.
fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let text = cause.to_string();
        text.contains("is damaged") || text.contains("no SQLite database")
    })
}
