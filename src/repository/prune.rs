//! Removing what no backup needs: packs of which nothing is needed go, those of which little is needed are packed anew.
//!
//! Nobody else is at work meanwhile: the lock says so. And still nothing is removed at once: packs leave the index first, and are removed
//! by a later prune, a day after that at the earliest, unless the index names them again. So a program that honours no
//! locks loses nothing either.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::{
    Id, Index, Repository,
    blobs::open_blob,
    check::{packs_of, size_of},
    index::{IndexFile, IndexedPack, Place},
    lock::Lock,
    objects::Class,
    pack::{Blob, BlobKind, Building},
};
use crate::{bucket::Put, clock::Clock, tree::Listener};

/// Packs that left the index, and when: they are removed later.
const DOOMED: &str = "rusuban-doomed";
/// The note of them, with a line for each.
const MOST_DOOMED: usize = 1 << 30;
/// So much later.
pub const GRACE: TimeDelta = TimeDelta::hours(24);
/// So much of a repository may be of no use before packs are made anew for it: a twentieth.
const WASTE: u64 = 20;
/// Index objects with fewer blobs than this are joined.
const SMALL_INDEX: usize = 10_000;
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
        let lock = Lock::take(self, !options.dry_run, host, options.patience, clock).await?;
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
        let files = self.index_files().await?;
        let mut index = Index::default();
        for (_, file) in &files {
            file.packs.iter().for_each(|pack| index.add(pack.id, pack.blobs.iter().map(super::IndexedBlob::blob)));
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
        if options.dry_run {
            return Ok(pruned);
        }
        listener.info(&format!("{} packs are not needed, {} are packed anew", plan.drop.len(), plan.repack.len()));
        let made = self.repack(&plan).await?;
        self.write_indexes(files, &plan, made).await?;
        self.remove_doomed(&found, options, clock, &mut pruned).await?;
        Ok(pruned)
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
            let tree = self.tree(index, &id).await.context("a backup is not whole, so nothing is removed")?;
            for node in tree.nodes {
                open.extend(node.subtree);
                needed.extend(node.content.into_iter().flatten().map(|id| (BlobKind::Data, id)));
            }
        }
        Ok(needed)
    }

    /// Stores the needed blobs of packs in new ones, proven on the way.
    async fn repack(&self, plan: &Plan) -> anyhow::Result<Vec<IndexedPack>> {
        let mut made = Vec::new();
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
        Ok(made)
    }

    async fn store(&self, building: Building) -> anyhow::Result<IndexedPack> {
        let key = self.objects().key().clone();
        let pack = tokio::task::spawn_blocking(move || building.finish(&key)).await.context("a thread died")??;
        self.objects().put(Class::Pack, &pack.id, pack.bytes.clone()).await?;
        super::saver::read_back(self, &pack.id, &pack.bytes).await?;
        Ok(IndexedPack::new(pack.id, &pack.blobs))
    }

    /// Writes index objects without the packs that go, and then removes those that named them.
    async fn write_indexes(
        &self,
        files: Vec<(Id, IndexFile)>,
        plan: &Plan,
        mut packs: Vec<IndexedPack>,
    ) -> anyhow::Result<()> {
        let goes = |pack: &IndexedPack| plan.drop.contains(&pack.id) || plan.repack.contains_key(&pack.id);
        let blobs = |file: &IndexFile| file.packs.iter().map(|pack| pack.blobs.len()).sum::<usize>();
        let small = files.iter().filter(|(_, file)| blobs(file) < SMALL_INDEX).count();
        let mut old = Vec::new();
        let mut seen: HashSet<Id> = packs.iter().map(|pack| pack.id).collect();
        for (id, file) in files {
            let is_small = small > 1 && blobs(&file) < SMALL_INDEX;
            if !is_small && !file.packs.iter().any(goes) {
                continue;
            }
            old.push(id);
            packs.extend(file.packs.into_iter().filter(|pack| !goes(pack) && seen.insert(pack.id)));
        }
        let (mut batch, mut count) = (Vec::new(), 0);
        let mut new = HashSet::new();
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
        for id in old.iter().filter(|id| !new.contains(*id)) {
            self.objects().remove(Class::Index, id).await?;
        }
        Ok(())
    }

    /// Packs that no index names: those that wait long enough are removed, the others begin to wait.
    async fn remove_doomed(
        &self,
        found: &HashMap<Id, u64>,
        options: &PruneOptions,
        clock: &Clock,
        pruned: &mut Pruned,
    ) -> anyhow::Result<()> {
        let named: BTreeSet<Id> = self.index().await?.packs().into_iter().collect();
        let before = self.doomed().await?;
        let now = clock.now();
        let mut waiting = Doomed::default();
        let mut go = Vec::new();
        for (id, size) in found.iter().filter(|(id, _)| !named.contains(*id)) {
            let since = before.packs.get(id).copied().unwrap_or(now);
            if now - since >= options.grace {
                go.push((*id, *size));
            } else {
                waiting.packs.insert(*id, since);
            }
        }
        pruned.waiting = waiting.packs.len();
        let sealed = self.objects().key().seal(&serde_json::to_vec(&waiting)?)?;
        self.objects().bucket().put(DOOMED, sealed.into(), Put::Replace).await.context("note which packs wait")?;
        for (id, size) in go {
            self.objects().remove(Class::Pack, &id).await?;
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

#[derive(Debug, Default)]
struct Plan {
    drop: BTreeSet<Id>,
    /// With the blobs that are needed of them.
    repack: BTreeMap<Id, Vec<Blob>>,
}

/// Decides what becomes of each pack.
fn plan(
    index: &Index,
    needed: &HashSet<(BlobKind, Id)>,
    found: &HashMap<Id, u64>,
    pack_size: u64,
    pruned: &mut Pruned,
) -> anyhow::Result<Plan> {
    for (kind, id) in needed {
        ensure!(
            index.find(*kind, id).is_some(),
            "a backup needs the blob {}, which is in no pack: nothing is removed; `rusuban repository check` tells which",
            id.short()
        );
    }
    let mut plan = Plan::default();
    let mut partly = Vec::new();
    for (id, blobs) in packs_of(index) {
        // Of a blob that lies in several packs, the one counts at which it is found.
        let is_needed = |blob: &&Blob| {
            needed.contains(&(blob.kind, blob.id))
                && index.find(blob.kind, &blob.id).is_some_and(|place| place.pack == id)
        };
        let kept: Vec<Blob> = blobs.iter().filter(is_needed).copied().collect();
        let bytes = |blobs: &[Blob]| blobs.iter().map(|blob| u64::from(blob.length)).sum::<u64>();
        let (all, used) = (bytes(&blobs), bytes(&kept));
        pruned.needed += used;
        pruned.unneeded += all - used;
        if kept.is_empty() {
            plan.drop.insert(id);
        } else {
            ensure!(
                found.get(&id) == Some(&size_of(&blobs)),
                "the pack {} is missing or damaged, and backups need it: nothing is removed; `rusuban repository check` tells which",
                id.short()
            );
            let is_small = size_of(&blobs) < pack_size / 4;
            if used < all || is_small {
                partly.push((id, kept, all, used, is_small));
            }
        }
    }
    pruned.dropped = plan.drop.len();
    // Those with the most waste first, until little is left.
    partly.sort_by_key(|(.., all, used, _)| std::cmp::Reverse((all - used) * 1000 / all.max(&1)));
    let mut waste: u64 = partly.iter().map(|(.., all, used, _)| all - used).sum();
    let many_small = partly.iter().filter(|(.., is_small)| *is_small).count() >= 10;
    for (id, kept, all, used, is_small) in partly {
        if waste * WASTE > pruned.needed && used < all || is_small && many_small {
            waste -= all - used;
            pruned.repacked += 1;
            pruned.repacked_bytes += used;
            plan.repack.insert(id, kept);
        }
    }
    Ok(plan)
}
