//! What was used when, how fast that grows, and when it will be full. Pure.
use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::kinds::mounts::Room;

/// The pace is that of so much of the past, as far as it is known.
const PACE_OVER: TimeDelta = TimeDelta::days(7);
/// From less than this no pace is told.
const LEAST: TimeDelta = TimeDelta::hours(12);
/// Older samples, and filesystems not seen for so long, are forgotten.
const REMEMBERED: TimeDelta = TimeDelta::days(8);
/// Samples closer to each other than this are one.
const APART: TimeDelta = TimeDelta::minutes(50);
/// A day further off than this says nothing.
const HORIZON_SECONDS: f64 = 10.0 * 365.25 * 86_400.0;

/// What earlier runs saw, by mount point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct History(BTreeMap<String, Past>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    /// Which filesystem was there.
    id: u64,
    /// The oldest first.
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    at: DateTime<Utc>,
    used: u64,
}

/// What the past tells of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Growth {
    /// Bytes added (or freed) since about a day ago, counted for 24 hours.
    pub(super) in_a_day: i64,
    /// When it will be full.
    pub(super) full: Full,
}

/// When it will be full at this pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// It does not grow.
    Never,
    /// In ten years or more.
    NotForYears,
    /// Then.
    At(DateTime<Utc>),
}

impl History {
    /// What is known of the filesystem at `point`, which has this room now.
    pub(super) fn growth(&self, point: &str, room: &Room, now: DateTime<Utc>) -> Option<Growth> {
        let past = self.0.get(point).filter(|past| past.id == room.id)?;
        let age = |sample: &Sample| now - sample.at;
        let old_enough = || past.samples.iter().filter(|sample| age(sample) >= LEAST);
        let yesterday = old_enough().min_by_key(|sample| (age(sample) - TimeDelta::days(1)).abs())?;
        let oldest = old_enough().find(|sample| age(sample) <= PACE_OVER + LEAST).unwrap_or(yesterday);
        Some(Growth {
            in_a_day: (a_second(room.used, yesterday, now) * 86_400.0).round() as i64,
            full: full(room.free, a_second(room.used, oldest, now), now),
        })
    }

    /// Adds what is seen now.
    pub(super) fn add(&mut self, point: &str, room: &Room, now: DateTime<Utc>) {
        let past = self.0.entry(point.to_owned()).or_insert(Past { id: room.id, samples: Vec::new() });
        if past.id != room.id {
            *past = Past { id: room.id, samples: Vec::new() };
        }
        if past.samples.last().is_none_or(|last| now - last.at >= APART) {
            past.samples.push(Sample { at: now, used: room.used });
        }
    }

    /// Without what is too old to matter, or from the future, as it is after the clock was set back.
    pub(super) fn tidied(mut self, now: DateTime<Utc>) -> Self {
        for past in self.0.values_mut() {
            past.samples.retain(|sample| (TimeDelta::zero()..=REMEMBERED).contains(&(now - sample.at)));
        }
        self.0.retain(|_, past| !past.samples.is_empty());
        self
    }
}

/// Bytes a second since then.
fn a_second(used: u64, then: &Sample, now: DateTime<Utc>) -> f64 {
    (used as f64 - then.used as f64) / (now - then.at).num_seconds().max(1) as f64
}

fn full(free: u64, a_second: f64, now: DateTime<Utc>) -> Full {
    if a_second <= 0.0 {
        return Full::Never;
    }
    let seconds = free as f64 / a_second;
    if seconds >= HORIZON_SECONDS {
        return Full::NotForYears;
    }
    Full::At(now + TimeDelta::seconds(seconds as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn room(used: u64) -> Room {
        Room { id: 1, size: 100 * GIB, used, free: (95 * GIB).saturating_sub(used), inodes: None, read_only: false }
    }

    fn day(number: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::days(number)
    }

    /// One sample a day, from day 0 on.
    fn history(used: &[u64]) -> History {
        let mut history = History::default();
        for (number, used) in (0..).zip(used) {
            history.add("/", &room(used * GIB), day(number));
        }
        history
    }

    #[test]
    fn the_day_when_it_is_full_follows_from_the_last_week() {
        let history = history(&[10, 11, 12, 13, 14, 15, 16]);
        // A day of six, a week of twelve in seven days.
        let growth = history.growth("/", &room(22 * GIB), day(7)).unwrap();
        assert_eq!(growth.in_a_day, 6 << 30);
        let Full::At(full) = growth.full else { panic!("{growth:?}") };
        // 73 GiB are free.
        assert_eq!((full - day(7)).num_hours(), 73 * 7 * 24 / 12);
    }

    #[test]
    fn growth_is_counted_for_a_day_whenever_the_last_look_was() {
        let history = history(&[10]);
        assert_eq!(history.growth("/", &room(14 * GIB), day(2)).unwrap().in_a_day, 2 << 30);
        assert_eq!(history.growth("/", &room(11 * GIB), day(0) + TimeDelta::hours(12)).unwrap().in_a_day, 2 << 30);
        assert_eq!(history.growth("/", &room(11 * GIB), day(0) + TimeDelta::hours(11)), None);
    }

    #[test]
    fn what_shrinks_or_hardly_grows_is_not_full_soon() {
        let history = history(&[10]);
        let growth = |used| history.growth("/", &room(used), day(1)).unwrap();
        assert_eq!(growth(9 * GIB), Growth { in_a_day: -(1 << 30), full: Full::Never });
        assert_eq!(growth(10 * GIB).full, Full::Never);
        assert_eq!(growth(10 * GIB + 1).full, Full::NotForYears);
        assert_eq!(growth(95 * GIB).full, Full::At(day(1)), "it is");
    }

    #[test]
    fn another_filesystem_at_the_same_place_has_no_past() {
        let mut history = history(&[10]);
        let other = Room { id: 2, ..room(50 * GIB) };
        assert_eq!(history.growth("/", &other, day(1)), None);
        history.add("/", &other, day(1));
        assert_eq!(history.growth("/", &room(10 * GIB), day(2)), None);
        assert!(history.growth("/", &other, day(2)).is_some());
    }

    #[test]
    fn the_past_stays_small_and_none_of_it_is_in_the_future() {
        let mut history = History::default();
        for minute in 0..(20 * 24 * 60) {
            let now = day(0) + TimeDelta::minutes(minute);
            history.add("/", &room(GIB), now);
            history = history.tidied(now);
        }
        let samples = &history.0["/"].samples;
        assert!(samples.len() <= 8 * 24 * 60 / 50 + 1, "{}", samples.len());
        assert_eq!(history.clone().tidied(day(0)), History::default(), "the clock was set back");
        assert_eq!(history.tidied(day(60)), History::default());
    }
}
