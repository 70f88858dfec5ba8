//! Trees come back as they were, through Rusuban and through GNU tar.
use std::{
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::FileExt, net::UnixListener},
    path::Path,
};

use rusuban::{
    plain::{Reading, restore, verify},
    tree::{Excludes, Tree},
};

use super::support::{Place, assert_equal, is_root, sh};

/// One of each kind of file that Linux has, with names, sizes and times that break careless programs.
fn every_kind_of_file(at: &Path) {
    fs::create_dir_all(at.join("a/deep/er")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(at.join(name), bytes).unwrap();
    write("empty", b"");
    write("one", b"1");
    write("block", &[7; 512]);
    write("more than a buffer", &(0..700_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    write("a/line\nbreak", b"x");
    write("a/ leading space and ünïcode 漢字", b"x");
    write(&format!("a/deep/{}", "n".repeat(255)), b"long name");
    fs::write(at.join("a").join(std::ffi::OsStr::from_bytes(b"not \xff utf-8 \xc3")), b"x").unwrap();
    let mut folder = at.join("a/deep/er");
    for _ in 0..20 {
        folder = folder.join("and-again-a-folder-with-a-name");
    }
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("down here"), b"deep").unwrap();
    fs::hard_link(at.join("one"), at.join("a/one again")).unwrap();
    fs::hard_link(at.join("one"), at.join("zzz")).unwrap();
    std::os::unix::fs::symlink("one", at.join("link")).unwrap();
    std::os::unix::fs::symlink("../nowhere", at.join("a/dangling")).unwrap();
    std::os::unix::fs::symlink("t".repeat(300), at.join("a/long link")).unwrap();
    fs::hard_link(at.join("link"), at.join("a/link again")).unwrap();
    sparse(&at.join("holes"), 50 << 20, &[(0, 10), (3 << 20, 4097), (40 << 20, 70_000)]);
    sparse(&at.join("only a hole"), 10 << 20, &[]);
    sparse(&at.join("data at the end"), 8 << 20, &[((8 << 20) - 1, 1)]);
    sh(&format!(
        "cd '{}'; mkfifo pipe; setfattr -n user.colour -v 'blue=%41' one; setfattr -n user.empty a; \
         setfacl -m u:1234:rw- block; setfacl -d -m g:4321:r-x a/deep; chmod 4755 empty; chmod 000 block; chmod 1777 a; \
         touch -h -d '1969-12-31 23:59:58.25 UTC' 'a/line\nbreak'; touch -h -d '2400-01-01 00:00:00.000000001 UTC' one; \
         touch -h -d '2001-02-03 04:05:06.789 UTC' link pipe a/deep a",
        at.display()
    ));
    if is_root() {
        sh(&format!(
            "cd '{}'; chown -h 12345:3000000000 link empty; chmod 4755 empty; mknod null c 1 3; mknod disk b 7 300; \
             setfattr -n trusted.t -v x one; setfattr -h -n trusted.l -v y link; \
             chown 65534:0 a/deep/er; touch -h -d '2001-02-03 04:05:06.789 UTC' a/deep",
            at.display()
        ));
    }
}

fn sparse(path: &Path, size: u64, pieces: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, length) in pieces {
        file.write_all_at(&vec![b'd'; *length], *offset).unwrap();
    }
}

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
