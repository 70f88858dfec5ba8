//! Jobs that run when something happens to containers: the real server, a real engine that is restarted as well.
use std::{fs, path::Path, time::Duration};

use crate::{
    cli::{Server, add, run, runs, said, text, wait_until},
    support::{
        allow::Allow,
        docker::{BASE, Dockerd, dockerd},
    },
};

const TELL: &str = r#"shell = 'echo "$RUSUBAN_CONTAINER $RUSUBAN_EVENT $RUSUBAN_EXIT_CODE $RUSUBAN_OUT_OF_MEMORY $RUSUBAN_LATE" >> told'"#;

fn home(host: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("rusuban.toml"), format!("[docker]\nhost = {host:?}\n")).unwrap();
    home
}

fn job(home: &Path, name: &str, on: &str) {
    add(home, name, &format!("kind = 'command'\noverlap = 'queue'\non = {on}\n{TELL}\n"));
}

/// What jobs were told, a line each.
fn told(home: &Path) -> Vec<String> {
    fs::read_to_string(home.join("told")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn is_told(home: &Path, line: &str) -> bool {
    told(home).iter().any(|told| told == line)
}

/// One that ends with this status once it is told to.
fn mortal(docker: &Dockerd, name: &str, status: u8) {
    let line = format!("while [ ! -e /go ]; do sleep 0.05; done; exit {status}");
    docker.run(name, &["--network", "none", BASE, "sh", "-c", &line]);
}

fn dies(docker: &Dockerd, name: &str) {
    docker.cli(&["exec", name, "touch", "/go"]);
}

#[test]
fn what_happens_to_containers_starts_the_jobs_that_want_it_and_what_was_asked_for_does_not() {
    let docker = dockerd();
    let home = home(&docker.host());
    let home = home.path();
    docker.run("old", &["--network", "none", BASE]);
    job(home, "died", "{ event = 'died', rest = '2s' }");
    job(home, "others", "{ event = ['oom', 'unhealthy', 'started'], containers = ['web-*', 'ill', 'hungry'] }");
    let server = Server::start(home);
    let mut probes = 0;
    wait_until("it follows", || {
        // Whoever is heard is heard from then on.
        probes += 1;
        docker.run(&format!("web-probe-{probes}"), &["--network", "none", BASE, "true"]);
        std::thread::sleep(Duration::from_millis(500));
        told(home).iter().any(|line| line.starts_with("web-probe-") && line.ends_with(" started  false false"))
    });
    mortal(docker, "blog", 3);
    dies(docker, "blog");
    wait_until("the death is told", || is_told(home, "blog died 3 false false"));
    let row = runs(home).into_iter().find(|run| run["job"] == "died").unwrap();
    assert_eq!(
        (&row["trigger"]["container"]["container"], &row["trigger"]["container"]["status"]),
        (&"blog".into(), &3.into())
    );
    assert!(text(&run(home, &["runs"])).contains("blog died"), "{}", text(&run(home, &["runs"])));
    let log = text(&run(home, &["log", "died"]));
    assert!(log.contains("started because the container blog died (status 3)"), "{log}");

    // Ended by somebody, by one of our own runs, or with all done: nobody died.
    for name in ["web-stopped", "web-killed", "web-removed", "web-restarted"] {
        docker.run(name, &["--network", "none", BASE]);
    }
    docker.run("web-volume", &["--network", "none", "-v", "data:/data", BASE]);
    docker.cli(&["exec", "web-volume", "sh", "-c", "echo kept > /data/file"]);
    add(home, "keeps", "kind = 'backup'\n[[source]]\nvolume = 'data'\nconsistency = 'stop'\n");
    docker.cli(&["stop", "-t", "0", "web-stopped"]);
    docker.cli(&["kill", "web-killed"]);
    docker.cli(&["rm", "-f", "web-removed"]);
    docker.cli(&["restart", "web-restarted"]);
    docker.run("web-done", &["--network", "none", BASE, "true"]);
    wait_until("the job is there", || said(home).contains("added: keeps"));
    assert!(run(home, &["run", "keeps"]).status.success());

    docker.run(
        "ill",
        &["--network", "none", "--health-cmd", "false", "--health-interval", "200ms", "--health-retries", "1", BASE],
    );
    wait_until("it is unhealthy", || is_told(home, "ill unhealthy  false false"));
    // The engine hears of a lack of memory only once it has begun to listen.
    docker.run(
        "hungry",
        &["--network", "none", "--memory", "8m", "--memory-swap", "8m", BASE, "sh", "-c", "sleep 1; tail /dev/zero"],
    );
    wait_until("its memory is at an end", || is_told(home, "hungry oom  true false"));
    wait_until("it died of it", || {
        told(home).iter().any(|line| line.starts_with("hungry died 1") && line.ends_with("true false"))
    });
    assert_eq!(told(home).iter().filter(|line| line.starts_with("hungry oom")).count(), 1);

    // A loop of restarts is a run now and then, and nothing is forgotten.
    docker.run("loop", &["--network", "none", "--restart", "always", BASE, "sh", "-c", "exit 7"]);
    let loops = || told(home).iter().filter(|line| line.starts_with("loop died")).count() as u64;
    let looped = || runs(home).into_iter().find(|run| run["trigger"]["container"]["held_back"].as_u64() > Some(0));
    wait_until("it is told how often", || looped().is_some());
    let restarts = docker.inspect("loop")["RestartCount"].as_u64().unwrap();
    assert!(loops() < restarts, "{restarts} restarts, {} runs", loops());
    docker.cli(&["rm", "-f", "loop"]);
    let looped = looped().unwrap();
    let log = text(&run(home, &["log", &looped["id"].to_string()]));
    assert!(log.contains("since the last run that it started"), "{log}");
    assert!(said(home).contains("held back"), "{}", said(home));

    let died: Vec<String> = told(home).into_iter().filter(|line| line.contains(" died ")).collect();
    assert!(died.iter().all(|line| ["blog", "hungry", "loop"].iter().any(|name| line.starts_with(name))), "{died:?}");

    // While nobody looks, one dies and one is stopped.
    for name in ["late", "asked"] {
        mortal(docker, name, 4);
    }
    wait_until("it was seen", || {
        let known = rusqlite::Connection::open(home.join("data/rusuban.db")).unwrap();
        let value: String =
            known.query_row("SELECT value FROM facts WHERE key = 'containers-followed'", (), |row| row.get(0)).unwrap();
        value.contains("\"asked\"") && value.contains("\"late\"")
    });
    assert_eq!(server.terminate(), 0);
    dies(docker, "late");
    docker.cli(&["stop", "-t", "0", "asked"]);
    job(home, "new", "'died'");
    let before = runs(home).iter().filter(|run| run["job"] == "new").count();
    let server = Server::start(home);
    wait_until("it is found", || is_told(home, "late died 4 false true"));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!told(home).iter().any(|line| line.starts_with("asked ")), "{:?}", told(home));
    assert_eq!(
        told(home).iter().filter(|line| line.starts_with("late died")).count(),
        1,
        "a job that is new hears nothing of it"
    );
    assert_eq!((before, runs(home).iter().filter(|run| run["job"] == "new").count()), (0, 0));
    assert_eq!(server.terminate(), 0);
}

#[test]
fn an_engine_that_is_restarted_loses_nothing_and_doubles_nothing() {
    let docker = dockerd();
    let home = home(&docker.host());
    let home = home.path();
    job(home, "died", "'died'");
    job(home, "started", "{ event = 'started', containers = ['after'] }");
    mortal(docker, "one", 1);
    mortal(docker, "two", 2);
    docker.run("stopped", &["--network", "none", BASE]);
    let server = Server::start(home);
    wait_until("it was seen", || {
        let known = rusqlite::Connection::open(home.join("data/rusuban.db")).unwrap();
        let value: Result<String, _> =
            known.query_row("SELECT value FROM facts WHERE key = 'containers-followed'", (), |row| row.get(0));
        value.is_ok_and(|value| value.contains("\"stopped\""))
    });
    docker.cli(&["stop", "-t", "0", "stopped"]);
    dies(docker, "one");
    wait_until("it is told", || is_told(home, "one died 1 false false"));
    docker.power_cut();
    wait_until("what the list shows is told", || {
        told(home).iter().any(|line| line.starts_with("two died") && line.ends_with("true"))
    });
    mortal(docker, "after", 5);
    wait_until("it is heard again", || is_told(home, "after started  false false"));
    dies(docker, "after");
    wait_until("and dies", || is_told(home, "after died 5 false false"));
    let mut died: Vec<String> = told(home).into_iter().filter(|line| line.contains(" died ")).collect();
    died.sort();
    assert_eq!(died.len(), 3, "{died:?}");
    // It may have been back before it was missed; else both are said once.
    let [away, back] =
        ["what happens to them is not heard", "Docker answers again"].map(|part| said(home).matches(part).count());
    assert!(away <= 1 && away == back, "{}", said(home));

    // Without a job that wants it there is no subscription, and what was known is forgotten.
    fs::remove_file(home.join("jobs/died.toml")).unwrap();
    fs::remove_file(home.join("jobs/started.toml")).unwrap();
    wait_until("it is forgotten", || {
        let known = rusqlite::Connection::open(home.join("data/rusuban.db")).unwrap();
        let value: String =
            known.query_row("SELECT value FROM facts WHERE key = 'containers-followed'", (), |row| row.get(0)).unwrap();
        value == "null"
    });
    assert_eq!(server.terminate(), 0);
}

#[test]
fn following_asks_for_what_is_printed_and_no_more() {
    let docker = dockerd();
    let proxy = Allow::before(docker.socket());
    let home = home(&proxy.host());
    let home = home.path();
    job(home, "died", "{ event = 'died', containers = ['blog'] }");
    let printed = run(home, &["docker-acl", "died", "--format", "json"]);
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let needs = printed[0]["needs"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let all: Vec<(String, String)> = needs.iter().map(|one| (text(&one["method"]), text(&one["path"]))).collect();
    proxy.only(all.clone());
    mortal(docker, "blog", 6);
    let server = Server::start(home);
    wait_until("it was seen", || {
        let known = rusqlite::Connection::open(home.join("data/rusuban.db")).unwrap();
        let value: Result<String, _> =
            known.query_row("SELECT value FROM facts WHERE key = 'containers-followed'", (), |row| row.get(0));
        value.is_ok_and(|value| value.contains("\"blog\""))
    });
    assert_eq!(server.terminate(), 0);
    // So that only the list shows it: the engine has forgotten what it said.
    docker.power_cut();
    let server = Server::start(home);
    wait_until("it is found", || told(home).iter().any(|line| line.starts_with("blog died")));
    let (used, refused) = proxy.seen();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(used, all.into_iter().collect());
    assert_eq!(server.terminate(), 0);
}
