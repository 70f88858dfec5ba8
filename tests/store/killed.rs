//! A ledger whose process is killed, and one with a long history.
use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use rusuban::{
    clock::Clock,
    config::Environment,
    model::{JobName, Trigger},
    store::Store,
};

use super::job;

/// Where the process that is killed finds its ledger.
const LEDGER: &str = "RUSUBAN_TEST_LEDGER";

/// Not a test: the process that is killed. It says which runs it was told are in the ledger.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the test below, to be killed"]
async fn write_until_killed() {
    let environment = Environment::of_process();
    let Some(path) = environment.get(LEDGER) else { return };
    let store = Store::open(path.as_ref(), Clock::system()).await.unwrap();
    let photos = job("photos");
    loop {
        let queued = futures_util::future::join_all((0..8).map(|_| store.queue_run(&photos, Trigger::Manual))).await;
        for run in queued {
            writeln!(std::io::stderr(), "there {}", run.unwrap().id).unwrap();
        }
    }
}

#[test]
fn what_the_ledger_said_it_has_outlives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let mut told: Vec<i64> = Vec::new();
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::killed::write_until_killed", "--ignored", "--nocapture"])
            .env(LEDGER, &path)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let number = |line: &str| line.strip_prefix("there ").and_then(|number| number.parse::<i64>().ok());
        let enough = told.len() + 40 + round * 13;
        while told.len() < enough {
            told.extend(number(&lines.next().unwrap().unwrap()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        told.extend(lines.map_while(Result::ok).filter_map(|line| number(&line)));
        let ledger = rusqlite::Connection::open(&path).unwrap();
        let check: String = ledger.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        let there: i64 = ledger.query_row("SELECT count(*) FROM runs", (), |row| row.get(0)).unwrap();
        assert!(there as usize >= told.len());
        for id in &told {
            let found = ledger.query_row("SELECT 1 FROM runs WHERE id = ?1", [id], |_| Ok(()));
            assert!(found.is_ok(), "run {id} is lost");
        }
    }
    let all = told.len();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), all, "a number was given twice");
}

/// What the server asks of the ledger before it is ready reads the rows that matter, however many there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_runs_are_not_all_read_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    drop(Store::open(&path, Clock::system()).await.unwrap());
    let ledger = rusqlite::Connection::open(&path).unwrap();
    ledger
        .execute_batch(
            "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
             INSERT INTO runs (id, job, trigger, queued, started, finished, outcome, attempts, message)
             SELECT i, 'job-' || (i % 100), '\"manual\"', 1795317300000 + i, 1795317300000 + i, 1795317300000 + i,
                    'succeeded', 1, 'ok' FROM n; COMMIT;",
        )
        .unwrap();
    drop(ledger);
    let jobs: Vec<JobName> = (0..100).map(|number| job(&format!("job-{number}"))).collect();
    let store = Store::open(&path, Clock::system()).await.unwrap();
    assert!(store.unfinished().await.unwrap().is_empty());
    assert_eq!(store.last_runs(jobs).await.unwrap().len(), 100);
    // By their plans: none goes through the whole table.
    let ledger = rusqlite::Connection::open(&path).unwrap();
    for query in [
        "SELECT id FROM runs WHERE finished IS NULL",
        "SELECT max(id) FROM runs WHERE job = 'job-7'",
        "SELECT id FROM runs WHERE job = 'job-7' ORDER BY id DESC LIMIT 20",
    ] {
        let mut plan = ledger.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let steps: Vec<String> =
            plan.query_map((), |row| row.get("detail")).unwrap().collect::<Result<_, _>>().unwrap();
        assert!(steps.iter().all(|step| step.starts_with("SEARCH") || step.contains("INDEX")), "{query}: {steps:?}");
    }
}
