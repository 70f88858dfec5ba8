//! SQLite: the online backup of a database that others use, proven and counted.
//!
//! Measured: stepping through a backup starts anew whenever another connection commits, so a busy database is never done. With
//! a read transaction open on the source, it sees one state from beginning to end, and in WAL mode neither side waits.
//! In rollback-journal mode that transaction keeps writers out, so there a few tries are made without it first.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    backup::{Backup, StepResult},
};

/// Pages copied between two looks at whether to stop.
const STEP: i32 = 8192;
/// In rollback-journal mode, so many starts over are borne before writers are kept out.
const MOST_RESTARTS: u32 = 3;
/// How long to wait for a lock that somebody else holds.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the copy.
    pub bytes: u64,
    /// The source's journal mode: `wal`, `delete`, …
    pub journal_mode: String,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
    /// How often the copy had to begin anew.
    pub restarts: u32,
}

/// Copies the database at `source`, which others may be writing to, into a new file `to`; then proves the copy with
/// `integrity_check` and counts its rows. The source is opened read-only and is never made. `progress` is told pages done and
/// pages in all, and answers whether to go on. Blocks.
///
/// The source is opened by SQLite alone: when a process closes a file, it loses every lock it has on it. If the database
/// is one that this process has open, as its own ledger is, others would then take it for unused and delete its -wal.
///
/// # Errors
/// When the source is missing, is no SQLite database, is encrypted, stays locked, or the copy is not whole. Nothing is left at
/// `to` then.
pub fn backup(source: &Path, to: &Path, mut progress: impl FnMut(u64, u64) -> bool) -> anyhow::Result<Report> {
    let result = copy(source, to, &mut progress);
    if result.is_err() {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(to, suffix));
        }
    }
    result.with_context(|| format!("back up the SQLite database {}", source.display()))
}

/// Told pages done and pages in all; answers whether to go on.
type GoOn<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

fn copy(source: &Path, to: &Path, progress: GoOn<'_>) -> anyhow::Result<Report> {
    look_at(source)?;
    let from = Source::open(source, progress)?;
    let journal_mode: String =
        from.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(explain)?;
    let mut target = make(to)?;
    let (mut restarts, mut done) = (0, false);
    if journal_mode != "wal" {
        (restarts, done) = copy_pages(&from.connection, &mut target, Some(MOST_RESTARTS), progress)?;
    }
    if !done {
        if restarts > 0 {
            // A copy that was given up half way cannot be gone on with: it has no journal to undo the half.
            drop(target);
            fs::remove_file(to).with_context(|| format!("remove the half copy {}", to.display()))?;
            target = make(to)?;
        }
        from.connection.execute_batch("BEGIN").map_err(explain)?;
        // The transaction begins with its first read.
        patiently(progress, || from.connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(())))?;
        restarts += copy_pages(&from.connection, &mut target, None, progress)?.0;
        from.connection.execute_batch("COMMIT").map_err(explain)?;
    }
    from.close(source)?;
    let report = prove(&target, journal_mode, restarts, progress)?;
    target.close().map_err(|(_, error)| error)?;
    make_self_contained(to)?;
    let file = File::open(to)?;
    file.sync_all().with_context(|| format!("bring the copy {} to the disk", to.display()))?;
    Ok(Report { bytes: file.metadata()?.len(), ..report })
}

/// Makes the file of the copy.
fn make(to: &Path) -> anyhow::Result<Connection> {
    let target = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
        .with_context(|| format!("make the copy {}", to.display()))?;
    // Nobody else sees the copy before it is whole, so nothing needs to survive a crash half way.
    target.pragma_update(None, "synchronous", "OFF")?;
    target.pragma_update(None, "journal_mode", "OFF")?;
    target.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    Ok(target)
}

/// Says clearly what is not a database before SQLite is asked.
fn look_at(source: &Path) -> anyhow::Result<()> {
    let metadata = fs::metadata(source).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!("there is no such file"),
        _ => error.into(),
    })?;
    if metadata.is_dir() {
        bail!("this is a folder; name the database file in it");
    }
    if !metadata.is_file() {
        bail!("this is no ordinary file");
    }
    if metadata.len() == 0 && !has_content(&with_suffix(source, "-wal")) {
        bail!("the file is empty: no database was ever written to it");
    }
    Ok(())
}

fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

/// The database that is copied.
struct Source {
    connection: Connection,
    /// It was opened as one that nobody writes to, when it had this size and time.
    still: Option<(u64, Option<SystemTime>)>,
}

