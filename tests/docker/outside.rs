//! Snapshots off their host: what is stored, what a night costs, and that an engine that knows nothing of it takes it back.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::same;
use crate::{
    cli::{run, text},
    support::{
        docker::{BASE, Dockerd, dockerd},
        restic::Restic,
        trees::sh,
    },
};

/// A home whose job stores containers in a repository.
struct House {
    home: tempfile::TempDir,
}

impl House {
    fn new(dockerd: &Dockerd, job: &str) -> Self {
        let house = Self { home: tempfile::tempdir().unwrap() };
        sh(&format!(
            "cd '{}' && mkdir jobs && echo correct > password && chmod 600 password",
            house.home.path().display()
        ));
        house.use_engine(dockerd);
        let job = format!("kind = \"container-snapshot\"\nrepository = \"safe\"\n{job}\n");
        fs::write(house.path("jobs/night.toml"), job).unwrap();
        house.fine(&["repository", "init", "safe"]);
        house
    }

    /// From now on its engine is this one.
    fn use_engine(&self, dockerd: &Dockerd) {
        let settings =
            format!("[docker]\nhost = {:?}\n[repository.safe]\npassword = {{ file = \"password\" }}\n", dockerd.host());
        fs::write(self.path("rusuban.toml"), settings).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn fine(&self, arguments: &[&str]) -> String {
        let output = run(self.home.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    fn backups(&self) -> Vec<Value> {
        let listed: Value = serde_json::from_str(&self.fine(&["backups", "night", "--json"])).unwrap();
        listed["backups"].as_array().unwrap().clone()
    }

    fn restic(&self) -> Restic {
        Restic::new(&self.path("data/backups/safe"), "correct")
    }
}

/// The tar that `docker load` takes, of what was brought back from a repository.
fn loadable(folder: &Path) -> PathBuf {
    let configuration: Value = serde_json::from_slice(&fs::read(folder.join("image.json")).unwrap()).unwrap();
    let layers = configuration["rootfs"]["diff_ids"].as_array().unwrap().iter();
    let layers: Vec<String> =
        layers.map(|digest| format!("layers/{}.tar", digest.as_str().unwrap().trim_start_matches("sha256:"))).collect();
    let manifest = serde_json::json!([{ "Config": "image.json", "RepoTags": ["back:1"], "Layers": layers }]);
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    let tar = folder.join("../image.tar");
    let made = Command::new("tar")
        .arg("-C")
        .arg(folder)
        .arg("-cf")
        .arg(&tar)
        .args(["manifest.json", "image.json", "layers"])
        .status();
    assert!(made.unwrap().success());
    tar
}

#[test]
fn a_night_costs_what_changed_and_another_engine_takes_it_back() {
    let docker = dockerd();
    docker.run("blog", &["-e", "PASSWORD=hunter2", "--hostname", "web", "-v", "data:/data", BASE]);
    docker.run("wiki", &[BASE]);
    docker.cli(&[
        "exec",
        "blog",
        "sh",
        "-c",
        "mkdir /srv; head -c 100000000 /dev/urandom > /srv/file; ln -s file /srv/link",
    ]);
    let house =
        House::new(docker, "containers = ['blog', 'wiki']\nimage = 'kept/{container}'\nkeep = { local = 1, last = 2 }");
    let said = house.fine(&["run", "night"]);
    assert!(said.contains("kept as snapshot "), "{said}");
    docker.cli(&["exec", "blog", "sh", "-c", "head -c 100000 /dev/urandom > /tmp/piece; dd if=/tmp/piece of=/srv/file bs=1000 seek=50000 conv=notrunc; rm /tmp/piece"]);
    let before = stored(&house);
    let said = house.fine(&["run", "night"]);
    let more = stored(&house) - before;
    assert!(more < 1_000_000, "{more} bytes more for 100 KB\n{said}");
    assert_eq!(house.backups().len(), 2);
    house.restic().run(&["check", "--read-data"]).unwrap();
    // No password is outside of what is encrypted.
    let found = Command::new("grep").args(["-rl", "hunter2"]).arg(house.home.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");

    let back = house.path("back");
    house.fine(&["restore", "night", "--source", "blog", "--to", back.to_str().unwrap()]);
    let found = Command::new("find").arg(&back).args(["-name", "image.json"]).output().unwrap();
    let folder = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim()).parent().unwrap().to_owned();
    let container: Value = serde_json::from_slice(&fs::read(folder.join("specification.json")).unwrap()).unwrap();
    assert_eq!(container["config"]["Hostname"], "web");
    let other = Dockerd::start();
    other.cli(&["load", "-i", loadable(&folder).to_str().unwrap()]);
    let [here, there] =
        [docker.cli(&["images", "-q", "--no-trunc", "kept/blog"]), other.cli(&["images", "-q", "--no-trunc", "back"])];
    assert_eq!(here, there, "it is the same image, to the byte");
    let sum = "cat /srv/file | sha256sum; readlink /srv/link; echo $PASSWORD";
    let expected = docker.cli(&["exec", "blog", "sh", "-c", sum]);
    assert_eq!(other.cli(&["run", "--rm", "--network", "none", "back:1", "sh", "-c", sum]), expected);
}

#[test]
fn a_container_comes_back_from_its_image_to_its_last_setting() {
    let docker = dockerd();
    docker.cli(&["network", "create", "--subnet", "172.30.0.0/24", "front"]);
    docker.cli(&["network", "create", "back"]);
    docker.cli(&["volume", "create", "--label", "of=blog", "data"]);
    let options = "--network front --ip 172.30.0.7 --network-alias www --hostname web -e TOKEN=a -v data:/data -v /etc/hostname:/given:ro \
        --health-interval 1s --memory 64m --restart unless-stopped --label traefik.enable=true --cap-add SYS_TIME --ulimit nofile=100";
    let mut arguments: Vec<&str> = options.split_whitespace().collect();
    arguments.extend(["--health-cmd", "test -e /srv/file", BASE]);
    docker.run("blog", &arguments);
    docker.cli(&["network", "connect", "--alias", "db", "back", "blog"]);
    docker.cli(&["exec", "blog", "sh", "-c", "mkdir /srv; echo kept > /srv/file; echo of-volume > /data/file"]);
    let house = House::new(docker, "containers = ['blog']\nimage = 'kept/{container}'");
    house.fine(&["run", "night"]);
    let before = docker.inspect("blog");

    // It is there: nothing is done without being told to.
    let output = run(house.home.path(), &["restore", "night"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("there is a container `blog` already: `--replace` puts"), "{}", text(&output));
    docker.cli(&["exec", "blog", "sh", "-c", "echo changed > /srv/file"]);
    house.fine(&["restore", "night", "--as", "look", "--network", "none"]);
    assert_eq!(docker.cli(&["exec", "look", "cat", "/srv/file", "/data/file"]), "kept\nof-volume");
    assert_eq!(docker.inspect("look")["Config"]["Labels"]["traefik.enable"], "");
    docker.cli(&["rm", "-f", "look"]);
    assert_eq!(docker.cli(&["exec", "blog", "cat", "/srv/file"]), "changed");
    let said = house.fine(&["restore", "night", "--replace"]);
    assert!(said.contains("succeeded: blog is back at kept/blog:"), "{said}");
    assert_eq!(docker.cli(&["exec", "blog", "cat", "/srv/file", "/data/file"]), "kept\nof-volume");

    // On a bare machine.
    let other = Dockerd::start();
    house.use_engine(&other);
    let said = house.fine(&["restore", "night", "--source", "blog"]);
    assert!(said.contains("not started, for these volumes are new and empty: data\n"), "{said}");
    assert_eq!(other.inspect("blog")["State"]["Status"], "created");
    assert_eq!(other.cli(&["volume", "inspect", "-f", "{{.Labels.of}}", "data"]), "blog");
    other.cli(&["start", "blog"]);
    assert_eq!(other.cli(&["exec", "blog", "cat", "/srv/file"]), "kept");
    // Another engine, another image that says what it is: the rest is as it was.
    let [here, there] = [docker, &other].map(|one| one.socket().parent().unwrap().display().to_string());
    let mut after: Value = serde_json::from_str(&other.inspect("blog").to_string().replace(&there, &here)).unwrap();
    for place in [
        "/Image",
        "/Config/Image",
        "/NetworkSettings/Networks/front/NetworkID",
        "/NetworkSettings/Networks/back/NetworkID",
    ] {
        *after.pointer_mut(place).unwrap() = before.pointer(place).unwrap().clone();
    }
    let labels = after["Config"]["Labels"].as_object_mut().unwrap();
    labels.retain(|label, _| !label.starts_with("rusuban.snapshot."));
    same::assert_same(&before, &after);
    // A second time the image is there already.
    other.cli(&["rm", "-f", "blog"]);
    let said = house.fine(&["restore", "night", "--source", "blog", "--json"]);
    let said: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!((&said["started"], &said["container"]), (&true.into(), &"blog".into()), "{said}");
    assert_eq!(other.cli(&["images", "-q", "kept/blog"]).lines().count(), 1);
}

fn stored(house: &House) -> u64 {
    let counted = Command::new("du").arg("-sb").arg(house.path("data/backups/safe")).output().unwrap();
    String::from_utf8(counted.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_container_that_fails_leaves_a_backup_that_says_so() {
    let docker = dockerd();
    docker.cli(&["tag", BASE, "wiki:1"]);
    docker.run("blog", &[BASE]);
    docker.run("wiki", &["wiki:1"]);
    let weekdays = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let house = House::new(docker, "containers = ['blog', 'wiki']\nkeep = { last = 1 }");
    house.fine(&["run", "night"]);
    // Somebody takes the names away.
    for weekday in weekdays {
        docker.cli(&["tag", BASE, &format!("wiki:{weekday}")]);
    }
    let output = run(house.home.path(), &["run", "night"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("is the name of an image that is not ours"), "{}", text(&output));
    // The one with both containers is not pushed out by the one with one.
    assert_eq!(house.backups().len(), 2, "{}", text(&output));
}
