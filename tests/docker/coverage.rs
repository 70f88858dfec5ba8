//! What is on the host, who keeps it, and the jobs that are proposed for the rest: a real engine with a real database in it.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::docker::{BASE, Dockerd, dockerd};

/// A home without any file, and the engine.
struct House {
    home: tempfile::TempDir,
    dockerd: &'static Dockerd,
}

impl House {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), dockerd: dockerd() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rusuban"));
        command.arg("--home").arg(self.home.path()).env("TZ", "UTC").env_remove("RUSUBAN_HOME").args(arguments);
        let output = command.env("DOCKER_HOST", self.dockerd.host()).stdin(Stdio::null()).output().unwrap();
        let [out, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code().unwrap_or(-1), if arguments.contains(&"--json") { out } else { out + &errors })
    }

    fn fine(&self, arguments: &[&str]) -> String {
        let (exit, said) = self.run(arguments);
        assert_eq!(exit, 0, "{arguments:?}: {said}");
        said
    }

    fn job(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path("jobs")).unwrap();
        fs::write(self.path(&format!("jobs/{name}.toml")), text).unwrap();
    }

    fn jobs(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("jobs"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Each thing with its verdict, and the exit code.
    fn coverage(&self) -> (i32, BTreeMap<String, Value>) {
        let (exit, said) = self.run(&["coverage", "--json"]);
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        let things = said["things"].as_array().unwrap().iter();
        let title = |thing: &Value| format!("{} {}", thing["kind"].as_str().unwrap(), thing["name"].as_str().unwrap());
        (exit, things.map(|thing| (title(thing), thing.clone())).collect())
    }

    fn mountpoint(&self, volume: &str) -> PathBuf {
        self.dockerd.cli(&["volume", "inspect", "-f", "{{.Mountpoint}}", volume]).into()
    }

    fn sh(&self, container: &str, script: &str) -> String {
        self.dockerd.cli(&["exec", container, "sh", "-c", script])
    }
}

fn of_compose(service: &str) -> Vec<String> {
    let labels = [("project", "shop"), ("service", service), ("container-number", "1"), ("oneoff", "False")];
    labels.iter().flat_map(|(key, value)| ["--label".to_owned(), format!("com.docker.compose.{key}={value}")]).collect()
}

/// A home server's containers: a shop of compose with Redis and SQLite, a blog that changes itself, and what would not be missed.
fn populate(house: &House) -> tempfile::TempDir {
    let docker = house.dockerd;
    docker.image_with(
        "redis:7",
        "redis-server",
        &["VOLUME /data", "WORKDIR /data", r#"CMD ["redis-server", "--appendonly", "yes"]"#],
    );
    let run = |name: &str, service: &str, options: &[&str]| {
        let labels = of_compose(service);
        let all: Vec<&str> = labels.iter().map(String::as_str).chain(options.iter().copied()).collect();
        docker.run(name, &all);
    };
    let folder = tempfile::tempdir().unwrap();
    let bound = |name: &str| folder.path().join(name).display().to_string();
    for name in ["uploads", "config", "empty"] {
        fs::create_dir(bound(name)).unwrap();
    }
    fs::write(folder.path().join("uploads/picture"), "picture").unwrap();
    fs::write(folder.path().join("config/settings"), "settings").unwrap();
    run("shop-cache-1", "cache", &["-v", "shop_cache:/data", "redis:7"]);
    let uploads = format!("{}:/uploads", bound("uploads"));
    let config = format!("{}:/config:ro", bound("config"));
    let empty = format!("{}:/empty", bound("empty"));
    let socket = format!("{}:/var/run/docker.sock", docker.socket().display());
    let binds = ["-v", &uploads, "-v", &config, "-v", &empty, "-v", &socket, "-v", "/etc/localtime:/etc/localtime:ro"];
    run(
        "shop-web-1",
        "web",
        &[&["-v", "shop_files:/files", "--tmpfs", "/tmp", "--stop-timeout", "1"], &binds[..], &[BASE]].concat(),
    );
    docker.run("blog", &["-v", "/var/nameless", "--stop-timeout", "1", BASE]);
    docker.run("ended", &["-v", "/var/nameless", BASE, "true"]);
    docker.cli(&["volume", "create", "unused"]);
    house.sh("blog", "head -c 3000000 /dev/urandom > /post; echo text > /var/nameless/file");
    house.sh("shop-web-1", "echo file > /files/file");
    fs::write(house.mountpoint("unused").join("old"), "old").unwrap();
    let database = rusqlite::Connection::open(house.mountpoint("shop_files").join("shop.db")).unwrap();
    database.execute_batch("CREATE TABLE goods (x); INSERT INTO goods VALUES (1)").unwrap();
    folder
}

fn verdicts(things: &BTreeMap<String, Value>) -> BTreeMap<&str, &str> {
    things.iter().map(|(title, thing)| (title.as_str(), thing["verdict"].as_str().unwrap())).collect()
}

#[test]
fn what_nobody_keeps_is_found_and_the_jobs_that_are_proposed_keep_all_of_it() {
    let house = House::new();
    let bound = populate(&house);
    let bound = |name: &str| format!("folder {}", bound.path().join(name).display());
    let (exit, things) = house.coverage();
    assert_eq!(exit, 1);
    let nameless =
        things.keys().filter(|title| title.starts_with("volume ") && title.len() == 71).cloned().collect::<Vec<_>>();
    let verdict = verdicts(&things);
    for (title, expected) in [
        ("database shop-cache-1".to_owned(), "unkept"),
        ("volume shop_cache".to_owned(), "unkept"),
        ("volume shop_files".to_owned(), "unkept"),
        ("volume unused".to_owned(), "unkept"),
        (bound("uploads"), "unkept"),
        ("layer blog".to_owned(), "unkept"),
        (format!("sqlite {}", house.mountpoint("shop_files").join("shop.db").display()), "unkept"),
        (bound("config"), "passing"),
        (bound("empty"), "passing"),
        (format!("folder {}", house.dockerd.socket().display()), "passing"),
        ("folder /etc/localtime".to_owned(), "passing"),
        ("layer shop-web-1".to_owned(), "passing"),
        ("layer ended".to_owned(), "passing"),
    ] {
        assert_eq!(verdict.get(title.as_str()), Some(&expected), "{title}: {verdict:#?}");
    }
    let redis = &things["database shop-cache-1"];
    assert_eq!((&redis["engine"], &redis["because"]), (&"redis".into(), &"redis-server runs in it".into()));
    assert_eq!(redis["place"], "in the volume shop_cache");
    // Of the two without a name that of the container that runs counts.
    let mut of_nameless: Vec<&str> = nameless.iter().map(|title| verdict[title.as_str()]).collect();
    of_nameless.sort_unstable();
    assert_eq!(of_nameless, ["passing", "unkept"]);
    assert!(house.fine(&["check", "--connect"]).contains("`rusuban coverage` shows which"));

    // Nothing is written before it is meant.
    let would = house.fine(&["init", "--dry-run"]);
    assert!(would.contains("would write") && would.contains("volume      = \"shop_cache\""), "{would}");
    assert!(!house.path("jobs").exists() && !house.path("rusuban.toml").exists());
    let said = house.fine(&["init"]);
    assert!(said.contains("not proposed:") && said.contains("a repository and its care"), "{said}");
    let jobs = house.jobs();
    for name in ["blog", "shop", "snapshots", "unused-volumes", "updates", "self-backup", "disk-report"] {
        assert!(jobs.iter().any(|job| job == name), "{name}: {jobs:?}");
    }
    assert!(house.fine(&["check"]).contains("all files are right"));
    let shop = fs::read_to_string(house.path("jobs/shop.toml")).unwrap();
    let sources: toml::Table = toml::from_str(&shop).unwrap();
    let sources = sources["source"].as_array().unwrap();
    let stopped: Vec<_> = sources.iter().filter(|source| source.get("consistency").is_some()).collect();
    assert_eq!((sources.len(), stopped.len()), (3, 1), "{shop}");
    assert_eq!(stopped[0]["volume"].as_str(), Some("shop_cache"));

    // Named, and not kept yet.
    let (exit, things) = house.coverage();
    assert_eq!((exit, things["volume shop_files"]["verdict"].as_str()), (1, Some("not-yet")));
    for job in ["blog", "shop", "snapshots", "unused-volumes", "updates"] {
        house.fine(&["run", job]);
    }
    let (exit, things) = house.coverage();
    assert_eq!(exit, 0, "{things:#?}");
    assert!(!verdicts(&things).values().any(|verdict| ["unkept", "not-yet", "inconsistent"].contains(verdict)));
    assert_eq!(things["database shop-cache-1"]["by"][0]["job"], "shop");
    let said = house.fine(&["coverage"]);
    assert!(said.contains("all that would be missed is kept") && !said.contains("layer  ended"), "{said}");
    assert!(!house.fine(&["check", "--connect"]).contains("rusuban coverage"));
    // And it is what was there.
    let to = house.path("back");
    house.fine(&["restore", "shop", "--to", to.to_str().unwrap()]);
    assert!(to.join("shop_cache/appendonlydir").exists() && to.join("uploads/picture").exists());
    assert!(to.join("shop_files/shop.db").exists());

    // What is there is never touched, and what comes later is proposed alone.
    fs::write(house.path("jobs/shop.toml"), shop.replace("H(2-4)", "4")).unwrap();
    let said = house.fine(&["init"]);
    assert!(said.contains("nothing to propose"), "{said}");
    house.dockerd.run("wiki", &["-v", "wiki:/data", BASE]);
    house.sh("wiki", "echo page > /data/page");
    house.job("wiki", "kind = 'command'\ncommand = ['true']");
    let said = house.fine(&["init"]);
    assert!(said.contains("jobs/wiki-2.toml"), "{said}");
    assert_eq!(house.jobs().len(), jobs.len() + 2);
    assert!(fs::read_to_string(house.path("jobs/shop.toml")).unwrap().contains("\"H 4 * * *\""));
    house.fine(&["run", "wiki-2"]);
    assert_eq!(house.coverage().0, 0);
}

#[test]
fn what_is_kept_badly_late_by_hand_or_not_at_all_is_told_apart() {
    let house = House::new();
    let docker = house.dockerd;
    docker.image_with("redis:7", "redis-server", &["WORKDIR /data", r#"CMD ["redis-server", "--appendonly", "yes"]"#]);
    docker.run("db", &["-v", "db:/data", "redis:7"]);
    docker.run("forgetful", &["-v", "cache-1:/data", "redis:7", "redis-server", "--save", ""]);
    docker.run("app", &["-v", "files:/files", "--stop-timeout", "1", BASE]);
    house.sh("app", "mkdir /files/tmp; echo x > /files/file");
    for volume in ["files/tmp", "files"] {
        let (name, below) = volume.split_once('/').unwrap_or((volume, ""));
        let file = house.mountpoint(name).join(below).join("some.db");
        rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    }
    house.sh("forgetful", "echo x > /data/trace");
    let mountpoint = house.mountpoint("db").display().to_string();
    let every = "schedule = '@every 1h'\n";
    // As raw files of a server that is at work.
    house.job("raw", &format!("kind = 'backup'\n{every}[[source]]\npath = '{mountpoint}'"));
    house.job("files", &format!("kind = 'backup'\n{every}[[source]]\nvolume = 'files'\nexclude = ['/tmp/some.db']"));
    house.job("draft", "kind = 'backup'\nenabled = false\nschedule = '@daily'\n[[source]]\nvolume = 'cache-1'");
    house.fine(&["run", "raw"]);
    house.fine(&["run", "files"]);
    let (exit, things) = house.coverage();
    let verdict = verdicts(&things);
    let met = |name: &str| format!("sqlite {}", house.mountpoint("files").join(name).display());
    assert_eq!(exit, 1);
    for (title, expected) in [
        ("database db", "inconsistent"),
        ("volume db", "kept"),
        ("database forgetful", "passing"),
        ("volume cache-1", "unkept"),
        ("volume files", "kept"),
        (&met("some.db"), "kept"),
        (&met("tmp/some.db"), "unkept"),
    ] {
        assert_eq!(verdict[title], expected, "{title}: {things:#?}");
    }
    assert_eq!(things["volume cache-1"]["but"][0], "draft would, and is not enabled");
    let (_, said) = house.run(&["coverage"]);
    assert!(said.contains("kept, but not consistently") && said.contains("db: Redis in the volume db"), "{said}");

    // Paused by a person, it is not kept any more; with commands of its own before, it is as those leave it.
    let volume = "[[source]]\nvolume = 'db'\nconsistency = ";
    for (text, expected) in [
        (format!("{volume}'none'"), "inconsistent"),
        (format!("{volume}'pause'"), "kept"),
        (format!("{volume}{{ container = 'db', before = 'true' }}"), "kept"),
        (format!("[hooks]\nbefore = 'true'\n[[source]]\npath = '{mountpoint}'"), "kept"),
    ] {
        house.job("raw", &format!("kind = 'backup'\n{every}{text}"));
        house.fine(&["run", "raw"]);
        let (_, things) = house.coverage();
        assert_eq!(things["database db"]["verdict"], expected, "{text}");
    }
    house.job("raw", "kind = 'backup'\n[[source]]\nvolume = 'db'");
    let (_, things) = house.coverage();
    assert_eq!(things["database db"]["but"][0], "raw does, but only when it is run by hand");
    // A source that is new in a job that was green before has not been kept.
    house.job("files", &format!("kind = 'backup'\n{every}[[source]]\nvolume = 'files'\n[[source]]\nvolume = 'db'"));
    let (_, things) = house.coverage();
    assert_eq!(
        (&things["volume db"]["verdict"], &things["volume files"]["verdict"]),
        (&"not-yet".into(), &"kept".into())
    );
    house.job("raw", "kind = 'command'\ncommand = ['true']");
    fs::write(house.path("rusuban.toml"), "[coverage]\nignore = ['volume:cache-*', '/nowhere']\n").unwrap();
    let (exit, things) = house.coverage();
    assert_eq!((exit, &things["volume db"]["verdict"]), (1, &"not-yet".into()), "{things:#?}");
    assert_eq!(things["volume cache-1"]["verdict"], "accepted");
    let (_, said) = house.run(&["coverage"]);
    assert!(said.contains("`/nowhere` in [coverage] ignore fits nothing here"), "{said}");
    fs::write(house.path("rusuban.toml"), "[docker]\nhost = 'unix:///nowhere/docker.sock'\n").unwrap();
    let (exit, said) = house.run(&["coverage"]);
    assert!(exit == 1 && said.contains("there is no socket: is Docker running?"), "{said}");
    assert!(Path::new(&mountpoint).exists());
}
