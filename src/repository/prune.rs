//! Removing what no backup needs: packs of which nothing is needed go, those of which little is needed are packed anew.
//!
//! Nobody else is at work meanwhile: the lock says so. And still nothing is removed at once: packs leave the index first, and are removed
//! by a later prune, a day after that at the earliest, unless the index names them again. So a program that honours no
//! locks loses nothing either.
//!
//! On a full disk it goes on as far as it can with what it frees: what has waited is removed before anything is written, packs
//! of which something is needed stay as they are, and index objects are replaced one by one.
mod plan;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use self::plan::{Plan, plan};
use super::{
    Id, Index, Repository,
    blobs::open_blob,
    index::{IndexFile, IndexedPack, Place},
    lock::Lock,
    objects::{Class, is_full},
    pack::{Blob, BlobKind, Building},
};
use crate::{bucket::Put, clock::Clock, text, tree::Listener};

/// Packs that left the index, and when: they are removed later.
const DOOMED: &str = "rusuban-doomed";
/// The note of them, with a line for each.
const MOST_DOOMED: usize = 1 << 30;
/// So much later.
pub const GRACE: TimeDelta = TimeDelta::hours(24);
const BLOBS_PER_INDEX: usize = 50_000;

/// How a prune is done.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// How long packs wait before they are removed.
    pub grace: TimeDelta,
    /// Another's lock is waited for so long.
    pub patience: Duration,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self { dry_run: false, grace: GRACE, patience: Duration::ZERO }
    }
}

/// What was done, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Backups that are there.
    pub snapshots: usize,
    /// Packs before.
    pub packs: usize,
    /// Bytes of blobs that backups need.
    pub needed: u64,
    /// Bytes of blobs that none needs.
    pub unneeded: u64,
    /// Packs of which nothing is needed.
    pub dropped: usize,
    /// Packs made anew without what is not needed.
    pub repacked: usize,
    /// Bytes that were fetched and stored again for that.
    pub repacked_bytes: u64,
    /// Packs that were removed from the bucket.
    pub removed: usize,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Packs that wait to be removed by a later prune.
    pub waiting: usize,
}

/// Packs that wait to be removed, each with the time at which it left the index.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Doomed {
    packs: BTreeMap<Id, DateTime<Utc>>,
}

impl Repository {
    /// Removes what no backup needs.
    ///
    /// # Errors
    /// When another is at work, when a backup is damaged (what it needs is not known then), or the bucket fails.
    pub async fn prune(
        &self,
        options: &PruneOptions,
        host: &str,
        listener: &dyn Listener,
        clock: &Clock,
    ) -> anyhow::Result<Pruned> {
        let take = || Lock::take(self, !options.dry_run, host, options.patience, clock);
        let lock = match take().await {
            Err(error) if is_full(&error) => {
                self.make_room(options, clock).await.with_context(|| format!("{error:#}"))?;
                take().await?
            }
            taken => taken?,
        };
        let pruned = self.prune_locked(options, listener, clock).await;
        let released = lock.release().await;
        let pruned = pruned?;
        released?;
        Ok(pruned)
    }

    async fn prune_locked(
        &self,
        options: &PruneOptions,
        listener: &dyn Listener,
        clock: &Clock,
    ) -> anyhow::Result<Pruned> {
        let Survey { files, mut plan, mut found, named, mut pruned } = self.survey().await?;
        if options.dry_run {
            return Ok(pruned);
        }
        let waiting = self.waiting(&found, (&named, &named), options, clock).await?;
        self.remove(&waiting.over, &mut found, &mut pruned).await?;
        let not_needed = text::count(plan.drop.len(), "pack");
        listener.info(&format!("of no use: {not_needed}; to be packed anew: {}", plan.repack.len()));
        let mut made = Vec::new();
        if let Err(error) = self.repack(&plan, &mut made).await {
            if !is_full(&error) || plan.drop.is_empty() {
                return Err(error);
            }
            // Those that were made are of no index yet.
            for pack in made.drain(..) {
                self.objects().remove(Class::Pack, &pack.id).await?;
            }
            plan.repack.clear();
            (pruned.repacked, pruned.repacked_bytes) = (0, 0);
            listener.warn(&format!(
                "there is no room to pack anything anew ({error:#}): packs of which a part is needed stay as they are this time"
            ));
        }
        self.write_indexes(&files, &plan, &made).await?;
        let left = self.index().await?.packs().into_iter().collect();
        let Waiting { over, still } = self.waiting(&found, (&named, &left), options, clock).await?;
        pruned.waiting = still.packs.len();
        let sealed = self.objects().key().seal(&serde_json::to_vec(&still)?)?;
        self.remove(&over, &mut found, &mut pruned).await?;
        self.objects().bucket().put(DOOMED, sealed.into(), Put::Replace).await.context("note which packs wait")?;
        Ok(pruned)
    }

