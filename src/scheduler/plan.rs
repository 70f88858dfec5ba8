//! What is due, what was missed, and when to look again: a pure function of the cursor, the schedule, the policy and the time.
//!
//! The contract (`docs/schedules.md`): every slot gets exactly one end, and none comes twice, whatever the clock and the
//! process do. The caller keeps the cursor, which never goes back, in the ledger.
use std::{collections::VecDeque, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    model::{JobName, Missed},
    policy::MissedPolicy,
    schedule::Schedule,
};

/// A slot found within this time of its start is on time: the loop looks once a second, and a busy machine is not away.
pub const ON_TIME: TimeDelta = TimeDelta::seconds(10);

/// Of a long gap, so many of the newest slots get a row each; all older ones share one for each reason.
pub const ROWS: usize = 100;

/// What the planner is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Whose slots; jitter is drawn from it.
    pub job: &'a JobName,
    /// When it is due.
    pub schedule: &'a Schedule,
    /// Each start is put off by up to this.
    pub jitter: Duration,
    /// What becomes of slots that went by.
    pub missed: MissedPolicy,
    /// Slots older than this are not made up for.
    pub window: Duration,
    /// Everything up to here is settled.
    pub cursor: DateTime<Utc>,
    /// Slots from here on went by because the job was paused, until now.
    pub paused_since: Option<DateTime<Utc>>,
}

/// The planner's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The slots that are to be settled now, oldest first.
    pub slots: Vec<Planned>,
    /// The cursor after that.
    pub cursor: DateTime<Utc>,
    /// When the next slot starts; none when there is none.
    pub next: Option<DateTime<Utc>>,
}

/// A slot, or the many oldest ones of a long gap, and what is to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it was due; of many, the first.
    pub due: DateTime<Utc>,
    /// Of many, the last; else the same.
    pub last: DateTime<Utc>,
    /// How many.
    pub count: u64,
    /// What is to become of it.
    pub what: What,
}

/// What is to become of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is run, unless the overlap policy says otherwise.
    OnTime,
    /// It went by, and is made up for.
    CatchUp,
    /// It went by.
    Missed(Missed),
}

/// So many questions are worth a thread of their own.
const OF_A_THREAD: usize = 64;

