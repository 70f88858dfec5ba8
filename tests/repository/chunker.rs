//! Where restic's rule cuts: exactly where stock restic does, for otherwise a repository that both write to stores all twice.
use std::{collections::HashMap, fs, path::Path};

use rusuban::repository::chunker::{Cutter, Polynomial};
use serde_json::Value;

use crate::support::restic::Restic;

const MIN: usize = 512 << 10;
const MAX: usize = 8 << 20;

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
}

/// What tries the rule: cuts by content, by the least and the greatest length, and ends beside both.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    // A window of zeros has the fingerprint zero, so it is cut as early as may be; equal bytes are cut nowhere.
    let mixed =
        [noise(700_001, 2), vec![0; 2_000_003], noise(3_000_017, 3), vec![1; MAX + 4_000_037], noise(900_000, 4)];
    vec![
        ("noise", noise(32 << 20, 1)),
        ("text", (0..800_000).flat_map(|number| format!("{number}\n").into_bytes()).collect()),
        ("mixed", mixed.concat()),
        ("one less than the least", noise(MIN - 1, 5)),
        ("the least", noise(MIN, 6)),
        ("one more than the least", noise(MIN + 1, 7)),
        ("the greatest", vec![1; MAX]),
        ("one more than the greatest", vec![1; MAX + 1]),
        ("short", noise(63, 8)),
    ]
}

/// The files of a snapshot's folder: name and blobs of each, as restic tells them.
fn contents(restic: &Restic, snapshot: &Value, folder: &Path) -> HashMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut tree = restic.json(&["cat", "blob", snapshot["tree"].as_str().unwrap()]);
    for name in folder.iter().skip(1) {
        let nodes = tree["nodes"].as_array().unwrap();
        let below = nodes.iter().find(|node| node["name"].as_str() == name.to_str()).unwrap();
        tree = restic.json(&["cat", "blob", below["subtree"].as_str().unwrap()]);
    }
    let nodes = tree["nodes"].as_array().unwrap();
    nodes
        .iter()
        .map(|node| (text(&node["name"]), node["content"].as_array().unwrap().iter().map(text).collect()))
        .collect()
}

/// How long each blob's content is, by restic's index.
fn lengths(restic: &Restic) -> HashMap<String, usize> {
    let mut lengths = HashMap::new();
    for name in restic.run(&["list", "index"]).unwrap().lines() {
        let index = restic.json(&["cat", "index", name]);
        for blob in index["packs"].as_array().unwrap().iter().flat_map(|pack| pack["blobs"].as_array().unwrap()) {
            // What is not compressed has no such length: it is only sealed.
            let length = blob["uncompressed_length"].as_u64().unwrap_or_else(|| blob["length"].as_u64().unwrap() - 32);
            lengths.insert(blob["id"].as_str().unwrap().to_owned(), length as usize);
        }
    }
    lengths
}

fn cuts(cutter: &Cutter, mut rest: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        // As a reader does it, which holds no more than it must.
        let length = cutter.cut(&rest[..rest.len().min(cutter.max())]);
        lengths.push(length);
        rest = &rest[length..];
    }
    lengths
}

#[test]
fn restics_rule_cuts_where_stock_restic_cuts() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("original");
    fs::create_dir(&folder).unwrap();
    let files = files();
    for (name, bytes) in &files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let restic = Restic::new(&root.path().join("repository"), "password");
    restic.init();
    restic.back_up(&folder);

    let polynomial: Polynomial =
        serde_json::from_value(restic.json(&["cat", "config"])["chunker_polynomial"].clone()).unwrap();
    let cutter = Cutter::rabin(polynomial, 1 << 20);
    assert_eq!((cutter.min(), cutter.max()), (MIN, MAX));
    let (contents, lengths) = (contents(&restic, &restic.snapshots()[0], &folder), lengths(&restic));
    let mut all = Vec::new();
    for (name, bytes) in &files {
        let theirs: Vec<usize> = contents[*name].iter().map(|blob| lengths[blob]).collect();
        assert_eq!(cuts(&cutter, bytes), theirs, "{name}");
        all.extend(theirs);
    }
    // Each way of cutting was tried.
    assert!(all.contains(&MIN) && all.contains(&MAX), "{all:?}");
    assert!(all.iter().filter(|length| (MIN + 1..MAX).contains(*length)).count() > 15, "{all:?}");
}
