//! Trees come back as they were, through Rusuban and through GNU tar.
use std::{fs, os::unix::net::UnixListener, path::Path};

use rusuban::{
    plain::{Reading, restore, verify},
    tree::{Excludes, Tree},
};

use super::support::Place;
use crate::support::{
    helper::helper,
    trees::{assert_equal, every_kind_of_file, sh},
};

fn blocks(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_every_kind_of_file_comes_back_equal_and_gnu_tar_agrees() {
    let place = Place::new();
    let original = place.path("original");
    every_kind_of_file(&original);
    let manifest = place.back_up(Tree::at(&original)).await.unwrap();
    assert_eq!(*place.told.warnings.lock().unwrap(), Vec::<String>::new());
    verify(&place.bucket, &manifest, &Reading::default()).await.unwrap();

    let back = place.path("back");
    let restored = restore(&place.bucket, &manifest, None, &back, false, &Reading::default()).await.unwrap();
    assert_equal(&original, &back);
    assert_eq!(restored.entries, manifest.sources[0].entries);
    for holes in ["holes", "only a hole", "data at the end"] {
        assert!(blocks(&back.join(holes)) <= blocks(&original.join(holes)) + 16, "{holes} grew");
    }

    let (object, by_tar) = (place.object(&manifest.sources[0].key), place.path("by-tar"));
    fs::create_dir(&by_tar).unwrap();
    sh(&format!(
        "zstd -dc '{}' | tar -x --numeric-owner -p --xattrs --xattrs-include='*' --acls -C '{}' -f -",
        object.display(),
        by_tar.display()
    ));
    assert_equal(&original, &by_tar.join("original"));
    assert!(blocks(&by_tar.join("original/holes")) <= blocks(&original.join("holes")) + 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_a_helper_reads_for_us_is_the_same_archive() {
    let place = Place::new();
    let (original, known) = (place.path("original"), place.path("known/original"));
    every_kind_of_file(&original);
    let far = helper(&known, &original).await;
    let excludes = || Excludes::new(&["a/deep/er/", "*again"]).unwrap();
    for (number, tree) in [(0, Tree::at(&known)), (1, Tree::at(&known).without(excludes()))] {
        let manifest = place.back_up(tree.read_by(Some(far.clone()))).await.unwrap();
        assert_eq!(manifest.sources[0].path.as_deref(), known.to_str());
        let back = place.path(&format!("back-{number}"));
        restore(&place.bucket, &manifest, None, &back, false, &Reading::default()).await.unwrap();
        if number == 0 {
            assert_equal(&original, &back);
            assert!(blocks(&back.join("holes")) <= blocks(&original.join("holes")) + 16);
        } else {
            assert!(
                back.join("a/deep").exists() && !back.join("a/deep/er").exists() && !back.join("a/one again").exists()
            );
        }
    }
    assert_eq!(*place.told.warnings.lock().unwrap(), Vec::<String>::new());
    // A database in use is copied as one, there as here.
    let database = original.join("app.sqlite");
    let open = rusqlite::Connection::open(&database).unwrap();
    open.execute_batch("pragma journal_mode = wal; create table t (n); insert into t values (1), (2);").unwrap();
    let manifest = place.back_up(Tree::at(&known).read_by(Some(far.clone()))).await.unwrap();
    assert_eq!(manifest.sources[0].rows["original/app.sqlite: t"], 2);
    let back = place.path("back-database");
    restore(&place.bucket, &manifest, None, &back, false, &Reading::default()).await.unwrap();
    assert!(back.join("app.sqlite").exists() && !back.join("app.sqlite-wal").exists());
    // What is not there has the name that people know.
    let error = place.back_up(Tree::at(&known.join("missing")).read_by(Some(far))).await.unwrap_err();
    assert!(format!("{error:#}").contains(known.join("missing").to_str().unwrap()), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn excluded_files_sockets_and_our_own_folders_stay_behind() {
    let place = Place::new();
    let original = place.path("original");
    for folder in ["own", "cache", "keep/cache"] {
        fs::create_dir_all(original.join(folder)).unwrap();
        fs::write(original.join(folder).join("file"), b"x").unwrap();
    }
    fs::write(original.join("keep/a.tmp"), b"x").unwrap();
    let _socket = UnixListener::bind(original.join("socket")).unwrap();
    let tree = Tree::at(&original)
        .without(Excludes::new(&["*.tmp", "/cache"]).unwrap())
        .skipping(vec![original.join("own"), place.path("not there")]);
    let manifest = place.back_up(tree).await.unwrap();
    let back = place.path("back");
    restore(&place.bucket, &manifest, Some("files"), &back, false, &Reading::default()).await.unwrap();
    let found = sh(&format!("cd '{}'; find . | sort", back.display()));
    assert_eq!(found, ".\n./keep\n./keep/cache\n./keep/cache/file\n");
    let infos = place.told.infos.lock().unwrap().join("\n");
    assert!(infos.contains("own") && infos.contains("1 socket"), "{infos}");
}
