//! Serde's errors in words for a person: what is there, what is expected, and what was probably meant.
use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer, Error},
};

use super::{
    mistake::{Problem, nearest, quote, suggest},
    place::{self, Step},
    read::Table,
};

/// What is known beside the struct that is read.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Keys beside the struct's own, at the top of the file.
    pub(super) also: &'a [&'a str],
    /// Whose keys those are, such as `job`; empty: they belong to the struct's own.
    pub(super) whose: &'a str,
    /// The struct's keys that belong at the top of the file; asked for only when there is a mistake.
    pub(super) top: &'a dyn Fn() -> Vec<String>,
    /// Where to look when a key is missing.
    pub(super) help: &'a str,
}

/// A mistake, and all that is known of it.
pub(super) struct Wrong<'e> {
    pub(super) error: &'e Error,
    /// Where it is.
    pub(super) at: &'e Range<usize>,
    /// The way to the value that is wrong, or whose key is.
    pub(super) path: &'e [Step],
    /// That value.
    pub(super) value: Option<&'e Spanned<DeValue<'e>>>,
    /// What serde would say of another value in this place.
    pub(super) probe: &'e dyn Fn(&[Step], DeValue<'static>) -> Option<String>,
}

/// What other tools call it, and what it is called here.
const SYNONYMS: [(&str, &str); 41] = [
    ("address", "url"),
    ("arguments", "command"),
    ("at", "schedule"),
    ("bucket", "s3"),
    ("ca_file", "ca"),
    ("cmd", "command"),
    ("cron", "schedule"),
    ("cwd", "folder"),
    ("depends_on", "after"),
    ("destination", "bucket"),
    ("directory", "folder"),
    ("environment", "env"),
    ("every", "schedule"),
    ("exec", "command"),
    ("expect_contains", "contains"),
    ("expect_status", "status"),
    ("ignore", "exclude"),
    ("interval", "schedule"),
    ("locale", "time_zone"),
    ("memory_limit", "memory"),
    ("needs", "after"),
    ("nice", "niceness"),
    ("password", "secret_key"),
    ("path", "folder"),
    ("post", "after"),
    ("pre", "before"),
    ("prune", "keep"),
    ("ram", "memory"),
    ("repository", "bucket"),
    ("requires", "after"),
    ("retention", "keep"),
    ("retries", "retry"),
    ("run", "command"),
    ("script", "shell"),
    ("target", "bucket"),
    ("timeout", "patience"),
    ("type", "kind"),
    ("tz", "time_zone"),
    ("uri", "url"),
    ("user_name", "user"),
    ("working_directory", "folder"),
];

/// The key that is missing, if that is what is wrong.
pub(super) fn missing(error: &Error) -> Option<&str> {
    quoted(error.message(), "missing field `")
}

/// What is wrong, and the key that was probably meant.
pub(super) fn explain(wrong: &Wrong<'_>, known: &Known<'_>) -> (Problem, Option<String>) {
    let message = wrong.error.message().trim_end();
    if let Some(name) = quoted(message, "unknown field `") {
        return unknown_key(name, &list(message), wrong.path, known);
    }
    let problem = if let Some(word) = quoted(message, "unknown variant `") {
        unknown_word(word, &list(message), wrong)
    } else if let Some(rest) = message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: ")) {
        let (is, expected) = rest.split_once(", expected ").unwrap_or((rest, "something else"));
        if is == "unit variant" { needs_a_value(wrong) } else { unfit(is, expected, wrong) }
    } else if message.starts_with("wanted ") || message.starts_with("expected ") {
        one_of(wrong)
    } else {
        // The units say it in full sentences: what is wrong, then how to mend it.
        match [": write ", ": use "].iter().find_map(|mend| message.split_once(mend).map(|parts| (mend, parts))) {
            Some((mend, (wrong, how))) => {
                Problem::new("", wrong).hint(format!("{}{how}", mend.trim_start_matches(": ")))
            }
            None => Problem::new("", message),
        }
    };
    (problem, None)
}

