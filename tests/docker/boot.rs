//! `boot` on a real engine whose containers are all down, as after a boot.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rusuban::{
    clock::Clock,
    docker::{Address, Docker},
    kinds::{RAN, Ran},
    model::{self, Trigger},
};

use crate::support::{
    docker::{BASE, Dockerd, dockerd},
    kind::{context, read},
};

struct House {
    dockerd: &'static Dockerd,
    home: tempfile::TempDir,
    facts: BTreeMap<String, serde_json::Value>,
}

impl House {
    /// One run at the engine that is behind `docker`: how it ended, and its log.
    async fn run(&mut self, docker: Docker, trigger: Trigger, keys: &str) -> (Result<String, String>, String) {
        let (mut cx, kept) = context(self.home.path(), Clock::system(), []);
        cx.trigger = trigger;
        Arc::get_mut(&mut cx.services).unwrap().docker = docker;
        kept.facts.lock().unwrap().clone_from(&self.facts);
        let ended = read("boot", keys).run(&cx).await.map_err(|error| format!("{error:#}"));
        self.facts.clone_from(&kept.facts.lock().unwrap());
        (ended, kept.text())
    }

    async fn boots(&mut self, keys: &str) -> (Result<String, String>, String) {
        self.run(self.dockerd.docker(), Trigger::Startup, keys).await
    }

    fn ran(&mut self, boot: &str, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let ran = Ran::default().now(boot, names);
        self.facts.insert(RAN.to_owned(), serde_json::to_value(ran).unwrap());
    }

    fn up(&self) -> String {
        let mut names: Vec<String> =
            self.dockerd.cli(&["ps", "--format", "{{.Names}}"]).lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    }

    fn started(&self, name: &str) -> String {
        self.dockerd.inspect(name)["State"]["StartedAt"].as_str().unwrap().to_owned()
    }
}

/// Options of a container that compose made.
fn service<'a>(name: &'a str, needs: &'a str) -> Vec<String> {
    [
        "project=shop".to_owned(),
        format!("service={name}"),
        "container-number=1".to_owned(),
        format!("depends_on={needs}"),
    ]
    .iter()
    .flat_map(|label| ["--label".to_owned(), format!("com.docker.compose.{label}")])
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_runs_again_in_order_and_what_was_stopped_stays_stopped() {
    let docker = dockerd();
    let mut house = House { dockerd: docker, home: tempfile::tempdir().unwrap(), facts: BTreeMap::new() };
    let compose = |name: &str, needs: &str, more: &[&str], command: &[&str]| {
        let labels = service(name, needs);
        let mut arguments = vec!["--network", "none"];
        arguments.extend(labels.iter().map(String::as_str));
        arguments.extend(more);
        arguments.push(BASE);
        arguments.extend(command);
        docker.run(name, &arguments);
    };
    let health = ["--health-cmd", "test -e /well", "--health-interval", "200ms", "--health-retries", "50"];
    // Well a second after it was started, and not before.
    compose("a-web", "db:service_healthy:true", &[], &[]);
    compose("db", "", &health, &["sh", "-c", "rm -f /well; sleep 1; touch /well; sleep 1000"]);
    docker.run("b-proxy", &["--network", "none", "--link", "a-web", BASE]);
    docker.run("stopped", &["--network", "none", "--restart", "unless-stopped", BASE]);
    docker.run("named", &["--network", "none", BASE]);
    docker.run("always", &["--network", "none", "--restart", "always", BASE]);
    docker.cli(&["stop", "-t", "0", "stopped", "named", "always"]);
    docker.cli(&["create", "--name", "new", "--network", "none", BASE]);
    house.ran("another-boot", &["a-web", "db", "b-proxy"]);
    docker.power_cut();
    docker.cli(&["stop", "-t", "0", "always"]);

    // The engine answers a moment after we have begun to wait for it.
    let late = house.home.path().join("late.sock");
    let there = docker.socket();
    let socket = late.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        std::os::unix::fs::symlink(there, socket).unwrap();
    });
    let keys = "all = true\ncontainers = ['named']";
    let (ended, log) = house.run(Docker::at(Address::Socket(late)), Trigger::Startup, keys).await;
    assert_eq!(ended.as_deref(), Ok("5 containers started and well, 0 ran already, 2 left stopped"), "{log}");
    assert_eq!(house.up(), "a-web always b-proxy db named");
    assert_eq!(log.matches("waiting for Docker").count(), 1, "{log}");
    assert!(
        log.contains("i stopped: stays as it is: it did not run before")
            && log.contains("i new: stays as it is: it has never run"),
        "{log}"
    );
    let [db, web, proxy] = ["db", "a-web", "b-proxy"].map(|name| house.started(name));
    assert!(db < web && web < proxy, "{db} {web} {proxy}");
    let [db, web] = [db, web].map(|at| at.parse::<chrono::DateTime<chrono::Utc>>().unwrap());
    assert!(web - db >= chrono::TimeDelta::seconds(1), "it was well after a second, and not before: {db} {web}");

    // Rusuban alone is started again: nothing is, and a person may still ask for it.
    docker.cli(&["stop", "-t", "0", "named"]);
    let (ended, _) = house.boots(keys).await;
    assert_eq!(ended.as_deref(), Ok("Rusuban was started, and not the host: nothing to do"));
    assert!(!house.up().contains("named"));
    let (ended, log) = house.run(docker.docker(), Trigger::Manual, keys).await;
    assert_eq!(ended.as_deref(), Ok("1 container started and well, 4 ran already, 2 left stopped"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_get_well_makes_it_red_and_is_not_built_upon() {
    let docker = dockerd();
    let mut house = House { dockerd: docker, home: tempfile::tempdir().unwrap(), facts: BTreeMap::new() };
    let labels = service("web", "db:service_healthy:true");
    let mut web = vec!["--network", "none"];
    web.extend(labels.iter().map(String::as_str));
    web.push(BASE);
    docker.run("web", &web);
    let labels = service("db", "");
    let mut db =
        vec!["--network", "none", "--health-cmd", "false", "--health-interval", "200ms", "--health-retries", "2"];
    db.extend(labels.iter().map(String::as_str));
    db.push(BASE);
    docker.run("db", &db);
    docker.run("short", &["--network", "none", BASE, "sh", "-c", "sleep 1; exit 3"]);
    docker.run("fine", &["--network", "none", BASE]);
    docker.cli(&["stop", "-t", "0", "web", "db", "fine", "short"]);
    // Nobody has kept what ran, and the host has been up for a while or not: a person asks for it.
    let (ended, log) = house.run(docker.docker(), Trigger::Manual, "all = true").await;
    assert_eq!(ended.as_deref(), Ok("0 containers started and well, 0 ran already, 4 left stopped"), "{log}");
    assert!(log.contains("is not known"), "{log}");
    house.facts.clear();
    house.ran("another-boot", &["web", "db", "short", "fine"]);
    let (ended, log) = house.boots("all = true").await;
    let why = ended.unwrap_err();
    for part in [
        "db: its health check fails",
        "short: it ended with exit code 3",
        "web: not started: it needs db to be healthy, which it is not",
        "1 container started and well",
    ] {
        assert!(why.contains(part), "{part}: {why}\n{log}");
    }
    // An engine that does not come.
    house.facts.insert("boot".into(), "another-boot".into());
    let (ended, _) = house.run(crate::support::docker::none(), Trigger::Startup, "all = true\nengine = '1s'").await;
    assert!(ended.unwrap_err().contains("the engine has not answered within 1s"));
    assert_ne!(house.facts["boot"], model::boot_id(), "it is tried again at the next start");
}