impl Source {
    fn open(path: &Path, progress: GoOn<'_>) -> anyhow::Result<Self> {
        let connect = |more: &str| -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(
                format!("file:{}?mode=ro{more}", escaped(path)),
                OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            // Short, so that we look whether to stop; see `patiently`.
            connection.busy_timeout(Duration::from_millis(200))?;
            connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
            Ok(connection)
        };
        match ask_patiently(progress, || connect(""))? {
            Ok(connection) => Ok(Self { connection, still: None }),
            // On a read-only mount no -shm file can be made. With nothing in a -wal, nobody has the database open for writing.
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::CannotOpen)
                    && !has_content(&with_suffix(path, "-wal"))
                    && in_read_only_folder(path) =>
            {
                let still = Some(size_and_time(path)?);
                Ok(Self { connection: connect("&immutable=1").map_err(explain)?, still })
            }
            Err(error) => Err(explain(error)),
        }
    }

    /// Somebody may have opened it after all, where the mount is read-only for us alone.
    fn close(self, path: &Path) -> anyhow::Result<()> {
        if let Some(still) = self.still
            && (size_and_time(path)? != still || has_content(&with_suffix(path, "-wal")))
        {
            bail!(
                "somebody wrote to it while it was copied, and its folder is read-only here: try again, or make the folder writable"
            );
        }
        self.connection.close().map_err(|(_, error)| explain(error))
    }
}

fn size_and_time(path: &Path) -> anyhow::Result<(u64, Option<SystemTime>)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.len(), metadata.modified().ok()))
}

