//! Repositories that were made once and are kept beside this file, each with listings of what was backed up: every later
//! version must still read them. CONTRIBUTING.md says how they are made.
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rusuban::{
    repository::{Id, Look, Options, Repository, Unlock},
    tree::Listener,
};

use super::support::{PASSWORD, Place, SMALL};
use crate::support::{
    restic::Restic,
    rustic::Rustic,
    trees::{is_root, sh},
};

/// All of them open with [`PASSWORD`], and with this.
const SECOND: &str = "battery staple";
/// Where the folder was that is in them.
const ORIGINAL: &str = "/tmp/rusuban-golden/data";
/// Each has these backups, with these tags.
const BACKUPS: [(&str, &[&str]); 3] = [("first", &["monday"]), ("second", &["tuesday", "full"]), ("third", &[])];

fn kept(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/repository/golden").join(file)
}

/// A copy of one, to be used and changed.
pub(super) fn unpacked(name: &str) -> Place {
    let place = Place::new();
    sh(&format!(
        "tar -C '{}' --zstd -xf '{}'",
        place.root.path().display(),
        kept(&format!("{name}.tar.zst")).display()
    ));
    place
}

macro_rules! tests {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                still_read($name).await;
            }
        )*
    };
}

tests! {
    what_stock_restic_stored_in_version_2_is_read: "restic-0.14-v2",
    what_stock_restic_stored_in_version_1_is_read: "restic-0.14-v1",
    what_rustic_stored_is_read: "rustic-0.11",
    what_rusuban_0_1_stored_is_read: "rusuban-0.1",
}

async fn still_read(name: &str) {
    let place = unpacked(name);
    for password in [PASSWORD, SECOND] {
        let unlock = Unlock::Password(password.into());
        let repository = Repository::open(Arc::clone(&place.bucket), &unlock, Options::default()).await.unwrap();
        assert_eq!(repository.keys().await.unwrap().len(), 2);
    }
    let repository = place.open().await;
    let (snapshots, damaged) = repository.snapshots().await.unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    let listener = Arc::clone(&place.told) as Arc<dyn Listener>;
    let look = Look { snapshots: None, data: 1.0, part: 0 };
    let found = repository.check(&look, &listener, &place.cancelled).await.unwrap();
    assert!(found.is_whole() && found.snapshots == BACKUPS.len() && found.packs >= 2, "{found:?}");

    assert_eq!(snapshots.len(), BACKUPS.len());
    for ((_, snapshot), (backup, tags)) in snapshots.iter().zip(BACKUPS) {
        // rustic sorts them.
        let found: BTreeSet<&str> =
            snapshot.tags.iter().flatten().map(String::as_str).filter(|tag| *tag != "job=photos").collect();
        assert_eq!((found, snapshot.hostname.as_str()), (tags.iter().copied().collect(), "here"), "{backup}");
        assert_eq!(snapshot.paths, [ORIGINAL]);
        let restored = place.restore(&repository, snapshot, Path::new(ORIGINAL), |wish| wish).await.unwrap();
        // Owners come back for root only, which is no failure.
        assert_eq!((restored.failures, restored.warnings), (Vec::new(), Vec::new()));
        let (expected, back) = (fs::read_to_string(kept(&format!("{name}.{backup}.txt"))).unwrap(), place.path("back"));
        assert_eq!(listing(&back), expected, "{backup}");
        fs::remove_dir_all(back).unwrap();
    }

    // And it is continued: what it has already is not stored again.
    let original = place.path("original");
    place.restore(&repository, &snapshots[1].1, Path::new(ORIGINAL), |wish| wish).await.unwrap();
    fs::rename(place.path("back"), &original).unwrap();
    let (_, ours) = place.back_up(&repository, &original).await.unwrap();
    assert_eq!(ours.summary.unwrap().data_blobs, 0);
    let restic = place.restic();
    restic.check().unwrap();
    assert_eq!(restic.snapshots().len(), BACKUPS.len() + 1);
}

/// One line for each thing below a folder: kind and rights, names, time, bytes, what is in it, extended attributes, its path.
fn listing(folder: &Path) -> String {
    let (mut lines, mut first_names) = (String::new(), HashMap::new());
    list(folder, Path::new("."), &mut lines, &mut first_names);
    lines
}

fn list(folder: &Path, at: &Path, lines: &mut String, first_names: &mut HashMap<u64, PathBuf>) {
    let path = folder.join(at);
    let found = fs::symlink_metadata(&path).unwrap();
    let (size, content) = if found.is_file() {
        (found.len(), Id::of(&fs::read(&path).unwrap()).to_string())
    } else if found.is_symlink() {
        (0, format!("-> {}", fs::read_link(&path).unwrap().display()))
    } else {
        (0, "-".to_owned())
    };
    let mut xattrs: Vec<String> = xattr::list(&path)
        .unwrap()
        .filter(|name| name.as_bytes().starts_with(b"user."))
        .map(|name| format!("{}={}", name.display(), xattr::get(&path, &name).unwrap().unwrap().escape_ascii()))
        .collect();
    xattrs.sort();
    let first = first_names.entry(found.ino()).or_insert_with(|| at.to_owned());
    let link = if first == at { String::new() } else { format!(" = {}", first.display()) };
    // A file with holes of 64 KiB and more has them again.
    let holes = if found.is_file() && found.blocks() * 512 < size { " with holes" } else { "" };
    writeln!(
        lines,
        "{:06o} {} {}.{:09} {size}{holes} {content} [{}] {}{link}",
        found.mode(),
        if found.is_dir() { 0 } else { found.nlink() },
        found.mtime(),
        found.mtime_nsec(),
        xattrs.join(" "),
        at.as_os_str().as_bytes().escape_ascii()
    )
    .unwrap();
    if found.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.iter().for_each(|name| list(folder, &at.join(name), lines, first_names));
    }
}

