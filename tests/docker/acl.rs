//! What `rusuban docker-acl` prints is what a job needs, and no more: each job runs through a proxy that knows only that.
use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use crate::support::{
    allow::Allow,
    docker::{BASE, Dockerd, dockerd, reach},
};

struct House {
    home: tempfile::TempDir,
    dockerd: &'static Dockerd,
    proxy: Allow,
    unused: BTreeSet<(String, String)>,
    used: BTreeSet<(String, String)>,
}

impl House {
    fn new() -> Self {
        let (home, dockerd) = (tempfile::tempdir().unwrap(), dockerd());
        fs::create_dir(home.path().join("jobs")).unwrap();
        let proxy = Allow::before(dockerd.socket());
        let settings = format!(
            "[docker]\nhost = \"{}\"\n[repository.safe]\nbucket = \"local\"\npassword = {{ file = \"password\" }}\n",
            proxy.host()
        );
        fs::write(home.path().join("rusuban.toml"), settings).unwrap();
        fs::write(home.path().join("password"), "correct horse").unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(home.path().join("password"), private).unwrap();
        let house = Self { home, dockerd, proxy, unused: BTreeSet::new(), used: BTreeSet::new() };
        assert!(house.rusuban(&["repository", "init", "safe"]).0);
        house
    }

