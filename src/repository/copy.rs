//! Copying backups into another repository: what it does not have yet is fetched, opened, proven and stored there anew, under its
//! own key. Cut off, the next copy goes on where this one stopped.
use std::{
    collections::HashSet,
    future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{
    Id, Index, Intake, Repository, Saver, Snapshot, Stored, Tree,
    blobs::{Lost, open_blob},
    index::Place,
    lock::Lock,
    objects::{Class, Damaged, is_missing},
    pack::{Blob, BlobKind},
    ranges::{Range, ranges},
};
use crate::{
    clock::Clock,
    tree::{Listener, cancelled_error},
};

/// So many blobs or bytes are looked for before they are fetched.
const BLOBS_AT_ONCE: usize = 20_000;
const BYTES_AT_ONCE: u64 = 256 << 20;
/// Of a pack, so many bytes are in memory at once.
const RANGE: u32 = 4 << 20;
/// After so many bytes, the backups that are complete are written: they are not copied again after an interruption.
const BYTES_PER_ROUND: u64 = 2 << 30;

/// How backups are copied.
#[derive(Clone)]
pub struct CopySetting {
    /// Our host.
    pub host: String,
    /// Another's lock is waited for so long.
    pub patience: Duration,
    /// Hears how far it has come: bytes of packs that have arrived.
    pub listener: Arc<dyn Listener>,
    /// Set when it is to stop.
    pub cancelled: CancellationToken,
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Each backup, and its name there.
    pub backups: Vec<(Id, Id)>,
    /// Backups that could not be copied because they are damaged, and why.
    pub damaged: Vec<(Id, String)>,
    /// What was stored for them.
    pub stored: Stored,
}

impl Snapshot {
    /// Whether this is that backup, wherever it is stored.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        (&self.tree, self.time, &self.hostname, &self.paths) == (&other.tree, other.time, &other.hostname, &other.paths)
    }
}

impl Repository {
    /// Copies these backups into `to`, in their order. Those that are there already are left out by whoever calls.
    ///
    /// # Errors
    /// When something cannot be read or stored. Backups that were complete by then are there.
    pub async fn copy_to(
        &self,
        to: &Self,
        backups: Vec<(Id, Snapshot)>,
        setting: &CopySetting,
        clock: &Clock,
    ) -> anyhow::Result<Copied> {
        ensure!(self.id() != to.id(), "both are the same repository");
        let ours = Lock::take(self, false, &setting.host, setting.patience, clock).await.context("at the source")?;
        let theirs = match Lock::take(to, false, &setting.host, setting.patience, clock).await {
            Ok(lock) => lock,
            Err(error) => {
                ours.release().await?;
                return Err(error.context("at the destination"));
            }
        };
        let copied = self.copy_locked(to, backups, setting).await;
        let released = (ours.release().await, theirs.release().await);
        let copied = copied?;
        released.0.and(released.1)?;
        Ok(copied)
    }

    async fn copy_locked(
        &self,
        to: &Self,
        backups: Vec<(Id, Snapshot)>,
        setting: &CopySetting,
    ) -> anyhow::Result<Copied> {
        let from = self.index().await?;
        let mut copied = Copied::default();
        let mut left = backups.into_iter().peekable();
        while left.peek().is_some() {
            let there = Arc::new(to.index().await?);
            let stopped = setting.cancelled.child_token();
            let saver = Saver::start(to, Arc::clone(&there), stopped.clone());
            let mut round = Round {
                from: self,
                index: &from,
                there: &there,
                intake: saver.intake(),
                setting,
                before: copied.stored.stored,
                seen: HashSet::new(),
                wanted: Vec::new(),
                bytes: 0,
            };
            let mut complete = Vec::new();
            let mut failed = None;
            while saver.so_far().added < BYTES_PER_ROUND {
                let Some((id, snapshot)) = left.next() else { break };
                match round.backup(&snapshot, &saver).await {
                    Ok(()) => complete.push((id, snapshot)),
                    // The others are copied all the same.
                    Err(error) if is_damage(&error) => {
                        round.forget();
                        copied.damaged.push((id, format!("{error:#}")));
                    }
                    Err(error) => {
                        failed = Some(saver.reason(error).context(format!("copy backup {}", id.short())));
                        break;
                    }
                }
            }
            drop(round);
            if let Some(error) = failed {
                stopped.cancel();
                saver.abandon().await;
                return Err(error);
            }
            copied.stored.add(saver.finish().await?);
            for (id, snapshot) in complete {
                let copy = Snapshot { parent: None, original: Some(snapshot.original.unwrap_or(id)), ..snapshot };
                let new = to.put_snapshot(&copy).await?;
                copied.backups.push((id, new));
            }
        }
        Ok(copied)
    }

