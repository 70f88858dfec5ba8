//! The ledger on a full disk.
use std::{
    fs,
    time::{Duration, Instant},
};

use chrono::{TimeZone as _, Utc};
use rusuban::{
    clock::Clock,
    model::{Debt, Level, Line, Outcome, RunId, Trigger},
    policy::History,
    store::Store,
};

use super::{all, job};
use crate::support::disk::Disk;

impl Disk {
    async fn store(&self) -> Store {
        Store::open(&self.path().join("ledger.db"), Clock::system()).await.unwrap()
    }

    /// Fills the disk until the store cannot write any more.
    async fn until_trouble(&self, store: &Store) {
        for number in 0..60_000 {
            if number % 20 == 0 {
                self.fill();
            }
            store.set_fact(&job("big"), &number.to_string(), &"x".repeat(20_000).into()).await.unwrap();
            if store.trouble().is_some() {
                return;
            }
        }
        panic!("the disk is never full");
    }
}

#[tokio::test]
async fn on_a_full_disk_runs_go_on_and_the_ledger_tells_later_what_it_could_not_write() {
    let disk = Disk::new("8m");
    let store = Store::open(&disk.path().join("ledger.db"), Clock::system()).await.unwrap();
    let before = store.queue_run(&job("before"), Trigger::Manual).await.unwrap();
    let filler = disk.path().join("filler");
    // The disk is full twice: first the ballast helps, then nothing does.
    let mut held = Vec::new();
    for round in 0..40 {
        let _ = fs::write(&filler, vec![1; 8 << 20]);
        let text = "x".repeat(200_000);
        let line = Line { number: round + 1, at: Clock::system().now(), level: Level::Output, text };
        store.add_lines(before.id, vec![line]).await.unwrap();
        held.push(store.queue_run(&job("during"), Trigger::Manual).await.unwrap().id);
        if store.trouble().is_some() && held.len() > 35 {
            break;
        }
    }
    let trouble = store.trouble().expect("the disk is full");
    assert!(trouble.contains("make room on its disk"), "{trouble}");
    // A debt that cannot be written down is told: its deed must not be done.
    store.owe(before.id, &job("before"), &Debt::Remove { path: "/tmp/x".into() }).await.unwrap_err();
    fs::remove_file(&filler).unwrap();
    let began = Instant::now();
    while store.trouble().is_some() {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", store.trouble());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let written: Vec<RunId> = store.runs(all()).await.unwrap().iter().map(|run| run.id).collect();
    assert!(held.iter().all(|run| written.contains(run)), "every run that was queued is in the ledger");
    let notes = store.notes(Utc.timestamp_opt(0, 0).unwrap()).await.unwrap();
    assert!(notes.iter().any(|(_, note)| note.contains("the disk was full from")), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_is_written_though_more_keeps_coming() {
    let disk = Disk::new("8m");
    let store = disk.store().await;
    disk.until_trouble(&store).await;
    disk.empty();
    let began = Instant::now();
    while store.trouble().is_some() {
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", store.trouble());
        store.queue_run(&job("tick"), Trigger::Manual).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tidying_ends_on_a_full_disk() {
    let disk = Disk::new("8m");
    let store = disk.store().await;
    for _ in 0..30 {
        let run = store.queue_run(&job("a"), Trigger::Manual).await.unwrap();
        store.run_finished(run.id, Outcome::Failed, "x").await.unwrap();
    }
    disk.until_trouble(&store).await;
    let history = [(job("a"), History { runs: 10.try_into().unwrap(), ..History::default() })].into();
    let tidied = tokio::time::timeout(Duration::from_secs(10), store.tidy(&history)).await;
    assert!(tidied.is_ok(), "it goes round and round");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ballast_is_there_again_once_there_is_room() {
    let disk = Disk::new("16m");
    let store = disk.store().await;
    let ballast = disk.path().join("ledger.db-ballast");
    assert!(ballast.exists());
    disk.until_trouble(&store).await;
    assert!(!ballast.exists(), "it was not given up");
    disk.empty();
    let began = Instant::now();
    while !ballast.exists() {
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", store.trouble());
        store.queue_run(&job("tick"), Trigger::Manual).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
