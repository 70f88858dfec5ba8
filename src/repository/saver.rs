//! Storing blobs: from many threads, each blob once, packed, several packs on their way at a time, and indexed when they
//! have arrived and were read back. Bounded: when the bucket is slow, those who store wait.
use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Id, Index, Repository,
    crypto::SEAL,
    index::{IndexFile, IndexedPack},
    objects::Class,
    pack::{BlobKind, Building, Pack},
};

/// An index object is written after so many blobs, or so long after the one before it: what has arrived by then is not
/// sent again after an interruption.
const BLOBS_PER_INDEX: usize = 50_000;
const INDEX_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at what is on its way.
const SETTLING: Duration = Duration::from_millis(20);
/// Asked to stop, what is on its way gets so long to arrive.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// What saves less than a fiftieth is stored as it is: it is read faster.
const WORTH_COMPRESSING: usize = 50;

/// Takes blobs. Shared by threads; ended by [`Saver::finish`] or [`Saver::abandon`].
#[derive(Debug)]
pub struct Saver {
    shared: Arc<Shared>,
    packs: mpsc::Sender<Pack>,
    storing: JoinHandle<()>,
}

/// The part of a [`Saver`] that threads hold. It ends when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Intake {
    shared: Arc<Shared>,
    packs: mpsc::Sender<Pack>,
}

#[derive(Debug)]
struct Shared {
    repository: Repository,
    index: Arc<Index>,
    /// Blobs that were not there before: those that are stored once are not stored again.
    fresh: Mutex<HashSet<(BlobKind, Id)>>,
    building: [Mutex<Building>; 2],
    /// Places for packs to come. Whoever begins a pack waits for one.
    places: Receiver<()>,
    /// Memory of packs that have arrived, the last one on top: it is used again before more is taken.
    memory: Mutex<Vec<Vec<u8>>>,
    stopped: CancellationToken,
    /// Why it was stopped, if it was the bucket.
    failure: Mutex<Option<anyhow::Error>>,
    counted: Counted,
}

/// What a thread needs to store blobs.
pub struct Tools {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    buffer: Vec<u8>,
}

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub id: Id,
    /// It was not there before.
    pub is_new: bool,
}

/// Counts what is stored, while it goes on.
#[derive(Debug, Default)]
struct Counted {
    data_blobs: AtomicU64,
    tree_blobs: AtomicU64,
    added: AtomicU64,
    packed: AtomicU64,
    stored: AtomicU64,
}

/// What was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// New pieces of files.
    pub data_blobs: u64,
    /// New lists of what is in folders.
    pub tree_blobs: u64,
    /// Bytes that were new.
    pub added: u64,
    /// The same, compressed and sealed.
    pub packed: u64,
    /// Bytes of packs that have arrived and were read back.
    pub stored: u64,
}

impl Stored {
    /// Counts those as well.
    pub(super) fn add(&mut self, more: Self) {
        self.data_blobs += more.data_blobs;
        self.tree_blobs += more.tree_blobs;
        self.added += more.added;
        self.packed += more.packed;
        self.stored += more.stored;
    }
}

impl Saver {
    /// Takes blobs that `index` does not have. `stopped` is set when the bucket fails, and may be set to stop it.
    #[must_use]
    pub fn start(repository: &Repository, index: Arc<Index>, stopped: CancellationToken) -> Self {
        // One is being filled while others are on their way.
        let packs = repository.options().connections + 1;
        let (arrived, places) = bounded(packs);
        for _ in 0..packs {
            let _ = arrived.try_send(());
        }
        let shared = Arc::new(Shared {
            repository: repository.clone(),
            index,
            fresh: Mutex::default(),
            building: Default::default(),
            places,
            memory: Mutex::default(),
            stopped,
            failure: Mutex::default(),
            counted: Counted::default(),
        });
        let (packs, arriving) = mpsc::channel(1);
        let storing = tokio::spawn(store(Arc::clone(&shared), arriving, arrived));
        Self { shared, packs, storing }
    }

    /// For a thread that stores blobs.
    #[must_use]
    pub fn intake(&self) -> Intake {
        Intake { shared: Arc::clone(&self.shared), packs: self.packs.clone() }
    }

    /// Why blobs could not be stored: what the bucket said, if it failed, for those who store only learn that they must stop.
    #[must_use]
    pub fn reason(&self, error: anyhow::Error) -> anyhow::Error {
        lock(&self.shared.failure).take().unwrap_or(error)
    }

    /// What was stored so far.
    #[must_use]
    pub fn so_far(&self) -> Stored {
        self.shared.counted.read()
    }

    /// Waits until no pack is on its way, or until storing has ended: as many as there are places can then be stored without waiting.
    pub async fn settle(&self) {
        let places = self.shared.repository.options().connections + 1;
        while self.shared.places.len() < places && !self.shared.stopped.is_cancelled() {
            tokio::time::sleep(SETTLING).await;
        }
    }

