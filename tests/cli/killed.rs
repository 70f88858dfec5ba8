//! `kill -9` while old generations are removed: what has a manifest is whole, and the newest is always there.
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;

/// Generations before the first.
const OLD: usize = 150;

fn folders(shelf: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(shelf).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// The backups, oldest first. Each must have all that its manifest names.
fn backups(shelf: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(DateTime<Utc>, PathBuf)> = Vec::new();
    for folder in folders(shelf).into_iter().filter(|folder| folder.join("manifest.json").exists()) {
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        for source in manifest["sources"].as_array().unwrap() {
            let object = shelf.parent().unwrap().join(source["key"].as_str().unwrap());
            let bytes = fs::metadata(&object).unwrap_or_else(|error| panic!("{}: {error}", object.display())).len();
            assert_eq!(bytes, source["stored"]["bytes"].as_u64().unwrap());
        }
        found.push((manifest["at"].as_str().unwrap().parse().unwrap(), folder));
    }
    // Not by name: several of one second are told apart by a number, and names of removed ones come again.
    found.sort();
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// Copies of a backup, an hour apart, before it.
fn age(shelf: &Path, newest: &Path) {
    let id = newest.file_name().unwrap().to_str().unwrap();
    let manifest = fs::read_to_string(newest.join("manifest.json")).unwrap();
    let at = serde_json::from_str::<serde_json::Value>(&manifest).unwrap()["at"].as_str().unwrap().to_owned();
    let newest_at: DateTime<Utc> = at.parse().unwrap();
    for hours in 1..=OLD {
        let earlier = newest_at - TimeDelta::hours(i64::try_from(hours).unwrap());
        let other = earlier.format("%Y-%m-%dT%H-%M-%SZ").to_string();
        fs::create_dir(shelf.join(&other)).unwrap();
        fs::copy(newest.join("src.tar.zst"), shelf.join(&other).join("src.tar.zst")).unwrap();
        let manifest = manifest.replace(id, &other).replace(&at, &earlier.to_rfc3339());
        fs::write(shelf.join(&other).join("manifest.json"), manifest).unwrap();
    }
}

#[test]
fn killed_at_any_removal_there_is_no_manifest_without_its_data_and_the_newest_is_there() {
    let home = tempfile::tempdir().unwrap();
    let (home, source) = (home.path(), home.path().join("src"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "kept").unwrap();
    fs::write(home.join("rusuban.toml"), "[bucket.local]\nfolder = \"bucket\"\n").unwrap();
    add(home, "job", &format!("kind = \"backup\"\nkeep = {{ last = 2 }}\n[[source]]\npath = {source:?}\n"));
    let first = run(home, &["run", "job"]);
    assert!(first.status.success(), "{}", text(&first));
    let shelf = home.join("bucket/job");
    age(&shelf, &folders(&shelf)[0]);

    let (mut cut, mut half) = (0, 0);
    while backups(&shelf).len() > 20 {
        let before = backups(&shelf);
        // The oldest go first. Killed as soon as a part of one of them has gone, another one each time.
        let part = if cut % 2 == 0 { "manifest.json" } else { "src.tar.zst" };
        let watched = before[(cut * 5) % 13].join(part);
        let mut child = rusuban(home).args(["run", "job"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while watched.exists() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_micros(50));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!watched.exists(), "nothing is removed any more");
        let after = backups(&shelf);
        half += folders(&shelf).len() - after.len();
        cut += 1;
        assert!(after.len() >= 2);
        assert!(!before.contains(after.last().unwrap()), "the backup was done before the first one went");
        assert!(after.contains(before.last().unwrap()), "of the newest two, one is gone");
        let whole = run(home, &["verify", "job"]);
        assert!(whole.status.success(), "{}", text(&whole));
    }
    assert!(cut > 3, "it was killed {cut} times");
    let last = run(home, &["run", "job"]);
    assert!(last.status.success(), "{}", text(&last));
    assert_eq!(backups(&shelf).len(), 2);
    println!("killed {cut} times, {half} folders seen without a manifest");
}
