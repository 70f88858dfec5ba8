//! The weekly digest: what was kept, proven and watched, what failed, and what is not protected. Pure.
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::{Language, clean, reports::watch_line};
use crate::model::overview::{JobOverview, Overview};

/// A digest in words: what it comes to in a line, and the lines below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// `12 jobs ran 84 times, 2 of them failed`.
    pub what: String,
    /// A line for each thing.
    pub lines: Vec<String>,
    /// Something needs a person.
    pub needs_a_person: bool,
}

/// The kinds whose successes prove that what is kept comes back.
const PROOFS: [&str; 2] = ["restore-drill", "repository-care"];

/// Writes the digest of an overview.
#[must_use]
pub fn digest(language: Language, overview: &Overview, time_zone: Tz) -> Digest {
    let words: &dyn Words = match language {
        Language::En => &English,
        Language::Ja => &Japanese,
    };
    let day = |at: DateTime<Utc>| at.with_timezone(&time_zone).format("%Y-%m-%d %H:%M").to_string();
    let name = |job: &JobOverview| clean::line(job.card.job.as_str());
    let jobs = &overview.jobs;
    let (runs, failures) = jobs.iter().fold((0, 0), |(runs, failures), job| (runs + job.runs, failures + job.failures));
    let mut lines = Vec::new();
    let mut part = |title: &str, items: Vec<String>, none: &str| {
        if items.is_empty() {
            if !none.is_empty() {
                lines.push(format!("{title}{}{none}", words.colon()));
            }
        } else {
            lines.push(format!("{title}{}{}", words.colon(), items.join(words.comma())));
        }
    };
    let kept = jobs.iter().filter(|job| job.card.keeps.is_some() && job.runs > 0).map(|job| {
        words.kept(&name(job), job.runs - job.failures.min(job.runs), job.runs, job.success.map(day).as_deref())
    });
    part(words.title(Part::Kept), kept.collect(), words.nothing());
    let proven = jobs.iter().filter(|job| PROOFS.contains(&job.card.kind) && job.runs > job.failures);
    part(
        words.title(Part::Proven),
        proven.map(|job| words.since(&name(job), job.success.map(day).as_deref())).collect(),
        words.read_back(),
    );
    if !overview.checks.is_empty() {
        part(words.title(Part::Watched), vec![watch_line(language, &overview.checks)], "");
    }
    let failing: Vec<String> = jobs
        .iter()
        .filter_map(|job| Some(words.failing(&name(job), &day(job.failing?), &clean::line(&job.message))))
        .collect();
    let failed: Vec<String> = jobs
        .iter()
        .filter(|job| job.failing.is_none() && job.failures > 0)
        .map(|job| words.failed(&name(job), job.failures, job.runs))
        .collect();
    let mut needs_a_person = !failing.is_empty();
    part(words.title(Part::Failing), failing, "");
    part(words.title(Part::Failed), failed, "");
    let mut bare = Vec::new();
    for job in jobs.iter().filter(|job| job.card.is_enabled) {
        if let Some(since) = job.paused {
            bare.push(words.paused(&name(job), &day(since)));
        } else if job.card.keeps.is_some() && job.success.is_none() {
            bare.push(words.never(&name(job)));
        } else if job.card.keeps.is_some() && job.runs == 0 {
            bare.push(words.idle(&name(job), job.success.map(day).as_deref()));
        }
        if !job.card.is_heard {
            bare.push(words.unheard(&name(job)));
        }
    }
    needs_a_person |= !bare.is_empty();
    part(words.title(Part::Bare), bare, words.all_is());
    Digest { what: words.what(jobs.len(), runs, failures), lines, needs_a_person }
}

#[derive(Clone, Copy)]
enum Part {
    Kept,
    Proven,
    Watched,
    Failing,
    Failed,
    Bare,
}

