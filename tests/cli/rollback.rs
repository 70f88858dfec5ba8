//! A container goes back to a snapshot, on a real engine; and at no moment is it lost, whoever is killed.
use super::*;
use crate::support::{
    docker::{BASE, Dockerd, dockerd},
    frozen::{Frozen, Silent},
};

const WORK: &str =
    "[ ! -e /broken ] || exit 3; cat /state 2> /dev/null; trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";

/// A home, an engine with snapshots of all kinds, and the container `blog`, well, in the state of today.
struct House {
    home: tempfile::TempDir,
    dockerd: &'static Dockerd,
    old: String,
}

impl House {
    fn new() -> Self {
        let dockerd = dockerd();
        for (tag, what) in [("Tue", "touch /well"), ("Wed", "touch /well"), ("Sick", "true"), ("Dead", "touch /broken")]
        {
            dockerd.build(
                &format!("base:{tag}"),
                &format!(
                    "FROM base:1\nRUN {what}; echo {tag} > /state\nENV LOST=1\nLABEL rusuban.snapshot.container={} rusuban.snapshot.at=2026-11-{}T03:00:00Z",
                    if ["Tue", "Wed"].contains(&tag) { "blog" } else { "other" },
                    if tag == "Wed" { 18 } else { 17 },
                ),
            );
        }
        dockerd.run("bystander", &[BASE]);
        let home = home("noop", "kind = \"command\"\ncommand = [\"true\"]\n");
        let mut house = Self { home, dockerd, old: String::new() };
        house.begin_again(true);
        house
    }

    fn begin_again(&mut self, runs: bool) {
        for name in ["blog", "blog-rusuban-new", "blog-rusuban-old"] {
            let _ = self.dockerd.try_cli(&["rm", "-f", name]);
        }
        let health = ["--health-cmd", "test -e /well", "--health-interval", "300ms", "--health-retries", "2"];
        let options =
            ["--restart", "always", "-v", "data:/data", "-p", "18080:80", "-e", "TOKEN=now", "--hostname", "blog"];
        let all = [&health[..], &options, &[BASE, "sh", "-c", WORK]].concat();
        self.dockerd.run("blog", &all);
        self.dockerd.cli(&["exec", "blog", "sh", "-c", "touch /well; echo today > /state; echo kept > /data/file"]);
        if !runs {
            self.dockerd.cli(&["stop", "-t", "5", "blog"]);
        }
        self.old = self.dockerd.inspect("blog")["Id"].as_str().unwrap().to_owned();
    }

    fn command(&self, host: &str, arguments: &[&str]) -> Command {
        let mut command = rusuban(self.home.path());
        command.args(arguments).env("DOCKER_HOST", host);
        command
    }

    fn rusuban(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(&self.dockerd.host(), arguments).output().unwrap();
        (output.status.code().unwrap_or(-1), text(&output))
    }

    fn owed(&self) -> i64 {
        let ledger = rusqlite::Connection::open(self.home.path().join("data/rusuban.db")).unwrap();
        ledger.query_row("SELECT count(*) FROM debts", (), |row| row.get(0)).unwrap()
    }