    /// What is there, what is needed of it, and what shall become of it.
    async fn survey(&self) -> anyhow::Result<Survey> {
        let files = self.index_files().await?;
        let mut index = Index::default();
        for (_, file) in &files {
            index.add_all(&file.packs);
        }
        index.settle();
        let found: HashMap<Id, u64> = self.objects().list(Class::Pack).await?.into_iter().collect();
        let (snapshots, damaged) = self.snapshots().await?;
        if let Some(damaged) = damaged.first() {
            bail!(
                "{damaged}: what it needs is not known, so nothing is removed; `rusuban repository check` tells more"
            );
        }
        let needed = self.needed(&index, snapshots.iter().map(|(_, snapshot)| snapshot.tree).collect()).await?;
        let mut pruned = Pruned { snapshots: snapshots.len(), packs: found.len(), ..Pruned::default() };
        let plan = plan(&index, &needed, &found, self.options().pack_size as u64, &mut pruned)?;
        let named = index.packs().into_iter().collect();
        Ok(Survey { files, plan, found, named, pruned })
    }

    /// Room for a lock where there is none: one pack goes that has waited long enough, if nobody has a lock.
    async fn make_room(&self, options: &PruneOptions, clock: &Clock) -> anyhow::Result<()> {
        let is_alone = self.objects().list(Class::Lock).await?.is_empty();
        let Survey { found, named, .. } = self.survey().await?;
        let over = self.waiting(&found, (&named, &named), options, clock).await?.over;
        match over.first() {
            Some((id, _)) if is_alone && !options.dry_run => self.objects().remove(Class::Pack, id).await,
            _ => bail!("make some room there first: a prune frees more, but has to write a little before it does"),
        }
    }

    async fn index_files(&self) -> anyhow::Result<Vec<(Id, IndexFile)>> {
        let names = self.objects().list(Class::Index).await?;
        stream::iter(names)
            .map(|(id, _)| async move { anyhow::Ok((id, self.index_file(&id).await?)) })
            .buffered(8)
            .try_collect()
            .await
    }

    /// All blobs that these trees need. One that is missing is an error: what is below it is not known.
    async fn needed(&self, index: &Index, mut open: Vec<Id>) -> anyhow::Result<HashSet<(BlobKind, Id)>> {
        let mut needed = HashSet::new();
        while let Some(id) = open.pop() {
            if !needed.insert((BlobKind::Tree, id)) {
                continue;
            }
            let tree =
                self.tree(index, &id).await.context("what a backup needs is not known, so nothing is removed")?;
            for node in tree.nodes {
                open.extend(node.subtree);
                needed.extend(node.content.into_iter().flatten().map(|id| (BlobKind::Data, id)));
            }
        }
        Ok(needed)
    }

    /// Stores the needed blobs of packs in new ones, proven on the way.
    async fn repack(&self, plan: &Plan, made: &mut Vec<IndexedPack>) -> anyhow::Result<()> {
        for kind in [BlobKind::Tree, BlobKind::Data] {
            let mut building = Building::default();
            for (pack, blobs) in &plan.repack {
                let wanted: Vec<Blob> = blobs.iter().filter(|blob| blob.kind == kind).copied().collect();
                if wanted.is_empty() {
                    continue;
                }
                if !building.is_empty() && building.is_full(self.options().pack_size, wanted.len()) {
                    made.push(self.store(std::mem::take(&mut building)).await?);
                }
                let (key, pack) = (self.objects().key().clone(), *pack);
                let bytes = self.objects().raw(Class::Pack, &pack).await?;
                let filling = tokio::task::spawn_blocking(move || {
                    for blob in wanted {
                        let range = blob.offset as usize..blob.offset as usize + blob.length as usize;
                        let sealed = bytes.get(range).context("a pack is too short")?;
                        open_blob(&key, &Place { pack, blob }, &mut sealed.to_vec()).context(
                            "nothing was removed; `rusuban repository check` tells which backups are touched",
                        )?;
                        building.add(blob.id, blob.kind, sealed, blob.plain)?;
                    }
                    anyhow::Ok(building)
                });
                building = filling.await.context("a thread died")??;
            }
            if !building.is_empty() {
                made.push(self.store(building).await?);
            }
        }
        Ok(())
    }

    async fn store(&self, building: Building) -> anyhow::Result<IndexedPack> {
        let key = self.objects().key().clone();
        let pack = tokio::task::spawn_blocking(move || building.finish(&key)).await.context("a thread died")??;
        self.objects().put(Class::Pack, &pack.id, pack.bytes.clone()).await?;
        super::saver::read_back(self, &pack.id, &pack.bytes).await?;
        Ok(IndexedPack::new(pack.id, &pack.blobs))
    }

