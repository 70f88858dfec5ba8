//! A bucket that is gone with the process, for tests.
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream, stream::BoxStream};

use super::{Body, Bucket, BucketError, Object, Put, Result, Upload, slice};
use crate::clock::Clock;

/// Objects in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct Memory {
    clock: Clock,
    objects: Arc<Mutex<Objects>>,
}

type Objects = BTreeMap<String, (Bytes, DateTime<Utc>)>;

impl Memory {
    /// An empty bucket.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, objects: Arc::default() }
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Bucket for Memory {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        let now = self.clock.now();
        let mut objects = self.objects();
        if put == Put::IfAbsent && objects.contains_key(key) {
            return Err(BucketError::Exists(key.to_owned()));
        }
        objects.insert(key.to_owned(), (body, now));
        Ok(())
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(MemoryUpload { bucket: self.clone(), key: key.to_owned(), bytes: BytesMut::new() }))
    }

    async fn abort_upload(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        let bytes = self
            .objects()
            .get(key)
            .map(|(bytes, _)| bytes.clone())
            .ok_or_else(|| BucketError::NotFound(key.to_owned()))?;
        Ok(stream::iter([Ok(slice(&bytes, range))]).boxed())
    }

    async fn head(&self, key: &str) -> Result<Object> {
        let objects = self.objects();
        let (bytes, modified) = objects.get(key).ok_or_else(|| BucketError::NotFound(key.to_owned()))?;
        Ok(Object { key: key.to_owned(), size: bytes.len() as u64, modified: *modified })
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        let found: Vec<_> = self
            .objects()
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, (bytes, modified))| {
                Ok(Object { key: key.clone(), size: bytes.len() as u64, modified: *modified })
            })
            .collect();
        Ok(stream::iter(found).boxed())
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let mut folders: Vec<String> = self
            .objects()
            .keys()
            .filter_map(|key| key.strip_prefix(prefix)?.split_once('/'))
            .map(|(folder, _)| format!("{folder}/"))
            .collect();
        folders.dedup();
        Ok(folders)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.objects().remove(key);
        Ok(())
    }
}

struct MemoryUpload {
    bucket: Memory,
    key: String,
    bytes: BytesMut,
}

#[async_trait]
impl Upload for MemoryUpload {
    fn id(&self) -> String {
        "memory".to_owned()
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        self.bytes.extend_from_slice(&part);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.bucket.put(&self.key, self.bytes.freeze(), Put::Replace).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
