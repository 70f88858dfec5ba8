//! What a person should look at before a schedule surprises them.
use std::fmt;

use chrono::{DateTime, Days, LocalResult, NaiveDateTime, NaiveTime, TimeDelta, TimeZone as _, Utc};
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

/// The days of the next year on which the zone's clock is set are few, so only they are looked at.
fn moved(lines: &Lines, from: DateTime<Utc>) -> Vec<Warning> {
    let Some((days, times)) = &lines.fixed else { return Vec::new() };
    let zone = lines.zone;
    let mut found = Vec::new();
    let mut day = from.with_timezone(&zone).date_naive();
    for _ in 0..366 {
        let next = day.checked_add_days(Days::new(1)).unwrap_or(day);
        let midnight = |day: chrono::NaiveDate| zone.from_utc_datetime(&day.and_time(NaiveTime::MIN)).naive_local();
        let set = midnight(next) - midnight(day) != TimeDelta::days(1) || has_gap_or_overlap(zone, day);
        if set && days.is_time_matching(&day.and_hms_opt(12, 0, 0).unwrap_or_default().and_utc()).unwrap_or(false) {
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
        day = next;
    }
    found
}

fn has_gap_or_overlap(zone: Tz, day: chrono::NaiveDate) -> bool {
    (0..96).any(|quarter| {
        let local = day.and_time(NaiveTime::MIN) + TimeDelta::minutes(15 * quarter);
        !matches!(zone.from_local_datetime(&local), LocalResult::Single(_))
    })
}

fn shown(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%H:%M %:z").to_string()
}
