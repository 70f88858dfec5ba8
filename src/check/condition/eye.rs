//! Looks whether a condition holds of what was found, and says what does not.
use std::{cell::OnceCell, net::IpAddr, time::Duration};

use scraper::Html;
use serde_json::Value;

use super::{
    Counted, Css, How, JsonPath, Literal, Node, Op, Test, What, html,
    told::{long, quoted, visible},
};
use crate::{model::watch::Trouble, text};

/// So many are counted.
const MOST_COUNTED: usize = 1_000_000;

/// What a look found. What is not known is none; a condition about it does not hold.
pub struct Found<'a> {
    /// The HTTP status.
    pub status: Option<u16>,
    /// Until all was there.
    pub time: Duration,
    /// Bytes of the body after decompression, as far as it was read.
    pub size: Option<u64>,
    /// Seconds until the first certificate of the chain ends; negative when it has.
    pub certificate: Option<i64>,
    /// Seconds until the domain's registration ends; negative when it has.
    pub domain: Option<i64>,
    /// 1.0, 1.1, 2.
    pub http: Option<f64>,
    /// Redirects that were followed.
    pub redirects: Option<u64>,
    /// Where the answer points to.
    pub redirect: Option<&'a str>,
    /// The address that was asked in the end.
    pub url: Option<&'a str>,
    /// Where the connection went.
    pub address: Option<IpAddr>,
    /// The text of the answer.
    pub body: Option<&'a str>,
    /// There is more of it.
    pub is_cut: bool,
    /// Records.
    pub answers: &'a [String],
    /// A header's value, by its name in lower case.
    pub header: &'a dyn Fn(&str) -> Option<String>,
}

/// A part of a condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// What kind of trouble that is.
    pub trouble: Trouble,
    /// What was found, and what was expected: `time was 1.2 s, expected < 800 ms`.
    pub told: String,
}

/// The parts of `node` that do not hold.
pub(super) fn look(node: &Node, found: &Found<'_>) -> Vec<Failing> {
    let eye = Eye { found, json: OnceCell::new(), page: OnceCell::new() };
    let mut failing = Vec::new();
    eye.node(node, &mut failing);
    failing
}

struct Eye<'f, 'a> {
    found: &'f Found<'a>,
    json: OnceCell<Result<Value, String>>,
    page: OnceCell<Result<Html, String>>,
}

