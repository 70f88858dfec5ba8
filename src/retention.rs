//! Which generations stay. Pure; refuses to empty a repository and never removes the newest good backup.
use std::collections::HashSet;

use chrono::{DateTime, Datelike as _, Offset as _, TimeDelta, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many generations of each age stay: the newest of each of the last so many hours, days, weeks … that have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// The newest ones, whatever their age.
    pub last: u32,
    /// Of the last hours that have one.
    pub hourly: u32,
    /// Of the last days.
    pub daily: u32,
    /// Of the last weeks; a week begins on Monday.
    pub weekly: u32,
    /// Of the last months.
    pub monthly: u32,
    /// Of the last years.
    pub yearly: u32,
}

/// Slots that are written again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// Seven slots for the weekdays, and on the first day of a month the month's slot: seven days and twelve months.
    WeekdayMonth,
}

/// What stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All of them.
    Everything,
    /// By age.
    Keep(Keep),
    /// By slot.
    Rotate(Rotation),
}

/// A backup that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its name.
    pub id: String,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// The bytes of its sources.
    pub bytes: u64,
    /// Whether it ended well and is whole.
    pub good: bool,
}

/// What is to become of the generations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// These stay, the newest first, with the reasons.
    pub keep: Vec<(String, Vec<&'static str>)>,
    /// These may go, the oldest first.
    pub remove: Vec<String>,
    /// Why nothing is removed although the rule would; for a person.
    pub refused: Option<String>,
}

/// How a suspicion ends that is about the size.
pub const MISSING: &str = "look whether something is missing";
/// A newest backup smaller than this share of the median of those before it is suspicious.
const SUSPICIOUS_SHARE: u64 = 2;
/// So many before it are looked at.
const LOOKED_AT: usize = 10;
/// A backup that is further in the future was made under another clock.
const FUTURE: TimeDelta = TimeDelta::hours(1);
/// When the newest is older than this, or comes so long after the one before it, the clock has jumped or nothing has worked for
/// long: then nothing is removed.
const STALE: TimeDelta = TimeDelta::days(400);

/// Decides what stays. Days, weeks and months are those of `zone`.
#[must_use]
pub fn decide(generations: &[Generation], rule: Rule, zone: Tz, now: DateTime<Utc>) -> Decision {
    let mut newest_first: Vec<&Generation> = generations.iter().collect();
    newest_first.sort_by(|one, other| other.at.cmp(&one.at).then_with(|| other.id.cmp(&one.id)));

    let mut decision = Decision::default();
    let mut kept: Vec<Vec<&'static str>> = vec![Vec::new(); newest_first.len()];
    match rule {
        Rule::Everything => kept.iter_mut().for_each(|reasons| reasons.push("all are kept")),
        Rule::Keep(keep) if keep == Keep::default() => kept.iter_mut().for_each(|reasons| reasons.push("all are kept")),
        Rule::Keep(keep) => apply_keep(&newest_first, keep, zone, &mut kept),
        Rule::Rotate(Rotation::WeekdayMonth) => apply_rotation(&newest_first, zone, &mut kept),
    }
    if let Some(first_good) = newest_first.iter().position(|generation| generation.good)
        && kept[first_good].is_empty()
    {
        kept[first_good].push("the newest good one");
    }
    // Without a good one the newest stays: a repository is never emptied.
    if kept.iter().all(Vec::is_empty)
        && let Some(newest) = kept.first_mut()
    {
        newest.push("the only one left");
    }
    for (generation, reasons) in newest_first.iter().zip(kept) {
        if reasons.is_empty() {
            decision.remove.push(generation.id.clone());
        } else {
            decision.keep.push((generation.id.clone(), reasons));
        }
    }
    decision.remove.reverse();
    if !decision.remove.is_empty()
        && let Some(why) = suspicion(&newest_first, now)
    {
        decision.refused = Some(why);
        for id in decision.remove.drain(..) {
            decision.keep.push((id, vec!["nothing is removed now"]));
        }
    }
    decision
}

/// Why the newest backup, or the clock, cannot be trusted.
#[must_use]
pub fn suspicion(newest_first: &[&Generation], now: DateTime<Utc>) -> Option<String> {
    let (newest, older) = newest_first.split_first()?;
    if newest.at > now + FUTURE {
        return Some(format!("the newest backup, {}, is from the future: the clock has been set", newest.id));
    }
    if now - newest.at > STALE {
        return Some(format!(
            "the newest backup, {}, is more than {} days old: look at the clock and the job",
            newest.id,
            STALE.num_days()
        ));
    }
    if let Some(before) = older.first()
        && newest.at - before.at > STALE
    {
        return Some(format!(
            "the newest backup, {}, comes more than {} days after the one before it, {}: look at the clock",
            newest.id,
            STALE.num_days(),
            before.id
        ));
    }
    if !newest.good {
        return Some(format!("the newest backup, {}, is not whole", newest.id));
    }
    let mut sizes: Vec<u64> =
        older.iter().filter(|generation| generation.good).map(|generation| generation.bytes).take(LOOKED_AT).collect();
    sizes.sort_unstable();
    let median = *sizes.get(sizes.len() / 2)?;
    (newest.bytes < median / SUSPICIOUS_SHARE).then(|| {
        format!(
            "the newest backup, {}, has {}, and those before it had {}: {MISSING}",
            newest.id,
            crate::text::size(newest.bytes),
            crate::text::size(median)
        )
    })
}

