//! Reads the language of conditions; says what is wrong, where, and what was probably meant.
use std::{ops::Range, str::FromStr as _, sync::Arc};

use super::{Condition, Counted, Css, How, JsonPath, Literal, Node, Op, REGEX_SIZE, Subject, Test, What, Words};
use crate::config::{
    mistake::suggest,
    units::{Size, Span},
};

/// A longer condition is not one that a person reads.
const LONGEST: usize = 16 << 10;
/// Nor one with more brackets within each other.
const DEEPEST: usize = 50;

/// What is wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where: bytes of the text.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl Wrong {
    fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
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

/// Reads a condition.
pub(super) fn condition(text: &str, subject: &Subject) -> Result<Condition, Wrong> {
    if text.len() > LONGEST {
        return Err(Wrong::new(0..text.len(), format!("a condition may have {LONGEST} letters, and this has more")));
    }
    let tokens = tokens(text)?;
    if tokens.len() == 1 {
        return Err(
            Wrong::new(0..text.len(), "there is no condition").hint("write it as in `status == 200 and time < 2s`")
        );
    }
    let mut reader = Reader { tokens, next: 0, subject, depth: 0 };
    let node = reader.any(false)?;
    match reader.peek() {
        (Token::End, _) => Ok(Condition(Arc::new(node))),
        (Token::Close, at) => Err(Wrong::new(at, "this `)` closes nothing")),
        (_, at) => Err(Wrong::new(at, "expected `and` or `or` here")),
    }
}

fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, Wrong> {
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

struct Reader<'s> {
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
    subject: &'s Subject,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> (Token, Range<usize>) {
        // The last token, the end, is never taken.
        self.tokens.get(self.next).cloned().unwrap_or((Token::End, 0..0))
    }

    fn take(&mut self) -> (Token, Range<usize>) {
        let token = self.peek();
        if token.0 != Token::End {
            self.next += 1;
        }
        token
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek().0, Token::Word(found) if found == word);
        self.next += usize::from(is_it);
        is_it
    }

    /// `… or …`; of what is denied each `or` becomes an `and`.
    fn any(&mut self, not: bool) -> Result<Node, Wrong> {
        let mut parts = vec![self.all(not)?];
        while self.takes("or") {
            parts.push(self.all(not)?);
        }
        Ok(joined(parts, !not))
    }

    fn all(&mut self, not: bool) -> Result<Node, Wrong> {
        let mut parts = vec![self.one(not)?];
        while self.takes("and") {
            parts.push(self.one(not)?);
        }
        Ok(joined(parts, not))
    }

    fn one(&mut self, not: bool) -> Result<Node, Wrong> {
        let (_, at) = self.peek();
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Wrong::new(at, format!("this is nested more than {DEEPEST} deep")));
        }
        let node = if self.takes("not") {
            self.one(!not)?
        } else if self.peek().0 == Token::Open {
            let (_, open) = self.take();
            let node = self.any(not)?;
            match self.take() {
                (Token::Close, _) => node,
                (Token::End, _) => return Err(Wrong::new(open, "this `(` is never closed")),
                (_, at) => return Err(Wrong::new(at, "expected `and`, `or` or `)` here")),
            }
        } else {
            Node::Test(self.test(not)?)
        };
        self.depth -= 1;
        Ok(node)
    }

    fn test(&mut self, not: bool) -> Result<Test, Wrong> {
        let (what, at) = self.what()?;
        let (token, sign_at) = self.peek();
        let op = match token {
            Token::Sign(sign) => match sign {
                "==" => Op::Equal,
                "!=" => Op::Unequal,
                "<" => Op::Less,
                "<=" => Op::LessOrEqual,
                ">" => Op::Greater,
                _ => Op::GreaterOrEqual,
            },
            Token::Word(word) if matches!(word.as_str(), "contains" | "matches") => {
                self.take();
                let how = self.about_text(&word, &what, sign_at)?;
                return Ok(Test { what, how, not });
            }
            Token::Word(word) if !matches!(word.as_str(), "and" | "or") => {
                let hint = suggest(&word, &["contains", "matches", "and", "or"], "expected `==`, `<`, … or one of");
                return Err(Wrong::new(sign_at, format!("`{word}` is not known here")).hint(hint));
            }
            _ if matches!(what, What::Header(_) | What::Json(_) | What::Css(_) | What::Redirect | What::Answer) => {
                return Ok(Test { what, how: How::There, not });
            }
            _ => {
                let hint = example(&what);
                return Err(
                    Wrong::new(at, format!("`{what}` alone is no condition")).hint(format!("write it as in `{hint}`"))
                );
            }
        };
        self.take();
        let (literal, literal_at) = self.literal()?;
        fits(&what, op, &literal, &sign_at, &literal_at)?;
        // Of one value that is always there, the opposite of a comparison is another.
        let is_plain = !matches!(
            what,
            What::Header(_) | What::Json(_) | What::Css(_) | What::Answer | What::Redirect | What::Address | What::Url
        );
        let (op, not) = if not && is_plain { (op.turned(), false) } else { (op, not) };
        Ok(Test { what, how: How::Compare(op, literal), not })
    }

    fn about_text(&mut self, word: &str, what: &What, at: Range<usize>) -> Result<How, Wrong> {
        if !matches!(
            what,
            What::Body
                | What::Header(_)
                | What::Json(_)
                | What::Css(_)
                | What::Redirect
                | What::Url
                | What::Answer
                | What::Address
        ) {
            let hint = format!("write it as in `{}`", example(what));
            return Err(Wrong::new(at, format!("`{what}` is no text, and only a text {word} something")).hint(hint));
        }
        let (text, at) = self.text()?;
        if word == "contains" {
            if text.is_empty() {
                return Err(Wrong::new(at, "everything contains this: it is empty"));
            }
            return Ok(How::Contains(Words::new(text)));
        }
        pattern(&text).map(How::Matches).map_err(|why| Wrong::new(at, why))
    }

    fn what(&mut self) -> Result<(What, Range<usize>), Wrong> {
        let (token, at) = self.take();
        let word = match token {
            Token::Word(word) => word,
            Token::End => return Err(Wrong::new(at, "here the condition ends, and something is missing")),
            Token::Text(_) => {
                return Err(
                    Wrong::new(at, "a text alone is no condition").hint("write it as in `body contains \"Welcome\"`")
                );
            }
            _ => return Err(Wrong::new(at, "expected a value such as `status`, `time` or `body` here")),
        };
        if !self.subject.words.contains(&word.as_str()) {
            let known = super::EVERYTHING.words.contains(&word.as_str());
            let message = if known {
                format!("{} has no `{word}`", self.subject.name)
            } else {
                format!("`{word}` is not known here")
            };
            return Err(Wrong::new(at, message).hint(suggest(&word, self.subject.words, "what can be asked is")));
        }
        let what = match word.as_str() {
            "status" => What::Status,
            "time" => What::Time,
            "size" => What::Size,
            "certificate" => What::Certificate,
            "domain" => What::Domain,
            "http" => What::Http,
            "redirects" => What::Redirects,
            "redirect" => What::Redirect,
            "url" => What::Url,
            "address" => What::Address,
            "body" => What::Body,
            "answer" => What::Answer,
            "count" => return self.count(at),
            _ => {
                let (name, name_at) = self.argument(&word, &at)?;
                match word.as_str() {
                    "header" => What::Header(header(&name).map_err(|why| Wrong::new(name_at, why))?),
                    "json" => What::Json(json_path(&name, &name_at)?),
                    _ => What::Css(css(&name).map_err(|why| Wrong::new(name_at, why))?),
                }
            }
        };
        Ok((what, at))
    }

    /// `("…")`.
    fn argument(&mut self, word: &str, at: &Range<usize>) -> Result<(String, Range<usize>), Wrong> {
        let missing = || {
            Wrong::new(at.clone(), format!("`{word}` needs to know of what")).hint(match word {
                "header" => "write it as in `header(\"content-type\") contains \"html\"`",
                "json" => "write it as in `json(\"$.status\") == \"ok\"`",
                _ => "write it as in `css(\"h1\") == \"Welcome\"`",
            })
        };
        if self.peek().0 != Token::Open {
            return Err(missing());
        }
        self.take();
        if !matches!(self.peek().0, Token::Text(_)) {
            return Err(missing());
        }
        let text = self.text()?;
        self.closes()?;
        Ok(text)
    }

    fn closes(&mut self) -> Result<(), Wrong> {
        match self.take() {
            (Token::Close, _) => Ok(()),
            (_, at) => Err(Wrong::new(at, "expected `)` here")),
        }
    }

    fn count(&mut self, at: Range<usize>) -> Result<(What, Range<usize>), Wrong> {
        let hint = "write it as in `count(css(\"li\")) >= 3`, `count(\"Welcome\") == 1`";
        let missing = |at: Range<usize>| Wrong::new(at, "`count` needs to know of what").hint(hint);
        if self.peek().0 != Token::Open {
            return Err(missing(at));
        }
        self.take();
        let counted = match self.peek() {
            (Token::Text(text), at) => {
                self.take();
                if text.is_empty() {
                    return Err(Wrong::new(at, "nothing can be counted that is empty"));
                }
                if !self.subject.words.contains(&"body") {
                    return Err(Wrong::new(at, format!("{} has no text in which this could be", self.subject.name)));
                }
                Counted::Text(Words::new(text))
            }
            (_, inside) => match self.what()?.0 {
                What::Json(path) => Counted::Json(path),
                What::Css(css) => Counted::Css(css),
                What::Answer => Counted::Answers,
                what => return Err(Wrong::new(inside, format!("`{what}` cannot be counted")).hint(hint)),
            },
        };
        self.closes()?;
        Ok((What::Count(Box::new(counted)), at))
    }

    fn text(&mut self) -> Result<(String, Range<usize>), Wrong> {
        match self.take() {
            (Token::Text(text), at) => Ok((text, at)),
            (_, at) => Err(Wrong::new(at, "expected a text in quotes here")),
        }
    }

    fn literal(&mut self) -> Result<(Literal, Range<usize>), Wrong> {
        let (token, at) = self.take();
        let literal = match token {
            Token::Text(text) => Literal::Text(text),
            Token::Word(word) if word == "true" || word == "false" => Literal::Boolean(word == "true"),
            Token::Word(word) if word == "null" => Literal::Null,
            Token::Number(number) => return self.number(number, at),
            Token::End => return Err(Wrong::new(at, "here the condition ends, and a value is missing")),
            _ => {
                return Err(Wrong::new(at, "expected a value here").hint(
                    "a text stands in quotes; a number, a time such as `800ms` or a size such as `2 KiB` does not",
                ));
            }
        };
        Ok((literal, at))
    }

    /// A number, or more of them with units: `1h 30m`, `2 GiB`.
    fn number(&mut self, first: String, mut at: Range<usize>) -> Result<(Literal, Range<usize>), Wrong> {
        if let Some(class) =
            first.strip_suffix("xx").and_then(|class| class.parse().ok()).filter(|class| (1..=5).contains(class))
        {
            return Ok((Literal::Class(class), at));
        }
        let mut text = first;
        loop {
            let (more, more_at) = match self.peek() {
                (Token::Word(unit), at) if text.ends_with(|letter: char| letter.is_ascii_digit()) => (unit, at),
                (Token::Number(number), at) if text.ends_with(char::is_alphabetic) => (number, at),
                _ => break,
            };
            if matches!(more.as_str(), "and" | "or") {
                break;
            }
            self.take();
            text = format!("{text} {more}");
            at.end = more_at.end;
        }
        let literal = if let Some(number) = text.parse().ok().filter(|number: &f64| number.is_finite()) {
            Literal::Number(number)
        } else if let Ok(span) = Span::from_str(&text) {
            Literal::Span(span.0)
        } else if let Ok(size) = Size::from_str(&text) {
            Literal::Size(size.0)
        } else {
            return Err(Wrong::new(at, format!("`{text}` is neither a number nor a time or a size"))
                .hint("write a time as in `800ms`, `2s`, `14d`, and a size as in `500 kB`, `2 MiB`"));
        };
        Ok((literal, at))
    }
}

