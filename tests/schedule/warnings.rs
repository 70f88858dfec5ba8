//! Warnings of clock changes, against a look at every quarter of an hour of the year.
use chrono::{DateTime, LocalResult, NaiveDateTime, NaiveTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use rusuban::schedule::{Schedule, Warning};

/// Local times of the year after `from` that do not exist or come twice, each minute asked for.
fn odd_minutes(zone: Tz, from: DateTime<Utc>) -> Vec<(NaiveDateTime, bool)> {
    let first = from.with_timezone(&zone).date_naive().and_time(NaiveTime::MIN);
    let quarters = (0..366 * 96).map(|quarter| first + TimeDelta::minutes(15 * quarter));
    let odd = quarters.filter(|local| !matches!(zone.from_local_datetime(local), LocalResult::Single(_)));
    odd.flat_map(|quarter| (0..15).map(move |minute| quarter + TimeDelta::minutes(minute)))
        .map(|local| (local, matches!(zone.from_local_datetime(&local), LocalResult::None)))
        .collect()
}

/// Zones and years with changes of every sort; in the last ones there are none, or a change of no hour.
const ZONES: [(Tz, &str); 13] = [
    (chrono_tz::Europe::London, "2026-01-01T00:00:00Z"),
    (chrono_tz::Europe::Paris, "2026-10-25T01:30:00Z"),
    (chrono_tz::America::New_York, "2026-03-08T06:59:00Z"),
    (chrono_tz::Australia::Lord_Howe, "2026-02-01T00:00:00Z"),
    (chrono_tz::Pacific::Chatham, "2026-01-01T00:00:00Z"),
    (chrono_tz::Africa::Casablanca, "2026-01-01T00:00:00Z"),
    (chrono_tz::Pacific::Apia, "2011-12-01T00:00:00Z"),
    (chrono_tz::America::Sao_Paulo, "2018-01-01T00:00:00Z"),
    (chrono_tz::America::Havana, "2026-01-01T00:00:00Z"),
    (chrono_tz::Africa::Cairo, "2010-01-01T00:00:00Z"),
    (chrono_tz::Asia::Pyongyang, "2018-01-01T00:00:00Z"),
    (chrono_tz::Asia::Kolkata, "2026-01-01T00:00:00Z"),
    (chrono_tz::UTC, "2026-01-01T00:00:00Z"),
];

fn told(line: &str, zone: Tz, from: DateTime<Utc>) -> Vec<(NaiveDateTime, bool)> {
    let schedule = Schedule::parse(line, zone, &"photos".parse().unwrap()).unwrap();
    let of_the_clock = schedule.warnings(from).into_iter().filter_map(|warning| match warning {
        Warning::Moved { local, .. } => Some((local, true)),
        Warning::Twice { local, .. } => Some((local, false)),
        _ => None,
    });
    of_the_clock.collect()
}

#[test]
fn every_minute_that_the_clock_skips_or_repeats_is_told() {
    for (zone, from) in ZONES {
        let from = from.parse().unwrap();
        let expected = odd_minutes(zone, from);
        assert_eq!(told("0-59 0-23 * * *", zone, from), expected, "{zone}");
        let changes = ![chrono_tz::Asia::Kolkata, chrono_tz::UTC].contains(&zone);
        assert_eq!(!expected.is_empty(), changes, "{zone}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_of_a_line_is_what_a_look_at_the_whole_year_finds(
        zone in 0..ZONES.len(),
        later in 0..400_i64,
        seconds in 0..86_400_i64,
        minutes in proptest::collection::btree_set(0..60_u32, 1..5),
        hours in proptest::collection::btree_set(0..24_u32, 1..8),
        days in prop_oneof![Just("* * *"), Just("* * SUN"), Just("L * *"), Just("1-15 * *"), Just("* 3,10 *")],
    ) {
        let (zone, from) = ZONES[zone];
        let from = from.parse::<DateTime<Utc>>().unwrap() + TimeDelta::days(later) + TimeDelta::seconds(seconds);
        let list = |values: &std::collections::BTreeSet<u32>| {
            values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let line = format!("{} {} {days}", list(&minutes), list(&hours));
        // On days that the line has, by a line without times that the clock can move: noon is never skipped.
        let noons = Schedule::parse(&format!("0 12 {days}"), chrono_tz::UTC, &"photos".parse().unwrap()).unwrap();
        let has = |local: &NaiveDateTime| {
            let noon = local.date().and_hms_opt(12, 0, 0).unwrap().and_utc();
            noons.next_after(noon - TimeDelta::seconds(1)) == Some(noon)
        };
        use chrono::Timelike as _;
        let expected: Vec<_> = odd_minutes(zone, from)
            .into_iter()
            .filter(|(local, _)| minutes.contains(&local.minute()) && hours.contains(&local.hour()) && has(local))
            .collect();
        prop_assert_eq!(told(&line, zone, from), expected, "{} in {} from {}", line, zone, from);
    }
}
