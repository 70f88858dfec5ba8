//! Looking for damage: index objects, packs, snapshots and trees; and, if asked, every byte of every pack.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{
    Id, Index, Repository,
    blobs::open_blob,
    crypto::SEAL,
    index::Place,
    node::Node,
    objects::{Class, is_missing},
    pack::{Blob, BlobKind, header_length, read_header},
    snapshot::Snapshot,
};
use crate::{
    text,
    tree::{Listener, cancelled_error},
};

/// Files that are named of each backup; the rest is counted.
const NAMED: usize = 20;

/// How much is looked at.
#[derive(Clone, Debug)]
pub struct Look {
    /// Which backups; none: all of them.
    pub snapshots: Option<Vec<Id>>,
    /// How much of the packs' data is read, from 0 to 1.
    pub data: f64,
    /// Which part of it, so that another day reads another part: any number.
    pub part: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is damaged or missing.
    pub errors: Vec<String>,
    /// What is no damage, but worth a line.
    pub notes: Vec<String>,
    /// Backups that are not whole, each with files of it.
    pub touched: Vec<Touched>,
    /// Backups that were looked at.
    pub snapshots: usize,
    /// Packs that were looked at.
    pub packs: usize,
    /// Blobs in them.
    pub blobs: usize,
    /// Bytes of packs that were read.
    pub read: u64,
}

/// A backup that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Which.
    pub snapshot: Id,
    /// Some of its files that cannot be restored.
    pub files: Vec<PathBuf>,
    /// How many there are.
    pub count: u64,
}

impl Findings {
    /// Nothing is damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.errors.is_empty() && self.touched.is_empty()
    }
}

type Key = (BlobKind, Id);

