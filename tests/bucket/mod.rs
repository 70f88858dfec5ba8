//! What every bucket promises, on each of them: memory, a folder, a real S3 server.
mod faulty;
mod promises;

use std::{sync::Arc, time::Duration};

use rusuban::{
    bucket::{
        Bucket, BucketError, PART, Put,
        folder::Folder,
        limited::Limited,
        memory::Memory,
        probe::{Verdict, probe},
        retrying::{Patience, Retrying},
        s3::{S3, S3Settings},
    },
    clock::Clock,
    config::secret::Secret,
};

use crate::support::garage::{BUCKET, Garage};
use faulty::{Fault, Faulty};

fn patience() -> Patience {
    Patience { clock: Clock::system(), tries: 4, first_wait: Duration::from_millis(1) }
}

async fn s3(garage: &Garage, prefix: &str, credentials: (Secret, Secret)) -> S3 {
    let settings = S3Settings {
        bucket: BUCKET.to_owned(),
        prefix: format!("{prefix}/"),
        endpoint: Some(garage.endpoint.clone()),
        region: Some("garage".to_owned()),
        path_style: true,
        credentials: Some(credentials),
        certificates: None,
        patience: patience(),
    };
    S3::new(settings).await.unwrap()
}

#[tokio::test]
async fn memory_keeps_its_promises() {
    promises::all(&Memory::new(Clock::system())).await;
}

#[tokio::test]
async fn a_folder_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Folder::new(folder.path().join("backups"));
    promises::all(&bucket).await;
    promises::if_absent(&bucket).await;
    // Nothing unfinished is left lying about.
    let left: Vec<_> = walk(folder.path()).into_iter().filter(|name| name.contains("rusuban-part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path) } else { vec![path.display().to_string()] }
        })
        .collect()
}

#[tokio::test]
async fn a_folder_whose_disk_is_not_mounted_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Folder::new(folder.path().join("not-mounted/backups"));
    let error = bucket.put("photos/a", "x".into(), Put::Replace).await.unwrap_err();
    assert!(error.to_string().contains("is its disk mounted?"), "{error}");
    assert!(!folder.path().join("not-mounted").exists());
    for outside in ["../a", "/etc/a", "a/../../b", "a//b", ""] {
        bucket.put(outside, "x".into(), Put::Replace).await.unwrap_err();
    }
}

#[tokio::test]
async fn an_s3_server_keeps_its_promises() {
    let garage = Garage::start();
    promises::all(&s3(&garage, "plain", Garage::credentials()).await).await;
    let decorated = s3(&garage, "decorated", Garage::credentials()).await;
    let limited = Limited::new(Arc::new(decorated), Duration::from_secs(30), None, None);
    promises::all(&Retrying::new(Arc::new(limited), patience())).await;

    let bucket = s3(&garage, "trial", Garage::credentials()).await;
    let trials = probe(&bucket, &Clock::system()).await;
    assert!(trials.iter().all(|trial| trial.verdict != Verdict::Fails), "{trials:?}");
    assert!(trials.iter().any(|trial| trial.what == "delete" && trial.detail.contains("MAY DELETE")), "{trials:?}");
    assert_eq!(promises::keys(&bucket, "").await, Vec::<String>::new(), "the trial cleans up after itself");

    let (key, _) = Garage::credentials();
    let stranger = s3(&garage, "plain", (key, Secret::new("0".repeat(64)))).await;
    assert!(matches!(stranger.head("a").await, Err(BucketError::Refused(_) | BucketError::Other(_))));
    assert!(matches!(stranger.list("").await.err(), Some(BucketError::Refused(_))));

    drop(garage);
    let gone = bucket.put("a", "x".into(), Put::Replace).await.unwrap_err();
    assert!(gone.worth_retrying(), "{gone}");
}

#[tokio::test]
async fn a_fault_at_any_operation_is_overcome_or_told() {
    // Count the operations of a clean pass, then break each of them in each way.
    let clean = Faulty::new(Memory::new(Clock::system()), u64::MAX, Fault::Before);
    promises::small(&clean).await;
    let operations = clean.count();
    assert!(operations > 30, "{operations}");
    for fault in [Fault::Before, Fault::After, Fault::ShortRead] {
        for at in 0..operations {
            let faulty = Faulty::new(Memory::new(Clock::system()), at, fault);
            promises::small(&Retrying::new(Arc::new(faulty), patience())).await;
        }
    }
}

#[tokio::test]
async fn bytes_a_second_are_limited_both_ways() {
    let limited =
        Limited::new(Arc::new(Memory::new(Clock::system())), Duration::from_secs(5), Some(1_000_000), Some(2_000_000));
    let began = tokio::time::Instant::now();
    for key in ["a", "b"] {
        limited.put(key, vec![0; 200_000].into(), Put::Replace).await.unwrap();
    }
    // The second waits for the first's 0.2 s.
    assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
    let began = tokio::time::Instant::now();
    for key in ["a", "b"] {
        promises::read(&limited, key, None).await.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(90), "{:?}", began.elapsed());
    assert_eq!(PART % (1 << 20), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_bucket_is_given_up() {
    let faulty = Faulty::new(Memory::new(Clock::system()), 0, Fault::Hang);
    let limited = Limited::new(Arc::new(faulty), Duration::from_secs(60), None, None);
    let error = limited.head("a").await.unwrap_err();
    assert!(matches!(&error, BucketError::Unreachable(text) if text.contains("no answer within 1m 00s")), "{error}");
}
