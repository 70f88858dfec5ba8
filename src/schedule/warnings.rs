//! What a person should look at before a schedule surprises them.
use std::{collections::BTreeSet, fmt};

use chrono::{DateTime, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset as _, TimeZone as _, Utc};
use chrono_tz::Tz;

use super::{Schedule, cron::Lines};

/// Something that is right, and probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "warning")]
pub enum Warning {
    /// The clock is set forward over this time; the slot comes right after the gap.
    Moved {
        /// The local time that does not exist.
        local: NaiveDateTime,
        /// The slot's time instead, with its offset.
        instead: String,
    },
    /// The clock is set back over this time; the slot comes at its first pass only.
    Twice {
        /// The local time that comes twice.
        local: NaiveDateTime,
        /// The slot's time, with its offset.
        at: String,
    },
    /// Six fields of which the first is `*`: every second.
    EverySecond {
        /// What was probably meant.
        meant: String,
    },
    /// A day of the month and a day of the week: either of them makes the day match.
    EitherDay,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved { local, instead } => {
                write!(f, "the clock skips {}; the slot comes at {instead} instead", local.format("%a %Y-%m-%d %H:%M"))
            }
            Self::Twice { local, at } => {
                write!(f, "{} comes twice; the slot comes once, at {at}", local.format("%a %Y-%m-%d %H:%M"))
            }
            Self::EverySecond { meant } => {
                write!(f, "six fields begin with the second, so this comes every second of a minute; did you mean `{meant}`?")
            }
            Self::EitherDay => f.write_str(
                "with both a day of the month and a day of the week, it comes on days that match either of them; write `+MON` for both",
            ),
        }
    }
}

pub(super) fn of(schedule: &Schedule, lines: &Lines, from: DateTime<Utc>) -> Vec<Warning> {
    let mut found = Vec::new();
    let fields: Vec<&str> = schedule.line.split_whitespace().collect();
    if lines.has_seconds && fields.first() == Some(&"*") {
        found.push(Warning::EverySecond { meant: fields.get(1..).unwrap_or_default().join(" ") });
    }
    if let [.., day, _, weekday] = fields.as_slice()
        && !["*", "?"].contains(day)
        && !["*", "?"].contains(weekday)
        && !weekday.starts_with('+')
    {
        found.push(Warning::EitherDay);
    }
    found.extend(moved(lines, from));
    found
}

/// Times of the next year that do not exist or come twice. They are on the few days on which the zone's clock is set, so only
/// these are looked at.
fn moved(lines: &Lines, from: DateTime<Utc>) -> Vec<Warning> {
    let Some((days, times)) = &lines.fixed else { return Vec::new() };
    let zone = lines.zone;
    let mut found = Vec::new();
    for day in days_of_changes(zone, from) {
        if !days.has(day) {
            continue;
        }
        for time in times {
            let local = day.and_time(*time);
            let at = || super::cron::instant(zone, day, *time).map(|at| shown(at, zone)).unwrap_or_default();
            match zone.from_local_datetime(&local) {
                LocalResult::None => found.push(Warning::Moved { local, instead: at() }),
                LocalResult::Ambiguous(..) => found.push(Warning::Twice { local, at: at() }),
                LocalResult::Single(_) => {}
            }
        }
    }
    found
}

/// How far ahead is looked.
const A_YEAR: Days = Days::new(366);
const A_DAY: i64 = 86_400;

/// The days within a year of `from` that hold a local time which does not exist or comes twice, in order. The zone is asked
/// once a day, and between two days with different offsets by halves.
fn days_of_changes(zone: Tz, from: DateTime<Utc>) -> BTreeSet<NaiveDate> {
    let first = from.with_timezone(&zone).date_naive();
    let end = first.checked_add_days(A_YEAR).unwrap_or(first);
    let offset = |at: i64| {
        let at = DateTime::from_timestamp(at, 0).unwrap_or_default();
        i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc())
    };
    let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc().timestamp();
    let mut found = BTreeSet::new();
    // No zone is further than a day from UTC.
    let (mut at, last) = (midnight(first) - 2 * A_DAY, midnight(end) + 2 * A_DAY);
    let mut before = offset(at);
    while at < last {
        let after = offset(at + A_DAY);
        if after != before {
            let (mut old, mut new) = (at, at + A_DAY);
            while new - old > 1 {
                let middle = old + (new - old) / 2;
                if offset(middle) == before { old = middle } else { new = middle }
            }
            // The clock on the wall goes from the one to the other, over a gap or back over what it has shown.
            let (least, greatest) = (new + before.min(after), new + before.max(after));
            let day = |local: i64| DateTime::from_timestamp(local, 0).unwrap_or_default().date_naive();
            found.extend(day(least).iter_days().take_while(|day| midnight(*day) < greatest));
        }
        (at, before) = (at + A_DAY, after);
    }
    found.retain(|day| (first..end).contains(day));
    found
}

fn shown(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%H:%M %:z").to_string()
}
