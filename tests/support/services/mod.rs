//! The services that messages go to, as small strict servers: each refuses what the real one refuses, keeps what it took, and has
//! bad days on request.
mod chat;
pub(crate) mod push;
mod social;
mod x;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};

use super::{
    faults::{Days, Fault},
    http::{Reply, Seen, Server, answer},
};

/// A message that a service took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Post {
    /// What people read, unescaped.
    pub(crate) text: String,
    /// What the service calls it.
    pub(crate) id: String,
    /// The post that it answers.
    pub(crate) answers: Option<String>,
}

/// What a service knows.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) posts: Vec<Post>,
    /// What it did not like, in its own words.
    pub(crate) complaints: Vec<String>,
    /// Posts by the key that makes a second try of one the same, and whatever else a service keeps.
    pub(crate) keys: BTreeMap<String, String>,
    /// How often it was asked for what is not a message.
    pub(crate) asked: usize,
}

impl Book {
    fn keep(&mut self, text: impl Into<String>, answers: Option<String>) -> String {
        let id = format!("{}", 1000 + self.posts.len());
        self.posts.push(Post { text: text.into(), id: id.clone(), answers });
        id
    }

    fn knows(&self, id: &str) -> bool {
        self.posts.iter().any(|post| post.id == id)
    }

    /// Refuses with this status, and remembers why: no test of ours wants that by chance.
    fn refuse(&mut self, status: &str, why: impl Into<String>) -> Reply {
        let why = why.into();
        let reply = json_answer(status, "", &json!({ "error": why }));
        self.complaints.push(why);
        reply
    }
}

/// How a service takes a request.
pub(crate) type Desk = fn(&Seen, &mut Book) -> Reply;

/// A service on loopback.
pub(crate) struct Service {
    pub(crate) server: Server,
    pub(crate) days: Arc<Days>,
    book: Arc<Mutex<Book>>,
    special: Arc<Mutex<Option<Special>>>,
}

type Special = Box<dyn Fn(&Seen) -> Reply + Send>;

impl Service {
    pub(crate) async fn start(desk: Desk) -> Self {
        let (days, book) = (Arc::new(Days::default()), Arc::new(Mutex::new(Book::default())));
        let special = Arc::new(Mutex::new(None::<Special>));
        let (today, kept, own) = (Arc::clone(&days), Arc::clone(&book), Arc::clone(&special));
        let server = Server::start(move |seen| {
            if let Some(special) = &*own.lock().unwrap() {
                return special(seen);
            }
            // What is asked beside the messages has its good days.
            let is_beside = seen.line.contains("/instance") || seen.line.contains("/api/meta");
            let bad = if is_beside { None } else { today.today(seen) };
            bad.unwrap_or_else(|| desk(seen, &mut kept.lock().unwrap()))
        })
        .await;
        Self { server, days, book, special }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// The next answers are these faults.
    pub(crate) fn has(&self, fault: Fault) {
        self.days.come([fault]);
    }

    /// Until further notice it answers only this; none: it is itself again.
    pub(crate) fn says(&self, reply: Option<Special>) {
        *self.special.lock().unwrap() = reply;
    }
}

/// A member of the table: a kind of notifier, its settings, and the service that it is for.
pub(crate) struct Fake {
    pub(crate) kind: &'static str,
    /// Its keys; `SERVER` stands for the server's address. Secrets are variables whose value is their name in lower case, twice.
    pub(crate) keys: &'static str,
    pub(crate) desk: Desk,
    /// A second try with the same key is the same post.
    pub(crate) knows_keys: bool,
    /// A later message of an incident answers the first.
    pub(crate) has_threads: bool,
    /// Whatever answers with 200 has taken it: the service has no words of its own.
    pub(crate) takes_any_200: bool,
}

/// All that speak HTTP.
pub(crate) const FAKES: &[Fake] = &[
    x::FAKE,
    social::MASTODON,
    social::BLUESKY,
    social::MISSKEY,
    chat::SLACK,
    chat::DISCORD,
    chat::TEAMS,
    chat::TELEGRAM,
    chat::MATRIX,
    push::NTFY,
    push::GOTIFY,
    push::HEALTHCHECKS,
    push::APPRISE,
    push::WEBHOOK,
];

pub(crate) fn fake(kind: &str) -> &'static Fake {
    FAKES.iter().find(|fake| fake.kind == kind).unwrap()
}

fn json_answer(status: &str, headers: &str, body: &Value) -> Reply {
    answer(status, &format!("content-type: application/json\r\n{headers}"), body.to_string())
}

/// The method and the path, without what follows `?`.
fn place(seen: &Seen) -> (&str, &str, &str) {
    let mut parts = seen.line.split(' ');
    let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    (method, path, query)
}

fn body(seen: &Seen) -> Value {
    let kind = seen.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/json"), "{kind}");
    serde_json::from_slice(&seen.body).unwrap()
}

fn bearer(seen: &Seen) -> &str {
    seen.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default()
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The value of a variable in tests.
pub(crate) fn secret(name: &str) -> String {
    format!("{0}{0}", name.to_lowercase())
}
