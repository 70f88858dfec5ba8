//! What every bucket promises. One suite, run against each implementation.
use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use rusuban::bucket::{Bucket, BucketError, PART, Put};

/// A bucket, and what it is known not to promise.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) bucket: Arc<dyn Bucket>,
    /// A conditional put is refused when something is there.
    pub(crate) conditional: bool,
    /// A stream that broke off goes on in the object in which it began, though that was replaced meanwhile.
    pub(crate) steady: bool,
}

/// Calls `$each! { … }` with the name of every promise.
macro_rules! for_each_promise {
    ($each:ident) => {
        $each! {
            what_was_put_is_read_back_at_once
            a_put_replaces_what_was_there
            a_conditional_put_never_replaces
            of_many_conditional_puts_one_wins
            ranges_are_read_as_far_as_they_go
            what_is_not_there_is_not_found
            deleting_what_is_not_there_is_fine
            a_listing_is_complete_and_sorted_beyond_a_page
            a_listing_has_what_begins_with_the_prefix
            folders_are_those_directly_below
            odd_keys_come_back_as_they_were
            uploads_of_any_size_are_read_back
            an_upload_takes_pieces_of_any_size
            an_upload_is_seen_whole_or_not_at_all
            an_abandoned_upload_is_ended_by_its_name
            an_upload_begun_again_leaves_the_older_object_alone
            uploads_at_once_do_not_mix
            a_reader_sees_one_state_while_writers_replace
            neighbours_come_and_go_without_harm
        }
    };
}
pub(crate) use for_each_promise;

/// Bytes that repeat only after a long time, different for each seed.
pub(crate) fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

pub(crate) async fn read(bucket: &dyn Bucket, key: &str) -> Result<Bytes, BucketError> {
    let mut body = bucket.get(key, None).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes.into())
}

async fn put(bucket: &dyn Bucket, key: &str, bytes: impl Into<Bytes>) {
    bucket.put(key, bytes.into(), Put::Replace).await.unwrap_or_else(|error| panic!("put {key}: {error}"));
}

pub(crate) async fn keys(bucket: &dyn Bucket, prefix: &str) -> Vec<String> {
    let listing = bucket.list(prefix).await.unwrap();
    listing.map_ok(|object| object.key).try_collect().await.unwrap()
}

/// Comparing without printing megabytes.
#[track_caller]
fn assert_same(one: &Bytes, other: &Bytes, what: &str) {
    assert_eq!(one.len(), other.len(), "{what}: length");
    assert!(one == other, "{what}: other bytes");
}

pub(crate) async fn upload(bucket: &dyn Bucket, key: &str, bytes: &Bytes) -> Result<(), BucketError> {
    let mut upload = bucket.upload(key).await?;
    for part in parts(bytes) {
        upload.part(part).await?;
    }
    upload.finish().await
}

fn parts(bytes: &Bytes) -> Vec<Bytes> {
    (0..bytes.len()).step_by(PART).map(|start| bytes.slice(start..bytes.len().min(start + PART))).collect()
}

pub(crate) async fn what_was_put_is_read_back_at_once(world: World) {
    let bucket = &*world.bucket;
    for (seed, length) in [(1, 0), (2, 1), (3, 1000), (4, 3 << 20)] {
        let (key, bytes) = (format!("put/{length}"), noise(seed, length));
        put(bucket, &key, bytes.clone()).await;
        assert_same(&read(bucket, &key).await.unwrap(), &bytes, &key);
        let told = bucket.head(&key).await.unwrap();
        assert_eq!((told.key.as_str(), told.size), (key.as_str(), length as u64));
        assert_eq!(keys(bucket, &key).await, [key]);
    }
}

pub(crate) async fn a_put_replaces_what_was_there(world: World) {
    let bucket = &*world.bucket;
    put(bucket, "job/state", "a long first state").await;
    put(bucket, "job/state", "second").await;
    assert_eq!(read(bucket, "job/state").await.unwrap(), "second");
    assert_eq!(bucket.head("job/state").await.unwrap().size, 6);
    upload(bucket, "job/state", &"third".into()).await.unwrap();
    assert_eq!(read(bucket, "job/state").await.unwrap(), "third");
}

pub(crate) async fn a_conditional_put_never_replaces(world: World) {
    if !world.conditional {
        return;
    }
    let bucket = &*world.bucket;
    bucket.put("a/lock", "mine".into(), Put::IfAbsent).await.unwrap();
    let refused = bucket.put("a/lock", "yours".into(), Put::IfAbsent).await.unwrap_err();
    assert!(matches!(refused, BucketError::Exists(_)), "{refused:?}");
    assert_eq!(read(bucket, "a/lock").await.unwrap(), "mine");
    bucket.delete("a/lock").await.unwrap();
    bucket.put("a/lock", "yours".into(), Put::IfAbsent).await.unwrap();
}

