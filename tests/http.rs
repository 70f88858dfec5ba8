//! `http-call` against real servers: what is sent, what is followed, what is said, and what is never shown.
use std::time::Duration;

use rusuban::clock::Clock;

use crate::support::{
    http::{Reply, Server, answer},
    kind::{context, read},
};

/// Runs the call; the summary or the error, and the log.
async fn call(keys: &str) -> (Result<String, String>, String) {
    let home = tempfile::tempdir().unwrap();
    let (cx, kept) = context(home.path(), Clock::system(), []);
    let run = read("http-call", keys).run(&cx).await;
    (run.map_err(|error| format!("{error:#}")), kept.text())
}

#[tokio::test]
async fn method_headers_secrets_and_body_arrive_as_written() {
    let server = Server::start(|_| answer("200 OK", "content-type: text/plain\r\n", "done\n")).await;
    let (summary, log) = call(&format!(
        "url = '{}'\nmethod = 'PUT'\njson = {{ b = 1, a = [true, 2.5], at = 2026-01-02 }}\nbearer = {{ env = 'TOKEN' }}
         headers = {{ X-Key = {{ env = 'KEY' }}, Accept = 'text/plain' }}",
        server.url("/a?b=c")
    ))
    .await;
    let summary = summary.unwrap();
    assert!(summary.starts_with(&format!("PUT {}…: 200 OK, 5 B of text/plain in ", server.url("/a"))), "{summary}");
    assert_eq!(log, "o done\n\n");
    let [seen] = &server.seen()[..] else { panic!() };
    assert_eq!(seen.line, "PUT /a?b=c HTTP/1.1");
    assert_eq!(seen.header("authorization"), Some("Bearer secret-TOKEN"));
    assert_eq!(seen.header("x-key"), Some("secret-KEY"));
    assert_eq!(seen.header("accept"), Some("text/plain"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert!(seen.header("user-agent").unwrap().starts_with("rusuban/"));
    assert_eq!(seen.text(), r#"{"b":1,"a":[true,2.5],"at":"2026-01-02"}"#);
}

#[tokio::test]
async fn a_header_of_ones_own_replaces_the_usual_one() {
    let server = Server::start(|_| answer("204 No Content", "", "")).await;
    let keys = format!(
        "url = '{}'\nmethod = 'POST'\nbody = '<a/>'\nheaders = {{ content-type = 'text/xml' }}",
        server.url("/")
    );
    call(&keys).await.0.unwrap();
    assert_eq!(server.seen()[0].header("content-type"), Some("text/xml"));
    assert_eq!(server.seen()[0].text(), "<a/>");
}

#[tokio::test]
async fn secrets_come_back_in_no_log_and_no_message() {
    // Says back all that it was told, as some servers do.
    let server = Server::start(|seen| answer("418 I'm a teapot", "", format!("{seen:?} of-the-settings"))).await;
    let (failure, log) = call(&format!(
        "url = '{}'\nmethod = 'POST'\nbody = {{ env = 'BODY' }}\nheaders = {{ x = {{ env = 'X' }} }}
         basic = {{ user = 'me', password = {{ env = 'PASSWORD' }} }}",
        server.url("/")
    ))
    .await;
    let failure = failure.unwrap_err();
    assert!(failure.contains("the server answered 418 I'm a teapot, expected 2xx: Seen { line: "), "{failure}");
    for text in [&failure, &log] {
        // bWU6… is `me:secret-PASSWORD` in base64.
        for secret in ["secret-", "bWU6", "of-the-settings"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(text.contains("•••"));
    }
}

#[tokio::test]
async fn a_secret_address_is_shown_by_its_server_only() {
    let server = Server::start(|_| Reply::HangUp).await;
    let url = server.url("/hook/t0ken?also=here");
    let home = tempfile::tempdir().unwrap();
    let (mut cx, _) = context(home.path(), Clock::system(), []);
    let services = std::sync::Arc::get_mut(&mut cx.services).unwrap();
    services.secrets = rusuban::config::secret::SecretReader(std::sync::Arc::new(move |_| {
        Ok(rusuban::config::secret::Secret::new(url.as_str()))
    }));
    let failure = read("http-call", "url = { env = 'URL' }\nmethod = 'POST'").run(&cx).await.unwrap_err();
    let failure = format!("{failure:#}");
    assert!(failure.starts_with(&format!("POST {}…: ", server.url("/"))), "{failure}");
    assert!(!failure.contains("t0ken") && !failure.contains("also"), "{failure}");
    assert_eq!(server.seen()[0].line, "POST /hook/t0ken?also=here HTTP/1.1");
}

#[tokio::test]
async fn what_a_lost_answer_leaves_open_is_said_and_what_was_never_sent_is_not() {
    let server = Server::start(|_| Reply::HangUp).await;
    let open = "whether the server did what it was asked is not known";
    let (failure, _) = call(&format!("url = '{}'\nmethod = 'POST'", server.url("/"))).await;
    assert!(failure.as_ref().unwrap_err().contains(open), "{failure:?}");
    let (failure, _) = call(&format!("url = '{}'", server.url("/"))).await;
    assert!(!failure.as_ref().unwrap_err().contains(open), "{failure:?}");
    let nobody = server.url("/");
    drop(server);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let failure = call(&format!("url = '{nobody}'\nmethod = 'POST'")).await.0.unwrap_err();
    let expected = format!("POST {nobody}: tcp connect error: Connection refused (os error 111)");
    assert_eq!(failure, expected);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_no_answer() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this".to_vec();
    let server = Server::start(move |_| Reply::Bytes(cut.clone())).await;
    call(&format!("url = '{}'", server.url("/"))).await.0.unwrap_err();
}

#[tokio::test]
async fn status_and_words_must_be_the_expected_ones() {
    let server = Server::start(|_| answer("404 Not Found", "", "\nno such page\nat all\n")).await;
    let url = format!("url = '{}'\n", server.url("/x"));
    let (failure, log) = call(&url).await;
    assert_eq!(
        failure.unwrap_err(),
        format!("GET {}: the server answered 404 Not Found, expected 2xx: no such page", server.url("/x"))
    );
    assert!(log.contains("at all"));
    call(&format!("{url}expect_status = ['2xx', 404]\nexpect_contains = 'such page'")).await.0.unwrap();
    let failure = call(&format!("{url}expect_status = 404\nexpect_contains = 'ok'")).await.0.unwrap_err();
    assert!(failure.ends_with("the answer (404 Not Found) does not have `ok`"), "{failure}");
}

#[tokio::test]
async fn an_endless_answer_is_read_to_its_limit() {
    let server = Server::start(|seen| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1000000000\r\n\r\n";
        let fill = if seen.line.contains("binary") { [0, 1] } else { *b"ab" };
        Reply::Bytes([head.as_bytes(), &fill.repeat(4 << 20)].concat())
    })
    .await;
    let (summary, log) = call(&format!("url = '{}'", server.url("/text"))).await;
    assert!(summary.unwrap().contains("more than 1 MiB of text/plain"));
    assert_eq!(log.len(), "o ".len() + (64 << 10) + "\ni … the answer goes on; a log keeps 64.0 KiB\n".len());
    let (summary, log) = call(&format!("url = '{}'", server.url("/binary"))).await;
    summary.unwrap();
    assert_eq!(log, "");
}

#[tokio::test]
async fn redirects_stay_on_the_server_and_a_post_stays_a_post() {
    let other = Server::start(|_| answer("200 OK", "", "stolen")).await;
    let away = other.url("/elsewhere");
    let server = Server::start(move |seen| {
        let path = seen.line.split(' ').nth(1).unwrap();
        match path.split_once('-') {
            Some(("/loop", _)) => answer("302 Found", "location: /loop-\r\n", ""),
            Some(("/away", _)) => answer("307 Temporary Redirect", &format!("location: {away}\r\n"), ""),
            Some((status, _)) => answer(&format!("{} Moved", &status[1..]), "location: /end\r\n", ""),
            None => answer("200 OK", "", path),
        }
    })
    .await;
    let lines = |from: usize| {
        server.seen()[from..].iter().map(|seen| format!("{} {}", seen.line, seen.text())).collect::<Vec<_>>()
    };
    let run = async |method: &str, path: &str| {
        let body = if method == "POST" { "body = 'x'" } else { "" };
        let keys =
            format!("url = '{}'\nmethod = '{method}'\nheaders = {{ x = {{ env = 'X' }} }}\n{body}", server.url(path));
        call(&keys).await.0
    };
    for (method, path, then) in [
        ("GET", "/301-", Some("GET /end HTTP/1.1 ")),
        ("GET", "/302-", Some("GET /end HTTP/1.1 ")),
        ("POST", "/303-", Some("GET /end HTTP/1.1 ")),
        ("POST", "/307-", Some("POST /end HTTP/1.1 x")),
        ("POST", "/308-", Some("POST /end HTTP/1.1 x")),
        ("POST", "/301-", None),
        ("POST", "/302-", None),
    ] {
        let before = server.seen().len();
        let result = run(method, path).await;
        assert_eq!(result.is_ok(), then.is_some(), "{method} {path}: {result:?}");
        assert_eq!(lines(before).get(1).map(String::as_str), then, "{method} {path}");
    }
    let before = server.seen().len();
    run("GET", "/loop-").await.unwrap_err();
    assert_eq!(lines(before).len(), 6);
    let failure = run("POST", "/away-").await.unwrap_err();
    assert!(failure.contains(&format!("it points to {}", other.url("/elsewhere"))), "{failure}");
    assert_eq!(other.seen(), []);
}

#[tokio::test]
async fn asked_to_stop_it_stops_and_says_what_is_not_known() {
    let server = Server::start(|_| Reply::Silence).await;
    let home = tempfile::tempdir().unwrap();
    let (cx, _) = context(home.path(), Clock::system(), []);
    let cancelled = cx.cancelled.clone();
    let kind = read("http-call", &format!("url = '{}'\nmethod = 'DELETE'", server.url("/")));
    let run = tokio::spawn(async move { kind.run(&cx).await });
    while server.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    cancelled.cancel();
    let failure = tokio::time::timeout(Duration::from_secs(5), run).await.unwrap().unwrap().unwrap_err();
    let failure = failure.to_string();
    assert!(failure.contains("asked to stop before the answer came (whether the server did"), "{failure}");
}
