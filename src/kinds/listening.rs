//! Carries what a backup says on its way to the run's record.
use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;

use super::{Cx, LOCK_PATIENCE, Progress};
use crate::{
    model::{Debt, DebtId},
    plain::Watcher,
    repository::{Backup, Repository, Setting},
    tree::Listener,
};

/// So many bytes are read between two reports.
const REPORT: u64 = 1 << 20;

/// What a backup's reader and writer talk to.
pub(super) struct Listening {
    cx: Cx,
    /// The bucket that uploads go to.
    bucket: String,
    step: Mutex<String>,
    shown: AtomicU64,
    added: AtomicU64,
}

impl Listening {
    pub(super) fn new(cx: &Cx, bucket: &str) -> Arc<Self> {
        let (cx, bucket) = (cx.clone(), bucket.to_owned());
        Arc::new(Self { cx, bucket, step: Mutex::default(), shown: AtomicU64::new(0), added: AtomicU64::new(0) })
    }

    /// Begins a backup of this run's job in a repository, as a step, and is told of it.
    ///
    /// # Errors
    /// When another holds the repository, or it cannot be read.
    pub(super) async fn begin_backup(
        self: &Arc<Self>,
        repository: &Repository,
        spool: &Path,
    ) -> anyhow::Result<Backup> {
        let cx = &self.cx;
        let setting = Setting {
            job: cx.job.clone(),
            run: Some(cx.run),
            host: crate::model::host_name(),
            tags: Vec::new(),
            spool: spool.to_owned(),
            listener: Arc::clone(self) as Arc<dyn Listener>,
            cancelled: cx.cancelled.clone(),
            patience: LOCK_PATIENCE,
        };
        cx.step("open", Backup::begin(repository.clone(), setting, &cx.clock)).await
    }

    /// From now on it is about this step.
    pub(super) fn begin(&self, step: &str) {
        step.clone_into(&mut self.step.lock().unwrap_or_else(PoisonError::into_inner));
        self.shown.store(0, Ordering::Relaxed);
        self.added.store(0, Ordering::Relaxed);
    }

    pub(super) fn step(&self) -> String {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Listener for Listening {
    fn info(&self, text: &str) {
        self.cx.info(text);
    }

    fn warn(&self, text: &str) {
        self.cx.warn(text);
    }

    fn progress(&self, done: u64, total: Option<u64>) {
        let shown = self.shown.load(Ordering::Relaxed);
        if done < shown + REPORT && total != Some(done) {
            return;
        }
        // Another thread that was quicker has told more.
        if self.shown.compare_exchange(shown, done, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let added = Some(self.added.load(Ordering::Relaxed)).filter(|added| *added > 0);
            self.cx.record.progress(Progress { step: self.step(), done, total, added });
        }
    }

    fn added(&self, bytes: u64) {
        self.added.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[async_trait]
impl Watcher for Listening {
    async fn upload_begun(&self, key: &str, upload: &str) -> anyhow::Result<DebtId> {
        let (bucket, key, upload) = (self.bucket.clone(), key.to_owned(), upload.to_owned());
        self.cx.record.owe(Debt::Upload { bucket, key, upload }).await
    }

    async fn upload_ended(&self, debt: DebtId) -> anyhow::Result<()> {
        self.cx.record.paid(debt).await
    }
}
