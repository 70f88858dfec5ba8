//! The kind `backup` from its keys to a restored file.
mod thinning;

use std::{fs, path::Path, sync::Arc};

use chrono::TimeDelta;
use rusuban::{
    bucket::{Bucket, Put, memory::Memory},
    clock::Clock,
    kinds::{Cx, Services},
    model::JobName,
    plain::{self, Reading},
};

use crate::support::kind::{Kept, context, read};

/// A home with a data folder, a source folder beside it, and a bucket in memory.
struct House {
    root: tempfile::TempDir,
    cx: Cx,
    kept: Arc<Kept>,
    bucket: Arc<dyn Bucket>,
}

impl House {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        fs::create_dir_all(home.join("data")).unwrap();
        fs::create_dir_all(root.path().join("source")).unwrap();
        let clock = Clock::simulated("2026-11-21T03:15:00Z".parse().unwrap());
        let bucket: Arc<dyn Bucket> = Arc::new(Memory::new(clock.clone()));
        let (cx, kept) = context(&home, clock, []);
        let mut house = Self { root, cx, kept, bucket: Arc::clone(&bucket) };
        house.set_bucket(bucket);
        house
    }

    /// Puts this bucket into the settings.
    fn set_bucket(&mut self, bucket: Arc<dyn Bucket>) {
        let (of, home) = (&self.cx.services, self.path("home"));
        self.cx.services = Arc::new(Services {
            home: home.clone(),
            spool: home.join("data/spool"),
            store: home.join("data/rusuban.db"),
            buckets: [("local".to_owned(), bucket)].into(),
            repositories: [].into(),
            rules: Arc::clone(&of.rules),
            notifiers: [].into(),
            docker: of.docker.clone(),
            time_zone: of.time_zone,
            http: of.http.clone(),
            secrets: of.secrets.clone(),
            redactor: of.redactor.clone(),
        });
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    async fn run(&self, keys: &str) -> anyhow::Result<String> {
        let keys = keys.replace("ROOT", self.root.path().to_str().unwrap());
        let done = read("backup", &keys).run(&self.cx).await;
        // Whatever became of it, nothing is owed and nothing is left in the spool.
        assert!(self.kept.debts.lock().unwrap().is_empty());
        assert!(fs::read_dir(self.path("home/data/spool")).is_ok_and(|mut spool| spool.next().is_none()));
        done
    }

    async fn backups(&self) -> Vec<plain::Manifest> {
        plain::list(&self.bucket, &job()).await.unwrap().backups
    }

    fn database(&self, name: &str, rows: u32) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.path(name)).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text BLOB);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO note (text) SELECT randomblob(500) FROM n;"
            ))
            .unwrap();
        connection
    }
}

fn job() -> JobName {
    "job".parse().unwrap()
}

