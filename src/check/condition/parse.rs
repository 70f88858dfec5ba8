//! Reads the language of conditions; says what is wrong, where, and what was probably meant.
use std::{ops::Range, str::FromStr as _, sync::Arc};

use super::{
    Condition, Counted, Css, How, JsonPath, Literal, Node, Op, REGEX_SIZE, Subject, Test, What, Words,
    fits::{example, fits},
    tokens::{Token, tokens},
};
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
    pub(super) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
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
            let goes_on = ["and", "or", "not", "contains", "matches"].contains(&more.as_str());
            if goes_on || super::EVERYTHING.words.contains(&more.as_str()) {
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
