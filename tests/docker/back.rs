//! What was in a volume comes back into a new one, and nothing is written where a container may be at work.
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::volumes::House;
use crate::support::docker::BASE;

const MADE: &str = "mkdir -p /data/a/b; echo text > /data/a/b/c; ln -s c /data/a/b/l; ln /data/a/b/c /data/h; touch -d 2020-02-02 /data/a; \
    chown 33:44 /data/a/b/c; chmod 640 /data/a/b/c; chmod 2750 /data/a; head -c 300000 /dev/urandom > /data/big; chown 33:33 /data; chmod 1770 /data";

fn mountpoint(house: &House, volume: &str) -> PathBuf {
    house.dockerd.cli(&["volume", "inspect", "-f", "{{.Mountpoint}}", volume]).into()
}

/// Each entry with its owner, mode, time and content.
fn all(folder: &Path) -> Vec<String> {
    let (mut found, mut left) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = left.pop() {
        let facts = path.symlink_metadata().unwrap();
        let content = if facts.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let within = path.strip_prefix(folder).unwrap();
        let time = if facts.is_symlink() { 0 } else { facts.mtime_nsec() + facts.mtime() };
        found.push(format!("{within:?} {} {} {:o} {time} {content:?}", facts.uid(), facts.gid(), facts.mode()));
        if facts.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

fn volumes(house: &House) -> String {
    house.dockerd.cli(&["volume", "ls", "-q"])
}

#[test]
fn a_volume_comes_back_into_a_new_one_as_it_was() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.cli(&["volume", "create", "--label", "mine=1", "data"]);
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    house.sh("blog", MADE);
    house.jobs("volume = 'data'");
    for job in ["plain", "dedup"] {
        house.fine(&["run", job]);
        let (was, before) = (all(&mountpoint(&house, "data")), volumes(&house));
        // Without a place it says what to do, and writes nowhere.
        for options in [&[][..], &["--replace"]] {
            let (is_fine, said) = house.run(&[&["restore", job], options].concat());
            assert!(!is_fine && said.contains("--to-volume NEW"), "{said}");
        }
        let (is_fine, said) = house.run(&["restore", job, "--to-volume", "data", "--replace"]);
        assert!(!is_fine && said.contains("the container blog uses the volume `data`"), "{said}");
        let (is_fine, said) = house.run(&["restore", job, "--to-volume", "other=new"]);
        assert!(!is_fine && volumes(&house) == before, "{said}");

        let said = house.fine(&["restore", job, "--to-volume", "new"]);
        assert!(said.contains("restored data → the volume new"), "{said}");
        assert_eq!(all(&mountpoint(&house, "new")), was, "{job}");
        assert_eq!(dockerd.cli(&["volume", "inspect", "-f", "{{.Labels.mine}}", "new"]), "1");
        // It is there now, and not empty.
        fs::write(mountpoint(&house, "new").join("mine"), "x").unwrap();
        let (is_fine, said) = house.run(&["restore", job, "--to-volume", "new"]);
        assert!(!is_fine && said.contains("it is not empty"), "{said}");
        assert!(mountpoint(&house, "new").join("mine").exists());
        house.fine(&["restore", job, "--to-volume", "data=new", "--replace"]);
        assert_eq!(all(&mountpoint(&house, "new")), was, "{job}");
        assert_eq!(all(&mountpoint(&house, "data")), was, "{job}");
        dockerd.cli(&["volume", "rm", "new"]);
    }
    // A bare machine: nothing of that name is there, nor the job's file.
    let was = all(&mountpoint(&house, "data"));
    dockerd.cli(&["rm", "-f", "blog"]);
    for job in ["plain", "dedup"] {
        dockerd.cli(&["volume", "rm", "data"]);
        fs::remove_file(house.path(&format!("jobs/{job}.toml"))).unwrap();
        let place = if job == "plain" { ["--bucket", "local"] } else { ["--repository", "safe"] };
        let (is_fine, said) = house.run(&["restore", job, place[0], place[1]]);
        assert!(!is_fine && said.contains("--to-volume NEW"), "{said}");
        house.fine(&["restore", job, place[0], place[1], "--to-volume", "data"]);
        assert_eq!(all(&mountpoint(&house, "data")), was, "{job}");
    }
    dockerd.cli(&["volume", "rm", "data"]);
}

#[test]
fn each_volume_of_a_container_comes_back_into_its_own() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run("shop", &["-v", "goods:/goods", "-v", "orders:/orders", "--stop-timeout", "1", BASE]);
    house.sh("shop", "echo 1 > /goods/one; echo 2 > /orders/two");
    house.jobs("container = 'shop'");
    house.fine(&["run", "dedup"]);
    for arguments in [&["restore", "dedup"][..], &["restore", "dedup", "--to-volume", "new"]] {
        let (is_fine, said) = house.run(arguments);
        assert!(!is_fine && said.contains("the volumes of a container"), "{said}");
    }
    house.fine(&["restore", "dedup", "--to-volume", "goods=goods-2", "--to-volume", "orders=orders-2"]);
    for (old, new) in [("goods", "goods-2"), ("orders", "orders-2")] {
        assert_eq!(all(&mountpoint(&house, old)), all(&mountpoint(&house, new)));
    }
    dockerd.cli(&["rm", "-f", "shop"]);
    dockerd.cli(&["volume", "rm", "goods", "orders", "goods-2", "orders-2"]);
}

#[test]
fn a_disk_that_is_full_leaves_the_volume_empty_and_a_folder_of_the_host_is_not_doubled() {
    let house = House::new();
    let dockerd = house.dockerd;
    dockerd.run("blog", &["-v", "data:/data", "--stop-timeout", "1", BASE]);
    house.sh("blog", "head -c 3000000 /dev/urandom > /data/big");
    house.jobs("volume = 'data'");
    dockerd.cli(&["volume", "create", "small"]);
    let small = mountpoint(&house, "small");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&small).status().unwrap();
    assert!(mounted.success());
    for job in ["plain", "dedup"] {
        house.fine(&["run", job]);
        let (is_fine, said) = house.run(&["restore", job, "--to-volume", "small"]);
        assert!(!is_fine && said.contains("No space left"), "{said}");
        assert_eq!(fs::read_dir(&small).unwrap().count(), 0, "{job}");
    }
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    dockerd.cli(&["rm", "-f", "blog"]);
    dockerd.cli(&["volume", "rm", "data", "small"]);
    let device = format!("device={}", house.path("password").parent().unwrap().display());
    dockerd.cli(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "data"]);
    let (is_fine, said) = house.run(&["restore", "plain", "--to-volume", "twin"]);
    assert!(!is_fine && said.contains("docker volume create twin"), "{said}");
    dockerd.cli(&["volume", "rm", "data"]);
}
