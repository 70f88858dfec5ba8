//! Ports, names, pings, registrations.
use std::{net::SocketAddr, sync::Arc};

use chrono::{DateTime, TimeDelta};
use rusuban::{
    clock::Clock,
    model::watch::{State, Trouble},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::{Shared, look, look_with, told};
use crate::support::{
    http::{Server, answer},
    kind::context,
    tls::Certificates,
};

/// Says `+PONG` to `PING`, and nothing else to anything else.
async fn ponging() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut said = [0; 64];
                let count = stream.read(&mut said).await.unwrap_or(0);
                if said[..count].starts_with(b"PING") {
                    let _ = stream.write_all(b"+PONG\r\n").await;
                    let _ = stream.read(&mut said).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_port_listens_and_says_what_is_expected() {
    let address = ponging().await;
    let port = address.port();
    assert_eq!(told(&look(&format!("tcp = '{address}'")).await), (State::Up, None, "answers in T".to_owned()));
    let pong =
        look(&format!("tcp = 'localhost:{port}'\nfamily = 'ipv4'\nsend = \"PING\\r\\n\"\ncontains = '+PONG'")).await;
    assert_eq!(told(&pong), (State::Up, None, "answers with 7 B in T".to_owned()));
    let other = look(&format!("tcp = '{address}'\nsend = \"PING\\r\\n\"\ncontains = '+OK'\npatience = '300ms'")).await;
    assert_eq!(
        told(&other),
        (State::Down, Some(Trouble::Content), "what it said lacks \"+OK\" (answers with 7 B in T)".to_owned())
    );
    let silent = look(&format!("tcp = '{address}'\ncontains = '220'\npatience = '300ms'")).await;
    assert_eq!(told(&silent).2, "no answer within 300ms");
    assert_eq!(silent.trouble, Some(Trouble::TimedOut));
    let nobody = look("tcp = '127.0.0.1:1'").await;
    assert_eq!((nobody.state, nobody.trouble), (State::Down, Some(Trouble::Refused)));

    let certificates = Certificates::make();
    let front = certificates.in_front_of(&address.to_string(), "alone").await;
    let bad = look(&format!("tcp = '{front}'\nencrypted = true")).await;
    assert_eq!(
        told(&bad),
        (State::CertificateBad, Some(Trouble::Certificate), "the certificate is self-signed (answers in T)".to_owned())
    );
    let fine =
        look(&format!("tcp = '{front}'\nencrypted = true\ninsecure = true\nsend = 'PING'\ncontains = 'PONG'")).await;
    assert_eq!(fine.state, State::Up, "{}", fine.what);
}

#[tokio::test]
async fn a_name_is_answered_by_the_server_that_is_named() {
    // Answers with two addresses, `missing` not at all, `silent` never, and first with something that nobody asked for.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut room = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut room).await {
            let (id, question) = (&room[..2], &room[12..count]);
            let name = &question[1..=usize::from(question[0])];
            if name == b"silent" {
                continue;
            }
            let reply = |id: &[u8], code: u8, answers: &[u8], count: u8| {
                [id, &[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], question, answers].concat()
            };
            let address = |last: u8| [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last];
            let foreign = reply(&[id[0] ^ 1, id[1]], 0, &address(66), 1);
            socket.send_to(&foreign, from).await.unwrap();
            socket.send_to(b"no packet at all", from).await.unwrap();
            let own = if name == b"missing" {
                reply(id, 3, &[], 0)
            } else {
                reply(id, 0, &[address(7), address(8)].concat(), 2)
            };
            socket.send_to(&own, from).await.unwrap();
        }
    });
    let keys =
        |name: &str, more: &str| format!("dns = '{name}.example.org'\nresolver = '{server}'\npatience = '1s'\n{more}");
    for (name, more, state, trouble, what) in [
        ("home", "", State::Up, None, "192.0.2.7, 192.0.2.8 in T"),
        (
            "home",
            "answer = ['192.0.2.8', '192.0.2.7']\nexpect = 'count(answer) == 2'",
            State::Up,
            None,
            "192.0.2.7, 192.0.2.8 in T",
        ),
        (
            "home",
            "answer = '192.0.2.9'",
            State::Down,
            Some(Trouble::Content),
            "answer was \"192.0.2.7\", \"192.0.2.8\", expected \"192.0.2.9\" (192.0.2.7, 192.0.2.8 in T)",
        ),
        ("home", "record = 'MX'", State::Down, Some(Trouble::Content), "answer is not there (no MX record, in T)"),
        ("missing", "", State::Down, Some(Trouble::Name), "the name does not exist (NXDOMAIN)"),
        ("silent", "", State::Down, Some(Trouble::Name), "the name server 127.0.0.1 has not answered within 1s"),
    ] {
        let verdict = look(&keys(name, more)).await;
        assert_eq!(told(&verdict), (state, trouble, what.to_owned()), "{name} {more}");
    }
}

