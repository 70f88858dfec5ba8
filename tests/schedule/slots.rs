//! The slots of a line, in zones whose clocks are set.
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rusuban::{
    model::Missed,
    policy::MissedPolicy,
    schedule::{Schedule, Warning},
    scheduler::plan::{Plan, Question, What, plan},
};

use super::oracle::{PATTERNS, Year, ZONES};

fn schedule(line: &str) -> Schedule {
    Schedule::parse(line, chrono_tz::UTC, &"photos".parse().unwrap()).unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn ask(line: &str, missed: MissedPolicy, jitter: u64, cursor: &str, now: &str) -> Plan {
    let job = "photos".parse().unwrap();
    let question = Question {
        job: &job,
        schedule: &schedule(line),
        jitter: Duration::from_secs(jitter),
        missed,
        window: Duration::from_secs(7 * 86_400),
        cursor: at(cursor),
        paused_since: None,
    };
    plan(&question, at(now))
}

#[test]
fn a_year_of_slots_is_what_the_clock_on_the_wall_says() {
    let mut wrong = Vec::new();
    for (zone, number) in ZONES {
        let year = Year::of(zone, number);
        for pattern in PATTERNS {
            let schedule = Schedule::parse(pattern.line, zone, &"photos".parse().unwrap()).unwrap();
            let expected = year.slots(pattern);
            let found: Vec<_> = schedule.slots_after(year.begin()).take_while(|slot| *slot <= year.end()).collect();
            if found != expected {
                let shown = |at: &&DateTime<Utc>| at.with_timezone(&zone).to_rfc3339();
                let lost: Vec<_> = expected
                    .iter()
                    .filter(|at| found.binary_search(at).is_err())
                    .take(4)
                    .map(|at| shown(&at))
                    .collect();
                let more: Vec<_> = found
                    .iter()
                    .filter(|at| expected.binary_search(at).is_err())
                    .take(4)
                    .map(|at| shown(&at))
                    .collect();
                wrong.push(format!("{zone} `{}`: lost {lost:?}, too many {more:?}", pattern.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_slot_is_found_from_within_the_second_before_it() {
    let after = at("2026-11-20T02:59:59.500Z");
    for line in ["0 3 * * *", "0 * * * *", "*/5 * * * *", "* * * * * *", "@every 1h"] {
        assert_eq!(schedule(line).next_after(after), Some(at("2026-11-20T03:00:00Z")), "{line}");
    }
}

#[test]
fn all_slots_found_within_ten_seconds_are_on_time() {
    let plan = ask("@every 1s", MissedPolicy::Latest, 0, "2026-11-20T03:00:00Z", "2026-11-20T03:00:03.2Z");
    assert_eq!(plan.slots.iter().map(|slot| slot.what).collect::<Vec<_>>(), [What::OnTime; 3]);
}

#[test]
fn a_slot_that_waited_for_its_jitter_is_late_when_it_is_found_late() {
    // The next one cannot start before it is due at 12:00; the one of 11:00 cannot start after that.
    for job in 0..50 {
        let job = format!("job-{job}").parse().unwrap();
        let question = Question {
            job: &job,
            schedule: &schedule("0 * * * *"),
            jitter: Duration::from_secs(2 * 3600),
            missed: MissedPolicy::Skip,
            window: Duration::from_secs(86_400),
            cursor: at("2026-11-20T10:00:00Z"),
            paused_since: None,
        };
        let plan = plan(&question, at("2026-11-20T12:00:30Z"));
        let eleven = plan.slots.iter().find(|slot| slot.due == at("2026-11-20T11:00:00Z")).unwrap();
        assert_eq!(eleven.what, What::Missed(Missed::Away), "{job:?}");
    }
}

#[test]
fn as_many_as_asked_for_are_made_up_for() {
    let all = MissedPolicy::All(std::num::NonZeroU32::new(150).unwrap());
    let plan = ask("0 * * * *", all, 0, "2026-11-13T12:30:00Z", "2026-11-20T03:30:00Z");
    assert_eq!(plan.slots.iter().filter(|slot| slot.what == What::CatchUp).count(), 150);
}

#[test]
fn of_a_long_gap_each_row_tells_the_reason_of_all_its_slots() {
    let plan = ask("0 * * * *", MissedPolicy::Latest, 0, "2026-10-20T12:30:00Z", "2026-11-20T03:30:00Z");
    for row in &plan.slots {
        let old = |due| due < at("2026-11-20T03:30:00Z") - TimeDelta::days(7);
        assert_eq!(old(row.due), old(row.last), "{row:?}");
        assert_eq!(old(row.due), row.what == What::Missed(Missed::TooOld), "{row:?}");
    }
    assert_eq!(plan.slots.iter().map(|row| row.count).sum::<u64>(), 31 * 24 - 9);
}

#[test]
fn days_that_match_either_way_are_told_for_steps_too() {
    let warned = |line| schedule(line).warnings(at("2026-01-01T00:00:00Z")).contains(&Warning::EitherDay);
    assert!(warned("0 3 */2 * MON"));
    assert!(warned("0 3 1 * */2"));
    assert!(!warned("0 3 * * MON"));
    assert!(!warned("0 3 1 * *"));
    assert!(!warned("0 3 */2 * +MON"));
}