impl Repository {
    /// Looks for damage.
    ///
    /// # Errors
    /// When the bucket cannot be read at all. What is damaged is no error of the looking.
    pub async fn check(
        &self,
        look: &Look,
        listener: &Arc<dyn Listener>,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<Findings> {
        let mut findings = Findings::default();
        // Before the index: what a backup needs that ends meanwhile may not be in it yet.
        let (snapshots, damaged) = self.snapshots().await?;
        let (index, files) = self.index_as_far_as_whole(&mut findings).await?;
        let packs: HashMap<Id, u64> = self.objects().list(Class::Pack).await?.into_iter().collect();
        let mut bad = HashSet::new();
        let named = packs_of(&index);
        compare(&named, &packs, &mut findings, &mut bad);
        let is_wanted = |id: &Id| look.snapshots.as_ref().is_none_or(|wanted| wanted.contains(id));
        findings.errors.extend(damaged.iter().filter(|damaged| is_wanted(&damaged.id)).map(ToString::to_string));
        let snapshots: Vec<_> = snapshots.into_iter().filter(|(id, _)| is_wanted(id)).collect();
        findings.snapshots = snapshots.len();
        let used = self.walk(&index, &snapshots, &mut findings, &mut bad, cancelled).await?;
        let wanted = self.choose(look, &named, &index, &used);
        findings.packs = wanted.len();
        self.read_packs(wanted, &packs, &mut findings, &mut bad, listener, cancelled).await?;
        findings.blobs = index.len();
        if look.snapshots.is_none() {
            let unknown = packs.keys().filter(|id| !named.contains_key(*id)).count();
            if unknown > 0 {
                let note = format!(
                    "{unknown} packs are of no index: an interrupted backup or a prune left them; `rusuban repository prune` removes them"
                );
                findings.notes.push(note);
            }
            findings.notes.push(format!(
                "{}, {}",
                text::count(files, "index object"),
                text::count(named.len(), "pack")
            ));
        }
        if !bad.is_empty() {
            self.name_touched(&index, &snapshots, &bad, &mut findings).await?;
        }
        Ok(findings)
    }

    async fn index_as_far_as_whole(&self, findings: &mut Findings) -> anyhow::Result<(Index, usize)> {
        let mut index = Index::default();
        let names = self.objects().list(Class::Index).await?;
        for (id, _) in &names {
            match self.index_file(id).await {
                Ok(file) => index.add_all(&file.packs),
                Err(error) if error.is::<super::Damaged>() || is_missing(&error) => {
                    findings.errors.push(format!("{error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        index.settle();
        Ok((index, names.len()))
    }

    /// Which blobs the backups need; what is missing of them is found.
    async fn walk(
        &self,
        index: &Index,
        snapshots: &[(Id, Snapshot)],
        findings: &mut Findings,
        bad: &mut HashSet<Key>,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<HashSet<Key>> {
        let mut used = HashSet::new();
        let mut open: Vec<Id> = snapshots.iter().map(|(_, snapshot)| snapshot.tree).collect();
        while let Some(id) = open.pop() {
            if cancelled.is_cancelled() {
                return Err(cancelled_error().into());
            }
            if !used.insert((BlobKind::Tree, id)) {
                continue;
            }
            match self.tree(index, &id).await {
                Ok(tree) => {
                    for node in tree.nodes {
                        open.extend(node.subtree);
                        for content in node.content.into_iter().flatten() {
                            let key = (BlobKind::Data, content);
                            if used.insert(key) && index.find(BlobKind::Data, &content).is_none() {
                                bad.insert(key);
                            }
                        }
                    }
                }
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => {
                    findings.errors.push(format!("{error:#}"));
                    bad.insert((BlobKind::Tree, id));
                }
            }
        }
        Ok(used)
    }

    /// The packs that are read: a share of them, and all that hold trees, for a copy of those in the cache says nothing of
    /// what is in the bucket.
    fn choose(
        &self,
        look: &Look,
        named: &BTreeMap<Id, Vec<Blob>>,
        index: &Index,
        used: &HashSet<Key>,
    ) -> Vec<(Id, Vec<Blob>)> {
        let needed: Option<BTreeSet<Id>> = look
            .snapshots
            .is_some()
            .then(|| used.iter().filter_map(|(kind, id)| index.find(*kind, id)).map(|place| place.pack).collect());
        // Shares of a hundredth: names are evenly spread, so any byte of them chooses.
        let share = (look.data.clamp(0.0, 1.0) * 100.0).round() as u64;
        named
            .iter()
            .filter(|(id, _)| needed.as_ref().is_none_or(|needed| needed.contains(*id)))
            .filter(|(id, blobs)| {
                let chance = (u64::from(id.0[1]) * 256 + u64::from(id.0[2]) + look.part * share) % 100;
                chance < share || blobs.iter().any(|blob| blob.kind == BlobKind::Tree)
            })
            .map(|(id, blobs)| (*id, blobs.clone()))
            .collect()
    }

    async fn read_packs(
        &self,
        wanted: Vec<(Id, Vec<Blob>)>,
        sizes: &HashMap<Id, u64>,
        findings: &mut Findings,
        bad: &mut HashSet<Key>,
        listener: &Arc<dyn Listener>,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<()> {
        let total: u64 = wanted.iter().filter_map(|(id, _)| sizes.get(id)).sum();
        let there = wanted.into_iter().filter(|(id, _)| sizes.contains_key(id));
        let mut reading = stream::iter(there)
            .map(|(id, blobs)| async move { (id, self.read_pack(&id, &blobs).await, blobs) })
            .buffer_unordered(self.options().connections);
        while let Some((id, read, blobs)) = reading.next().await {
            if cancelled.is_cancelled() {
                return Err(cancelled_error().into());
            }
            match read {
                Ok((size, wrong)) => {
                    findings.read += size;
                    for (blob, why) in wrong {
                        findings.errors.push(why);
                        bad.extend(blob.map(|blob| (blob.kind, blob.id)));
                    }
                }
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => {
                    findings.errors.push(format!("pack {}: {error:#}", id.short()));
                    bad.extend(blobs.iter().map(|blob| (blob.kind, blob.id)));
                }
            }
            listener.progress(findings.read, Some(total));
        }
        Ok(())
    }

    /// The bytes of a pack, and what is wrong with its blobs.
    async fn read_pack(&self, id: &Id, blobs: &[Blob]) -> anyhow::Result<(u64, Vec<(Option<Blob>, String)>)> {
        let mut bytes = self.objects().raw(Class::Pack, id).await?;
        let (key, id, blobs) = (self.objects().key().clone(), *id, blobs.to_vec());
        let looking = tokio::task::spawn_blocking(move || {
            let size = bytes.len() as u64;
            if Id::of(&bytes) == id {
                // What was sealed by us was whole; that the index fits it is what remains to be seen.
                let header = bytes
                    .last_chunk()
                    .context("it is shorter than four bytes")
                    .and_then(|last| header_length(*last, size))
                    .and_then(|length| read_header(&key, &bytes[bytes.len() - length as usize..], size));
                match header {
                    Ok(header) if blobs.iter().all(|blob| header.contains(blob)) => {}
                    Ok(_) => {
                        return (size, vec![(None, format!("pack {}: the index does not fit its header", id.short()))]);
                    }
                    Err(error) => return (size, vec![(None, format!("pack {}: {error:#}", id.short()))]),
                }
            }
            let mut wrong = Vec::new();
            for blob in blobs {
                let (begin, end) = (blob.offset as usize, blob.offset as usize + blob.length as usize);
                let opened = match bytes.get_mut(begin..end) {
                    Some(sealed) => {
                        open_blob(&key, &Place { pack: id, blob }, sealed).map_err(|error| error.to_string())
                    }
                    None => Err(format!("pack {} is too short for its blob {}", id.short(), blob.id.short())),
                };
                if let Err(why) = opened {
                    wrong.push((Some(blob), why));
                }
            }
            (size, wrong)
        });
        looking.await.context("a thread died")
    }

    /// Names the backups and files that cannot be restored.
    async fn name_touched(
        &self,
        index: &Index,
        snapshots: &[(Id, Snapshot)],
        bad: &HashSet<Key>,
        findings: &mut Findings,
    ) -> anyhow::Result<()> {
        // Trees below which nothing is wrong are the same in many backups.
        let mut fine: HashSet<Id> = HashSet::new();
        for (id, snapshot) in snapshots {
            let mut touched = Touched { snapshot: *id, files: Vec::new(), count: 0 };
            self.touched_below(index, snapshot.tree, bad, &mut fine, &mut touched).await;
            if touched.count > 0 {
                findings.touched.push(touched);
            }
        }
        Ok(())
    }

    /// Names what is wrong below a tree. Folders may lie in each other as deep as they like.
    async fn touched_below(
        &self,
        index: &Index,
        top: Id,
        bad: &HashSet<Key>,
        fine: &mut HashSet<Id>,
        touched: &mut Touched,
    ) {
        let mut path = PathBuf::from("/");
        let top = Node { subtree: Some(top), ..Node::new(Vec::new(), super::NodeKind::Dir) };
        // Folders that are open: what is left in each, and whether nothing was wrong so far.
        let mut open = vec![(None, vec![top].into_iter(), true)];
        while let Some((id, nodes, all_fine)) = open.last_mut() {
            let Some(node) = nodes.next() else {
                let (ended, is_fine) = (*id, *all_fine);
                open.pop();
                path.pop();
                match open.last_mut() {
                    Some((.., all_fine)) => *all_fine &= is_fine,
                    None => return,
                }
                fine.extend(ended.filter(|_| is_fine));
                continue;
            };
            let is_whole = !node.content.iter().flatten().any(|id| bad.contains(&(BlobKind::Data, *id)));
            let subtree = node.subtree.filter(|id| !fine.contains(id));
            let below = match subtree {
                Some(id) if is_whole && !bad.contains(&(BlobKind::Tree, id)) => self.tree(index, &id).await.ok(),
                _ => None,
            };
            path.push(node.os_name());
            if let Some(tree) = below {
                open.push((subtree, tree.nodes.into_iter(), true));
                continue;
            }
            if !is_whole || subtree.is_some() {
                *all_fine = false;
                touched.count += 1;
                if touched.files.len() < NAMED {
                    touched.files.push(path.clone());
                }
            }
            path.pop();
        }
    }
}

/// What the index says is in each pack.
pub(super) fn packs_of(index: &Index) -> BTreeMap<Id, Vec<Blob>> {
    let mut packs: BTreeMap<Id, Vec<Blob>> = BTreeMap::new();
    for place in index.all() {
        packs.entry(place.pack).or_default().push(place.blob);
    }
    packs.values_mut().for_each(|blobs| blobs.sort_unstable_by_key(|blob| blob.offset));
    packs
}

/// Bytes that a pack has, by what is in it.
pub(super) fn size_of(blobs: &[Blob]) -> u64 {
    let header: usize = blobs.iter().map(|blob| 37 + if blob.plain.is_some() { 4 } else { 0 }).sum();
    let content: u64 = blobs.iter().map(|blob| u64::from(blob.length)).sum();
    content + (header + SEAL + 4) as u64
}

fn compare(named: &BTreeMap<Id, Vec<Blob>>, found: &HashMap<Id, u64>, findings: &mut Findings, bad: &mut HashSet<Key>) {
    for (id, blobs) in named {
        let expected = size_of(blobs);
        let why = match found.get(id) {
            Some(size) if *size == expected => continue,
            Some(size) => format!("pack {} has {size} bytes instead of {expected}", id.short()),
            None => format!("pack {} is missing", id.short()),
        };
        findings.errors.push(why);
        // What is left of it is read with the rest; what is missing is missing.
        let there = found.get(id).copied().unwrap_or(0);
        let cut = blobs.iter().filter(|blob| u64::from(blob.offset) + u64::from(blob.length) > there);
        bad.extend(cut.map(|blob| (blob.kind, blob.id)));
    }
}

pub(super) fn is_away(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(crate::bucket::BucketError::Unreachable(_) | crate::bucket::BucketError::Refused(_))
        )
    })
}
