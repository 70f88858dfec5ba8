//! What backups in a repository hold, which have a file, what changed: told as stock `restic` tells it.
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{run, text};
use crate::support::{restic::Restic, trees::sh};

/// A home with a repository, and a job that keeps a folder in it.
struct House {
    home: tempfile::TempDir,
    kept: PathBuf,
    restic: Restic,
}

impl House {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let kept = home.path().join("kept");
        fs::create_dir_all(home.path().join("jobs")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(home.path().join("rusuban.toml"), "[repository.safe]\npassword = { file = \"password\" }\n").unwrap();
        fs::write(home.path().join("password"), "correct horse").unwrap();
        sh(&format!("chmod 600 '{}'", home.path().join("password").display()));
        let job = format!("kind = \"backup\"\nrepository = \"safe\"\n[[source]]\npath = {kept:?}\n");
        fs::write(home.path().join("jobs/files.toml"), job).unwrap();
        let house = Self { restic: Restic::new(&home.path().join("data/backups/safe"), "correct horse"), home, kept };
        house.fine(&["repository", "init", "safe"]);
        house
    }

    fn fine(&self, arguments: &[&str]) -> String {
        let output = run(self.home.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let printed = self.fine(&[&["--json"], arguments].concat());
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn back_up(&self) {
        self.fine(&["run", "files", "-q"]);
    }

    /// The snapshots' names, the oldest first.
    fn backups(&self) -> Vec<String> {
        let mut list: Vec<Value> = self.restic.json(&["snapshots", "--json"]).as_array().unwrap().clone();
        list.sort_by_key(|one| one["time"].as_str().unwrap().to_owned());
        list.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn paths(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().filter_map(|line| line["path"].as_str().map(str::to_owned)).collect()
}

/// Three backups: of a first state, of a second, and again of the second.
fn three() -> House {
    let house = House::new();
    let at = |name: &str| house.kept.join(name);
    sh(&format!(
        "cd '{}' && mkdir -p sub/deeper gone && echo one > a && echo two > sub/b && seq 9999 > sub/deeper/n \
         && echo x > gone/x && ln -s a link && chmod 4750 a && printf x > \"$(printf 'odd\\033[31m\\nname')\"",
        house.kept.display()
    ));
    house.back_up();
    sh(&format!(
        "cd '{}' && rm -r gone link && mkdir link && echo three > sub/b && echo new > sub/new && chmod 600 sub/deeper/n",
        house.kept.display()
    ));
    house.back_up();
    assert!(at("sub/new").exists());
    house.back_up();
    house
}

#[test]
fn a_backup_is_listed_as_restic_lists_it() {
    let house = three();
    let ours = house.json(&["ls", "files", "-r"]);
    let by_restic = house.restic.run(&["ls", "latest", "--json"]).unwrap();
    let theirs: Vec<Value> = by_restic.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept = house.kept.to_str().unwrap();
    let below: Vec<Value> = theirs
        .into_iter()
        .filter(|node| node["path"].as_str().is_some_and(|path| Path::new(path).starts_with(kept) && path != kept))
        .collect();
    assert_eq!(paths(&ours), paths(&below));
    for node in &below {
        let path = node["path"].as_str().unwrap();
        let our = ours.iter().find(|our| our["path"] == path).unwrap();
        assert_eq!(our["size"].as_u64(), Some(node["size"].as_u64().unwrap_or(0)), "{path}");
        assert_eq!((&our["uid"], &our["kind"]), (&node["uid"], &node["type"]), "{path}");
    }
    let shown = house.fine(&["ls", "files"]);
    assert!(shown.contains("-rwsr-x---") && shown.contains("sub/\n") && !shown.contains("deeper"), "{shown}");
    assert!(
        !shown.contains('\u{1b}') && shown.contains("odd\\u{1b}[31m\\nname"),
        "names cannot write to the terminal: {shown}"
    );
    let one = house.fine(&["ls", "files", "sub/b", "--at", &house.backups()[0]]);
    assert!(one.contains("4 B") && one.contains("sub/b"), "{one}");
    assert_eq!(run(house.home.path(), &["ls", "files", "nothing"]).status.code(), Some(4));
}

#[test]
fn each_state_of_a_file_is_found_with_the_backups_that_have_it() {
    let house = three();
    let names = house.backups();
    let of = |found: &Value| -> Vec<String> {
        found["backups"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let found = house.json(&["find", "b"]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((of(&found[0]), found[0]["size"].as_u64()), (vec![names[2].clone(), names[1].clone()], Some(6)));
    assert_eq!((of(&found[1]), found[1]["size"].as_u64()), (vec![names[0].clone()], Some(4)));
    // A folder that fits, what is below one, and a place.
    assert_eq!(of(&house.json(&["find", "gone"])[0]), vec![names[0].clone()]);
    let place = format!("{}/sub/**/n*", house.kept.display());
    let found = house.json(&["find", &place]);
    assert_eq!(found.len(), 3, "`n` with its two modes, and `new`: {found:?}");
    assert_eq!(house.json(&["find", "b", "--job", "files", "--repository", "safe"]).len(), 2);
    assert_eq!(run(house.home.path(), &["find", "nowhere"]).status.code(), Some(4));
    let told = house.fine(&["find", "b"]);
    assert!(told.contains("2 backups of files") && told.contains("bring one back with"), "{told}");
}

#[test]
fn what_changed_is_told_as_restic_tells_it() {
    let house = three();
    let names = house.backups();
    let by_restic = house.restic.run(&["diff", "--metadata", "--json", &names[0], &names[2]]).unwrap();
    let theirs: BTreeSet<(String, String)> = by_restic
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["message_type"] == "change")
        .map(|line| {
            (
                line["path"].as_str().unwrap().trim_end_matches('/').to_owned(),
                line["modifier"].as_str().unwrap()[..1].to_owned(),
            )
        })
        // A folder's time changes with what is in it: we do not tell it.
        .filter(|(path, modifier)| {
            modifier != "U"
                || !house
                    .kept
                    .join(path.strip_prefix(house.kept.to_str().unwrap()).unwrap_or("").trim_start_matches('/'))
                    .is_dir()
        })
        .collect();
    let lines = house.json(&["diff", "files", "--from", &names[0][..8]]);
    let ours: BTreeSet<(String, String)> = lines
        .iter()
        .filter(|line| line["how"].is_string())
        .map(|line| {
            let sign = match line["how"].as_str().unwrap() {
                "added" => "+",
                "removed" => "-",
                "changed" => "M",
                "replaced" => "T",
                _ => "U",
            };
            (line["path"].as_str().unwrap().to_owned(), sign.to_owned())
        })
        .collect();
    assert_eq!(ours, theirs);
    let total = &lines.last().unwrap()["difference"];
    assert_eq!(
        (total["added"].as_u64(), total["removed"].as_u64(), total["metadata"].as_u64()),
        (Some(1), Some(2), Some(1))
    );
    assert_eq!(total["bytes_added"].as_u64(), Some(10), "`three` and `new`, with their line ends: {total}");
    // The two newest do not differ; the oldest has none before it.
    assert!(house.fine(&["diff", "files"]).contains("no difference"));
    let shown = house.fine(&["diff", "files", "--from", &names[0][..8], "--at", &names[1][..8]]);
    assert!(shown.contains("4 B → 6 B") && shown.contains("--metadata shows them"), "{shown}");
    assert_eq!(run(house.home.path(), &["diff", "files", "--at", &names[0][..8]]).status.code(), Some(4));
}

#[test]
fn a_plain_backup_is_listed_too() {
    let house = three();
    let job = format!("kind = \"backup\"\n[[source]]\npath = {:?}\n", house.kept);
    fs::write(house.home.path().join("jobs/plain.toml"), job).unwrap();
    house.fine(&["run", "plain", "-q"]);
    let told = house.fine(&["ls", "plain"]);
    assert!(told.contains("kept") && told.contains("entries; plain/"), "{told}");
    // The same places as in the repository, and the source's own folder.
    let mut ours = paths(&house.json(&["ls", "plain", "-r"]));
    assert!(ours.remove(house.kept.to_str().unwrap()), "{ours:?}");
    assert_eq!(ours, paths(&house.json(&["ls", "files", "-r"])));
    let facts = |job: &str| {
        let lines = house.json(&["ls", job, "sub/deeper/n"]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        (lines[0]["size"].clone(), lines[0]["mode"].clone(), lines[0]["mtime"].clone(), lines[0]["uid"].clone())
    };
    assert_eq!(facts("plain"), facts("files"));
    assert_eq!(house.json(&["ls", "plain", "sub"]).len(), 4, "the folder, and the three things in it");
    assert_eq!(run(house.home.path(), &["ls", "plain", "nothing"]).status.code(), Some(4));
}

#[test]
fn a_place_that_cannot_be_looked_into_hides_no_other() {
    let house = House::new();
    let home = house.home.path();
    fs::write(house.kept.join("a"), "one").unwrap();
    house.back_up();
    let settings = "[bucket.gone]\nfolder = \"/nowhere/at/all\"\n\
        [repository.gone]\nbucket = \"gone\"\npassword = { file = \"password\" }\n\
        [repository.safe]\npassword = { file = \"password\" }\n";
    fs::write(home.join("rusuban.toml"), settings).unwrap();
    for (arguments, shown) in [
        (&["backups"][..], "files"),
        (&["backups", "files"], "files"),
        (&["find", "a"], "rusuban restore files"),
        (&["recovery-kit"], "repository `safe`"),
    ] {
        let output = run(home, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(shown), "{arguments:?}: {}", text(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/at is not there"), "{}", text(&output));
    }
    let json: Value = serde_json::from_slice(&run(home, &["--json", "backups"]).stdout).unwrap();
    assert_eq!(json["backups"].as_array().unwrap().len(), 1);
    assert_eq!(json["not_looked_at"].as_array().unwrap().len(), 2);
    // Without the job's file, it is found wherever it is.
    fs::remove_file(home.join("jobs/files.toml")).unwrap();
    house.fine(&["restore", "files", "--to", home.join("back").to_str().unwrap()]);
    fs::write(home.join("password"), "another").unwrap();
    let output = run(home, &["restore", "files", "--to", home.join("again").to_str().unwrap()]);
    assert!(text(&output).contains("the password opens none of the repository's keys"), "{}", text(&output));
}

#[test]
fn a_repaired_backup_is_not_told_as_gone() {
    let house = House::new();
    let home = house.home.path();
    let job = format!(
        "kind = \"backup\"\nrepository = \"safe\"\nkeep = {{ last = 3 }}\n[[source]]\npath = {:?}\n",
        house.kept
    );
    fs::write(home.join("jobs/files.toml"), job).unwrap();
    sh(&format!("head -c 300000 /dev/urandom > '{}'", house.kept.join("a").display()));
    house.back_up();
    let packs = home.join("data/backups/safe/data");
    let largest = format!("find '{}' -type f -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2-", packs.display());
    sh(&format!("p=$({largest}); chmod u+w \"$p\"; printf X | dd of=\"$p\" bs=1 seek=500 conv=notrunc status=none"));
    let found = run(home, &["repository", "check", "safe", "--read-data"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(text(&found).contains("rusuban repository repair safe --dry-run"), "{}", text(&found));
    let told = house.fine(&["repository", "repair", "safe"]);
    assert!(told.contains("written again: 1 backup") && told.contains("run the jobs now"), "{told}");
    let told = house.fine(&["run", "files"]);
    assert!(!told.contains("gone"), "{told}");
    assert!(house.fine(&["repository", "repair", "safe", "--dry-run"]).contains("nothing to repair"));
}
