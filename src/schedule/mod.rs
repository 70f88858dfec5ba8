//! When a job is due: a cron line and its slots, in a time zone, through daylight-saving changes. Pure.
//!
//! The contract is in `docs/schedules.md`: a fixed time runs once a day whatever the clocks do, a wildcard follows real time.
use std::{fmt, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

mod cron;
mod hashed;
mod warnings;
mod words;

use cron::Lines;
pub use warnings::Warning;

use crate::{config::units::Span, model::JobName};

/// A job's schedule: a line such as `15 3 * * *`, in a time zone.
#[derive(Clone)]
pub struct Schedule {
    line: String,
    zone: Tz,
    rule: Rule,
}

#[derive(Clone)]
enum Rule {
    Cron(Box<Lines>),
    /// At multiples of so many seconds since 1970, in real time.
    Every(TimeDelta),
    Startup,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl Wrong {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// Names for whole lines, and the lines they stand for.
const NAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Schedule {
    /// Reads a line. `job` is what `H` is drawn from, so that it stays the same for a job and spreads over jobs.
    ///
    /// # Errors
    /// When the line cannot be read, or never matches.
    pub fn parse(line: &str, zone: Tz, job: &JobName) -> Result<Self, Wrong> {
        let trimmed = line.trim();
        let rule = if trimmed == "@reboot" || trimmed == "@startup" {
            Rule::Startup
        } else if let Some(span) = trimmed.strip_prefix("@every") {
            Rule::Every(every(span)?)
        } else if trimmed.starts_with('@') {
            let Some((_, line)) = NAMES.iter().find(|(name, _)| *name == trimmed) else {
                return Err(unknown_name(trimmed));
            };
            Rule::Cron(Box::new(Lines::parse(line, zone)?))
        } else {
            Rule::Cron(Box::new(Lines::parse(&hashed::fill(trimmed, job)?, zone)?))
        };
        Ok(Self { line: trimmed.to_owned(), zone, rule })
    }

    /// The line as written.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The time zone it is read in.
    #[must_use]
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// Whether its one slot is Rusuban's start.
    #[must_use]
    pub fn is_startup(&self) -> bool {
        matches!(self.rule, Rule::Startup)
    }

    /// The first slot after `after`; none when there is none, as for `@reboot`.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.rule {
            Rule::Cron(lines) => lines.next_after(after),
            Rule::Every(step) => {
                let step = step.num_seconds();
                DateTime::from_timestamp((after.timestamp().div_euclid(step) + 1).checked_mul(step)?, 0)
            }
            Rule::Startup => None,
        }
    }

    /// The slots after `after`, in order, each looked for when it is asked for.
    pub fn slots_after(&self, mut after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        std::iter::from_fn(move || {
            after = self.next_after(after)?;
            Some(after)
        })
    }

    /// The schedule as a person would say it.
    #[must_use]
    pub fn in_words(&self) -> String {
        match &self.rule {
            Rule::Startup => "once whenever Rusuban starts".to_owned(),
            Rule::Every(step) => words::every(*step),
            Rule::Cron(lines) => words::say(lines),
        }
    }

    /// What a person should look at: slots that a daylight-saving change moves within a year of `from`, and lines that
    /// probably mean something else than they say.
    #[must_use]
    pub fn warnings(&self, from: DateTime<Utc>) -> Vec<Warning> {
        match &self.rule {
            Rule::Cron(lines) => warnings::of(self, lines, from),
            _ => Vec::new(),
        }
    }
}

fn every(span: &str) -> Result<TimeDelta, Wrong> {
    let hint = "write it as in `@every 6h` or `@every 90s`";
    if span.trim().is_empty() {
        return Err(Wrong::new("`@every` needs a length of time", hint));
    }
    let wrong = |_: String| Wrong::new(format!("`{}` is not a length of time", span.trim()), hint);
    let Span(span) = span.trim().parse().map_err(wrong)?;
    if span < Duration::from_secs(1) || span.subsec_nanos() != 0 {
        return Err(Wrong::new("`@every` takes whole seconds, at least one", hint));
    }
    if span > Duration::from_secs(366 * 86_400) {
        return Err(Wrong::new("`@every` takes at most a year", hint));
    }
    TimeDelta::from_std(span).map_err(|_| Wrong::new("`@every` takes at most a year", hint))
}

fn unknown_name(name: &str) -> Wrong {
    let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).chain(["@every 6h", "@reboot"]).collect();
    let near = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
    let hint = match near {
        Some(near) if strsim::damerau_levenshtein(near, name) <= 2 => format!("did you mean `{near}`?"),
        _ => format!("the names are {}", known.join(", ")),
    };
    Wrong::new(format!("`{name}` is no schedule"), hint)
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        // What `H` became is a matter of the job's name, and a job is compared with itself.
        self.line == other.line && self.zone == other.zone
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({:?} in {})", self.line, self.zone)
    }
}

#[cfg(test)]
mod tests;