/// A value that was found.
enum Seen<'v> {
    Nothing,
    Number(f64),
    Span(i64),
    Size(u64),
    Text(&'v str),
    Json(Vec<&'v Value>),
    Texts(Vec<String>),
}

impl Eye<'_, '_> {
    fn node(&self, node: &Node, failing: &mut Vec<Failing>) {
        match node {
            Node::Test(test) => failing.extend(self.test(test)),
            Node::All(parts) => parts.iter().for_each(|part| self.node(part, failing)),
            Node::Any(parts) => {
                let mut all = Vec::new();
                for part in parts {
                    let before = all.len();
                    self.node(part, &mut all);
                    if all.len() == before {
                        return;
                    }
                }
                failing.extend(one_of(parts, all));
            }
        }
    }

    /// Why it does not hold; nothing when it does.
    fn test(&self, test: &Test) -> Option<Failing> {
        let fail = |told: String| Some(Failing { trouble: self.trouble(&test.what), told: visible(&told) });
        // What cannot be looked into is never fine, and neither is its opposite.
        let seen = match self.see(&test.what) {
            Ok(seen) => seen,
            Err(why) => return fail(why),
        };
        let is_body = matches!(test.what, What::Body);
        if self.found.is_cut && self.depends_on_the_rest(test, &seen) {
            let read = text::size(self.found.size.unwrap_or_default());
            return fail(format!("the answer goes on after {read}, so it cannot be told whether `{test}`"));
        }
        if holds(&test.how, &seen) != test.not {
            return None;
        }
        let what = &test.what;
        fail(match (&seen, &test.how) {
            (_, How::Contains(words)) if is_body && !test.not => format!("the page lacks {}", quoted(&words.text)),
            (_, How::Contains(words)) if is_body => format!("the page has {}", quoted(&words.text)),
            (_, How::Matches(regex)) if is_body => {
                let does = if test.not { "matches" } else { "does not match" };
                format!("the page {does} {}", quoted(regex.as_str()))
            }
            (Seen::Nothing, How::There) => format!("{what} is not there"),
            (Seen::Nothing, _) => format!("{what} is not there, expected {}", test.expected()),
            (_, How::There) => format!("{what} is there"),
            (Seen::Span(left), _) if matches!(what, What::Certificate | What::Domain) => {
                let name = if matches!(what, What::Domain) { "the domain's registration" } else { "the certificate" };
                format!("{}, expected {}", ending(name, *left), test.expected())
            }
            (Seen::Number(count), _) if matches!(what, What::Count(_)) => {
                let counted = what.to_string();
                let counted = counted.strip_prefix("count(").and_then(|counted| counted.strip_suffix(')'));
                let counted = counted.unwrap_or_default();
                let times = if *count == 1.0 { "once".to_owned() } else { format!("{count} times") };
                format!("{counted} is there {times}, expected {}", test.expected())
            }
            (seen, _) => format!("{what} was {}, expected {}", shown(seen), test.expected()),
        })
    }

    fn trouble(&self, what: &What) -> Trouble {
        match what {
            What::Status => self.found.status.map_or(Trouble::Content, Trouble::Status),
            What::Time => Trouble::Slow,
            What::Certificate => Trouble::Certificate,
            What::Domain => Trouble::Domain,
            _ => Trouble::Content,
        }
    }

    /// Of an answer that was not read to its end only what was found in it is sure.
    fn depends_on_the_rest(&self, test: &Test, seen: &Seen<'_>) -> bool {
        match (&test.what, &test.how) {
            (What::Body, How::Contains(_) | How::Matches(_)) => test.not && !holds(&test.how, seen),
            (What::Size, How::Compare(Op::Less | Op::LessOrEqual | Op::Equal, _)) => {
                holds(&test.how, seen) && !test.not
            }
            (What::Count(counted), how) if !matches!(**counted, Counted::Answers) => {
                // With more it would be more.
                let more_is_fine = matches!(how, How::Compare(Op::Greater | Op::GreaterOrEqual, _)) && !test.not;
                !(more_is_fine && holds(how, seen))
            }
            (What::Css(_), _) => matches!(seen, Seen::Nothing) && test.not,
            _ => false,
        }
    }

    fn see<'v>(&'v self, what: &What) -> Result<Seen<'v>, String> {
        let found = self.found;
        let number = |number: Option<f64>| Ok(number.map_or(Seen::Nothing, Seen::Number));
        let words = |text: Option<&'v str>| Ok(text.map_or(Seen::Nothing, Seen::Text));
        match what {
            What::Status => number(found.status.map(f64::from)),
            What::Http => number(found.http),
            #[expect(clippy::cast_precision_loss, reason = "there are few redirects")]
            What::Redirects => number(found.redirects.map(|count| count as f64)),
            What::Time => Ok(Seen::Span(i64::try_from(found.time.as_millis()).unwrap_or(i64::MAX))),
            What::Certificate => {
                Ok(found.certificate.map_or(Seen::Nothing, |left| Seen::Span(left.saturating_mul(1000))))
            }
            What::Domain => Ok(found.domain.map_or(Seen::Nothing, |left| Seen::Span(left.saturating_mul(1000)))),
            What::Size => Ok(found.size.map_or(Seen::Nothing, Seen::Size)),
            What::Redirect => words(found.redirect),
            What::Url => words(found.url),
            What::Body => words(found.body),
            What::Address => Ok(found.address.map_or(Seen::Nothing, |address| Seen::Texts(vec![address.to_string()]))),
            What::Answer if found.answers.is_empty() => Ok(Seen::Nothing),
            What::Answer => Ok(Seen::Texts(found.answers.to_vec())),
            What::Header(name) => Ok((found.header)(name).map_or(Seen::Nothing, |value| Seen::Texts(vec![value]))),
            What::Json(path) => {
                let values = self.json(path)?;
                Ok(if values.is_empty() { Seen::Nothing } else { Seen::Json(values) })
            }
            What::Css(css) => Ok(self.elements(css, |mut all| {
                all.next().map_or(Seen::Nothing, |first| Seen::Texts(vec![html::text(&first)]))
            })?),
            What::Count(counted) => self.count(counted),
        }
    }

    fn count(&self, counted: &Counted) -> Result<Seen<'static>, String> {
        let count = match counted {
            Counted::Answers => self.found.answers.len(),
            Counted::Text(words) => words.count(self.found.body.unwrap_or_default(), MOST_COUNTED),
            Counted::Css(css) => self.elements(css, |all| all.count())?,
            Counted::Json(path) => match &self.json(path)?[..] {
                // A list is counted by what is in it.
                [Value::Array(items)] => items.len(),
                values => values.len(),
            },
        };
        #[expect(clippy::cast_precision_loss, reason = "it is at most a million")]
        Ok(Seen::Number(count as f64))
    }

    fn json(&self, path: &JsonPath) -> Result<Vec<&Value>, String> {
        let parsed = self.json.get_or_init(|| {
            if self.found.is_cut {
                return Err("the answer is too long to be read as JSON".to_owned());
            }
            serde_json::from_str(self.found.body.unwrap_or_default())
                .map_err(|error| format!("the answer is no JSON: {error}"))
        });
        parsed.as_ref().map(|value| path.find(value)).map_err(Clone::clone)
    }

    fn elements<T>(&self, css: &Css, use_them: impl FnOnce(scraper::html::Select<'_, '_>) -> T) -> Result<T, String> {
        let page = self.page.get_or_init(|| html::parse(self.found.body.unwrap_or_default()));
        page.as_ref().map(|page| use_them(page.select(&css.selector))).map_err(Clone::clone)
    }
}

