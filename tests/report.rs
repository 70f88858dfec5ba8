//! The kind `report`: what it tells, and that it tells it.
use chrono::{DateTime, TimeZone as _, Utc};
use rusuban::{
    clock::Clock,
    kinds::Told,
    model::{
        news::{Event, Severity},
        overview::{Card, JobOverview, Overview},
        watch::State,
    },
};

use crate::support::kind::{context, read};

fn job(name: &str, failing: Option<DateTime<Utc>>) -> JobOverview {
    JobOverview {
        card: Card {
            job: name.parse().unwrap(),
            kind: "backup",
            is_enabled: true,
            keeps: Some("nas".into()),
            is_heard: true,
        },
        runs: 7,
        failures: u64::from(failing.is_some()),
        success: Some(Utc.with_ymd_and_hms(2026, 11, 26, 3, 15, 0).unwrap()),
        failing,
        message: "disk full".into(),
        paused: None,
    }
}

async fn told(keys: &str, overview: Overview) -> (anyhow::Result<String>, Vec<Told>) {
    let home = tempfile::tempdir().unwrap();
    let (cx, kept) = context(home.path(), Clock::simulated(Utc.with_ymd_and_hms(2026, 11, 27, 8, 0, 0).unwrap()), []);
    *kept.overview.lock().unwrap() = overview;
    let came = read("report", keys).run(&cx).await;
    let told = kept.told.lock().unwrap().clone();
    (came, told)
}

#[tokio::test]
async fn the_watch_line_is_of_all_checks_and_of_jobs_where_nothing_is_watched() {
    let failing = Some(Utc.with_ymd_and_hms(2026, 11, 27, 3, 15, 0).unwrap());
    let jobs = vec![job("photos", None), job("wiki", failing)];
    let checks = vec![("blog".to_owned(), State::Up), ("shop".to_owned(), State::Down)];
    let (came, told) = self::told("report = 'watch-line'", Overview { jobs: jobs.clone(), checks }).await;
    assert_eq!(came.unwrap(), "blog is fine, shop is sick");
    assert_eq!((told[0].event, told[0].what.as_str()), (Event::Report, "blog is fine, shop is sick"));
    let (came, _) = self::told("report = 'watch-line'\nlanguage = 'ja'", Overview { jobs, checks: Vec::new() }).await;
    assert_eq!(came.unwrap(), "photosは元気、wikiは病気");
    let (came, told) = self::told("report = 'watch-line'", Overview::default()).await;
    assert!(
        came.unwrap_err().to_string().contains("nothing is watched yet") && told.is_empty(),
        "no empty line as if all were well"
    );
}

#[tokio::test]
async fn the_disk_line_has_the_figures_of_df() {
    let (came, told) = told("report = 'disk-line'", Overview::default()).await;
    let line = came.unwrap();
    let df = std::process::Command::new("df").args(["--output=pcent", "/"]).output().unwrap();
    let share = String::from_utf8(df.stdout).unwrap().lines().last().unwrap().trim().trim_end_matches('%').to_owned();
    assert!(
        line.starts_with("2026-11-27 disk usage of this host: / ") && line.contains(&format!("({share} %)")),
        "{line} {share}"
    );
    assert_eq!(told[0].what, line);
    let (came, _) = self::told("report = 'disk-line'\npaths = ['/nonexistent']", Overview::default()).await;
    assert!(format!("{:#}", came.unwrap_err()).contains("look at /nonexistent"));
}

#[tokio::test]
async fn a_digest_of_a_bad_week_is_a_warning() {
    let failing = Some(Utc.with_ymd_and_hms(2026, 11, 27, 3, 15, 0).unwrap());
    let (came, told) =
        told("report = 'digest'", Overview { jobs: vec![job("wiki", failing)], checks: Vec::new() }).await;
    assert_eq!(came.unwrap(), "1 job, 7 runs, 1 failed");
    assert_eq!(told[0].severity, Severity::Warning);
    assert!(
        told[0].lines.contains(&"fails now: wiki since 2026-11-27 03:15: disk full".to_owned()),
        "{:?}",
        told[0].lines
    );
    let (_, told) =
        self::told("report = 'digest'", Overview { jobs: vec![job("wiki", None)], checks: Vec::new() }).await;
    assert_eq!(told[0].severity, Severity::Info);
}