fn rows(database: &Path) -> u64 {
    let connection = rusqlite::Connection::open(database).unwrap();
    let check: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    connection.query_row("SELECT count(*) FROM note", (), |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sources_are_one_backup_and_each_comes_back() {
    let house = House::new();
    let _held_open = house.database("app.db", 1000);
    let _also_open = house.database("source/met.db", 50);
    house.database("home/data/rusuban.db", 3);
    fs::write(house.path("source/file"), "text").unwrap();
    fs::write(house.path("home/rusuban.toml"), "").unwrap();
    fs::create_dir(house.path("home/jobs")).unwrap();
    fs::write(house.path("home/jobs/x.toml"), "kind = 'x'").unwrap();
    let said = house
        .run("[[source]]\nsqlite = 'ROOT/app.db'\n[[source]]\npath = 'ROOT/source'\n[[source]]\nself = true")
        .await
        .unwrap();
    assert!(said.starts_with("3 sources, ") && said.ends_with(", read back; 1 kept"), "{said}");
    assert!(!house.kept.text().contains("w "), "{}", house.kept.text());

    let manifest = house.backups().await.remove(0);
    assert_eq!(manifest.sources[0].rows["note"], 1000);
    assert_eq!(manifest.sources[1].rows["source/met.db: note"], 50);
    for (source, to) in [("app.db", "back.db"), ("source", "back"), ("rusuban", "back-home")] {
        let to = house.path(to);
        plain::restore(&house.bucket, &manifest, Some(source), &to, false, &Reading::default()).await.unwrap();
    }
    assert_eq!(rows(&house.path("back.db")), 1000);
    assert_eq!(rows(&house.path("back/met.db")), 50);
    assert_eq!(rows(&house.path("back-home/data/rusuban.db")), 3);
    assert_eq!(fs::read_to_string(house.path("back-home/jobs/x.toml")).unwrap(), "kind = 'x'");
    let mut names: Vec<_> = fs::read_dir(house.path("back")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    // No -wal, no -shm: the copy is whole without them.
    assert_eq!(names, ["file", "met.db"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_leaves_no_backup_at_all() {
    let house = House::new();
    fs::write(house.path("source/file"), "text").unwrap();
    fs::write(house.path("no.db"), "this is no database, and long enough to look at").unwrap();
    let error = house.run("[[source]]\npath = 'ROOT/source'\n[[source]]\nsqlite = 'ROOT/no.db'").await.unwrap_err();
    assert!(format!("{error:#}").contains("no SQLite database"), "{error:#}");
    assert_eq!(house.backups().await, []);
    let left = house.bucket.folders("").await.unwrap();
    assert_eq!(left, Vec::<String>::new());
    assert!(!house.path("missing.db").exists());
    house.run("[[source]]\nsqlite = 'ROOT/missing.db'").await.unwrap_err();
    assert!(!house.path("missing.db").exists(), "a missing database was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_generations_and_leftovers_go_and_a_shrunken_backup_stops_that() {
    let house = House::new();
    let random: Vec<u8> = (0..40_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(house.path("source/file"), &random).unwrap();
    let keys = "keep = { daily = 3 }\n[[source]]\npath = 'ROOT/source'";
    house.bucket.put("job/2026-11-20T00-00-00Z/x.zst", "left".into(), Put::Replace).await.unwrap();
    house.bucket.put("job/by-hand/x", "not ours".into(), Put::Replace).await.unwrap();
    for day in 0..5 {
        let said = house.run(keys).await.unwrap();
        let wanted = if day < 3 { format!("; {} kept", day + 1) } else { "; 3 kept, 1 removed".to_owned() };
        assert!(said.ends_with(&wanted), "{said}");
        house.cx.clock.step(TimeDelta::days(1));
    }
    let folders = house.bucket.folders("job/").await.unwrap();
    assert_eq!(folders.len(), 4, "{folders:?}");
    assert!(folders.contains(&"by-hand/".to_owned()));
    assert!(house.kept.text().contains("left by a backup that was cut off, 2026-11-20T00-00-00Z"));

    fs::write(house.path("source/file"), "little").unwrap();
    let said = house.run(keys).await.unwrap();
    assert!(said.contains("4 kept, none removed"), "{said}");
    assert!(house.kept.text().contains("look whether something is missing"), "{}", house.kept.text());
    assert_eq!(house.backups().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_database_that_lost_its_rows_stops_removal_although_the_whole_is_as_large_as_ever() {
    let house = House::new();
    fs::write(house.path("source/file"), vec![7; 4 << 20]).unwrap();
    house.database("app.db", 1000);
    let keys = "keep = { last = 2 }\n[[source]]\npath = 'ROOT/source'\n[[source]]\nsqlite = 'ROOT/app.db'";
    for _ in 0..2 {
        house.run(keys).await.unwrap();
        house.cx.clock.step(TimeDelta::days(1));
    }
    fs::remove_file(house.path("app.db")).unwrap();
    house.database("app.db", 1);
    let said = house.run(keys).await.unwrap();
    assert!(said.contains("3 kept, none removed"), "{said}");
    assert!(house.kept.text().contains("source app.db"), "{}", house.kept.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_that_somebody_else_removed_are_missed() {
    let house = House::new();
    fs::write(house.path("source/file"), "text").unwrap();
    let keys = "keep = { last = 2 }\n[[source]]\npath = 'ROOT/source'";
    for _ in 0..4 {
        house.run(keys).await.unwrap();
        house.cx.clock.step(TimeDelta::days(1));
    }
    assert!(!house.kept.text().contains(" gone"), "what we removed ourselves is no surprise: {}", house.kept.text());
    let backups = house.backups().await;
    house.bucket.delete(&backups[0].key()).await.unwrap();
    // One that cannot be read is there all the same, and told by itself.
    house.bucket.put(&backups[1].key(), "{".into(), Put::Replace).await.unwrap();
    house.run(keys).await.unwrap();
    let text = house.kept.text();
    assert!(text.contains("1 backup of job in") && text.contains(&format!(" is gone ({})", backups[0].id)), "{text}");
    assert!(text.contains("cannot be read and is left alone") && !text.contains("all that were there"), "{text}");
    house.cx.clock.step(TimeDelta::days(1));
    for backup in house.backups().await {
        house.bucket.delete(&backup.key()).await.unwrap();
    }
    house.bucket.delete(&backups[1].key()).await.unwrap();
    house.run(keys).await.unwrap();
    assert!(house.kept.text().contains(" gone: all that were there"), "{}", house.kept.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_it_ends_soon_and_leaves_nothing() {
    let house = House::new();
    fs::write(house.path("source/file"), vec![7; 64 << 20]).unwrap();
    let cancelled = house.cx.cancelled.clone();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        cancelled.cancel();
    });
    let begun = std::time::Instant::now();
    let error = house.run("compression = { level = 19, threads = 1 }\n[[source]]\npath = 'ROOT/source'").await;
    assert!(format!("{:#}", error.unwrap_err()).contains("cancelled"));
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(house.bucket.folders("").await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_that_we_have_open_is_backed_up_without_losing_its_locks() {
    let house = House::new();
    let ours = house.database("home/data/rusuban.db", 3);
    house.run("[[source]]\nself = true").await.unwrap();
    let manifest = house.backups().await.remove(0);
    assert_eq!(manifest.sources[0].rows["rusuban/data/rusuban.db: note"], 3);
    // Another process that closes the database and finds no lock on it would remove the -wal that we are writing to.
    let path = house.path("home/data/rusuban.db");
    let others = std::process::Command::new("sqlite3").arg(&path).arg("SELECT count(*) FROM note").output().unwrap();
    assert!(others.status.success(), "{others:?}");
    assert!(house.path("home/data/rusuban.db-wal").exists());
    ours.execute_batch("INSERT INTO note (text) VALUES ('after')").unwrap();
    assert_eq!(rows(&path), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_fails_the_run_and_leaves_nothing() {
    let house = House::new();
    house.database("app.db", 10_000);
    let spool = house.path("home/data/spool");
    fs::create_dir(&spool).unwrap();
    let mount = |line: &[&str]| std::process::Command::new(line[0]).args(&line[1..]).arg(&spool).status();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]).is_ok_and(|status| status.success()) {
        // Only root may mount.
        return;
    }
    let done = house.run("[[source]]\nsqlite = 'ROOT/app.db'").await;
    mount(&["umount", "-l"]).unwrap();
    let error = format!("{:#}", done.unwrap_err());
    assert!(error.contains("full"), "{error}");
    assert_eq!(house.bucket.folders("").await.unwrap(), Vec::<String>::new());
}
