//! The promises on a Ceph RADOS gateway, and what only it has of all servers that we can start: versions, locks, policies.
//! These tests are run by `dev/test --ceph`; see `support/ceph.rs`.
use std::sync::Arc;

use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockRetentionMode};
use rusuban::bucket::{Bucket, BucketError, Put, probe::Verdict};

use super::{
    probe::{assert_tells, tried},
    promises::{World, for_each_promise, keys, read},
};
use crate::support::ceph::{CephBucket, DELETE, NEEDED, User};

/// One test for each promise, in the module's own world.
macro_rules! suite {
    ($($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            #[ignore = "run by dev/test --ceph"]
            async fn $promise() {
                crate::bucket::promises::$promise(world().await).await;
            }
        )*
    };
}

mod plain {
    use super::*;

    async fn world() -> World {
        // The rights that docs/buckets.md names are enough for all of it.
        let place = CephBucket::plain().await;
        place.let_guest(&[&NEEDED[..], &[DELETE]].concat()).await;
        World { bucket: Arc::new(place.by(User::Guest).await), conditional: true, steady: true }
    }

    for_each_promise!(suite);
}

mod with_versions {
    use super::*;

    async fn world() -> World {
        let bucket = CephBucket::versioned().await.by(User::House).await;
        World { bucket: Arc::new(bucket), conditional: false, steady: true }
    }

    for_each_promise!(suite);
}

mod with_a_lock {
    use super::*;

    async fn world() -> World {
        let bucket = CephBucket::locked(ObjectLockRetentionMode::Governance).await.by(User::House).await;
        World { bucket: Arc::new(bucket), conditional: false, steady: true }
    }

    for_each_promise!(suite);
}

#[tokio::test]
#[ignore = "run by dev/test --ceph"]
async fn a_plain_bucket_keeps_nothing() {
    let place = CephBucket::plain().await;
    let [versions, lock, delete] = tried(&place.by(User::House).await).await;
    assert_tells(&versions, Verdict::Works, "off", "what is deleted is gone");
    assert_tells(&lock, Verdict::Works, "off", "nothing is locked");
    assert_tells(&delete, Verdict::Works, "gone", "MAY DELETE");
    assert_eq!(place.kept().await, (0, 0));
}

#[tokio::test]
#[ignore = "run by dev/test --ceph"]
async fn kept_versions_are_told_and_those_of_the_test_removed() {
    let place = CephBucket::versioned().await;
    let bucket = place.by(User::House).await;
    let [versions, lock, delete] = tried(&bucket).await;
    assert_tells(&versions, Verdict::Note, "on", "prune frees nothing before");
    assert_tells(&lock, Verdict::Works, "off", "nothing is locked");
    assert_tells(&delete, Verdict::Works, "removable", "MAY REMOVE THEM TOO");
    assert_eq!(place.kept().await, (0, 0));

    bucket.put("before", "x".into(), Put::Replace).await.unwrap();
    place.versioning(BucketVersioningStatus::Suspended).await;
    let [versions, _, _] = tried(&bucket).await;
    assert_tells(&versions, Verdict::Note, "suspended", "no new ones are kept");
    assert_eq!(place.kept().await, (1, 0));
}

#[tokio::test]
#[ignore = "run by dev/test --ceph"]
async fn a_locked_bucket_lets_nothing_go_and_hides_what_is_deleted() {
    for (mode, state) in
        [(ObjectLockRetentionMode::Governance, "governance"), (ObjectLockRetentionMode::Compliance, "compliance")]
    {
        let place = CephBucket::locked(mode).await;
        let bucket = place.by(User::House).await;
        let [versions, lock, delete] = tried(&bucket).await;
        assert_tells(&versions, Verdict::Note, "on", "older versions are kept");
        assert_tells(&lock, Verdict::Note, state, "locked for 1 day");
        assert_tells(&delete, Verdict::Note, "kept", "a delete leaves older versions");
        assert!(delete.detail.contains("Of this test 8 stay, 16.0 MiB"), "{delete:?}");
        assert_eq!(place.kept().await, (5, 3));
        assert_eq!(keys(&bucket, "").await, [""; 0]);
    }

    let place = CephBucket::lockable().await;
    let [_, lock, delete] = tried(&place.by(User::House).await).await;
    assert_tells(&lock, Verdict::Note, "on_request", "no default retention");
    assert_tells(&delete, Verdict::Works, "removable", "MAY REMOVE THEM TOO");
    assert_eq!(place.kept().await, (0, 0));
}

/// What `bucket test` asks for besides.
const LOOK: [&str; 3] = ["s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:ListBucketVersions"];

#[tokio::test]
#[ignore = "run by dev/test --ceph"]
async fn what_a_key_may_do_is_found_out() {
    let place = CephBucket::versioned().await;
    let bucket = place.by(User::Guest).await;
    let refused = bucket.put("a", "x".into(), Put::Replace).await.unwrap_err();
    assert!(matches!(refused, BucketError::Refused(_)), "{refused:?}");

    place.let_guest(&NEEDED).await;
    let [versions, lock, delete] = tried(&bucket).await;
    assert_tells(&versions, Verdict::Note, "not_told", "AccessDenied");
    assert_tells(&lock, Verdict::Note, "not_told", "AccessDenied");
    assert_tells(&delete, Verdict::Note, "refused", "retention cannot work, and this test's objects stay");
    // Two of the small one, two that the conditional put made, and the large one.
    assert_eq!(place.kept().await, (5, 0));

    place.let_guest(&[&NEEDED[..], &[DELETE]].concat()).await;
    let [_, _, delete] = tried(&bucket).await;
    assert_tells(&delete, Verdict::Works, "not_told", "whether older versions stay is not told");
    assert_eq!(place.kept().await, (10, 3));

    place.let_guest(&[&NEEDED[..], &[DELETE], &LOOK].concat()).await;
    let [versions, _, delete] = tried(&bucket).await;
    assert_tells(&versions, Verdict::Note, "on", "older versions are kept");
    assert_tells(&delete, Verdict::Note, "kept", "Of this test 8 stay, 16.0 MiB");
    assert_eq!(place.kept().await, (15, 6));
}

#[tokio::test]
#[ignore = "run by dev/test --ceph"]
async fn where_versions_are_kept_a_conditional_put_overwrites() {
    // docs/buckets.md says so; when this fails, it has learnt better.
    let bucket = CephBucket::versioned().await.by(User::House).await;
    bucket.put("a", "first".into(), Put::IfAbsent).await.unwrap();
    bucket.put("a", "second".into(), Put::IfAbsent).await.unwrap();
    assert_eq!(read(&bucket, "a").await.unwrap(), "second");
}
