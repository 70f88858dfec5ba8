//! The repository's objects in its bucket: where each class lies, sealed, compressed and named by content.
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{Id, crypto::Key};
use crate::bucket::{Bucket, BucketError, Put};

/// What stands in front of a compressed object; JSON begins otherwise.
const COMPRESSED: u8 = 2;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The repository's key, sealed with a password.
    Key,
    /// Somebody is at work.
    Lock,
    /// A backup.
    Snapshot,
    /// Which blobs lie where.
    Index,
    /// Blobs.
    Pack,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Key, Self::Lock, Self::Snapshot, Self::Index, Self::Pack];

    /// The folder of its objects.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Key => "keys/",
            Self::Lock => "locks/",
            Self::Snapshot => "snapshots/",
            Self::Index => "index/",
            Self::Pack => "data/",
        }
    }

    /// Where an object lies.
    #[must_use]
    pub fn key(self, id: &Id) -> String {
        let name = id.to_string();
        match self {
            Self::Pack => format!("data/{}/{name}", &name[..2]),
            _ => format!("{}{name}", self.folder()),
        }
    }
}

impl Class {
    /// The largest object that is read whole, and the largest that one may become when it is decompressed.
    fn most(self) -> usize {
        match self {
            Self::Key | Self::Lock => SMALL,
            Self::Snapshot => 64 << 20,
            Self::Index | Self::Pack => 1 << 30,
        }
    }
}

/// The largest key, lock or settings.
pub(super) const SMALL: usize = 1 << 20;

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Lock => "lock",
            Self::Snapshot => "snapshot",
            Self::Index => "index",
            Self::Pack => "pack",
        })
    }
}

/// An object is there, and is not what it was.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{class} {} is damaged: {why}", id.short())]
pub struct Damaged {
    /// What it is.
    pub class: Class,
    /// Which.
    pub id: Id,
    /// What is wrong with it.
    pub why: String,
}

/// A repository's objects, and the key that opens them.
#[derive(Clone, Debug)]
pub struct Objects {
    bucket: Arc<dyn Bucket>,
    key: Key,
    /// The format's version: from 2 on, objects are compressed.
    version: u32,
}

impl Objects {
    pub(super) fn new(bucket: Arc<dyn Bucket>, key: Key, version: u32) -> Self {
        Self { bucket, key, version }
    }

    /// Where they are.
    #[must_use]
    pub fn bucket(&self) -> &Arc<dyn Bucket> {
        &self.bucket
    }

    /// What opens them.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether blobs may be compressed.
    #[must_use]
    pub fn compresses(&self) -> bool {
        self.version >= 2
    }

    /// All objects of a class, with their sizes, in the order of their names. What has no such name is left alone.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn list(&self, class: Class) -> anyhow::Result<Vec<(Id, u64)>> {
        list(&self.bucket, class).await
    }

    /// Stores JSON, compressed and sealed.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn save(&self, class: Class, json: Vec<u8>) -> anyhow::Result<Id> {
        let (id, sealed) = self.seal(json)?;
        self.put(class, &id, sealed).await?;
        Ok(id)
    }

    /// JSON, compressed and sealed, and the name it will have.
    ///
    /// # Errors
    /// When it cannot be compressed.
    pub fn seal(&self, json: Vec<u8>) -> anyhow::Result<(Id, Bytes)> {
        let packed = if self.compresses() {
            let mut packed = vec![COMPRESSED];
            packed.extend(zstd::bulk::compress(&json, 3).context("compress")?);
            packed
        } else {
            json
        };
        let sealed = self.key.seal(&packed)?;
        Ok((Id::of(&sealed), sealed.into()))
    }

    /// Stores an object as it is.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn put(&self, class: Class, id: &Id, bytes: Bytes) -> anyhow::Result<()> {
        let key = class.key(id);
        self.bucket.put(&key, bytes, Put::Replace).await.with_context(|| format!("store {key}"))
    }

    /// JSON that [`Objects::save`] stored, proven to be what was stored.
    ///
    /// # Errors
    /// [`Damaged`], or a [`BucketError`] in the chain.
    pub async fn load(&self, class: Class, id: &Id) -> anyhow::Result<Vec<u8>> {
        let sealed = self.raw(class, id).await?;
        let this = self.clone();
        let id = *id;
        let opening = tokio::task::spawn_blocking(move || this.open(class, &id, sealed));
        Ok(opening.await.context("a thread died")??)
    }

    /// An object as it is stored.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn raw(&self, class: Class, id: &Id) -> anyhow::Result<Vec<u8>> {
        let key = class.key(id);
        whole(&self.bucket, &key, class.most()).await.map_err(|error| match error.downcast::<TooLarge>() {
            Ok(error) => Damaged { class, id: *id, why: error.to_string() }.into(),
            Err(error) => error.context(format!("read {key}")),
        })
    }

    /// Opens what [`Objects::raw`] read.
    ///
    /// # Errors
    /// When it is not what was stored.
    pub fn open(&self, class: Class, id: &Id, mut sealed: Vec<u8>) -> Result<Vec<u8>, Damaged> {
        let damaged = |why: String| Damaged { class, id: *id, why };
        if Id::of(&sealed) != *id {
            return Err(damaged("its content does not fit its name".into()));
        }
        let packed = self.key.open_in_place(&mut sealed).map_err(|error| damaged(error.to_string()))?;
        match packed.first() {
            Some(b'{' | b'[') => Ok(packed.to_vec()),
            Some(&COMPRESSED) => expand(&packed[1..], class.most()).map_err(|error| damaged(error.to_string())),
            Some(other) => Err(damaged(format!("it is written in a way that is not known here ({other})"))),
            None => Err(damaged("it is empty".into())),
        }
    }

    /// Removes an object; one that is not there is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn remove(&self, class: Class, id: &Id) -> anyhow::Result<()> {
        let key = class.key(id);
        self.bucket.delete(&key).await.with_context(|| format!("remove {key}"))
    }
}

pub(super) async fn list(bucket: &Arc<dyn Bucket>, class: Class) -> anyhow::Result<Vec<(Id, u64)>> {
    let what = || format!("list {} in {}", class.folder(), bucket.describe());
    let mut found = Vec::new();
    let mut objects = bucket.list(class.folder()).await.with_context(what)?;
    while let Some(object) = objects.try_next().await.with_context(what)? {
        if let Some(Ok(id)) = object.key.rsplit('/').next().map(str::parse::<Id>)
            && class.key(&id) == object.key
        {
            found.push((id, object.size));
        }
    }
    Ok(found)
}

/// An object has more bytes than any of its kind.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it has more than {0} bytes: nothing of its kind has")]
pub(super) struct TooLarge(usize);

/// An object's bytes, if they are not too many.
pub(super) async fn whole(bucket: &Arc<dyn Bucket>, key: &str, most: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut body = bucket.get(key, None).await?;
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
        ensure!(bytes.len() <= most, TooLarge(most));
    }
    Ok(bytes)
}

/// Whether an error says that an object is not there.
#[must_use]
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(BucketError::NotFound(_))))
}

/// Whether an error says that there is no room for more.
pub(super) fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(BucketError::Full(_))))
}

fn expand(packed: &[u8], most: usize) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut plain = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(packed)?;
    decoder.take(most as u64 + 1).read_to_end(&mut plain)?;
    ensure!(plain.len() <= most, "it becomes larger than {most} bytes: nothing of its kind does");
    Ok(plain)
}