pub(crate) async fn of_many_conditional_puts_one_wins(world: World) {
    if !world.conditional {
        return;
    }
    let bucket = &*world.bucket;
    let writers = (0..16).map(|writer| async move {
        let name = format!("writer {writer}");
        bucket.put("race/lock", name.clone().into(), Put::IfAbsent).await.is_ok().then_some(name)
    });
    let winners: Vec<String> = futures_util::future::join_all(writers).await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(read(bucket, "race/lock").await.unwrap(), winners[0]);
    assert_eq!(keys(bucket, "race/").await, ["race/lock"]);
}

pub(crate) async fn ranges_are_read_as_far_as_they_go(world: World) {
    let bucket = &*world.bucket;
    let bytes = noise(5, 3_000_000);
    put(bucket, "ranges", bytes.clone()).await;
    for range in [0..1, 0..3_000_000, 1..2, 999_999..2_000_001, 2_999_999..3_000_000, 2_999_990..9_999_999, 7..u64::MAX]
    {
        let got: Vec<Bytes> = bucket.get("ranges", Some(range.clone())).await.unwrap().try_collect().await.unwrap();
        let expected = range.start as usize..(range.end.min(3_000_000) as usize);
        assert_same(&got.concat().into(), &bytes.slice(expected), &format!("{range:?}"));
    }
    for beyond in [3_000_000..3_000_001, 9_000_000..u64::MAX, 5..5] {
        let got: Vec<Bytes> = bucket.get("ranges", Some(beyond.clone())).await.unwrap().try_collect().await.unwrap();
        assert_eq!(got.concat().len(), 0, "{beyond:?}");
    }
    put(bucket, "nothing", "").await;
    let got: Vec<Bytes> = bucket.get("nothing", Some(0..10)).await.unwrap().try_collect().await.unwrap();
    assert_eq!(got.concat().len(), 0);
}

pub(crate) async fn what_is_not_there_is_not_found(world: World) {
    let bucket = &*world.bucket;
    put(bucket, "there/it/is", "x").await;
    for key in ["missing", "there/it/was", "there/it", "there", "there/it/is/not", "no/such/folder/at/all"] {
        let got = bucket.get(key, None).await.map(drop).unwrap_err();
        assert!(matches!(got, BucketError::NotFound(_)), "get {key}: {got:?}");
        let got = bucket.get(key, Some(3..9)).await.map(drop).unwrap_err();
        assert!(matches!(got, BucketError::NotFound(_)), "get a range of {key}: {got:?}");
        let head = bucket.head(key).await.unwrap_err();
        assert!(matches!(head, BucketError::NotFound(_)), "head {key}: {head:?}");
    }
    assert_eq!(keys(bucket, "no/such/").await, [""; 0]);
    assert_eq!(bucket.folders("no/such/").await.unwrap(), [""; 0]);
}

pub(crate) async fn deleting_what_is_not_there_is_fine(world: World) {
    let bucket = &*world.bucket;
    bucket.delete("never/was").await.unwrap();
    put(bucket, "job/one", "1").await;
    put(bucket, "job/two", "2").await;
    bucket.delete("job/one").await.unwrap();
    bucket.delete("job/one").await.unwrap();
    bucket.delete("job").await.unwrap();
    assert!(matches!(bucket.head("job/one").await, Err(BucketError::NotFound(_))));
    assert_eq!(keys(bucket, "").await, ["job/two"]);
    bucket.delete("job/two").await.unwrap();
    assert_eq!(keys(bucket, "").await, [""; 0]);
    assert_eq!(bucket.folders("").await.unwrap(), [""; 0]);
    put(bucket, "job/one", "again").await;
    assert_eq!(read(bucket, "job/one").await.unwrap(), "again");
}

pub(crate) async fn a_listing_is_complete_and_sorted_beyond_a_page(world: World) {
    let bucket = &*world.bucket;
    let expected: BTreeSet<String> = (0..1_234).map(|n| format!("many/{}/{n}", n % 7)).collect();
    let mut puts = stream::iter(expected.clone())
        .map(|key| async move { put(bucket, &key, key.clone()).await })
        .buffer_unordered(24);
    while puts.next().await.is_some() {}
    drop(puts);
    let listing: Vec<_> = bucket.list("many/").await.unwrap().try_collect().await.unwrap();
    let found: Vec<_> = listing.iter().map(|object| object.key.clone()).collect();
    assert_eq!(found, expected.iter().cloned().collect::<Vec<_>>());
    assert!(listing.iter().all(|object| object.size == object.key.len() as u64));
    assert_eq!(bucket.folders("many/").await.unwrap(), ["0/", "1/", "2/", "3/", "4/", "5/", "6/"]);
}

