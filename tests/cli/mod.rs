//! The program as people use it: the real binary, killed and restarted as machines do.
mod containers;
mod heartbeat;
mod in_place;
mod killed;
mod look;
mod mirror;
mod reload;
mod rollback;
mod user;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

fn rusuban(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rusuban"));
    command.arg("--home").arg(home).env("TZ", "UTC").env_remove("RUSUBAN_HOME").stdin(Stdio::null());
    // Whoever wants an engine says which.
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    command
}

pub(crate) fn run(home: &Path, arguments: &[&str]) -> Output {
    rusuban(home).args(arguments).output().unwrap()
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A home with one job.
fn home(name: &str, job: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    add(home.path(), name, job);
    home
}

pub(crate) fn add(home: &Path, name: &str, job: &str) {
    fs::create_dir_all(home.join("jobs")).unwrap();
    fs::write(home.join(format!("jobs/{name}.toml")), job).unwrap();
}

/// A server that ends with the test.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(home: &Path) -> Self {
        let log = fs::File::create(home.join("server.log")).unwrap();
        let server = Self(rusuban(home).arg("serve").stderr(log).spawn().unwrap());
        wait_until("the server is ready", || said(home).contains("ready"));
        server
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    pub(crate) fn terminate(mut self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        self.0.wait().unwrap().code().unwrap_or(-1)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn said(home: &Path) -> String {
    fs::read_to_string(home.join("server.log")).unwrap_or_default()
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn runs(home: &Path) -> Vec<serde_json::Value> {
    let output = run(home, &["runs", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

#[test]
fn where_there_are_none_that_is_said() {
    let home = home("noop", "kind = \"command\"\ncommand = [\"true\"]\n");
    assert!(run(home.path(), &["run", "noop"]).status.success());
    let output = run(home.path(), &["sites", "blog"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output).contains("there is no site `blog`; there are none yet"), "{}", text(&output));
}

#[test]
fn a_newcomer_makes_a_backup_verifies_it_and_brings_it_back() {
    let home = tempfile::tempdir().unwrap();
    let begun = run(home.path(), &["init"]);
    assert!(begun.status.success(), "{}", text(&begun));
    assert_eq!(run(home.path(), &["init"]).status.code(), Some(1), "what is there is not touched");
    assert!(run(home.path(), &["check", "--connect"]).status.success());
    let kept = run(home.path(), &["run", "self-backup"]);
    assert!(kept.status.success() && text(&kept).contains("bring it back with"), "{}", text(&kept));
    assert!(text(&run(home.path(), &["backups"])).contains("self-backup"));
    assert!(run(home.path(), &["verify", "self-backup"]).status.success());
    let to = home.path().join("restored");
    let to = to.to_str().unwrap();
    let restored = run(home.path(), &["restore", "self-backup", "--to", to]);
    assert!(restored.status.success(), "{}", text(&restored));
    assert!(Path::new(to).join("rusuban/jobs/self-backup.toml").exists());
    let again = run(home.path(), &["restore", "self-backup", "--to", to]);
    assert_eq!(again.status.code(), Some(1), "never over something that exists: {}", text(&again));
    assert!(run(home.path(), &["restore", "self-backup", "--to", to, "--replace"]).status.success());
}

#[test]
fn a_live_database_and_a_folder_come_back_byte_for_byte_without_job_file_or_ledger() {
    let place = tempfile::tempdir().unwrap();
    let (database, files) = (place.path().join("redmine.db"), place.path().join("files"));
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1), (2), (3)")
        .unwrap();
    fs::create_dir(&files).unwrap();
    fs::write(files.join("a.txt"), "kept").unwrap();
    fs::write(files.join("b.tmp"), "left out").unwrap();
    let home = home(
        "redmine",
        &format!(
            "kind = \"backup\"\n[[source]]\nsqlite = {database:?}\n[[source]]\npath = {files:?}\nexclude = [\"*.tmp\"]\n"
        ),
    );
    let kept = run(home.path(), &["run", "redmine"]);
    assert!(kept.status.success(), "{}", text(&kept));
    fs::remove_file(home.path().join("jobs/redmine.toml")).unwrap();
    for name in ["rusuban.db", "rusuban.db-wal", "rusuban.db-shm"] {
        let _ = fs::remove_file(home.path().join("data").join(name));
    }
    let to = place.path().join("back");
    let back = run(home.path(), &["restore", "redmine", "--to", to.to_str().unwrap()]);
    assert!(back.status.success(), "{}", text(&back));
    let rows: i64 = rusqlite::Connection::open(to.join("redmine.db"))
        .unwrap()
        .query_row("SELECT sum(x) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 6);
    assert_eq!(fs::read_to_string(to.join("files/a.txt")).unwrap(), "kept");
    assert!(!to.join("files/b.tmp").exists());
    drop(connection);
}

#[test]
fn a_source_that_is_not_there_makes_the_run_red_and_leaves_no_backup() {
    let home = home("gone", "kind = \"backup\"\n[[source]]\npath = \"/nonexistent/folder\"\n");
    let red = run(home.path(), &["run", "gone"]);
    assert_eq!(red.status.code(), Some(1), "{}", text(&red));
    assert!(text(&red).contains("/nonexistent/folder"));
    assert_eq!(run(home.path(), &["backups", "gone"]).status.code(), Some(4));
    assert_eq!(runs(home.path())[0]["progress"]["outcome"], "failed");
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let home = home("works", "kind = \"command\"\ncommand = [\"true\"]\n");
    add(home.path(), "fails", "kind = \"command\"\ncommand = [\"false\"]\n");
    for (arguments, code) in [
        (&["run", "works"][..], 0),
        (&["run", "fails"], 1),
        (&["run"], 2),
        (&["run", "wroks"], 4),
        (&["log", "999"], 4),
        (&["backups", "works"], 4),
        (&["kinds", "nothing"], 4),
        (&["bucket", "test", "nothing"], 4),
        (&["backups", "--bucket", "nothing"], 4),
        (&["repository", "check", "nothing"], 4),
        (&["recovery-kit", "nothing"], 4),
        (&["restore", "works", "--at", "one fine day", "--to", "back"], 2),
        (&["cancel", "1"], 1),
    ] {
        let output = run(home.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
    }
    assert!(text(&run(home.path(), &["run", "wroks"])).contains("did you mean `works`?"));
    add(home.path(), "wrong", "kind = \"comand\"\n");
    let wrong = run(home.path(), &["check"]);
    assert_eq!(wrong.status.code(), Some(3));
    assert!(text(&wrong).contains("jobs/wrong.toml:1:8") && text(&wrong).contains("did you mean `command`?"));
}

#[test]
fn a_server_runs_jobs_on_time_takes_orders_and_notices_changed_files() {
    let home = home("tick", "kind = \"command\"\nschedule = \"* * * * * *\"\nshell = \"echo tick\"\n");
    let server = Server::start(home.path());
    assert_eq!(run(home.path(), &["serve"]).status.code(), Some(1), "one server a home");
    wait_until("it has run twice", || runs(home.path()).len() >= 2);
    assert!(run(home.path(), &["pause", "tick"]).status.success());
    add(home.path(), "slow", "kind = \"command\"\nshell = \"echo begun; sleep 60\"\n");
    wait_until("the new job is there", || said(home.path()).contains("added: slow"));
    let mut follower = rusuban(home.path()).args(["run", "slow"]).stdout(Stdio::piped()).spawn().unwrap();
    let find =
        || runs(home.path()).into_iter().find(|run| run["job"] == "slow" && run["progress"]["state"] == "running");
    wait_until("it is at work", || find().is_some());
    let id = find().unwrap()["id"].to_string();
    assert!(run(home.path(), &["cancel", &id]).status.success());
    assert_eq!(follower.wait().unwrap().code(), Some(130));
    fs::write(home.path().join("jobs/tick.toml"), "kind = \"command\"\nschedule = \"never\"\nshell = \"x\"\n").unwrap();
    wait_until("the wrong file is refused", || said(home.path()).contains("the old ones stay in force"));
    assert_eq!(server.terminate(), 0);
    assert!(said(home.path()).contains("all is in the ledger"));
    assert!(runs(home.path()).iter().all(|run| run["progress"]["state"] == "finished"));
}

#[test]
fn no_slot_comes_twice_and_none_is_lost_over_kills_and_restarts() {
    let home = home(
        "tick",
        "kind = \"command\"\nschedule = \"* * * * * *\"\nmissed = { all = 100 }\noverlap = \"queue\"\nshell = \"echo $RUSUBAN_RUN >> ticks\"\n",
    );
    for _ in 0..4 {
        let server = Server::start(home.path());
        std::thread::sleep(Duration::from_millis(1700));
        server.kill();
    }
    let server = Server::start(home.path());
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.terminate(), 0);
    let output = run(home.path(), &["runs", "tick", "--slots", "--json", "-n", "1000"]);
    let slots: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let mut due: Vec<i64> = slots
        .iter()
        .map(|slot| slot["due"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp())
        .collect();
    due.sort_unstable();
    assert!(due.len() >= 6, "{due:?}");
    assert!(due.windows(2).all(|pair| pair[1] == pair[0] + 1), "a second is missing or twice: {due:?}");
    let started = fs::read_to_string(home.path().join("ticks")).unwrap();
    let mut ids: Vec<&str> = started.lines().collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "no run starts twice");
}

#[test]
fn a_run_that_a_kill_cut_off_is_interrupted_and_its_after_hook_is_run() {
    let home = home(
        "long",
        "kind = \"command\"\nshell = \"touch begun; sleep 60\"\n[hooks]\nbefore = \"true\"\nafter = \"echo $RUSUBAN_OUTCOME > after\"\n",
    );
    let server = Server::start(home.path());
    let mut follower =
        rusuban(home.path()).args(["run", "long"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("it is at work", || home.path().join("begun").exists());
    server.kill();
    follower.wait().unwrap();
    let server = Server::start(home.path());
    wait_until("the hook has run", || home.path().join("after").exists());
    assert_eq!(runs(home.path())[0]["progress"]["outcome"], "interrupted");
    assert_eq!(fs::read_to_string(home.path().join("after")).unwrap().trim(), "interrupted");
    assert_eq!(server.terminate(), 0);
}
