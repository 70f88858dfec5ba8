//! Tries again what is worth it: with growing waits, and a stream that broke off goes on where it was.
//!
//! An object that is replaced while such a stream is read may come back mixed. Backups never replace an object, and compare
//! what they read with its SHA-256.
use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};

use super::{
    Body, Bucket, Object, Put, Result, Upload,
    keeping::{ObjectLock, Purged, Versions},
};
use crate::clock::Clock;

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How often and how long to try.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For the waits.
    pub clock: Clock,
    /// Tries in all.
    pub tries: u32,
    /// The first wait; they double.
    pub first_wait: Duration,
}

impl Patience {
    /// Waits before try number `next`; some tenths more or less, so that many clients do not come back at once.
    async fn wait(&self, next: u32) {
        let wait = self.first_wait.saturating_mul(1 << next.saturating_sub(2).min(16)).min(LONGEST_WAIT);
        let tenths = 8 + self.clock.now().timestamp_subsec_micros() % 5;
        self.clock.sleep(wait * tenths / 10).await;
    }

    /// Does `operation` until it works, fails for good, or has been tried often enough.
    pub(super) async fn again<T, F: Future<Output = Result<T>>>(
        &self,
        mut operation: impl FnMut() -> F + Send,
    ) -> Result<T> {
        for next in 2..=self.tries {
            match operation().await {
                Err(error) if error.worth_retrying() => {
                    tracing::debug!(%error, next, "try again");
                    self.wait(next).await;
                }
                result => return result,
            }
        }
        operation().await
    }
}

/// A bucket that tries again.
#[derive(Clone, Debug)]
pub struct Retrying {
    inner: Arc<dyn Bucket>,
    patience: Patience,
}

impl Retrying {
    /// Tries each operation of `inner` with this patience.
    #[must_use]
    pub fn new(inner: Arc<dyn Bucket>, patience: Patience) -> Self {
        Self { inner, patience }
    }
}

#[async_trait]
impl Bucket for Retrying {
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
        // A conditional put whose answer was lost may have been done: a second try would say that it is there already.
        if put == Put::IfAbsent {
            return self.inner.put(key, body, put).await;
        }
        self.patience.again(|| self.inner.put(key, body.clone(), put)).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        // Parts are tried again by the bucket that knows which have arrived.
        self.patience.again(|| self.inner.upload(key)).await
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.patience.again(|| self.inner.abort_upload(key, upload)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        let range = range.unwrap_or(0..u64::MAX);
        let body = self.begin(key, range.clone()).await?;
        let reading = Reading { bucket: self.clone(), key: key.to_owned(), range, body: Some(body), tried: 1 };
        Ok(stream::unfold(reading, Reading::next).boxed())
    }

    async fn head(&self, key: &str) -> Result<Object> {
        self.patience.again(|| self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        self.patience.again(|| self.inner.list(prefix)).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.patience.again(|| self.inner.folders(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.patience.again(|| self.inner.delete(key)).await
    }

    async fn versions(&self) -> Result<Versions> {
        self.patience.again(|| self.inner.versions()).await
    }

    async fn object_lock(&self) -> Result<ObjectLock> {
        self.patience.again(|| self.inner.object_lock()).await
    }

    async fn purge(&self, key: &str) -> Result<Purged> {
        // A second try would not find what the first has removed: the bucket itself tries each version again.
        self.inner.purge(key).await
    }
}

impl Retrying {
    async fn begin(&self, key: &str, range: Range<u64>) -> Result<Body> {
        let whole = range == (0..u64::MAX);
        self.patience.again(|| self.inner.get(key, (!whole).then(|| range.clone()))).await
    }
}

/// An object that is being read, and how far.
struct Reading {
    bucket: Retrying,
    key: String,
    range: Range<u64>,
    body: Option<Body>,
    tried: u32,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Bytes>, Self)> {
        loop {
            let chunk = self.body.as_mut()?.next().await?;
            match chunk {
                Ok(bytes) => {
                    self.range.start += bytes.len() as u64;
                    self.tried = 1;
                    return Some((Ok(bytes), self));
                }
                Err(error) if error.worth_retrying() && self.tried < self.bucket.patience.tries => {
                    self.tried += 1;
                    self.bucket.patience.wait(self.tried).await;
                    match self.bucket.begin(&self.key, self.range.clone()).await {
                        Ok(body) => self.body = Some(body),
                        Err(error) => {
                            self.body = None;
                            return Some((Err(error), self));
                        }
                    }
                }
                Err(error) => {
                    self.body = None;
                    return Some((Err(error), self));
                }
            }
        }
    }
}
