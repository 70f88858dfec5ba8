//! Faults at every operation: what is told is true, and nothing is ever seen half.
use std::{sync::Arc, time::Duration};

use rusuban::{
    bucket::{
        Bucket, BucketError, Put,
        limited::Limited,
        memory::Memory,
        retrying::{Patience, Retrying},
    },
    clock::Clock,
};

use super::promises::{keys, noise, read, upload};
use crate::support::faulty::{Fault, Faulty};

fn bounded(inner: &Faulty, tries: u32) -> Retrying {
    let limited = Limited::new(Arc::new(inner.clone()), Duration::from_secs(60), None, None);
    let patience = Patience { clock: Clock::system(), tries, first_wait: Duration::from_millis(500) };
    Retrying::new(Arc::new(limited), patience)
}

/// What a backup does to a bucket, in small.
async fn work(bucket: &dyn Bucket) -> Result<(), BucketError> {
    bucket.put("job/note", "a small one".into(), Put::Replace).await?;
    upload(bucket, "job/data", &noise(1, 100_000)).await?;
    assert!(read(bucket, "job/data").await? == noise(1, 100_000), "what is read is what was put, or an error");
    let mut begun = bucket.upload("job/given-up").await?;
    begun.part("half".into()).await?;
    let id = begun.id();
    begun.abort().await?;
    bucket.abort_upload("job/given-up", &id).await?;
    assert_eq!(bucket.head("job/data").await?.size, 100_000);
    assert_eq!(bucket.folders("").await?, ["job/"]);
    bucket.list("job/").await.map(drop)?;
    bucket.delete("job/note").await
}

async fn assert_whole(bucket: &Memory, what: &str) {
    for key in keys(bucket, "").await {
        let found = read(bucket, &key).await.unwrap();
        let whole = match key.as_str() {
            "job/note" => found == "a small one",
            "job/data" => found == noise(1, 100_000),
            _ => false,
        };
        assert!(whole, "{what}: {key} has {} bytes", found.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_at_any_operation_is_mended_or_told() {
    let counted = Faulty::new(Arc::new(Memory::new(Clock::system())), |_| None);
    work(&bounded(&counted, 1)).await.unwrap();
    assert_eq!(counted.operations(), 13);
    for fault in [Fault::Before, Fault::After, Fault::Short, Fault::Hang, Fault::Refused] {
        for at in 0..counted.operations() {
            let memory = Memory::new(Clock::system());
            let what = format!("{fault:?} at operation {at}");
            let faulty = Faulty::new(Arc::new(memory.clone()), move |n| (n == at).then_some(fault));
            let done = work(&bounded(&faulty, 3)).await;
            assert_whole(&memory, &what).await;
            // Parts and ends of uploads are tried again by the bucket that knows what has arrived; a memory does not.
            let within_an_upload = [2, 3, 6, 7].contains(&at);
            match (fault, done) {
                (Fault::Refused, done) => assert!(matches!(done, Err(BucketError::Refused(_))), "{what}: {done:?}"),
                (_, Err(error)) => {
                    assert!(within_an_upload && error.worth_retrying(), "{what}: {error}");
                }
                (_, Ok(())) => {
                    assert!(!within_an_upload, "{what}");
                    assert_eq!(keys(&memory, "").await, ["job/data"], "{what}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_asked_again_and_a_dead_server_not_for_ever() {
    for (fault, tries) in [(Fault::Refused, 1), (Fault::Before, 4), (Fault::Hang, 4)] {
        let faulty = Faulty::new(Arc::new(Memory::new(Clock::system())), move |_| Some(fault));
        bounded(&faulty, 4).head("key").await.unwrap_err();
        assert_eq!(faulty.operations(), tries, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_between_tries_grow() {
    let faulty = Faulty::new(Arc::new(Memory::new(Clock::system())), |_| Some(Fault::Before));
    let begun = tokio::time::Instant::now();
    bounded(&faulty, 5).head("key").await.unwrap_err();
    // 0.5 + 1 + 2 + 4 seconds, each a fifth more or less.
    let waited = begun.elapsed().as_secs_f64();
    assert!((6.0..=9.0).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_conditional_put_whose_answer_was_lost_is_not_repeated() {
    let memory = Memory::new(Clock::system());
    let faulty = Faulty::new(Arc::new(memory.clone()), |n| (n == 0).then_some(Fault::After));
    let told = bounded(&faulty, 4).put("lock", "mine".into(), Put::IfAbsent).await;
    assert!(matches!(told, Err(BucketError::Unreachable(_))), "not `it is there already`: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_where_it_broke_off() {
    let memory = Memory::new(Clock::system());
    memory.put("data", noise(2, 64_000), Put::Replace).await.unwrap();
    // Each try brings half of what is left; each that brings something makes up for the failures before.
    let faulty = Faulty::new(Arc::new(memory), |n| (n < 12).then_some(Fault::Short));
    let bucket = bounded(&faulty, 3);
    assert!(read(&bucket, "data").await.unwrap() == noise(2, 64_000));
    assert_eq!(faulty.operations(), 13);
}

#[tokio::test(start_paused = true)]
async fn bytes_go_no_faster_than_the_limit() {
    let memory: Arc<dyn Bucket> = Arc::new(Memory::new(Clock::system()));
    let limited = Limited::new(memory, Duration::from_secs(60), Some(100_000), Some(50_000));
    let begun = tokio::time::Instant::now();
    for n in 0..11 {
        limited.put(&format!("{n}"), noise(n, 100_000), Put::Replace).await.unwrap();
    }
    let up = begun.elapsed();
    assert!((10..=11).contains(&up.as_secs()), "1.1 MB at 100 kB a second took {up:?}");
    let begun = tokio::time::Instant::now();
    for n in 0..6 {
        read(&limited, &format!("{n}")).await.unwrap();
    }
    let down = begun.elapsed();
    assert!((10..=12).contains(&down.as_secs()), "600 kB at 50 kB a second took {down:?}");
}
