//! `site-check` against real servers, good and bad: what it says of them, and what it never does.
mod container;
mod faults;
mod many;
mod others;
mod pages;
mod tls;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use rusuban::{
    clock::Clock,
    kinds::Cx,
    model::watch::{Checked, State, Trouble, Verdict},
};

use crate::support::kind::{Kept, context, read};

/// Looks once; the summary, what was handed on and the log.
pub(super) async fn look_with(cx: &Cx, kept: &Kept, keys: &str) -> (Result<String, String>, Vec<Checked>) {
    let kind = read("site-check", keys);
    let problems = kind.check(&rusuban::kinds::Site::default());
    assert!(problems.is_empty(), "{keys}: {problems:?}");
    let run = tokio::time::timeout(Duration::from_secs(60), kind.run(cx)).await.expect("a run that ends");
    let found = std::mem::take(&mut *kept.checks.lock().unwrap());
    (run.map_err(|error| format!("{error:#}")), found)
}

/// Looks once at one site in a home of its own.
pub(super) async fn look(keys: &str) -> Verdict {
    let home = tempfile::tempdir().unwrap();
    look_at_home(home.path(), keys).await
}

pub(super) async fn look_at_home(home: &Path, keys: &str) -> Verdict {
    let (cx, kept) = context(home, Clock::system(), []);
    let (summary, mut found) = look_with(&cx, &kept, keys).await;
    let verdict = found.remove(0).verdict;
    assert!(found.is_empty());
    assert!(summary.unwrap().ends_with(&verdict.what));
    assert_eq!(verdict.trouble.is_none(), verdict.state == State::Up, "{verdict:?}");
    verdict
}

/// The verdict's state, trouble and words, with times and sizes taken out.
pub(super) fn told(verdict: &Verdict) -> (State, Option<Trouble>, String) {
    let mut words = Vec::new();
    let mut parts = verdict.what.split(' ').peekable();
    while let Some(part) = parts.next() {
        let is_number = part.trim_start_matches('(').chars().all(|letter| letter.is_ascii_digit() || letter == '.')
            && !part.is_empty();
        match parts.peek().map(|unit| unit.trim_end_matches([')', ',', ';'])) {
            Some("ms" | "s") if is_number => {
                let unit = parts.next().unwrap();
                words.push(format!("T{}", unit.trim_start_matches(|letter: char| letter.is_ascii_lowercase())));
            }
            _ => words.push(part.to_owned()),
        }
    }
    (verdict.state, verdict.trouble.clone(), words.join(" "))
}

pub(super) type Shared<T> = Arc<Mutex<T>>;
