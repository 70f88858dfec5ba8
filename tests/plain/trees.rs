//! Trees come back as they were, through Rusuban and through GNU tar.
use std::{fs, os::unix::net::UnixListener, path::Path};

use rusuban::{
    plain::{Reading, restore, verify},
    tree::{Excludes, Tree},
};

use super::support::Place;
use crate::support::trees::{assert_equal, every_kind_of_file, sh};

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
