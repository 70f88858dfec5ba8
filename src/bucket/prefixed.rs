//! Part of a bucket: all keys begin with a prefix, which those who use it do not see.
use std::{ops::Range, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};

use super::{
    Body, Bucket, Object, Put, Result, Upload,
    keeping::{ObjectLock, Purged, Versions},
};

/// A bucket below a prefix of another.
#[derive(Debug)]
pub struct Prefixed {
    inner: Arc<dyn Bucket>,
    /// Empty, or ends in `/`.
    prefix: String,
}

impl Prefixed {
    /// The part of `inner` below `folder`, which may be empty: then it is all of it.
    #[must_use]
    pub fn new(inner: Arc<dyn Bucket>, folder: &str) -> Self {
        let folder = folder.trim_matches('/');
        Self { inner, prefix: if folder.is_empty() { String::new() } else { format!("{folder}/") } }
    }

    fn inside(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn outside(prefix: &str, object: Object) -> Object {
        let key = object.key.strip_prefix(prefix).map_or(object.key.clone(), str::to_owned);
        Object { key, ..object }
    }
}

#[async_trait]
impl Bucket for Prefixed {
    fn describe(&self) -> String {
        let inner = self.inner.describe();
        match self.prefix.trim_end_matches('/') {
            "" => inner,
            folder => format!("`{folder}` in {inner}"),
        }
    }

    fn local_folder(&self) -> Option<&Path> {
        // All of the other: whoever leaves it out leaves this out.
        self.inner.local_folder()
    }

    fn server(&self) -> Option<String> {
        self.inner.server()
    }

    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        self.inner.put(&self.inside(key), body, put).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.inner.upload(&self.inside(key)).await
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.inner.abort_upload(&self.inside(key), upload).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        self.inner.get(&self.inside(key), range).await
    }

    async fn head(&self, key: &str) -> Result<Object> {
        Ok(Self::outside(&self.prefix, self.inner.head(&self.inside(key)).await?))
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        let listed = self.inner.list(&self.inside(prefix)).await?;
        let prefix = self.prefix.clone();
        Ok(listed.map(move |object| object.map(|object| Self::outside(&prefix, object))).boxed())
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        // They are told without what is above them.
        self.inner.folders(&self.inside(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(&self.inside(key)).await
    }

    async fn versions(&self) -> Result<Versions> {
        self.inner.versions().await
    }

    async fn object_lock(&self) -> Result<ObjectLock> {
        self.inner.object_lock().await
    }

    async fn purge(&self, key: &str) -> Result<Purged> {
        self.inner.purge(&self.inside(key)).await
    }
}