/// All alternatives about one thing are told at once: `status was 404, expected 2xx or 301`.
fn one_of(parts: &[Node], failing: Vec<Failing>) -> Vec<Failing> {
    let tests: Option<Vec<&Test>> =
        parts.iter().map(|part| if let Node::Test(test) = part { Some(test) } else { None }).collect();
    let Some(first) = failing.first().cloned() else { return failing };
    let same = tests.filter(|tests| {
        tests.windows(2).all(|pair| pair[0].what.to_string() == pair[1].what.to_string())
            && !matches!(tests.first().map(|test| &test.what), Some(What::Body | What::Count(_)))
    });
    let told = match (same, first.told.split_once(", expected ")) {
        (Some(tests), Some((was, _))) => {
            let all: Vec<String> = tests.iter().map(|test| test.expected()).collect();
            format!("{was}, expected {}", all.join(" or "))
        }
        _ => failing.iter().map(|one| one.told.as_str()).collect::<Vec<_>>().join(", and "),
    };
    vec![Failing { told, ..first }]
}

/// `the certificate ends in 3 days`.
pub(in crate::check) fn ending(name: &str, left_ms: i64) -> String {
    let far = long(Duration::from_millis(left_ms.unsigned_abs()));
    if left_ms < 0 { format!("{name} ended {far} ago") } else { format!("{name} ends in {far}") }
}

fn shown(seen: &Seen<'_>) -> String {
    match seen {
        Seen::Nothing => "nothing".to_owned(),
        Seen::Number(number) => number.to_string(),
        Seen::Span(ms) => long(Duration::from_millis(ms.unsigned_abs())),
        Seen::Size(size) => text::size(*size),
        Seen::Text(text) => quoted(text),
        Seen::Texts(texts) => several(texts.iter().map(|text| quoted(text))),
        Seen::Json(values) => several(values.iter().map(|value| match value {
            Value::String(text) => quoted(text),
            Value::Array(items) => format!("a list of {}", items.len()),
            Value::Object(_) => "an object".to_owned(),
            value => value.to_string(),
        })),
    }
}

fn several(mut texts: impl ExactSizeIterator<Item = String>) -> String {
    let more = texts.len().saturating_sub(5);
    let mut all = texts.by_ref().take(5).collect::<Vec<_>>().join(", ");
    if more > 0 {
        all = format!("{all} and {more} more");
    }
    all
}