    fn all(&self) -> Vec<String> {
        let listed = self.dockerd.cli(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
        let mut all: Vec<String> = listed.lines().map(str::to_owned).collect();
        all.sort();
        all
    }

    fn state(&self) -> String {
        self.dockerd.try_cli(&["logs", "--tail", "1", "blog"]).unwrap_or_default()
    }

    /// The old container, as it was: its name, its policy, its process if it had one, and nothing beside it.
    fn assert_as_before(&self, runs: bool) {
        let blog = self.dockerd.inspect("blog");
        assert_eq!(blog["Id"], self.old.as_str());
        let state = if runs { "running" } else { "exited" };
        assert_eq!(self.all(), [format!("blog {state}"), "bystander running".to_owned()]);
        assert_eq!(blog["HostConfig"]["RestartPolicy"]["Name"], "always");
    }

    /// The new one, as it should be.
    fn assert_as_meant(&self, tag: &str) {
        let blog = self.dockerd.inspect("blog");
        assert_ne!(blog["Id"], self.old.as_str());
        assert_eq!(self.all(), ["blog running", "bystander running"]);
        assert_eq!(blog["HostConfig"]["RestartPolicy"]["Name"], "always");
        assert_eq!(blog["Config"]["Image"], format!("base:{tag}"));
        assert_eq!(self.dockerd.cli(&["exec", "blog", "cat", "/state", "/data/file"]), format!("{tag}\nkept"));
        let environment = self.dockerd.cli(&["exec", "blog", "env"]);
        assert!(environment.contains("TOKEN=now") && !environment.contains("LOST"), "{environment}");
    }
}

#[test]
fn a_container_goes_back_to_the_newest_snapshot_or_to_a_tag_and_its_data_stays() {
    let mut house = House::new();
    let (exit, listed) = house.rusuban(&["rollback", "blog", "--list"]);
    assert_eq!(exit, 0, "{listed}");
    let order: Vec<_> =
        ["Wed", "Tue"].iter().map(|tag| listed.find(tag).unwrap_or_else(|| panic!("{listed}"))).collect();
    assert!(order[0] < order[1] && listed.contains("runs now") && listed.contains("no snapshot of it"), "{listed}");
    let (exit, said) = house.rusuban(&["rollback", "blog"]);
    assert!(exit == 2 && said.contains("--yes"), "{exit} {said}");
    house.assert_as_before(true);
    let (exit, said) = house.rusuban(&["rollback", "blog", "--yes"]);
    assert_eq!(exit, 0, "{said}");
    house.assert_as_meant("Wed");
    let (exit, said) = house.rusuban(&["rollback", "blog", "Tue", "--yes"]);
    assert_eq!(exit, 0, "{said}");
    house.assert_as_meant("Tue");
    // And forth again, to what it was first made of.
    let (exit, said) = house.rusuban(&["rollback", "blog", "base:Wed", "--yes", "--keep-old"]);
    assert_eq!(exit, 0, "{said}");
    assert_eq!(house.all(), ["blog running", "blog-rusuban-old exited", "bystander running"]);
    let (exit, said) = house.rusuban(&["rollback", "blog", "Tue", "--yes"]);
    assert!(exit == 1 && said.contains("there is a container blog-rusuban-old already"), "{said}");
    for (arguments, what) in [
        (["rollback", "nothing", "--yes"], "there is no container `nothing`"),
        (["rollback", "blog", "Never"], "there is no image `base:Never`"),
    ] {
        let (exit, said) = house.rusuban(&arguments);
        assert!(exit == 4 && said.contains(what), "{exit} {said}");
    }
    assert_eq!(house.owed(), 0);
    assert_eq!(runs(house.home.path())[0]["job"], "rollback");
    assert_eq!(house.rusuban(&["log", "rollback"]).0, 0);

    // One that does not run is put in its place, and does not run.
    house.begin_again(false);
    let (exit, said) = house.rusuban(&["rollback", "blog", "Tue", "--yes"]);
    assert!(exit == 0 && said.contains("nobody knows whether it works"), "{said}");
    assert_eq!(house.all(), ["blog created", "bystander running"]);
}

#[test]
fn what_does_not_become_well_is_undone() {
    let mut house = House::new();
    for (tag, wait, why) in [
        ("Sick", "60s", "its health check fails"),
        ("Dead", "60s", "it ended with exit code 3"),
        ("Tue", "2s", "port 4"),
    ] {
        let mut arguments = vec!["rollback", "blog", tag, "--yes", "--wait", wait];
        arguments.extend(["--port", "4"].iter().filter(|_| tag == "Tue"));
        let (exit, said) = house.rusuban(&arguments);
        assert!(exit == 1 && said.contains(why) && said.contains("blog runs again as it was before"), "{exit} {said}");
        house.assert_as_before(true);
        assert_eq!(house.dockerd.cli(&["exec", "blog", "cat", "/state"]), "today");
    }
    // Its port is taken by another meanwhile.
    house.begin_again(false);
    house.dockerd.cli(&["rm", "-f", "bystander"]);
    house.dockerd.run("bystander", &["-p", "18080:80", BASE]);
    let (exit, said) = house.rusuban(&["rollback", "blog", "Tue", "--yes", "--start"]);
    assert!(exit == 1 && said.contains("port") && said.contains("blog is as it was before"), "{exit} {said}");
    house.assert_as_before(false);
    // What could not be brought back is refused before anything is touched.
    house.dockerd.cli(&["rm", "-f", "bystander"]);
    house.begin_again(true);
    house.dockerd.run("bystander", &["--network", "container:blog", BASE]);
    let (exit, said) = house.rusuban(&["rollback", "blog", "Tue", "--yes"]);
    assert!(exit == 1 && said.contains("the container bystander lives in the network"), "{exit} {said}");
    house.assert_as_before(true);
    assert_eq!(house.owed(), 0);
}

#[test]
fn a_look_beside_leaves_the_container_alone() {
    let house = House::new();
    let (exit, said) = house.rusuban(&["rollback", "blog", "Tue", "--as", "look", "--network", "none"]);
    assert_eq!(exit, 0, "{said}");
    assert_eq!(house.all(), ["blog running", "bystander running", "look running"]);
    assert_eq!(house.dockerd.cli(&["exec", "look", "cat", "/state", "/data/file"]), "Tue\nkept");
    assert!(house.dockerd.try_cli(&["exec", "look", "touch", "/data/mine"]).is_err());
    let (exit, said) = house.rusuban(&["rollback", "blog", "Tue", "--as", "look"]);
    assert!(exit == 1 && said.contains("already in use"), "{exit} {said}");
    assert_eq!(house.all().len(), 3);

    // Killed after each of its steps: it is there and runs, or it is not there.
    for step in 1.. {
        let _ = house.dockerd.try_cli(&["rm", "-f", "look"]);
        let proxy = Frozen::start(&house.dockerd.socket(), step, Silent::After);
        let mut child = house.command(&proxy.host(), &["rollback", "blog", "Tue", "--as", "look"]).spawn().unwrap();
        wait_until("it is silent or done", || proxy.is_silent() || child.try_wait().unwrap().is_some());
        let done = child.try_wait().unwrap().is_some();
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!((house.rusuban(&["run", "noop"]).0, house.owed()), (0, 0));
        let mut all = vec!["blog running", "bystander running"];
        if step > 1 {
            all.push("look running");
        }
        assert_eq!(house.all(), all, "step {step}");
        if done {
            break;
        }
    }
}

#[test]
fn a_server_does_it_and_a_cancelled_one_is_undone() {
    let house = House::new();
    let log = fs::File::create(house.home.path().join("server.log")).unwrap();
    let server = Server(house.command(&house.dockerd.host(), &["serve"]).stderr(log).spawn().unwrap());
    wait_until("the server is ready", || said(house.home.path()).contains("ready"));
    // Its health is seen every 300 ms, but nobody will ever answer at that port.
    let waiting = ["rollback", "blog", "Tue", "--yes", "--port", "4", "--wait", "10m"];
    let mut follower = house.command(&house.dockerd.host(), &waiting).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the new one runs", || house.state() == "Tue");
    let id = runs(house.home.path())[0]["id"].to_string();
    assert_eq!(house.rusuban(&["cancel", &id]).0, 0);
    assert_eq!(follower.wait().unwrap().code(), Some(130));
    house.assert_as_before(true);
    let (exit, said) = house.rusuban(&["rollback", "blog", "Tue", "--yes"]);
    assert_eq!(exit, 0, "{said}");
    house.assert_as_meant("Tue");
    assert_eq!(house.owed(), 0);
    assert_eq!(server.terminate(), 0);
}

#[test]
fn a_power_cut_of_the_engine_in_the_middle_is_undone_once_it_is_back() {
    let house = House::new();
    let waiting = ["rollback", "blog", "Tue", "--yes", "--port", "4", "--wait", "10m"];
    let mut child = house.command(&house.dockerd.host(), &waiting).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the new one runs", || house.state() == "Tue");
    house.dockerd.power_cut();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let _ = house.dockerd.try_cli(&["start", "bystander"]);
    house.assert_as_before(true);
    assert_eq!(house.owed(), 0);
}

#[test]
fn one_that_is_being_stopped_when_the_runner_is_killed_runs_afterwards() {
    let mut house = House::new();
    house.dockerd.cli(&["rm", "-f", "blog"]);
    // It hears of the end and goes on until it is killed.
    let deaf = "trap '' TERM; while :; do sleep 1000 & wait $!; done";
    house.dockerd.run("blog", &["--restart", "always", "--stop-timeout", "4", BASE, "sh", "-c", deaf]);
    house.old = house.dockerd.inspect("blog")["Id"].as_str().unwrap().to_owned();
    let arguments = ["rollback", "blog", "Tue", "--yes"];
    let mut child = house.command(&house.dockerd.host(), &arguments).stdout(Stdio::null()).spawn().unwrap();
    wait_until("it is about to be stopped", || {
        house.dockerd.inspect("blog")["HostConfig"]["RestartPolicy"]["Name"] == "no"
    });
    std::thread::sleep(Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    let (exit, said) = house.rusuban(&["run", "noop"]);
    assert_eq!((exit, house.owed()), (0, 0), "{said}");
    std::thread::sleep(Duration::from_secs(5));
    house.assert_as_before(true);
}

/// Has the runner killed at request number `step` of those that change something, and looks at the engine while it is down. None when
/// the run ended before: its exit code.
fn killed_at(house: &House, tag: &str, silent: Silent, step: usize) -> Option<i32> {
    killed_when(house, &["rollback", "blog", tag, "--yes", "--start"], silent, step)
}

fn killed_when(house: &House, arguments: &[&str], silent: Silent, step: usize) -> Option<i32> {
    let proxy = Frozen::start(&house.dockerd.socket(), step, silent);
    let mut child =
        house.command(&proxy.host(), arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !proxy.is_silent() {
        if let Some(ended) = child.try_wait().unwrap() {
            return Some(ended.code().unwrap());
        }
        assert!(began.elapsed() < Duration::from_secs(60), "step {step} takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(house.owed() > 0, "step {step}");
    if step.is_multiple_of(3) {
        // The engine is not there at the next start: it is still owed.
        let output = house.command("unix:///nowhere/docker.sock", &["run", "noop"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(house.owed() > 0, "step {step}");
    }
    let (exit, said) = house.rusuban(&["run", "noop"]);
    assert_eq!((exit, house.owed()), (0, 0), "step {step}: {said}");
    None
}

/// Kills the runner at each step, and starts Rusuban again.
fn killed_at_each_step(silent: Silent, ran: bool) {
    let mut house = House::new();
    let (mut before, mut meant) = (0, 0);
    for step in 1.. {
        assert!(step < 40, "it never ends");
        house.begin_again(ran);
        if let Some(exit) = killed_at(&house, "Tue", silent, step) {
            assert_eq!(exit, 0, "{}", house.rusuban(&["log", "rollback"]).1);
            house.assert_as_meant("Tue");
            break;
        }
        if house.dockerd.inspect("blog")["Id"] == house.old.as_str() {
            house.assert_as_before(ran);
            if ran {
                assert_eq!(house.dockerd.cli(&["exec", "blog", "cat", "/state"]), "today");
            }
            before += 1;
        } else {
            house.assert_as_meant("Tue");
            meant += 1;
        }
    }
    assert!(before >= 5 && meant >= 1, "{before} {meant}");
}

#[test]
fn killed_before_any_step_every_container_is_as_it_was_or_as_it_should_be() {
    killed_at_each_step(Silent::Before, true);
}

#[test]
fn killed_after_any_step_every_container_is_as_it_was_or_as_it_should_be() {
    killed_at_each_step(Silent::After, true);
}

#[test]
fn killed_at_any_step_a_container_that_was_stopped_stays_stopped() {
    killed_at_each_step(Silent::After, false);
}

#[test]
fn killed_while_it_brings_the_old_one_back_the_old_one_is_back() {
    let mut house = House::new();
    for step in 1_usize.. {
        house.begin_again(true);
        let silent = if step.is_multiple_of(2) { Silent::Before } else { Silent::After };
        let exit = killed_at(&house, "Sick", silent, step);
        house.assert_as_before(true);
        assert_eq!(house.dockerd.cli(&["exec", "blog", "cat", "/state"]), "today");
        if exit.is_some() {
            assert_eq!(exit, Some(1));
            assert!(step > 10, "it had only {step} steps");
            break;
        }
    }
}

#[test]
fn an_update_that_is_killed_at_any_step_leaves_the_old_container_or_the_new_one() {
    let mut house = House::new();
    add(
        house.home.path(),
        "update",
        "kind = \"container-update\"\ncontainers = [\"blog\"]\npull = false\nsnapshot = false\nwatch = \"1s\"\nwait = \"4s\"\n",
    );
    let (mut before, mut meant) = (0, 0);
    for step in 1_usize.. {
        assert!(step < 40, "it never ends");
        house.dockerd.cli(&["tag", BASE, "live:1"]);
        for name in ["blog", "blog-rusuban-new", "blog-rusuban-old"] {
            let _ = house.dockerd.try_cli(&["rm", "-f", name]);
        }
        house
            .dockerd
            .run("blog", &["--restart", "always", "-v", "data:/data", "-e", "TOKEN=now", "live:1", "sh", "-c", WORK]);
        house.dockerd.cli(&["exec", "blog", "sh", "-c", "echo kept > /data/file"]);
        house.old = house.dockerd.inspect("blog")["Id"].as_str().unwrap().to_owned();
        house.dockerd.cli(&["tag", "base:Tue", "live:1"]);
        let silent = if step.is_multiple_of(2) { Silent::Before } else { Silent::After };
        let exit = killed_when(&house, &["run", "update"], silent, step);
        let blog = house.dockerd.inspect("blog");
        if blog["Id"] == house.old.as_str() {
            house.assert_as_before(true);
            before += 1;
        } else {
            assert_eq!(house.all(), ["blog running", "bystander running"]);
            assert_eq!(blog["HostConfig"]["RestartPolicy"]["Name"], "always");
            assert_eq!(house.dockerd.cli(&["exec", "blog", "cat", "/state", "/data/file"]), "Tue\nkept");
            meant += 1;
        }
        if let Some(exit) = exit {
            assert_eq!(exit, 0, "{}", house.rusuban(&["log", "update"]).1);
            break;
        }
    }
    assert!(before >= 5 && meant >= 1, "{before} {meant}");
}
