//! Copies of SQLite databases that other processes have open, left behind or lost their folder's write permission to.
//! The other process is the `sqlite3` shell.
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use rusuban::database::sqlite::{Report, backup};

/// A folder with a database `bank.db` of some 30,000 small pages: several steps of a copy.
fn bank(journal_mode: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank.db");
    let setup = format!(
        "PRAGMA page_size = 512; PRAGMA journal_mode = {journal_mode}; PRAGMA synchronous = OFF;
         CREATE TABLE account (id INTEGER PRIMARY KEY, note BLOB); CREATE TABLE moves (id INTEGER PRIMARY KEY);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
         INSERT INTO account SELECT i, randomblob(450) FROM n;"
    );
    shell(&path, &setup).unwrap();
    (folder, path)
}

/// What the shell says to `sql`.
fn shell(path: &Path, sql: &str) -> Result<String, String> {
    let output = Command::new("sqlite3").arg("-batch").arg(path).arg(sql).output().expect("sqlite3 (see dev/test)");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A shell that has done `sql` and keeps the database open; killed when dropped.
struct Shell(Child);

impl Shell {
    fn that_did(path: &Path, sql: &str) -> Self {
        let mut child = Command::new("sqlite3")
            .arg("-batch")
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sqlite3 (see dev/test)");
        writeln!(child.stdin.as_mut().unwrap(), "{sql}\n.print ready").unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"));
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}

fn copy(path: &Path) -> (Report, Connection) {
    let to = beside(path, ".copy");
    let report = backup(path, &to, |_, _| true).unwrap();
    (report, Connection::open(to).unwrap())
}

fn failure(path: &Path) -> String {
    let to = beside(path, ".copy");
    let error = backup(path, &to, |_, _| true).unwrap_err();
    assert!(!to.exists());
    format!("{error:#}")
}

fn count(connection: &Connection, table: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0)).unwrap()
}

#[test]
fn in_wal_mode_others_write_while_it_is_copied_and_the_copy_is_of_one_moment() {
    let (_folder, path) = bank("wal");
    let (to, mut writes) = (beside(&path, ".copy"), 0);
    let report = backup(&path, &to, |_, _| {
        shell(&path, "INSERT INTO moves DEFAULT VALUES").expect("no writer is kept waiting");
        writes += 1;
        true
    });
    let report = report.unwrap();
    assert!(writes >= 4, "{writes}");
    assert_eq!((report.restarts, report.rows["account"], report.rows["moves"]), (0, 30_000, 0));
    assert_eq!(report.journal_mode, "wal");
    let copied = Connection::open(&to).unwrap();
    assert_eq!(copied.pragma_query_value::<String, _>(None, "journal_mode", |row| row.get(0)).unwrap(), "delete");
}

#[test]
fn in_rollback_mode_it_begins_anew_a_few_times_and_then_keeps_writers_out() {
    let (_folder, path) = bank("delete");
    let (to, mut written) = (beside(&path, ".copy"), 0);
    let report = backup(&path, &to, |_, _| {
        written += u64::from(shell(&path, "INSERT INTO moves DEFAULT VALUES").is_ok());
        true
    });
    let report = report.unwrap();
    assert_eq!(report.restarts, 4);
    assert_eq!(report.rows["account"], 30_000);
    assert!(report.rows["moves"] >= 4 && report.rows["moves"] <= written, "{report:?} of {written}");
}

#[test]
fn a_database_that_this_process_has_open_keeps_its_locks() {
    let (_folder, path) = bank("wal");
    let ours = Connection::open(&path).unwrap();
    ours.execute_batch("INSERT INTO moves DEFAULT VALUES").unwrap();
    let (report, _) = copy(&path);
    assert_eq!(report.rows["moves"], 1);
    // Another process that closes the database and finds no lock on it removes the -wal that we are writing to.
    shell(&path, "SELECT count(*) FROM moves").unwrap();
    assert!(beside(&path, "-wal").exists());
    ours.execute_batch("INSERT INTO moves DEFAULT VALUES").unwrap();
    assert_eq!(shell(&path, "SELECT count(*) FROM moves").unwrap(), "2");
}

#[test]
fn what_a_crash_left_in_the_wal_is_in_the_copy() {
    let (_folder, path) = bank("wal");
    Shell::that_did(&path, "INSERT INTO moves VALUES (7);").kill();
    // The machine was started anew.
    fs::remove_file(beside(&path, "-shm")).unwrap();
    let (report, copied) = copy(&path);
    assert_eq!((report.rows["moves"], count(&copied, "moves")), (1, 1));
}

