//! Rescuing what is whole of a damaged repository: blobs of damaged packs are stored anew, the index names what is there, and
//! backups are written again without what is lost, each marked as partial.
//!
//! Whatever goes is removed after what stands for it was stored and read back, so a repair that is cut off is done again.
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
    vec,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    Id, Index, IndexFile, IndexedBlob, IndexedPack, Intake, Repository, Saver, Snapshot, Tree,
    check::{is_away, packs_of},
    index::Place,
    lock::Lock,
    node::Node,
    objects::{Class, Damaged, is_missing},
    pack::{Blob, BlobKind},
};
use crate::{
    clock::Clock,
    tree::{Listener, cancelled_error},
};

/// Things that are named of each backup; the rest is counted.
const NAMED: usize = 20;

/// How a repository is repaired.
#[derive(Clone)]
pub struct RepairOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Our host.
    pub host: String,
    /// Another's lock is waited for so long.
    pub patience: Duration,
    /// Hears how far it has come.
    pub listener: Arc<dyn Listener>,
    /// Set when it is to stop.
    pub cancelled: CancellationToken,
}

/// What was done, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Packs that were read.
    pub packs: usize,
    /// Whole packs that no index named.
    pub indexed: usize,
    /// Packs that are damaged or missing, and why.
    pub damaged: Vec<(Id, String)>,
    /// Blobs of them that are whole.
    pub rescued: usize,
    /// Blobs of them that are not.
    pub lost: usize,
    /// Index objects and snapshots that cannot be read.
    pub unreadable: Vec<String>,
    /// Backups of which something is lost.
    pub backups: Vec<Mended>,
}

impl Repaired {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.indexed == 0 && self.damaged.is_empty() && self.unreadable.is_empty() && self.backups.is_empty()
    }
}

/// A backup of which something is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mended {
    /// Which.
    pub old: Id,
    /// The one that stands for it now; none when nothing of it can be read, or nothing was done.
    pub new: Option<Id>,
    /// Some of what is lost.
    pub lost: Vec<PathBuf>,
    /// How many things are lost.
    pub count: u64,
}

/// What lies in the bucket.
#[derive(Default)]
struct Inventory {
    /// Index objects that can be read.
    files: Vec<(Id, IndexFile)>,
    /// Index objects that cannot.
    unreadable: Vec<Id>,
    /// Whole packs.
    good: HashMap<Id, Vec<Blob>>,
    /// Damaged packs, with what should be in them.
    bad: HashMap<Id, Vec<Blob>>,
    /// Those of them that are there at all.
    there: HashSet<Id>,
}

impl Repository {
    /// Rescues what is whole.
    ///
    /// # Errors
    /// When another is at work, or the bucket fails.
    pub async fn repair(&self, options: &RepairOptions, clock: &Clock) -> anyhow::Result<Repaired> {
        let lock = Lock::take(self, !options.dry_run, &options.host, options.patience, clock).await?;
        let repaired = self.repair_locked(options).await;
        let released = lock.release().await;
        let repaired = repaired?;
        released?;
        Ok(repaired)
    }

    async fn repair_locked(&self, options: &RepairOptions) -> anyhow::Result<Repaired> {
        let mut repaired = Repaired::default();
        // Before the packs: a dry run locks nobody out, and a backup that ends meanwhile has lost nothing.
        let snapshots = self.snapshots().await?;
        let inventory = self.inventory(options, &mut repaired).await?;
        let rescued = self.rescue(&inventory, options, &mut repaired).await?;
        let index = if options.dry_run {
            index_of(inventory.good.iter().chain(&rescued))
        } else {
            self.index_anew(&inventory).await?;
            self.index().await?
        };
        self.mend(snapshots, &Arc::new(index), options, &mut repaired).await?;
        if !options.dry_run {
            for id in &inventory.there {
                self.objects().remove(Class::Pack, id).await?;
            }
        }
        Ok(repaired)
    }