    /// Waits until all blobs are stored, read back and indexed. All intakes must have been dropped.
    ///
    /// # Errors
    /// When something could not be stored, or is not what was sent.
    pub async fn finish(self) -> anyhow::Result<Stored> {
        for building in &self.shared.building {
            let rest = std::mem::take(&mut *lock(building));
            if rest.is_empty() {
                continue;
            }
            let shared = Arc::clone(&self.shared);
            let finishing = tokio::task::spawn_blocking(move || rest.finish(shared.repository.objects().key()));
            let pack = finishing.await.context("a thread died")??;
            if self.packs.send(pack).await.is_err() {
                break;
            }
        }
        self.end().await
    }

    /// Ends early: what has arrived is indexed, so that it is not sent again; nothing refers to it yet.
    pub async fn abandon(self) {
        if let Err(error) = self.end().await {
            tracing::debug!(error = format!("{error:#}"), "what had arrived could not be indexed");
        }
    }

    async fn end(self) -> anyhow::Result<Stored> {
        let Self { shared, packs, storing } = self;
        drop(packs);
        storing.await.context("the task that stores died")?;
        if let Some(error) = lock(&shared.failure).take() {
            return Err(error);
        }
        ensure!(!shared.stopped.is_cancelled(), "cancelled");
        Ok(shared.counted.read())
    }
}

impl Intake {
    /// What a thread needs.
    ///
    /// # Errors
    /// When zstd cannot start.
    pub fn tools(&self) -> anyhow::Result<Tools> {
        let level = self.shared.repository.options().level;
        let compresses = level != 0 && self.shared.repository.objects().compresses();
        let compressor = compresses.then(|| zstd::bulk::Compressor::new(level)).transpose()?;
        Ok(Tools { compressor, buffer: Vec::new() })
    }

    /// Stores a blob, if it is not there yet. Waits when the bucket is slow. Never called on the runtime's threads.
    ///
    /// # Errors
    /// When storing has failed or was stopped.
    pub fn save(&self, kind: BlobKind, content: &[u8], tools: &mut Tools) -> anyhow::Result<Saved> {
        let shared = &*self.shared;
        let id = Id::of(content);
        let is_known = shared.index.find(kind, &id).is_some() || !lock(&shared.fresh).insert((kind, id));
        if is_known {
            return Ok(Saved { id, is_new: false });
        }
        let (length, plain) = tools.seal(shared.repository.objects().key(), content)?;
        shared.counted.blob(kind, content.len() as u64, length as u64);
        let full = {
            let mut building = lock(&shared.building[usize::from(kind == BlobKind::Tree)]);
            building.add(id, kind, &tools.buffer[..length], plain)?;
            let size = shared.repository.options().pack_size;
            if building.is_full(size, 1) {
                let Ok(()) = shared.places.recv() else { bail!("the bucket failed") };
                // Memory that grows is copied.
                let memory = lock(&shared.memory).pop().unwrap_or_else(|| Vec::with_capacity(size + (1 << 20)));
                Some(std::mem::replace(&mut *building, Building::reusing(memory)))
            } else {
                None
            }
        };
        if let Some(full) = full {
            let pack = full.finish(shared.repository.objects().key())?;
            if self.packs.blocking_send(pack).is_err() {
                bail!("the bucket failed");
            }
        }
        ensure!(!shared.stopped.is_cancelled(), "cancelled");
        Ok(Saved { id, is_new: true })
    }
}

impl Tools {
    /// Compresses where it is worth it, and seals: how much of the buffer it is, and the size before compression if it is compressed.
    fn seal(&mut self, key: &super::Key, content: &[u8]) -> anyhow::Result<(usize, Option<u32>)> {
        let room = zstd::zstd_safe::compress_bound(content.len()) + SEAL;
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let head = SEAL / 2;
        let compressed = match &mut self.compressor {
            Some(compressor) => {
                let size = compressor.compress_to_buffer(content, &mut self.buffer[head..]).context("compress")?;
                Some(size).filter(|size| size + content.len() / WORTH_COMPRESSING < content.len())
            }
            None => None,
        };
        let size = compressed.unwrap_or(content.len());
        if compressed.is_none() {
            self.buffer[head..head + size].copy_from_slice(content);
        }
        let length = size + SEAL;
        key.seal_slice(&mut self.buffer[..length])?;
        let plain = compressed.map(|_| u32::try_from(content.len())).transpose().context("a blob larger than 4 GiB")?;
        Ok((length, plain))
    }
}

impl Counted {
    fn blob(&self, kind: BlobKind, added: u64, packed: u64) {
        let blobs = if kind == BlobKind::Data { &self.data_blobs } else { &self.tree_blobs };
        blobs.fetch_add(1, Ordering::Relaxed);
        self.added.fetch_add(added, Ordering::Relaxed);
        self.packed.fetch_add(packed, Ordering::Relaxed);
    }

