//! A year of a job under a clock that is set, a machine that sleeps, a process that is killed and a person who pauses it.
use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use rusuban::{
    model::{JobName, Missed},
    policy::MissedPolicy,
    schedule::Schedule,
    scheduler::plan::{ON_TIME, Question, What, plan},
};

use super::oracle::{PATTERNS, Year, ZONES};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The loop looks again so much later.
    Look(i64),
    /// The machine or the process was away, and all but the cursor is forgotten.
    Away(i64),
    /// The clock is set by so much.
    Clock(i64),
    /// The job is paused for so long.
    Pause(i64),
    /// The job file is written anew: another jitter.
    Reload(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..10_i64).prop_map(Step::Look),
        6 => (1..7200_i64).prop_map(Step::Look),
        4 => (1..300_000_i64).prop_map(Step::Away),
        2 => (-90_000..90_000_i64).prop_map(Step::Clock),
        2 => (1..200_000_i64).prop_map(Step::Pause),
        1 => prop_oneof![Just(0_u64), Just(600), Just(7200)].prop_map(Step::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_slot_comes_twice_and_none_is_lost(
        zone in 0..ZONES.len(),
        line in 0..PATTERNS.len(),
        policy in 0..3_usize,
        steps in proptest::collection::vec(step(), 300..500),
    ) {
        let (zone, number) = ZONES[zone];
        let pattern = &PATTERNS[line];
        let missed = [MissedPolicy::Latest, MissedPolicy::Skip, MissedPolicy::All(NonZeroU32::new(5).unwrap())][policy];
        let job: JobName = "photos".parse().unwrap();
        let schedule = Schedule::parse(pattern.line, zone, &job).unwrap();
        let year = Year::of(zone, number);
        let slots = year.slots(pattern);
        let window = TimeDelta::days(2);

        let (mut now, mut cursor, mut jitter) = (year.begin(), year.begin(), 0);
        let mut furthest = now;
        let mut ends: BTreeMap<DateTime<Utc>, What> = BTreeMap::new();
        for step in steps {
            let (mut paused_since, mut before) = (None, now);
            match step {
                Step::Look(seconds) | Step::Away(seconds) => now += TimeDelta::seconds(seconds),
                Step::Clock(seconds) => now += TimeDelta::seconds(seconds),
                Step::Pause(seconds) => {
                    paused_since = Some(now);
                    now += TimeDelta::seconds(seconds);
                }
                Step::Reload(other) => {
                    jitter = other;
                    before = now;
                }
            }
            if now >= year.end() {
                break;
            }
            furthest = furthest.max(now);
            let question = Question {
                job: &job, schedule: &schedule, jitter: Duration::from_secs(jitter), missed,
                window: window.to_std().unwrap(), cursor, paused_since,
            };
            let answer = plan(&question, now);
            prop_assert!(answer.cursor >= cursor, "the cursor went back");
            prop_assert!(answer.next.is_none_or(|next| next > now));
            let mut made_up = 0;
            for row in &answer.slots {
                let from = slots.partition_point(|due| *due < row.due);
                let to = slots.partition_point(|due| *due <= row.last);
                prop_assert_eq!((to - from) as u64, row.count, "a row counts what it covers");
                for due in &slots[from..to] {
                    prop_assert!(*due > cursor && *due <= answer.cursor && *due <= now);
                    prop_assert!(ends.insert(*due, row.what).is_none(), "{} came twice", due);
                }
                match row.what {
                    What::OnTime => prop_assert!(row.due + ON_TIME + TimeDelta::seconds(7200) >= now),
                    What::CatchUp => {
                        made_up += 1;
                        prop_assert!(row.due >= now - window);
                    }
                    What::Missed(Missed::Paused) => prop_assert!(paused_since.is_some_and(|since| row.due >= since)),
                    What::Missed(_) => {}
                }
            }
            let most = match missed {
                MissedPolicy::Skip => 0,
                MissedPolicy::Latest => 1,
                MissedPolicy::All(most) => most.get(),
            };
            prop_assert!(made_up <= most, "{} made up for", made_up);
            // A loop that looks every few seconds misses nothing.
            if let Step::Look(seconds) = step && seconds < 10 && jitter == 0 {
                let came: Vec<_> = slots.iter().filter(|due| **due > before.max(cursor) && **due <= now).collect();
                prop_assert!(came.iter().all(|due| ends[*due] == What::OnTime));
            }
            cursor = answer.cursor;
        }
        let settled: Vec<_> = ends.into_keys().collect();
        let expected = &slots[..slots.partition_point(|due| *due <= cursor)];
        prop_assert_eq!(&settled[..], expected, "none is lost before the cursor");
        // Nothing but jitter, and a clock that was set back, keeps the cursor from where the clock has been.
        let kept = slots.iter().filter(|due| **due > cursor && **due + TimeDelta::seconds(7200) <= furthest.min(now)).count();
        prop_assert_eq!(kept, 0);
    }
}
