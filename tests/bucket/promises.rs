//! The promises, for any bucket.
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use rusuban::bucket::{Bucket, BucketError, PART, Put, Result};

/// All of them; the bucket's keys under `promises/` are gone afterwards.
pub(super) async fn all(bucket: &dyn Bucket) {
    small(bucket).await;
    uploads(bucket, &[PART, PART + 1]).await;
    clean_up(bucket).await;
}

/// Those that need no large object.
pub(super) async fn small(bucket: &dyn Bucket) {
    put_and_get(bucket).await;
    listing(bucket).await;
    uploads(bucket, &[0, 1, 1000]).await;
    clean_up(bucket).await;
}

async fn clean_up(bucket: &dyn Bucket) {
    for key in keys(bucket, "promises/").await {
        bucket.delete(&key).await.unwrap();
        // Once more is fine.
        bucket.delete(&key).await.unwrap();
    }
    assert_eq!(keys(bucket, "promises/").await, Vec::<String>::new());
}

pub(super) async fn read(bucket: &dyn Bucket, key: &str, range: Option<Range<u64>>) -> Result<Vec<u8>> {
    let mut body = bucket.get(key, range).await?;
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

pub(super) async fn keys(bucket: &dyn Bucket, prefix: &str) -> Vec<String> {
    bucket.list(prefix).await.unwrap().map(|object| object.unwrap().key).collect().await
}

async fn put_and_get(bucket: &dyn Bucket) {
    assert!(matches!(read(bucket, "promises/none", None).await, Err(BucketError::NotFound(_))));
    assert!(matches!(bucket.head("promises/none").await, Err(BucketError::NotFound(_))));
    for key in ["promises/a b/ü+%&=?#.txt", "promises/日本/写真.tar.zst", "promises/plain", "promises/a'b\"c"] {
        bucket.put(key, Bytes::from(key.to_owned()), Put::Replace).await.unwrap();
        assert_eq!(read(bucket, key, None).await.unwrap(), key.as_bytes());
        assert_eq!(bucket.head(key).await.unwrap().size, key.len() as u64);
        bucket.put(key, Bytes::from_static(b"0123456789"), Put::Replace).await.unwrap();
        assert_eq!(read(bucket, key, Some(2..5)).await.unwrap(), b"234");
        assert_eq!(read(bucket, key, Some(8..100)).await.unwrap(), b"89");
        assert_eq!(read(bucket, key, Some(4..4)).await.unwrap(), b"");
    }
    bucket.put("promises/empty", Bytes::new(), Put::Replace).await.unwrap();
    assert_eq!(read(bucket, "promises/empty", None).await.unwrap(), b"");
}

/// Not every server keeps it; those that say so do.
pub(super) async fn if_absent(bucket: &dyn Bucket) {
    bucket.put("promises/once", "first".into(), Put::IfAbsent).await.unwrap();
    assert!(matches!(bucket.put("promises/once", "second".into(), Put::IfAbsent).await, Err(BucketError::Exists(_))));
    assert_eq!(read(bucket, "promises/once", None).await.unwrap(), b"first");
    bucket.delete("promises/once").await.unwrap();
}

async fn listing(bucket: &dyn Bucket) {
    let mut expected = Vec::new();
    for name in ["list/b/2", "list/a", "list/b/1", "list/b-c/1", "list/z"] {
        let key = format!("promises/{name}");
        bucket.put(&key, "x".into(), Put::Replace).await.unwrap();
        expected.push(key);
    }
    expected.sort();
    assert_eq!(keys(bucket, "promises/list/").await, expected);
    assert_eq!(keys(bucket, "promises/list/b/").await, ["promises/list/b/1", "promises/list/b/2"]);
    assert_eq!(keys(bucket, "promises/list/b").await.len(), 3);
    assert_eq!(keys(bucket, "promises/nothing/").await, Vec::<String>::new());
    assert_eq!(bucket.folders("promises/list/").await.unwrap(), ["b-c/", "b/"]);
    assert_eq!(bucket.folders("promises/nothing/").await.unwrap(), Vec::<String>::new());
}

/// Bytes that do not repeat at a part's length.
fn pattern(length: usize) -> Bytes {
    let mut bytes = BytesMut::zeroed(length);
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from((index * 7 + index / 997) % 251).unwrap();
    }
    bytes.freeze()
}

async fn uploads(bucket: &dyn Bucket, lengths: &[usize]) {
    for length in lengths.iter().copied() {
        let bytes = pattern(length);
        let key = format!("promises/upload/{length}");
        let mut upload = bucket.upload(&key).await.unwrap();
        for part in bytes.chunks(PART) {
            upload.part(bytes.slice_ref(part)).await.unwrap();
        }
        assert!(matches!(bucket.head(&key).await, Err(BucketError::NotFound(_))), "seen before it was whole");
        upload.finish().await.unwrap();
        assert!(read(bucket, &key, None).await.unwrap() == bytes, "{length} bytes came back changed");
    }
    let mut abandoned = bucket.upload("promises/upload/abandoned").await.unwrap();
    abandoned.part(pattern(1000)).await.unwrap();
    let id = abandoned.id();
    drop(abandoned);
    bucket.abort_upload("promises/upload/abandoned", &id).await.unwrap();
    // Once more is fine.
    bucket.abort_upload("promises/upload/abandoned", &id).await.unwrap();
    let mut aborted = bucket.upload("promises/upload/aborted").await.unwrap();
    aborted.part(pattern(1000)).await.unwrap();
    aborted.abort().await.unwrap();
    for key in ["promises/upload/abandoned", "promises/upload/aborted"] {
        assert!(matches!(bucket.head(key).await, Err(BucketError::NotFound(_))), "{key}");
    }
}
