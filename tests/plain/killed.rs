//! Killed with -9 at any moment: never a manifest without its data, never a half-restored file under its final name.
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rusuban::{
    bucket::{Bucket, folder::Folder},
    plain::{self, Reading},
    tree::Tree,
};

use super::support::{Place, files_below};

const PLACE: &str = "RUSUBAN_TEST_PLACE";

/// The process that is killed: this test binary again, doing one thing.
fn child(test: &str, place: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .env(PLACE, place)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[expect(clippy::disallowed_methods, reason = "how the process that is killed learns where to work")]
fn given_place() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests below"]
async fn backing_up() {
    let Some(at) = given_place() else { return };
    let mut place = Place::new();
    place.bucket = Arc::new(Folder::new(at.join("bucket")));
    place.back_up(Tree::at(&at.join("source"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests below"]
async fn restoring() {
    let Some(at) = given_place() else { return };
    let bucket: Arc<dyn Bucket> = Arc::new(Folder::new(at.join("bucket")));
    let backup = plain::find(&bucket, &"photos".parse().unwrap(), None).await.unwrap();
    plain::restore(&bucket, &backup, None, &at.join("back"), true, &Reading::default()).await.unwrap();
}

fn source(place: &Place) {
    let mut random = vec![0; 20 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    fs::create_dir(place.path("source")).unwrap();
    for (number, piece) in random.chunks(1 << 20).enumerate() {
        fs::write(place.path("source").join(number.to_string()), piece).unwrap();
    }
}

/// How long the whole takes, undisturbed.
fn whole(test: &str, place: &Path) -> Duration {
    let begun = Instant::now();
    assert!(child(test, place).wait().unwrap().success());
    begun.elapsed()
}

fn kill_after(test: &str, place: &Path, time: Duration) {
    let mut child = child(test, place);
    std::thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_is_no_backup_or_a_whole_one() {
    let place = Place::new();
    source(&place);
    let time = whole("plain::killed::backing_up", place.root.path());
    let (mut before, mut cut) = (1, 0);
    for step in 1..=15 {
        kill_after("plain::killed::backing_up", place.root.path(), time * step / 15);
        let listing = plain::list(&place.bucket, &"photos".parse().unwrap()).await.unwrap();
        assert_eq!(listing.damaged, Vec::<String>::new());
        for backup in &listing.backups {
            plain::verify(&place.bucket, backup, &Reading::default()).await.unwrap();
        }
        cut += usize::from(listing.backups.len() == before);
        before = listing.backups.len();
    }
    assert!(cut > 0, "none was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_leaves_the_old_or_the_new_or_nothing_and_the_next_one_succeeds() {
    let place = Place::new();
    source(&place);
    place.back_up(Tree::at(&place.path("source"))).await.unwrap();
    let back = place.path("back");
    let time = whole("plain::killed::restoring", place.root.path());
    let mut old = 0;
    for step in 1..=15 {
        let _ = fs::remove_dir_all(&back);
        fs::create_dir(&back).unwrap();
        fs::write(back.join("old"), "old").unwrap();
        kill_after("plain::killed::restoring", place.root.path(), time * step / 15);
        let found = files_below(&back);
        match found.len() {
            0 => assert!(!back.exists()),
            1 => {
                assert!(found[0].ends_with("old"));
                old += 1;
            }
            20 => crate::support::trees::assert_equal(&place.path("source"), &back),
            other => panic!("{other} files"),
        }
    }
    assert!(old > 0, "none was cut off");
    assert!(child("plain::killed::restoring", place.root.path()).wait().unwrap().success());
    crate::support::trees::assert_equal(&place.path("source"), &back);
    let hidden =
        fs::read_dir(place.root.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let hidden: Vec<_> = hidden.filter(|name| name.starts_with('.')).collect();
    assert_eq!(hidden, Vec::<String>::new());
}
