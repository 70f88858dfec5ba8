//! Object storage: an S3 bucket and prefix, or a folder. Retry, time limit and bandwidth limit are decorators.
use std::{fmt::Debug, ops::Range, path::Path};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;

pub mod folder;
pub mod keeping;
pub mod limited;
pub mod memory;
pub mod prefixed;
pub mod probe;
pub mod retrying;
pub mod s3;
pub mod settings;

use keeping::{ObjectLock, Purged, Versions};

/// Why an operation on a bucket did not work; callers choose by it.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// There is no such object.
    #[error("no such object: {0}")]
    NotFound(String),
    /// A conditional put found an object there already.
    #[error("an object is there already: {0}")]
    Exists(String),
    /// The key may not do this, or is not known: asking again does not help.
    #[error("refused: {0}")]
    Refused(String),
    /// Nobody answered, or the answer broke off: worth another try.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The disk or the quota is full.
    #[error("no space left: {0}")]
    Full(String),
    /// Anything else, in the server's words.
    #[error("{0}")]
    Other(String),
}

impl BucketError {
    /// Whether the same call may work in a moment.
    #[must_use]
    pub fn worth_retrying(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

/// The result of an operation on a bucket.
pub type Result<T, E = BucketError> = std::result::Result<T, E>;

/// What a listing tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key within the bucket (the bucket's own prefix removed), parts separated by `/`.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, by the bucket's clock.
    pub modified: DateTime<Utc>,
}

/// Whether a put may replace what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Replace it.
    Replace,
    /// Fail with [`BucketError::Exists`]. Not every server keeps this promise: `bucket test` finds out.
    IfAbsent,
}

/// A stream of an object's bytes.
pub type Body = BoxStream<'static, Result<Bytes>>;

/// Objects by key. Each implementation keeps the promises of `tests/bucket/promises.rs`:
/// a put or upload is seen whole or not at all, what was put is read back at once, a listing is complete and sorted by key.
#[async_trait]
pub trait Bucket: Send + Sync + Debug {
    /// The bucket for a person: `s3 backups/host1 at http://127.0.0.1:3900`, `folder /mnt/nas/backups`.
    fn describe(&self) -> String;

    /// Where it keeps its objects on this machine, if it does: a backup of what is around it leaves it out.
    fn local_folder(&self) -> Option<&Path> {
        None
    }

    /// The server that keeps its objects, `host:port`, if it is one that somebody runs: a backup must not stop it.
    fn server(&self) -> Option<String> {
        None
    }

    /// Stores a small object (at most a few MiB) held in memory.
    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()>;

    /// Begins to store an object of any size, part by part.
    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>>;

    /// Ends an upload begun by a process that died; nothing to do is fine. `upload` is what [`Upload::id`] said.
    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()>;

    /// An object's bytes, all or those of `range`.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body>;

    /// Size and time of one object.
    async fn head(&self, key: &str) -> Result<Object>;

    /// All objects whose key begins with `prefix`, sorted by key.
    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>>;

    /// The "folders" directly below `prefix` (which is empty or ends in `/`), each ending in `/`, sorted.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>>;

    /// Removes an object; one that is not there is fine.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Whether it keeps older versions of objects, where its server tells; a bucket that has no such thing keeps none.
    async fn versions(&self) -> Result<Versions> {
        Ok(Versions::Off)
    }

    /// Whether it locks objects against removal, where its server tells.
    async fn object_lock(&self) -> Result<ObjectLock> {
        Ok(ObjectLock::Off)
    }

    /// Removes what is still kept of a deleted object, as far as the server lets it go.
    async fn purge(&self, _key: &str) -> Result<Purged> {
        Ok(Purged::default())
    }
}

/// An object on its way. Dropped without `finish`, it leaves nothing that can be read; only `abort` cleans up for certain.
#[async_trait]
pub trait Upload: Send {
    /// What the server calls it, for [`Bucket::abort_upload`]; written down as a debt before the first part.
    fn id(&self) -> String;

    /// Sends the next bytes, as many as one likes. Implementations may gather them into parts of their own, send several at
    /// once and answer before they have arrived; memory is bounded by a few times [`PART`].
    async fn part(&mut self, part: Bytes) -> Result<()>;

    /// Waits for all parts and makes the object visible.
    async fn finish(self: Box<Self>) -> Result<()>;

    /// Forgets it and frees what the server keeps of it.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// Bytes of a part of an upload to a server: 10,000 of them, S3's limit, make 156 GiB; see `s3::upload` for larger objects.
pub const PART: usize = 16 << 20;

/// The bytes of `range`, as far as they are there.
fn slice(bytes: &Bytes, range: Option<Range<u64>>) -> Bytes {
    let Some(range) = range else { return bytes.clone() };
    let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(usize::try_from(range.start).unwrap_or(usize::MAX).min(end)..end)
}