    /// Reads everything.
    async fn inventory(&self, options: &RepairOptions, repaired: &mut Repaired) -> anyhow::Result<Inventory> {
        let mut found = Inventory::default();
        let mut index = Index::default();
        for (id, _) in self.objects().list(Class::Index).await? {
            match self.index_file(&id).await {
                Ok(file) => {
                    index.add_all(&file.packs);
                    found.files.push((id, file));
                }
                Err(error) if error.is::<Damaged>() || is_missing(&error) => {
                    repaired.unreadable.push(format!("{error:#}"));
                    found.unreadable.push(id);
                }
                Err(error) => return Err(error),
            }
        }
        index.settle();
        let named = packs_of(&index);
        let packs = self.objects().list(Class::Pack).await?;
        let total: u64 = packs.iter().map(|(_, size)| size).sum();
        repaired.packs = packs.len();
        let there: HashSet<Id> = packs.iter().map(|(id, _)| *id).collect();
        let mut reading = stream::iter(packs)
            .map(|(id, size)| async move { (id, size, self.whole_pack(&id, size).await) })
            .buffer_unordered(self.options().connections);
        let mut done = 0;
        while let Some((id, size, read)) = reading.next().await {
            if options.cancelled.is_cancelled() {
                return Err(cancelled_error().into());
            }
            done += size;
            options.listener.progress(done, Some(total));
            match read {
                Ok(blobs) => {
                    repaired.indexed += usize::from(!named.contains_key(&id));
                    found.good.insert(id, blobs);
                }
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => {
                    repaired.damaged.push((id, format!("{error:#}")));
                    // Its own header may still say what is in it.
                    let told = match named.get(&id) {
                        Some(blobs) => blobs.clone(),
                        None => match self.header(&id, size).await {
                            Err(error) if is_away(&error) => return Err(error),
                            told => told.unwrap_or_default(),
                        },
                    };
                    found.bad.insert(id, told);
                    found.there.insert(id);
                }
            }
        }
        for (id, blobs) in named.into_iter().filter(|(id, _)| !there.contains(id)) {
            repaired.damaged.push((id, "it is missing".to_owned()));
            found.bad.insert(id, blobs);
        }
        repaired.damaged.sort();
        Ok(found)
    }

    /// What is in a pack, all of which was read and is as it was stored.
    async fn whole_pack(&self, id: &Id, size: u64) -> anyhow::Result<Vec<Blob>> {
        let bytes = self.objects().raw(Class::Pack, id).await?;
        let wanted = *id;
        let hashing = tokio::task::spawn_blocking(move || Id::of(&bytes) == wanted);
        anyhow::ensure!(hashing.await.context("a thread died")?, "its content does not fit its name");
        self.header(id, size).await
    }

    /// Stores blobs of damaged packs that no whole pack has. What was found, and where it was.
    async fn rescue(
        &self,
        inventory: &Inventory,
        options: &RepairOptions,
        repaired: &mut Repaired,
    ) -> anyhow::Result<HashMap<Id, Vec<Blob>>> {
        let mut found: HashMap<Id, Vec<Blob>> = HashMap::new();
        if inventory.bad.is_empty() {
            return Ok(found);
        }
        let index = Arc::new(index_of(&inventory.good));
        let stopped = options.cancelled.child_token();
        let saver = Saver::start(self, Arc::clone(&index), stopped.clone());
        let (mut rescued, mut lost) = (HashSet::new(), HashSet::new());
        let mut rescuing = async || {
            for (pack, blobs) in &inventory.bad {
                for blob in blobs.iter().filter(|blob| index.find(blob.kind, &blob.id).is_none()) {
                    // What is damaged in one pack may be whole in another.
                    let name = (blob.kind, blob.id);
                    if rescued.contains(&name) {
                        continue;
                    }
                    // Trees are also looked for in copies on this machine.
                    match self.blob_at(Place { pack: *pack, blob: *blob }).await {
                        Ok(content) => {
                            rescued.insert(name);
                            found.entry(*pack).or_default().push(*blob);
                            if !options.dry_run {
                                save(saver.intake(), blob.kind, content).await?;
                            }
                        }
                        Err(error) if is_away(&error) => return Err(error),
                        Err(_) => _ = lost.insert(name),
                    }
                }
            }
            Ok(())
        };
        let done = rescuing().await;
        end(saver, done, &stopped).await?;
        (repaired.rescued, repaired.lost) = (rescued.len(), lost.difference(&rescued).count());
        Ok(found)
    }

