//! Places within a file: which key holds a mistake, and where a key is.
use std::ops::Range;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::read::Table;

/// One step into a table or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Item(usize),
}

/// The way to a value; empty: the whole file.
pub(super) type Path = Vec<Step>;

impl Step {
    /// Whether it is the key of that name.
    pub(super) fn is(&self, key: &str) -> bool {
        matches!(self, Self::Key(name) if name == key)
    }
}

/// The way to the innermost value that holds the place, or whose key does.
pub(super) fn innermost(table: &DeTable<'_>, at: &Range<usize>) -> Option<Path> {
    // A table's own place is that of its header, which may hold nothing of what is in it: look inside first.
    let is_key = table.keys().find(|key| key.span() == *at);
    if let Some(key) = is_key {
        return Some(vec![Step::Key(key.get_ref().to_string())]);
    }
    table.iter().find_map(|(key, value)| {
        let step = || Step::Key(key.get_ref().to_string());
        if let Some(inner) = within_value(value, at) {
            return Some([vec![step()], inner].concat());
        }
        holds(&key.span(), at).then(|| vec![step()])
    })
}

fn within_value(value: &Spanned<DeValue<'_>>, at: &Range<usize>) -> Option<Path> {
    let inside = match value.get_ref() {
        DeValue::Table(inner) => innermost(inner, at),
        DeValue::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| Some([vec![Step::Item(index)], within_value(item, at)?].concat())),
        _ => None,
    };
    inside.or_else(|| holds(&value.span(), at).then(Vec::new))
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end && !outer.is_empty()
}

/// The value there.
pub(super) fn value<'t, 'a>(table: &'t DeTable<'a>, path: &[Step]) -> Option<&'t Spanned<DeValue<'a>>> {
    let (first, rest) = path.split_first()?;
    let Step::Key(name) = first else { return None };
    let (_, start) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    rest.iter().try_fold(start, |value, step| match (value.get_ref(), step) {
        (DeValue::Table(inner), Step::Key(name)) => Some(inner.iter().find(|(key, _)| key.get_ref() == name)?.1),
        (DeValue::Array(items), Step::Item(index)) => items.get(*index),
        _ => None,
    })
}

/// The value there, to be changed.
pub(super) fn value_mut<'t, 'a>(table: &'t mut DeTable<'a>, path: &[Step]) -> Option<&'t mut Spanned<DeValue<'a>>> {
    let (first, rest) = path.split_first()?;
    let Step::Key(name) = first else { return None };
    let (_, start) = table.iter_mut().find(|(key, _)| key.get_ref() == name)?;
    rest.iter().try_fold(start, |value, step| match (value.get_mut(), step) {
        (DeValue::Table(inner), Step::Key(name)) => Some(inner.iter_mut().find(|(key, _)| key.get_ref() == name)?.1),
        (DeValue::Array(items), Step::Item(index)) => items.get_mut(*index),
        _ => None,
    })
}

/// Takes out what is there; tells whether there was something.
pub(super) fn remove(table: &mut DeTable<'_>, path: &[Step]) -> bool {
    let Some((last, above)) = path.split_last() else { return false };
    let holder = match above {
        [] => table,
        _ => match (value_mut(table, above).map(Spanned::get_mut), last) {
            (Some(DeValue::Table(inner)), _) => inner,
            (Some(DeValue::Array(items)), Step::Item(index)) if *index < items.len() => {
                let old = std::mem::replace(items, DeArray::new());
                *items =
                    old.into_iter().enumerate().filter(|(other, _)| other != index).map(|(_, item)| item).collect();
                return true;
            }
            _ => return false,
        },
    };
    let Step::Key(name) = last else { return false };
    let Some(key) = holder.keys().find(|key| key.get_ref() == name).cloned() else { return false };
    holder.remove(&key).is_some()
}