    /// Whether it was fine, and what it printed.
    fn rusuban(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rusuban"));
        command.arg("--home").arg(self.home.path()).env("TZ", "UTC").env_remove("RUSUBAN_HOME").args(arguments);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    /// The requests that are printed for the job; those that are rare, or those that are not.
    fn needs(&self, rare: bool) -> BTreeSet<(String, String)> {
        let (is_fine, said) = self.rusuban(&["docker-acl", "job", "--format", "json"]);
        assert!(is_fine, "{said}");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let needs = said[0]["needs"].as_array().unwrap().iter().filter(|one| one["rare"] == rare);
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        needs.map(|one| (text(&one["method"]), text(&one["path"]))).collect()
    }

    /// The requests that are printed for what is no job.
    fn printed(&self, flag: &str) -> BTreeSet<(String, String)> {
        let (is_fine, said) = self.rusuban(&["docker-acl", flag, "--format", "json"]);
        assert!(is_fine, "{said}");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let needs = said.as_array().unwrap().last().unwrap()["needs"].as_array().unwrap().clone();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        needs.iter().map(|one| (text(&one["method"]), text(&one["path"]))).collect()
    }

    /// Runs a job through the proxy, which refuses nothing. What it said.
    fn run(&mut self, text: &str, is_fine: bool) -> String {
        fs::write(self.home.path().join("jobs/job.toml"), text).unwrap();
        let (usual, rare) = (self.needs(false), self.needs(true));
        self.proxy.only(usual.union(&rare).cloned().collect());
        let (was_fine, said) = self.rusuban(&["run", "job"]);
        let (used, refused) = self.proxy.seen();
        assert!(refused.is_empty(), "{text}: {refused:#?}\n{said}");
        assert_eq!(was_fine, is_fine, "{text}: {said}");
        self.unused.extend(usual);
        self.used.extend(used);
        said
    }

    /// All that was printed since the last time was used.
    fn all_was_used(&mut self) {
        let unused: Vec<_> = self.unused.difference(&self.used).collect();
        assert!(unused.is_empty(), "{unused:#?}");
        self.unused.clear();
        self.used.clear();
    }

    /// Something new in its writable layer.
    fn change(&self) {
        self.dockerd.cli(&["exec", "blog", "sh", "-c", "date +%s%N > /file"]);
    }
}

#[test]
fn what_is_printed_for_a_job_is_what_it_needs() {
    let mut house = House::new();
    house.dockerd.run("blog", &["--network", "none", "-v", "data:/data", BASE]);
    house.dockerd.cli(&["exec", "blog", "sh", "-c", "echo kept > /data/file"]);
    let snapshot = "kind = 'container-snapshot'\ncontainers = ['blog']\nimage = 'kept/{container}'\n";
    for more in ["pause = false", "", "repository = 'safe'"] {
        // The second one takes the name of the first, which goes.
        for _ in 0..2 {
            house.change();
            house.run(&format!("{snapshot}{more}"), true);
        }
        house.all_was_used();
    }
    for more in ["", "bucket = 'local'\n", "repository = 'safe'\n"] {
        for from in ["volume = 'data'", "container = 'blog'"] {
            let told = if from.starts_with("volume") { "" } else { "container = 'blog', " };
            let told = format!("{{ {told}before = ['true'], after = ['sleep', '0.2'] }}");
            for consistency in ["'none'", "'pause'", "'stop'", &told] {
                house.run(&format!("kind = 'backup'\n{more}[[source]]\n{from}\nconsistency = {consistency}"), true);
                if from.starts_with("volume") && !more.starts_with("bucket") {
                    house.all_was_used();
                }
            }
            house.all_was_used();
        }
    }
    let container = "kind = 'command'\ncontainer = 'blog'\n";
    house.run(&format!("{container}shell = 'echo hello; sleep 0.2'"), true);
    house.all_was_used();
    house.run(&format!("{container}shell = 'sleep 1000'\ntimeout = '1s'\ngrace = '2s'"), false);
    let image = "kind = 'command'\nimage = 'base:1'\n";
    house.run(&format!("{image}shell = 'echo hello'"), true);
    house.run(&format!("{image}shell = 'sleep 1000'\ntimeout = '1s'\ngrace = '2s'"), false);
    house.all_was_used();
    house.run("kind = 'routes'\nall = true\nhosts = 'hosts'", true);
    // What is heard is heard by the server.
    house.used.insert(("GET".into(), "/events".into()));
    house.all_was_used();
    house.dockerd.cli(&["stop", "-t", "0", "blog"]);
    house.run("kind = 'boot'\ncontainers = ['blog']", true);
    house.used.insert(("GET".into(), "/events".into()));
    house.all_was_used();
    assert_eq!(house.dockerd.cli(&["ps", "--format", "{{.Names}} {{.State}}"]), "blog running");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_that_reads_volumes_needs_is_printed_once_its_image_is_named() {
    let mut house = House::new();
    house.dockerd.import_helper("helper:1");
    house.dockerd.run("blog", &["--network", "none", "-v", "data:/data", BASE]);
    house.dockerd.cli(&["exec", "blog", "sh", "-c", "echo kept > /data/file"]);
    let socket = house.proxy.host();
    // An address that is none of this machine's own.
    let at = reach("127.0.0.2", socket.strip_prefix("unix://").unwrap().into()).await;
    let settings = house.home.path().join("rusuban.toml");
    let reached = fs::read_to_string(&settings).unwrap().replace(&socket, &format!("tcp://{at}"));
    fs::write(&settings, reached.replace("[repository.safe]", "helper = \"helper:1\"\n[repository.safe]")).unwrap();
    for more in ["", "repository = 'safe'\n"] {
        for consistency in ["none", "pause"] {
            let said = house.run(
                &format!("kind = 'backup'\n{more}[[source]]\nvolume = 'data'\nconsistency = '{consistency}'"),
                true,
            );
            assert!(said.contains("read by a container that is made for it"), "{said}");
            house.all_was_used();
        }
    }
    house.proxy.only(house.printed("--restore").into_iter().collect());
    for arguments in [&["restore", "job", "--to-volume", "other"][..], &["restore", "job", "--in-place"]] {
        let (is_fine, said) = house.rusuban(arguments);
        let (_, refused) = house.proxy.seen();
        assert!(is_fine && refused.is_empty(), "{refused:#?} {said}");
        assert!(said.contains("it is written by a container that is made for it"), "{said}");
    }
}

#[test]
fn a_snapshot_of_too_many_layers_needs_what_is_printed_as_rare() {
    let mut house = House::new();
    let lines: String = (0..101).map(|number| format!("COPY --from=base:1 /etc/passwd /tmp/{number}\n")).collect();
    house.dockerd.build("deep:1", &format!("FROM {BASE}\n{lines}"));
    house.dockerd.run("blog", &["--network", "none", "deep:1"]);
    house.change();
    let keys = "kind = 'container-snapshot'\ncontainers = ['blog']\nimage = 'kept/{container}'\n";
    house.run(keys, true);
    let rare: Vec<_> = house.needs(true).difference(&house.used).cloned().collect();
    assert_eq!(rare, [("POST".to_owned(), "/containers/{container}/unpause".to_owned())]);
}

#[test]
fn a_job_that_needs_what_amounts_to_root_is_told() {
    let house = House::new();
    let write = |name: &str, text: &str| fs::write(house.home.path().join(format!("jobs/{name}.toml")), text).unwrap();
    let (_, said) = house.rusuban(&["docker-acl"]);
    assert_eq!(said, "no job uses Docker\n");
    write("here", "kind = 'command'\nshell = 'true'");
    write("there", "kind = 'command'\ncontainer = 'blog'\nshell = 'true'");
    write("volume", "kind = 'backup'\n[[source]]\nvolume = 'data'");
    let (is_fine, said) = house.rusuban(&["check", "--connect"]);
    assert!(!is_fine && said.contains("engine: cannot be used: Forbidden (status 403)\n"), "{said}");
    house.proxy.only(vec![("GET".into(), "/version".into())]);
    let (is_fine, said) = house.rusuban(&["check", "--connect"]);
    assert!(is_fine && said.contains("it says no more of itself: Forbidden"), "{said}");
    house.proxy.only(vec![("GET".into(), "/version".into()), ("GET".into(), "/info".into())]);
    let (_, said) = house.rusuban(&["check", "--connect"]);
    assert!(
        said.contains("engine: answers (Docker ") && said.contains(", storage driver overlay2; its files in "),
        "{said}"
    );
    let (_, said) = house.rusuban(&["docker-acl", "there"]);
    assert!(said.contains("this amounts to root on the engine's host: POST /containers/{container}/exec\n"), "{said}");
    let (_, said) = house.rusuban(&["docker-acl", "volume", "here"]);
    assert!(!said.contains("amounts to root") && said.contains("here (command): does not use Docker\n"), "{said}");
    let (_, said) = house.rusuban(&["docker-acl", "--format", "tecnativa"]);
    assert!(said.starts_with("CONTAINERS=1\nEXEC=1\nPOST=1\nVERSION=1\nVOLUMES=1\nEVENTS=0\n"), "{said}");
    let (_, said) = house.rusuban(&["docker-acl", "volume", "--format", "wollomatic"]);
    assert!(
        said.contains("'-allowPOST=(/v1\\.[0-9]+)?(/containers/[^/]+/pause|/containers/[^/]+/unpause)'\n"),
        "{said}"
    );
    assert!(!house.rusuban(&["docker-acl", "nowhere"]).0);
}

#[test]
fn what_is_printed_for_coverage_and_restores_is_what_they_need() {
    let house = House::new();
    house.dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    house.dockerd.cli(&["exec", "blog", "sh", "-c", "echo kept > /data/file"]);
    let printed = |flag: &str| house.printed(flag);
    house.proxy.only(printed("--coverage").into_iter().collect());
    let (is_fine, said) = house.rusuban(&["coverage"]);
    assert!(!is_fine && said.contains("1 thing not kept"), "{said}");
    let (used, refused) = house.proxy.seen();
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(used.into_iter().collect::<BTreeSet<_>>(), printed("--coverage"));
    let job = "kind = 'backup'\nrepository = 'safe'\n[[source]]\nvolume = 'data'";
    fs::write(house.home.path().join("jobs/job.toml"), job).unwrap();
    let (usual, rare) = (house.needs(false), house.needs(true));
    house.proxy.only(usual.union(&rare).cloned().collect());
    assert!(house.rusuban(&["run", "job"]).0);
    house.proxy.only(printed("--restore").into_iter().collect());
    house.proxy.seen();
    for arguments in [
        &["restore", "job", "--to-volume", "other"][..],
        &["restore", "job", "--in-place"],
        &["restore", "job", "--undo"],
    ] {
        let (is_fine, said) = house.rusuban(arguments);
        let (_, refused) = house.proxy.seen();
        assert!(is_fine && refused.is_empty(), "{refused:#?} {said}");
    }
}
