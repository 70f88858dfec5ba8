//! English.
use std::time::Duration;

use chrono::Weekday;
use chrono_tz::Tz;

use super::{Delay, Fact, Telling, Tongue, lasted};
use crate::model::news::{About, Cause, Event, Offer, Severity};

pub(super) struct English;

/// What is said of one, and of several.
fn predicate(fact: &Fact<'_>) -> (&'static str, &'static str) {
    let grave = fact.is_grave();
    match (fact.about, fact.event) {
        (About::Check { .. }, Event::Failed) if grave => ("is down", "are down"),
        (About::Check { .. }, Event::StillFailing) if grave => ("is still down", "are still down"),
        (About::Check { .. }, Event::Recovered) if fact.is_whole && grave => ("was down", "were down"),
        (About::Job { .. }, Event::Failed) => ("failed", "failed"),
        (About::Job { .. }, Event::StillFailing) => ("still fails", "still fail"),
        (About::Job { .. }, Event::Recovered) if fact.is_whole => ("had failed", "had failed"),
        (About::Job { .. }, Event::Recovered) => ("succeeds again", "succeed again"),
        (About::Job { .. }, Event::FirstSuccess) => ("succeeded for the first time", "succeeded for the first time"),
        (About::Job { .. }, Event::TooSmall) => ("made a suspiciously small backup", "made suspiciously small backups"),
        (About::Notifier { .. }, Event::Failed | Event::NotifierBroken) => ("takes no messages", "take no messages"),
        (About::Notifier { .. }, Event::StillFailing) => ("still takes no messages", "still take no messages"),
        (About::Notifier { .. }, Event::Recovered) => ("takes messages again", "take messages again"),
        (_, Event::Failed) => ("is not well", "are not well"),
        (_, Event::StillFailing) => ("is still not well", "are still not well"),
        (_, Event::Recovered) if fact.is_whole => ("was not well", "were not well"),
        (_, Event::Recovered) => ("is well again", "are well again"),
        (_, Event::Late) => ("is late", "are late"),
        (_, Event::Missed) => ("was missed", "were missed"),
        (_, Event::FirstSuccess) => ("is well for the first time", "are well for the first time"),
        (_, Event::TooSmall) => ("is suspiciously small", "are suspiciously small"),
        (_, Event::TargetMissed) => ("misses its target", "miss their targets"),
        (_, Event::Changed) => ("has changed", "have changed"),
        (_, Event::Report) => ("reports", "report"),
        (_, Event::Test) => ("can be heard", "can be heard"),
        (_, Event::NotifierBroken) => ("cannot tell", "cannot tell"),
    }
}

impl Tongue for English {
    fn subject(&self, about: &About, host: &str) -> String {
        match about {
            About::Job { job, .. } => job.to_string(),
            About::Check { check, .. } => super::clean::line(check),
            About::Notifier { name } => format!("the notifier {name}"),
            About::House => host.to_owned(),
        }
    }

    fn title(&self, fact: &Fact<'_>, host: &str) -> String {
        let subject = self.subject(fact.about, host);
        match fact.event {
            Event::Report => format!("report of {subject}"),
            Event::Test => format!("a test from {host}"),
            _ => format!("{subject} {}", predicate(fact).0),
        }
    }