pub(crate) async fn a_listing_has_what_begins_with_the_prefix(world: World) {
    let bucket = &*world.bucket;
    let all = ["a-b/1", "a/1", "a/2/3", "a/20/3", "ab", "b/1"];
    for key in all {
        put(bucket, key, "x").await;
    }
    for (prefix, expected) in [
        ("", &all[..]),
        ("a", &["a-b/1", "a/1", "a/2/3", "a/20/3", "ab"][..]),
        ("a/", &["a/1", "a/2/3", "a/20/3"][..]),
        ("a/2", &["a/2/3", "a/20/3"][..]),
        ("a/2/", &["a/2/3"][..]),
        ("a/1", &["a/1"][..]),
        ("c", &[][..]),
        ("../", &[][..]),
    ] {
        assert_eq!(keys(bucket, prefix).await, expected, "{prefix}");
    }
}

pub(crate) async fn folders_are_those_directly_below(world: World) {
    let bucket = &*world.bucket;
    for key in ["a-b/1", "a/1", "a/2/3", "a/2/4", "a/20/3", "ab", "Z/1"] {
        put(bucket, key, "x").await;
    }
    for (prefix, expected) in [("", &["Z/", "a-b/", "a/"][..]), ("a/", &["2/", "20/"][..]), ("a/2/", &[][..])] {
        assert_eq!(bucket.folders(prefix).await.unwrap(), expected, "{prefix}");
    }
}

pub(crate) async fn odd_keys_come_back_as_they_were(world: World) {
    let bucket = &*world.bucket;
    let long = format!("long/{}/{}/{}", "x".repeat(250), "y".repeat(250), "z".repeat(250));
    let odd = [
        "a space/and  two",
        "plus+and&amp;=?#",
        "per%cent/100%25",
        "留守番/バックアップ",
        "e\u{301} is not \u{e9}",
        "quotes\"'`<xml>",
        "tilde~star*(paren)!$@,;:",
        "back\\slash",
        ".hidden/.dots..",
        "UPPER/upper",
        long.as_str(),
    ];
    for key in odd {
        put(bucket, key, key.to_owned()).await;
    }
    let mut expected = odd.to_vec();
    expected.sort_unstable();
    assert_eq!(keys(bucket, "").await, expected);
    for key in odd {
        assert_eq!(read(bucket, key).await.unwrap(), key);
        assert_eq!(keys(bucket, key).await, [key]);
        let written = format!("{key} uploaded");
        upload(bucket, key, &written.clone().into()).await.unwrap_or_else(|error| panic!("upload {key}: {error}"));
        assert_eq!(read(bucket, key).await.unwrap(), written);
        bucket.delete(key).await.unwrap();
        assert!(matches!(bucket.head(key).await, Err(BucketError::NotFound(_))), "{key}");
    }
}

pub(crate) async fn uploads_of_any_size_are_read_back(world: World) {
    let bucket = &*world.bucket;
    for (seed, length) in [(6, 0), (7, 1), (8, PART), (9, PART + 1), (10, PART * 5 / 2)] {
        let (key, bytes) = (format!("upload/{length}"), noise(seed, length));
        upload(bucket, &key, &bytes).await.unwrap_or_else(|error| panic!("upload {length} bytes: {error}"));
        assert_same(&read(bucket, &key).await.unwrap(), &bytes, &key);
        assert_eq!(bucket.head(&key).await.unwrap().size, length as u64);
    }
}

pub(crate) async fn an_upload_takes_pieces_of_any_size(world: World) {
    let bucket = &*world.bucket;
    let bytes = noise(12, 2 * PART + PART / 2);
    let mut upload = bucket.upload("pieces").await.unwrap();
    let (mut rest, mut length) = (bytes.clone(), 1);
    while !rest.is_empty() {
        upload.part(rest.split_to(rest.len().min(length))).await.unwrap();
        length = length * 7 % (PART + 1000);
    }
    upload.finish().await.unwrap();
    assert_same(&read(bucket, "pieces").await.unwrap(), &bytes, "pieces");
}

