//! Bringing back: whole or not at all, never over what is there, never elsewhere.
use std::{
    fs,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rusuban::{
    plain::{FileFacts, Manifest, Reading, Single, SourceKind, restore, verify},
    tree::Tree,
};
use tokio_util::sync::CancellationToken;

use super::support::{Place, files_below};
use crate::support::trees::{is_root, sh};

async fn one_tree(place: &Place) -> Manifest {
    let source = place.path("source");
    fs::create_dir_all(source.join("a")).unwrap();
    fs::write(source.join("a/file"), "new").unwrap();
    fs::write(source.join("big"), (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).unwrap();
    place.back_up(Tree::at(&source)).await.unwrap()
}

/// Everything in the folder, hidden leftovers included.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_stays_unless_it_is_to_be_replaced() {
    let place = Place::new();
    let manifest = one_tree(&place).await;
    let to = place.path("target/files");
    fs::create_dir_all(&to).unwrap();
    fs::write(to.join("old"), "old").unwrap();
    let error = restore(&place.bucket, &manifest, None, &to, false, &Reading::default()).await.unwrap_err();
    assert!(format!("{error:#}").contains("exists already"), "{error:#}");
    assert_eq!(names(&to), ["old"]);
    restore(&place.bucket, &manifest, None, &to, true, &Reading::default()).await.unwrap();
    assert_eq!(names(&to), ["a", "big"]);
    assert_eq!(names(&place.path("target")), ["files"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_or_is_cancelled_changes_nothing() {
    let place = Place::new();
    let manifest = one_tree(&place).await;
    let object = place.object(&manifest.sources[0].key);
    let stored = fs::read(&object).unwrap();
    let to = place.path("target/files");
    fs::create_dir_all(&to).unwrap();
    fs::write(to.join("old"), "old").unwrap();
    let half = stored.len() / 2;
    let mut flipped = stored.clone();
    flipped[half] ^= 1;
    for (damage, bytes) in [
        ("cut", &stored[..half]),
        ("flipped", flipped.as_slice()),
        ("empty", &[]),
        ("longer", &[stored.as_slice(), b"x"].concat()),
    ] {
        fs::write(&object, bytes).unwrap();
        restore(&place.bucket, &manifest, None, &to, true, &Reading::default()).await.unwrap_err();
        verify(&place.bucket, &manifest, &Reading::default()).await.unwrap_err();
        assert_eq!(names(&place.path("target")), ["files"], "{damage}");
        assert_eq!(names(&to), ["old"], "{damage}");
    }
    // Well-formed, and yet not what was backed up.
    let mut other = zstd::encode_all(&[0; 1024][..], 3).unwrap();
    other.resize(stored.len(), 0);
    fs::write(&object, other).unwrap();
    restore(&place.bucket, &manifest, None, &to, true, &Reading::default()).await.unwrap_err();
    fs::write(&object, &stored).unwrap();
    let cancelled = CancellationToken::new();
    let (seen, token) = (AtomicU64::new(0), cancelled.clone());
    let on_bytes = move |bytes| {
        if seen.fetch_add(bytes, Ordering::SeqCst) > 100_000 {
            token.cancel();
        }
    };
    let reading = Reading { cancelled, on_bytes: Arc::new(on_bytes), ..Reading::default() };
    let error = restore(&place.bucket, &manifest, None, &to, true, &reading).await.unwrap_err();
    assert!(format!("{error:#}").contains("cancelled"), "{error:#}");
    assert_eq!(names(&place.path("target")), ["files"]);
    assert_eq!(names(&to), ["old"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_takes_its_old_companions_away_and_what_a_killed_restore_left_is_cleared() {
    let place = Place::new();
    let database = place.path("app.db");
    fs::write(&database, "a database").unwrap();
    sh(&format!("chmod 640 '{0}'; touch -d '2001-02-03 04:05:06.789 UTC' '{0}'", database.display()));
    let mut writer = place.writer().await;
    let facts = Single {
        kind: SourceKind::Sqlite,
        path: Some(database.display().to_string()),
        rows: [("t".to_owned(), 5)].into(),
        file: Some(FileFacts::of(&database).unwrap()),
        bytes: None,
    };
    writer.file("app.db", facts, &database).await.unwrap();
    let manifest = writer.finish("here".into(), &rusuban::clock::Clock::system()).await.unwrap();
    let target = place.path("target");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("app.db-wal"), "of another database").unwrap();
    let to = target.join("app.db");
    let error = restore(&place.bucket, &manifest, None, &to, false, &Reading::default()).await.unwrap_err();
    assert!(format!("{error:#}").contains("app.db-wal exists already"), "{error:#}");
    fs::write(&to, "old").unwrap();
    fs::write(target.join(format!(".app.db.rusuban-restore-{}", manifest.id)), "half").unwrap();
    restore(&place.bucket, &manifest, None, &to, true, &Reading::default()).await.unwrap();
    assert_eq!(names(&target), ["app.db"]);
    assert_eq!(fs::read_to_string(&to).unwrap(), "a database");
    assert_eq!(FileFacts::of(&to).unwrap(), FileFacts::of(&database).unwrap());
}

/// An archive that our own writer would never make, stored as if it had.
async fn hostile(place: &Place, archive: Vec<u8>) -> Manifest {
    let mut writer = place.writer().await;
    let facts = Single { kind: SourceKind::Tree, path: None, rows: [].into(), file: None, bytes: None };
    writer.stream("files", facts, std::io::Cursor::new(archive)).await.unwrap();
    writer.finish("here".into(), &rusuban::clock::Clock::system()).await.unwrap()
}

fn entry(name: &str, kind: tar::EntryType, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(if kind.is_file() { 3 } else { 0 });
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    if kind.is_file() {
        bytes.extend(b"bad");
        bytes.resize(1024, 0);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_cannot_write_outside_of_its_place() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let top = || entry("f/", Directory, "");
    let outside = tempfile::tempdir().unwrap();
    let there = outside.path().to_str().unwrap();
    fs::write(outside.path().join("kept"), "kept").unwrap();
    for (what, entries) in [
        ("dots", vec![top(), entry("f/../../escaped", Regular, "")]),
        ("absolute", vec![top(), entry(&format!("{there}/escaped"), Regular, "")]),
        ("another top", vec![top(), entry("g", Regular, "")]),
        ("through a symlink", vec![top(), entry("f/l", Symlink, there), entry("f/l/escaped", Regular, "")]),
        ("onto a symlink", vec![top(), entry("f/l", Symlink, &format!("{there}/kept")), entry("f/l", Regular, "")]),
        ("top as a symlink", vec![entry("f", Symlink, there), entry("f/escaped", Regular, "")]),
        ("a link outside", vec![top(), entry("f/l", Link, &format!("{there}/kept"))]),
        ("a link above", vec![top(), entry("f/l", Link, "f/../../kept")]),
        ("twice", vec![top(), entry("f/x", Regular, ""), entry("f/x", Regular, "")]),
        ("no folder", vec![top(), entry("f/missing/x", Regular, "")]),
        ("nothing", vec![]),
    ] {
        let place = Place::new();
        let mut archive = entries.concat();
        archive.resize(archive.len() + 1024, 0);
        let manifest = hostile(&place, archive).await;
        let to = place.path("target/files");
        let result = restore(&place.bucket, &manifest, None, &to, false, &Reading::default()).await;
        assert!(result.is_err(), "{what}");
        assert_eq!(names(&place.path("target")), Vec::<String>::new(), "{what}");
        assert_eq!(names(outside.path()), ["kept"], "{what}");
        assert_eq!(fs::read_to_string(outside.path().join("kept")).unwrap(), "kept", "{what}");
    }
}

/// A small file system of its own, if we may.
struct Small(std::path::PathBuf);

impl Small {
    fn at(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(path)
            .status()
            .is_ok_and(|status| status.success());
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_the_target_or_the_bucket_leaves_nothing_half_done() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let manifest = one_tree(&place).await;
    let Some(small) = Small::at(&place.path("small")) else { return };
    fs::write(small.0.join("files"), "old").unwrap();
    let error =
        restore(&place.bucket, &manifest, None, &small.0.join("files"), true, &Reading::default()).await.unwrap_err();
    assert!(format!("{error:#}").contains("No space left"), "{error:#}");
    assert_eq!(names(&small.0), ["files"]);
    assert_eq!(fs::read_to_string(small.0.join("files")).unwrap(), "old");
    fs::remove_file(small.0.join("files")).unwrap();

    let mut full = Place::new();
    full.bucket = Arc::new(rusuban::bucket::folder::Folder::new(small.0.clone()));
    let source = full.path("source");
    let mut file = fs::File::create(&source).unwrap();
    for n in 0..2_000_000_u32 {
        file.write_all(&n.wrapping_mul(2_654_435_761).to_le_bytes()).unwrap();
    }
    let error = full.back_up(Tree::at(&source)).await.unwrap_err();
    assert!(format!("{error:#}").to_lowercase().contains("no space left"), "{error:#}");
    assert_eq!(files_below(&small.0), Vec::<std::path::PathBuf>::new());
    assert!(full.told.owed.lock().unwrap().is_empty());
}
