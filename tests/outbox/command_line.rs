//! `rusuban notify` and what the real program tells, with a real receiver.
use std::{
    fs,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use rusuban::{
    app::{App, Opened, deliver::fingerprint},
    config::{self, Environment, Home},
    store::Line,
};

use super::*;
use crate::support::http::{Server, answer};

fn home(settings: &str, jobs: &[(&str, &str)]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("rusuban.toml"), settings).unwrap();
    fs::create_dir(home.path().join("jobs")).unwrap();
    for (name, job) in jobs {
        fs::write(home.path().join(format!("jobs/{name}.toml")), job).unwrap();
    }
    home
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rusuban"));
    command.arg("--home").arg(home).env("TZ", "UTC").stdin(Stdio::null()).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_which_notifiers_work_and_what_waits_and_mends_it() {
    let status = Arc::new(AtomicU16::new(204));
    let now = Arc::clone(&status);
    let own = Server::start(move |_| answer(&format!("{} x", now.load(Ordering::SeqCst)), "", "")).await;
    let settings = format!(
        "[notifier.own]\nkind = \"webhook\"\nurl = \"{}\"\nsecret = \"a secret of sixteen\"\n",
        own.url("/hook")
    );
    let bad = "kind = \"command\"\ncommand = [\"false\"]\nnotify = [\"own\"]\n";
    let home = home(&settings, &[("bad", bad), ("unheard", "kind = \"command\"\ncommand = [\"true\"]\n")]);
    let home = home.path();
    let look = |arguments: &[&str]| text(&run(home, arguments));

    assert!(look(&["check"]).contains("nobody hears when it fails: write `notify = [\"NAME\"]`"));
    assert!(look(&["notify"]).contains("nothing told yet"));
    assert_eq!(run(home, &["notify", "test", "onw"]).status.code(), Some(4));
    assert!(look(&["notify", "test", "onw"]).contains("did you mean `own`?"));
    let tested = run(home, &["notify", "test", "own"]);
    assert!(tested.status.success() && text(&tested).contains("own took a trial message"), "{}", text(&tested));
    assert_eq!(own.seen().len(), 1);

    // It refuses: the run alone says that somebody was not told.
    status.store(410, Ordering::SeqCst);
    let ran = run(home, &["run", "bad"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran).contains("`rusuban notify` shows why"), "{}", text(&ran));
    let listed = look(&["notify"]);
    assert!(listed.contains("refuses since") && listed.contains("wants no more"), "{listed}");
    assert_eq!(json(&run(home, &["notify", "--json"]))[0]["state"], "blocked");
    let refused = run(home, &["notify", "test", "own"]);
    assert!(refused.status.code() == Some(1) && text(&refused).contains("did not take it"), "{}", text(&refused));
    assert!(look(&["notify", "outbox"]).contains("bad"));
    let waiting = json(&run(home, &["notify", "outbox", "--json"]));
    assert_eq!(waiting[0]["news"]["event"], "failed");

    status.store(204, Ordering::SeqCst);
    let before = own.seen().len();
    assert!(look(&["notify", "unblock", "own"]).contains("own is tried again"));
    assert!(look(&["notify", "unblock", "own"]).contains("nothing was against own"));
    let ran = run(home, &["run", "unheard"]);
    assert!(ran.status.success() && !text(&ran).contains("warning"), "{}", text(&ran));
    let seen = own.seen();
    assert_eq!(seen.len(), before + 1, "what waited is told, as one");
    let said: serde_json::Value = serde_json::from_slice(&seen[before].body).unwrap();
    assert!(said["data"]["text"].as_str().unwrap().contains("bad"), "{said}");
    assert!(look(&["notify", "outbox"]).contains("nothing waits to be told"));
    assert!(look(&["notify", "list"]).contains("works"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_notifiers_it_says_how_to_have_one() {
    let home = home("", &[]);
    assert!(text(&run(home.path(), &["notify"])).contains("write `[notifier.NAME]` in rusuban.toml"));
    assert!(text(&run(home.path(), &["notify", "outbox"])).contains("nothing waits"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_call_outwards_is_made_only_while_all_is_well() {
    let outside = Server::start(|_| answer("200 OK", "", "OK")).await;
    let settings = format!(
        "[notify]\nalive = {{ url = \"{}\", every = \"10s\" }}\n[notifier.own]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n",
        outside.url("/ping/0f5b")
    );
    let folder = home(&settings, &[]);
    let environment = Environment::from([("TZ", "UTC")]);
    let home = Home::find(Some(folder.path().to_owned()), &environment).unwrap();
    let config = config::load(&home, &environment).unwrap().config;
    let clock = Clock::simulated(START.parse().unwrap());
    let Opened::Ours(app) = App::open(home, config, clock.clone(), "a test").await.unwrap() else {
        panic!("it is taken")
    };
    app.is_well().await.unwrap();
    let setup = app.delivery().setup();
    let settings = Some(fingerprint(&setup.notifiers["own"]));
    let blocked = Line { blocked: Some(clock.now()), settings, ..Line::default() };
    app.store().set_line("own", blocked).await.unwrap();
    assert!(app.is_well().await.unwrap_err().to_string().contains("no notifier gets through"));
    app.delivery().unblock("own").await.unwrap();
    app.is_well().await.unwrap();
    clock.step(TimeDelta::minutes(5));
    assert!(app.is_well().await.unwrap_err().to_string().contains("has not looked for"));
    drop(app);

    let server = Command::new(env!("CARGO_BIN_EXE_rusuban"))
        .arg("--home")
        .arg(folder.path())
        .arg("serve")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut server = server.unwrap();
    until("it has called", || !outside.seen().is_empty()).await;
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(outside.seen()[0].line, "GET /ping/0f5b HTTP/1.1");
}