/// What differs between languages.
trait Words {
    fn colon(&self) -> &'static str;
    fn comma(&self) -> &'static str;
    fn title(&self, part: Part) -> &'static str;
    fn what(&self, jobs: usize, runs: u64, failures: u64) -> String;
    fn nothing(&self) -> &'static str;
    fn read_back(&self) -> &'static str;
    fn all_is(&self) -> &'static str;
    fn kept(&self, job: &str, good: u64, runs: u64, newest: Option<&str>) -> String;
    fn since(&self, job: &str, at: Option<&str>) -> String;
    fn failing(&self, job: &str, since: &str, message: &str) -> String;
    fn failed(&self, job: &str, failures: u64, runs: u64) -> String;
    fn paused(&self, job: &str, since: &str) -> String;
    fn never(&self, job: &str) -> String;
    fn idle(&self, job: &str, success: Option<&str>) -> String;
    fn unheard(&self, job: &str) -> String;
}

struct English;
struct Japanese;

fn many(number: u64, one: &str) -> String {
    crate::text::count(usize::try_from(number).unwrap_or(usize::MAX), one)
}

impl Words for English {
    fn colon(&self) -> &'static str {
        ": "
    }

    fn comma(&self) -> &'static str {
        "; "
    }

    fn title(&self, part: Part) -> &'static str {
        match part {
            Part::Kept => "kept",
            Part::Proven => "proven",
            Part::Watched => "watched",
            Part::Failing => "fails now",
            Part::Failed => "failed and is well again",
            Part::Bare => "not protected",
        }
    }

    fn what(&self, jobs: usize, runs: u64, failures: u64) -> String {
        let failed = match failures {
            0 => "none failed".to_owned(),
            failures => format!("{failures} failed"),
        };
        format!("{}, {}, {failed}", crate::text::count(jobs, "job"), many(runs, "run"))
    }

    fn nothing(&self) -> &'static str {
        "nothing"
    }

    fn read_back(&self) -> &'static str {
        "what was kept was read back when it was written; no restore was practised"
    }

    fn all_is(&self) -> &'static str {
        "nothing that is known here"
    }

    fn kept(&self, job: &str, good: u64, runs: u64, newest: Option<&str>) -> String {
        let newest = newest.map_or_else(String::new, |at| format!(", newest {at}"));
        format!("{job} ({good} of {runs}{newest})")
    }

    fn since(&self, job: &str, at: Option<&str>) -> String {
        at.map_or_else(|| job.to_owned(), |at| format!("{job} ({at})"))
    }

    fn failing(&self, job: &str, since: &str, message: &str) -> String {
        format!("{job} since {since}: {message}")
    }

    fn failed(&self, job: &str, failures: u64, runs: u64) -> String {
        format!("{job} ({failures} of {runs})")
    }

    fn paused(&self, job: &str, since: &str) -> String {
        format!("{job} is paused since {since}")
    }

    fn never(&self, job: &str) -> String {
        format!("{job} has never made a backup")
    }

    fn idle(&self, job: &str, success: Option<&str>) -> String {
        match success {
            Some(at) => format!("{job} did not run; its newest backup is of {at}"),
            None => format!("{job} did not run"),
        }
    }

    fn unheard(&self, job: &str) -> String {
        format!("nobody hears when {job} fails")
    }
}

