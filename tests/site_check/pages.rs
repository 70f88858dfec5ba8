//! Pages: what is asked, what is looked for, where it may lead.
use std::sync::Arc;

use rusuban::model::watch::{State, Trouble};

use super::{Shared, look, told};
use crate::support::http::{Seen, Server, answer};

fn path(seen: &Seen) -> String {
    seen.line.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn what_is_sent_is_what_was_written_and_secrets_are_told_to_nobody() {
    let server = Server::start(|seen| answer("401 Unauthorized", "x-said: secret-KEY\r\n", format!("{seen:?}"))).await;
    let verdict = look(&format!(
        "url = '{}'\nmethod = 'POST'\nbody = {{ env = 'BODY' }}\nheaders = {{ X-Key = {{ env = 'KEY' }}, Accept = 'text/plain' }}
         basic = {{ user = 'me', password = {{ env = 'PASSWORD' }} }}\nexpect = 'status == 200 and header(\"x-said\") == \"no\"'",
        server.url("/a?b=c")
    ))
    .await;
    assert_eq!(
        told(&verdict),
        (
            State::Down,
            Some(Trouble::Status(401)),
            "status was 401, expected 200; header(\"x-said\") was \"•••\", expected \"no\" (401 in T)".to_owned()
        )
    );
    let [seen] = &server.seen()[..] else { panic!() };
    assert_eq!(seen.line, "POST /a?b=c HTTP/1.1");
    assert_eq!(seen.header("authorization"), Some("Basic bWU6c2VjcmV0LVBBU1NXT1JE"));
    assert_eq!((seen.header("x-key"), seen.header("accept")), (Some("secret-KEY"), Some("text/plain")));
    assert_eq!((seen.text(), seen.header("connection")), ("secret-BODY", Some("close")));
    assert_eq!(seen.header("host"), Some(server.address.to_string().as_str()));
    assert!(seen.header("user-agent").unwrap().starts_with("rusuban/"));
    assert_eq!(verdict.address, Some(server.address.ip()));
}

#[tokio::test]
async fn words_elements_values_and_headers_are_found() {
    let server = Server::start(|seen| match path(seen).as_str() {
        "/json" => answer("200 OK", "content-type: application/json\r\n", r#"{"status":"ok","items":[1,2,3]}"#),
        "/sjis" => {
            let (bytes, ..) = encoding_rs::SHIFT_JIS.encode("ようこそ、日記へ");
            answer("200 OK", "content-type: text/html; charset=Shift_JIS\r\n", bytes)
        }
        "/gzip" => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut gzip, b"compressed Welcome").unwrap();
            answer("200 OK", "content-encoding: gzip\r\n", gzip.finish().unwrap())
        }
        "/br" => answer("200 OK", "content-encoding: br\r\n", "x"),
        _ => answer("200 OK", "content-type: text/html\r\n", "<h1>Our shop</h1><p>item<p>item<p>item"),
    })
    .await;
    for (path, keys) in [
        (
            "/",
            "contains = ['shop', { text = 'item', at_least = 3 }]\nlacks = 'error'\nmatches = '(?i)OUR'\nheader = { content-type = 'html' }\nmin_size = '10 B'\nmax_size = '1 KiB'\nmax_time = '5s'",
        ),
        (
            "/",
            "css = [{ selector = 'h1', text = 'Our shop' }, { selector = 'p', at_least = 3 }, { selector = 'body > p' }]",
        ),
        ("/json", "json = { '$.status' = 'ok', '$.items[1]' = 2 }\nexpect = 'count(json(\"$.items\")) == 3'"),
        ("/sjis", "contains = '日記'"),
        ("/gzip", "contains = 'compressed Welcome'"),
    ] {
        let verdict = look(&format!("url = '{}'\n{keys}", server.url(path))).await;
        assert_eq!(verdict.state, State::Up, "{path}: {}", verdict.what);
    }
    for (path, keys, what) in [
        (
            "/",
            "contains = { text = 'item', at_least = 4 }",
            "\"item\" is there 3 times, expected >= 4 (200, 38 B in T)",
        ),
        ("/", "lacks = ['x', 'shop']", "the page has \"shop\" (200, 38 B in T)"),
        ("/", "max_size = '10 B'", "size was 38 B, expected <= 10 B (200, 38 B in T)"),
        (
            "/",
            "css = [{ selector = 'h1', text = 'News' }]",
            "css(\"h1\") was \"Our shop\", expected \"News\" (200, 38 B in T)",
        ),
        ("/", "status = ['3xx', 404]", "status was 200, expected 3xx or 404 (200 in T)"),
        (
            "/json",
            "json = { '$.status' = 'down' }",
            "json(\"$.status\") was \"ok\", expected \"down\" (200, 31 B in T)",
        ),
        ("/br", "", "the answer is compressed as \"br\", which was not asked for"),
    ] {
        let verdict = look(&format!("url = '{}'\n{keys}", server.url(path))).await;
        assert_eq!((verdict.state, told(&verdict).2.as_str()), (State::Down, what), "{path} {keys}");
    }
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_they_may() {
    let away: Shared<String> = Arc::default();
    let other = Server::start(|_| answer("200 OK", "", "the other one")).await;
    *away.lock().unwrap() = other.url("/there").replace("127.0.0.1", "localhost");
    let to = Arc::clone(&away);
    let server = Server::start(move |seen| match path(seen).as_str() {
        "/away" => answer("302 Found", &format!("location: {}\r\n", to.lock().unwrap()), ""),
        "/kept" => answer("307 Temporary Redirect", &format!("location: {}\r\n", to.lock().unwrap()), ""),
        "/near" => answer("301 Moved", "location: end\r\n", ""),
        "/post" => answer("303 See Other", "location: /end\r\n", ""),
        _ => answer("200 OK", "", "the end"),
    })
    .await;
    let url = |path: &str| format!("url = '{}'\n", server.url(path));
    let verdict = look(&format!("{}contains = 'the other one'\nbearer = {{ env = 'TOKEN' }}\nheaders = {{ X-Plain = 'a', X-Key = {{ env = 'KEY' }} }}\nfamily = 'ipv4'", url("/away"))).await;
    assert_eq!(verdict.state, State::Up, "{}", verdict.what);
    let (first, second) = (&server.seen()[0], &other.seen()[0]);
    assert_eq!(
        (first.header("authorization"), first.header("x-key")),
        (Some("Bearer secret-TOKEN"), Some("secret-KEY"))
    );
    assert_eq!((second.header("authorization"), second.header("x-key")), (None, None));
    assert_eq!(second.header("x-plain"), Some("a"));

    look(&format!("{}contains = 'the end'\nexpect = 'redirects == 1'", url("/near"))).await;
    let verdict = look(&format!("{}method = 'POST'\nbody = 'x'\ncontains = 'the end'", url("/post"))).await;
    assert_eq!(verdict.state, State::Up, "{}", verdict.what);
    assert_eq!(server.seen().last().unwrap().line, "GET /end HTTP/1.1");
    let verdict = look(&format!("{}method = 'POST'\nbody = 'x'\nfamily = 'ipv4'", url("/kept"))).await;
    assert!(verdict.what.contains("which is not sent what was meant for the first server"), "{}", verdict.what);

    let verdict = look(&format!("{}redirect = 'no'", url("/near"))).await;
    assert_eq!(told(&verdict).2, "status was 301, expected 2xx (301 in T)");
    let verdict = look(&format!("{}redirect = '{}'", url("/near"), server.url("/end"))).await;
    assert_eq!(verdict.state, State::Up, "{}", verdict.what);
    let verdict = look(&format!("{}redirect = 'https://example.org/'", url("/near"))).await;
    assert_eq!(
        told(&verdict).2,
        format!("redirect was \"{}\", expected \"https://example.org/\" (301 in T)", server.url("/end"))
    );
}

#[tokio::test]
async fn a_site_is_asked_at_its_other_address_and_over_each_family() {
    let server = Server::start(|seen| answer("200 OK", "", seen.header("host").unwrap())).await;
    let port = server.address.port();
    let verdict = look(&format!(
        "url = 'http://blog.example.org:{port}/'\nresolve = '127.0.0.1'\ncontains = 'blog.example.org:{port}'"
    ))
    .await;
    assert_eq!(verdict.state, State::Up, "{}", verdict.what);
    let verdict = look(&format!("url = 'http://127.0.0.1:{port}/'\nfamily = 'ipv6'")).await;
    assert_eq!(told(&verdict), (State::Down, Some(Trouble::Name), "127.0.0.1 has no IPv6 address".to_owned()));
    let verdict = look(&format!("url = 'http://127.0.0.1:{port}/'\nfamily = 'both'")).await;
    assert_eq!(
        told(&verdict),
        (
            State::Down,
            Some(Trouble::Name),
            "over IPv6: 127.0.0.1 has no IPv6 address (over IPv4 it is well)".to_owned()
        )
    );
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_no_failure_of_the_site() {
    let verdict = look("name = 'a'\nurl = 'http://127.0.0.1:9/'\nbearer = { file = 'missing' }").await;
    assert_eq!((verdict.state, verdict.trouble), (State::Unknown, Some(Trouble::NotAllowed)));
    assert!(verdict.what.starts_with("it cannot be looked at: read `bearer`"), "{}", verdict.what);
}
