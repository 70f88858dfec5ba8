//! The ledger on real disks: full, killed, large, of an older form, of a newer one, and no ledger at all.
mod disk;
mod killed;

use std::{fs, path::Path};

use chrono::{TimeZone as _, Utc};
use rusuban::{
    clock::Clock,
    model::{JobName, Outcome, RunId, RunState, Trigger},
    policy::History,
    store::{RunFilter, Settled, Settlement, Store, Verdict},
};

fn job(name: &str) -> JobName {
    name.parse().unwrap()
}

fn all() -> RunFilter {
    RunFilter { job: None, before: None, limit: 1000 }
}

#[tokio::test]
async fn a_slot_is_settled_once_and_its_run_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let due = Utc.with_ymd_and_hms(2026, 11, 21, 3, 15, 0).unwrap();
    let settlement = || Settlement {
        job: job("photos"),
        slots: vec![Settled { due, last: due, count: 1, verdict: Verdict::Run(Trigger::Schedule(due)) }],
        cursor: due,
        news: Vec::new(),
    };
    let store = Store::open(&path, Clock::system()).await.unwrap();
    let runs = store.settle(vec![settlement()]).await.unwrap();
    assert_eq!(runs.len(), 1);
    assert!(store.settle(vec![settlement()]).await.unwrap().is_empty(), "a slot becomes a run once");
    drop(store);
    let store = Store::open(&path, Clock::system()).await.unwrap();
    assert_eq!(store.cursors().await.unwrap()[&job("photos")].at, Some(due));
    let unfinished: Vec<RunId> = store.unfinished().await.unwrap().iter().map(|run| run.id).collect();
    assert_eq!(unfinished, [runs[0].id]);
    // The cursor never goes back.
    let back = Settlement {
        job: job("photos"),
        slots: Vec::new(),
        cursor: due - chrono::TimeDelta::days(1),
        news: Vec::new(),
    };
    store.settle(vec![back]).await.unwrap();
    assert_eq!(store.cursors().await.unwrap()[&job("photos")].at, Some(due));
    let next = store.queue_run(&job("photos"), Trigger::Manual).await.unwrap();
    assert!(next.id > runs[0].id, "a number is never used twice");
}

#[tokio::test]
async fn history_is_trimmed_but_the_newest_success_stays() {
    let store = Store::in_memory(Clock::system()).unwrap();
    let photos = job("photos");
    for index in 0..30 {
        let run = store.queue_run(&photos, Trigger::Manual).await.unwrap();
        store.run_started(run.id, 1).await.unwrap();
        let outcome = if index == 2 { Outcome::Succeeded } else { Outcome::Failed };
        store.run_finished(run.id, outcome, "x").await.unwrap();
    }
    let history = History { runs: 10.try_into().unwrap(), ..History::default() };
    assert_eq!(store.tidy(&[(photos, history)].into()).await.unwrap(), 18);
    let left = store.runs(all()).await.unwrap();
    // The newest ten, the newest success, and the failure after it: it says since when the job fails.
    assert_eq!(left.len(), 12);
    let success = |state: &RunState| matches!(state, RunState::Finished { outcome: Outcome::Succeeded, .. });
    assert!(left.iter().any(|run| run.id == RunId(3) && success(&run.state)));
}

#[tokio::test]
async fn what_is_no_ledger_or_a_newer_one_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    fs::write(&path, "this is a diary, not a database, and it is long enough").unwrap();
    let error = format!("{:#}", Store::open(&path, Clock::system()).await.unwrap_err());
    assert!(error.contains("ledger.db") && error.contains("not a database"), "{error}");
    fs::remove_file(&path).unwrap();
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 999).unwrap();
    drop(newer);
    let error = format!("{:#}", Store::open(&path, Clock::system()).await.unwrap_err());
    assert!(error.contains("form 999") && error.contains("newer rusuban"), "{error}");
}

/// A ledger of each form that was ever released, as SQL; it is brought to the newest form and read.
#[tokio::test]
async fn every_older_form_is_brought_to_the_newest() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store");
    let mut looked_at = 0;
    for entry in fs::read_dir(fixtures).unwrap() {
        let fixture = entry.unwrap().path();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch(&fs::read_to_string(&fixture).unwrap()).unwrap();
        let store = Store::open(&path, Clock::system()).await.unwrap();
        let runs = store.runs(all()).await.unwrap();
        assert_eq!(runs.len(), 2, "{}", fixture.display());
        assert_eq!(runs[1].message, "1 source, read back");
        assert_eq!(store.lines(runs[1].id, 0, 10).await.unwrap().len(), 1);
        assert_eq!(store.slots(&job("photos"), 10).await.unwrap().len(), 2);
        assert_eq!(store.debts().await.unwrap().len(), 1);
        assert!(store.queue_run(&job("photos"), Trigger::Manual).await.unwrap().id > runs[0].id);
        looked_at += 1;
    }
    assert!(looked_at >= 1);
}