#[test]
fn a_change_cut_off_by_a_crash_is_named_and_left_to_its_owner() {
    let (_folder, path) = bank("delete");
    let sql = "PRAGMA cache_size = 5; PRAGMA synchronous = FULL; BEGIN; UPDATE account SET note = 'x' WHERE id < 200;";
    Shell::that_did(&path, sql).kill();
    let journal = fs::read(beside(&path, "-journal")).unwrap();
    let failure = failure(&path);
    assert!(failure.contains("its -journal waits to undo that"), "{failure}");
    assert_eq!(fs::read(beside(&path, "-journal")).unwrap(), journal);
    assert_eq!(shell(&path, "PRAGMA integrity_check").unwrap(), "ok");
    copy(&path);
}

#[test]
fn while_somebody_keeps_it_locked_it_can_be_cancelled() {
    let (_folder, path) = bank("delete");
    let _locking = Shell::that_did(&path, "BEGIN EXCLUSIVE;");
    let (since, mut asked) = (Instant::now(), 0);
    let error = backup(&path, &beside(&path, ".copy"), |_, _| {
        asked += 1;
        asked < 3
    });
    assert!(format!("{:#}", error.unwrap_err()).ends_with("cancelled"));
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_lock_that_is_given_up_is_waited_for() {
    let (_folder, path) = bank("delete");
    let mut locking = Some(Shell::that_did(&path, "BEGIN EXCLUSIVE;"));
    let report = backup(&path, &beside(&path, ".copy"), |_, _| {
        locking = None;
        true
    });
    assert_eq!(report.unwrap().rows["account"], 30_000);
}

#[test]
fn a_pipe_is_no_database_and_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.db");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    assert!(failure(&path).contains("this is no ordinary file"));
}

#[test]
fn its_owner_can_write_to_it_after_root_copied_it() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root makes files that others cannot use.
    }
    let (folder, path) = bank("wal");
    for path in [folder.path(), &path] {
        chown(path, Some(12_345), Some(12_345)).unwrap();
    }
    copy(&path);
    for ending in ["-wal", "-shm"] {
        if let Ok(metadata) = fs::metadata(beside(&path, ending)) {
            assert_eq!(metadata.uid(), 12_345, "{ending}");
        }
    }
    let output = Command::new("setpriv")
        .args(["--reuid=12345", "--regid=12345", "--clear-groups", "sqlite3"])
        .arg(&path)
        .arg("INSERT INTO moves DEFAULT VALUES")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A folder seen a second time, read-only.
struct ReadOnly(tempfile::TempDir);

impl ReadOnly {
    fn of(folder: &Path) -> Self {
        let view = tempfile::tempdir().unwrap();
        for arguments in [&["--bind"][..], &["-o", "remount,bind,ro"]] {
            let mut mount = Command::new("mount");
            let status = mount.args(arguments).arg(folder).arg(view.path()).status().unwrap();
            assert!(status.success());
        }
        Self(view)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn through_a_read_only_mount_what_can_be_read_is_read_and_the_rest_is_explained() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root mounts.
    }
    let (folder, path) = bank("wal");
    let view = ReadOnly::of(folder.path());
    let seen = view.0.path().join("bank.db");
    let to = beside(&path, ".copy");
    let moves = || Ok::<_, anyhow::Error>(backup(&seen, &to, |_, _| true)?.rows["moves"]);

    assert_eq!(moves().unwrap(), 0, "at rest");
    let owner = Shell::that_did(&path, "INSERT INTO moves DEFAULT VALUES;");
    assert_eq!(moves().unwrap(), 1, "its owner has it open");
    owner.kill();
    fs::remove_file(beside(&path, "-shm")).unwrap();
    let error = format!("{:#}", moves().unwrap_err());
    assert!(error.contains("in WAL mode its folder must be writable"), "a crash left a -wal: {error}");

    shell(&path, "SELECT 1 FROM moves").unwrap();
    let error = backup(&seen, &to, |_, _| {
        // Nobody had it open when the copy began; now somebody writes.
        shell(&path, "INSERT INTO moves DEFAULT VALUES").unwrap();
        true
    });
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("somebody wrote to it while it was copied"), "{error}");
}