/// Whether the path leads to something in what `key` names, such as `source[0]`, or to it itself.
pub(super) fn within(path: &[Step], key: &str) -> bool {
    let written: String = path
        .iter()
        .map(|step| match step {
            Step::Key(name) => format!(".{name}"),
            Step::Item(index) => format!("[{index}]"),
        })
        .collect();
    let written = written.trim_start_matches('.');
    // What was taken out of a list is not there any more, and another item has its number.
    if written == key && matches!(path.last(), Some(Step::Item(_))) {
        return false;
    }
    key.is_empty() || written.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Where the value of a key such as `source[0].sqlite` is; of one that is not there, what would hold it.
pub(super) fn of(table: &Table<'_>, key: &str) -> Range<usize> {
    let mut place = Range::default();
    let mut rest = key;
    let mut table = table.get_ref();
    'steps: while !rest.is_empty() {
        // Names may have dots in them: the longest that is there is meant.
        let fits =
            |name: &str| rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let found = table.iter().filter(|(name, _)| fits(name.get_ref())).max_by_key(|(name, _)| name.get_ref().len());
        let Some((name, mut value)) = found else { break };
        rest = rest.get(name.get_ref().len()..).unwrap_or_default();
        place = if value.get_ref().is_table() { name.span() } else { value.span() };
        while let Some((index, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let item = value.get_ref().as_array().and_then(|items| items.get(index.parse::<usize>().ok()?));
            let Some(item) = item else { break 'steps };
            (place, value, rest) = (item.span(), item, after);
        }
        rest = rest.trim_start_matches('.');
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    place
}

/// Where a part of a text's value is written, when the text itself is written at `at`.
pub(super) fn inside(file: &str, at: &Range<usize>, part: &Range<usize>) -> Range<usize> {
    let Some(written) = file.get(at.clone()) else { return at.clone() };
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| written.starts_with(quote));
    let Some(quote) = quote else { return at.clone() };
    let mut start = quote.len();
    // A line break right behind three quotes is not part of the value.
    if quote.len() == 3 {
        start += written[start..].strip_prefix("\r\n").map_or(usize::from(written[start..].starts_with('\n')), |_| 2);
    }
    let has_escapes = quote.starts_with('"');
    let (mut value, mut found) = (0, [None; 2]);
    let mut rest = start;
    while rest < written.len() {
        let Some(letter) = written[rest..].chars().next() else { break };
        let (length, bytes) = match letter {
            '\\' if has_escapes => escape(&written[rest..]),
            letter => (letter.len_utf8(), letter.len_utf8()),
        };
        // What stands for nothing is not where something begins.
        for (wanted, place) in [part.start, part.end].into_iter().zip(&mut found).filter(|_| bytes > 0) {
            if value >= wanted && place.is_none() {
                *place = Some(rest);
            }
        }
        rest += length;
        value += bytes;
    }
    let end = written.len() - quote.len().min(written.len());
    let [first, last] = found.map(|place| at.start + place.unwrap_or(end).min(end));
    if first < last { first..last } else { first..first }
}

/// How long an escape is in the file, and how long what it stands for.
fn escape(written: &str) -> (usize, usize) {
    let long = |digits: usize| {
        let letter = written.get(2..2 + digits).and_then(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?));
        (2 + digits, letter.map_or(1, char::len_utf8))
    };
    match written.as_bytes().get(1) {
        Some(b'u') => long(4),
        Some(b'U') => long(8),
        Some(b'x') => long(2),
        // A backslash at a line's end takes all white space that follows.
        Some(b'\n' | b'\r' | b' ' | b'\t') => (1 + (written.len() - 1 - written[1..].trim_start().len()), 0),
        Some(_) => (1 + written[1..].chars().next().map_or(0, char::len_utf8), 1),
        None => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_is_found_where_it_is_written() {
        for (file, value, part, expected) in [
            (r#"k = "status = 200""#, "status = 200", "=", r#"="#),
            (r#"k = "body contains \"é\" and x""#, "body contains \"é\" and x", "x", "x"),
            (r#"k = "a \u00e9 \t b""#, "a é \t b", "b", "b"),
            ("k = 'it is'", "it is", "is", "is"),
            ("k = \"\"\"\nfirst\nsecond\"\"\"", "first\nsecond", "second", "second"),
            ("k = '''\na \\ b'''", "a \\ b", "b", "b"),
            ("k = \"\"\"a \\\n   b\"\"\"", "a b", "b", "b"),
        ] {
            let table: toml::Table = file.parse().unwrap();
            assert_eq!(table["k"].as_str(), Some(value), "{file}");
            let start = value.find(part).unwrap();
            let found = inside(file, &(4..file.len()), &(start..start + part.len()));
            assert_eq!(&file[found], expected, "{file}");
        }
        // What is missing at its end is missing before the last quote.
        assert_eq!(inside("k = \"a and \"", &(4..12), &(6..6)), 11..11);
    }
}