pub(crate) async fn an_upload_is_seen_whole_or_not_at_all(world: World) {
    let bucket = &*world.bucket;
    let bytes = noise(11, PART + 1000);
    for end in ["abort", "drop", "finish"] {
        let mut upload = bucket.upload("half/way").await.unwrap();
        let id = upload.id();
        for part in parts(&bytes) {
            upload.part(part).await.unwrap();
            assert!(matches!(bucket.head("half/way").await, Err(BucketError::NotFound(_))));
            assert!(matches!(bucket.get("half/way", None).await, Err(BucketError::NotFound(_))));
        }
        assert_eq!(keys(bucket, "").await, [""; 0], "before {end}");
        assert_eq!(bucket.folders("").await.unwrap(), [""; 0], "before {end}");
        match end {
            "abort" => upload.abort().await.unwrap(),
            "drop" => drop(upload),
            _ => {
                upload.finish().await.unwrap();
                assert_same(&read(bucket, "half/way").await.unwrap(), &bytes, "finished");
                continue;
            }
        }
        bucket.abort_upload("half/way", &id).await.unwrap();
        assert_eq!(keys(bucket, "").await, [""; 0], "after {end}");
        assert_eq!(bucket.folders("").await.unwrap(), [""; 0], "after {end}");
    }
}

pub(crate) async fn an_abandoned_upload_is_ended_by_its_name(world: World) {
    let bucket = &*world.bucket;
    let mut upload = bucket.upload("job/data").await.unwrap();
    let id = upload.id();
    upload.part(noise(12, PART)).await.unwrap();
    // As after a crash: nobody calls its destructor.
    std::mem::forget(upload);
    bucket.abort_upload("job/data", &id).await.unwrap();
    bucket.abort_upload("job/data", &id).await.unwrap();
    assert_eq!(keys(bucket, "").await, [""; 0]);
    put(bucket, "job/data", "new").await;
    bucket.abort_upload("job/data", &id).await.unwrap();
    assert_eq!(read(bucket, "job/data").await.unwrap(), "new");
}

pub(crate) async fn an_upload_begun_again_leaves_the_older_object_alone(world: World) {
    let bucket = &*world.bucket;
    put(bucket, "job/data", "older").await;
    let mut upload = bucket.upload("job/data").await.unwrap();
    upload.part(noise(13, 1000)).await.unwrap();
    assert_eq!(read(bucket, "job/data").await.unwrap(), "older");
    upload.abort().await.unwrap();
    assert_eq!(read(bucket, "job/data").await.unwrap(), "older");
    assert_eq!(keys(bucket, "").await, ["job/data"]);
}

pub(crate) async fn uploads_at_once_do_not_mix(world: World) {
    let bucket = &*world.bucket;
    let expected: Vec<Bytes> = (0..6).map(|n| noise(20 + n, 100_000 + n as usize)).collect();
    try_join_all(expected.iter().enumerate().map(|(n, bytes)| async move {
        let key = format!("at-once/{n}");
        upload(bucket, &key, bytes).await
    }))
    .await
    .unwrap();
    for (n, bytes) in expected.iter().enumerate() {
        assert_same(&read(bucket, &format!("at-once/{n}")).await.unwrap(), bytes, &n.to_string());
    }
    // Two to one key: what is there is whole. Garage forgets the one that is not the first to end.
    let (one, other) = (noise(30, 70_000), noise(31, 50_000));
    let (first, second) = tokio::join!(upload(bucket, "same", &one), upload(bucket, "same", &other));
    first.or(second).unwrap();
    let found = read(bucket, "same").await.unwrap();
    assert!(found == one || found == other, "a mixture of {} bytes", found.len());
}

pub(crate) async fn a_reader_sees_one_state_while_writers_replace(world: World) {
    if !world.steady {
        return;
    }
    let bucket = &*world.bucket;
    let states: Vec<Bytes> = (1..=4u8).map(|n| vec![n; 100_000 * usize::from(n)].into()).collect();
    put(bucket, "state", states[0].clone()).await;
    let write = async {
        for round in 0..8 {
            put(bucket, "state", states[round % 4].clone()).await;
        }
    };
    let read = async {
        for _ in 0..12 {
            let found = read(bucket, "state").await.unwrap();
            assert!(states.contains(&found), "a mixture of {} bytes", found.len());
        }
    };
    tokio::join!(write, read);
}

pub(crate) async fn neighbours_come_and_go_without_harm(world: World) {
    let bucket = &*world.bucket;
    // Whoever removes the last object of a folder must not take it away from one who is just putting the next.
    let neighbours = (0..8).map(|n| async move {
        let key = format!("shared/deep/folder/{n}");
        for _ in 0..12 {
            put(bucket, &key, "x").await;
            bucket.delete(&key).await.unwrap();
        }
    });
    futures_util::future::join_all(neighbours).await;
    assert_eq!(keys(bucket, "").await, [""; 0]);
}
