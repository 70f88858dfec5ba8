//! What the settings say of checks as a whole.
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::Schedule;

/// What the settings say of checks as a whole.
#[derive(Clone, Debug, Default)]
pub struct WatchSettings {
    /// What is asked before anything far away is called down: `gateway`, or `address:port`. Empty: nobody.
    pub line: Vec<String>,
    /// What a site gets to come back after a job of ours held its container.
    pub back_within: Duration,
    /// When sites are worked on.
    pub windows: Vec<Window>,
}

/// A time that comes again, in which checks are not told of.
#[derive(Clone, Debug)]
pub struct Window {
    /// When it begins.
    pub schedule: Schedule,
    /// How long it lasts.
    pub lasts: Duration,
    /// Which: labels of checks, names of jobs or of containers; all, when there is none.
    pub checks: Vec<String>,
}

/// Work by hand, from now until then.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Pause {
    /// A check's label, or the name of a job or a container; `all` for everything.
    pub target: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Until when; none for until it is ended.
    pub until: Option<DateTime<Utc>>,
}

impl Window {
    /// Whether it is open at this moment.
    #[must_use]
    pub fn is_open(&self, at: DateTime<Utc>) -> bool {
        // It began after `at - lasts`, and not after `at`: the first slot after the one is not after the other.
        let lasts = TimeDelta::from_std(self.lasts).unwrap_or(TimeDelta::MAX);
        let Some(earliest) = at.checked_sub_signed(lasts) else { return true };
        self.schedule.next_after(earliest).is_some_and(|begins| begins <= at)
    }

    /// Whether it is for a check that has one of these names.
    #[must_use]
    pub fn is_for(&self, names: &[&str]) -> bool {
        self.checks.is_empty() || self.checks.iter().any(|one| names.contains(&one.as_str()))
    }
}

impl Pause {
    /// Whether it is for a check that has one of these names, at this moment.
    #[must_use]
    pub fn is_for(&self, names: &[&str], at: DateTime<Utc>) -> bool {
        (self.target == ALL || names.contains(&self.target.as_str())) && self.until.is_none_or(|until| at < until)
    }
}

/// What stands for every check.
pub const ALL: &str = "all";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_open_from_its_slot_for_as_long_as_it_lasts() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let schedule = Schedule::parse("0 3 * * 0", chrono_tz::Asia::Tokyo, &"x".parse().unwrap()).unwrap();
        let window = Window { schedule, lasts: Duration::from_secs(7200), checks: vec!["blog".into()] };
        for (moment, open) in [
            ("2026-11-21T17:59:59Z", false),
            ("2026-11-21T18:00:00Z", true),
            ("2026-11-21T19:59:59Z", true),
            ("2026-11-21T20:00:00Z", false),
        ] {
            assert_eq!(window.is_open(at(moment)), open, "{moment}");
        }
        assert!(window.is_for(&["a", "blog"]) && !window.is_for(&["a"]));
    }
}