    /// Index objects that name what is there, and then none that name what is not.
    async fn index_anew(&self, inventory: &Inventory) -> anyhow::Result<()> {
        let mut named: HashSet<Id> = HashSet::new();
        let mut old = Vec::new();
        for (id, file) in &inventory.files {
            if file.packs.iter().all(|pack| inventory.good.get(&pack.id).is_some_and(|blobs| fits(pack, blobs))) {
                named.extend(file.packs.iter().map(|pack| pack.id));
            } else {
                old.push(id);
            }
        }
        let missing = inventory.good.iter().filter(|(id, _)| !named.contains(*id));
        let packs: Vec<IndexedPack> = missing.map(|(id, blobs)| IndexedPack::new(*id, blobs)).collect();
        if !packs.is_empty() {
            super::saver::write_index(self, packs).await?;
        }
        for id in old.into_iter().chain(&inventory.unreadable) {
            self.objects().remove(Class::Index, id).await?;
        }
        Ok(())
    }

    /// Writes backups again without what is lost.
    async fn mend(
        &self,
        (snapshots, damaged): (Vec<(Id, Snapshot)>, Vec<Damaged>),
        index: &Arc<Index>,
        options: &RepairOptions,
        repaired: &mut Repaired,
    ) -> anyhow::Result<()> {
        for damaged in damaged {
            match self.objects().raw(Class::Snapshot, &damaged.id).await {
                Ok(bytes) if Id::of(&bytes) == damaged.id => {
                    let why = "it is as it was stored, perhaps by a newer program, and left alone";
                    repaired.unreadable.push(format!("{damaged}; {why}"));
                    continue;
                }
                Err(error) if is_away(&error) => return Err(error),
                _ => repaired.unreadable.push(damaged.to_string()),
            }
            if !options.dry_run {
                self.objects().remove(Class::Snapshot, &damaged.id).await?;
            }
        }
        let stopped = options.cancelled.child_token();
        let saver = Saver::start(self, Arc::clone(index), stopped.clone());
        let mut mending = Mending {
            repository: self,
            index,
            intake: (!options.dry_run).then(|| saver.intake()),
            fine: HashSet::new(),
            cancelled: &options.cancelled,
        };
        let mut mended = Vec::new();
        let mut failed = Ok(());
        for (id, snapshot) in &snapshots {
            let mut lost = Lost::default();
            match mending.tree(snapshot.tree, &mut lost).await {
                Ok(_) if lost.count == 0 => {}
                Ok(tree) => mended.push((*id, snapshot, tree, lost)),
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
        }
        drop(mending);
        end(saver, failed, &stopped).await?;
        for (old, snapshot, tree, Lost { paths: lost, count }) in mended {
            let new = match tree {
                Some(tree) if !options.dry_run => {
                    let new = partial(old, snapshot, tree, &lost, count);
                    // A repair that was killed may have stored it.
                    let stored = snapshots.iter().find(|(_, known)| *known == new).map(|(id, _)| *id);
                    Some(match stored {
                        Some(id) => id,
                        None => self.put_snapshot(&new).await?,
                    })
                }
                _ => None,
            };
            if !options.dry_run {
                self.objects().remove(Class::Snapshot, &old).await?;
            }
            repaired.backups.push(Mended { old, new, lost, count });
        }
        Ok(())
    }
}

/// Whether the index says of a pack what its header says.
fn fits(pack: &IndexedPack, blobs: &[Blob]) -> bool {
    let mut named: Vec<Blob> = pack.blobs.iter().map(IndexedBlob::blob).collect();
    named.sort_unstable_by_key(|blob| blob.offset);
    named == blobs
}

fn index_of<'a>(packs: impl IntoIterator<Item = (&'a Id, &'a Vec<Blob>)>) -> Index {
    let mut index = Index::default();
    packs.into_iter().for_each(|(id, blobs)| index.add(*id, blobs.iter().copied()));
    index.settle();
    index
}

/// The backup without what is lost.
fn partial(old: Id, snapshot: &Snapshot, tree: Id, lost: &[PathBuf], count: u64) -> Snapshot {
    let mut new = Snapshot { tree, parent: None, original: Some(snapshot.original.unwrap_or(old)), ..snapshot.clone() };
    new.tags.get_or_insert_default().push("repaired".to_owned());
    if let Some(facts) = &mut new.rusuban {
        facts.partial = true;
        facts.warnings.extend(lost.iter().map(|path| format!("lost with a damaged pack: {}", path.display())));
        if count > lost.len() as u64 {
            facts.warnings.push(format!("and {} more things", count - lost.len() as u64));
        }
    }
    new
}