#[tokio::test]
async fn a_host_answers_a_ping() {
    let verdict = look("ping = '127.0.0.1'").await;
    assert_eq!(told(&verdict), (State::Up, None, "answers in T".to_owned()));
    let verdict = look("ping = '127.0.0.1'\nexpect = 'time > 1h'").await;
    assert_eq!((verdict.state, verdict.trouble), (State::Down, Some(Trouble::Slow)), "{}", verdict.what);
    let verdict = look("ping = '127.0.0.1'\nfamily = 'ipv6'").await;
    assert_eq!(told(&verdict), (State::Down, Some(Trouble::Name), "127.0.0.1 has no IPv6 address".to_owned()));
}

#[tokio::test]
async fn a_registry_is_asked_once_a_day_however_often_it_is_looked() {
    let reply: Shared<(&'static str, &'static str)> = Arc::default();
    let now = Arc::clone(&reply);
    let server = Server::start(move |seen| {
        assert_eq!(
            (seen.line.as_str(), seen.header("accept")),
            ("GET /rdap/domain/example.org HTTP/1.1", Some("application/rdap+json"))
        );
        let (status, body) = *now.lock().unwrap();
        answer(status, "content-type: application/rdap+json\r\n", body)
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
    let (cx, kept) = context(home.path(), clock.clone(), []);
    let keys = format!("domain = 'Example.org.'\nrdap = '{}'", server.url("/rdap/"));
    let look = async || told(&look_with(&cx, &kept, &keys).await.1.remove(0).verdict);

    *reply.lock().unwrap() = ("500 Internal Server Error", "");
    let unknown = (
        State::Unknown,
        Some(Trouble::Domain),
        "nobody can say until when it is registered: the registry answers 500".to_owned(),
    );
    assert_eq!(look().await, unknown);
    assert_eq!(look().await, unknown);
    assert_eq!(server.seen().len(), 1);
    *reply.lock().unwrap() = (
        "200 OK",
        r#"{"events":[{"eventAction":"registration","eventDate":"2001-01-01T00:00:00Z"},{"eventAction":"expiration","eventDate":"2027-03-01T00:00:00Z"}]}"#,
    );
    clock.step(TimeDelta::hours(2));
    let well = |days| (State::Up, None, format!("registered until 2027-03-01 ({days} days)"));
    assert_eq!(look().await, well(44));
    clock.step(TimeDelta::hours(23));
    assert_eq!(look().await, well(43));
    assert_eq!(server.seen().len(), 2);
    // While the registry is down, what is known counts.
    *reply.lock().unwrap() = ("500 Internal Server Error", "");
    clock.step(TimeDelta::hours(2));
    assert_eq!(look().await, well(43));
    *reply.lock().unwrap() = ("404 Not Found", "");
    clock.step(TimeDelta::days(2));
    assert_eq!(
        look().await,
        (State::Down, Some(Trouble::Domain), "the domain is not registered (any more)".to_owned())
    );
    assert_eq!(server.seen().len(), 4);
    *reply.lock().unwrap() =
        ("200 OK", r#"{"events":[{"eventAction":"expiration","eventDate":"2027-03-01T00:00:00Z"}]}"#);
    clock.step(TimeDelta::days(20));
    let (state, trouble, what) = look().await;
    assert_eq!((state, trouble), (State::Down, Some(Trouble::Domain)));
    assert_eq!(
        what,
        "the domain's registration ends in 21 days, expected > 30 days (registered until 2027-03-01 (21 days))"
    );
}
