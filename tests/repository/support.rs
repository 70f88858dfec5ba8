//! What these tests share: a repository in a folder, and somebody who listens.
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use rusuban::{
    bucket::{Bucket, folder::Folder},
    clock::Clock,
    repository::{
        Backup, Cache, Chunking, Id, Options, Repository, Restored, Setting, Snapshot, Unlock, Wish, chunker::Rule,
    },
    tree::{Listener, Tree},
};
use tokio_util::sync::CancellationToken;

use crate::support::restic::Restic;

pub(super) const PASSWORD: &str = "correct horse";

/// Remembers what it was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) infos: Mutex<Vec<String>>,
    pub(super) warnings: Mutex<Vec<String>>,
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

/// A folder with room for a repository, a spool and what is backed up.
pub(super) struct Place {
    pub(super) root: tempfile::TempDir,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) told: Arc<Told>,
    pub(super) cancelled: CancellationToken,
    pub(super) clock: Clock,
}

/// Small chunks and packs: a little data makes many of them.
pub(super) const SMALL: Chunking = Chunking { chunker: Rule::FastCdc, average: 16 << 10 };

impl Place {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("spool")).unwrap();
        let bucket: Arc<dyn Bucket> = Arc::new(Folder::new(root.path().join("repository")));
        Self { root, bucket, told: Arc::default(), cancelled: CancellationToken::new(), clock: Clock::system() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(super) fn options(&self) -> Options {
        Options { pack_size: 1 << 20, cache: Cache::in_folder(self.path("cache")), ..Options::default() }
    }

    pub(super) async fn create(&self, chunking: Chunking) -> Repository {
        let bucket = Arc::clone(&self.bucket);
        Repository::create(bucket, PASSWORD.as_bytes(), chunking, self.options(), "here", &self.clock).await.unwrap()
    }

    pub(super) async fn open(&self) -> Repository {
        let unlock = Unlock::Password(PASSWORD.into());
        Repository::open(Arc::clone(&self.bucket), &unlock, self.options()).await.unwrap()
    }

    pub(super) fn setting(&self) -> Setting {
        Setting {
            job: "photos".parse().unwrap(),
            run: None,
            host: "here".into(),
            tags: Vec::new(),
            spool: self.path("spool"),
            listener: Arc::clone(&self.told) as Arc<dyn Listener>,
            cancelled: self.cancelled.clone(),
            patience: Duration::ZERO,
        }
    }

    /// A backup of one tree.
    pub(super) async fn back_up(&self, repository: &Repository, path: &Path) -> anyhow::Result<(Id, Snapshot)> {
        let mut backup = Backup::begin(repository.clone(), self.setting(), &self.clock).await?;
        match backup.tree("files", Tree::at(path).even_if_empty(true)).await {
            Ok(_) => backup.finish(&self.clock).await,
            Err(error) => {
                backup.abandon().await;
                Err(error)
            }
        }
    }

    /// Restores what was at `path` to `to`.
    pub(super) async fn restore(
        &self,
        repository: &Repository,
        snapshot: &Snapshot,
        path: &Path,
        change: impl FnOnce(Wish) -> Wish,
    ) -> anyhow::Result<Restored> {
        let index = Arc::new(repository.index().await.unwrap());
        let node = repository.at(&index, snapshot, path).await.unwrap().expect("it is in the backup");
        let wish = change(Wish {
            to: self.path("back"),
            replace: false,
            dry_run: false,
            only: None,
            id: "1".into(),
            is_database: false,
        });
        let listener = Arc::clone(&self.told) as Arc<dyn Listener>;
        repository.restore(&index, node, wish, listener, self.cancelled.clone()).await
    }

    pub(super) fn restic(&self) -> Restic {
        Restic::new(&self.path("repository"), PASSWORD)
    }

    /// Where stock restic puts `original` below the folder it restores to.
    pub(super) fn below(&self, restored: &Path, original: &Path) -> PathBuf {
        restored.join(original.strip_prefix("/").unwrap())
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.told.warnings.lock().unwrap().clone()
    }
}

/// Sizes of all files below a folder.
pub(super) fn sizes(folder: &Path) -> Vec<u64> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            sizes.extend(self::sizes(&entry.path()));
        } else {
            sizes.push(entry.metadata().unwrap().len());
        }
    }
    sizes
}
