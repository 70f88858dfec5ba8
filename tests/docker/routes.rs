//! `routes` on a real engine with a real Redis: a hosts file and a table that end right, whatever came and went.
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    cli::{Server, add, run, runs, said, text, wait_until},
    support::{
        docker::{BASE, Dockerd, dockerd},
        redis::{PASSWORD, Redis},
    },
};

/// What stands in the file before, with an end of lines of another system and letters that are no text.
const OWN: &[u8] = b"127.0.0.1 localhost\r\n# caf\xe9\xff\n\n::1\tlocalhost  \n";

struct House {
    home: tempfile::TempDir,
    docker: &'static Dockerd,
    redis: Redis,
}

impl House {
    fn new(keys: &str) -> Self {
        let house = Self { home: tempfile::tempdir().unwrap(), docker: dockerd(), redis: Redis::start() };
        let secret = house.path("secret");
        fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(house.path("hosts"), OWN).unwrap();
        fs::set_permissions(house.path("hosts"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(house.path("hosts"), Some(33), Some(34)).unwrap();
        let settings = format!("[docker]\nhost = {:?}\n", house.docker.host());
        fs::write(house.path("rusuban.toml"), settings).unwrap();
        add(house.home.path(), "routes", &format!("kind = 'routes'\nname = '{{name}}.home'\n{keys}"));
        house
    }

    fn redis_keys(&self) -> String {
        format!(
            "[redis]\naddress = {:?}\nkey = 'routes'\npassword = {{ file = 'secret' }}\nexpire = '3s'\n",
            self.redis.socket()
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn run(&self) -> (bool, String) {
        let output = run(self.home.path(), &["run", "routes"]);
        (output.status.success(), text(&output))
    }

    /// Our block, and that all else is as it was.
    fn block(&self) -> Vec<String> {
        let bytes = fs::read(self.path("hosts")).unwrap();
        let rest = bytes.strip_prefix(OWN).expect("what was there is there, byte for byte");
        let text = String::from_utf8(rest.to_vec()).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert!(lines.pop().unwrap().ends_with(" end") && lines.remove(0).contains(" begin"), "{text}");
        lines
    }

    /// What the engine says of containers that run, as it should stand in the file.
    fn truth(&self) -> Vec<String> {
        let ids = self.docker.cli(&["ps", "-q", "--no-trunc"]);
        let mut arguments = vec!["inspect", "-f", "{{.NetworkSettings.IPAddress}} {{.Name}}"];
        arguments.extend(ids.lines());
        if ids.is_empty() {
            return Vec::new();
        }
        let said = self.docker.cli(&arguments);
        let names: BTreeMap<&str, &str> =
            said.lines().filter_map(|line| line.split_once(" /")).map(|(at, name)| (name, at)).collect();
        names.into_iter().map(|(name, at)| format!("{at} {name}.home")).collect()
    }
}

fn routes(home: &Path) -> usize {
    runs(home).iter().filter(|run| run["job"] == "routes").count()
}

#[test]
fn fifty_containers_come_and_go_and_the_names_end_right_in_both_places() {
    let mut house = House::new("");
    let keys = format!(
        "kind = 'routes'\nall = true\nname = '{{name}}.home'\nport = 80\nhosts = 'hosts'\nreload = 'echo reloaded >> reloads'\n{}",
        house.redis_keys()
    );
    add(house.home.path(), "routes", &keys);
    let (docker, home) = (house.docker, house.home.path().to_owned());
    docker.run("first", &[BASE]);
    let server = Server::start(&home);
    wait_until("the first is there", || house.path("reloads").exists());
    assert_eq!(house.block(), house.truth());
    // From two hands, and half of them go again.
    std::thread::scope(|scope| {
        for hand in 0..2 {
            scope.spawn(move || {
                for number in (0..25).map(|number| 2 * number + hand) {
                    let name = format!("c{number}");
                    docker.run(&name, &["--stop-timeout", "0", BASE, "sleep", "1000"]);
                    if number % 3 == 0 {
                        docker.cli(&["rm", "-f", &name]);
                    } else if number % 7 == 0 {
                        docker.cli(&["restart", "-t", "0", &name]);
                    }
                }
            });
        }
    });
    let truth = house.truth();
    assert_eq!(truth.len(), 34, "{truth:?}");
    wait_until("the file is true", || house.block() == truth);
    let table = || house.redis.table("routes");
    let expected: Vec<String> =
        truth.iter().filter_map(|line| line.split_once(' ')).map(|(at, name)| format!("{name}={at}:80")).collect();
    wait_until("the table is true", || table() == expected);
    let found = fs::metadata(house.path("hosts")).unwrap();
    assert_eq!((found.mode() & 0o777, found.uid(), found.gid()), (0o640, 33, 34));

    // Nothing changes: nothing is run, nothing is told, and the table lives on although it expires after three seconds.
    wait_until("all runs have ended", || runs(&home).iter().all(|run| run["progress"]["state"] == "finished"));
    let (before, reloads) = (routes(&home), fs::read_to_string(house.path("reloads")).unwrap());
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(table(), expected);
    assert_eq!((routes(&home), fs::read_to_string(house.path("reloads")).unwrap()), (before, reloads));
    assert!(runs(&home).iter().all(|run| run["progress"]["outcome"] == "succeeded"), "{:#?}", runs(&home));

    // Redis is away, and the file goes on being true; Redis is back, and has its table again.
    house.redis.stop();
    docker.cli(&["rm", "-f", "first"]);
    let truth = house.truth();
    wait_until("the file is true without Redis", || house.block() == truth);
    house.redis.begin();
    wait_until("the table is back", || house.redis.table("routes").len() == 33);
    wait_until("and green", || runs(&home)[0]["progress"]["outcome"] == "succeeded");
    let red: Vec<_> = runs(&home).into_iter().filter(|run| run["progress"]["outcome"] == "failed").collect();
    assert!(
        red.len() <= 2 && red.iter().all(|run| run["message"].as_str().unwrap().contains("no Redis server answers")),
        "{red:#?}"
    );
    assert!(!said(&home).contains(PASSWORD) && !text(&run(&home, &["runs", "--json"])).contains(PASSWORD));

    // The engine is restarted in the middle of it. Its containers are gone, and their names with them.
    docker.power_cut();
    docker.run("last", &[BASE]);
    wait_until("it follows again", || house.block() == house.truth() && house.block().len() == 1);
    // Nobody refreshes the table, and it goes.
    assert_eq!(server.terminate(), 0);
    wait_until("it has expired", || house.redis.table("routes").is_empty());
}

#[test]
fn a_file_that_is_mounted_is_written_in_place_and_one_with_broken_marks_is_left_alone() {
    let house = House::new("containers = ['blog', 'away']\nhosts = 'hosts'\n");
    house.docker.run("blog", &[BASE]);
    let (is_fine, said) = house.run();
    assert!(is_fine && said.contains("no container `away`, so it has no address"), "{said}");
    let right = fs::read(house.path("hosts")).unwrap();
    let (is_fine, said) = house.run();
    assert!(is_fine && said.contains("1 name: none has changed"), "{said}");

    // As in a container: the file alone is mounted.
    fs::write(house.path("mounted"), OWN).unwrap();
    let script = r#"mount --bind "$1/mounted" "$1/hosts" && exec "$2" --home "$1" run routes"#;
    let mounted = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &format!("{then}{script}"), "mounted"]);
        let output = command.arg(house.home.path()).arg(env!("CARGO_BIN_EXE_rusuban")).output().unwrap();
        (output.status.success(), text(&output))
    };
    let (is_fine, said) = mounted("");
    assert!(is_fine && said.contains("was written in place: it is mounted here by itself"), "{said}");
    assert_eq!(fs::read(house.path("mounted")).unwrap(), right);
    assert_eq!(fs::read(house.path("hosts")).unwrap(), right, "what is below the mount is another file");
    assert_eq!(
        fs::read_dir(house.home.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".hosts"))
            .count(),
        0
    );

