use super::*;

fn schedule(line: &str, zone: Tz) -> Schedule {
    Schedule::parse(line, zone, &"photos".parse().unwrap()).unwrap()
}

fn next(line: &str, zone: Tz, after: &str, count: usize) -> Vec<String> {
    let after = DateTime::parse_from_rfc3339(after).unwrap().to_utc();
    schedule(line, zone)
        .slots_after(after)
        .take(count)
        .map(|at| at.with_timezone(&zone).format("%m-%dT%H:%M%:z").to_string())
        .collect()
}

#[test]
fn a_fixed_time_comes_once_on_the_days_on_which_the_clock_is_set() {
    use chrono_tz::{
        Australia::Lord_Howe,
        Europe::{London, Paris},
    };
    // London, spring: 01:30 does not exist; it comes at 02:00 summer time. With a list as well as alone.
    for line in ["30 1 * * *", "30 1,13 * * *"] {
        assert_eq!(next(line, London, "2025-03-29T14:00:00Z", 1), ["03-30T02:00+01:00"], "{line}");
    }
    // Paris, autumn: 02:30 comes twice and is taken once, at its first pass.
    assert_eq!(next("30 2,14 * * *", Paris, "2025-10-25T13:00:00Z", 2), ["10-26T02:30+02:00", "10-26T14:30+01:00"]);
    // Lord Howe sets its clock by half an hour.
    assert_eq!(next("15 2 * * *", Lord_Howe, "2025-10-04T00:00:00Z", 2), ["10-05T02:30+11:00", "10-06T02:15+11:00"]);
}

#[test]
fn two_fixed_times_that_fall_on_one_instant_come_once() {
    use chrono_tz::Europe::London;
    assert_eq!(
        next("0,30 1,2 * * *", London, "2025-03-29T12:00:00Z", 3),
        ["03-30T02:00+01:00", "03-30T02:30+01:00", "03-31T01:00+01:00"]
    );
}

#[test]
fn a_wildcard_follows_real_time() {
    use chrono_tz::Europe::Paris;
    assert_eq!(
        next("*/30 2 * * *", Paris, "2025-10-25T22:00:00Z", 4),
        ["10-26T02:00+02:00", "10-26T02:30+02:00", "10-26T02:00+01:00", "10-26T02:30+01:00"]
    );
    assert_eq!(
        next("0 * * * *", Paris, "2025-03-29T23:30:00Z", 3),
        ["03-30T01:00+01:00", "03-30T03:00+02:00", "03-30T04:00+02:00"]
    );
}

#[test]
fn a_day_that_a_zone_leaves_out_moves_its_slot_to_the_first_instant_after_it() {
    // Samoa went from 29 December to 31 December 2011.
    assert_eq!(
        next("0 3 * * *", chrono_tz::Pacific::Apia, "2011-12-29T20:00:00Z", 2),
        ["12-31T00:00+14:00", "12-31T03:00+14:00"]
    );
}

#[test]
fn the_days_of_cron_and_its_extensions_are_understood() {
    use chrono_tz::UTC;
    assert_eq!(next("0 4 L * *", UTC, "2026-02-01T00:00:00Z", 1), ["02-28T04:00+00:00"]);
    assert_eq!(next("0 4 15W * *", UTC, "2026-02-01T00:00:00Z", 1), ["02-16T04:00+00:00"]);
    assert_eq!(next("0 4 * * FRI#2", UTC, "2026-02-01T00:00:00Z", 1), ["02-13T04:00+00:00"]);
    assert_eq!(next("@daily", UTC, "2026-02-01T00:00:00Z", 1), ["02-02T00:00+00:00"]);
    assert_eq!(next("@every 6h", UTC, "2026-02-01T01:00:00Z", 2), ["02-01T06:00+00:00", "02-01T12:00+00:00"]);
    assert!(schedule("@reboot", UTC).is_startup());
    assert_eq!(schedule("@reboot", UTC).next_after(Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap()), None);
}

use chrono::TimeZone as _;

#[test]
fn h_is_the_same_for_a_job_and_spreads_over_jobs() {
    let minute = |job: String| {
        let schedule = Schedule::parse("H H * * *", chrono_tz::UTC, &job.parse().unwrap()).unwrap();
        schedule.next_after(Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap()).unwrap()
    };
    assert_eq!(minute("photos".into()), minute("photos".into()));
    let spread: std::collections::HashSet<_> = (0..200).map(|n| minute(format!("job-{n}"))).collect();
    assert!(spread.len() > 150, "{} different minutes for 200 jobs", spread.len());
    let quarter = next("H/15 * * * *", chrono_tz::UTC, "2026-01-01T00:00:00Z", 8);
    assert_eq!(quarter.len(), 8);
    next("H(0-29)/10 3 * * THU", chrono_tz::UTC, "2026-01-01T00:00:00Z", 1);
}

#[test]
fn wrong_lines_say_which_field_and_how_to_mend_it() {
    for (line, message, hint) in [
        ("15 3 * *", "has 4", "minute, hour"),
        ("60 3 * * *", "`60` is no minute", "0 to 59"),
        ("0 3 * FOO *", "`FOO` is no month", "JAN"),
        ("0 3 30 2 *", "never comes", "30 February"),
        ("@dayly", "`@dayly` is no schedule", "did you mean `@daily`?"),
        ("@every soon", "not a length of time", "@every 6h"),
        ("@every 0s", "at least one", "@every 6h"),
        ("H(50-70) * * * *", "out of range", "0 to 59"),
    ] {
        let wrong = Schedule::parse(line, chrono_tz::UTC, &"photos".parse().unwrap()).unwrap_err();
        assert!(wrong.message.contains(message), "{line}: {}", wrong.message);
        assert!(wrong.hint.as_deref().unwrap_or("").contains(hint), "{line}: {:?}", wrong.hint);
    }
}

#[test]
fn surprises_are_told_before_they_come() {
    let from = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
    let told =
        |line: &str, zone| schedule(line, zone).warnings(from).iter().map(ToString::to_string).collect::<Vec<_>>();
    let london = chrono_tz::Europe::London;
    assert_eq!(
        told("30 1 * * *", london),
        [
            "the clock skips Sun 2026-03-29 01:30; the slot comes at 02:00 +01:00 instead",
            "Sun 2026-10-25 01:30 comes twice; the slot comes once, at 01:30 +01:00"
        ]
    );
    assert!(told("30 3 * * *", london).is_empty());
    assert!(told("* */15 * * * *", london)[0].contains("did you mean `*/15 * * * *`"));
    assert!(told("0 3 1 * MON", london)[0].contains("either"));
    assert!(told("0 3 */2 * MON", london)[0].contains("either"));
}

mod words;
