//! From an object to a source's bytes, in bounded memory: fetch, hash, decrypt, decompress, hash, and only then believe it.
use std::{
    io::{self, BufReader, Read},
    ops::Range,
    sync::Arc,
};

use anyhow::{Context, anyhow, bail, ensure};
use bytes::{Buf, Bytes};
use futures_util::{StreamExt, TryStreamExt as _};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    age::{Decryptor, Identity},
    encode::{Hashed, Hashing, STRETCH},
    manifest::{Fingerprint, Source},
};
use crate::{
    bucket::{Bucket, BucketError},
    text,
    tree::cancelled_error,
};

/// Told how many stored bytes have come so far.
pub type OnBytes = Arc<dyn Fn(u64) + Send + Sync>;

/// What a reader of backups needs beside the backup.
#[derive(Clone)]
pub struct Reading {
    /// Keys for what is encrypted.
    pub identities: Vec<Identity>,
    /// Asked to stop.
    pub cancelled: CancellationToken,
    /// Told of stored bytes read, over all sources.
    pub on_bytes: OnBytes,
}

impl Default for Reading {
    fn default() -> Self {
        Self { identities: Vec::new(), cancelled: CancellationToken::new(), on_bytes: Arc::new(|_| {}) }
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("identities", &self.identities).finish_non_exhaustive()
    }
}

/// Reads an object to its end and compares it with what was stored.
pub(super) async fn compare(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    wanted: &Fingerprint,
    reading: &Reading,
) -> anyhow::Result<()> {
    hand_on(bucket, key, wanted, reading, |_| true).await
}

/// As [`compare`], several stretches of the object at once.
pub(super) async fn compare_stretches(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    wanted: &Hashed,
    reading: &Reading,
) -> anyhow::Result<()> {
    let Hashed { whole, on_the_way } = wanted;
    if on_the_way.is_empty() {
        return compare(bucket, key, whole, reading).await;
    }
    let found = bucket.head(key).await.with_context(|| format!("look at {key}"))?.size;
    ensure!(found == whole.bytes, "{key} has {found} bytes instead of {}", whole.bytes);
    let begins = (0..whole.bytes).step_by(STRETCH);
    let stretch = async |(index, begin): (usize, u64)| {
        let range = begin..whole.bytes.min(begin + STRETCH as u64);
        let before = index.checked_sub(1).map_or_else(Sha256::new, |before| on_the_way[before].clone());
        let after = on_the_way
            .get(index)
            .map_or_else(|| whole.sha256.clone(), |hash| text::hexadecimal(&hash.clone().finalize()));
        let found = hash(bucket, key, Some(range.clone()), range.end - begin, before, reading, |_| true).await?;
        ensure!(found.1 == after, "{key} is not what was stored: bytes {begin} to {} differ", range.end);
        Ok(())
    };
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(STRETCHES_AT_ONCE);
    futures_util::stream::iter(begins.enumerate()).map(stretch).buffer_unordered(at_once).try_collect().await
}

/// Hashing is not worth more threads, and each holds a few MiB.
const STRETCHES_AT_ONCE: usize = 4;

/// As [`compare`], while `each` takes the pieces, unless it wants no more. They are not to be believed before this returns.
pub(super) async fn hand_on(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    wanted: &Fingerprint,
    reading: &Reading,
    each: impl FnMut(Bytes) -> bool + Send + 'static,
) -> anyhow::Result<()> {
    let (bytes, sha256) = hash(bucket, key, None, wanted.bytes, Sha256::new(), reading, each).await?;
    same(&Fingerprint { bytes, sha256 }, wanted).with_context(|| format!("{key} is not what was stored"))
}

/// Hashes an object, or `size` bytes of it, on from `hash`.
async fn hash(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    range: Option<Range<u64>>,
    size: u64,
    mut hash: Sha256,
    reading: &Reading,
    mut each: impl FnMut(Bytes) -> bool + Send + 'static,
) -> anyhow::Result<(u64, String)> {
    let (sender, mut chunks) = mpsc::channel::<Bytes>(4);
    let hashing = tokio::task::spawn_blocking(move || {
        let mut bytes = 0;
        while let Some(chunk) = chunks.blocking_recv() {
            hash.update(&chunk);
            bytes += chunk.len() as u64;
            if !each(chunk) {
                break;
            }
        }
        (bytes, text::hexadecimal(&hash.finalize()))
    });
    let fetched = fetch(bucket, key, range, size, reading, sender).await;
    let found = hashing.await.context("read back")?;
    fetched?;
    Ok(found)
}

