//! Reading blobs: found in the index, fetched, opened, decompressed, and proven to be what their name says.
use std::{
    borrow::Cow,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
};

use anyhow::Context as _;

use super::{
    Id, Index, Repository, Tree,
    crypto::Key,
    index::Place,
    objects::{Class, Damaged},
    pack::{Blob, BlobKind},
};

/// The largest pack of trees that is fetched whole to be kept in the cache.
const MOST_CACHED: u64 = 64 << 20;
/// So much memory is taken because a number says so; beyond it, memory grows with what comes.
pub(super) const BELIEVED: usize = 8 << 20;

/// What is said where nothing is indexed, and there are backups.
const NO_INDEX: &str =
    "the repository's index is gone; what it told is in the packs: `rusuban repository repair NAME` writes it anew";

/// A blob that a backup needs and that no pack has.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the {} blob {} is in no pack", kind_word(*kind), id.short())]
pub struct Lost {
    /// What it holds.
    pub kind: BlobKind,
    /// Which.
    pub id: Id,
}

fn kind_word(kind: BlobKind) -> &'static str {
    match kind {
        BlobKind::Data => "data",
        BlobKind::Tree => "tree",
    }
}

impl Repository {
    /// A blob's content.
    ///
    /// # Errors
    /// [`Lost`], [`Damaged`], or a `BucketError` in the chain.
    pub async fn blob(&self, index: &Index, kind: BlobKind, id: &Id) -> anyhow::Result<Vec<u8>> {
        match index.find(kind, id) {
            Some(place) => self.blob_at(place).await,
            None if index.is_empty() => Err(anyhow::Error::from(Lost { kind, id: *id }).context(NO_INDEX)),
            None => Err(Lost { kind, id: *id }.into()),
        }
    }

    /// The content of the blob at a place: it may lie in several packs.
    pub(super) async fn blob_at(&self, place: Place) -> anyhow::Result<Vec<u8>> {
        if place.blob.kind == BlobKind::Tree
            && let Some(found) = self.cached(&place).await?
        {
            return Ok(found);
        }
        let Blob { offset, length, .. } = place.blob;
        let range = u64::from(offset)..u64::from(offset) + u64::from(length);
        let sealed = self.part(&place.pack, range).await?;
        self.opened(place, sealed).await
    }

    /// What is in a folder.
    ///
    /// # Errors
    /// As [`Repository::blob`].
    pub async fn tree(&self, index: &Index, id: &Id) -> anyhow::Result<Tree> {
        let json = self.blob(index, BlobKind::Tree, id).await?;
        Tree::from_json(&json).with_context(|| format!("the tree {} cannot be read", id.short()))
    }

    /// Part of a pack.
    ///
    /// # Errors
    /// When it cannot be read, or the pack is shorter.
    pub async fn part(&self, pack: &Id, range: std::ops::Range<u64>) -> anyhow::Result<Vec<u8>> {
        let wanted = range.end - range.start;
        self.begin_part(pack, range).await?.read(wanted).await
    }

    async fn opened(&self, place: Place, mut sealed: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let key = self.objects().key().clone();
        let mut opening = move || open_blob(&key, &place, &mut sealed).map(Cow::into_owned);
        // Less than this takes less time than handing it to another thread.
        let opened = if place.blob.size() < 64 << 10 {
            opening()
        } else {
            tokio::task::spawn_blocking(opening).await.context("a thread died")?
        };
        Ok(opened?)
    }

    /// A blob of a pack that is kept in the cache, or that is fetched to be kept there.
    async fn cached(&self, place: &Place) -> anyhow::Result<Option<Vec<u8>>> {
        let cache = self.cache().clone();
        let (key, wanted) = (self.objects().key().clone(), *place);
        let look = move || -> Option<Vec<u8>> {
            let file = cache.open(Class::Pack, &wanted.pack)?;
            let Blob { offset, length, .. } = wanted.blob;
            let is_in_it = file.metadata().is_ok_and(|found| u64::from(offset) + u64::from(length) <= found.len());
            let found = is_in_it.then(|| vec![0; length as usize]).and_then(|mut sealed| {
                file.read_exact_at(&mut sealed, offset.into()).ok()?;
                open_blob(&key, &wanted, &mut sealed).ok().map(Cow::into_owned)
            });
            if found.is_none() {
                cache.forget(Class::Pack, &wanted.pack);
            }
            found
        };
        let look = std::sync::Arc::new(look);
        if !self.cache().is_some() {
            return Ok(None);
        }
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        let size = self.objects().bucket().head(&Class::Pack.key(&place.pack)).await?.size;
        if size > MOST_CACHED {
            return Ok(None);
        }
        let bytes = self.objects().raw(Class::Pack, &place.pack).await?;
        let (cache, pack) = (self.cache().clone(), place.pack);
        tokio::task::spawn_blocking(move || cache.put(Class::Pack, &pack, &bytes)).await.context("a thread died")?;
        Ok(look())
    }
}

/// Opens a blob, decompresses it, and proves by its name that it is what was stored.
///
/// # Errors
/// What is wrong with it.
pub fn open_blob<'b>(key: &Key, place: &Place, sealed: &'b mut [u8]) -> Result<Cow<'b, [u8]>, Damaged> {
    let Place { pack, blob } = place;
    let damaged = |why: String| {
        let why = format!("its {} blob {}: {why}", kind_word(blob.kind), blob.id.short());
        Damaged { class: Class::Pack, id: *pack, why }
    };
    let opened = key.open_in_place(sealed).map_err(|error| damaged(error.to_string()))?;
    let plain = match blob.plain {
        None => Cow::Borrowed(&*opened),
        Some(size) => Cow::Owned(expand(opened, size as usize).map_err(|error| damaged(error.to_string()))?),
    };
    if Id::of(&plain) != blob.id {
        return Err(damaged("its content does not fit its name".into()));
    }
    Ok(plain)
}

/// Decompresses what should become `size` bytes.
fn expand(packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    if size <= BELIEVED {
        return zstd::bulk::decompress(packed, size);
    }
    let mut plain = Vec::new();
    zstd::stream::read::Decoder::with_buffer(packed)?.take(size as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}
