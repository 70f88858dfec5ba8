//! What becomes of each pack and of each index object.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::ensure;

use super::{
    super::{
        Id, Index,
        check::{packs_of, size_of},
        index::{IndexFile, IndexedPack},
        pack::{Blob, BlobKind},
    },
    Pruned,
};

/// So much of a repository may be of no use before packs are made anew for it: a twentieth.
const WASTE: u64 = 20;
/// Index objects with fewer blobs than this are joined.
const SMALL_INDEX: usize = 10_000;

/// What a prune does.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) drop: BTreeSet<Id>,
    /// With the blobs that are needed of them.
    pub(super) repack: BTreeMap<Id, Vec<Blob>>,
}

impl Plan {
    pub(super) fn goes(&self, pack: &IndexedPack) -> bool {
        self.drop.contains(&pack.id) || self.repack.contains_key(&pack.id)
    }

    /// Index objects that are written anew, and the packs that they name then, those that were made among them.
    pub(super) fn join(&self, files: &[(Id, IndexFile)], made: &[IndexedPack]) -> (Vec<Id>, Vec<IndexedPack>) {
        let blobs = |file: &IndexFile| file.packs.iter().map(|pack| pack.blobs.len()).sum::<usize>();
        let small = files.iter().filter(|(_, file)| blobs(file) < SMALL_INDEX).count();
        let mut packs = made.to_vec();
        let mut seen: HashSet<Id> = packs.iter().map(|pack| pack.id).collect();
        let mut old = Vec::new();
        for (id, file) in files {
            let is_small = small > 1 && blobs(file) < SMALL_INDEX;
            if !is_small && !file.packs.iter().any(|pack| self.goes(pack)) {
                continue;
            }
            old.push(*id);
            packs.extend(file.packs.iter().filter(|pack| !self.goes(pack) && seen.insert(pack.id)).cloned());
        }
        (old, packs)
    }
}

/// Decides what becomes of each pack.
pub(super) fn plan(
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
