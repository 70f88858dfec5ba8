//! Reads a table into a struct and finds every mistake in it, not just the first: what is wrong is taken out of the table,
//! and the rest is read again.
use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer, Error},
};

use super::{
    explain::{self, Known, Wrong},
    mistake::Problem,
    place::{self, Path, Step},
};

/// A file's table with the places of everything in it.
pub(super) type Table<'a> = Spanned<DeTable<'a>>;

/// A mistake and where it is in the text.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) at: Range<usize>,
    pub(super) problem: Problem,
}

/// What could be read.
#[derive(Debug)]
pub(super) struct Reading<'a, T> {
    /// The struct, even where there are mistakes, so that it can be looked at further; nothing, when a key is missing that
    /// cannot be done without.
    pub(super) value: Option<T>,
    /// The table without what was wrong.
    table: Table<'a>,
    taken_out: Vec<TakenOut>,
}

/// What was wrong, or is not known.
#[derive(Debug)]
struct TakenOut {
    path: Path,
    /// The key that was probably meant.
    meant: Option<String>,
}

/// Reads `table` with `parse`; tells all mistakes.
pub(super) fn read<'a, T>(
    mut table: Table<'a>,
    parse: impl Fn(Deserializer<'_>) -> Result<T, Error>,
    known: &Known<'_>,
    found: &mut Vec<Found>,
) -> Reading<'a, T> {
    let mut taken_out: Vec<TakenOut> = Vec::new();
    let value = loop {
        let error = match parse(Deserializer::from(table.clone())) {
            Ok(value) => break Some(value),
            Err(error) => error,
        };
        let at = error.span().unwrap_or_default();
        let mut path = place::innermost(table.get_ref(), &at).unwrap_or_default();
        // A list of tables is where its first item is.
        if error.message().starts_with("invalid type: sequence") && matches!(path.last(), Some(Step::Item(_))) {
            path.pop();
        }
        let value = place::value(table.get_ref(), &path);
        // A table or a list that had only what was wrong.
        let emptied = value.is_some_and(|value| is_empty(value.get_ref()))
            && taken_out.iter().any(|other| other.path.len() > path.len() && other.path.starts_with(&path));
        if emptied {
            // That has been told.
        } else if let Some(missing) = explain::missing(&error) {
            // It is not missing when it, or what was probably meant by it, was taken out.
            let is_it = |other: &TakenOut| {
                other.path.split_last().is_some_and(|(last, above)| {
                    above == path && (last.is(missing) || other.meant.as_deref() == Some(missing))
                })
            };
            if !taken_out.iter().any(is_it) {
                let problem = Problem::new("", format!("the key `{missing}` is missing"));
                let problem = if path.is_empty() { problem.hint(known.help) } else { problem };
                found.push(Found { at, problem });
            }
        } else {
            let probe = |path: &[Step], value| explain::probe(&table, &parse, path, value);
            let wrong = Wrong { error: &error, at: &at, path: &path, value, probe: &probe };
            let (problem, meant) = explain::explain(&wrong, known);
            found.push(Found { at: at.clone(), problem });
            taken_out.push(TakenOut { path: path.clone(), meant });
        }
        if !place::remove(table.get_mut(), &path) {
            break None;
        }
    };
    Reading { value, table, taken_out }
}

fn is_empty(value: &DeValue<'_>) -> bool {
    value.as_table().is_some_and(|table| table.is_empty()) || value.as_array().is_some_and(|items| items.is_empty())
}

impl<T> Reading<'_, T> {
    /// The places of problems that showed when the values were seen together; without those that only show because
    /// something was taken out.
    pub(super) fn place(&self, problems: Vec<Problem>) -> impl Iterator<Item = Found> {
        problems.into_iter().filter_map(|problem| {
            let follows = self.taken_out.iter().any(|other| place::within(&other.path, &problem.key));
            (!follows).then(|| Found { at: place::of(&self.table, &problem.key), problem })
        })
    }

    /// Whether a key was there, and wrong.
    pub(super) fn was_wrong(&self, key: &str) -> bool {
        self.taken_out.iter().any(|other| matches!(other.path.as_slice(), [Step::Key(name)] if name == key))
    }
}
