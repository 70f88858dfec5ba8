//! What must be so, as a small language: `status == 200 and body contains "Welcome" and time < 800ms`.
//!
//! A condition is parsed once, shared by all looks, and pure: it is given what was found and says which of its parts do not hold,
//! with the value that was found. The keys of a job (`contains`, `status`, …) are turned into the same conditions.
mod eye;
mod fits;
mod html;
mod json_path;
mod parse;
#[cfg(test)]
mod tests;
mod tokens;
mod told;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use memchr::memmem::Finder;

pub(super) use self::{
    eye::ending,
    told::{long, quoted},
};
pub use self::{
    eye::{Failing, Found},
    json_path::JsonPath,
    parse::Wrong,
    told::write,
};

/// A pattern whose machine would be larger than this is refused.
const REGEX_SIZE: usize = 1 << 20;

/// What must be so. Clones share it.
#[derive(Clone, Debug)]
pub struct Condition(Arc<Node>);

/// Alternatives and demands. A `not` is moved down to what it denies, so that a failing part can say what it found.
#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Test(Test),
}

/// One comparison.
#[derive(Clone, Debug)]
struct Test {
    what: What,
    how: How,
    /// It must not be so.
    not: bool,
}

/// What is looked at.
#[derive(Clone, Debug)]
enum What {
    /// The HTTP status.
    Status,
    /// How long it took until all was there.
    Time,
    /// Bytes of the body, as they are after decompression.
    Size,
    /// What is left until the first certificate of the chain ends.
    Certificate,
    /// What is left of the domain's registration.
    Domain,
    /// The version of HTTP: 1.0, 1.1 or 2.
    Http,
    /// How many redirects were followed.
    Redirects,
    /// Where the answer points to.
    Redirect,
    /// The address that was asked in the end.
    Url,
    /// Where the connection went.
    Address,
    /// The text.
    Body,
    /// The records of a name.
    Answer,
    /// A header of the answer; its name is in lower case.
    Header(String),
    /// Values within JSON.
    Json(JsonPath),
    /// Elements of a page.
    Css(Css),
    /// How many there are of them.
    Count(Box<Counted>),
}

/// What can be counted.
#[derive(Clone, Debug)]
enum Counted {
    Text(Words),
    Json(JsonPath),
    Css(Css),
    Answers,
}

/// What must be so of it.
#[derive(Clone, Debug)]
enum How {
    /// It is there at all.
    There,
    Compare(Op, Literal),
    Contains(Words),
    Matches(regex::Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Number(f64),
    /// `2xx`.
    Class(u16),
    Span(Duration),
    Size(u64),
    Text(String),
    Boolean(bool),
    Null,
}

/// A text that is looked for, with what makes that quick.
#[derive(Clone, Debug)]
struct Words {
    text: String,
    finder: Arc<Finder<'static>>,
}

/// A CSS selector as it was written, and ready to be used.
#[derive(Clone, Debug)]
struct Css {
    text: String,
    selector: Arc<scraper::Selector>,
}

impl Words {
    fn new(text: String) -> Self {
        Self { finder: Arc::new(Finder::new(text.as_bytes()).into_owned()), text }
    }

    /// How often it is in there, up to `most`; one does not begin within another.
    fn count(&self, text: &str, most: usize) -> usize {
        self.finder.find_iter(text.as_bytes()).take(most).count()
    }
}

impl Condition {
    /// Reads a condition in which these words are known.
    ///
    /// # Errors
    /// What is wrong, and where in the text.
    pub fn parse(text: &str, subject: &Subject) -> Result<Self, Wrong> {
        parse::condition(text, subject)
    }

    /// All of them must hold.
    #[must_use]
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        Self(Arc::new(Node::All(parts.into_iter().map(|part| Node::clone(&part.0)).collect())))
    }

    /// One of them is enough.
    #[must_use]
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        Self(Arc::new(Node::Any(parts.into_iter().map(|part| Node::clone(&part.0)).collect())))
    }

    /// The parts that do not hold of what was found; none: all is as it should be.
    #[must_use]
    pub fn failing(&self, found: &Found<'_>) -> Vec<Failing> {
        eye::look(&self.0, found)
    }

    /// Whether the body is parsed as a page, which is work.
    #[must_use]
    pub fn reads_page(&self) -> bool {
        self.asks(&|test| match &test.what {
            What::Css(_) => true,
            What::Count(counted) => matches!(**counted, Counted::Css(_)),
            _ => false,
        })
    }

    /// Whether the body is looked at at all.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.asks(&|test| match &test.what {
            What::Body | What::Size | What::Css(_) | What::Json(_) => true,
            What::Count(counted) => !matches!(**counted, Counted::Answers),
            _ => false,
        })
    }

    /// Whether nothing is demanded.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(&*self.0, Node::All(parts) if parts.is_empty())
    }

    /// Whether it says itself what the status must be.
    #[must_use]
    pub fn is_about_status(&self) -> bool {
        self.asks(&|test| matches!(test.what, What::Status))
    }

    /// Whether it asks for the version of HTTP.
    #[must_use]
    pub fn is_about_http(&self) -> bool {
        self.asks(&|test| matches!(test.what, What::Http))
    }

    /// Whether it says itself how long the certificate must last.
    #[must_use]
    pub fn is_about_certificate(&self) -> bool {
        self.asks(&|test| matches!(test.what, What::Certificate))
    }

    fn asks(&self, test: &dyn Fn(&Test) -> bool) -> bool {
        fn within(node: &Node, test: &dyn Fn(&Test) -> bool) -> bool {
            match node {
                Node::All(parts) | Node::Any(parts) => parts.iter().any(|part| within(part, test)),
                Node::Test(one) => test(one),
            }
        }
        within(&self.0, test)
    }
}

/// What a check finds, and so which words a condition about it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What it is called: `a web page`.
    pub name: &'static str,
    /// The words, as in `status`, `header("…")`.
    pub words: &'static [&'static str],
}

/// All words of the language, for checks that nobody has made yet and for tests.
pub const EVERYTHING: Subject = Subject {
    name: "anything",
    words: &[
        "status",
        "time",
        "size",
        "certificate",
        "domain",
        "http",
        "redirects",
        "redirect",
        "url",
        "address",
        "body",
        "answer",
        "header",
        "json",
        "css",
        "count",
    ],
};

impl Default for Found<'_> {
    fn default() -> Self {
        Self {
            status: None,
            time: Duration::ZERO,
            size: None,
            certificate: None,
            domain: None,
            http: None,
            redirects: None,
            redirect: None,
            url: None,
            address: None::<IpAddr>,
            body: None,
            is_cut: false,
            answers: &[],
            header: &|_| None,
        }
    }
}

impl fmt::Display for Condition {
    /// As it could have been written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
