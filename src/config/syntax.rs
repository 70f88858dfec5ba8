//! What is wrong with a text that is no TOML, in words for a person: one mistake a line.
use std::ops::Range;

use toml::de::Error;

use super::{mistake::Problem, read::Found};

/// The mistakes, the first of each line.
pub(super) fn mistakes(errors: &[Error], text: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut last: Option<Range<usize>> = None;
    let mut errors: Vec<&Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map(|at| at.start));
    for error in errors {
        let at = error.span().unwrap_or_default();
        let line = line_of(text, at.start);
        // What follows on a line that is wrong already, or on one that a missing end ran into, says nothing new.
        if last.as_ref().is_some_and(|last| last.contains(&line.start)) {
            continue;
        }
        let message = error.message().trim_end();
        let (what, hint) = explain(message, text, &line, &at);
        let runs_on = message.contains("basic string")
            || message.contains("array elements")
            || message.contains("key-value pairs");
        let next =
            text.get(line.end + 1..).map_or(line.end, |rest| line.end + 1 + rest.find('\n').unwrap_or(rest.len()));
        let next_is_fine = text.get(line.end..next).is_some_and(|line| line.contains('='));
        last = Some(if runs_on && !next_is_fine {
            line.start..next.max(line.start + 1)
        } else {
            line.start..line.end.max(line.start + 1)
        });
        let problem = Problem::new("", what);
        found.push(Found {
            at,
            problem: match hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            },
        });
    }
    found
}

fn line_of(text: &str, at: usize) -> Range<usize> {
    let at = at.min(text.len());
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
    let end = text.get(at..).and_then(|after| after.find('\n')).map_or(text.len(), |length| at + length);
    start..end
}

fn explain(message: &str, text: &str, line: &Range<usize>, at: &Range<usize>) -> (String, Option<String>) {
    let whole = text.get(line.clone()).unwrap_or_default().trim();
    let (key, value) = whole.split_once('=').map_or(("", ""), |(key, value)| (key.trim(), value.trim()));
    let marked = text.get(at.clone()).unwrap_or_default();
    let what = |what: &str| what.to_owned();
    let hint = |hint: &str| Some(hint.to_owned());
    if ["<<<<<<<", "=======", ">>>>>>>"].iter().any(|mark| whole.starts_with(mark)) {
        return (what("a merge left its marks here"), hint("keep one of the two sides, and remove the marks"));
    }
    if whole.starts_with(';') || whole.starts_with("//") {
        return (what("this is no comment"), hint("a comment begins with `#`"));
    }
    if text.trim_start().starts_with('{') && line.start == 0 {
        return (what("this looks like JSON, and the file is TOML"), hint("write `key = value`, one to a line"));
    }
    if whole.contains(['“', '”', '„', '‘', '’']) && message.contains("quote") {
        return (what("these are not the quotes of TOML"), hint("write `\"`"));
    }
    match message {
        _ if message.starts_with("duplicate key") && whole.starts_with('[') => (
            format!("`{marked}` is there already"),
            hint("put all of its keys below one header, or use `[[…]]` for each of several"),
        ),
        _ if message.starts_with("duplicate key") => {
            (format!("the key `{marked}` is given twice"), hint("remove one of them"))
        }
        _ if message.starts_with("string values must be quoted") && value.is_empty() && !key.is_empty() => {
            (format!("`{key}` has no value"), hint("write it after `=`, or remove the line"))
        }
        _ if message.starts_with("string values must be quoted") || message.starts_with("invalid boolean") => {
            if matches!(marked.to_lowercase().as_str(), "yes" | "no" | "on" | "off" | "true" | "false") {
                return (format!("`{marked}` is no value"), hint("write `true` or `false`"));
            }
            (what("this needs quotes"), Some(format!("write `\"{marked}\"`")))
        }
        _ if message.contains("non-double-quote visible") => (
            what("there is a character here that cannot be seen"),
            hint("remove it, or write it as `\\u0007` (its number)"),
        ),
        _ if message.starts_with("invalid basic string") => {
            (what("the text has no end"), hint("a quote is missing; a text over several lines stands in `\"\"\"`"))
        }
        _ if message.starts_with("missing opening quote") => {
            (what("the text has no beginning: a quote is missing"), None)
        }
        _ if message.contains("escape") || message.contains("unicode value digits") => (
            what("`\\` has a meaning of its own in this text"),
            hint("write the text in single quotes, or each `\\` twice"),
        ),
        _ if is_yaml(whole) => (what("a value follows `=` here, not `:`"), hint("write `key = value`")),
        _ if message.starts_with("unquoted keys cannot be empty") || message.starts_with("extra `=`") => {
            (what("there is no key before `=`"), None)
        }
        _ if message.starts_with("key with no value") && !key.is_empty() && key.contains(' ') => {
            (what("a key is one word"), Some(format!("such as `{}`", key.replace(' ', "_"))))
        }
        _ if message.starts_with("key with no value") => {
            (what("this key has no value"), hint("write `key = value`, or remove the line"))
        }
        _ if message.starts_with("unexpected key or value") => (what("this belongs on a line of its own"), None),
        _ if message.starts_with("unexpected leading zero") => (what("a number does not begin with 0"), None),
        _ if message.starts_with("unclosed table") => (what("the header has no end"), hint("`]` is missing")),
        _ if message.starts_with("unclosed array table") => (what("the header has no end"), hint("`]]` is missing")),
        _ if message.starts_with("missing comma") => (
            what("a comma is missing before this, or what was begun above has no end"),
            hint("look for a `]` or `}` that is missing"),
        ),
        _ if message.starts_with("unclosed") => {
            (what("what was begun above has no end"), hint("look for a `]` or `}` that is missing"))
        }
        _ => (format!("this is not TOML: {message}"), None),
    }
}

/// Whether a line is `key: value`.
fn is_yaml(line: &str) -> bool {
    let is_key =
        |key: &str| !key.is_empty() && key.chars().all(|letter| letter.is_alphanumeric() || "_-".contains(letter));
    line.split_once(':').is_some_and(|(key, _)| is_key(key.trim()))
}