impl Words for Japanese {
    fn colon(&self) -> &'static str {
        ": "
    }

    fn comma(&self) -> &'static str {
        "、"
    }

    fn title(&self, part: Part) -> &'static str {
        match part {
            Part::Kept => "保存",
            Part::Proven => "検証",
            Part::Watched => "見守り",
            Part::Failing => "失敗中",
            Part::Failed => "失敗後に回復",
            Part::Bare => "守られていないもの",
        }
    }

    fn what(&self, jobs: usize, runs: u64, failures: u64) -> String {
        let failed = match failures {
            0 => "失敗なし".to_owned(),
            failures => format!("失敗 {failures} 回"),
        };
        format!("ジョブ {jobs} 件、実行 {runs} 回、{failed}")
    }

    fn nothing(&self) -> &'static str {
        "なし"
    }

    fn read_back(&self) -> &'static str {
        "保存したものは書き込み時に読み戻して確認済み、復元の練習はなし"
    }

    fn all_is(&self) -> &'static str {
        "わかる範囲ではなし"
    }

    fn kept(&self, job: &str, good: u64, runs: u64, newest: Option<&str>) -> String {
        let newest = newest.map_or_else(String::new, |at| format!("、最新 {at}"));
        format!("{job}({runs} 回中 {good} 回成功{newest})")
    }

    fn since(&self, job: &str, at: Option<&str>) -> String {
        at.map_or_else(|| job.to_owned(), |at| format!("{job}({at})"))
    }

    fn failing(&self, job: &str, since: &str, message: &str) -> String {
        format!("{job} は {since} から失敗: {message}")
    }

    fn failed(&self, job: &str, failures: u64, runs: u64) -> String {
        format!("{job}({runs} 回中 {failures} 回)")
    }

    fn paused(&self, job: &str, since: &str) -> String {
        format!("{job} は {since} から停止中")
    }

    fn never(&self, job: &str) -> String {
        format!("{job} はまだ一度も保存していない")
    }

    fn idle(&self, job: &str, success: Option<&str>) -> String {
        match success {
            Some(at) => format!("{job} は実行なし、最新の保存は {at}"),
            None => format!("{job} は実行なし"),
        }
    }

    fn unheard(&self, job: &str) -> String {
        format!("{job} が失敗しても誰にも知らせない")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{overview::Card, watch::State};

    fn job(name: &str, kind: &'static str, keeps: bool) -> JobOverview {
        JobOverview {
            card: Card {
                job: name.parse().unwrap(),
                kind,
                is_enabled: true,
                keeps: keeps.then(|| "nas".to_owned()),
                is_heard: true,
            },
            runs: 7,
            failures: 0,
            success: DateTime::from_timestamp(1_795_747_500, 0),
            failing: None,
            message: String::new(),
            paused: None,
        }
    }

    fn week() -> Overview {
        let mut wiki = job("wiki", "backup", true);
        (wiki.failures, wiki.failing, wiki.message) =
            (2, DateTime::from_timestamp(1_795_661_100, 0), "disk full".into());
        let mut call = job("call", "http-call", false);
        (call.failures, call.card.is_heard) = (1, false);
        let mut new = job("new", "backup", true);
        (new.runs, new.success) = (0, None);
        let checks = vec![("blog".to_owned(), State::Up), ("shop".to_owned(), State::Down)];
        Overview { jobs: vec![job("photos", "backup", true), wiki, call, new], checks }
    }

    #[test]
    fn a_week_says_what_was_kept_what_fails_and_what_is_bare() {
        let told = digest(Language::En, &week(), Tz::UTC);
        assert_eq!(told.what, "4 jobs, 21 runs, 3 failed");
        assert_eq!(
            told.lines,
            [
                "kept: photos (7 of 7, newest 2026-11-27 02:45); wiki (5 of 7, newest 2026-11-27 02:45)",
                "proven: what was kept was read back when it was written; no restore was practised",
                "watched: blog is fine, shop is sick",
                "fails now: wiki since 2026-11-26 02:45: disk full",
                "failed and is well again: call (1 of 7)",
                "not protected: nobody hears when call fails; new has never made a backup",
            ]
        );
        assert!(told.needs_a_person);
    }

    #[test]
    fn in_japanese_too_and_a_quiet_week_needs_nobody() {
        let told = digest(Language::Ja, &week(), Tz::Asia__Tokyo);
        assert_eq!(told.what, "ジョブ 4 件、実行 21 回、失敗 3 回");
        assert_eq!(told.lines[3], "失敗中: wiki は 2026-11-26 11:45 から失敗: disk full");
        let quiet = Overview { jobs: vec![job("photos", "backup", true)], checks: Vec::new() };
        let told = digest(Language::En, &quiet, Tz::UTC);
        assert!(!told.needs_a_person);
        assert_eq!(told.lines.last().unwrap(), "not protected: nothing that is known here");
    }
}