    let broken = String::from_utf8_lossy(&right).replace("# rusuban routes routes end\n", "");
    fs::write(house.path("hosts"), &broken).unwrap();
    let (is_fine, said) = house.run();
    assert!(!is_fine && said.contains("our block begins in line 5 and does not end; nothing was written"), "{said}");
    assert_eq!(fs::read_to_string(house.path("hosts")).unwrap(), broken);
}

#[test]
fn a_reload_that_failed_is_owed_and_what_is_not_ours_in_redis_is_left_alone() {
    let house = House::new("");
    let keys = format!("kind = 'routes'\nall = true\nhosts = 'hosts'\nreload = 'test -e well'\n{}", house.redis_keys());
    add(house.home.path(), "routes", &keys);
    house.docker.cli(&["network", "create", "web"]);
    house.docker.build("served:1", &format!("FROM {BASE}\nEXPOSE 8080"));
    house.docker.run("blog", &["served:1"]);
    house.docker.cli(&["network", "connect", "web", "blog"]);
    fs::write(house.path("well"), "").unwrap();
    let (is_fine, said) = house.run();
    assert!(is_fine && said.contains("blog: left out: it is in several networks, bridge, web"), "{said}");
    add(house.home.path(), "routes", &format!("network = 'web'\n{keys}"));
    fs::remove_file(house.path("well")).unwrap();
    let (is_fine, said) = house.run();
    assert!(!is_fine && said.contains("the names are written, but `reload` failed: exit code 1"), "{said}");
    let address =
        house.docker.inspect("blog")["NetworkSettings"]["Networks"]["web"]["IPAddress"].as_str().unwrap().to_owned();
    assert_eq!(house.block(), [format!("{address} blog")]);
    fs::write(house.path("well"), "").unwrap();
    let (is_fine, said) = house.run();
    assert!(is_fine && said.contains("1 name: none has changed; reloaded"), "{said}");
    assert_eq!(house.redis.table("routes"), [format!("blog={address}:8080")]);
    house.redis.says(&["del", "routes"]);
    house.redis.says(&["rpush", "routes", "mine"]);
    let (is_fine, said) = house.run();
    assert!(!is_fine && said.contains("there is a list under this key, which is left alone"), "{said}");
    assert_eq!(house.redis.says(&["lrange", "routes", "0", "-1"]), "mine");
    fs::write(house.path("secret"), "wrong").unwrap();
    let (is_fine, said) = house.run();
    assert!(
        !is_fine && said.contains("sign in to Redis at ") && said.contains("look at `user` and `password`"),
        "{said}"
    );
}
