//! A cron line through daylight-saving changes.
//!
//! A line whose seconds, minutes and hours name their values (`30 1,13`, `0 9-17`) has fixed times: each comes once a day. In
//! the spring gap it comes at the first instant after the gap, in the hour that comes twice at its first pass. croner does so
//! for single values only, so days are asked of croner and times of the day are laid on them here. A line with `*` in one of
//! these fields follows real time.
use chrono::{DateTime, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use croner::{
    Cron, Direction,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};

use super::Wrong;

/// A line in its zone.
#[derive(Clone)]
pub(super) struct Lines {
    pub(super) cron: Cron,
    pub(super) zone: Tz,
    /// With fixed times: the days, and the times of a day, in order.
    pub(super) fixed: Option<(OnDays, Vec<NaiveTime>)>,
    pub(super) has_seconds: bool,
}

/// The days of a line with fixed times.
#[derive(Clone)]
pub(super) enum OnDays {
    /// Each, which needs no search.
    Each,
    /// Those that have such a noon in UTC.
    Some(Box<Cron>),
}

impl OnDays {
    pub(super) fn has(&self, day: NaiveDate) -> bool {
        match self {
            Self::Each => true,
            Self::Some(noons) => noons.is_time_matching(&noon(day)).unwrap_or(false),
        }
    }

    /// From this one on.
    fn from(&self, first: NaiveDate) -> impl Iterator<Item = NaiveDate> + '_ {
        let (each, some) = match self {
            Self::Each => (Some(first.iter_days()), None),
            Self::Some(noons) => (None, Some(noons.iter_from(noon(first), Direction::Forward))),
        };
        each.into_iter().flatten().chain(some.into_iter().flatten().map(|noon| noon.date_naive()))
    }
}

fn noon(day: NaiveDate) -> DateTime<Utc> {
    day.and_hms_opt(12, 0, 0).unwrap_or_default().and_utc()
}

/// A line that has no match within so many years has none.
const A_WHILE: i64 = 366 * 12;

impl Lines {
    pub(super) fn parse(line: &str, zone: Tz) -> Result<Self, Wrong> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !(5..=6).contains(&fields.len()) {
            return Err(Wrong::new(
                format!("a schedule has five fields (or six, with seconds first), and `{line}` has {}", fields.len()),
                "minute, hour, day of the month, month, day of the week, as in `15 3 * * *`",
            ));
        }
        check_lists_and_steps(&fields)?;
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(line).map_err(|error| explain(&parser, &fields, &error))?;
        let has_seconds = fields.len() == 6;
        let (time_fields, day_fields) = fields.split_at(fields.len() - 3);
        let fixed = if time_fields.iter().any(|field| field.contains('*') || field.contains('?')) {
            None
        } else {
            let days = if day_fields.iter().all(|field| *field == "*") {
                OnDays::Each
            } else {
                let noons = parser.parse(&format!("0 12 {}", day_fields.join(" ")));
                OnDays::Some(Box::new(noons.map_err(|error| explain(&parser, &fields, &error))?))
            };
            Some((days, times(&cron)))
        };
        let lines = Self { cron, zone, fixed, has_seconds };
        let start = DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default();
        match lines.next_after(start) {
            Some(first) if first - start < TimeDelta::days(A_WHILE) => Ok(lines),
            _ => Err(Wrong::new(
                format!("`{line}` never comes: no such day exists"),
                "look at the day of the month and the month, as in 30 February",
            )),
        }
    }

    pub(super) fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.fixed {
            None => {
                let local = after.with_timezone(&self.zone);
                Some(self.cron.find_next_occurrence(&local, false).ok()?.to_utc())
            }
            Some((days, times)) => {
                // A day before: a time in a gap at midnight belongs to the day that was skipped.
                let first = after.with_timezone(&self.zone).date_naive().checked_sub_days(Days::new(2))?;
                let mut best: Option<DateTime<Utc>> = None;
                for day in days.from(first) {
                    if best.is_some_and(|best| day > best.with_timezone(&self.zone).date_naive()) {
                        break;
                    }
                    let found =
                        times.iter().filter_map(|time| instant(self.zone, day, *time)).filter(|at| *at > after).min();
                    best = [best, found].into_iter().flatten().min();
                }
                best
            }
        }
    }
}