fn apply_keep(newest_first: &[&Generation], keep: Keep, zone: Tz, kept: &mut [Vec<&'static str>]) {
    /// Equal for moments of one period.
    type Period = fn(usize, DateTime<Tz>) -> (i32, u32, u32);
    let rules: [(u32, &'static str, Period); 6] = [
        (keep.last, "last", |index, _| (i32::try_from(index).unwrap_or(i32::MAX), 0, 0)),
        // Hours of the zone's clock; one that comes twice is two.
        (keep.hourly, "hourly", |_, at| {
            let ahead = at.offset().fix().local_minus_utc();
            let hours = (at.timestamp() + i64::from(ahead)).div_euclid(3600);
            (i32::try_from(hours).unwrap_or(i32::MAX), ahead.unsigned_abs(), 0)
        }),
        (keep.daily, "daily", |_, at| (at.year(), at.ordinal(), 0)),
        (keep.weekly, "weekly", |_, at| (at.iso_week().year(), at.iso_week().week(), 0)),
        (keep.monthly, "monthly", |_, at| (at.year(), at.month(), 0)),
        (keep.yearly, "yearly", |_, at| (at.year(), 0, 0)),
    ];
    for (count, reason, period) in rules {
        let mut seen = HashSet::new();
        for (index, generation) in newest_first.iter().enumerate().filter(|(_, generation)| generation.good) {
            if seen.len() >= count as usize {
                break;
            }
            if seen.insert(period(index, generation.at.with_timezone(&zone))) {
                kept[index].push(reason);
            }
        }
    }
}

fn apply_rotation(newest_first: &[&Generation], zone: Tz, kept: &mut [Vec<&'static str>]) {
    let mut seen = HashSet::new();
    for (index, generation) in newest_first.iter().enumerate().filter(|(_, generation)| generation.good) {
        let name = slot_name(generation.at, zone);
        if seen.insert(name) {
            kept[index].push(name);
        }
    }
}

/// The rotation's slot of a moment: `Jan` … `Dec` on the first day of a month, else `Mon` … `Sun`.
#[must_use]
pub fn slot_name(at: DateTime<Utc>, zone: Tz) -> &'static str {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let local = at.with_timezone(&zone);
    if local.day() == 1 {
        MONTHS[local.month0() as usize % 12]
    } else {
        DAYS[local.weekday().num_days_from_monday() as usize % 7]
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use proptest::prelude::*;

    use super::*;

    fn generation(day: i64, bytes: u64) -> Generation {
        let at = Utc.with_ymd_and_hms(2026, 1, 1, 3, 15, 0).unwrap() + TimeDelta::days(day);
        Generation { id: at.format("%m-%d").to_string(), at, bytes, good: true }
    }

    fn days(count: i64) -> (Vec<Generation>, DateTime<Utc>) {
        let all: Vec<_> = (0..count).map(|day| generation(day, 1000)).collect();
        let now = all.last().unwrap().at + TimeDelta::hours(1);
        (all, now)
    }

    #[test]
    fn the_newest_of_each_period_stays() {
        let (all, now) = days(100);
        let keep = Keep { daily: 3, weekly: 2, monthly: 3, ..Keep::default() };
        let decision = decide(&all, Rule::Keep(keep), Tz::UTC, now);
        let kept: Vec<String> = decision.keep.iter().map(|(id, why)| format!("{id} {}", why.join("+"))).collect();
        // 10 April 2026 is a Friday.
        assert_eq!(
            kept,
            [
                "04-10 daily+weekly+monthly",
                "04-09 daily",
                "04-08 daily",
                "04-05 weekly",
                "03-31 monthly",
                "02-28 monthly"
            ]
        );
        assert_eq!(decision.remove.len(), 94);
    }

    #[test]
    fn the_rotation_has_seven_days_and_twelve_months() {
        let (all, now) = days(500);
        let decision = decide(&all, Rule::Rotate(Rotation::WeekdayMonth), Tz::UTC, now);
        assert_eq!(decision.keep.len(), 19);
        assert_eq!(slot_name(generation(31, 0).at, Tz::UTC), "Feb");
    }

    #[test]
    fn hours_are_those_of_the_clock_on_the_wall_and_one_that_comes_twice_is_two() {
        let every_quarter = |begin: &str, count: i32| -> Vec<Generation> {
            let begin: DateTime<Utc> = begin.parse().unwrap();
            let at = |number| begin + TimeDelta::minutes(15) * number;
            (0..count)
                .map(|number| Generation { id: at(number).to_rfc3339(), at: at(number), bytes: 1, good: true })
                .collect()
        };
        let kept = |all: &[Generation], zone: Tz| -> Vec<String> {
            let rule = Rule::Keep(Keep { hourly: 3, ..Keep::default() });
            let decision = decide(all, rule, zone, all.last().unwrap().at);
            let local = |id: &String| DateTime::parse_from_rfc3339(id).unwrap().with_timezone(&zone).format("%H:%M %Z");
            decision.keep.iter().map(|(id, _)| local(id).to_string()).collect()
        };
        // 12:00 to 15:45 in Kolkata, which is half an hour off.
        let kolkata = every_quarter("2026-03-01T06:30:00Z", 16);
        assert_eq!(kept(&kolkata, Tz::Asia__Kolkata), ["15:45 IST", "14:45 IST", "13:45 IST"]);
        let berlin = every_quarter("2026-10-24T23:00:00Z", 12);
        assert_eq!(kept(&berlin, Tz::Europe__Berlin), ["02:45 CET", "02:45 CEST", "01:45 CEST"]);
    }

    #[test]
    fn nothing_is_removed_when_the_newest_is_suspiciously_small() {
        let (mut all, now) = days(10);
        all.last_mut().unwrap().bytes = 400;
        let decision = decide(&all, Rule::Keep(Keep { last: 1, ..Keep::default() }), Tz::UTC, now);
        assert!(decision.remove.is_empty());
        assert!(decision.refused.unwrap().contains("has 400 B, and those before it had 1000 B"));
    }

    #[test]
    fn nothing_is_removed_when_the_clock_has_jumped() {
        let (all, now) = days(10);
        let rule = Rule::Keep(Keep { daily: 2, ..Keep::default() });
        for jumped in [now - TimeDelta::days(3), now + TimeDelta::days(800)] {
            let decision = decide(&all, rule, Tz::UTC, jumped);
            assert!(decision.remove.is_empty() && decision.refused.is_some(), "{decision:?}");
        }
        assert_eq!(decide(&all, rule, Tz::UTC, now).remove.len(), 8);
    }

    #[test]
    fn a_failed_newest_does_not_push_a_good_one_out() {
        let (mut all, now) = days(3);
        all[2].good = false;
        let decision = decide(&all, Rule::Keep(Keep { last: 1, ..Keep::default() }), Tz::UTC, now);
        assert!(decision.keep.iter().any(|(id, _)| *id == all[1].id));
        assert!(decision.remove.is_empty(), "the newest is not whole");
    }

    proptest! {
        #[test]
        fn every_generation_is_kept_or_removed_and_the_newest_good_one_stays(
            made in proptest::collection::vec((0..2_000_000_i64, 0..5000_u64, prop::bool::weighted(0.9)), 0..60),
            counts in proptest::collection::vec(0..4_u32, 6),
            zone in prop::sample::select(vec![Tz::UTC, Tz::Europe__London, Tz::Asia__Tokyo, Tz::America__St_Johns]),
            rotate: bool,
            now in 0..3_000_000_i64,
        ) {
            let begin = Utc.with_ymd_and_hms(2025, 1, 1, 0, 0, 0).unwrap();
            let all: Vec<_> = made.iter().enumerate().map(|(index, (minute, bytes, good))| Generation {
                id: index.to_string(), at: begin + TimeDelta::minutes(*minute), bytes: *bytes, good: *good,
            }).collect();
            let keep = Keep { last: counts[0], hourly: counts[1], daily: counts[2], weekly: counts[3], monthly: counts[4], yearly: counts[5] };
            let rule = if rotate { Rule::Rotate(Rotation::WeekdayMonth) } else { Rule::Keep(keep) };
            let now = begin + TimeDelta::minutes(now);
            let decision = decide(&all, rule, zone, now);
            let mut seen: Vec<&String> = decision.keep.iter().map(|(id, _)| id).chain(&decision.remove).collect();
            seen.sort();
            let mut expected: Vec<&String> = all.iter().map(|generation| &generation.id).collect();
            expected.sort();
            prop_assert_eq!(seen, expected);
            prop_assert!(all.is_empty() || !decision.keep.is_empty());
            if let Some(newest) = all.iter().filter(|generation| generation.good).max_by_key(|generation| (generation.at, generation.id.clone())) {
                prop_assert!(decision.keep.iter().any(|(id, _)| *id == newest.id));
            }
            // Once more on what is left: nothing further goes.
            let left: Vec<_> = all.iter().filter(|generation| !decision.remove.contains(&generation.id)).cloned().collect();
            prop_assert!(decide(&left, rule, zone, now).remove.is_empty());
        }
    }
}