    /// Writes index objects without the packs that go, and then removes those that named them.
    async fn write_indexes(&self, files: &[(Id, IndexFile)], plan: &Plan, made: &[IndexedPack]) -> anyhow::Result<()> {
        let mut new = HashSet::new();
        let (old, packs) = plan.join(files, made);
        match self.write_joined(packs, &mut new).await {
            Ok(()) => {
                for id in old.iter().filter(|id| !new.contains(*id)) {
                    self.objects().remove(Class::Index, id).await?;
                }
                Ok(())
            }
            Err(error) if is_full(&error) => {
                // All that they name is named by others still.
                for id in &new {
                    self.objects().remove(Class::Index, id).await?;
                }
                let what = "there is no room for a smaller index either: make some there, and prune again";
                self.replace_indexes(files, plan, made).await.context(what)
            }
            Err(error) => Err(error),
        }
    }

    async fn write_joined(&self, packs: Vec<IndexedPack>, new: &mut HashSet<Id>) -> anyhow::Result<()> {
        let (mut batch, mut count) = (Vec::new(), 0);
        for pack in packs {
            count += pack.blobs.len();
            batch.push(pack);
            if count >= BLOBS_PER_INDEX {
                new.insert(super::saver::write_index(self, std::mem::take(&mut batch)).await?);
                count = 0;
            }
        }
        if !batch.is_empty() {
            new.insert(super::saver::write_index(self, batch).await?);
        }
        Ok(())
    }

    /// The same with the least room: those that are of no use go first, then each makes room for the next.
    async fn replace_indexes(
        &self,
        files: &[(Id, IndexFile)],
        plan: &Plan,
        made: &[IndexedPack],
    ) -> anyhow::Result<()> {
        if !made.is_empty() {
            super::saver::write_index(self, made.to_vec()).await?;
        }
        let mut changed: Vec<(&Id, Vec<IndexedPack>)> = files
            .iter()
            .filter(|(_, file)| file.packs.iter().any(|pack| plan.goes(pack)))
            .map(|(id, file)| (id, file.packs.iter().filter(|pack| !plan.goes(pack)).cloned().collect()))
            .collect();
        changed.sort_by_key(|(_, packs)| packs.len());
        for (id, packs) in changed {
            if !packs.is_empty() {
                super::saver::write_index(self, packs).await?;
            }
            self.objects().remove(Class::Index, id).await?;
        }
        Ok(())
    }

    /// Packs that no index names: those that have waited long enough, and those that wait still or begin to. What the index
    /// named until now begins to wait, even if it had waited before: it was used again meanwhile.
    async fn waiting(
        &self,
        found: &HashMap<Id, u64>,
        (named_before, named): (&HashSet<Id>, &HashSet<Id>),
        options: &PruneOptions,
        clock: &Clock,
    ) -> anyhow::Result<Waiting> {
        let (before, now) = (self.doomed().await?, clock.now());
        let mut waiting = Waiting::default();
        for (id, size) in found.iter().filter(|(id, _)| !named.contains(*id)) {
            let since = before.packs.get(id).copied().filter(|_| !named_before.contains(id)).unwrap_or(now);
            if now - since >= options.grace {
                waiting.over.push((*id, *size));
            } else {
                waiting.still.packs.insert(*id, since);
            }
        }
        Ok(waiting)
    }

    async fn remove(
        &self,
        packs: &[(Id, u64)],
        found: &mut HashMap<Id, u64>,
        pruned: &mut Pruned,
    ) -> anyhow::Result<()> {
        for (id, size) in packs {
            self.objects().remove(Class::Pack, id).await?;
            found.remove(id);
            pruned.removed += 1;
            pruned.removed_bytes += size;
        }
        Ok(())
    }

    async fn doomed(&self) -> anyhow::Result<Doomed> {
        let sealed = match super::objects::whole(self.objects().bucket(), DOOMED, MOST_DOOMED).await {
            Ok(sealed) => sealed,
            Err(error) if super::is_missing(&error) => return Ok(Doomed::default()),
            Err(error) => return Err(error.context("read which packs wait")),
        };
        // A damaged note only makes packs wait once more.
        let json = self.objects().key().open(&sealed).ok();
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default())
    }
}

/// What a prune finds.
struct Survey {
    files: Vec<(Id, IndexFile)>,
    plan: Plan,
    /// Packs that are there, with their bytes.
    found: HashMap<Id, u64>,
    /// Packs that index objects name.
    named: HashSet<Id>,
    pruned: Pruned,
}

/// Packs that no index names.
#[derive(Debug, Default)]
struct Waiting {
    over: Vec<(Id, u64)>,
    still: Doomed,
}