    fn read(&self) -> Stored {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Stored {
            data_blobs: read(&self.data_blobs),
            tree_blobs: read(&self.tree_blobs),
            added: read(&self.added),
            packed: read(&self.packed),
            stored: read(&self.stored),
        }
    }
}

impl Shared {
    /// Stops all; the first reason counts.
    fn fail(&self, error: anyhow::Error) {
        lock(&self.failure).get_or_insert(error);
        self.stopped.cancel();
    }
}

type Putting = Pin<Box<dyn Future<Output = anyhow::Result<IndexedPack>> + Send>>;

/// Puts packs, several at once, and writes index objects of those that have arrived.
async fn store(shared: Arc<Shared>, mut arriving: mpsc::Receiver<Pack>, places: Sender<()>) {
    let mut on_their_way: FuturesUnordered<Putting> = FuturesUnordered::new();
    let (mut arrived, mut blobs, mut written) = (Vec::<IndexedPack>::new(), 0, Instant::now());
    let mut is_open = true;
    let mut is_failed = false;
    let stopped = shared.stopped.clone();
    let patience = async move {
        stopped.cancelled().await;
        tokio::time::sleep(LAST_PATIENCE).await;
    };
    tokio::pin!(patience);
    while is_open && !is_failed || !on_their_way.is_empty() {
        let takes_more = is_open && !is_failed && on_their_way.len() < shared.repository.options().connections;
        tokio::select! {
            pack = arriving.recv(), if takes_more => match pack {
                Some(pack) => on_their_way.push(Box::pin(put(Arc::clone(&shared), pack, places.clone()))),
                None => is_open = false,
            },
            Some(done) = on_their_way.next() => match done {
                Ok(pack) => {
                    blobs += pack.blobs.len();
                    arrived.push(pack);
                }
                Err(error) => {
                    // Those who store learn of it at their next blob.
                    arriving.close();
                    shared.fail(error);
                    is_failed = true;
                }
            },
            () = &mut patience => {
                arriving.close();
                break;
            }
        }
        if !is_failed && (blobs >= BLOBS_PER_INDEX || !arrived.is_empty() && written.elapsed() >= INDEX_EVERY) {
            if let Err(error) = write_index(&shared.repository, std::mem::take(&mut arrived)).await {
                arriving.close();
                shared.fail(error);
                is_failed = true;
            }
            (blobs, written) = (0, Instant::now());
        }
    }
    if arrived.is_empty() {
        return;
    }
    // Even after an error: what has arrived is not sent again.
    let writing = write_index(&shared.repository, arrived);
    let written = match shared.stopped.is_cancelled() {
        true => tokio::time::timeout(LAST_PATIENCE, writing).await.context("the index").and_then(|written| written),
        false => writing.await,
    };
    if let Err(error) = written {
        shared.fail(error);
    }
}

async fn put(shared: Arc<Shared>, pack: Pack, places: Sender<()>) -> anyhow::Result<IndexedPack> {
    let Pack { id, bytes, blobs } = pack;
    let size = bytes.len() as u64;
    if blobs.first().is_some_and(|blob| blob.kind == BlobKind::Tree) {
        let (cache, copy) = (shared.repository.cache().clone(), bytes.clone());
        // The next backup compares with these.
        tokio::task::spawn_blocking(move || cache.put(Class::Pack, &id, &copy)).await.context("a thread died")?;
    }
    shared.repository.objects().put(Class::Pack, &id, bytes.clone()).await?;
    read_back(&shared.repository, &id, &bytes).await?;
    shared.counted.stored.fetch_add(size, Ordering::Relaxed);
    if let Ok(memory) = bytes.try_into_mut() {
        lock(&shared.memory).push(memory.into());
    }
    let _ = places.try_send(());
    Ok(IndexedPack::new(id, &blobs))
}

/// Proves that what is stored is what was sent.
pub(super) async fn read_back(repository: &Repository, id: &Id, sent: &[u8]) -> anyhow::Result<()> {
    let key = Class::Pack.key(id);
    let what = || format!("read back {key}");
    let mut body = repository.objects().bucket().get(&key, None).await.with_context(what)?;
    let mut left = sent;
    while let Some(piece) = body.next().await {
        let piece = piece.with_context(what)?;
        left = left.strip_prefix(&*piece).with_context(|| format!("{key} is stored, but it is not what was sent"))?;
    }
    ensure!(left.is_empty(), "{key} is stored, but its end is missing");
    Ok(())
}

/// Writes an index object.
pub(super) async fn write_index(repository: &Repository, packs: Vec<IndexedPack>) -> anyhow::Result<Id> {
    let writing = tokio::task::spawn_blocking(move || serde_json::to_vec(&IndexFile { supersedes: Vec::new(), packs }));
    let json = writing.await.context("a thread died")??;
    repository.objects().save(Class::Index, json).await.context("write the index")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