fn joined(mut parts: Vec<Node>, any: bool) -> Node {
    match (parts.len(), any) {
        (1, _) => parts.remove(0),
        (_, true) => Node::Any(parts),
        (_, false) => Node::All(parts),
    }
}

/// How a value is used.
fn example(what: &What) -> &'static str {
    match what {
        What::Status => "status == 200",
        What::Time => "time < 800ms",
        What::Size => "size > 2 KiB",
        What::Certificate => "certificate > 14d",
        What::Domain => "domain > 30d",
        What::Http => "http >= 2",
        What::Redirects => "redirects == 0",
        What::Redirect => "redirect == \"https://example.org/\"",
        What::Url => "url contains \"/login\"",
        What::Address => "address == \"192.0.2.1\"",
        What::Body => "body contains \"Welcome\"",
        What::Answer => "answer == \"192.0.2.1\"",
        What::Header(_) => "header(\"content-type\") contains \"html\"",
        What::Json(_) => "json(\"$.status\") == \"ok\"",
        What::Css(_) => "css(\"h1\") == \"Welcome\"",
        What::Count(_) => "count(css(\"li\")) >= 3",
    }
}

/// Whether a value can be compared with that at all.
fn fits(what: &What, op: Op, literal: &Literal, op_at: &Range<usize>, at: &Range<usize>) -> Result<(), Wrong> {
    let is_order = !matches!(op, Op::Equal | Op::Unequal);
    let wanted = match (what, literal) {
        (What::Status, Literal::Class(_)) if is_order => {
            return Err(Wrong::new(op_at.clone(), "a class of statuses is neither less nor more")
                .hint(format!("write `status == {literal}` or `status < 300`")));
        }
        (What::Status, Literal::Number(number)) if !(100.0..=599.0).contains(number) => {
            return Err(Wrong::new(at.clone(), format!("{number} is no HTTP status")).hint("they go from 100 to 599"));
        }
        (What::Status, Literal::Number(_) | Literal::Class(_))
        | (What::Http | What::Redirects | What::Count(_), Literal::Number(_))
        | (What::Time | What::Certificate | What::Domain, Literal::Span(_))
        | (What::Size, Literal::Size(_))
        | (What::Redirect | What::Url | What::Address | What::Body | What::Answer, Literal::Text(_))
        | (What::Header(_) | What::Css(_), Literal::Text(_) | Literal::Number(_))
        | (What::Json(_), Literal::Text(_) | Literal::Number(_) | Literal::Boolean(_) | Literal::Null) => return Ok(()),
        (What::Status, _) => "a status such as `200` or `2xx`",
        (What::Http | What::Redirects | What::Count(_), _) => "a number",
        (What::Time, _) => "a length of time such as `800ms` or `2s`",
        (What::Certificate | What::Domain, _) => "a length of time such as `14d`",
        (What::Size, _) => "a size such as `500 kB` or `2 MiB`",
        (What::Json(_), _) => "a text, a number, `true`, `false` or `null`",
        (What::Header(_) | What::Css(_), _) => "a text or a number",
        _ => "a text in quotes",
    };
    Err(Wrong::new(at.clone(), format!("`{what}` is compared with {wanted}"))
        .hint(format!("write it as in `{}`", example(what))))
}

/// A pattern that is not too large.
pub(super) fn pattern(text: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(text).size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).nest_limit(50).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => "this pattern is too large".to_owned(),
            error => {
                let said = error.to_string();
                let why = said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                format!("this is no pattern: {why}")
            }
        },
    )
}

/// A header's name in lower case.
pub(super) fn header(name: &str) -> Result<String, String> {
    hyper::header::HeaderName::try_from(name)
        .map(|name| name.as_str().to_owned())
        .map_err(|_| format!("`{name}` cannot be a header's name"))
}

pub(super) fn css(text: &str) -> Result<Css, String> {
    match scraper::Selector::parse(text) {
        Ok(selector) => Ok(Css { text: text.to_owned(), selector: Arc::new(selector) }),
        Err(_) => Err("this is no CSS selector".to_owned()),
    }
}

fn json_path(text: &str, at: &Range<usize>) -> Result<JsonPath, Wrong> {
    JsonPath::parse(text).map_err(|(_, why)| Wrong::new(at.clone(), why))
}
