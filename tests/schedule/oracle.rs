//! Every minute of a year in a zone, and which of them a pattern means.
use chrono::{DateTime, Datelike as _, NaiveDate, Offset as _, TimeZone as _, Utc, Weekday};
use chrono_tz::Tz;

/// A line, and by hand what it means.
#[derive(Clone, Copy)]
pub(crate) struct Pattern {
    pub(crate) line: &'static str,
    minutes: &'static [i64],
    hours: &'static [i64],
    day: fn(NaiveDate) -> bool,
    /// Whether it follows real time; else each of its times comes once a day.
    real_time: bool,
}

const EVERY_MINUTE: &[i64] = &{
    let mut all = [0; 60];
    let mut at = 0;
    while at < 60 {
        all[at] = at as i64;
        at += 1;
    }
    all
};
const EVERY_HOUR: &[i64] = EVERY_MINUTE.split_at(24).0;

fn any(_: NaiveDate) -> bool {
    true
}

fn last_of_month(day: NaiveDate) -> bool {
    day.succ_opt().unwrap().month() != day.month()
}

/// The working day nearest to the 15th.
fn fifteenth_worked(day: NaiveDate) -> bool {
    match day.day() {
        14 => day.weekday() == Weekday::Fri,
        15 => day.weekday().number_from_monday() < 6,
        16 => day.weekday() == Weekday::Mon,
        _ => false,
    }
}

const fn fixed(
    line: &'static str,
    minutes: &'static [i64],
    hours: &'static [i64],
    day: fn(NaiveDate) -> bool,
) -> Pattern {
    Pattern { line, minutes, hours, day, real_time: false }
}

const fn real(
    line: &'static str,
    minutes: &'static [i64],
    hours: &'static [i64],
    day: fn(NaiveDate) -> bool,
) -> Pattern {
    Pattern { line, minutes, hours, day, real_time: true }
}

pub(crate) const PATTERNS: &[Pattern] = &[
    fixed("15 3 * * *", &[15], &[3], any),
    fixed("@daily", &[0], &[0], any),
    fixed("30 0 * * *", &[30], &[0], any),
    fixed("30 1,13 * * *", &[30], &[1, 13], any),
    fixed("0,30 1,2 * * *", &[0, 30], &[1, 2], any),
    fixed("10,50 0-3,23 * * *", &[10, 50], &[0, 1, 2, 3, 23], any),
    fixed("45 2 * * SUN", &[45], &[2], |day| day.weekday() == Weekday::Sun),
    fixed("30 2 L * *", &[30], &[2], last_of_month),
    fixed("0 3 15W * *", &[0], &[3], fifteenth_worked),
    fixed("0 3 31 * *", &[0], &[3], |day| day.day() == 31),
    fixed("0 2 13 * FRI", &[0], &[2], |day| day.day() == 13 || day.weekday() == Weekday::Fri),
    fixed("0 2 13 * +FRI", &[0], &[2], |day| day.day() == 13 && day.weekday() == Weekday::Fri),
    fixed("0 2 * 3,10 SUN#2", &[0], &[2], |day| {
        matches!(day.month(), 3 | 10) && day.weekday() == Weekday::Sun && matches!(day.day(), 8..=14)
    }),
    fixed("30 1 * * 5L", &[30], &[1], |day| {
        day.weekday() == Weekday::Fri && (day + chrono::Days::new(7)).month() != day.month()
    }),
    real("* * * * *", EVERY_MINUTE, EVERY_HOUR, any),
    real("@hourly", &[0], EVERY_HOUR, any),
    real("*/20 1-3 * * *", &[0, 20, 40], &[1, 2, 3], any),
    real("*/30 0 * * *", &[0, 30], &[0], any),
    real("15 */2 * * *", &[15], &[0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22], any),
    real("* 2 * * SUN", EVERY_MINUTE, &[2], |day| day.weekday() == Weekday::Sun),
];

/// Zones and years in which their clocks do something worth a test.
pub(crate) const ZONES: [(Tz, i32); 11] = [
    (chrono_tz::Europe::London, 2026),
    (chrono_tz::Europe::Paris, 2026),
    (chrono_tz::Europe::Berlin, 2025),
    (chrono_tz::America::New_York, 2026),
    // By half an hour.
    (chrono_tz::Australia::Lord_Howe, 2026),
    // Three quarters of an hour off, at 02:45.
    (chrono_tz::Pacific::Chatham, 2026),
    // Back for Ramadan, then forward: the other way round.
    (chrono_tz::Africa::Casablanca, 2026),
    // 30 December 2011 was left out.
    (chrono_tz::Pacific::Apia, 2011),
    (chrono_tz::Asia::Tokyo, 2026),
    // At midnight, both ways.
    (chrono_tz::America::Sao_Paulo, 2018),
    (chrono_tz::America::Havana, 2026),
];

/// A year of a zone: for each minute of it in UTC, the minute on the wall since 1970.
pub(crate) struct Year {
    first: i64,
    wall: Vec<i64>,
}

impl Year {
    pub(crate) fn of(zone: Tz, year: i32) -> Self {
        let first = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap().timestamp() / 60;
        let mut wall = Vec::with_capacity(366 * 1440);
        // Clocks are set at full quarters of an hour only.
        for quarter in 0..365 * 96 {
            let start = first + quarter * 15;
            let utc = DateTime::from_timestamp(start * 60, 0).unwrap().naive_utc();
            let offset = i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()) / 60;
            wall.extend((0..15).map(|minute| start + minute + offset));
        }
        Self { first, wall }
    }

    pub(crate) fn begin(&self) -> DateTime<Utc> {
        self.at(0)
    }

    pub(crate) fn end(&self) -> DateTime<Utc> {
        self.at(self.wall.len() - 1)
    }

    fn at(&self, index: usize) -> DateTime<Utc> {
        DateTime::from_timestamp((self.first + i64::try_from(index).unwrap()) * 60, 0).unwrap()
    }

    /// The slots of a pattern after the year's first minute.
    pub(crate) fn slots(&self, pattern: &Pattern) -> Vec<DateTime<Utc>> {
        let times: Vec<bool> = (0..1440)
            .map(|minute| pattern.minutes.contains(&(minute % 60)) && pattern.hours.contains(&(minute / 60)))
            .collect();
        let origin = self.wall[0].div_euclid(1440) - 2;
        let days: Vec<bool> = (origin..origin + 370)
            .map(|day| (pattern.day)(DateTime::from_timestamp(day * 86_400, 0).unwrap().date_naive()))
            .collect();
        let means = |wall: i64| {
            times[usize::try_from(wall.rem_euclid(1440)).unwrap()]
                && days[usize::try_from(wall.div_euclid(1440) - origin).unwrap()]
        };
        let mut furthest = self.wall[0];
        let mut slots = Vec::new();
        for (index, wall) in self.wall.iter().enumerate().skip(1) {
            let due = if pattern.real_time {
                means(*wall)
            } else {
                // The times that the clock on the wall reaches or skips here for the first time.
                (furthest + 1..=*wall).any(means)
            };
            furthest = furthest.max(*wall);
            if due {
                slots.push(self.at(index));
            }
        }
        slots
    }
}