fn in_read_only_folder(source: &Path) -> bool {
    let folder = source.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::statvfs(folder).is_ok_and(|status| status.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// A path in a `file:` address; bytes that mean something there are written as %XX.
fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Asks again while somebody else holds a lock, and looks meanwhile whether to go on.
fn ask_patiently<T>(
    progress: GoOn<'_>,
    mut ask: impl FnMut() -> rusqlite::Result<T>,
) -> anyhow::Result<rusqlite::Result<T>> {
    let since = Instant::now();
    loop {
        match ask() {
            Err(error) if is_locked(&error) && since.elapsed() < LOCK_WAIT => {
                if !progress(0, 0) {
                    bail!("cancelled");
                }
                std::thread::sleep(PAUSE);
            }
            result => return Ok(result),
        }
    }
}

fn patiently<T>(progress: GoOn<'_>, ask: impl FnMut() -> rusqlite::Result<T>) -> anyhow::Result<T> {
    ask_patiently(progress, ask)?.map_err(explain)
}

fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Copies all pages; returns how often it had to begin anew, and whether it came to the end: with `most_restarts`, it gives up
/// after that many.
fn copy_pages(
    from: &Connection,
    target: &mut Connection,
    most_restarts: Option<u32>,
    progress: GoOn<'_>,
) -> anyhow::Result<(u32, bool)> {
    let backup = Backup::new(from, target).map_err(explain)?;
    let (mut restarts, mut done_before, mut locked_since) = (0, 0, None);
    loop {
        let step = backup.step(STEP).map_err(explain)?;
        let pages = backup.progress();
        let total = u64::try_from(pages.pagecount).unwrap_or(0);
        let done = total.saturating_sub(u64::try_from(pages.remaining).unwrap_or(0));
        if !progress(done, total) {
            bail!("cancelled");
        }
        match step {
            StepResult::Done => return Ok((restarts, true)),
            StepResult::Busy | StepResult::Locked => {
                let since = *locked_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= LOCK_WAIT {
                    bail!("somebody has kept the database locked for {} s", LOCK_WAIT.as_secs());
                }
                std::thread::sleep(PAUSE);
                continue;
            }
            _ => locked_since = None,
        }
        // A step that begins anew copies the first pages again, and so comes no further than the first did.
        if done <= done_before {
            restarts += 1;
            if most_restarts.is_some_and(|most| restarts > most) {
                return Ok((restarts, false));
            }
        }
        done_before = done;
    }
}

fn prove(copy: &Connection, journal_mode: String, restarts: u32, progress: GoOn<'_>) -> anyhow::Result<Report> {
    let go_on = |progress: &mut dyn FnMut(u64, u64) -> bool| if progress(1, 1) { Ok(()) } else { bail!("cancelled") };
    go_on(progress)?;
    let mut statement = copy.prepare("PRAGMA integrity_check(5)").map_err(explain)?;
    let found: Vec<String> = statement.query_map((), |row| row.get(0)).and_then(Iterator::collect).map_err(explain)?;
    if found != ["ok"] {
        bail!("the database is damaged: {}", found.join("; "));
    }
    let mut names = copy.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names: Vec<String> = names.query_map((), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut rows = BTreeMap::new();
    for name in names {
        go_on(progress)?;
        let quoted = name.replace('"', "\"\"");
        // A virtual table whose module is not here cannot be counted; its shadow tables are.
        if let Ok(count) = copy.query_row(&format!("SELECT count(*) FROM \"{quoted}\""), (), |row| row.get::<_, i64>(0))
        {
            rows.insert(name, count.unsigned_abs());
        }
    }
    Ok(Report { bytes: 0, journal_mode, rows, restarts })
}

/// A copy of a database in WAL mode says that it has a WAL; alone, it is opened more easily without.
fn make_self_contained(copy: &Path) -> anyhow::Result<()> {
    let connection = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn explain(error: rusqlite::Error) -> anyhow::Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => anyhow::anyhow!("this is no SQLite database, or it is encrypted ({error})"),
        Some(ErrorCode::DatabaseCorrupt) => anyhow::anyhow!("the database is damaged ({error})"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            anyhow::anyhow!("somebody has kept the database locked for {} s ({error})", LOCK_WAIT.as_secs())
        }
        Some(ErrorCode::CannotOpen) => anyhow::anyhow!(
            "it cannot be opened ({error}); in WAL mode its folder must be writable, or nobody may have the database open"
        ),
        Some(ErrorCode::ReadOnly) => anyhow::anyhow!(
            "a change was cut off in the middle of it, and its -journal waits to undo that ({error}): let the program it belongs to open it once"
        ),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn make(path: &Path, journal_mode: &str) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(LOCK_WAIT).unwrap();
        connection.pragma_update(None, "journal_mode", journal_mode).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        connection
            .execute_batch(
                "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER, note BLOB);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                 INSERT INTO account SELECT i, 100, randomblob(1000) FROM n;
                 CREATE TABLE moves (id INTEGER PRIMARY KEY);",
            )
            .unwrap();
        connection
    }

    /// Backs up while another connection moves money about; the sum is the same in every state.
    fn backup_of_a_busy_database(journal_mode: &str) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("bank % ?.db"), folder.path().join("copy.db"));
        let writer = make(&source, journal_mode);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut moves: u64 = 0;
            while !stopped.load(Ordering::Relaxed) {
                writer
                    .execute_batch(
                        "BEGIN IMMEDIATE; UPDATE account SET balance = balance - 1 WHERE id = abs(random()) % 20000 + 1;
                         UPDATE account SET balance = balance + 1 WHERE id = abs(random()) % 20000 + 1;
                         INSERT INTO moves DEFAULT VALUES; COMMIT",
                    )
                    .unwrap();
                moves += 1;
            }
            moves
        });
        let report = backup(&source, &copy, |_, _| true).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(thread.join().unwrap() > 0);
        let copied = Connection::open(&copy).unwrap();
        let sum: i64 = copied.query_row("SELECT sum(balance) FROM account", (), |row| row.get(0)).unwrap();
        assert_eq!(sum, 2_000_000);
        assert_eq!(report.rows["account"], 20_000);
        assert!(!with_suffix(&copy, "-wal").exists());
        report
    }

    #[test]
    fn a_busy_database_in_wal_mode_is_copied_without_beginning_anew() {
        assert_eq!(backup_of_a_busy_database("wal").restarts, 0);
    }

    #[test]
    fn a_busy_database_in_rollback_mode_begins_anew_a_few_times_at_most() {
        assert!(backup_of_a_busy_database("delete").restarts <= MOST_RESTARTS + 1);
    }

    #[test]
    fn what_is_no_database_is_named_and_never_made() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("empty.db"), b"").unwrap();
        fs::write(at("encrypted.db"), [0x5a; 8192]).unwrap();
        fs::create_dir(at("folder.db")).unwrap();
        drop(make(&at("damaged.db"), "delete"));
        let mut bytes = fs::read(at("damaged.db")).unwrap();
        bytes[4096..40_960].fill(0xff);
        fs::write(at("damaged.db"), bytes).unwrap();
        for (name, message) in [
            ("missing.db", "there is no such file"),
            ("empty.db", "the file is empty"),
            ("encrypted.db", "or it is encrypted"),
            ("folder.db", "this is a folder"),
            ("damaged.db", "damaged"),
        ] {
            let error = backup(&at(name), &at("copy.db"), |_, _| true).unwrap_err();
            assert!(format!("{error:#}").contains(message), "{name}: {error:#}");
            assert!(!at("copy.db").exists());
        }
        assert!(!at("missing.db").exists());
    }

    #[test]
    fn a_cancelled_copy_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("bank.db"), folder.path().join("copy.db"));
        drop(make(&source, "wal"));
        let error = backup(&source, &copy, |_, _| false).unwrap_err();
        assert!(format!("{error:#}").contains("cancelled"));
        assert_eq!(
            fs::read_dir(folder.path())
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("copy"))
                .count(),
            0
        );
    }
}
