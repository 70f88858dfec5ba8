//! What is brought back is what was there, whoever stored it; what is damaged costs the files it belongs to.
use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use globset::{Glob, GlobSetBuilder};
use rusuban::repository::{Chunking, Options, Repository, Snapshot, Unlock, Wish};

use super::support::{PASSWORD, Place, SMALL};
use crate::support::trees::{assert_equal, every_kind_of_file, is_root, sh};

pub(crate) fn noise(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(bytes)
    .collect()
}

async fn newest(repository: &Repository) -> Snapshot {
    repository.snapshots().await.unwrap().0.pop().unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stock_restic_stored_comes_back_and_is_continued() {
    let place = Place::new();
    let original = place.path("original");
    every_kind_of_file(&original);
    if is_root() {
        // restic 0.14 does not store it.
        sh(&format!("setfattr -h -x trusted.l '{}'", original.join("link").display()));
    }
    fs::write(original.join("large"), noise(9 << 20, 5)).unwrap();
    let restic = place.restic();
    restic.init();
    restic.back_up(&original);
    let repository = place.open().await;
    assert_eq!(repository.chunking(), Chunking::RESTIC);
    let snapshot = newest(&repository).await;
    let restored = place.restore(&repository, &snapshot, &original, |wish| wish).await.unwrap();
    assert_eq!((restored.failures, restored.warnings), (Vec::new(), Vec::new()));
    assert_equal(&original, &place.path("back"));

    // Chunks are cut where restic cuts them: a backup of ours adds no data.
    let (id, ours) = place.back_up(&repository, &original).await.unwrap();
    assert_eq!(ours.summary.unwrap().data_blobs, 0);
    restic.check().unwrap();
    // And restic goes on with ours.
    restic.run(&["backup", "--quiet", "--force", "--parent", &id.to_string(), original.to_str().unwrap()]).unwrap();
    restic.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_there_is_changed_file_by_file_and_only_when_told() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir_all(original.join("sub")).unwrap();
    for (name, seed) in [("same", 1), ("changed", 2), ("sub/gone", 3), ("sub/became a link", 4)] {
        fs::write(original.join(name), noise(200_000, seed)).unwrap();
    }
    let repository = place.create(SMALL).await;
    let (_, snapshot) = place.back_up(&repository, &original).await.unwrap();
    let back = place.path("back");
    sh(&format!("cp -a '{}' '{}'", original.display(), back.display()));
    fs::write(back.join("changed"), b"other").unwrap();
    fs::remove_file(back.join("sub/gone")).unwrap();
    fs::remove_file(back.join("sub/became a link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", back.join("sub/became a link")).unwrap();
    fs::write(back.join("stranger"), b"mine").unwrap();
    let before = fs::metadata(back.join("same")).unwrap().ino();

    let error = place.restore(&repository, &snapshot, &original, |wish| wish).await.unwrap_err();
    assert!(format!("{error:#}").contains("exists already"), "{error:#}");

    let dry = |wish| Wish { dry_run: true, ..wish };
    let restored = place.restore(&repository, &snapshot, &original, dry).await.unwrap();
    let shown: Vec<_> =
        restored.changes.iter().map(|(how, path)| (*how, path.strip_prefix(&back).unwrap().to_owned())).collect();
    let expected = [("replaced", "changed"), ("replaced", "sub/became a link"), ("new", "sub/gone")]
        .map(|(how, path)| (how, PathBuf::from(path)));
    assert_eq!(shown, expected);
    assert_eq!(fs::read(back.join("changed")).unwrap(), b"other");

    let restored =
        place.restore(&repository, &snapshot, &original, |wish| Wish { replace: true, ..wish }).await.unwrap();
    assert_eq!((restored.failed, restored.equal), (0, 1));
    assert_eq!(fs::read(back.join("stranger")).unwrap(), b"mine");
    fs::remove_file(back.join("stranger")).unwrap();
    fs::File::open(&back).unwrap().set_modified(fs::metadata(&original).unwrap().modified().unwrap()).unwrap();
    assert_equal(&original, &back);
    assert_eq!(fs::metadata(back.join("same")).unwrap().ino(), before, "an equal file was written again");
    assert_eq!(sh("head -c 5 /etc/passwd"), "root:");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_comes_back() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir_all(original.join("a/b/c")).unwrap();
    fs::create_dir_all(original.join("other")).unwrap();
    for name in ["a/b/c/1.txt", "a/b/2.txt", "a/3.bin", "other/4.bin", "top.txt"] {
        fs::write(original.join(name), name).unwrap();
    }
    let repository = place.create(SMALL).await;
    let (_, snapshot) = place.back_up(&repository, &original).await.unwrap();
    for (patterns, expected) in [
        (vec!["a/b"], "a/b/2.txt\na/b/c/1.txt\n"),
        (vec!["**/*.txt"], "a/b/2.txt\na/b/c/1.txt\ntop.txt\n"),
        (vec!["other/4.bin", "top.txt"], "other/4.bin\ntop.txt\n"),
    ] {
        let mut set = GlobSetBuilder::new();
        patterns.iter().for_each(|pattern| {
            set.add(Glob::new(pattern).unwrap());
        });
        let only = Some(set.build().unwrap());
        place.restore(&repository, &snapshot, &original, |wish| Wish { only, ..wish }).await.unwrap();
        let back = place.path("back");
        assert_eq!(sh(&format!("cd '{}'; find . -type f -printf '%P\\n' | sort", back.display())), expected);
        fs::remove_dir_all(back).unwrap();
    }
}

/// Flips a byte in the middle of the largest pack, or cuts it there, or removes it.
fn damage(repository: &Path, how: &str) {
    let packs = sh(&format!("find '{}/data' -type f -printf '%s %p\\n' | sort -n | tail -1", repository.display()));
    let pack = packs.trim().split_once(' ').unwrap().1;
    let file = fs::OpenOptions::new().read(true).write(true).open(pack).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    match how {
        "flipped" => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, middle).unwrap();
            file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
        }
        "cut" => file.set_len(middle).unwrap(),
        _ => fs::remove_file(pack).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_the_files_it_belongs_to_and_each_is_named() {
    for how in ["flipped", "cut", "removed"] {
        let place = Place::new();
        let original = place.path("original");
        fs::create_dir_all(&original).unwrap();
        for number in 0..40 {
            fs::write(original.join(format!("file {number:02}")), noise(100_000, number + 10)).unwrap();
        }
        let repository = place.create(SMALL).await;
        let (_, snapshot) = place.back_up(&repository, &original).await.unwrap();
        damage(&place.path("repository"), how);
        let restored = place.restore(&repository, &snapshot, &original, |wish| wish).await.unwrap();
        assert!(restored.failed > 0 && restored.failed < 40, "{how}: {restored:?}");
        assert_eq!(restored.failed as usize, restored.failures.len());
        let back = place.path("back");
        let mut missing = 0;
        for number in 0..40 {
            let name = format!("file {number:02}");
            let is_named = restored.failures.iter().any(|failure| failure.contains(&name));
            assert_eq!(back.join(&name).exists(), !is_named, "{how}: {name}");
            if is_named {
                missing += 1;
            } else {
                assert_eq!(fs::read(back.join(&name)).unwrap(), fs::read(original.join(&name)).unwrap());
            }
        }
        assert_eq!(missing, restored.failed);
        assert_eq!(sh(&format!("find '{}' -name '*part*'", back.display())), "", "something unfinished stays behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_opens_nothing_and_says_so() {
    let place = Place::new();
    let repository = place.create(SMALL).await;
    repository.add_password(b"second", "here", &place.clock).await.unwrap();
    for (password, opens) in [(PASSWORD, true), ("second", true), ("third", false)] {
        let unlock = Unlock::Password(password.into());
        let opened = Repository::open(Arc::clone(&place.bucket), &unlock, Options::default()).await;
        assert_eq!(opened.is_ok(), opens);
        if let Err(error) = opened {
            assert!(format!("{error:#}").contains("the password opens none of the repository's keys"), "{error:#}");
        }
    }
    place.restic().check().unwrap();
}
