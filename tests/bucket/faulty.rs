//! A bucket in which one operation goes wrong.
use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use rusuban::bucket::{Body, Bucket, BucketError, Object, Put, Result, Upload, memory::Memory};

/// How it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not done, and an error comes back.
    Before,
    /// It is done, and the answer is lost.
    After,
    /// Half of what is read comes, then the line breaks. Other operations are not done.
    ShortRead,
    /// No answer ever comes.
    Hang,
}

/// Breaks the operation of that number.
#[derive(Debug)]
pub(super) struct Faulty {
    inner: Memory,
    at: u64,
    fault: Fault,
    done: AtomicU64,
}

impl Faulty {
    pub(super) fn new(inner: Memory, at: u64, fault: Fault) -> Self {
        Self { inner, at, fault, done: AtomicU64::new(0) }
    }

    pub(super) fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    async fn through<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        if self.done.fetch_add(1, Ordering::Relaxed) != self.at {
            return operation.await;
        }
        match self.fault {
            Fault::Before | Fault::ShortRead => {}
            Fault::After => drop(operation.await),
            Fault::Hang => std::future::pending().await,
        }
        Err(BucketError::Unreachable("the line is down".to_owned()))
    }
}

#[async_trait]
impl Bucket for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        self.through(self.inner.put(key, body, put)).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.through(self.inner.upload(key)).await
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.through(self.inner.abort_upload(key, upload)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        let broken = self.fault == Fault::ShortRead && self.done.load(Ordering::Relaxed) == self.at;
        if !broken {
            return self.through(self.inner.get(key, range)).await;
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        let whole = self.inner.get(key, range).await?.next().await.unwrap_or_else(|| Ok(Bytes::new()))?;
        let half = whole.slice(..whole.len() / 2);
        Ok(stream::iter([Ok(half), Err(BucketError::Unreachable("the line broke".to_owned()))]).boxed())
    }

    async fn head(&self, key: &str) -> Result<Object> {
        self.through(self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        self.through(self.inner.list(prefix)).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.through(self.inner.folders(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.through(self.inner.delete(key)).await
    }
}
