//! What goes wrong with servers on the web, one set of it for all who call them: a fake service answers with
//! [`Fault::reply`] when it is told to, and [`server`] has each of them at a path of its own.
use std::{
    io::Write as _,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use super::http::{Reply, Seen, Server, answer};

/// A bad day of a server. [`ALL`] has each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It takes the request and never says a word.
    Hang,
    /// It begins its answer well and never ends it.
    HangInside,
    /// A byte now and then: no pause is long, and the whole never ends.
    SlowDrip,
    /// 10 MB, told honestly.
    TenMegabytes,
    /// 100 MB that were 100 kB on the way.
    GzipBomb,
    /// A header without an end.
    LongHeader,
    /// To itself, for ever.
    RedirectLoop,
    /// To where a cloud keeps the machine's own keys.
    RedirectToMetadata,
    /// 200, and within it that it did not work.
    ErrorInside,
    /// Bytes that are no HTTP.
    Garbage,
    /// 200, and a body that is no text in any encoding.
    GarbageInside,
    /// The answer ends before the length that it told.
    CutOff,
    /// It stops sending in the middle of the head, and goes on listening.
    HalfClose,
    /// The connection is closed without a word.
    HangUp,
    /// Too fast, without a word on when it may be tried again.
    TooFast,
    /// Too fast: in two seconds.
    TooFastForNow,
    /// It is broken, and says so.
    Broken,
    /// Something before it is: 503 and a page for people.
    Unavailable,
}

/// All of them.
pub(crate) const ALL: [Fault; 18] = [
    Fault::Hang,
    Fault::HangInside,
    Fault::SlowDrip,
    Fault::TenMegabytes,
    Fault::GzipBomb,
    Fault::LongHeader,
    Fault::RedirectLoop,
    Fault::RedirectToMetadata,
    Fault::ErrorInside,
    Fault::Garbage,
    Fault::GarbageInside,
    Fault::CutOff,
    Fault::HalfClose,
    Fault::HangUp,
    Fault::TooFast,
    Fault::TooFastForNow,
    Fault::Broken,
    Fault::Unavailable,
];

/// Where a redirect must never lead.
pub(crate) const METADATA: &str = "http://169.254.169.254/latest/meta-data/";

impl Fault {
    /// Its path on [`server`]: `/gzip-bomb`.
    pub(crate) fn path(self) -> String {
        let mut path = String::from("/");
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && path.len() > 1 {
                path.push('-');
            }
            path.extend(letter.to_lowercase());
        }
        path
    }

    /// The answer to a request on such a day.
    pub(crate) fn reply(self, to: &Seen) -> Reply {
        let text = "content-type: text/plain\r\n";
        match self {
            Self::Hang => Reply::Silence,
            Self::HangInside => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nWelcome";
                Reply::Drip { at_once: head.into(), then: Vec::new(), each: Duration::ZERO, stay: true }
            }
            Self::SlowDrip => Reply::Drip {
                at_once: b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".to_vec(),
                then: vec![b'.'; 100_000],
                each: Duration::from_millis(50),
                stay: false,
            },
            Self::TenMegabytes => answer("200 OK", text, vec![b'a'; 10_000_000]),
            Self::GzipBomb => {
                answer("200 OK", "content-type: text/plain\r\ncontent-encoding: gzip\r\n", bomb(100_000_000))
            }
            Self::LongHeader => {
                let mut head = b"HTTP/1.1 200 OK\r\nx-long: ".to_vec();
                head.resize(8 << 20, b'a');
                Reply::Drip { at_once: head, then: Vec::new(), each: Duration::ZERO, stay: true }
            }
            Self::RedirectLoop => {
                let path = to.line.split(' ').nth(1).unwrap_or("/");
                answer("302 Found", &format!("location: {path}\r\n"), "")
            }
            Self::RedirectToMetadata => answer("302 Found", &format!("location: {METADATA}\r\n"), ""),
            Self::ErrorInside => answer("200 OK", text, "Error establishing a database connection\n"),
            Self::Garbage => Reply::Bytes((0..4096u32).map(|number| (number * 197 % 251) as u8).collect()),
            Self::GarbageInside => {
                let body: Vec<u8> = (0..4096u32).map(|number| 0x80 | (number * 197 % 251) as u8).collect();
                answer("200 OK", "content-type: text/html; charset=utf-8\r\n", body)
            }
            Self::CutOff => Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nWelcome".to_vec()),
            Self::HalfClose => Reply::HalfClose(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()),
            Self::HangUp => Reply::HangUp,
            Self::TooFast => answer("429 Too Many Requests", "", "slow down\n"),
            Self::TooFastForNow => answer("429 Too Many Requests", "retry-after: 2\r\n", "slow down\n"),
            Self::Broken => answer("500 Internal Server Error", text, "it is broken\n"),
            Self::Unavailable => {
                answer("503 Service Unavailable", "content-type: text/html\r\n", "<h1>We are coming back soon</h1>")
            }
        }
    }
}

/// A server with each fault at its path; `/` and whatever else is well and says `Welcome`.
pub(crate) async fn server() -> Server {
    Server::start(|seen| {
        let path = seen.line.split(' ').nth(1).unwrap_or("/");
        match ALL.into_iter().find(|fault| fault.path() == path) {
            Some(fault) => fault.reply(seen),
            None => answer("200 OK", "content-type: text/html\r\n", "<h1>Welcome</h1>\n"),
        }
    })
    .await
}

/// A service whose next answers are those faults, one after the other; then it is well again.
#[derive(Debug, Default)]
pub(crate) struct Days(Mutex<Vec<Fault>>);

impl Days {
    /// These, the first of them first.
    pub(crate) fn come(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut days = self.0.lock().unwrap();
        days.extend(faults);
    }

    /// The answer of a bad day, if today is one.
    pub(crate) fn today(&self, request: &Seen) -> Option<Reply> {
        let mut days = self.0.lock().unwrap();
        (!days.is_empty()).then(|| days.remove(0).reply(request))
    }
}

/// So many bytes of nothing, as gzip.
fn bomb(bytes: usize) -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let nothing = vec![0; 1 << 20];
        for _ in 0..bytes.div_ceil(nothing.len()) {
            gzip.write_all(&nothing).unwrap();
        }
        gzip.finish().unwrap()
    })
}

#[tokio::test]
async fn a_bad_day_comes_once_and_each_fault_has_its_own_path() {
    let days = Days::default();
    days.come([Fault::Broken, Fault::HangUp]);
    let seen = Seen { line: "GET / HTTP/1.1".into(), headers: Vec::new(), body: Vec::new() };
    assert!(matches!(days.today(&seen), Some(Reply::Bytes(bytes)) if bytes.starts_with(b"HTTP/1.1 500 ")));
    assert!(matches!(days.today(&seen), Some(Reply::HangUp)));
    assert!(days.today(&seen).is_none());
    let mut paths: Vec<_> = ALL.into_iter().map(Fault::path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!((paths.len(), Fault::GzipBomb.path()), (ALL.len(), "/gzip-bomb".to_owned()));
    let server = server().await;
    let client = rusuban::http::client().unwrap();
    let get = async |path: &str| client.get(server.url(path)).timeout(Duration::from_secs(5)).send().await;
    assert!(get("/").await.unwrap().text().await.unwrap().contains("Welcome"));
    assert_eq!(get("/too-fast-for-now").await.unwrap().headers()["retry-after"], "2");
    get("/garbage").await.unwrap_err();
    get("/half-close").await.unwrap_err();
    let body = get("/gzip-bomb").await.unwrap().bytes().await.unwrap();
    assert!(body.len() >= 100_000_000);
}
