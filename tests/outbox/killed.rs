//! `kill -9` of the real server while it tells: at least once always, and exactly once where the service knows keys.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use super::*;
use crate::support::http::{Reply, Seen, Server, answer};

struct House {
    home: tempfile::TempDir,
    server: Option<Child>,
}

impl House {
    fn new(url: &str, jobs: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let settings = format!(
            "[notify]\ngroup = \"0s\"\n[defaults]\nnotify = [\"own\"]\n[notifier.own]\nkind = \"webhook\"\nurl = \"{url}\"\nsecret = \"a secret of sixteen\"\n"
        );
        fs::write(home.path().join("rusuban.toml"), settings).unwrap();
        fs::create_dir(home.path().join("jobs")).unwrap();
        for (name, job) in jobs {
            fs::write(home.path().join(format!("jobs/{name}.toml")), job).unwrap();
        }
        Self { home, server: None }
    }

    fn rusuban(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rusuban"));
        command.arg("--home").arg(self.home.path()).env("TZ", "UTC").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("server.log")).unwrap_or_default()
    }

    async fn start(&mut self) {
        let log = fs::File::create(self.home.path().join("server.log")).unwrap();
        self.server = Some(self.rusuban().arg("serve").stderr(log).spawn().unwrap());
        until("the server is ready", || self.log().contains("ready")).await;
    }

    fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn body(seen: &Seen) -> serde_json::Value {
    serde_json::from_slice(&seen.body).unwrap()
}

fn key(seen: &Seen) -> String {
    assert!(seen.header("webhook-id").is_some());
    body(seen)["data"]["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_it_was_sent_and_before_that_was_written_the_same_is_sent_again_under_its_key() {
    let silent = Arc::new(AtomicBool::new(true));
    let is_silent = Arc::clone(&silent);
    let own = Server::start(move |_| match is_silent.load(Ordering::SeqCst) {
        true => Reply::Silence,
        false => answer("204 No Content", "", ""),
    })
    .await;
    let mut house = House::new(&own.url("/hook"), &[("bad", "kind = \"command\"\ncommand = [\"false\"]\n")]);
    house.start().await;
    house.rusuban().args(["run", "bad"]).stderr(Stdio::null()).status().unwrap();
    until("it was sent", || own.seen().len() == 1).await;
    house.kill();
    silent.store(false, Ordering::SeqCst);
    house.start().await;
    until("it was sent again", || own.seen().len() == 2).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let seen = own.seen();
    assert_eq!(seen.len(), 2, "and not a third time");
    assert_eq!(key(&seen[0]), key(&seen[1]));
    assert_eq!(seen[0].header("webhook-id"), seen[1].header("webhook-id"));
    assert_eq!(body(&seen[0])["data"]["news"], body(&seen[1])["data"]["news"]);
    assert_eq!(body(&seen[0])["type"], "job.failed");
}

/// What the ledger says should have been told: the moments since which it failed, and whether it was well again.
fn expected(home: &Path) -> BTreeSet<(String, i64)> {
    let ledger = rusqlite::Connection::open(home.join("data/rusuban.db")).unwrap();
    let mut runs = ledger.prepare("SELECT outcome, finished FROM runs WHERE finished IS NOT NULL ORDER BY id").unwrap();
    let runs: Vec<(String, i64)> =
        runs.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap();
    let (mut expected, mut since) = (BTreeSet::new(), None);
    for (outcome, at) in runs {
        match outcome.as_str() {
            "succeeded" => {
                if let Some(since) = since.take() {
                    expected.insert(("recovered".to_owned(), since));
                }
            }
            "cancelled" => {}
            _ => {
                let since = *since.get_or_insert(at);
                expected.insert(("failed".to_owned(), since));
            }
        }
    }
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn however_often_it_is_killed_each_beginning_and_each_end_reaches_people_once() {
    let own = Server::start(|_| answer("204 No Content", "", "")).await;
    // A run in three fails, and what a kill cuts off has failed too.
    let flip = "kind = \"command\"\nschedule = \"* * * * * *\"\nmissed = \"skip\"\noverlap = \"queue\"\n\
        shell = \"n=$(cat n 2>/dev/null || echo 0); n=$((n+1)); echo $n > n; sleep 0.2; test $((n % 3)) != 0\"\n";
    let mut house = House::new(&own.url("/hook"), &[("flip", flip)]);
    let began = Instant::now();
    for round in 0..9_u64 {
        house.start().await;
        tokio::time::sleep(Duration::from_millis(700 + (round * 379) % 1900)).await;
        house.kill();
    }
    house.start().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    // It stops with the file gone, so that all that is to be told has been.
    fs::remove_file(house.home.path().join("jobs/flip.toml")).unwrap();
    until("the job is gone", || house.log().contains("removed: flip")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    house.kill();

    let mut told: BTreeMap<(String, i64), BTreeSet<String>> = BTreeMap::new();
    let mut bodies: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    let seen = own.seen();
    for seen in &seen {
        let news = body(seen)["data"]["news"].clone();
        if let Some(before) = bodies.insert(key(seen), news.clone()) {
            assert_eq!(before, news, "one key, one message");
        }
        for news in news.as_array().unwrap() {
            let event = news["event"].as_str().unwrap().to_owned();
            if event == "failed" || event == "recovered" {
                let since: DateTime<Utc> = news["since"].as_str().unwrap().parse().unwrap();
                told.entry((event, since.timestamp_millis())).or_default().insert(key(seen));
            }
        }
    }
    let expected = expected(house.home.path());
    assert!(expected.len() >= 6, "too little happened: {expected:?}");
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), expected, "\n{}", house.log());
    assert!(told.values().all(|keys| keys.len() == 1), "something was told under two keys: {told:?}");
    println!("{} messages, {} keys, {:?}", seen.len(), bodies.len(), began.elapsed());
}
