//! Every fault of a server ends soon, in little memory, with the right words.
use std::time::Instant;

use rusuban::model::watch::{State, Trouble};

use super::{look, told};
use crate::support::{
    faults::{ALL, Fault, server},
    http::{Server, answer},
};

#[tokio::test]
async fn each_fault_gets_its_verdict_in_time() {
    let server = server().await;
    // The bomb is built when it is asked for first.
    look(&format!("url = '{}'", server.url(&Fault::GzipBomb.path()))).await;
    let begun = Instant::now();
    for fault in ALL {
        let keys = format!("url = '{}'\ncontains = 'Welcome'\npatience = '700ms'", server.url(&fault.path()));
        let verdict = look(&keys).await;
        let late = |what: &str| (State::Down, Some(Trouble::TimedOut), format!("{what} within 700ms"));
        let broken = |what: &str| (State::Down, Some(Trouble::Broken), what.to_owned());
        let content = |what: &str| (State::Down, Some(Trouble::Content), what.to_owned());
        let status = |status: u16, what: &str| (State::Down, Some(Trouble::Status(status)), what.to_owned());
        let expected = match fault {
            Fault::Hang => late("no answer"),
            Fault::HangInside | Fault::SlowDrip => late("the answer did not end"),
            Fault::TenMegabytes | Fault::GzipBomb => {
                content("the page lacks \"Welcome\" (200, more than 1.00 MiB in T)")
            }
            Fault::LongHeader => broken("the answer's headers are longer than 64.0 KiB or more than 100"),
            Fault::RedirectLoop => content("it redirects more than 5 times"),
            Fault::RedirectToMetadata => {
                let what = "169.254.169.254 is where clouds keep the keys of their machines; `allow = [\"169.254.169.254\"]` lets it be asked";
                (State::Unknown, Some(Trouble::NotAllowed), what.to_owned())
            }
            Fault::ErrorInside => content("the page lacks \"Welcome\" (200, 41 B in T)"),
            Fault::Garbage => broken("what answers there does not speak HTTP"),
            Fault::GarbageInside => content("the page lacks \"Welcome\" (200, 4.00 KiB in T)"),
            Fault::CutOff | Fault::HalfClose | Fault::HangUp => {
                broken("the connection broke before the answer was whole")
            }
            Fault::TooFast | Fault::TooFastForNow => {
                status(429, "status was 429, expected 2xx; the page lacks \"Welcome\" (429, 10 B in T)")
            }
            Fault::Broken => status(500, "status was 500, expected 2xx; the page lacks \"Welcome\" (500, 13 B in T)"),
            Fault::Unavailable => {
                status(503, "status was 503, expected 2xx; the page lacks \"Welcome\" (503, 32 B in T)")
            }
        };
        assert_eq!(told(&verdict), expected, "{fault:?}");
        assert!(begun.elapsed().as_secs() < 30, "{fault:?}");
    }
    let well = look(&format!("url = '{}'\ncontains = 'Welcome'", server.url("/"))).await;
    assert_eq!(told(&well), (State::Up, None, "200, 17 B in T".to_owned()));
}

#[tokio::test]
async fn nobody_nowhere_and_nameless_are_told_apart() {
    let server = server().await;
    let nobody = server.url("/");
    drop(server);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let verdict = look(&format!("url = '{nobody}'")).await;
    assert_eq!(
        (verdict.trouble, verdict.what.as_str()),
        (Some(Trouble::Refused), "nobody listens there (connection refused)")
    );
    let verdict = look("url = 'http://no-such-host.invalid/'\npatience = '5s'").await;
    assert_eq!(verdict.trouble, Some(Trouble::Name), "{}", verdict.what);
    // Asked by its address too, and in any spelling.
    for host in ["169.254.169.254", "[::ffff:169.254.169.254]", "2852039166", "0xa9fea9fe"] {
        let verdict = look(&format!("url = 'http://{host}/'\npatience = '2s'")).await;
        assert_eq!(verdict.trouble, Some(Trouble::NotAllowed), "{host}: {}", verdict.what);
    }
    let verdict = look("url = 'http://example.org/'\nresolve = '169.254.169.254'\npatience = '2s'").await;
    assert_eq!((verdict.state, verdict.trouble), (State::Unknown, Some(Trouble::NotAllowed)));
}

#[tokio::test]
async fn pages_built_to_break_us_do_not() {
    let server = Server::start(|seen| {
        let body = match seen.line.split(' ').nth(1).unwrap() {
            "/deep" => "<div>".repeat(200_000),
            "/wide" => "<b a=1><b a=2><b a=3>".repeat(10_000) + &"<p>".repeat(100_000),
            _ => "[".repeat(500_000),
        };
        answer("200 OK", "content-type: text/html\r\n", body)
    })
    .await;
    for (path, told) in [("/deep", "the page is "), ("/wide", "the page has more than ")] {
        let verdict = look(&format!("url = '{}'\ncss = [{{ selector = 'h1' }}]", server.url(path))).await;
        assert!(verdict.what.starts_with(told) || verdict.what.contains("takes too long"), "{path}: {}", verdict.what);
        assert_eq!(verdict.trouble, Some(Trouble::Content));
    }
    let verdict = look(&format!("url = '{}'\njson = {{ '$.a' = 1 }}", server.url("/json"))).await;
    assert!(verdict.what.starts_with("the answer is no JSON: recursion limit exceeded"), "{}", verdict.what);
}