fn unknown_key(name: &str, expected: &[&str], path: &[Step], known: &Known<'_>) -> (Problem, Option<String>) {
    let problem = Problem::new("", format!("unknown key `{name}`"));
    let at_the_top = path.len() <= 1;
    let also: &[&str] = if at_the_top { known.also } else { &[] };
    let all: Vec<&str> = expected.iter().chain(also).copied().collect();
    let other_tool = synonym(name).filter(|meant| all.contains(meant));
    let meant = other_tool.or_else(|| nearest(name, &all)).map(str::to_owned);
    let of_the_top = || !at_the_top && (known.also.contains(&name) || (known.top)().iter().any(|key| key == name));
    let hint = match &meant {
        _ if other_tool.is_none() && of_the_top() => {
            format!("`{name}` belongs to the file as a whole: write it above the first line in [brackets]")
        }
        Some(meant) => format!("did you mean `{meant}`?"),
        None if expected.is_empty() => "no key is known here".to_owned(),
        None if also.is_empty() || known.whose.is_empty() => format!("the keys here are {}", quote(&all)),
        None => format!("the keys here are {}\nand those of every {}: {}", quote(expected), known.whose, quote(also)),
    };
    (problem.hint(hint), meant)
}

/// What another tool's word for a key is here.
pub(super) fn synonym(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    SYNONYMS.iter().find(|(other, _)| *other == name).map(|(_, here)| *here)
}

fn unknown_word(word: &str, expected: &[&str], wrong: &Wrong<'_>) -> Problem {
    let is_key = wrong.value.is_none_or(|value| value.span() != *wrong.at);
    match (expected, is_key) {
        (PLACES, false) => Problem::new("", "a secret does not stand in the file itself").hint(SECRETS),
        (PLACES, true) => Problem::new("", format!("a secret does not come from `{word}`"))
            .hint(nearest(word, expected).map_or(SECRETS.to_owned(), |near| format!("did you mean `{near}`?"))),
        _ => Problem::new("", format!("`{word}` is not known here")).hint(suggest(word, expected, "choose one of")),
    }
}

const PLACES: &[&str] = &["env", "file", "command"];
const SECRETS: &str =
    "write `{ env = \"NAME\" }`, `{ file = \"path\" }` or `{ command = [\"program\", \"argument\"] }`";

/// A value of another type, or beyond what its type holds.
fn unfit(is: &str, expected: &str, wrong: &Wrong<'_>) -> Problem {
    let value = wrong.value.map(Spanned::get_ref);
    let is = if is == "sequence" { "a list".to_owned() } else { value.map_or_else(|| is.to_owned(), is_now) };
    let problem = Problem::new("", format!("expected {}, and this is {is}", wanted(expected)));
    let table = matches!(expected, "a map" | "map") || expected.starts_with("struct ");
    let hint = match (value, wrong.path) {
        (Some(DeValue::String(text)), _) if expected == "a boolean" && matches!(&**text, "true" | "false") => {
            "write it without quotes".to_owned()
        }
        (Some(DeValue::Table(_)), [.., Step::Key(name)]) if expected.ends_with("sequence") => {
            format!("write `[[{name}]]`, with two brackets on each side, or a list in `[…]`")
        }
        (Some(value), _) if expected.ends_with("sequence") => match in_a_list(value, wrong) {
            Some(list) => format!("write `{list}`"),
            None => return problem,
        },
        (Some(DeValue::Integer(number)), _) if expected.starts_with("a length of time") => {
            format!("if seconds are meant, write `\"{number}s\"`")
        }
        (Some(DeValue::Integer(number)), _) if expected.starts_with("a share") => format!("write `\"{number}%\"`"),
        (_, [Step::Key(top), ..]) if table && top == "bucket" => {
            "a bucket has a name: write `[bucket.nas]` above its keys".to_owned()
        }
        (_, path) if table => match (wrong.probe)(path, DeValue::Table(one_unknown_key())) {
            Some(said) if said.starts_with("unknown field `") => {
                format!("write `{{ … }}`; it takes {}", quote(&list(&said)))
            }
            _ => "write it as in `{ NAME = \"value\" }`".to_owned(),
        },
        _ => return problem,
    };
    problem.hint(hint)
}

/// The value as a list, where that would do: a line for a command is one argument each.
fn in_a_list(value: &DeValue<'_>, wrong: &Wrong<'_>) -> Option<String> {
    let DeValue::String(text) = value else {
        return value.as_integer().map(|number| format!("[{number}]"));
    };
    let parts: Vec<&str> = text.split_whitespace().collect();
    let tried = |part: &&str| Spanned::new(0..0, DeValue::String((*part).to_owned().into()));
    match (wrong.probe)(wrong.path, DeValue::Array(parts.iter().map(tried).collect())) {
        None => Some(format!("{parts:?}")),
        Some(said) if said.contains("expected struct") => match wrong.path.last() {
            Some(Step::Key(name)) => Some(format!("[[{name}]]` and its keys below it, such as `path = \"/srv\"")),
            _ => None,
        },
        Some(_) => None,
    }
}

