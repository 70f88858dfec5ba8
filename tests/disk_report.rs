//! `disk-report` on this machine's own filesystems.
use chrono::{DateTime, TimeDelta};
use rusuban::clock::Clock;

use crate::support::kind::{context, read};

#[tokio::test]
async fn the_second_day_tells_growth_and_a_failed_run_remembers_too() {
    let home = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
    let (cx, kept) = context(home.path(), clock.clone(), []);
    std::fs::create_dir(home.path().join("data")).unwrap();

    let failing = read("disk-report", "paths = ['data']\nwarn_at = '0%'\nfail_at = '0%'");
    let failure = failing.run(&cx).await.unwrap_err().to_string();
    let place = home.path().join("data").display().to_string();
    assert!(
        failure.starts_with(&format!("{place} is ")) && failure.contains("% full (the limit is 0%): "),
        "{failure}"
    );
    let log = kept.text();
    assert!(log.contains("since yesterday") && log.contains("from the second day on"), "{log}");

    clock.step(TimeDelta::days(1));
    kept.lines.lock().unwrap().clear();
    let report = read("disk-report", "paths = ['data']\nwarn_at = '0%'");
    let summary = report.run(&cx).await.unwrap();
    assert!(summary.starts_with(&format!("1 filesystem, {place} is ")), "{summary}");
    assert!(summary.contains("% full; 1 warning") || summary.contains("% full; 2 warnings"), "{summary}");
    let log = kept.text();
    assert!(log.contains(&format!("w {place} is ")) && !log.contains("from the second day on"), "{log}");
}

#[tokio::test]
async fn a_path_that_is_missing_fails_and_the_others_are_reported() {
    let home = tempfile::tempdir().unwrap();
    let (cx, kept) = context(home.path(), Clock::system(), []);
    let failure = read("disk-report", "paths = ['/', '/no/such/place']").run(&cx).await.unwrap_err().to_string();
    assert!(failure.starts_with("look at /no/such/place: No such file"), "{failure}");
    assert!(kept.text().lines().any(|line| line.starts_with("/ ")), "{}", kept.text());
}

#[tokio::test]
async fn without_a_word_all_filesystems_are_reported_and_some_can_be_left_out() {
    let home = tempfile::tempdir().unwrap();
    let (cx, kept) = context(home.path(), Clock::system(), []);
    let summary = read("disk-report", "").run(&cx).await.unwrap();
    assert!(summary.contains(" filesystem"), "{summary}");
    let all = kept.text();
    kept.lines.lock().unwrap().clear();
    let failure = read("disk-report", "exclude = ['/', '/**']").run(&cx).await.unwrap_err().to_string();
    assert!(failure.contains("no filesystem was found"), "{failure}");
    assert!(all.contains("i filesystem "), "{all}");
    assert!(!all.contains("/proc"), "{all}");
}

#[tokio::test]
async fn what_cannot_be_read_of_the_past_is_said_and_replaced() {
    let home = tempfile::tempdir().unwrap();
    let (cx, kept) = context(home.path(), Clock::system(), []);
    kept.facts.lock().unwrap().insert("history".into(), serde_json::json!([1]));
    read("disk-report", "").run(&cx).await.unwrap();
    assert!(kept.text().contains("w what earlier runs saw cannot be read"));
    assert!(kept.facts.lock().unwrap()["history"].is_object());
}
