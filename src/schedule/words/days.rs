//! The days of a year.
use croner::CronPattern;

use super::{Shape, every_nth, joined, listed, numbers, shape};

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// How croner marks, in its sets of days, what follows `#`, then `L` and `W`.
const NTH: [(u8, &str); 6] =
    [(1 << 1, "first"), (1 << 2, "second"), (1 << 3, "third"), (1 << 4, "fourth"), (1 << 5, "fifth"), (1 << 6, "last")];
const LAST: u8 = 1 << 6;
const WORKING: u8 = 1 << 7;

/// The days on which a line has its times.
pub(super) struct Days {
    /// Days of the month, such as `day 1` and `the last day`; none when all are meant.
    of_month: Vec<String>,
    /// Days of every week, from 0 for Sunday; all or none when all are meant.
    of_week: Vec<u16>,
    /// Such as `the second Friday`.
    nth: Vec<String>,
    months: Vec<u16>,
    /// Both the day of the month and that of the week must match.
    both: bool,
}

impl Days {
    pub(super) fn of(pattern: &CronPattern) -> Self {
        let mut days = Self {
            of_month: Vec::new(),
            of_week: Vec::new(),
            nth: Vec::new(),
            months: pattern.months.values(),
            both: pattern.matches_dom_and_dow(),
        };
        if !pattern.is_dom_wildcard() {
            days.of_month = of_month(pattern);
        }
        if !pattern.is_dow_wildcard() {
            days.of_week = pattern.days_of_week.values();
            for (mark, word) in NTH {
                let marked = pattern.days_of_week.get_set_values(mark);
                days.nth.extend(marked.iter().map(|day| format!("the {word} {}", weekday(*day))));
            }
        }
        days
    }

    /// Before the times: `every Monday to Friday`, `on day 1 of each month`.
    pub(super) fn before(&self) -> String {
        let every_week = self.every_week();
        if self.of_month.is_empty() && self.nth.is_empty() {
            let week = every_week.unwrap_or_else(|| "every day".to_owned());
            return self.within(week);
        }
        if self.both && !self.of_month.is_empty() {
            let week = self.of_week.iter().map(|day| weekday(*day)).collect::<Vec<_>>();
            let mut either: Vec<String> = self.nth.clone();
            if !week.is_empty() {
                either.insert(0, format!("a {}", joined(&week, "or")));
            }
            return format!("on {}{}, if it is {},", listed(&self.of_month), self.of_months(), joined(&either, "or"));
        }
        let of_month: Vec<String> = self.of_month.iter().chain(&self.nth).cloned().collect();
        match every_week {
            None => format!("on {}{}", listed(&of_month), self.of_months()),
            Some(week) if self.months.len() == 12 => format!("on {}{} and {week}", listed(&of_month), self.of_months()),
            Some(week) => self.within(format!("on {} and {week}", listed(&of_month))),
        }
    }

    /// After the times; none for every day.
    pub(super) fn after(&self) -> Option<String> {
        if !self.of_month.is_empty() || !self.nth.is_empty() {
            return Some(self.before().trim_end_matches(',').to_owned());
        }
        let Some(every) = self.every_week() else {
            let months = self.within(String::new());
            return (!months.is_empty()).then(|| months.trim_start().to_owned());
        };
        let week = match self.run_of_week() {
            Some(run) => run,
            None if self.of_week.len() == 7 => every,
            None => {
                let names: Vec<String> = in_order(&self.of_week).map(|day| format!("{}s", weekday(day))).collect();
                format!("on {}", listed(&names))
            }
        };
        Some(self.within(week))
    }

    /// `every Saturday and Sunday`; none when the day of the week does not matter.
    fn every_week(&self) -> Option<String> {
        match self.of_week.len() {
            0 => None,
            7 if self.of_month.is_empty() => None,
            7 => Some("every day of the week".to_owned()),
            _ => {
                let names: Vec<&str> = in_order(&self.of_week).map(weekday).collect();
                Some(format!("every {}", self.run_of_week().unwrap_or_else(|| listed(&names))))
            }
        }
    }

    /// `Monday to Friday`, also over a week's end.
    fn run_of_week(&self) -> Option<String> {
        let has = |day: u16| self.of_week.contains(&(day % 7));
        let mut firsts = self.of_week.iter().filter(|day| !has(**day + 6));
        let (first, None) = (*firsts.next()?, firsts.next()) else { return None };
        let last = first + u16::try_from(self.of_week.len()).ok()? - 1;
        (self.of_week.len() > 2).then(|| format!("{} to {}", weekday(first), weekday(last)))
    }

    /// ` of each month`, ` of January and July`.
    fn of_months(&self) -> String {
        match (self.months.len(), self.run_of_months()) {
            (12, _) => " of each month".to_owned(),
            (_, Some(run)) => format!(" of each month {run}"),
            (_, None) => format!(" of {}", self.names_of_months()),
        }
    }

    fn within(&self, days: String) -> String {
        match (self.months.len(), self.run_of_months()) {
            (12, _) => days,
            (_, Some(run)) => format!("{days} {run}"),
            (_, None) => format!("{days} in {}", self.names_of_months()),
        }
    }

    fn run_of_months(&self) -> Option<String> {
        match shape(&self.months, 12) {
            Shape::Steps { step: 1, first, last } => Some(format!("from {} to {}", month(first), month(last))),
            _ => None,
        }
    }

    fn names_of_months(&self) -> String {
        listed(&self.months.iter().map(|number| month(*number)).collect::<Vec<_>>())
    }
}

/// Days of the month: numbers, then what depends on the month.
fn of_month(pattern: &CronPattern) -> Vec<String> {
    let days = &pattern.days;
    let values = days.values();
    let mut found = Vec::new();
    match shape(&values, 31) {
        Shape::All => found.push("every day".to_owned()),
        Shape::Steps { step: 1, first, last } => found.push(format!("days {first} to {last}")),
        Shape::Steps { step, first, last } if values.len() > 4 => {
            found.push(format!("{} day from {first} to {last}", every_nth(step)));
        }
        _ if values.len() == 1 => found.push(format!("day {}", values[0])),
        _ if values.is_empty() => {}
        _ => found.push(format!("days {}", numbers(&values))),
    }
    found.extend(days.get_set_values(WORKING).iter().map(|day| format!("the working day nearest to day {day}")));
    match (days.is_feature_enabled(LAST), days.is_feature_enabled(WORKING)) {
        (true, true) => found.push("the last working day".to_owned()),
        (true, false) => found.push("the last day".to_owned()),
        _ => {}
    }
    found
}

/// From Monday on.
fn in_order(days: &[u16]) -> impl Iterator<Item = u16> + '_ {
    let sunday = days.iter().filter(|day| **day == 0);
    days.iter().filter(|day| **day != 0).chain(sunday).copied()
}

fn weekday(day: u16) -> &'static str {
    WEEKDAYS[usize::from(day) % 7]
}

fn month(number: u16) -> &'static str {
    MONTHS[usize::from(number + 11) % 12]
}