fn holds(how: &How, seen: &Seen<'_>) -> bool {
    match (how, seen) {
        (_, Seen::Nothing) => matches!(how, How::Compare(Op::Unequal, _)),
        (How::There, _) => true,
        (How::Compare(op, literal), Seen::Number(number)) => number_holds(*op, *number, literal),
        (How::Compare(op, Literal::Span(wanted)), Seen::Span(ms)) => {
            ordered(*op, ms, &i64::try_from(wanted.as_millis()).unwrap_or(i64::MAX))
        }
        (How::Compare(op, Literal::Size(wanted)), Seen::Size(size)) => ordered(*op, size, wanted),
        (How::Compare(op, literal), Seen::Text(text)) => text_holds(*op, text, literal),
        // One of several records is enough; none may be what is not wanted.
        (How::Compare(Op::Unequal, literal), Seen::Texts(texts)) => {
            texts.iter().all(|text| text_holds(Op::Unequal, text, literal))
        }
        (How::Compare(op, literal), Seen::Texts(texts)) => texts.iter().any(|text| text_holds(*op, text, literal)),
        // All that a way leads to.
        (How::Compare(op, literal), Seen::Json(values)) => values.iter().all(|value| json_holds(*op, value, literal)),
        (How::Contains(words), Seen::Text(text)) => words.count(text, 1) > 0,
        (How::Contains(words), Seen::Texts(texts)) => texts.iter().any(|text| words.count(text, 1) > 0),
        (How::Contains(words), Seen::Json(values)) => values.iter().all(|value| match value {
            Value::String(text) => words.count(text, 1) > 0,
            Value::Array(items) => items.iter().any(|item| item.as_str() == Some(&words.text)),
            _ => false,
        }),
        (How::Matches(regex), Seen::Text(text)) => regex.is_match(text),
        (How::Matches(regex), Seen::Texts(texts)) => texts.iter().any(|text| regex.is_match(text)),
        (How::Matches(regex), Seen::Json(values)) => {
            values.iter().all(|value| value.as_str().is_some_and(|text| regex.is_match(text)))
        }
        _ => false,
    }
}

fn number_holds(op: Op, number: f64, literal: &Literal) -> bool {
    match (literal, op) {
        (Literal::Number(wanted), _) => ordered(op, &number, wanted),
        (Literal::Class(class), Op::Equal) => (number / 100.0).floor() == f64::from(*class),
        (Literal::Class(class), Op::Unequal) => (number / 100.0).floor() != f64::from(*class),
        _ => false,
    }
}

/// A text is compared as a number with a number.
fn text_holds(op: Op, text: &str, literal: &Literal) -> bool {
    match literal {
        Literal::Text(wanted) => ordered(op, text.trim(), wanted.trim()),
        literal => match (text.trim().parse(), op) {
            (Ok(number), _) => number_holds(op, number, literal),
            (Err(_), op) => op == Op::Unequal,
        },
    }
}

fn json_holds(op: Op, value: &Value, literal: &Literal) -> bool {
    match (value, literal) {
        (Value::String(text), Literal::Text(wanted)) => ordered(op, text.as_str(), wanted),
        (Value::Number(number), Literal::Number(wanted)) => {
            number.as_f64().is_some_and(|number| ordered(op, &number, wanted))
        }
        (Value::Bool(is), Literal::Boolean(wanted)) => ordered(op, is, wanted),
        (Value::Null, Literal::Null) => ordered(op, &0, &0),
        // Of another type: it is another value, and neither less nor more.
        _ => op == Op::Unequal,
    }
}

fn ordered<T: PartialOrd + ?Sized>(op: Op, value: &T, wanted: &T) -> bool {
    match op {
        Op::Equal => value == wanted,
        Op::Unequal => value != wanted,
        Op::Less => value < wanted,
        Op::LessOrEqual => value <= wanted,
        Op::Greater => value > wanted,
        Op::GreaterOrEqual => value >= wanted,
    }
}
