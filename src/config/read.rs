//! Reads a table into a struct and finds every mistake in it, not just the first: what is wrong is taken out of the table,
//! and the rest is read again.
use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer, Error},
};

use super::mistake::Problem;

/// A file's table with the places of everything in it.
pub(super) type Table<'a> = Spanned<DeTable<'a>>;

/// A mistake and where it is in the text.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) at: Range<usize>,
    pub(super) problem: Problem,
}

/// Reads `table` with `parse`; tells all mistakes. What could be read is returned even where there are some, so that it can be
/// looked at further; nothing, when a key is missing that cannot be done without.
pub(super) fn read<T>(
    mut table: Table<'_>,
    parse: impl Fn(Deserializer<'_>) -> Result<T, Error>,
    also_known: &[&str],
    found: &mut Vec<Found>,
) -> Option<T> {
    let mut taken_out: Vec<String> = Vec::new();
    loop {
        let error = match parse(Deserializer::from(table.clone())) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        if let Some(missing) = quoted(error.message(), "missing field `") {
            if !taken_out.iter().any(|key| key == missing) {
                found.push(explain(&error, error.span().unwrap_or_default(), also_known));
            }
            return None;
        }
        let at = error.span().unwrap_or_default();
        let path = innermost(table.get_ref(), &at, String::new());
        let mut mistake = explain(&error, at, also_known);
        let Some((path, name)) = path else {
            found.push(mistake);
            return None;
        };
        mistake.problem.key.clone_from(&path);
        found.push(mistake);
        taken_out.push(name);
        if !remove(table.get_mut(), &path) {
            return None;
        }
    }
}

/// The words of serde's error for a person.
fn explain(error: &Error, at: Range<usize>, also_known: &[&str]) -> Found {
    let message = error.message();
    let problem = if let Some(name) = quoted(message, "unknown field `") {
        let mut known: Vec<&str> = message
            .split_once("expected ")
            .map_or("", |(_, list)| list)
            .split('`')
            .skip(1)
            .step_by(2)
            .chain(also_known.iter().copied())
            .collect();
        known.sort_unstable();
        known.dedup();
        Problem::new("", format!("unknown key `{name}`")).hint(suggest(name, &known, "the keys here are"))
    } else if let Some(name) = quoted(message, "missing field `") {
        Problem::new("", format!("the key `{name}` is missing"))
    } else if let Some(name) = quoted(message, "unknown variant `") {
        let known: Vec<&str> =
            message.split_once("expected ").map_or("", |(_, list)| list).split('`').skip(1).step_by(2).collect();
        Problem::new("", format!("`{name}` is not known here")).hint(suggest(name, &known, "the words here are"))
    } else if let Some(rest) = message.strip_prefix("invalid type: ") {
        let (is, expected) = rest.split_once(", expected ").unwrap_or((rest, "something else"));
        Problem::new("", format!("this is {}, and {} is expected", article(is), article(expected)))
    } else {
        // The units and schedules say it in full sentences: what is wrong, then how to mend it.
        match message.split_once(": write ") {
            Some((wrong, mend)) => Problem::new("", wrong).hint(format!("write {mend}")),
            None => Problem::new("", message.trim_end()),
        }
    };
    Found { at, problem }
}

fn article(what: &str) -> String {
    match what {
        _ if what.starts_with("a ") || what.starts_with("an ") => what.to_owned(),
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        _ if what.starts_with("struct ") => "a table".to_owned(),
        _ if what.starts_with("integer") => format!("the number {}", what.trim_start_matches("integer ")),
        _ if what.starts_with("floating point") => format!("the number {}", what.trim_start_matches("floating point ")),
        _ if what.starts_with("string") => format!("the text {}", what.trim_start_matches("string ")),
        _ if what.starts_with("boolean") => what.trim_start_matches("boolean ").to_owned(),
        _ => what.to_owned(),
    }
}

/// The nearest of the known words, or all of them.
pub(super) fn suggest(word: &str, known: &[&str], list: &str) -> String {
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(word, known), known)).min();
    match near {
        Some((distance, known)) if distance <= 1 + word.len() / 4 => format!("did you mean `{known}`?"),
        _ => format!("{list} {}", known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.split('`').next()
}

/// The path and the name of the innermost key that holds the place.
fn innermost(table: &DeTable<'_>, at: &Range<usize>, prefix: String) -> Option<(String, String)> {
    for (key, value) in table.iter() {
        let name = key.get_ref().to_string();
        let path = join(&prefix, &name);
        let holds = |range: Range<usize>| range.start <= at.start && at.end <= range.end;
        if holds(key.span()) {
            return Some((path, name));
        }
        match value.get_ref() {
            DeValue::Table(inner) => {
                if let Some(found) = innermost(inner, at, path.clone()) {
                    return Some(found);
                }
            }
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref()
                        && let Some(found) = innermost(inner, at, format!("{path}[{index}]"))
                    {
                        return Some(found);
                    }
                }
            }
            _ => {}
        }
        if holds(value.span()) {
            return Some((path, name));
        }
    }
    None
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Splits `source[0].sqlite` into steps.
fn steps(path: &str) -> impl Iterator<Item = (&str, Option<usize>)> {
    path.split('.').map(|step| match step.split_once('[') {
        Some((name, index)) => (name, index.trim_end_matches(']').parse().ok()),
        None => (step, None),
    })
}

fn remove(table: &mut DeTable<'_>, path: &str) -> bool {
    let mut table = table;
    let all: Vec<_> = steps(path).collect();
    let Some(((last, _), above)) = all.split_last() else { return false };
    for (name, index) in above {
        let Some((_, value)) = table.iter_mut().find(|(key, _)| key.get_ref() == name) else { return false };
        table = match (value.get_mut(), index) {
            (DeValue::Table(inner), _) => inner,
            (DeValue::Array(items), Some(index)) => match items.get_mut(*index).map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => inner,
                _ => return false,
            },
            _ => return false,
        };
    }
    let Some(key) = table.keys().find(|key| key.get_ref() == last).cloned() else { return false };
    table.remove(&key).is_some()
}

/// Where the value at `path` is; of one that is not there, what would hold it.
pub(super) fn place(table: &Table<'_>, path: &str) -> Range<usize> {
    let mut place = None;
    let mut table = table.get_ref();
    for (name, index) in steps(path) {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        place = Some(if value.get_ref().is_table() { key.span() } else { value.span() });
        table = match (value.get_ref(), index) {
            (DeValue::Table(inner), _) => inner,
            (DeValue::Array(items), Some(index)) => match items.get(index) {
                Some(item) => {
                    place = Some(item.span());
                    let DeValue::Table(inner) = item.get_ref() else { break };
                    inner
                }
                None => break,
            },
            _ => break,
        };
    }
    place.unwrap_or_default()
}