    fn title_of_several(&self, facts: &[Fact<'_>], host: &str) -> String {
        let subjects: Vec<String> = facts.iter().map(|fact| self.subject(fact.about, host)).collect();
        let subjects = match subjects.as_slice() {
            [one, other] => format!("{one} and {other}"),
            [one, other, third] => format!("{one}, {other} and {third}"),
            [one, other, more @ ..] => format!("{one}, {other} and {} more", more.len()),
            few => few.concat(),
        };
        match facts.first() {
            Some(fact) if fact.event == Event::Report => format!("reports of {subjects}"),
            Some(fact) => format!("{subjects} {}", predicate(fact).1),
            None => subjects,
        }
    }

    fn title_of_mixed(&self, facts: &[Fact<'_>], host: &str) -> String {
        let bad = facts.iter().filter(|fact| fact.mood() == super::Mood::Bad).count();
        let rest = facts.len() - bad;
        match (bad, rest) {
            (bad, 0) => format!("{bad} troubles on {host}"),
            (0, rest) => format!("{rest} news from {host}"),
            (1, rest) => format!("1 trouble and {rest} other news from {host}"),
            (bad, rest) => format!("{bad} troubles and {rest} other news from {host}"),
        }
    }

    fn when(&self, fact: &Fact<'_>, telling: &Telling<'_>) -> String {
        let moment = |at| telling.moment(at, self);
        let length = |from, to| lasted(from, to).map(|length| self.duration(length));
        let begun = fact.since.unwrap_or(fact.at);
        match fact.event {
            Event::Failed if fact.since.is_none() || matches!(fact.about, About::Job { .. }) => {
                format!("at {}", moment(fact.at))
            }
            Event::Failed | Event::StillFailing | Event::Late | Event::NotifierBroken if fact.since.is_some() => {
                match length(begun, telling.now) {
                    Some(length) => format!("since {} ({length})", moment(begun)),
                    None => format!("since {}", moment(begun)),
                }
            }
            Event::Recovered if fact.is_whole => match length(begun, fact.at) {
                Some(length) => format!("{} ({length})", telling.span(begun, fact.at, self)),
                None => format!("for a moment at {}", moment(begun)),
            },
            Event::Recovered => match fact.since.and_then(|since| length(since, fact.at)) {
                Some(length) => format!("since {}, after {length}", moment(fact.at)),
                None => format!("since {}", moment(fact.at)),
            },
            Event::Report | Event::Test => String::new(),
            _ => format!("at {}", moment(fact.at)),
        }
    }

    fn line(&self, title: &str, when: &str, what: &str) -> String {
        match (when, what) {
            ("", "") => title.to_owned(),
            ("", what) => format!("{title}: {what}"),
            (when, "") => format!("{title} {when}"),
            (when, what) => format!("{title} {when}: {what}"),
        }
    }

    fn rest(&self, when: &str, what: &str) -> String {
        match (when, what) {
            ("", what) => what.to_owned(),
            (when, "") => when.to_owned(),
            (when, what) => format!("{when}: {what}"),
        }
    }

    fn late(&self, delay: Option<Delay>) -> &'static str {
        match delay {
            Some(Delay::Line) => "told late, because it could not be sent before",
            Some(Delay::Quiet) => "told after the quiet hours",
            Some(Delay::Limit) => "told late, because there was too much to tell",
            None => "told late",
        }
    }

    fn cause(&self, cause: &Cause) -> String {
        let certainty = if cause.is_certain { "because" } else { "likely" };
        format!("{certainty} {}", cause.what)
    }

    fn offer(&self, offer: &Offer) -> String {
        if offer.command.is_empty() { offer.what.clone() } else { format!("{}: `{}`", offer.what, offer.command) }
    }

    fn duration(&self, length: Duration) -> String {
        let minutes = length.as_secs() / 60;
        match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
            (0, 0, 0) => format!("{} s", length.as_secs()),
            (0, 0, minutes) => format!("{minutes} min"),
            (0, hours, 0) => format!("{hours} h"),
            (0, hours, minutes) => format!("{hours} h {minutes} min"),
            (1, 0, _) => "1 day".to_owned(),
            (1, hours, _) => format!("1 day {hours} h"),
            (days, 0, _) => format!("{days} days"),
            (days, hours, _) => format!("{days} days {hours} h"),
        }
    }

    fn weekday(&self, day: Weekday) -> &'static str {
        match day {
            Weekday::Mon => "Mon",
            Weekday::Tue => "Tue",
            Weekday::Wed => "Wed",
            Weekday::Thu => "Thu",
            Weekday::Fri => "Fri",
            Weekday::Sat => "Sat",
            Weekday::Sun => "Sun",
        }
    }

    fn foot(&self, host: &str, time_zone: Tz) -> String {
        format!("Rusuban on {host}; times are those of {time_zone}")
    }

    fn event(&self, event: Event) -> &'static str {
        match event {
            Event::Failed => "failed",
            Event::StillFailing => "still failing",
            Event::Recovered => "recovered",
            Event::Late => "late",
            Event::Missed => "missed",
            Event::FirstSuccess => "first success",
            Event::TooSmall => "too small",
            Event::TargetMissed => "target missed",
            Event::Changed => "changed",
            Event::Report => "report",
            Event::Test => "test",
            Event::NotifierBroken => "notifier broken",
        }
    }

    fn severity(&self, severity: Severity) -> &'static str {
        match severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}