/// Makes the folder as it is in one of the backups.
fn make_folder(backup: &str, hole: u64) {
    let at = Path::new(ORIGINAL);
    let text = |from: u32, to: u32| (from..to).map(|line| format!("line {line}\n")).collect::<String>();
    match backup {
        "first" => {
            fs::create_dir_all(at.join("sub/with space")).unwrap();
            fs::write(at.join("empty"), "").unwrap();
            fs::write(at.join("notes.txt"), text(0, 4000)).unwrap();
            fs::write(at.join("sub/the same.txt"), text(0, 4000)).unwrap();
            fs::write(at.join("sub/names"), "one file, two names").unwrap();
            fs::hard_link(at.join("sub/names"), at.join("sub/with space/again")).unwrap();
            std::os::unix::fs::symlink("../notes.txt", at.join("sub/link")).unwrap();
            fs::write(at.join("sub").join(std::ffi::OsStr::from_bytes(b"not utf-8 \xff")), "x").unwrap();
            let holes = fs::File::create(at.join("holes")).unwrap();
            holes.set_len(hole).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&holes, b"end", hole - 3).unwrap();
            sh(&format!(
                "cd {ORIGINAL} && setfattr -n user.colour -v blue notes.txt && chmod 4750 sub/names && chmod 1777 sub"
            ));
        }
        "second" => {
            fs::write(at.join("notes.txt"), text(0, 4000) + &text(9000, 9100)).unwrap();
            fs::write(at.join("sub/new"), "new").unwrap();
            sh(&format!("cd {ORIGINAL} && setfattr -n user.colour -v 'red=%41' notes.txt"));
        }
        _ => {
            fs::remove_file(at.join("holes")).unwrap();
            fs::remove_file(at.join("sub/with space/again")).unwrap();
            fs::rename(at.join("sub/the same.txt"), at.join("moved.txt")).unwrap();
        }
    }
    sh(&format!("find {ORIGINAL} -depth -print0 | xargs -0 touch -h -d '2001-02-03 04:05:06.123456789 UTC'"));
    sh(&format!("cd {ORIGINAL} && touch -d '1969-12-31 23:59:58.25 UTC' sub/names"));
}

/// Who makes one.
enum Author {
    Restic(Restic),
    Rustic(Rustic),
    Ours(Box<Repository>),
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes the repositories that are kept beside it anew; restic 0.14 and rustic 0.11 made those of theirs"]
async fn make_golden_repositories() {
    assert!(is_root(), "owners are those of root");
    for (name, hole) in
        [("restic-0.14-v2", 1 << 20), ("restic-0.14-v1", 70_000), ("rustic-0.11", 1 << 20), ("rusuban-0.1", 1 << 20)]
    {
        let above = Path::new(ORIGINAL).parent().unwrap();
        let _ = fs::remove_dir_all(above);
        let place = Place::new();
        let second = place.path("second");
        fs::write(&second, SECOND).unwrap();
        let author = match name.rsplit_once("-v") {
            Some((_, version)) => {
                let restic = Restic::new(&place.path("repository"), PASSWORD);
                restic.run(&["init", "--repository-version", version]).unwrap();
                restic.run(&["key", "add", "--new-password-file", second.to_str().unwrap()]).unwrap();
                Author::Restic(restic)
            }
            None if name.starts_with("rustic") => {
                let rustic = Rustic::new(&place.path("repository"), PASSWORD);
                rustic.run(&["init"]);
                rustic.run(&["key", "add", "--new-password-file", second.to_str().unwrap()]);
                Author::Rustic(rustic)
            }
            None => {
                let repository = place.create(SMALL).await;
                repository.add_password(SECOND.as_bytes(), "here", &place.clock).await.unwrap();
                Author::Ours(Box::new(repository))
            }
        };
        for (backup, tags) in BACKUPS {
            make_folder(backup, hole);
            let mut listing = listing(Path::new(ORIGINAL));
            if matches!(author, Author::Rustic(_)) {
                // Of the folder that it is told to back up, rustic keeps the name alone.
                listing = listing.replacen("981173106.123456789", "0.000000000", 1);
            }
            fs::write(kept(&format!("{name}.{backup}.txt")), listing).unwrap();
            let mut more = vec!["--host", "here"];
            tags.iter().for_each(|tag| more.extend(["--tag", tag]));
            match &author {
                Author::Ours(repository) => {
                    let mut setting = place.setting();
                    setting.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
                    let mut backup =
                        rusuban::repository::Backup::begin(Repository::clone(repository), setting, &place.clock)
                            .await
                            .unwrap();
                    backup.tree("files", rusuban::tree::Tree::at(Path::new(ORIGINAL))).await.unwrap();
                    backup.finish(&place.clock).await.unwrap();
                }
                Author::Restic(restic) => restic.back_up_all(&[Path::new(ORIGINAL)], &more),
                Author::Rustic(rustic) => drop(rustic.run(&[&["backup", ORIGINAL], &more[..]].concat())),
            }
        }
        let archive = kept(&format!("{name}.tar.zst"));
        sh(&format!(
            "tar -C '{}' --owner=0 --group=0 --sort=name -I 'zstd -19' -cf '{}' repository",
            place.root.path().display(),
            archive.display()
        ));
        fs::remove_dir_all(above).unwrap();
    }
}
