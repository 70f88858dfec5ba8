//! Heartbeats of the real program: called as at healthchecks.io, silent, killed in the middle, and called again.
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use super::*;

const KEY: &str = "d3b07384-d113-4ec6-a5f1-1b2c8f0e9a77";

/// What the server answers: its status line, and all of it.
fn call(port: u16, request: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    // It may have answered before it was told all.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn json(home: &Path, arguments: &[&str]) -> Vec<serde_json::Value> {
    let output = run(home, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

fn state(home: &Path) -> String {
    json(home, &["sites"]).first().map_or("", |site| site["state"].as_str().unwrap()).to_owned()
}

#[test]
fn who_is_silent_has_one_incident_however_often_the_server_is_killed() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let job = |key: &str| {
        format!(
            "kind = \"heartbeat\"\nschedule = \"@every 1s\"\nping_key = \"{key}\"\nevery = \"2s\"\npatience = \"2s\"\n"
        )
    };
    let home = home("laptop", &job(KEY));
    let home = home.path();
    add(home, "phone", &job("another-key-of-two-jobs"));
    add(home, "tablet", &job("another-key-of-two-jobs"));
    fs::write(home.join("rusuban.toml"), format!("[web]\nlisten = \"127.0.0.1:{port}\"\n")).unwrap();
    let server = Server::start(home);
    assert!(call(port, &format!("GET /ping/{KEY}x"), b"").starts_with("HTTP/1.1 404"), "a wrong key");
    assert!(call(port, "GET /ping/another-key-of-two-jobs", b"").starts_with("HTTP/1.1 404"), "which of the two?");
    assert!(call(port, "GET /ping/another-key-of-two-jobs/phone/start", b"").starts_with("HTTP/1.1 200"));
    assert!(call(port, &format!("GET /ping/{KEY}/256"), b"").starts_with("HTTP/1.1 404"), "no exit status");
    assert!(call(port, &format!("HEAD /ping/{KEY}/start?rid=1"), b"").starts_with("HTTP/1.1 200"));
    assert!(call(port, &format!("POST /ping/{KEY}/0?rid=1"), &vec![b'x'; 1 << 20]).starts_with("HTTP/1.1 200"));
    assert!(call(port, &format!("DELETE /ping/{KEY}"), b"").starts_with("HTTP/1.1 405"));
    let ledger = rusqlite::Connection::open(home.join("data/rusuban.db")).unwrap();
    let heard: String = ledger
        .query_row("SELECT value FROM facts WHERE job = 'laptop' AND key = 'heard'", (), |row| row.get(0))
        .unwrap();
    let heard: serde_json::Value = serde_json::from_str(&heard).unwrap();
    assert_eq!(heard["success"]["said"].as_str().unwrap().len(), 10_000);
    assert!(heard["took"].is_u64() && heard["begun"].is_null(), "{heard}");
    wait_until("it is up", || state(home) == "up");
    // Silent from now on; killed before, at and after the moment when that is noticed.
    server.kill();
    for _ in 0..3 {
        let server = Server::start(home);
        std::thread::sleep(Duration::from_millis(1700));
        server.kill();
    }
    let server = Server::start(home);
    wait_until("its silence is noticed", || {
        json(home, &["incidents", "--open"]).iter().any(|incident| incident["job"] == "laptop")
    });
    server.kill();
    let server = Server::start(home);
    let said = text(&run(home, &["incidents"]));
    assert!(said.contains("laptop") && said.contains("silent: a call was due"), "{said}");
    wait_until("it is well again", || {
        assert!(call(port, &format!("GET /ping/{KEY}"), b"").starts_with("HTTP/1.1 200"));
        state(home) == "up"
    });
    server.kill();
    let of_laptop = |incident: &&serde_json::Value| incident["job"] == "laptop";
    let incidents = json(home, &["incidents"]);
    let incidents: Vec<_> = incidents.iter().filter(of_laptop).collect();
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    assert!(incidents[0]["ended"].is_string(), "{incidents:?}");
    // People read it too.
    let said = text(&run(home, &["sites", "laptop"]));
    assert!(said.contains("laptop of the job laptop") && said.contains("incidents"), "{said}");
    assert_eq!(run(home, &["sites", "nothing"]).status.code(), Some(4));
    assert_eq!(run(home, &["maintenance", "nothing", "1h"]).status.code(), Some(4));
    assert!(text(&run(home, &["maintenance", "laptop", "2h"])).contains("laptop is in maintenance until"));
    assert!(text(&run(home, &["maintenance"])).contains("laptop until"));
    assert!(text(&run(home, &["maintenance", "laptop", "end"])).contains("laptop is looked at again as always"));
}