fn one_unknown_key() -> DeTable<'static> {
    let mut table = DeTable::new();
    table.insert(Spanned::new(0..0, "?".into()), Spanned::new(0..0, DeValue::Boolean(true)));
    table
}

/// A word such as `all`, alone, that goes with a value.
fn needs_a_value(wrong: &Wrong<'_>) -> Problem {
    let word = wrong.value.and_then(|value| value.get_ref().as_str()).unwrap_or_default();
    if let [Step::Key(table)] = wrong.path
        && table == "provider"
    {
        return Problem::new("", format!("`{word}` has keys of its own"))
            .hint(format!("write `[{table}.{word}]`, and its keys below it"));
    }
    let example = match word {
        "all" => "5",
        "command" => "[\"pass\", \"show\", \"s3\"]",
        _ => "\"…\"",
    };
    Problem::new("", format!("`{word}` needs a value")).hint(format!("write `{{ {word} = {example} }}`"))
}

/// Something that is neither one of the words nor a table with one of them.
fn one_of(wrong: &Wrong<'_>) -> Problem {
    let value = wrong.value.map(Spanned::get_ref);
    let is = value.map_or_else(|| "something else".to_owned(), is_now);
    let words = |path: &[Step]| {
        let said = (wrong.probe)(path, DeValue::String("?".into())).filter(|said| said.starts_with("unknown variant"));
        said.map(|said| list(&said).into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    if let Some((Step::Key(word), above)) = wrong.path.split_last()
        && words(above).is_some_and(|words| words.contains(word))
    {
        return Problem::new("", format!("`{word}` takes no value")).hint(format!("write `\"{word}\"`"));
    }
    let words = words(wrong.path).unwrap_or_default();
    if let Some(DeValue::Table(table)) = value
        && table.len() > 1
        && table.keys().all(|key| words.iter().any(|word| *word == **key.get_ref()))
        && !PLACES.iter().any(|place| words.iter().any(|word| word == place))
    {
        let keys: Vec<&str> = table.keys().map(|key| &**key.get_ref()).collect();
        return Problem::new("", format!("only one of {} belongs here", quote(&keys))).hint("keep one of them");
    }
    let words: Vec<&str> = words.iter().map(|word| if word == "all" { "{ all = 5 }" } else { word }).collect();
    match (value, words.as_slice()) {
        (Some(DeValue::Table(table)), PLACES) if table.len() > 1 => {
            Problem::new("", "a secret comes from one place").hint(SECRETS)
        }
        (_, PLACES) => Problem::new("", format!("expected a secret, and this is {is}")).hint(SECRETS),
        (_, []) => Problem::new("", format!("{is} does not fit here")),
        (_, words) => Problem::new("", format!("expected one word, and this is {is}"))
            .hint(format!("choose one of {}", quote(words))),
    }
}

/// What a value is, for "this is …".
fn is_now(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 40 => {
            format!("the text \"{}…\"", text.chars().take(40).collect::<String>().escape_debug())
        }
        DeValue::String(text) => format!("the text \"{}\"", text.escape_debug()),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => format!("`{value}`"),
        DeValue::Datetime(_) => "a date or a time".to_owned(),
        DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(table) if table.is_empty() => "an empty table".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// What serde expects, for "expected …".
fn wanted(expected: &str) -> String {
    let words = match expected {
        "a string" | "string" | "str" => "a text in quotes",
        "path string" => "a path in quotes",
        "a boolean" => "`true` or `false`",
        "a sequence" | "sequence" => "a list",
        "a map" | "map" => "a table",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        // Only a secret is read as either a text or a table with one key.
        "enum" => "a secret such as `{ env = \"NAME\" }`",
        _ if expected.starts_with("a nonzero ") => "a whole number, at least 1",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    };
    words.to_owned()
}

/// What serde says when `value` stands where `path` leads.
pub(super) fn probe<T>(
    table: &Table<'_>,
    parse: impl Fn(Deserializer<'_>) -> Result<T, Error>,
    path: &[Step],
    value: DeValue<'static>,
) -> Option<String> {
    let mut table = table.clone();
    *place::value_mut(table.get_mut(), path)?.get_mut() = value;
    parse(Deserializer::from(table)).err().map(|error| error.message().to_owned())
}

/// The words after "expected" of serde's message.
fn list(message: &str) -> Vec<&str> {
    message.split_once("expected ").map_or("", |(_, list)| list).split('`').skip(1).step_by(2).collect()
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.split('`').next()
}