    /// Stores a snapshot, and proves that it is stored.
    ///
    /// # Errors
    /// When it is not.
    pub(super) async fn put_snapshot(&self, snapshot: &Snapshot) -> anyhow::Result<Id> {
        let id = self.objects().save(Class::Snapshot, serde_json::to_vec(snapshot)?).await?;
        self.prove_snapshot(&id, snapshot).await?;
        Ok(id)
    }

    /// Reads a snapshot back.
    ///
    /// # Errors
    /// When it is not what was sent.
    pub(super) async fn prove_snapshot(&self, id: &Id, sent: &Snapshot) -> anyhow::Result<()> {
        let found = Snapshot::load(self.objects(), id).await.context("read back the snapshot")?;
        ensure!(found == *sent, "the snapshot is stored, but it is not what was sent");
        Ok(())
    }
}

/// Backups that are copied with one saver.
struct Round<'a> {
    from: &'a Repository,
    index: &'a Index,
    there: &'a Index,
    intake: Intake,
    setting: &'a CopySetting,
    before: u64,
    /// What is there, or on its way.
    seen: HashSet<(BlobKind, Id)>,
    wanted: Vec<(Id, Blob, ())>,
    bytes: u64,
}

/// The backup is damaged, rather than that its bucket could not be asked.
fn is_damage(error: &anyhow::Error) -> bool {
    is_missing(error) || error.chain().any(|cause| cause.is::<Lost>() || cause.is::<Damaged>())
}

impl Round<'_> {
    /// What was on its way may not have arrived.
    fn forget(&mut self) {
        self.seen.clear();
        self.wanted.clear();
        self.bytes = 0;
    }

    async fn backup(&mut self, snapshot: &Snapshot, saver: &Saver) -> anyhow::Result<()> {
        let mut trees = vec![snapshot.tree];
        while let Some(id) = trees.pop() {
            ensure!(!self.setting.cancelled.is_cancelled(), cancelled_error());
            if !self.seen.insert((BlobKind::Tree, id)) {
                continue;
            }
            // A tree that is there may lack what is below it: another backup may have lost it.
            let tree: Tree = self.from.tree(self.index, &id).await?;
            self.want(BlobKind::Tree, id)?;
            for node in tree.nodes {
                trees.extend(node.subtree);
                for piece in node.content.into_iter().flatten() {
                    if self.seen.insert((BlobKind::Data, piece)) {
                        self.want(BlobKind::Data, piece)?;
                    }
                }
            }
            if self.wanted.len() >= BLOBS_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
                self.fetch(saver).await?;
            }
        }
        self.fetch(saver).await
    }

    fn want(&mut self, kind: BlobKind, id: Id) -> anyhow::Result<()> {
        if self.there.find(kind, &id).is_none() {
            let Place { pack, blob } = self.index.find(kind, &id).ok_or(Lost { kind, id })?;
            self.bytes += u64::from(blob.length);
            self.wanted.push((pack, blob, ()));
        }
        Ok(())
    }

    async fn fetch(&mut self, saver: &Saver) -> anyhow::Result<()> {
        let options = self.from.options();
        let at_once = options.connections.max(options.threads);
        self.bytes = 0;
        let (mut done, failed) = (Ok(()), AtomicBool::new(false));
        let mut passing = stream::iter(ranges(std::mem::take(&mut self.wanted), RANGE))
            .take_while(|_| future::ready(!failed.load(Ordering::Relaxed)))
            .map(|range| self.pass_on(range, saver))
            .buffer_unordered(at_once);
        // What has begun is waited for even then: the next backup counts on what a thread is about to store.
        while let Some(passed) = passing.next().await {
            failed.fetch_or(passed.is_err(), Ordering::Relaxed);
            done = done.and(passed);
        }
        done
    }

    async fn pass_on(&self, range: Range<()>, saver: &Saver) -> anyhow::Result<()> {
        ensure!(!self.setting.cancelled.is_cancelled(), cancelled_error());
        let Range { pack, begin, end, blobs } = range;
        let mut bytes = self.from.part(&pack, u64::from(begin)..u64::from(end)).await?;
        let (key, intake) = (self.from.objects().key().clone(), self.intake.clone());
        let storing = tokio::task::spawn_blocking(move || {
            let mut tools = intake.tools()?;
            for (blob, ()) in blobs {
                let at = (blob.offset - begin) as usize;
                let content = open_blob(&key, &Place { pack, blob }, &mut bytes[at..at + blob.length as usize])?;
                intake.save(blob.kind, &content, &mut tools)?;
            }
            anyhow::Ok(())
        });
        storing.await.context("a thread died")??;
        self.setting.listener.progress(self.before + saver.so_far().stored, None);
        Ok(())
    }
}
