//! A first look while others write, a second one when they stand still: only the second counts, and it reads only what has changed.
use std::{fs, path::Path, time::Duration};

use rusuban::{
    repository::Backup,
    tree::{Excludes, Tree},
};

use super::support::{Place, SMALL};

/// Everything below a folder.
fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.push((name, fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn noise(seed: u32, bytes: u32) -> Vec<u8> {
    (0..bytes / 4).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_look_reads_only_what_changed_since_the_first_began() {
    let place = Place::new();
    let repository = place.create(SMALL).await;
    let source = place.path("source");
    fs::create_dir_all(source.join("below")).unwrap();
    fs::write(source.join("big"), noise(1, 4_000_000)).unwrap();
    fs::write(source.join("below/same"), noise(2, 100_000)).unwrap();
    fs::hard_link(source.join("below/same"), source.join("below/twin")).unwrap();
    fs::write(source.join("grows"), noise(3, 50_000)).unwrap();
    fs::write(source.join("goes"), noise(4, 50_000)).unwrap();
    fs::write(source.join("app.db"), [b"SQLite format 3\0".as_slice(), &noise(6, 8192)].concat()).unwrap();
    fs::write(source.join("app.db-wal"), noise(7, 4096)).unwrap();
    // What changed as the first look began is read twice.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let mut parent = None;
    for _ in 0..2 {
        let mut backup = Backup::begin(repository.clone(), place.setting(), &place.clock).await.unwrap();
        let whole = || Tree::at(&source).as_it_is(true).without(Excludes::new(&["left-out"]).unwrap());
        fs::write(source.join("goes"), noise(4, 50_000)).unwrap();
        let ahead = backup.look_ahead("files", whole(), &place.clock).await.unwrap();
        fs::write(source.join("grows"), noise(5, 60_000)).unwrap();
        fs::write(source.join("comes"), noise(8, 10_000)).unwrap();
        fs::write(source.join("left-out"), "x").unwrap();
        fs::remove_file(source.join("goes")).unwrap();
        let report = backup.tree_after("files", whole(), ahead).await.unwrap();
        assert_eq!((report.anew, report.changed), (70_000, 0));
        let (id, snapshot) = backup.finish(&place.clock).await.unwrap();
        assert_eq!(snapshot.parent, parent);
        parent = Some(id);
        let _ = fs::remove_dir_all(place.path("back"));
        place.restore(&repository, &snapshot, &source, |wish| wish).await.unwrap();
        fs::remove_file(source.join("left-out")).unwrap();
        assert_eq!(tree(&place.path("back")), tree(&source));
        assert_eq!(place.told.warnings.lock().unwrap().len(), 0, "{:?}", place.told.warnings);
        tokio::time::sleep(Duration::from_millis(2100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_shows_at_the_first_look() {
    let place = Place::new();
    let repository = place.create(SMALL).await;
    let mut backup = Backup::begin(repository, place.setting(), &place.clock).await.unwrap();
    let error = backup.look_ahead("files", Tree::at(&place.path("missing")), &place.clock).await.unwrap_err();
    assert!(format!("{error:#}").contains("missing"), "{error:#}");
    backup.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_times_tell_too_late_what_changed_all_is_read_again() {
    let place = Place::new();
    let repository = place.create(SMALL).await;
    let Ok(source) = tempfile::tempdir_in("/dev/shm") else { return };
    fs::write(source.path().join("file"), noise(1, 100_000)).unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let mut backup = Backup::begin(repository, place.setting(), &place.clock).await.unwrap();
    let ahead = backup.look_ahead("files", Tree::at(source.path()), &place.clock).await.unwrap();
    let report = backup.tree_after("files", Tree::at(source.path()), ahead).await.unwrap();
    assert_eq!((report.bytes, report.anew), (100_000, 100_000));
    assert!(backup.so_far().added < 110_000, "it was stored twice");
    backup.finish(&place.clock).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_without_a_file_is_told_as_that_however_it_is_read() {
    let place = Place::new();
    let repository = place.create(SMALL).await;
    let empty = place.path("empty");
    fs::create_dir_all(empty.join("below")).unwrap();
    for _ in 0..20 {
        let mut backup = Backup::begin(repository.clone(), place.setting(), &place.clock).await.unwrap();
        let ahead = backup.look_ahead("files", Tree::at(&empty), &place.clock).await.unwrap();
        let error = backup.tree_after("files", Tree::at(&empty), ahead).await.unwrap_err();
        assert!(format!("{error:#}").contains("there is not a single file in it"), "{error:#}");
        backup.abandon().await;
    }
}
