//! Moments as people name them after `--at`. Pure.
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;

use super::Told;
use crate::config::units::Span;

/// The newest moment that `text` allows: `2026-11-21` is the end of that day, `3d` is three days before now.
///
/// # Errors
/// When it is none of the forms.
pub(super) fn parse(text: &str, zone: Tz, now: DateTime<Utc>) -> anyhow::Result<DateTime<Utc>> {
    let text = text.trim();
    if text == "latest" || text == "now" {
        return Ok(DateTime::<Utc>::MAX_UTC);
    }
    // A backup's own name.
    if let Ok(named) = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H-%M-%SZ") {
        return Ok(named.and_utc());
    }
    if let Ok(exact) = DateTime::parse_from_rfc3339(text) {
        return Ok(exact.to_utc());
    }
    for (form, rounding) in [
        ("%Y-%m-%d %H:%M:%S", Duration::ZERO),
        ("%Y-%m-%dT%H:%M:%S", Duration::ZERO),
        ("%Y-%m-%d %H:%M", Duration::from_secs(59)),
        ("%Y-%m-%dT%H:%M", Duration::from_secs(59)),
    ] {
        if let Ok(local) = NaiveDateTime::parse_from_str(text, form) {
            return in_zone(local, zone).map(|at| at + rounding);
        }
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        let last_second = day.and_hms_opt(23, 59, 59).unwrap_or_default();
        return in_zone(last_second, zone);
    }
    if let Ok(Span(span)) = text.trim_end_matches("ago").trim().parse() {
        return Ok(TimeDelta::from_std(span).ok().and_then(|span| now.checked_sub_signed(span)).unwrap_or_default());
    }
    Err(Told::usage(format!(
        "`{text}` is not a moment: write a backup's name (2026-11-21T03-15-00Z), a day (2026-11-21), a time (\"2026-11-21 03:15\"), or how long ago (3d)"
    )))
}

/// In the hour that comes twice, the later one: nothing that was meant is left out.
fn in_zone(local: NaiveDateTime, zone: Tz) -> anyhow::Result<DateTime<Utc>> {
    match zone.from_local_datetime(&local).latest() {
        Some(at) => Ok(at.to_utc()),
        // In the hour that does not come: as if the clock had not been set forward.
        None => Ok(zone
            .from_local_datetime(&(local - TimeDelta::hours(1)))
            .latest()
            .map_or_else(|| local.and_utc(), |at| at.to_utc() + TimeDelta::hours(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_the_newest_that_the_words_allow() {
        let now = Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap();
        let tokyo = chrono_tz::Asia::Tokyo;
        for (text, expected) in [
            ("2026-11-20T18-15-00Z", "2026-11-20T18:15:00+00:00"),
            ("2026-11-20", "2026-11-20T14:59:59+00:00"),
            ("2026-11-20 03:15", "2026-11-19T18:15:59+00:00"),
            ("2026-11-20T03:15:00+09:00", "2026-11-19T18:15:00+00:00"),
            ("3d", "2026-11-18T12:00:00+00:00"),
            ("2 hours ago", "2026-11-21T10:00:00+00:00"),
        ] {
            assert_eq!(parse(text, tokyo, now).unwrap().to_rfc3339(), expected, "{text}");
        }
        parse("yesterday-ish", tokyo, now).unwrap_err();
    }
}
