//! A bucket on a bad day: faults at chosen operations.
use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use rusuban::bucket::{Body, Bucket, BucketError, Object, Put, Result, Upload};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done, and an error is told.
    Before,
    /// It is done, and an error is told all the same: the answer was lost.
    After,
    /// A stream breaks off half way; elsewhere like `Before`.
    Short,
    /// Nothing is ever told.
    Hang,
    /// Refused: no retry helps.
    Refused,
    /// There is no room for anything new; all else goes on.
    Full,
}

type Plan = Arc<dyn Fn(usize) -> Option<Fault> + Send + Sync>;

/// A bucket whose operation number N, counted from 0 over all of them, has the fault that the plan says.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<dyn Bucket>,
    days: Days,
}

#[derive(Clone)]
struct Days {
    plan: Plan,
    count: Arc<AtomicUsize>,
    within_uploads: bool,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {:?}", self.inner)
    }
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Bucket>, plan: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self { inner, days: Days { plan: Arc::new(plan), count: Arc::default(), within_uploads: true } }
    }

    /// Spares the parts and the end of uploads: only the bucket itself can try those again.
    pub(crate) fn only_whole_operations(mut self) -> Self {
        self.days.within_uploads = false;
        self
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> usize {
        self.days.count.load(Ordering::SeqCst)
    }
}

fn lost() -> BucketError {
    BucketError::Unreachable("a fault of the test".into())
}

impl Days {
    fn today(&self) -> Option<Fault> {
        (self.plan)(self.count.fetch_add(1, Ordering::SeqCst))
    }

    async fn live<T: Send>(&self, operation: impl Future<Output = Result<T>> + Send) -> Result<T> {
        Self::on(self.today(), operation).await
    }

    /// The same for what stores something new.
    async fn grow<T: Send>(&self, operation: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match self.today() {
            Some(Fault::Full) => Err(BucketError::Full("a fault of the test".into())),
            today => Self::on(today, operation).await,
        }
    }

    async fn on<T: Send>(today: Option<Fault>, operation: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match today {
            None | Some(Fault::Full) => operation.await,
            Some(Fault::Before | Fault::Short) => Err(lost()),
            Some(Fault::After) => operation.await.and(Err(lost())),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Refused) => Err(BucketError::Refused("a fault of the test".into())),
        }
    }
}

#[async_trait]
impl Bucket for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        self.days.grow(self.inner.put(key, body, put)).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let inner = self.days.grow(self.inner.upload(key)).await?;
        if !self.days.within_uploads {
            return Ok(inner);
        }
        Ok(Box::new(FaultyUpload { inner, days: self.days.clone() }))
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.days.live(self.inner.abort_upload(key, upload)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        let fault = self.days.today();
        match fault {
            Some(Fault::Before) => return Err(lost()),
            Some(Fault::Refused) => return Err(BucketError::Refused("a fault of the test".into())),
            _ => {}
        }
        let mut body = self.inner.get(key, range).await?;
        let Some(fault) = fault.filter(|fault| *fault != Fault::Full) else { return Ok(body) };
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        let half = Bytes::from(bytes).split_to_half();
        Ok(match fault {
            Fault::Hang => stream::iter([Ok(half)]).chain(stream::pending()).boxed(),
            _ => stream::iter([Ok(half), Err(lost())]).boxed(),
        })
    }

    async fn head(&self, key: &str) -> Result<Object> {
        self.days.live(self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        self.days.live(self.inner.list(prefix)).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.days.live(self.inner.folders(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.days.live(self.inner.delete(key)).await
    }
}

trait Half {
    fn split_to_half(self) -> Self;
}

impl Half for Bytes {
    fn split_to_half(mut self) -> Self {
        self.truncate(self.len() / 2);
        self
    }
}

struct FaultyUpload {
    inner: Box<dyn Upload>,
    days: Days,
}

#[async_trait]
impl Upload for FaultyUpload {
    fn id(&self) -> String {
        self.inner.id()
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        self.days.grow(self.inner.part(part)).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.days.live(self.inner.finish()).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.days.live(self.inner.abort()).await
    }
}
