//! The words, numbers, texts and signs of a condition, each with its place.
use std::ops::Range;

use super::Wrong;

/// A word of the language.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    /// A number with what is written behind it: `14d`, `200`, `2xx`.
    Number(String),
    Sign(&'static str),
    Open,
    Close,
    Comma,
    End,
}

/// Cuts a condition into its words; the last is always the end.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, Wrong> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(letter) = text[at..].chars().next() {
        let rest = &text[at..];
        let while_ = |fits: fn(char) -> bool| rest.find(|letter| !fits(letter)).unwrap_or(rest.len());
        let (token, length) = match letter {
            letter if letter.is_whitespace() => {
                at += letter.len_utf8();
                continue;
            }
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '"' | '\'' => string(rest, letter, at)?,
            '0'..='9' => {
                let length = while_(|letter| letter.is_alphanumeric() || matches!(letter, '.' | '%'));
                (Token::Number(rest[..length].to_owned()), length)
            }
            '-' if rest[1..].starts_with(|letter: char| letter.is_ascii_digit()) => {
                let length = 1 + rest[1..]
                    .find(|letter: char| !letter.is_alphanumeric() && letter != '.')
                    .unwrap_or(rest.len() - 1);
                (Token::Number(rest[..length].to_owned()), length)
            }
            '=' | '!' | '<' | '>' | '&' | '|' | '~' => sign(rest, at)?,
            letter if letter.is_alphabetic() || letter == '_' => {
                let length = while_(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-'));
                (Token::Word(rest[..length].to_owned()), length)
            }
            letter => {
                return Err(Wrong::new(at..at + letter.len_utf8(), format!("`{letter}` means nothing here"))
                    .hint("a text stands in quotes, as in `body contains \"Welcome\"`"));
            }
        };
        found.push((token, at..at + length));
        at += length;
    }
    found.push((Token::End, text.len()..text.len()));
    Ok(found)
}

fn sign(rest: &str, at: usize) -> Result<(Token, usize), Wrong> {
    if let Some(sign) = ["==", "!=", "<=", ">="].into_iter().find(|sign| rest.starts_with(sign)) {
        return Ok((Token::Sign(sign), 2));
    }
    if let Some(sign) = ["<", ">"].into_iter().find(|sign| rest.starts_with(sign)) {
        return Ok((Token::Sign(sign), 1));
    }
    let meant = [
        ("&&", "and"),
        ("&", "and"),
        ("||", "or"),
        ("|", "or"),
        ("=~", "matches"),
        ("=", "=="),
        ("!~", "not … matches"),
        ("!", "not"),
        ("~", "matches"),
    ];
    let (sign, meant) = meant.into_iter().find(|(sign, _)| rest.starts_with(sign)).unwrap_or(("=", "=="));
    Err(Wrong::new(at..at + sign.len(), format!("`{sign}` is not known here")).hint(format!("write `{meant}`")))
}

fn string(rest: &str, quote: char, at: usize) -> Result<(Token, usize), Wrong> {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1);
    while let Some((index, letter)) = letters.next() {
        if letter == quote {
            return Ok((Token::Text(text), index + 1));
        }
        if letter != '\\' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some((_, 'n')) => text.push('\n'),
            Some((_, 'r')) => text.push('\r'),
            Some((_, 't')) => text.push('\t'),
            Some((_, letter @ ('"' | '\'' | '\\'))) => text.push(letter),
            // A pattern such as `\d+` keeps what it is written with.
            Some((_, letter)) => text.extend(['\\', letter]),
            None => {}
        }
    }
    Err(Wrong::new(at..at + rest.len(), "this text has no end").hint(format!("a `{quote}` is missing")))
}
