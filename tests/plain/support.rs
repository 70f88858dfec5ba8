//! What these tests share: a bucket, a watcher that remembers, and other people's programs.
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use rusuban::{
    bucket::{Bucket, folder::Folder},
    clock::Clock,
    model::DebtId,
    plain::{Manifest, Options, Setting, Watcher, Writer},
    tree::{Listener, Tree},
};
use tokio_util::sync::CancellationToken;

/// Remembers what it was told, and which uploads are owed.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) infos: Mutex<Vec<String>>,
    pub(super) warnings: Mutex<Vec<String>>,
    pub(super) owed: Mutex<Vec<(DebtId, String, String)>>,
    next: AtomicI64,
}

impl Listener for Told {
    fn info(&self, text: &str) {
        self.infos.lock().unwrap().push(text.to_owned());
    }

    fn warn(&self, text: &str) {
        self.warnings.lock().unwrap().push(text.to_owned());
    }

    fn progress(&self, _: u64, _: Option<u64>) {}
}

#[async_trait]
impl Watcher for Told {
    async fn upload_begun(&self, key: &str, upload: &str) -> anyhow::Result<DebtId> {
        let debt = DebtId(self.next.fetch_add(1, Ordering::SeqCst));
        self.owed.lock().unwrap().push((debt, key.to_owned(), upload.to_owned()));
        Ok(debt)
    }

    async fn upload_ended(&self, debt: DebtId) -> anyhow::Result<()> {
        self.owed.lock().unwrap().retain(|(owed, ..)| *owed != debt);
        Ok(())
    }
}

/// A folder with room for a bucket, a spool and what is backed up.
pub(super) struct Place {
    pub(super) root: tempfile::TempDir,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) told: Arc<Told>,
    pub(super) options: Options,
    pub(super) cancelled: CancellationToken,
}

impl Place {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("spool")).unwrap();
        let bucket: Arc<dyn Bucket> = Arc::new(Folder::new(root.path().join("bucket")));
        let cancelled = CancellationToken::new();
        Self { root, bucket, told: Arc::default(), options: Options::default(), cancelled }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(super) async fn writer(&self) -> Writer {
        Writer::begin(self.setting(Arc::clone(&self.bucket))).await.unwrap()
    }

    pub(super) fn setting(&self, bucket: Arc<dyn Bucket>) -> Setting {
        Setting {
            bucket,
            job: "photos".parse().unwrap(),
            at: "2026-11-21T03:15:00Z".parse().unwrap(),
            options: self.options.clone(),
            spool: self.path("spool"),
            watcher: Arc::clone(&self.told) as Arc<dyn Watcher>,
            cancelled: self.cancelled.clone(),
        }
    }

    /// A backup of one tree.
    pub(super) async fn back_up(&self, tree: Tree) -> anyhow::Result<Manifest> {
        let mut writer = self.writer().await;
        match writer.tree("files", tree).await {
            Ok(_) => writer.finish("here".into(), &Clock::system()).await,
            Err(error) => {
                writer.abandon().await;
                Err(error)
            }
        }
    }

    /// Every file in the bucket's folder, whatever it is.
    pub(super) fn stored(&self) -> Vec<PathBuf> {
        files_below(&self.path("bucket"))
    }

    pub(super) fn object(&self, key: &str) -> PathBuf {
        self.path("bucket").join(key)
    }
}

pub(super) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
