//! Conditions and values as text: as they could have been written, and as they are told.
use std::{fmt, fmt::Write as _, time::Duration};

use super::{Condition, Counted, How, Literal, Node, Op, Test, What, Words};
use crate::{
    config::units::{Size, Span},
    text,
};

/// Of a value that was found so many characters are told.
const LONGEST: usize = 80;

/// A value that was found, in quotes, cut and without what would spoil a line.
pub(in crate::check) fn quoted(value: &str) -> String {
    let mut told = String::from("\"");
    let mut letters = value.trim().chars();
    for letter in letters.by_ref().take(LONGEST) {
        match letter {
            '"' => told.push_str("\\\""),
            letter if letter.is_whitespace() => told.push(' '),
            letter if letter.is_control() || is_invisible(letter) => told.push('\u{fffd}'),
            letter => told.push(letter),
        }
    }
    told.push_str(if letters.next().is_some() { "…\"" } else { "\"" });
    told
}

/// A text without what would spoil a line.
pub(super) fn visible(text: &str) -> String {
    let shown = |letter: char| if letter.is_control() || is_invisible(letter) { '\u{fffd}' } else { letter };
    text.chars().map(shown).collect()
}

/// What turns the direction of a text or takes no room.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A length of time for eyes, with its sign: `3 days`, `1.2 s`.
pub(in crate::check) fn long(length: Duration) -> String {
    match length.as_secs() / 86_400 {
        0 => text::duration(length),
        days => text::count(usize::try_from(days).unwrap_or(usize::MAX), "day"),
    }
}

impl Literal {
    /// For people: `< 800 ms`.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Span(span) => long(*span),
            Self::Size(size) => text::size(*size),
            Self::Text(text) => quoted(text),
            other => other.to_string(),
        }
    }
}

impl Op {
    pub(super) fn turned(self) -> Self {
        match self {
            Self::Equal => Self::Unequal,
            Self::Unequal => Self::Equal,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
        }
    }

    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Test {
    /// What was expected, for people: `< 800 ms`, `200`, `anything but 404`.
    pub(super) fn expected(&self) -> String {
        let not = if self.not { "not " } else { "" };
        match &self.how {
            How::There => format!("{not}to be there"),
            How::Compare(Op::Equal, literal) if !self.not => literal.told(),
            How::Compare(Op::Unequal, literal) if !self.not => format!("anything but {}", literal.told()),
            How::Compare(Op::Equal, literal) => format!("anything but {}", literal.told()),
            How::Compare(op, literal) => format!("{not}{} {}", op.sign(), literal.told()),
            How::Contains(words) => format!("{not}to contain {}", quoted(&words.text)),
            How::Matches(regex) => format!("{not}to match {}", quoted(regex.as_str())),
        }
    }
}

/// A text as it is written in a condition, with its quotes.
#[must_use]
pub fn write(text: &str) -> String {
    Written(text).to_string()
}

/// A text as it is written in a condition.
struct Written<'a>(&'a str);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for letter in self.0.chars() {
            match letter {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                letter => f.write_char(letter)?,
            }
        }
        f.write_char('"')
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Span(span) => write!(f, "{}", Span(*span)),
            Self::Size(size) => write!(f, "{}", Size(*size)),
            Self::Text(text) => write!(f, "{}", Written(text)),
            Self::Boolean(is) => write!(f, "{is}"),
            Self::Null => f.write_str("null"),
        }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Written(&self.text))
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => "status",
            Self::Time => "time",
            Self::Size => "size",
            Self::Certificate => "certificate",
            Self::Domain => "domain",
            Self::Http => "http",
            Self::Redirects => "redirects",
            Self::Redirect => "redirect",
            Self::Url => "url",
            Self::Address => "address",
            Self::Body => "body",
            Self::Answer => "answer",
            Self::Header(name) => return write!(f, "header({})", Written(name)),
            Self::Json(path) => return write!(f, "json({})", Written(path.text())),
            Self::Css(css) => return write!(f, "css({})", Written(&css.text)),
            Self::Count(counted) => {
                return match &**counted {
                    Counted::Text(words) => write!(f, "count({words})"),
                    Counted::Json(path) => write!(f, "count(json({}))", Written(path.text())),
                    Counted::Css(css) => write!(f, "count(css({}))", Written(&css.text)),
                    Counted::Answers => f.write_str("count(answer)"),
                };
            }
        })
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.not {
            f.write_str("not ")?;
        }
        match &self.how {
            How::There => write!(f, "{}", self.what),
            How::Compare(op, literal) => write!(f, "{} {} {literal}", self.what, op.sign()),
            How::Contains(words) => write!(f, "{} contains {words}", self.what),
            How::Matches(regex) => write!(f, "{} matches {}", self.what, Written(regex.as_str())),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, word) = match self {
            Self::Test(test) => return test.fmt(f),
            Self::All(parts) => (parts, " and "),
            Self::Any(parts) => (parts, " or "),
        };
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                f.write_str(word)?;
            }
            match part {
                Self::Test(test) => test.fmt(f)?,
                part => write!(f, "({part})")?,
            }
        }
        Ok(())
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