/// The instant of a local time: in a gap the first instant after it, of two passes the first.
pub(super) fn instant(zone: Tz, day: NaiveDate, time: NaiveTime) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&day.and_time(time)) {
        LocalResult::Single(at) => Some(at.to_utc()),
        LocalResult::Ambiguous(first, _) => Some(first.to_utc()),
        LocalResult::None => Some(end_of_gap(zone, day.and_time(time))),
    }
}

/// The first instant after the gap that holds `local`. No gap is wider than a day, and the change is on a whole second.
fn end_of_gap(zone: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    let wall = |at: i64| DateTime::from_timestamp(at, 0).unwrap_or_default().with_timezone(&zone).naive_local();
    let guess = local.and_utc().timestamp();
    let (mut before, mut after) = (guess - 2 * 86_400, guess + 2 * 86_400);
    // The wall clock jumps over `local` between two neighbouring seconds: look for them by halves.
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        if wall(middle) < local { before = middle } else { after = middle }
    }
    DateTime::from_timestamp(after, 0).unwrap_or_default()
}

fn times(cron: &Cron) -> Vec<NaiveTime> {
    let mut times = Vec::new();
    for hour in cron.pattern.hours.values() {
        for minute in cron.pattern.minutes.values() {
            for second in cron.pattern.seconds.values() {
                times.extend(NaiveTime::from_hms_opt(hour.into(), minute.into(), second.into()));
            }
        }
    }
    times
}

/// The names, bounds and examples of the fields, to say which one is wrong.
const FIELDS: [(&str, &str); 6] = [
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, `L` for the last, `15W` for the nearest working day"),
    ("month", "1 to 12, or JAN to DEC"),
    ("day of the week", "0 to 7 (both Sunday), or SUN to SAT, `FRI#2` for the second, `5L` for the last"),
];

/// How many values the fields have.
const WIDTHS: [(&str, u32); 6] =
    [("second", 60), ("minute", 60), ("hour", 24), ("day of the month", 31), ("month", 12), ("day of the week", 7)];

/// What croner takes and nobody means: `*/90` is not every 90 minutes, and `0,30, 3` has lost its field.
fn check_lists_and_steps(fields: &[&str]) -> Result<(), Wrong> {
    for (field, (name, width)) in fields.iter().zip(&WIDTHS[6 - fields.len()..]) {
        if field.split(',').any(str::is_empty) {
            return Err(Wrong::new(
                format!("`{field}` has a comma too many"),
                "write a list without spaces, such as `0,30`",
            ));
        }
        let steps = field.split(',').filter_map(|part| part.split_once('/')?.1.parse::<u32>().ok());
        if let Some(step) = steps.into_iter().find(|step| step > width) {
            let every = match *name {
                "second" => format!("`@every {step}s` comes every {step} seconds"),
                "minute" => format!("`@every {step}m` comes every {step} minutes"),
                "hour" => format!("`@every {step}h` comes every {step} hours"),
                _ => "choose a smaller step".to_owned(),
            };
            return Err(Wrong::new(format!("`{field}` steps further than the field is wide"), every));
        }
    }
    Ok(())
}

/// Finds the field that is wrong by trying each alone.
fn explain(parser: &CronParser, fields: &[&str], error: &CronError) -> Wrong {
    let shift = 6 - fields.len();
    for (index, field) in fields.iter().enumerate() {
        let mut alone = vec!["*"; fields.len()];
        alone[index] = field;
        if parser.parse(&alone.join(" ")).is_err() {
            let (name, bounds) = FIELDS[index + shift];
            return Wrong::new(
                format!("`{field}` is no {name}"),
                format!(
                    "{} {name} is {bounds}, a list `1,3`, a range `1-5`, a step `*/2` or `*`",
                    if name == "hour" { "an" } else { "a" }
                ),
            );
        }
    }
    Wrong::new(format!("`{}` is no schedule: {error}", fields.join(" ")), "write it as in `15 3 * * *`")
}