async fn save(intake: Intake, kind: BlobKind, content: Vec<u8>) -> anyhow::Result<Id> {
    let saving = tokio::task::spawn_blocking(move || intake.save(kind, &content, &mut intake.tools()?));
    Ok(saving.await.context("a thread died")??.id)
}

async fn end(saver: Saver, done: anyhow::Result<()>, stopped: &CancellationToken) -> anyhow::Result<()> {
    match done {
        Ok(()) => saver.finish().await.map(drop),
        Err(error) => {
            let error = saver.reason(error);
            stopped.cancel();
            saver.abandon().await;
            Err(error)
        }
    }
}

/// What is lost of a backup.
#[derive(Default)]
struct Lost {
    paths: Vec<PathBuf>,
    count: u64,
}

impl Lost {
    fn add(&mut self, path: &Path) {
        self.count += 1;
        if self.paths.len() < NAMED {
            self.paths.push(path.to_owned());
        }
    }
}

struct Mending<'a> {
    repository: &'a Repository,
    index: &'a Index,
    /// Where trees that are made anew are stored; none: they are only looked at.
    intake: Option<Intake>,
    /// Trees below which all is there.
    fine: HashSet<Id>,
    cancelled: &'a CancellationToken,
}

/// A folder that is being mended.
struct Open {
    /// Its tree, as it was.
    id: Id,
    /// It in the folder above; none: it is the top.
    node: Option<Node>,
    path: PathBuf,
    left: vec::IntoIter<Node>,
    kept: Vec<Node>,
    is_changed: bool,
}

impl Mending<'_> {
    /// The tree without what is lost; none when it cannot be read at all.
    async fn tree(&mut self, top: Id, lost: &mut Lost) -> anyhow::Result<Option<Id>> {
        let Some(tree) = self.read(&top).await? else {
            lost.add(Path::new("/"));
            return Ok(None);
        };
        let path = PathBuf::from("/");
        let mut open =
            vec![Open { id: top, node: None, path, left: tree.nodes.into_iter(), kept: Vec::new(), is_changed: false }];
        while let Some(here) = open.last_mut() {
            let Some(node) = here.left.next() else {
                let Some(ended) = open.pop() else { break };
                let new = self.close(ended.id, ended.kept, ended.is_changed).await?;
                match (open.last_mut(), ended.node) {
                    (Some(above), Some(node)) => {
                        above.is_changed |= ended.is_changed;
                        above.kept.push(Node { subtree: Some(new), ..node });
                    }
                    _ => return Ok(Some(new)),
                }
                continue;
            };
            let path = here.path.join(node.os_name());
            let is_there = |id: &Id| self.index.find(BlobKind::Data, id).is_some();
            match node.subtree {
                None if node.content.iter().flatten().all(is_there) => here.kept.push(node),
                None => {
                    lost.add(&path);
                    here.is_changed = true;
                }
                Some(id) if self.fine.contains(&id) => here.kept.push(node),
                Some(id) => match self.read(&id).await? {
                    Some(tree) => {
                        let (left, kept) = (tree.nodes.into_iter(), Vec::new());
                        open.push(Open { id, node: Some(node), path, left, kept, is_changed: false });
                    }
                    // The folder is there; what was in it is not known.
                    None => {
                        lost.add(&path);
                        let empty = self.close(id, Vec::new(), true).await?;
                        if let Some(here) = open.last_mut() {
                            here.is_changed = true;
                            here.kept.push(Node { subtree: Some(empty), ..node });
                        }
                    }
                },
            }
        }
        Ok(None)
    }

    async fn read(&self, id: &Id) -> anyhow::Result<Option<Tree>> {
        if self.cancelled.is_cancelled() {
            return Err(cancelled_error().into());
        }
        match self.repository.tree(self.index, id).await {
            Ok(tree) => Ok(Some(tree)),
            Err(error) if is_away(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn close(&mut self, old: Id, nodes: Vec<Node>, is_changed: bool) -> anyhow::Result<Id> {
        if !is_changed {
            self.fine.insert(old);
            return Ok(old);
        }
        match &self.intake {
            Some(intake) => save(intake.clone(), BlobKind::Tree, Tree { nodes }.to_json()?).await,
            None => Ok(old),
        }
    }
}
