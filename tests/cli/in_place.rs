//! A volume is restored into a new one, which takes its place in all containers that use it; and at no moment are some of them on the old
//! one and some on the new, whoever is killed.
use super::*;
use crate::support::{
    docker::{BASE, Dockerd, dockerd},
    frozen::{Frozen, Silent},
};

const WORK: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";

/// A home, and a shop of compose: `web` needs `db`, both have the volume `data`, and so has `off`, which does not run.
struct House {
    home: tempfile::TempDir,
    dockerd: &'static Dockerd,
    old: Vec<String>,
}

const ALL: [&str; 3] = ["db", "off", "web"];

impl House {
    fn new() -> Self {
        let home = home("noop", "kind = \"command\"\ncommand = [\"true\"]\n");
        add(home.path(), "shop", "kind = \"backup\"\n[[source]]\nvolume = \"data\"\n");
        let mut house = Self { home, dockerd: dockerd(), old: Vec::new() };
        house.begin_again();
        house.sh("db", "echo then > /data/state; chown 33:33 /data/state");
        house.fine(&["run", "shop"]);
        house.sh("db", "echo now > /data/state");
        house
    }

    fn begin_again(&mut self) {
        for name in ALL {
            for name in [name.to_owned(), format!("{name}-rusuban-new"), format!("{name}-rusuban-old")] {
                let _ = self.dockerd.try_cli(&["rm", "-f", &name]);
            }
        }
        for volume in self.volumes().iter().filter(|name| name.starts_with("data-back")) {
            self.dockerd.cli(&["volume", "rm", volume]);
        }
        for name in ALL {
            let needs = if name == "web" { "db:service_healthy:false" } else { "" };
            let health =
                ["--health-cmd", "test ! -e /data/sick", "--health-interval", "200ms", "--health-retries", "2"];
            let labels = [
                "com.docker.compose.project=shop".to_owned(),
                format!("com.docker.compose.service={name}"),
                format!("com.docker.compose.depends_on={needs}"),
            ];
            let mut options = vec!["--restart", "always", "-v", "data:/data", "-e", "TOKEN=now"];
            options.extend(health);
            options.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
            options.extend([BASE, "sh", "-c", WORK]);
            self.dockerd.run(name, &options);
        }
        self.dockerd.cli(&["stop", "-t", "5", "off"]);
        self.sh("db", "echo now > /data/state");
        self.old = ALL.iter().map(|name| self.id(name)).collect();
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

    fn fine(&self, arguments: &[&str]) -> String {
        let (exit, said) = self.rusuban(arguments);
        assert_eq!(exit, 0, "{arguments:?}: {said}");
        said
    }

    fn sh(&self, name: &str, script: &str) -> String {
        self.dockerd.cli(&["exec", name, "sh", "-c", script])
    }

    fn id(&self, name: &str) -> String {
        self.dockerd.inspect(name)["Id"].as_str().unwrap().to_owned()
    }

    fn owed(&self) -> i64 {
        let ledger = rusqlite::Connection::open(self.home.path().join("data/rusuban.db")).unwrap();
        ledger.query_row("SELECT count(*) FROM debts", (), |row| row.get(0)).unwrap()
    }

    fn volumes(&self) -> Vec<String> {
        self.dockerd.cli(&["volume", "ls", "-q"]).lines().map(str::to_owned).collect()
    }

    /// The volume that all of them have, each as it was otherwise.
    fn volume(&self) -> String {
        let listed = self.dockerd.cli(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
        // One that was made anew and is not to run has never run.
        let listed = listed.replace(" created", " exited");
        // One that was made anew and is not to run has never run.
        let listed = listed.replace(" created", " exited");
        let mut all: Vec<&str> = listed.lines().collect();
        all.sort_unstable();
        assert_eq!(all, ["db running", "off exited", "web running"]);
        let mut volumes: Vec<String> = ALL
            .iter()
            .map(|name| {
                let found = self.dockerd.inspect(name);
                assert_eq!(found["HostConfig"]["RestartPolicy"]["Name"], "always");
                assert_eq!(found["Config"]["Labels"]["com.docker.compose.project"], "shop");
                assert_eq!(found["Config"]["Image"], BASE);
                let mounts = found["Mounts"].as_array().unwrap();
                assert_eq!((mounts.len(), &mounts[0]["Destination"]), (1, &"/data".into()));
                mounts[0]["Name"].as_str().unwrap().to_owned()
            })
            .collect();
        volumes.dedup();
        assert_eq!(volumes.len(), 1, "some are on the old and some on the new: {volumes:?}");
        volumes.remove(0)
    }

    fn assert_as_before(&self) {
        assert_eq!(self.volume(), "data");
        assert_eq!(ALL.iter().map(|name| self.id(name)).collect::<Vec<_>>(), self.old);
        assert_eq!(self.sh("web", "cat /data/state"), "now");
    }
}

#[test]
fn a_volume_takes_the_place_of_another_in_all_its_containers_and_goes_back_again() {
    let house = House::new();
    let said = house.fine(&["restore", "shop", "--in-place"]);
    for part in [
        "restored data → the volume data-back-1",
        "succeeded: data-back-1 is in the place of data in",
        "`docker volume rm data` removes it, `rusuban restore shop --undo` takes it back",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // What others need is started before them.
    assert!(said.find("starting db").unwrap() < said.find("starting web").unwrap(), "{said}");
    assert!(said.find("stopping web").unwrap() < said.find("stopping db").unwrap(), "{said}");
    assert_eq!(house.volume(), "data-back-1");
    assert_eq!(house.sh("web", "cat /data/state; stat -c %u /data/state; echo $TOKEN"), "then\n33\nnow");
    assert_eq!(house.sh("db", "echo later > /data/state; cat /data/state"), "later");
    // Once more, and back step by step; the old ones are as they were left.
    let said = house.fine(&["restore", "shop", "--swap"]);
    assert!(said.contains("data-back-2 is in the place of data-back-1"), "{said}");
    assert_eq!((house.volume().as_str(), house.sh("web", "cat /data/state").as_str()), ("data-back-2", "then"));
    house.fine(&["restore", "shop", "--undo"]);
    assert_eq!((house.volume().as_str(), house.sh("web", "cat /data/state").as_str()), ("data-back-1", "later"));
    house.fine(&["restore", "shop", "--undo"]);
    assert_eq!((house.volume().as_str(), house.sh("web", "cat /data/state").as_str()), ("data", "now"));
    let labels = house.dockerd.inspect("web")["Config"]["Labels"].to_string();
    assert!(!labels.contains("stands-in"), "{labels}");
    let (exit, said) = house.rusuban(&["restore", "shop", "--undo"]);
    assert!(exit == 1 && said.contains("there is nothing to undo"), "{said}");
    assert_eq!(house.owed(), 0);

    // The run is one like any other, and through a server too.
    let server = Server::start(house.home.path());
    let said = house.rusuban(&["restore", "shop", "--in-place"]).1;
    // The server of this home has no engine of its own.
    assert!(said.contains("no Docker engine answers at unix:///nowhere/docker.sock"), "{said}");
    assert_eq!(server.terminate(), 0);
    assert_eq!(runs(house.home.path())[0]["job"], "restore");
    house.assert_as_before_but_ids();

    // What a container has written itself is not lost.
    house.sh("web", "head -c 2000000 /dev/zero > /own");
    let said = house.fine(&["restore", "shop", "--in-place"]);
    assert!(said.contains("web has written 1.91 MiB outside of its volumes"), "{said}");
    assert_eq!(house.sh("web", "wc -c < /own; cat /data/state"), "2000000\nthen");
}

impl House {
    fn assert_as_before_but_ids(&self) {
        assert_eq!(self.volume(), "data");
        assert_eq!(self.sh("web", "cat /data/state"), "now");
    }
}

#[test]
fn when_one_of_them_does_not_become_well_all_are_back_on_the_old_volume() {
    let mut house = House::new();
    house.sh("db", "touch /data/sick");
    house.fine(&["run", "shop"]);
    house.begin_again();
    house.sh("db", "rm /data/sick");
    let (exit, said) = house.rusuban(&["restore", "shop", "--in-place"]);
    assert!(exit == 1 && said.contains("its health check fails") && said.contains("are as they were before"), "{said}");
    assert!(said.contains("nothing uses it: look into it, then `docker volume rm data-back-1`"), "{said}");
    house.assert_as_before();
    assert!(house.volumes().contains(&"data-back-1".to_owned()));
    assert_eq!(house.owed(), 0);
    // A container of which they would be taken away, and one that is gone when it ends.
    house.dockerd.run("lent", &["--volumes-from", "db", BASE]);
    let (exit, said) = house.rusuban(&["restore", "shop", "--in-place"]);
    assert!(exit == 1 && said.contains("has its volumes from another"), "{said}");
    house.dockerd.cli(&["rm", "-f", "lent"]);
    house.dockerd.cli(&["rm", "-f", "db", "web", "off"]);
    let (exit, said) = house.rusuban(&["restore", "shop", "--in-place"]);
    assert!(exit == 1 && said.contains("no container uses data, so there is no place to put it in"), "{said}");
}

#[test]
fn killed_at_any_step_all_of_them_are_as_they_were_or_as_they_should_be() {
    let mut house = House::new();
    let (mut before, mut meant) = (0, 0);
    for step in 1_usize.. {
        assert!(step < 60, "it never ends");
        house.begin_again();
        let silent = if step.is_multiple_of(2) { Silent::Before } else { Silent::After };
        let proxy = Frozen::start(&house.dockerd.socket(), step, silent);
        let mut command = house.command(&proxy.host(), &["restore", "shop", "--in-place"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        let mut ended = None;
        while !proxy.is_silent() && ended.is_none() {
            ended = child.try_wait().unwrap();
            assert!(began.elapsed() < Duration::from_secs(60), "step {step} takes too long");
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(ended) = ended {
            assert!(ended.success(), "{}", house.rusuban(&["log", "restore"]).1);
            assert_eq!(house.volume(), "data-back-1");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(house.owed() > 0, "step {step}");
        let said = house.fine(&["run", "noop"]);
        assert_eq!(house.owed(), 0, "step {step}: {said}");
        match house.volume().as_str() {
            "data" => {
                house.assert_as_before();
                before += 1;
            }
            volume => {
                assert_eq!(
                    (volume, house.sh("web", "cat /data/state").as_str()),
                    ("data-back-1", "then"),
                    "step {step}"
                );
                meant += 1;
            }
        }
    }
    assert!(before >= 10 && meant >= 1, "{before} {meant}");
}

#[test]
fn a_folder_takes_the_place_of_another_while_its_containers_are_stopped() {
    let dockerd = dockerd();
    let place = tempfile::tempdir().unwrap();
    let files = place.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("state"), "then").unwrap();
    let bind = format!("{}:/files", files.display());
    let health = ["--health-cmd", "test ! -e /files/sick", "--health-interval", "200ms", "--health-retries", "2"];
    let options = ["--restart", "always", "-v", &bind];
    dockerd.run("writer", &[&options[..], &health, &[BASE, "sh", "-c", WORK]].concat());
    dockerd.run("reader", &["-v", &format!("{bind}:ro"), BASE, "sh", "-c", WORK]);
    let home = home("site", &format!("kind = \"backup\"\n[[source]]\npath = {files:?}\n"));
    let rusuban = |arguments: &[&str]| {
        let output = rusuban(home.path()).args(arguments).env("DOCKER_HOST", dockerd.host()).output().unwrap();
        (output.status.code().unwrap_or(-1), text(&output))
    };
    let seen = |name: &str| dockerd.cli(&["exec", name, "cat", "/files/state"]);
    assert_eq!(rusuban(&["run", "site"]).0, 0);
    fs::write(files.join("state"), "now").unwrap();
    let (exit, said) = rusuban(&["restore", "site", "--in-place"]);
    assert!(exit == 0 && said.contains("is in its place, in reader, writer"), "{said}");
    assert_eq!([seen("writer"), seen("reader")], ["then", "then"]);
    assert_eq!(fs::read_to_string(place.path().join("files-back-1/state")).unwrap(), "now");
    let (exit, said) = rusuban(&["restore", "site", "--undo"]);
    assert!(exit == 0, "{said}");
    assert_eq!([seen("writer"), seen("reader")], ["now", "now"]);
    // One that is not well on it.
    fs::write(files.join("sick"), "").unwrap();
    assert_eq!(rusuban(&["run", "site"]).0, 0);
    fs::remove_file(files.join("sick")).unwrap();
    let (exit, said) = rusuban(&["restore", "site", "--in-place"]);
    assert!(exit == 1 && said.contains("writer is not well on it") && said.contains("is as it was before"), "{said}");
    assert_eq!([seen("writer"), seen("reader")], ["now", "now"]);
    assert!(!files.join("sick").exists() && place.path().join("files-back-2/sick").exists());
    // Killed while they are stopped, they run on one of the two.
    for step in 1..=4 {
        let proxy = Frozen::start(&dockerd.socket(), step, if step % 2 == 0 { Silent::Before } else { Silent::After });
        let mut command = super::rusuban(home.path());
        command.args(["restore", "site", "--undo"]).env("DOCKER_HOST", proxy.host());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while !proxy.is_silent() && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "step {step} takes too long");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        add(home.path(), "noop", "kind = \"command\"\ncommand = [\"true\"]\n");
        let (exit, said) = rusuban(&["run", "noop"]);
        assert_eq!(exit, 0, "{said}");
        let listed = dockerd.cli(&["ps", "--format", "{{.Names}} {{.State}}"]);
        assert!(listed.contains("writer running") && listed.contains("reader running"), "step {step}: {listed}");
        assert_eq!(seen("writer"), seen("reader"), "step {step}");
    }
}
