//! Volumes and containers as sources of a backup: the real binary, a real engine, and what becomes of the containers.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use crate::support::{
    docker::{BASE, Dockerd, dockerd},
    proxy::{Hold, Proxy},
};

/// A home with a bucket, a repository, and an engine that is reached through a proxy.
pub(super) struct House {
    home: tempfile::TempDir,
    /// On another file system, where there is one.
    other: tempfile::TempDir,
    proxy: Proxy,
    pub(super) dockerd: &'static Dockerd,
}

impl House {
    pub(super) fn new() -> Self {
        let (home, dockerd) = (tempfile::tempdir().unwrap(), dockerd());
        fs::create_dir(home.path().join("jobs")).unwrap();
        let other = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let house = Self { home, other, proxy: Proxy::before(dockerd.socket()), dockerd };
        house.reach(&house.proxy.host());
        fs::write(house.path("password"), "correct horse").unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(house.path("password"), private).unwrap();
        house.fine(&["repository", "init", "safe"]);
        house
    }

    /// The engine's address in the settings.
    fn reach(&self, host: &str) {
        let settings = format!(
            "[docker]\nhost = \"{host}\"\n[bucket.local]\nfolder = \"bucket\"\n[bucket.other]\nfolder = {:?}\n[repository.safe]\nbucket = \"local\"\npassword = {{ file = \"password\" }}\n",
            self.other.path()
        );
        fs::write(self.path("rusuban.toml"), settings).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(super) fn job(&self, name: &str, text: &str) {
        fs::write(self.path(&format!("jobs/{name}.toml")), text).unwrap();
    }

    /// A job for each layout that keeps this source.
    pub(super) fn jobs(&self, source: &str) {
        self.job("plain", &format!("kind = 'backup'\n[[source]]\n{source}"));
        self.job("other", &format!("kind = 'backup'\nbucket = 'other'\n[[source]]\n{source}"));
        self.job("dedup", &format!("kind = 'backup'\nrepository = 'safe'\n[[source]]\n{source}"));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rusuban"));
        command.arg("--home").arg(self.home.path()).env("TZ", "UTC").env_remove("RUSUBAN_HOME").args(arguments);
        command.stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> (bool, String) {
        said(self.command(arguments).output().unwrap())
    }

    pub(super) fn fine(&self, arguments: &[&str]) -> String {
        let (is_fine, said) = self.run(arguments);
        assert!(is_fine, "{arguments:?}: {said}");
        said
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Restores a job's newest backup.
    fn restore(&self, job: &str) -> PathBuf {
        let to = self.path(&format!("restored-{job}"));
        let _ = fs::remove_dir_all(&to);
        self.fine(&["restore", job, "--to", to.to_str().unwrap()]);
        to
    }

    pub(super) fn sh(&self, container: &str, script: &str) -> String {
        self.dockerd.cli(&["exec", container, "sh", "-c", script])
    }

    /// What a container does, and since when.
    fn state(&self, name: &str) -> (String, String) {
        let found = self.dockerd.inspect(name);
        let text = |key: &str| found["State"][key].as_str().unwrap().to_owned();
        (text("Status"), text("StartedAt"))
    }

    fn status(&self, name: &str) -> String {
        self.state(name).0
    }
}

fn said(output: Output) -> (bool, String) {
    let [printed, complained] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), printed + &complained)
}

/// Whether a request is this deed to some container.
fn is(deed: &'static str) -> impl Fn(usize, &str) -> bool + Send + 'static {
    move |_, line| line.starts_with("POST ") && line.split('?').next().unwrap_or(line).ends_with(&format!("/{deed}"))
}

/// The first look at all containers after this deed: the copy is done, and nobody is let go yet.
fn after(deed: &'static str) -> impl Fn(usize, &str) -> bool + Send + 'static {
    let seen = std::sync::atomic::AtomicBool::new(false);
    move |number, line| {
        use std::sync::atomic::Ordering::Relaxed;
        if is(deed)(number, line) {
            seen.store(true, Relaxed);
        }
        seen.load(Relaxed) && line.contains("/containers/json")
    }
}

/// All files below a folder, with what is in them.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(below) = left.pop() {
        for entry in fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.push((path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_in_a_volume_comes_back_and_the_containers_run_as_before() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    house.sh(
        "blog",
        "mkdir -p /data/a/b; echo text > /data/a/b/c; head -c 3000000 /dev/urandom > /data/big; touch /data/empty",
    );
    let there = dockerd.cli(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]);
    for consistency in ["", "consistency = 'pause'", "consistency = 'stop'", "consistency = 'none'"] {
        house.jobs(&format!("volume = 'data'\n{consistency}"));
        for job in ["plain", "other", "dedup"] {
            let before = house.state("blog");
            let log = house.fine(&["run", job]);
            let to = house.restore(job);
            assert_eq!(tree(&to.join("data")), tree(Path::new(&there)), "{job} {consistency}: {log}");
            let now = house.state("blog");
            assert_eq!(now.0, "running");
            assert_eq!(now.1 == before.1, !consistency.contains("stop"), "{job} {consistency}: {log}");
            let expected = match consistency {
                "consistency = 'stop'" => "blog was stopped for ",
                "consistency = 'none'" => "read while blog may write to it",
                _ => "blog was paused for ",
            };
            assert!(log.contains(expected), "{job} {consistency}: {log}");
        }
    }
}

#[test]
fn killed_at_any_step_every_container_is_as_it_was_after_the_next_start() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    dockerd.run("off", &["-v", "data:/data", BASE, "true"]);
    dockerd.cli(&["wait", "off"]);
    house.sh("blog", "echo text > /data/file");
    house.job("nothing", "kind = 'command'\ncommand = ['true']");
    for way in ["stop", "pause"] {
        house.job("plain", &format!("kind = 'backup'\n[[source]]\nvolume = 'data'\nconsistency = '{way}'"));
        for (hold, only_deeds) in [(Hold::Request, false), (Hold::Answer, true)] {
            for number in 0.. {
                let counted = std::sync::atomic::AtomicUsize::new(0);
                house.proxy.hold(hold, move |_, line| {
                    let counts = !only_deeds || line.starts_with("POST ");
                    counts && counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == number
                });
                house.reach(&house.proxy.host());
                let mut run = house.start(&["run", "plain"]);
                let is_held = house.proxy.held_or(|| run.try_wait().unwrap().is_some());
                run.kill().unwrap();
                run.wait().unwrap();
                house.proxy.release();
                house.reach(&dockerd.host());
                let log = house.fine(&["run", "nothing"]);
                let at = house.proxy.requests();
                assert_eq!(house.status("blog"), "running", "{way}, {number}: {at:#?}\n{log}");
                assert_eq!(house.status("off"), "exited", "{way}, {number}: {at:#?}\n{log}");
                if !is_held {
                    // There is no such step any more.
                    assert!(number >= if only_deeds { 2 } else { 10 }, "{at:#?}");
                    break;
                }
            }
        }
    }
}

#[test]
fn an_engine_that_restarts_in_the_middle_fails_the_run_and_the_containers_run() {
    let house = House::new();
    let dockerd = house.dockerd;
    // One that the engine does not start by itself, because it was stopped when the engine died.
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", "--restart", "unless-stopped", BASE]);
    house.sh("blog", "echo text > /data/file");
    house.jobs("volume = 'data'\nconsistency = 'stop'");
    house.proxy.hold(Hold::Request, after("stop"));
    let run = house.start(&["run", "dedup"]);
    assert!(house.proxy.held_or(|| false));
    assert_eq!(house.status("blog"), "exited");
    dockerd.power_cut();
    house.proxy.release();
    let (_, log) = said(run.wait_with_output().unwrap());
    assert_eq!(house.status("blog"), "running", "{log}");
    // Frozen, it died with its engine, and was started by it.
    house.jobs("volume = 'data'\nconsistency = 'pause'");
    house.proxy.hold(Hold::Request, after("pause"));
    let run = house.start(&["run", "dedup"]);
    assert!(house.proxy.held_or(|| false));
    assert_eq!(house.status("blog"), "paused");
    dockerd.power_cut();
    house.proxy.release();
    let (is_fine, log) = said(run.wait_with_output().unwrap());
    assert!(!is_fine, "{log}");
    let begun = std::time::Instant::now();
    while house.status("blog") != "running" {
        assert!(begun.elapsed().as_secs() < 20, "{}: {log}", house.status("blog"));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn one_that_is_created_anew_while_it_is_stopped_is_not_confused_with_the_old() {
    let house = House::new();
    let dockerd = house.dockerd;
    house.jobs("volume = 'data'\nconsistency = 'stop'");
    let create = |how: &[&str]| {
        dockerd.cli(&[how, &["--name", "blog", "-v", "data:/data", "--stop-timeout", "1", BASE]].concat())
    };
    for (how, status, is_fine) in [(&["run", "-d"][..], "running", false), (&["create"], "running", true)] {
        create(&["run", "-d"]);
        house.sh("blog", "echo text > /data/file");
        house.proxy.hold(Hold::Request, after("stop"));
        let run = house.start(&["run", "plain"]);
        assert!(house.proxy.held_or(|| false));
        dockerd.cli(&["rm", "blog"]);
        let new = create(how);
        house.proxy.release();
        let (was_fine, log) = said(run.wait_with_output().unwrap());
        assert_eq!(was_fine, is_fine, "{how:?}: {log}");
        let now = dockerd.inspect("blog");
        assert_eq!(
            (now["Id"].as_str().unwrap(), now["State"]["Status"].as_str().unwrap()),
            (new.trim(), status),
            "{log}"
        );
        dockerd.cli(&["rm", "-f", "blog"]);
    }
}

#[test]
fn what_was_stopped_or_paused_stays_so_and_what_only_reads_goes_on() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    dockerd.run("frozen", &["-v", "data:/data", BASE]);
    dockerd.run("off", &["-v", "data:/data", BASE, "true"]);
    dockerd.run("reader", &["-v", "data:/data:ro", BASE]);
    house.sh("blog", "echo text > /data/file");
    dockerd.cli(&["wait", "off"]);
    dockerd.cli(&["pause", "frozen"]);
    for way in ["stop", "pause"] {
        house.jobs(&format!("volume = 'data'\nconsistency = '{way}'"));
        let reader = house.state("reader");
        house.proxy.hold(Hold::Answer, |_, _| false);
        let log = house.fine(&["run", "plain"]);
        assert_eq!(["blog", "frozen", "off"].map(|name| house.status(name)), ["running", "paused", "exited"], "{log}");
        assert_eq!(house.state("reader"), reader);
        let deeds = house.proxy.requests().into_iter().filter(|line| line.starts_with("POST")).count();
        assert_eq!(deeds, 2, "{:#?}", house.proxy.requests());
    }
    dockerd.cli(&["unpause", "frozen"]);
}

#[test]
fn what_cannot_be_stopped_or_is_not_there_is_refused_and_nothing_is_touched() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run("gone", &["--rm", "-v", "data:/data", BASE]);
    dockerd.run("blog", &["-v", "data:/data", BASE]);
    house.sh("blog", "echo text > /data/file");
    let before = house.state("blog");
    house.jobs("volume = 'data'\nconsistency = 'stop'");
    let (is_fine, log) = house.run(&["run", "plain"]);
    assert!(!is_fine && log.contains("`gone` was started with `--rm`"), "{log}");
    assert_eq!((house.state("blog"), house.status("gone")), (before, "running".to_owned()));
    house.jobs("volume = 'missing'");
    let (is_fine, log) = house.run(&["run", "plain"]);
    assert!(!is_fine && log.contains("there is no volume `missing`"), "{log}");
    assert!(!dockerd.cli(&["volume", "ls", "-q"]).contains("missing"), "it was created");
    dockerd.cli(&["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "shm"]);
    house.jobs("volume = 'shm'");
    let (is_fine, log) = house.run(&["run", "plain"]);
    assert!(!is_fine && log.contains("of the type tmpfs"), "{log}");
    let bound = house.path("bound");
    fs::create_dir(&bound).unwrap();
    fs::write(bound.join("file"), "bound").unwrap();
    let device = format!("device={}", bound.display());
    dockerd.cli(&["volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", &device, "bound"]);
    house.jobs("volume = 'bound'");
    house.fine(&["run", "plain"]);
    assert_eq!(tree(&house.restore("plain").join("bound")), tree(&bound));
}

#[test]
fn dependents_are_stopped_first_and_started_last() {
    let house = House::new();
    let dockerd = house.dockerd;
    let label = |service: &str, on: &str| {
        [("project", "p"), ("service", service), ("depends_on", on)]
            .map(|(key, value)| format!("com.docker.compose.{key}={value}"))
    };
    let (db, web) = (label("db", ""), label("web", "db:service_healthy:true"));
    for (name, labels) in [("db", db), ("web", web)] {
        let [one, two, three] = &labels;
        let mut all = vec!["-l", one, "-l", two, "-l", three, "-v", "data:/data", "--stop-timeout", "1"];
        if name == "db" {
            all.extend(["--health-cmd", "test -e /tmp/up || { touch /tmp/up; false; }", "--health-interval", "1s"]);
        }
        all.push(BASE);
        dockerd.run(name, &all);
    }
    // It lives in the network of the first, and would lose it.
    dockerd.run("inside", &["--network", "container:db", "--stop-timeout", "1", BASE]);
    house.sh("db", "echo text > /data/file");
    house.jobs("volume = 'data'\nconsistency = 'stop'");
    while dockerd.inspect("db")["State"]["Health"]["Status"] != "healthy" {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    house.sh("db", "rm /tmp/up");
    house.proxy.hold(Hold::Answer, |_, _| false);
    let log = house.fine(&["run", "plain"]);
    let ids: Vec<(String, &str)> =
        ["db", "web", "inside"].map(|name| (dockerd.inspect(name)["Id"].as_str().unwrap().to_owned(), name)).into();
    let deeds: Vec<String> = (house.proxy.requests().iter().filter(|line| line.starts_with("POST")))
        .map(|line| {
            let (_, name) = ids.iter().find(|(id, _)| line.contains(id.as_str())).unwrap();
            format!("{} {name}", line.rsplit('/').next().unwrap())
        })
        .collect();
    assert_eq!(deeds, ["stop inside", "stop web", "stop db", "start db", "start web", "start inside"], "{log}");
    assert_eq!(dockerd.inspect("db")["State"]["Health"]["Status"], "healthy", "{log}");
    assert_eq!(["db", "web", "inside"].map(|name| house.status(name)), ["running"; 3]);
}

#[test]
fn cancelled_in_the_middle_the_container_runs_again() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    house.sh("blog", "echo text > /data/file");
    for way in ["stop", "pause"] {
        for hold in [Hold::Request, Hold::Answer] {
            house.jobs(&format!("volume = 'data'\nconsistency = '{way}'"));
            house.proxy.hold(hold, is(way));
            let run = house.start(&["run", "dedup"]);
            assert!(house.proxy.held_or(|| false));
            rustix::process::kill_process(rustix::process::Pid::from_child(&run), rustix::process::Signal::INT)
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
            house.proxy.release();
            let (is_fine, log) = said(run.wait_with_output().unwrap());
            assert!(!is_fine, "{way}: {log}");
            assert_eq!(house.status("blog"), "running", "{way}: {log}");
        }
    }
}

#[test]
fn two_jobs_of_one_volume_take_turns_and_two_volumes_of_one_container_do_not_disturb_each_other() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run("blog", &["-v", "data:/data", "-v", "more:/more", "--stop-timeout", "1", BASE]);
    house.sh("blog", "head -c 3000000 /dev/urandom > /data/file; cp /data/file /more/file");
    house.job("one", "kind = 'backup'\n[[source]]\nvolume = 'data'\nconsistency = 'stop'");
    house.job("two", "kind = 'backup'\n[[source]]\nvolume = 'data'\nconsistency = 'stop'");
    house.job("three", "kind = 'backup'\n[[source]]\nvolume = 'more'\nconsistency = 'stop'");
    let mut server = house.command(&["serve"]).stderr(Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while !house.run(&["runs"]).0 || !house.path("data/control.sock").exists() && begun.elapsed().as_secs() < 5 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    house.proxy.hold(Hold::Answer, |_, _| false);
    let runs = ["one", "two", "three"].map(|job| house.start(&["run", job]));
    let logs = runs.map(|run| said(run.wait_with_output().unwrap()));
    server.kill().unwrap();
    server.wait().unwrap();
    for (is_fine, log) in &logs {
        assert!(is_fine, "{log}");
    }
    assert_eq!(house.status("blog"), "running");
    let deeds: Vec<_> = (house.proxy.requests().into_iter())
        .filter(|line| line.starts_with("POST"))
        .map(|line| line.rsplit('/').next().unwrap().to_owned())
        .collect();
    assert_eq!(deeds, ["stop", "start", "stop", "start", "stop", "start"], "{logs:?}");
}

#[test]
fn files_that_are_written_in_step_are_of_one_moment() {
    let house = House::new();
    let dockerd = house.dockerd;
    // In the order of names something large lies between the two.
    let script = r#"
        head -c 10000000 /dev/urandom > /data/middle
        put() { echo "$1" > "/data/.$2"; mv "/data/.$2" "/data/$2"; sleep 0.01; }
        trap 'over=1' TERM
        i=0; while [ -z "$over" ]; do i=$((i + 1)); put $i first; put $i last; done
    "#;
    dockerd.run("writer", &["-v", "data:/data", BASE, "sh", "-c", script]);
    let number = |path: PathBuf| fs::read_to_string(&path).unwrap().trim().parse::<i64>().unwrap();
    while house.dockerd.try_cli(&["exec", "writer", "test", "-e", "/data/last"]).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for (way, most) in [("pause", 1), ("stop", 0)] {
        house.jobs(&format!("volume = 'data'\nconsistency = '{way}'"));
        for job in ["dedup", "plain", "dedup"] {
            let log = house.fine(&["run", job]);
            let to = house.restore(job).join("data");
            let (first, last) = (number(to.join("first")), number(to.join("last")));
            assert!((0..=most).contains(&(first - last)), "{way}, {job}: {first} and {last}: {log}");
        }
    }
}

#[test]
fn containers_are_quiet_only_while_what_changed_is_read() {
    let house = House::new();
    let dockerd = house.dockerd;
    let script = "head -c 30000000 /dev/urandom > /data/big; while :; do date +%s > /data/busy; sleep 0.02; done";
    dockerd.run("writer", &["-v", "data:/data", "--stop-timeout", "1", BASE, "sh", "-c", script]);
    std::thread::sleep(std::time::Duration::from_secs(4));
    for way in ["pause", "stop"] {
        house.jobs(&format!("volume = 'data'\nconsistency = '{way}'"));
        let log = house.fine(&["run", "dedup"]);
        // 30 MB were read before; `date` writes eleven bytes, or has just begun to.
        assert!(log.contains("28.6 MiB, of which"), "{log}");
        let is_little =
            ["0 B", "11 B"].iter().any(|some| log.contains(&format!("of which {some} had to be read in that time")));
        assert!(is_little, "{log}");
    }
}

#[test]
fn all_volumes_of_a_container_are_one_source_and_unchanged_ones_are_not_read_again() {
    let house = House::new();
    let dockerd = house.dockerd;
    let bound = house.path("bound");
    fs::create_dir(&bound).unwrap();
    fs::write(bound.join("settings"), "bound").unwrap();
    let bind = format!("{}:/etc/app", bound.display());
    let socket = format!("{}:/sock", dockerd.socket().display());
    dockerd.run("blog", &["-v", "data:/data", "-v", "/var/nameless", "-v", &bind, "-v", &socket, BASE]);
    house.sh("blog", "mkdir /data/a; head -c 3000000 /dev/urandom > /data/a/big; echo text > /var/nameless/file");
    dockerd.run("beside", &["-v", "data:/elsewhere", BASE]);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    house.jobs("container = 'blog'\nbinds = true\nexclude = ['*.tmp']");
    house.sh("beside", "echo x > /elsewhere/x.tmp");
    for job in ["plain", "dedup", "dedup"] {
        let log = house.fine(&["run", job]);
        assert!(log.contains("blog was paused for ") && log.contains("beside was paused for "), "{log}");
        let to = house.restore(job);
        let top = if to.join("blog").is_dir() { to.join("blog") } else { to };
        let names: Vec<_> = tree(&top).into_iter().map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(names, ["data/a/big", "etc-app/settings", "var-nameless/file"], "{log}");
    }
    let log = house.fine(&["run", "dedup"]);
    assert!(log.contains("0 B new"), "{log}");
    house.jobs("container = 'missing'");
    let (is_fine, log) = house.run(&["run", "plain"]);
    assert!(!is_fine && log.contains("there is no container `missing`"), "{log}");
    dockerd.run("bare", &["-v", &bind, BASE]);
    house.jobs("container = 'bare'");
    let (is_fine, log) = house.run(&["run", "plain"]);
    assert!(!is_fine && log.contains("the container `bare` has no volumes; with `binds = true`"), "{log}");
}

#[test]
fn a_container_is_told_before_and_after_whatever_happens_between() {
    let house = House::new();
    let dockerd = house.dockerd;
    house.job("nothing", "kind = 'command'\ncommand = ['true']");
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    dockerd.run("beside", &["-v", "data:/data", BASE]);
    house.sh("beside", "echo kept > /data/file");
    let told = |more: &str, before: &str| {
        let after = "echo after >> /data/log";
        format!("volume = 'data'\nconsistency = {{ {more} before = '{before}', after = '{after}' }}")
    };
    let log = || house.sh("beside", "cat /data/log; rm /data/log").split_whitespace().collect::<Vec<_>>().join(" ");

    house.jobs(&told("container = 'blog',", "echo before >> /data/log; echo said"));
    for job in ["plain", "dedup"] {
        let said = house.fine(&["run", job]);
        assert!(said.contains("said"), "{said}");
        assert_eq!(log(), "before after");
        assert_eq!(fs::read_to_string(house.restore(job).join("data/log")).unwrap(), "before\n");
    }
    // Cut off at any request from the first command on.
    for number in 0..12 {
        let (counted, seen) = <(std::sync::atomic::AtomicUsize, std::sync::atomic::AtomicBool)>::default();
        house.proxy.hold(Hold::Request, move |_, line| {
            use std::sync::atomic::Ordering::Relaxed;
            seen.fetch_or(line.ends_with("/exec"), Relaxed);
            seen.load(Relaxed) && counted.fetch_add(1, Relaxed) == number
        });
        house.reach(&house.proxy.host());
        let mut run = house.start(&["run", "plain"]);
        let is_held = house.proxy.held_or(|| run.try_wait().unwrap().is_some());
        run.kill().unwrap();
        run.wait().unwrap();
        house.proxy.forget();
        house.reach(&dockerd.host());
        let said = house.fine(&["run", "nothing"]);
        let log = log();
        assert!(log.ends_with("after"), "{number}: {log}: {:#?}\n{said}", house.proxy.requests());
        if !is_held {
            assert!(number > 3);
            break;
        }
    }
    house.proxy.hold(Hold::Answer, |_, _| false);
    house.reach(&house.proxy.host());

    house.jobs(&told("container = 'blog',", "echo before >> /data/log; exit 3"));
    let (is_fine, said) = house.run(&["run", "dedup"]);
    assert!(!is_fine && said.contains("the `before` command in the container `blog`: exit code 3"), "{said}");
    assert_eq!(log(), "before after");

    house.jobs(&told("", "true"));
    let (is_fine, said) = house.run(&["run", "plain"]);
    assert!(!is_fine && said.contains("beside and blog write to it") || said.contains("blog and beside"), "{said}");
    dockerd.cli(&["stop", "blog"]);
    house.fine(&["run", "plain"]);
    assert_eq!(log(), "after");
    house.jobs(&told("container = 'blog',", "false"));
    house.sh("beside", "echo x > /data/log");
    let said = house.fine(&["run", "plain"]);
    assert!(said.contains("there is none to be told"), "{said}");
    assert_eq!(log(), "x");
}

#[test]
fn one_that_is_slow_to_end_runs_again_although_its_run_was_killed_while_it_was_being_stopped() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run(
        "slow",
        &["-v", "data:/data", "--stop-timeout", "4", BASE, "sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
    );
    house.sh("slow", "echo text > /data/file");
    let before = house.state("slow");
    house.job("plain", "kind = 'backup'\ngrace = '1s'\n[[source]]\nvolume = 'data'\nconsistency = 'stop'");
    house.proxy.hold(Hold::Answer, is("stop"));
    let run = house.start(&["run", "plain"]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    rustix::process::kill_process(rustix::process::Pid::from_child(&run), rustix::process::Signal::INT).unwrap();
    let (is_fine, log) = said(run.wait_with_output().unwrap());
    assert!(!is_fine, "{log}");
    let after = house.state("slow");
    assert_eq!(after.0, "running", "{log}");
    assert_ne!(after.1, before.1, "it was not even stopped: {log}");
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(house.state("slow"), after, "it was stopped after it had been started again");
}

#[test]
fn what_is_owed_while_the_engine_is_away_is_done_once_it_is_back() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    house.sh("blog", "echo text > /data/file");
    house.job("plain", "kind = 'backup'\n[[source]]\nvolume = 'data'\nconsistency = 'stop'");
    house.proxy.hold(Hold::Request, after("stop"));
    let mut run = house.start(&["run", "plain"]);
    assert!(house.proxy.held_or(|| false));
    run.kill().unwrap();
    run.wait().unwrap();
    house.proxy.forget();
    let socket = house.path("engine.sock");
    house.reach(&format!("unix://{}", socket.display()));
    let log = fs::File::create(house.path("server.log")).unwrap();
    let mut server = house.command(&["serve"]).stderr(log).spawn().unwrap();
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let begun = std::time::Instant::now();
        while !done() {
            let log = fs::read_to_string(house.path("server.log")).unwrap();
            assert!(begun.elapsed().as_secs() < 40, "{what}: {log}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    };
    wait("the server is ready", &|| fs::read_to_string(house.path("server.log")).unwrap().contains("ready"));
    assert_eq!(house.status("blog"), "exited");
    std::os::unix::fs::symlink(dockerd.socket(), &socket).unwrap();
    wait("it is told", &|| fs::read_to_string(house.path("server.log")).unwrap().contains("was undone"));
    assert_eq!(house.status("blog"), "running");
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), rustix::process::Signal::TERM).unwrap();
    server.wait().unwrap();
    let said = house.fine(&["log", "1"]);
    assert!(said.contains("later: starting the container `blog` again"), "{said}");
}