/// Answers many questions, in their order, on all cores when they are worth it.
#[must_use]
pub fn all(questions: &[Question<'_>], now: DateTime<Utc>) -> Vec<Plan> {
    let answer = |questions: &[Question<'_>]| questions.iter().map(|question| plan(question, now)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (questions.len() / OF_A_THREAD).clamp(1, cores);
    if threads == 1 {
        return answer(questions);
    }
    std::thread::scope(|scope| {
        let parts = questions.chunks(questions.len().div_ceil(threads));
        let asked: Vec<_> = parts.map(|part| (part, scope.spawn(move || -> Vec<Plan> { answer(part) }))).collect();
        // A thread that dies has met what its caller will meet again.
        asked.into_iter().flat_map(|(part, answered)| answered.join().unwrap_or_else(|_| answer(part))).collect()
    })
}

/// Settles all slots that have come by `now`.
#[must_use]
pub fn plan(question: &Question<'_>, now: DateTime<Utc>) -> Plan {
    let mut recent: VecDeque<DateTime<Utc>> = VecDeque::with_capacity(2);
    let mut older: Vec<Planned> = Vec::new();
    let rows = match question.missed {
        MissedPolicy::All(most) => ROWS.max(usize::try_from(most.get()).unwrap_or(ROWS)),
        _ => ROWS,
    };
    // The first slot that is still to come: when it starts, and when it is due.
    let mut next = None;
    let mut slots = question.schedule.slots_after(question.cursor).peekable();
    while let Some(due) = slots.next() {
        let start = start(question, due, || slots.peek().copied());
        if start > now {
            next = Some((start, due));
            break;
        }
        recent.push_back(due);
        if recent.len() > rows
            && let Some(due) = recent.pop_front()
        {
            let what = What::Missed(reason(question, due, now));
            match older.last_mut() {
                Some(row) if row.what == what => (row.last, row.count) = (due, row.count + 1),
                _ => older.push(Planned { due, last: due, count: 1, what }),
            }
        }
    }
    let cursor = recent.back().copied().unwrap_or(question.cursor);
    // The newest ones that nobody was away for; each starts before the one behind it is due.
    let mut following = next.map(|(_, due)| due);
    let in_time = |due: &&DateTime<Utc>| {
        let following = following.replace(**due);
        let late = now - start(question, **due, || following);
        late <= ON_TIME && question.paused_since.is_none_or(|since| **due < since)
    };
    let late = recent.iter().rev().take_while(in_time).count();
    let gone_by = recent.len() - late;
    // How many of the newest that went by are made up for. One that comes on time stands for those before it.
    let made_up = match question.missed {
        MissedPolicy::Skip => 0,
        MissedPolicy::Latest => usize::from(late == 0),
        MissedPolicy::All(most) => usize::try_from(most.get()).unwrap_or(usize::MAX),
    };
    let oldest = oldest_made_up(question, now);
    let slots = recent.iter().enumerate().map(|(index, due)| {
        let what = if index >= gone_by {
            What::OnTime
        } else if gone_by - index <= made_up && *due >= oldest {
            What::CatchUp
        } else {
            What::Missed(reason(question, *due, now))
        };
        Planned { due: *due, last: *due, count: 1, what }
    });
    Plan { slots: older.into_iter().chain(slots).collect(), cursor, next: next.map(|(start, _)| start) }
}

fn oldest_made_up(question: &Question<'_>, now: DateTime<Utc>) -> DateTime<Utc> {
    TimeDelta::from_std(question.window)
        .ok()
        .and_then(|window| now.checked_sub_signed(window))
        .unwrap_or(DateTime::<Utc>::MIN_UTC)
}

fn reason(question: &Question<'_>, due: DateTime<Utc>, now: DateTime<Utc>) -> Missed {
    if question.paused_since.is_some_and(|since| due >= since) {
        Missed::Paused
    } else if question.missed != MissedPolicy::Skip && due < oldest_made_up(question, now) {
        Missed::TooOld
    } else {
        Missed::Away
    }
}

/// When a slot starts: put off by its jitter, but never beyond the slot after it, so that slots keep their order.
fn start(
    question: &Question<'_>,
    due: DateTime<Utc>,
    following: impl FnOnce() -> Option<DateTime<Utc>>,
) -> DateTime<Utc> {
    let jitter = u64::try_from(question.jitter.as_millis()).unwrap_or(u64::MAX);
    if jitter == 0 {
        return due;
    }
    let seed = u64::from_ne_bytes(due.timestamp().to_ne_bytes());
    let drawn = question
        .job
        .as_str()
        .bytes()
        .chain(seed.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let drawn = (drawn ^ (drawn >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
    let put_off = TimeDelta::milliseconds(i64::try_from(drawn % (jitter + 1)).unwrap_or(0));
    following().map_or(due + put_off, |following| (due + put_off).min(following))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, num::NonZeroU32};

    use chrono::TimeZone as _;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn ends(
        line: &str,
        missed: MissedPolicy,
        cursor: &str,
        now: &str,
        paused_since: Option<&str>,
    ) -> Vec<(String, What)> {
        let job = "photos".parse().unwrap();
        let schedule = Schedule::parse(line, chrono_tz::UTC, &job).unwrap();
        let question = Question {
            job: &job,
            schedule: &schedule,
            jitter: Duration::ZERO,
            missed,
            window: Duration::from_secs(86_400),
            cursor: at(cursor),
            paused_since: paused_since.map(at),
        };
        plan(&question, at(now)).slots.iter().map(|slot| (slot.due.format("%dT%H:%M").to_string(), slot.what)).collect()
    }

    use super::What::{CatchUp, Missed as Went, OnTime};
    use MissedPolicy::{Latest, Skip};

    #[test]
    fn a_slot_that_comes_on_time_runs() {
        assert_eq!(
            ends("0 3 * * *", Latest, "2026-11-20T03:00:00Z", "2026-11-21T03:00:01Z", None),
            [("21T03:00".into(), OnTime)]
        );
    }

    #[test]
    fn after_downtime_the_policy_decides() {
        let all = |most| MissedPolicy::All(NonZeroU32::new(most).unwrap());
        let when = ("2026-11-20T20:30:00Z", "2026-11-20T23:30:00Z");
        let hourly =
            |missed| ends("0 * * * *", missed, when.0, when.1, None).into_iter().map(|slot| slot.1).collect::<Vec<_>>();
        assert_eq!(hourly(Latest), [Went(Missed::Away), Went(Missed::Away), CatchUp]);
        assert_eq!(hourly(Skip), [Went(Missed::Away); 3]);
        assert_eq!(hourly(all(2)), [Went(Missed::Away), CatchUp, CatchUp]);
    }

    #[test]
    fn slots_beyond_the_window_are_not_made_up_for() {
        assert_eq!(
            ends("0 3 * * *", Latest, "2026-11-18T12:00:00Z", "2026-11-20T04:00:00Z", None),
            [("19T03:00".into(), Went(Missed::TooOld)), ("20T03:00".into(), CatchUp)]
        );
        assert_eq!(
            ends("0 3 1 * *", Latest, "2026-10-18T12:00:00Z", "2026-11-20T04:00:00Z", None),
            [("01T03:00".into(), Went(Missed::TooOld))]
        );
    }

    #[test]
    fn several_that_are_found_a_little_late_are_on_time_all_of_them() {
        let found = ends("@every 1s", Latest, "2026-11-20T20:30:00Z", "2026-11-20T20:30:03Z", None);
        assert_eq!(found.iter().map(|slot| slot.1).collect::<Vec<_>>(), [OnTime; 3]);
        let found = ends("@every 4s", Skip, "2026-11-20T20:30:00Z", "2026-11-20T20:30:20Z", None);
        let expected = [Went(Missed::Away), Went(Missed::Away), OnTime, OnTime, OnTime];
        assert_eq!(found.iter().map(|slot| slot.1).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn slots_that_share_a_row_share_their_reason() {
        let job = "photos".parse().unwrap();
        let schedule = Schedule::parse("* * * * *", chrono_tz::UTC, &job).unwrap();
        let question = Question {
            job: &job,
            schedule: &schedule,
            jitter: Duration::ZERO,
            missed: Latest,
            window: Duration::from_secs(6 * 3600),
            cursor: at("2026-11-20T00:00:00Z"),
            paused_since: Some(at("2026-11-20T21:00:30Z")),
        };
        let plan = plan(&question, at("2026-11-21T00:00:30Z"));
        let shared: Vec<_> =
            plan.slots.iter().filter(|slot| slot.count > 1).map(|slot| (slot.count, slot.what)).collect();
        let expected = [
            (18 * 60, Went(Missed::TooOld)),
            (3 * 60, Went(Missed::Away)),
            (3 * 60 - ROWS as u64, Went(Missed::Paused)),
        ];
        assert_eq!(shared, expected);
    }

    #[test]
    fn one_that_comes_on_time_stands_for_those_before_it() {
        assert_eq!(
            ends("0 * * * *", Latest, "2026-11-20T20:30:00Z", "2026-11-20T22:00:05Z", None),
            [("20T21:00".into(), Went(Missed::Away)), ("20T22:00".into(), OnTime)]
        );
    }

    #[test]
    fn after_a_pause_the_policy_decides_and_the_reason_is_told() {
        let paused = Some("2026-11-20T20:45:00Z");
        assert_eq!(
            ends("0 * * * *", Latest, "2026-11-20T20:30:00Z", "2026-11-20T22:00:05Z", paused),
            [("20T21:00".into(), Went(Missed::Paused)), ("20T22:00".into(), CatchUp)]
        );
    }

    #[test]
    fn a_year_of_missed_seconds_is_a_hundred_and_two_rows_that_count_every_one() {
        let job = "photos".parse().unwrap();
        let schedule = Schedule::parse("@every 10s", chrono_tz::UTC, &job).unwrap();
        let question = Question {
            job: &job,
            schedule: &schedule,
            jitter: Duration::ZERO,
            missed: Latest,
            window: Duration::from_secs(3600),
            cursor: at("2025-11-20T00:00:00Z"),
            paused_since: None,
        };
        let plan = plan(&question, at("2026-11-20T00:00:05Z"));
        // One for those beyond the window, one for those within it, and the newest hundred.
        assert_eq!(plan.slots.len(), ROWS + 2);
        assert_eq!(plan.slots.iter().map(|slot| slot.count).sum::<u64>(), 365 * 8640);
        assert_eq!(plan.slots.last().unwrap().what, OnTime);
    }

    /// Ten zones, among them half-hour and three-quarter-hour offsets and a half-hour change of the clock.
    const ZONES: [chrono_tz::Tz; 10] = [
        chrono_tz::Asia::Tokyo,
        chrono_tz::Europe::London,
        chrono_tz::Europe::Paris,
        chrono_tz::America::New_York,
        chrono_tz::Australia::Lord_Howe,
        chrono_tz::Pacific::Chatham,
        chrono_tz::Africa::Casablanca,
        chrono_tz::America::Sao_Paulo,
        chrono_tz::Asia::Kolkata,
        chrono_tz::UTC,
    ];

    const LINES: [&str; 8] = [
        "15 3 * * *",
        "30 1,13 * * *",
        "0 2 * * SUN",
        "30 2 L * *",
        "*/20 1-3 * * *",
        "0 * * * *",
        "H H * * *",
        "@every 7h",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        /// A year of a schedule under a clock that sleeps, jumps forward and back, and a process that restarts: each slot that
        /// the schedule has is settled once, and none that it has not.
        #[test]
        fn in_a_year_no_slot_comes_twice_and_none_is_lost(
            zone in 0..ZONES.len(),
            line in 0..LINES.len(),
            policy in 0..3_usize,
            jitter in prop_oneof![Just(0_u64), Just(600), Just(7200)],
            steps in proptest::collection::vec((0..100_u8, 1..90_000_i64), 300..500),
        ) {
            let job: JobName = "photos".parse().unwrap();
            let schedule = Schedule::parse(LINES[line], ZONES[zone], &job).unwrap();
            let missed = [Latest, Skip, MissedPolicy::All(NonZeroU32::new(5).unwrap())][policy];
            let begin = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
            let (mut now, mut cursor, mut paused_since) = (begin, begin, None);
            let mut looked = begin;
            let mut settled: BTreeMap<DateTime<Utc>, What> = BTreeMap::new();
            for (chance, seconds) in steps {
                now += match chance {
                    0..4 => TimeDelta::seconds(-seconds),
                    4..8 => TimeDelta::seconds(seconds * 4),
                    _ => TimeDelta::seconds(seconds),
                };
                if chance > 95 && paused_since.is_none() {
                    paused_since = Some(now);
                    continue;
                }
                let question = Question {
                    job: &job, schedule: &schedule, jitter: Duration::from_secs(jitter), missed,
                    window: Duration::from_secs(2 * 86_400), cursor, paused_since,
                };
                looked = now;
                let plan = plan(&question, now);
                prop_assert!(plan.cursor >= cursor);
                prop_assert!(plan.next.is_none_or(|next| next > now));
                cursor = plan.cursor;
                paused_since = None;
                for slot in plan.slots {
                    let many: Vec<_> = schedule.slots_after(slot.due - TimeDelta::seconds(1)).take_while(|due| *due <= slot.last).collect();
                    prop_assert_eq!(many.len() as u64, slot.count);
                    for due in many {
                        prop_assert!(settled.insert(due, slot.what).is_none(), "{} came twice", due);
                    }
                }
            }
            let expected: Vec<_> = schedule.slots_after(begin).take_while(|due| *due <= cursor).collect();
            prop_assert_eq!(settled.keys().copied().collect::<Vec<_>>(), expected);
            // Nothing but the last slots' jitter keeps the cursor from the last look.
            let lost = schedule.slots_after(cursor).take_while(|due| *due + TimeDelta::seconds(7200) <= looked).count();
            prop_assert_eq!(lost, 0);
        }
    }
}
