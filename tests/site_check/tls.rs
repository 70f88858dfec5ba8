//! Certificates: a site that is up with a bad one is neither up nor down.
use bytes::Bytes;
use chrono::TimeDelta;
use rusuban::{
    clock::Clock,
    model::watch::{State, Trouble, Verdict},
};
use tokio::net::TcpListener;

use super::{look_with, told};
use crate::support::{
    http::{Server, answer},
    kind::context,
    tls::Certificates,
};

struct House {
    home: tempfile::TempDir,
    certificates: Certificates,
    server: Server,
}

async fn house() -> House {
    let server = Server::start(|_| answer("200 OK", "", "Welcome")).await;
    let home = tempfile::tempdir().unwrap();
    let certificates = Certificates::make();
    std::fs::write(home.path().join("authority.pem"), &certificates.authority).unwrap();
    House { home, certificates, server }
}

impl House {
    /// Looks so many hours from now.
    async fn look_in(&self, hours: i64, keys: &str) -> Verdict {
        let clock = Clock::simulated(Clock::system().now() + TimeDelta::hours(hours));
        let (cx, kept) = context(self.home.path(), clock, []);
        look_with(&cx, &kept, keys).await.1.remove(0).verdict
    }
}

#[tokio::test]
async fn a_bad_certificate_is_a_state_of_its_own_and_its_end_is_told_all_the_same() {
    let house = house().await;
    let behind = format!("http://{}", house.server.address);
    let front = |name: &'static str| house.certificates.in_front_of(&behind, name);
    let (server, alone, elsewhere) = (front("server").await, front("alone").await, front("elsewhere").await);
    let keys = |address: &str, more: &str| {
        format!("url = 'https://{address}/'\ncontains = 'Welcome'\nca = 'authority.pem'\n{more}")
    };
    let bad = Some(Trouble::Certificate);

    let well = house.look_in(0, &keys(&server, "")).await;
    assert_eq!(told(&well), (State::Up, None, "200, 7 B in T, certificate 1 day".to_owned()));
    let certificate = well.certificate.unwrap();
    assert_eq!(certificate.distrust, None);

    // It lives two days: within the last quarter of them it is time to say so.
    let soon = house.look_in(40, &keys(&server, "")).await;
    assert_eq!((soon.state, soon.trouble), (State::CertificateBad, bad.clone()));
    assert!(soon.what.starts_with("the certificate ends in 7h 5"), "{}", soon.what);
    let asked = house.look_in(40, &keys(&server, "certificate_left = '1h'")).await;
    assert_eq!(asked.state, State::Up, "{}", asked.what);
    let strict = house.look_in(0, &keys(&server, "expect = 'certificate > 14d'")).await;
    assert!(
        strict.what.starts_with("the certificate ends in 1 day, expected > 14 days (200, 7 B in "),
        "{}",
        strict.what
    );
    assert_eq!(strict.state, State::CertificateBad);

    let expired = house.look_in(100, &keys(&server, "")).await;
    assert_eq!(
        told(&expired),
        (State::CertificateBad, bad.clone(), "the certificate expired 2 days ago (200, 7 B in T)".to_owned())
    );
    assert_eq!(expired.certificate.unwrap().ends, certificate.ends);
    let insecure = house.look_in(100, &keys(&server, "insecure = true")).await;
    assert_eq!(told(&insecure), (State::Up, None, "200, 7 B in T, certificate not looked at (insecure)".to_owned()));
    let sick = house.look_in(100, &keys(&server, "lacks = 'Welcome'")).await;
    assert_eq!(told(&sick).2, "the page has \"Welcome\"; the certificate expired 2 days ago (200, 7 B in T)");
    assert_eq!((sick.state, sick.trouble), (State::Down, Some(Trouble::Content)));

    let own = house.look_in(0, &keys(&alone, "")).await;
    assert_eq!(
        told(&own),
        (State::CertificateBad, bad.clone(), "the certificate is self-signed (200, 7 B in T)".to_owned())
    );
    let other = house.look_in(0, &keys(&elsewhere, "")).await;
    assert_eq!(told(&other).2, "the certificate is not for 127.0.0.1 but for other.example (200, 7 B in T)");
    let unknown = house.look_in(0, &format!("url = 'https://{server}/'")).await;
    assert_eq!(
        told(&unknown).2,
        "the certificate is signed by \"our own authority\", which is not trusted here (200 in T)"
    );

    // Nothing that is secret is told to whoever shows it.
    let before = house.server.seen().len();
    let secret = house.look_in(0, &keys(&alone, "bearer = { env = 'TOKEN' }")).await;
    assert_eq!(secret.state, State::CertificateBad);
    assert!(secret.what.contains("it was asked nothing, since that would show secrets"), "{}", secret.what);
    assert!(secret.certificate.is_some());
    assert_eq!(house.server.seen().len(), before);

    // The same certificates at a port that speaks something else.
    for (address, hours, state, words) in [
        (&server, 0, State::Up, "certificate 1 day, until "),
        (&server, 100, State::CertificateBad, "the certificate expired 2 days ago"),
        (&alone, 0, State::CertificateBad, "the certificate is self-signed"),
    ] {
        let verdict = house.look_in(hours, &format!("tls = '{address}'\nca = 'authority.pem'")).await;
        assert_eq!(verdict.state, state, "{}", verdict.what);
        assert!(verdict.what.starts_with(words), "{}", verdict.what);
    }
    let plain = house.look_in(0, &format!("tls = '{}'\npatience = '2s'", house.server.address)).await;
    assert_eq!(plain.state, State::Down, "{}", plain.what);
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_wanted() {
    let house = house().await;
    let acceptor = house.certificates.acceptor("server", &[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().path(), "/a");
                let response = hyper::Response::builder().status(200).body(()).unwrap();
                respond
                    .send_response(response, false)
                    .unwrap()
                    .send_data(Bytes::from_static(b"Welcome by two"), true)
                    .unwrap();
            }
        }
    });
    let verdict = house
        .look_in(0, &format!("url = 'https://{address}/a'\nca = 'authority.pem'\nhttp2 = true\ncontains = 'by two'"))
        .await;
    assert_eq!(told(&verdict), (State::Up, None, "200, 14 B in T, certificate 1 day".to_owned()));
    let old = house.certificates.in_front_of(&format!("http://{}", house.server.address), "server").await;
    let verdict = house.look_in(0, &format!("url = 'https://{old}/a'\nca = 'authority.pem'\nhttp2 = true")).await;
    assert_eq!(told(&verdict).2, "http was 1.1, expected >= 2 (200 in T)");
}
