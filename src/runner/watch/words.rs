//! What is said of a look: in the run's log, and as news.
use chrono::{DateTime, Utc};

use super::holds::Held;
use crate::{
    model::{
        news::{About, Cause, Event, News, Offer, Severity},
        watch::{Checked, State},
    },
    text,
    watch::{ALL, Known, Pause, Step, Telling},
};

/// Bytes of what was found that are kept.
const LONGEST: usize = 500;

/// One line, and not too long.
pub(super) fn shorten(what: &mut String) {
    if what.contains(char::is_control) {
        *what = what.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    }
    if what.len() > LONGEST {
        what.truncate(what.floor_char_boundary(LONGEST));
        what.push('…');
    }
}

/// Why a check is being worked on: by hand.
pub(super) fn pause(pause: &Pause) -> String {
    let what = if pause.target == ALL { "everything".to_owned() } else { format!("`{}`", pause.target) };
    match pause.until {
        Some(until) => format!("{what} is in maintenance until {}", until.format("%Y-%m-%d %H:%M:%SZ")),
        None => format!("{what} is in maintenance until it is ended by hand"),
    }
}

/// Why a check is being worked on: by a job of ours.
pub(super) fn held(held: &Held) -> String {
    match held.until {
        None => {
            format!("our own job {} (run {}) has {} the container {}", held.job, held.run, held.how, held.container)
        }
        Some(until) => format!(
            "our own job {} (run {}) had {} the container {} until {}",
            held.job,
            held.run,
            held.how,
            held.container,
            clock(until)
        ),
    }
}

/// A time of day, as evidence has it.
pub(super) fn clock(at: DateTime<Utc>) -> String {
    at.format("%H:%M:%SZ").to_string()
}

/// News of a check.
pub(super) fn news(tell: &Telling, about: About, one: &Checked, causes: Vec<Cause>, offers: Vec<Offer>) -> News {
    let what = match tell.event {
        Event::Recovered => format!("well again after {}", lasted(tell.since, tell.at)),
        _ if tell.flaps => format!("it comes and goes: {}", one.verdict.what),
        _ => one.verdict.what.clone(),
    };
    // Whoever wants to hear of the beginning wants to hear of the end.
    let severity = if tell.was_down { Severity::Critical } else { Severity::Warning };
    News {
        about,
        event: tell.event,
        severity,
        at: tell.at,
        since: Some(tell.since),
        incident: Some(tell.incident),
        what,
        causes,
        offers,
        lines: Vec::new(),
    }
}

/// What the log of a run has of a look; nothing where nothing has changed.
pub(super) fn line(
    one: &Checked,
    before: Option<&Known>,
    step: &Step,
    quiet: bool,
    cause: Option<&Cause>,
) -> Option<String> {
    let (name, what, known) = (&one.check, &one.verdict.what, &step.known);
    if let Some((open, at)) = step.ended {
        return Some(format!("{name} is well again after {}: incident {} is over", lasted(open.began, at), open.id.0));
    }
    if let Some(open) = step.begun {
        let cause = cause.map_or_else(String::new, |cause| {
            format!("; {}: {}", if cause.is_certain { "cause" } else { "likely cause" }, cause.what)
        });
        let quiet = if quiet { "; not told, because what it depends on is not well either" } else { "" };
        return Some(format!(
            "{name} is {} since {}: {what}; incident {}{cause}{quiet}",
            known.settled,
            clock(open.began),
            open.id.0
        ));
    }
    if let Some(doubt) = known.doubt.filter(|_| known.incident.is_none()) {
        return Some(format!("{name}: {what}; {} of {} that make an incident", doubt.looks, one.rules.failures));
    }
    if let Some(open) = known.incident.filter(|_| one.verdict.state != State::Up) {
        return Some(format!("{name} is still {} since {}: {what}", known.state, clock(open.began)));
    }
    let was = before.map(|before| before.state);
    (was != Some(known.state) && (was.is_some() || known.state != State::Up)).then(|| format!("{name}: {what}"))
}

fn lasted(since: DateTime<Utc>, at: DateTime<Utc>) -> String {
    text::duration((at - since).to_std().unwrap_or_default())
}
