//! Colour that means something: green is proven, red needs a person, yellow is worth a look. None of it in a pipe.
use anstyle::{AnsiColor, Style};

use crate::model::{Level, Outcome};

/// All is well.
pub(super) fn good(text: &str) -> String {
    painted(AnsiColor::Green.on_default(), text)
}

/// A person must act.
pub(super) fn bad(text: &str) -> String {
    painted(AnsiColor::Red.on_default().bold(), text)
}

/// Worth a look.
pub(super) fn warning(text: &str) -> String {
    painted(AnsiColor::Yellow.on_default(), text)
}

/// Beside the point.
pub(super) fn faint(text: &str) -> String {
    painted(Style::new().dimmed(), text)
}

/// How a run ended.
pub(super) fn outcome(outcome: Outcome) -> String {
    let text = outcome.to_string();
    match outcome {
        Outcome::Succeeded => good(&text),
        Outcome::Cancelled => warning(&text),
        Outcome::Failed | Outcome::TimedOut | Outcome::Interrupted => bad(&text),
    }
}

/// A line of a log.
pub(super) fn line(level: Level, text: &str) -> String {
    match level {
        Level::Output => text.to_owned(),
        Level::Info => faint(text),
        Level::Warning => format!("{} {text}", warning("warning:")),
        Level::Error => format!("{} {text}", bad("error:")),
    }
}

fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
