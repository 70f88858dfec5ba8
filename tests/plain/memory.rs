//! Memory stays bounded, whatever the size of a source.
use std::{fs, io::Read};

use rusuban::{
    plain::{Reading, restore},
    tree::Tree,
};

use super::support::Place;

/// The most memory this process has had so far, in MiB.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_backup_and_a_restore_take_the_same_little_memory_for_any_size() {
    // In a process of its own, however the tests are run.
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--ignored", "--exact", "plain::memory::alone"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above"]
async fn alone() {
    let mut place = Place::new();
    place.options.threads = 4;
    let source = place.path("source");
    let mut file = fs::File::create(&source).unwrap();
    std::io::copy(&mut fs::File::open("/dev/urandom").unwrap().take(300 << 20), &mut file).unwrap();
    let manifest = place.back_up(Tree::at(&source)).await.unwrap();
    let back = place.path("back");
    restore(&place.bucket, &manifest, None, &back, false, &Reading::default()).await.unwrap();
    let most = most_memory();
    assert!(most < 100, "{most} MiB");
}
