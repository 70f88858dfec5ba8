//! Copies in a second place, made by the program and judged by stock `restic` and by its own `verify`.
use std::{fs, path::PathBuf};

use serde_json::Value;

use super::{run, text};
use crate::support::{
    restic::Restic,
    trees::{assert_equal, sh},
};

/// A home with two buckets, two repositories, and a job for each way to keep a folder.
struct House {
    home: tempfile::TempDir,
    kept: PathBuf,
}

impl House {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let at = home.path();
        let kept = at.join("kept");
        sh(&format!(
            "cd '{}' && mkdir jobs kept outside && echo correct > password && echo other > other && chmod 600 password other",
            at.display()
        ));
        let settings = "[bucket.outside]\nfolder = \"outside/plain\"\n[bucket.far]\nfolder = \"outside/far\"\n\
            [repository.safe]\npassword = { file = \"password\" }\n\
            [repository.second]\nbucket = \"far\"\npath = \"\"\npassword = { file = \"other\" }\n";
        fs::write(at.join("rusuban.toml"), settings).unwrap();
        let job = |name: &str, text: &str| fs::write(at.join(format!("jobs/{name}.toml")), text).unwrap();
        let source = format!("[[source]]\npath = {kept:?}\n");
        job("plain", &format!("kind = \"backup\"\n{source}"));
        job("files", &format!("kind = \"backup\"\nrepository = \"safe\"\n{source}"));
        job("more", &format!("kind = \"backup\"\nrepository = \"safe\"\n{source}"));
        job(
            "buckets",
            "kind = \"mirror\"\nfrom = { bucket = \"local\" }\nto = { bucket = \"outside\" }\njobs = [\"plain\"]\nkeep = { last = 2 }\n",
        );
        job(
            "repositories",
            "kind = \"mirror\"\nfrom = { repository = \"safe\" }\nto = { repository = \"second\" }\nkeep = { last = 2 }\n",
        );
        let house = Self { home, kept };
        house.fine(&["repository", "init", "safe"]);
        house.fine(&["repository", "init", "second"]);
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn fine(&self, arguments: &[&str]) -> String {
        let output = run(self.home.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    /// Another state of the folder, kept by a job.
    fn keep(&self, job: &str, number: u32) {
        fs::write(self.kept.join("file"), format!("{number}\n").repeat(20_000)).unwrap();
        fs::write(self.kept.join(format!("file-{number}")), vec![number as u8; 100_000]).unwrap();
        self.fine(&["run", job, "-q"]);
    }

    fn backups(&self, place: &[&str]) -> Vec<String> {
        let output = run(self.home.path(), &[&["backups", "--json"], place].concat());
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let id = |one: &Value| one["id"].as_str().or(one["backup"]["id"].as_str()).unwrap().to_owned();
        list["backups"].as_array().unwrap().iter().map(id).collect()
    }
}

#[test]
fn a_repository_is_copied_once_with_its_own_generations() {
    let house = House::new();
    for number in 0..3 {
        house.keep("files", number);
    }
    house.keep("more", 3);
    let told = house.fine(&["run", "repositories"]);
    assert!(
        told.contains("3 backups copied") && told.contains("0 there already"),
        "only those that would stay: {told}"
    );
    let told = house.fine(&["run", "repositories"]);
    assert!(told.contains("0 backups copied") && told.contains("3 there already"), "{told}");
    house.keep("files", 4);
    let told = house.fine(&["run", "repositories"]);
    assert!(told.contains("1 backup copied") && told.contains("2 kept, 1 removed"), "{told}");
    assert_eq!(house.backups(&["--repository", "second"]).len(), 3, "two of files, one of more");
    assert_eq!(house.backups(&["--repository", "safe"]).len(), 5, "the source is not touched");
    // What is there needs nothing of what is here.
    fs::remove_dir_all(house.path("data/backups/safe")).unwrap();
    let restic = Restic::new(&house.path("outside/far"), "other");
    restic.check().unwrap();
    let restored = house.path("restored");
    restic.restore("latest", &restored);
    assert_equal(&house.kept, &restored.join(house.kept.strip_prefix("/").unwrap()));
    let back = house.path("back");
    house.fine(&["restore", "files", "--repository", "second", "--to", back.to_str().unwrap()]);
    assert_equal(&house.kept, &back.join("kept"));
}

#[test]
fn one_damaged_backup_does_not_keep_the_others_from_being_copied() {
    let house = House::new();
    house.keep("files", 0);
    let packs = || sh(&format!("find '{}' -type f", house.path("data/backups/safe/data").display()));
    let before = packs();
    fs::remove_file(house.kept.join("file-0")).unwrap();
    house.keep("files", 1);
    // What only the first has is lost.
    for pack in before.lines() {
        fs::remove_file(pack).unwrap();
    }
    let output = run(house.home.path(), &["run", "repositories"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let told = text(&output);
    assert!(told.contains("is damaged and was not copied") && told.contains("1 backup could not be copied"), "{told}");
    let there = house.backups(&["--repository", "second"]);
    assert_eq!(there.len(), 1, "the second one is whole, and there: {told}");
    Restic::new(&house.path("outside/far"), "other").check().unwrap();
}

#[test]
fn a_job_of_which_the_source_has_nothing_is_named() {
    let house = House::new();
    house.keep("plain", 0);
    house.keep("files", 0);
    for (mirror, known) in [("buckets", "plain"), ("repositories", "files")] {
        let path = house.path(&format!("jobs/{mirror}.toml"));
        let job = fs::read_to_string(&path).unwrap().replace("jobs = [\"plain\"]\n", "");
        fs::write(&path, format!("{job}jobs = [{known:?}, \"fotos\"]\n")).unwrap();
        let told = house.fine(&["run", mirror]);
        assert!(told.contains("1 backup copied") && told.contains("has no backup of fotos"), "{mirror}: {told}");
        assert!(!told.contains(&format!("no backup of {known}")), "{mirror}: {told}");
    }
}

#[test]
fn what_a_damaged_backup_would_push_out_is_copied_in_its_place() {
    let house = House::new();
    house.keep("files", 0);
    house.keep("files", 1);
    let packs = || sh(&format!("find '{}' -type f", house.path("data/backups/safe/data").display()));
    let before = packs();
    house.keep("files", 2);
    for pack in packs().lines().filter(|pack| !before.contains(pack)) {
        fs::remove_file(pack).unwrap();
    }
    let output = run(house.home.path(), &["run", "repositories"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(house.backups(&["--repository", "second"]).len(), 2, "two stay, as it says: {}", text(&output));
    Restic::new(&house.path("outside/far"), "other").check().unwrap();
}

#[test]
fn plain_backups_are_copied_once_with_their_own_generations() {
    let house = House::new();
    for number in 0..3 {
        house.keep("plain", number);
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let told = house.fine(&["run", "buckets"]);
    assert!(told.contains("2 backups copied") && told.contains("0 there already"), "{told}");
    house.keep("plain", 3);
    let told = house.fine(&["run", "buckets"]);
    assert!(told.contains("1 backup copied") && told.contains("2 kept, 1 removed"), "{told}");
    let there = house.backups(&["--bucket", "outside"]);
    assert_eq!(there, house.backups(&["--bucket", "local"])[..2], "the two newest");
    fs::remove_dir_all(house.path("data/backups")).unwrap();
    house.fine(&["verify", "plain", "--bucket", "outside"]);
    let back = house.path("back");
    house.fine(&["restore", "plain", "--bucket", "outside", "--to", back.to_str().unwrap()]);
    assert_equal(&house.kept, &back.join("kept"));
    // A source without backups is no reason to be content.
    fs::create_dir_all(house.path("data/backups")).unwrap();
    let output = run(house.home.path(), &["run", "buckets"]);
    assert!(output.status.code() == Some(1) && text(&output).contains("no backup to copy"), "{}", text(&output));
}

#[test]
fn a_repository_is_looked_after_by_a_job() {
    let house = House::new();
    let job = "kind = \"repository-care\"\nrepository = \"safe\"\nread_data = \"100%\"\n";
    fs::write(house.path("jobs/care.toml"), job).unwrap();
    house.keep("files", 0);
    let told = house.fine(&["run", "care"]);
    assert!(told.contains("1 backup whole") && told.contains("needed"), "{told}");
    // The files are all alike, and small once compressed; the larger pack has their content.
    let packs = sh(&format!("ls -S '{0}'/*/* | head -1", house.path("data/backups/safe/data").display()));
    let pack = packs.trim();
    let mut bytes = fs::read(pack).unwrap();
    bytes[100] ^= 1;
    fs::write(pack, bytes).unwrap();
    let output = run(house.home.path(), &["run", "care"]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("the repository is damaged") && told.contains("cannot be restored"), "{told}");
    assert!(!told.contains("remove what is not needed"), "nothing is removed from what is damaged: {told}");
}