/// Lets `consume` read a source's bytes. What it made may be believed only when this returns `Ok`: then all was read,
/// and both the object and the stream in it are what the manifest says.
pub(super) async fn decode<T: Send + 'static>(
    bucket: &Arc<dyn Bucket>,
    source: &Source,
    reading: &Reading,
    consume: impl FnOnce(&mut dyn Read) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, chunks) = mpsc::channel(4);
    let (wanted, identities, cancelled) = (source.clone(), reading.identities.clone(), reading.cancelled.clone());
    let decoding = tokio::task::spawn_blocking(move || {
        let chunks = Chunks { chunks, chunk: Bytes::new(), cancelled };
        let stored = BufReader::with_capacity(128 << 10, Hashing::new(chunks));
        let (made, plain, mut stored) = if wanted.encrypted {
            let (made, plain, decryptor) = unpack(Decryptor::new(stored, &identities)?, consume)?;
            (made, plain, decryptor.into_inner())
        } else {
            unpack(stored, consume)?
        };
        io::copy(&mut stored, &mut io::sink())?;
        let (_, stored) = stored.into_inner().end();
        same(&stored, &wanted.stored).context("the object is not what was stored")?;
        same(&plain, &wanted.plain).context("what is in the object is not what was backed up")?;
        Ok(made)
    });
    let fetched = fetch(bucket, &source.key, None, source.stored.bytes, reading, sender).await;
    let decoded: anyhow::Result<T> = decoding.await.context("decode")?;
    // A fetch that failed is the reason of a stream that ended early; a reader that gave up is the reason of a fetch that was stopped.
    match fetched {
        Err(Fetch::Failed(error)) => Err(error),
        Err(Fetch::NobodyReads) | Ok(()) => decoded,
    }
    .with_context(|| source.key.clone())
}

fn unpack<R: Read, T>(
    stored: R,
    consume: impl FnOnce(&mut dyn Read) -> anyhow::Result<T>,
) -> anyhow::Result<(T, Fingerprint, R)> {
    let mut plain = Hashing::new(zstd::Decoder::new(stored)?);
    let made = consume(&mut plain)?;
    // What was not consumed counts as well.
    io::copy(&mut plain, &mut io::sink())?;
    let (decoder, plain) = plain.end();
    Ok((made, plain, decoder.finish().into_inner()))
}

fn same(found: &Fingerprint, wanted: &Fingerprint) -> anyhow::Result<()> {
    ensure!(found.bytes == wanted.bytes, "it has {} bytes instead of {}", found.bytes, wanted.bytes);
    ensure!(found.sha256 == wanted.sha256, "its SHA-256 is {} instead of {}", found.sha256, wanted.sha256);
    Ok(())
}

enum Fetch {
    Failed(anyhow::Error),
    NobodyReads,
}

impl From<Fetch> for anyhow::Error {
    fn from(error: Fetch) -> Self {
        match error {
            Fetch::Failed(error) => error,
            Fetch::NobodyReads => Self::msg("the reader gave up"),
        }
    }
}

async fn fetch(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    range: Option<Range<u64>>,
    size: u64,
    reading: &Reading,
    chunks: mpsc::Sender<Bytes>,
) -> Result<(), Fetch> {
    let failed = |error: anyhow::Error| Fetch::Failed(error.context(format!("read {key}")));
    let copying = async {
        let mut done = 0;
        let mut body = bucket.get(key, range).await.map_err(|error| failed(error.into()))?;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| failed(error.into()))?;
            done += chunk.len() as u64;
            (reading.on_bytes)(chunk.len() as u64);
            chunks.send(chunk).await.map_err(|_| Fetch::NobodyReads)?;
        }
        if done == size { Ok(()) } else { Err(failed(anyhow!("it has {done} bytes instead of {size}"))) }
    };
    tokio::select! {
        copied = copying => copied,
        () = reading.cancelled.cancelled() => Err(Fetch::Failed(cancelled_error().into())),
    }
}

/// What was fetched, for a thread that reads.
struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    cancelled: CancellationToken,
}

impl Read for Chunks {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if self.cancelled.is_cancelled() {
                return Err(cancelled_error());
            }
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = to.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut to[..count]);
        Ok(count)
    }
}

/// Reads a small object whole.
pub(super) async fn small(bucket: &Arc<dyn Bucket>, key: &str) -> Result<Vec<u8>, BucketError> {
    const MOST: usize = 64 << 20;
    let mut body = bucket.get(key, None).await?;
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
        if all.len() > MOST {
            return Err(BucketError::Other(format!("{key} has more than {MOST} bytes: it is no manifest")));
        }
    }
    Ok(all)
}

/// A source by its name; without one, the only one.
pub(super) fn choose<'a>(sources: &'a [Source], name: Option<&str>) -> anyhow::Result<&'a Source> {
    let names = || sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, sources) {
        (Some(name), _) => match sources.iter().find(|source| source.name == name) {
            Some(source) => Ok(source),
            None => bail!("this backup has no source `{name}`; it has: {}", names()),
        },
        (None, [only]) => Ok(only),
        (None, _) => bail!("this backup has several sources; name one of: {}", names()),
    }
}
