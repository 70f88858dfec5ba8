//! A key that may only add: whoever takes the host over cannot take its backups with it.
use std::{fs, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use futures_util::stream::BoxStream;
use rusuban::{
    bucket::{Body, Bucket, BucketError, Object, Put, Result, Upload, folder::Folder},
    clock::Clock,
    repository::{Class, Locked, PruneOptions},
};

use super::{
    restore::noise,
    support::{Place, SMALL},
};
use crate::support::trees::assert_equal;

/// A bucket whose key may not delete.
#[derive(Debug)]
struct OnlyAdds(Arc<dyn Bucket>);

#[async_trait]
impl Bucket for OnlyAdds {
    fn describe(&self) -> String {
        self.0.describe()
    }
    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        self.0.put(key, body, put).await
    }
    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.0.upload(key).await
    }
    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.0.abort_upload(key, upload).await
    }
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        self.0.get(key, range).await
    }
    async fn head(&self, key: &str) -> Result<Object> {
        self.0.head(key).await
    }
    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        self.0.list(prefix).await
    }
    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.0.folders(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        Err(BucketError::Refused(format!("this key may not delete {key}")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_add_keeps_backups_and_another_prunes() {
    let mut place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(200_000, 1)).unwrap();
    let honest: Arc<dyn Bucket> = Arc::new(Folder::new(place.path("repository")));
    place.bucket = Arc::new(OnlyAdds(Arc::clone(&honest)));
    let repository = place.create(SMALL).await;
    // Green each time, though locks stay behind.
    let (first, _) = place.back_up(&repository, &original).await.unwrap();
    fs::write(original.join("file"), noise(200_000, 2)).unwrap();
    let (_, second) = place.back_up(&repository, &original).await.unwrap();
    assert_eq!(repository.locks().await.unwrap().len(), 2);
    let error = repository.objects().remove(Class::Snapshot, &first).await.unwrap_err();
    assert!(format!("{error:#}").contains("may not delete"), "{error:#}");
    let error = repository.unlock(true, "here", &place.clock).await.unwrap_err();
    assert!(format!("{error:#}").contains("another key"), "{error:#}");
    let restored = place.restore(&repository, &second, &original, |wish| wish).await.unwrap();
    assert_eq!(restored.failed, 0);
    assert_equal(&original, &place.path("back"));

    // A machine with another key cannot know that nobody is at work, until the locks are stale.
    place.bucket = honest;
    let trusted = place.open().await;
    trusted.objects().remove(Class::Snapshot, &first).await.unwrap();
    let options = PruneOptions { grace: TimeDelta::zero(), ..PruneOptions::default() };
    let error = trusted.prune(&options, "trusted", &*place.told, &place.clock).await.unwrap_err();
    assert!(error.is::<Locked>(), "{error:#}");
    let later = Clock::simulated(place.clock.now() + TimeDelta::minutes(31));
    let pruned = trusted.prune(&options, "trusted", &*place.told, &later).await.unwrap();
    assert!(pruned.removed > 0 && trusted.locks().await.unwrap().is_empty(), "{pruned:?}");
    place.restic().check().unwrap();
}
