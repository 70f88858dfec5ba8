//! Files that change, vanish or cannot be read while they are backed up.
use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use rusuban::{
    clock::Clock,
    model::DebtId,
    plain::{Reading, Setting, Watcher, Writer, restore},
    tree::{Listener, Tree},
};

use super::support::{Place, Told};
use crate::support::trees::{is_root, sh};

/// Meddles with the tree as soon as the first bytes of its first file were read.
struct Meddler {
    told: Arc<Told>,
    done: AtomicBool,
    source: PathBuf,
}

impl Listener for Meddler {
    fn info(&self, text: &str) {
        self.told.info(text);
    }
    fn warn(&self, text: &str) {
        self.told.warn(text);
    }
    fn progress(&self, _: u64, _: Option<u64>) {
        if self.done.swap(true, Ordering::SeqCst) {
            return;
        }
        let at = |name: &str| self.source.join(name);
        fs::OpenOptions::new().write(true).open(at("a shrinks")).unwrap().set_len(1 << 20).unwrap();
        fs::remove_file(at("b vanishes")).unwrap();
        fs::remove_dir(at("c folder vanishes")).unwrap();
        fs::remove_file(at("d becomes a link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("d becomes a link")).unwrap();
        fs::remove_dir(at("e folder becomes a link")).unwrap();
        std::os::unix::fs::symlink("/etc", at("e folder becomes a link")).unwrap();
    }
}

#[async_trait]
impl Watcher for Meddler {
    async fn upload_begun(&self, key: &str, upload: &str) -> anyhow::Result<DebtId> {
        self.told.upload_begun(key, upload).await
    }
    async fn upload_ended(&self, debt: DebtId) -> anyhow::Result<()> {
        self.told.upload_ended(debt).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_changes_under_our_hands_is_kept_as_far_as_it_is_there_with_warnings() {
    let place = Place::new();
    let source = place.path("source");
    fs::create_dir_all(source.join("c folder vanishes")).unwrap();
    fs::create_dir_all(source.join("e folder becomes a link")).unwrap();
    fs::write(source.join("a shrinks"), vec![7; 4 << 20]).unwrap();
    for name in ["b vanishes", "d becomes a link", "f stays"] {
        fs::write(source.join(name), "x").unwrap();
    }
    let meddler = Meddler { told: Arc::clone(&place.told), done: AtomicBool::new(false), source: source.clone() };
    let setting = Setting {
        bucket: Arc::clone(&place.bucket),
        job: "photos".parse().unwrap(),
        at: "2026-11-21T03:15:00Z".parse().unwrap(),
        options: place.options.clone(),
        spool: place.path("spool"),
        watcher: Arc::new(meddler),
        cancelled: place.cancelled.clone(),
    };
    let mut writer = Writer::begin(setting).await.unwrap();
    writer.tree("files", Tree::at(&source)).await.unwrap();
    let manifest = writer.finish("here".into(), &Clock::system()).await.unwrap();
    let warnings = place.told.warnings.lock().unwrap().join("\n");
    assert!(warnings.contains("a shrinks became shorter while it was read: its last 3145728 bytes"), "{warnings}");
    assert!(warnings.contains("b vanishes vanished") && warnings.contains("c folder vanishes vanished"), "{warnings}");
    assert_eq!(manifest.warnings.len(), warnings.lines().count());

    let back = place.path("back");
    restore(&place.bucket, &manifest, None, &back, false, &Reading::default()).await.unwrap();
    let mut wanted = vec![7; 1 << 20];
    wanted.resize(4 << 20, 0);
    assert!(fs::read(back.join("a shrinks")).unwrap() == wanted);
    // Links are kept as links; what they point to is not ours.
    assert!(fs::symlink_metadata(back.join("d becomes a link")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(back.join("e folder becomes a link")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(back.join("f stays")).unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_read_fail_the_run_and_all_of_them_are_named() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let source = place.path("source");
    fs::create_dir(&source).unwrap();
    // A process's memory at address 0 cannot be read: an I/O error, for root as well.
    sh(&format!("cd '{}'; for f in bad worse; do touch $f; mount --bind /proc/self/mem $f; done", source.display()));
    fs::write(source.join("fine"), "x").unwrap();
    let error = place.back_up(Tree::at(&source)).await;
    sh(&format!("cd '{}'; umount bad worse", source.display()));
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("bad: ") && error.contains("worse: "), "{error}");
    assert_eq!(place.stored(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_file_systems_are_entered_unless_told_otherwise() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let source = place.path("source");
    fs::create_dir_all(source.join("mount")).unwrap();
    fs::write(source.join("fine"), "x").unwrap();
    sh(&format!("mount -t tmpfs -o size=1m tmpfs '{0}/mount'; touch '{0}/mount/inside'", source.display()));
    let all = place.back_up(Tree::at(&source)).await;
    let one = place.back_up(Tree::at(&source).on_one_file_system(true)).await;
    sh(&format!("umount '{}/mount'", source.display()));
    let (all, one) = (all.unwrap(), one.unwrap());
    assert_eq!((all.sources[0].entries, one.sources[0].entries), (4, 3));
    // Two backups of one second do not mix.
    assert_eq!((all.id.as_str(), one.id.as_str()), ("2026-11-21T03-15-00Z", "2026-11-21T03-15-00Z-2"));
}
