//! A limit on how long an operation may be silent, and on bytes a second.
use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::{sync::Mutex, time::Instant};

use super::{
    Body, Bucket, BucketError, Object, PART, Put, Result, Upload,
    keeping::{ObjectLock, Purged, Versions},
};

/// A bucket with limits.
#[derive(Clone, Debug)]
pub struct Limited {
    inner: Arc<dyn Bucket>,
    /// An operation, or a stream between two chunks, that says nothing for this long is given up.
    silence: Duration,
    up: Option<Arc<Pace>>,
    down: Option<Arc<Pace>>,
}

/// When the next bytes may go, so that no more than so many go in a second.
#[derive(Debug)]
struct Pace {
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) })
    }

    async fn go(&self, bytes: usize) {
        let wait_until = {
            let mut free_at = self.free_at.lock().await;
            let begin = (*free_at).max(Instant::now());
            let nanoseconds = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_second);
            *free_at = begin + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
            begin
        };
        tokio::time::sleep_until(wait_until).await;
    }
}

impl Limited {
    /// Limits `inner`; bytes a second up and down where given.
    #[must_use]
    pub fn new(inner: Arc<dyn Bucket>, silence: Duration, up: Option<u64>, down: Option<u64>) -> Self {
        Self { inner, silence, up: up.map(Pace::new), down: down.map(Pace::new) }
    }

    async fn patient<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        within(self.silence, operation).await
    }
}

/// The slowest line on which bytes are waited for: a part of an upload shares it with others.
const SLOWEST: u64 = 32 << 10;

/// How long an operation that sends so many bytes may take.
pub(super) fn time_to_send(silence: Duration, bytes: usize) -> Duration {
    silence + Duration::from_secs(bytes as u64 / SLOWEST)
}

pub(super) async fn within<T>(silence: Duration, operation: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(silence, operation).await.unwrap_or_else(|_| {
        Err(BucketError::Unreachable(format!("no answer within {}", crate::text::duration(silence))))
    })
}

#[async_trait]
impl Bucket for Limited {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn local_folder(&self) -> Option<&std::path::Path> {
        self.inner.local_folder()
    }

    fn server(&self) -> Option<String> {
        self.inner.server()
    }

    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        if let Some(pace) = &self.up {
            pace.go(body.len()).await;
        }
        within(time_to_send(self.silence, body.len()), self.inner.put(key, body, put)).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let inner = self.patient(self.inner.upload(key)).await?;
        Ok(Box::new(LimitedUpload { inner, silence: self.silence, pace: self.up.clone() }))
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.patient(self.inner.abort_upload(key, upload)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        let body = self.patient(self.inner.get(key, range)).await?;
        let (silence, pace) = (self.silence, self.down.clone());
        let body = futures_util::stream::unfold(Some(body), move |body| {
            let pace = pace.clone();
            async move {
                let mut body = body?;
                let chunk = within(silence, async { Ok(body.next().await) }).await;
                match chunk {
                    Ok(None) => None,
                    Ok(Some(chunk)) => {
                        if let (Some(pace), Ok(bytes)) = (&pace, &chunk) {
                            pace.go(bytes.len()).await;
                        }
                        Some((chunk, Some(body)))
                    }
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(body.boxed())
    }

    async fn head(&self, key: &str) -> Result<Object> {
        self.patient(self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        let listing = self.patient(self.inner.list(prefix)).await?;
        let silence = self.silence;
        let listing = futures_util::stream::unfold(Some(listing), move |listing| async move {
            let mut listing = listing?;
            // The next page may be tried several times.
            match within(silence * 8, async { Ok(listing.next().await) }).await {
                Ok(object) => object.map(|object| (object, Some(listing))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(listing.boxed())
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.patient(self.inner.folders(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.patient(self.inner.delete(key)).await
    }

    async fn versions(&self) -> Result<Versions> {
        self.patient(self.inner.versions()).await
    }

    async fn object_lock(&self) -> Result<ObjectLock> {
        self.patient(self.inner.object_lock()).await
    }

    async fn purge(&self, key: &str) -> Result<Purged> {
        // One request for each version, and each may be tried several times.
        within(self.silence * 8, self.inner.purge(key)).await
    }
}

struct LimitedUpload {
    inner: Box<dyn Upload>,
    silence: Duration,
    pace: Option<Arc<Pace>>,
}

#[async_trait]
impl Upload for LimitedUpload {
    fn id(&self) -> String {
        self.inner.id()
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        if let Some(pace) = &self.pace {
            pace.go(part.len()).await;
        }
        // It may wait until one of several parts has been sent, each of which may be slow and be tried again.
        within(time_to_send(self.silence, PART.max(part.len())) * 8, self.inner.part(part)).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        within(time_to_send(self.silence, PART) * 16, self.inner.finish()).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        within(self.silence, self.inner.abort()).await
    }
}
