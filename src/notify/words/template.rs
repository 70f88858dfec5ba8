//! Words of the owner's own: a text with `{names}`.
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::config::mistake::suggest;

/// What a template may name.
const NAMES: [&str; 16] = [
    "title", "line", "what", "name", "job", "host", "event", "severity", "since", "at", "when", "lasted", "cause",
    "offer", "command", "lines",
];

/// A text with names in braces; `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name(String),
}

impl Template {
    /// The text, with the values of its names. Lines that only empty values made empty are left out.
    pub(super) fn write(&self, value: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(words) => text.push_str(words),
                Piece::Name(name) => text.push_str(&value(name)),
            }
        }
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines.join("\n")
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut words = String::new();
        let mut letters = text.chars().enumerate().peekable();
        while let Some((at, letter)) = letters.next() {
            let twice = letters.peek().is_some_and(|(_, next)| *next == letter);
            match letter {
                '{' | '}' if twice => {
                    letters.next();
                    words.push(letter);
                }
                '{' => {
                    let name: String =
                        letters.by_ref().map(|(_, letter)| letter).take_while(|letter| *letter != '}').collect();
                    // Whether it was closed shows in what was read: all of the rest, or a name.
                    if !text.chars().skip(at).any(|letter| letter == '}') {
                        return Err(format!(
                            "at character {} a `{{` is not closed; two of them, `{{{{`, stand for one",
                            at + 1
                        ));
                    }
                    let name = name.trim();
                    if !NAMES.contains(&name) {
                        let message = format!("at character {} there is no `{{{name}}}` to be had", at + 1);
                        return Err(format!("{message}: {}", suggest(name, &NAMES, "the names are")));
                    }
                    if !words.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut words)));
                    }
                    pieces.push(Piece::Name(name.to_owned()));
                }
                '}' => {
                    return Err(format!(
                        "at character {} a `}}` closes nothing; two of them, `}}}}`, stand for one",
                        at + 1
                    ));
                }
                letter => words.push(letter),
            }
        }
        if !words.is_empty() {
            pieces.push(Piece::Text(words));
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Name(_))) {
            return Err("these words say the same whatever happens: use `{line}`, or `{title}` and `{what}`".to_owned());
        }
        Ok(Self(pieces))
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::super::settings::from_text(deserializer, "words in quotes, such as `\"{title}: {what}\"`")
    }
}

impl JsonSchema for Template {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "examples": ["{title}: {what}"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_fills_in_names_and_leaves_out_empty_lines() {
        let template: Template = "[{host}] {title} {{{what}}}\n{cause}\nsee {command}".parse().unwrap();
        let value = |name: &str| match name {
            "host" => "attic".to_owned(),
            "cause" => String::new(),
            name => name.to_uppercase(),
        };
        assert_eq!(template.write(value), "[attic] TITLE {WHAT}\nsee COMMAND");
    }

    #[test]
    fn mistakes_have_their_place() {
        for (text, expected) in [
            ("a {titel}", "at character 3 there is no `{titel}` to be had: did you mean `title`?"),
            ("a {title", "at character 3 a `{` is not closed"),
            ("日本 }", "at character 4 a `}` closes nothing"),
            ("hello", "these words say the same whatever happens"),
            ("", "these words say the same whatever happens"),
        ] {
            let said = text.parse::<Template>().unwrap_err();
            assert!(said.starts_with(expected), "{text}: {said}");
        }
    }
}
