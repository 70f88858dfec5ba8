//! A backup that was opened, wherever it is stored, to be read from.
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};

use super::{Backup, Part};
use crate::{
    bucket::Bucket,
    kinds::{Cx, Progress, listening::Listening},
    plain::{self, Manifest, Reading, age::Identity},
    repository::{BlobKind, Index, Node, Repository, Snapshot, SourceFacts, Wish},
    tree::Listener,
};

/// It.
pub(super) enum Opened {
    Repository { repository: Box<Repository>, index: Arc<Index>, snapshot: Box<Snapshot>, id: String },
    Plain { bucket: Arc<dyn Bucket>, manifest: Box<Manifest>, source: String, identities: Vec<Identity> },
}

/// A container in it.
pub(super) struct Stored<'a> {
    pub(super) repository: &'a Repository,
    pub(super) index: &'a Arc<Index>,
    /// The backup's name, for people.
    pub(super) id: &'a str,
    pub(super) source: SourceFacts,
    /// Its folder.
    pub(super) node: Node,
}

/// What came back.
pub(super) struct Filled {
    /// As many as there must be, the top among them.
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) warnings: Vec<String>,
}

impl Filled {
    /// Fails unless there are as many entries as there must be.
    pub(super) fn must_be(&self, there: u64) -> anyhow::Result<()> {
        ensure!(
            there == self.entries,
            "it has {there} entries instead of {}; something else writes to it",
            self.entries
        );
        Ok(())
    }
}

impl Opened {
    pub(super) async fn open(cx: &Cx, backup: &Backup, source: &str) -> anyhow::Result<Self> {
        match backup {
            Backup::Repository { name, id } => {
                let repository = cx.repository(name)?.open().await?;
                let (snapshot, index) = tokio::join!(Snapshot::load(repository.objects(), id), repository.index());
                let (snapshot, index) = (Box::new(snapshot?), Arc::new(index?));
                Ok(Self::Repository { repository: Box::new(repository), index, snapshot, id: id.short() })
            }
            Backup::Bucket { name, job, id, identity } => {
                let bucket = cx.bucket(name)?;
                let listing = plain::list(&bucket, job).await?;
                let manifest = listing.backups.into_iter().find(|backup| backup.id == *id);
                let manifest = Box::new(manifest.with_context(|| format!("there is no backup {job}/{id} any more"))?);
                let identities = match identity {
                    Some(file) => read_keys(file.clone()).await?,
                    None => Vec::new(),
                };
                Ok(Self::Plain { bucket, manifest, source: source.to_owned(), identities })
            }
        }
    }

    /// A container that it holds.
    pub(super) async fn container(&self, name: &str, path: &Path) -> anyhow::Result<Stored<'_>> {
        let Self::Repository { repository, index, snapshot, id } = self else {
            bail!("containers are stored in repositories only");
        };
        let sources = snapshot.rusuban.iter().flat_map(|facts| &facts.sources);
        let source = sources.into_iter().find(|source| source.name == name).cloned();
        let source = source.with_context(|| format!("the backup {id} has no container {name}"))?;
        let node = repository.at(index, snapshot, path).await?;
        let node =
            node.with_context(|| format!("the backup does not have {}, which it says it has", path.display()))?;
        Ok(Stored { repository, index, id, source, node })
    }

    /// Restores a part so that it is at `to` itself.
    pub(super) async fn read(&self, cx: &Cx, part: &Part, to: &Path) -> anyhow::Result<Filled> {
        match self {
            Self::Repository { repository, index, snapshot, id } => {
                let node = repository.at(index, snapshot, &part.path).await?.filter(|node| node.subtree.is_some());
                let node = node.with_context(|| {
                    format!("the backup {id} has no volume `{}`; `rusuban ls` shows what it has", part.old)
                })?;
                if to.exists() {
                    let old = to.to_owned();
                    tokio::task::spawn_blocking(move || std::fs::remove_dir_all(old)).await??;
                }
                let wish = wish(to, id);
                let done = repository.restore(index, node, wish, listener(cx), cx.cancelled.clone()).await?;
                ensure!(done.failed == 0, "files that could not be restored: {}", done.failures.join("; "));
                Ok(Filled { entries: done.entries, bytes: done.bytes, warnings: done.warnings })
            }
            Self::Plain { bucket, manifest, source, identities } => {
                let stored = manifest.sources.iter().find(|one| one.name == *source).map(|one| one.stored.bytes);
                let (record, step) = (Arc::clone(&cx.record), part.new.clone());
                let on_bytes = Arc::new(move |done| {
                    record.progress(Progress { step: step.clone(), done, total: stored, added: None });
                });
                let reading = Reading { identities: identities.clone(), cancelled: cx.cancelled.clone(), on_bytes };
                let done = plain::restore(bucket, manifest, Some(source), to, true, &reading).await?;
                Ok(Filled { entries: done.entries, bytes: done.bytes, warnings: done.warnings })
            }
        }
    }

    /// Its name, for people.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Repository { id, .. } => id,
            Self::Plain { manifest, .. } => &manifest.id,
        }
    }
}

impl Stored<'_> {
    /// A small file of it.
    pub(super) async fn file(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let what = || format!("read {name} of {} in the backup {}", self.source.name, self.id);
        let tree = self.node.subtree.with_context(what)?;
        let tree = self.repository.tree(self.index, &tree).await.with_context(what)?;
        let content = tree.find(name.as_bytes()).and_then(|node| node.content.clone()).with_context(what)?;
        let mut all = Vec::new();
        for id in content {
            all.extend(self.repository.blob(self.index, BlobKind::Data, &id).await.with_context(what)?);
        }
        Ok(all)
    }

    /// All of it, as files.
    pub(super) async fn fetch(&self, cx: &Cx, to: &Path) -> anyhow::Result<()> {
        let wish = wish(to, self.id);
        let done =
            self.repository.restore(self.index, self.node.clone(), wish, listener(cx), cx.cancelled.clone()).await;
        let failures = done?.failures;
        if !failures.is_empty() {
            bail!("the image cannot be brought back whole: {}", failures.join("; "));
        }
        Ok(())
    }
}

fn wish(to: &Path, id: &str) -> Wish {
    Wish { to: to.to_owned(), replace: false, dry_run: false, only: None, id: id.to_owned(), is_database: false }
}

fn listener(cx: &Cx) -> Arc<dyn Listener> {
    let listening = Listening::new(cx, "");
    listening.begin("restore");
    listening
}

async fn read_keys(file: PathBuf) -> anyhow::Result<Vec<Identity>> {
    let what = format!("read the key file {}", file.display());
    let text = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await?.context(what)?;
    Ok(Identity::parse_file(&text)?)
}
