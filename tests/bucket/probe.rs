//! `bucket test`: what it finds out of versions, of locks, and of what a delete leaves.
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use rusuban::{
    bucket::{
        Bucket, BucketError, PART, Put,
        folder::Folder,
        keeping::{LockMode, ObjectLock, Versions},
        memory::Memory,
        prefixed::Prefixed,
        probe::{Trial, Verdict, probe},
    },
    clock::Clock,
};

use super::promises::{keys, noise, read, upload};
use crate::support::{
    fake_s3::{Asked, BUCKET, FakeS3, Nature},
    garage,
};

const GOVERNANCE: &str = "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode>\
                          <Days>30</Days></DefaultRetention></Rule>";
const COMPLIANCE: &str = "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode>\
                          <Years>1</Years></DefaultRetention></Rule>";
const ON_REQUEST: &str = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>";

/// The trials' last three: versions, object lock, delete. Those before must work.
pub(crate) async fn tried(bucket: &dyn Bucket) -> [Trial; 3] {
    let mut trials = probe(bucket, &Clock::system()).await;
    let last = trials.split_off(trials.len() - 3);
    for trial in trials.iter().filter(|trial| trial.what != "write only if absent") {
        assert_eq!(trial.verdict, Verdict::Works, "{trial:?}");
    }
    let whats: Vec<_> = last.iter().map(|trial| trial.what).collect();
    assert_eq!(whats, ["versions", "object lock", "delete"]);
    last.try_into().unwrap()
}

pub(crate) fn assert_tells(trial: &Trial, verdict: Verdict, state: &str, words: &str) {
    assert_eq!((trial.verdict, trial.state), (verdict, Some(state)), "{trial:?}");
    assert!(trial.detail.contains(words), "{trial:?}");
}

#[tokio::test]
async fn without_versions_what_is_deleted_is_gone() {
    let fake = FakeS3::start(Nature::default()).await;
    let [versions, lock, delete] = tried(&fake.bucket().await).await;
    assert_tells(&versions, Verdict::Works, "off", "what is deleted is gone");
    assert_tells(&lock, Verdict::Works, "off", "nothing is locked");
    assert_tells(&delete, Verdict::Works, "gone", "MAY DELETE");
    assert_eq!(fake.kept(), (0, 0));
}

#[tokio::test]
async fn kept_versions_are_told_and_those_of_the_test_removed_where_the_key_may() {
    for versioning in ["Enabled", "Suspended"] {
        let nature = Nature { versioning: Some(versioning), may_remove_versions: true, ..Nature::default() };
        let fake = FakeS3::start(nature).await;
        let [versions, _, delete] = tried(&fake.bucket().await).await;
        if versioning == "Enabled" {
            assert_tells(&versions, Verdict::Note, "on", "prune frees nothing before");
        } else {
            assert_tells(&versions, Verdict::Note, "suspended", "no new ones are kept");
        }
        assert_tells(&delete, Verdict::Works, "removable", "MAY REMOVE THEM TOO");
        assert_eq!(fake.kept(), (0, 0), "{versioning}");
    }
}

#[tokio::test]
async fn versions_that_the_key_may_not_remove_are_counted() {
    let fake = FakeS3::start(Nature { versioning: Some("Enabled"), ..Nature::default() }).await;
    let [versions, _, delete] = tried(&fake.bucket().await).await;
    assert_tells(&versions, Verdict::Note, "on", "until a lifecycle rule of the bucket removes them");
    // Two of the small one, one each of the others, and three marks.
    assert_eq!(fake.kept().0, 7);
    assert_tells(&delete, Verdict::Note, "kept", "Of this test 7 stay, 16.0 MiB: refused: ");
    assert!(delete.detail.contains("AccessDenied"), "{delete:?}");
}

#[tokio::test]
async fn a_lock_is_told_with_its_time_and_with_who_can_break_it() {
    for (object_lock, state, words) in [
        (GOVERNANCE, "governance", "locked for 30 days (governance): only a key that may bypass governance can"),
        (COMPLIANCE, "compliance", "locked for 1 year (compliance): nobody can"),
    ] {
        let nature = Nature {
            versioning: Some("Enabled"),
            object_lock: Some(object_lock),
            may_remove_versions: true,
            ..Nature::default()
        };
        let fake = FakeS3::start(nature).await;
        let [_, lock, delete] = tried(&fake.bucket().await).await;
        assert_tells(&lock, Verdict::Note, state, words);
        assert_tells(&delete, Verdict::Note, "kept", "Of this test 7 stay, 16.0 MiB");
        assert_eq!(delete.detail.contains("may bypass governance was not tried"), state == "governance", "{delete:?}");
        assert_eq!(delete.detail.contains("nor may whoever"), state == "compliance", "{delete:?}");
        // The marks are not locked. Without them, what was deleted would be there again.
        assert_eq!(fake.kept().0, 7);
        assert_eq!(keys(&fake.bucket().await, "").await, [""; 0]);
    }

    let nature = Nature {
        versioning: Some("Enabled"),
        object_lock: Some(ON_REQUEST),
        may_remove_versions: true,
        ..Nature::default()
    };
    let fake = FakeS3::start(nature).await;
    let [_, lock, delete] = tried(&fake.bucket().await).await;
    assert_tells(&lock, Verdict::Note, "on_request", "no default retention");
    assert_tells(&delete, Verdict::Works, "removable", "MAY REMOVE THEM TOO");
    assert_eq!(fake.kept(), (0, 0));
}

#[tokio::test]
async fn a_server_that_does_not_tell_is_no_error() {
    for (asked, word) in
        [(Asked::NotImplemented, "NotImplemented, HTTP 501"), (Asked::Denied, "AccessDenied, HTTP 403")]
    {
        let fake = FakeS3::start(Nature { asked, ..Nature::default() }).await;
        let [versions, lock, delete] = tried(&fake.bucket().await).await;
        assert_tells(&versions, Verdict::Note, "not_told", word);
        assert_tells(&lock, Verdict::Note, "not_told", word);
        assert_tells(&delete, Verdict::Works, "not_told", "whether older versions stay is not told");
        assert!(delete.detail.contains(word) && delete.detail.contains("MAY DELETE"), "{delete:?}");
    }
}

#[tokio::test]
async fn a_key_that_may_not_delete_is_told_and_what_stays() {
    let fake = FakeS3::start(Nature { may_not_delete: true, ..Nature::default() }).await;
    let [_, _, delete] = tried(&fake.bucket().await).await;
    assert_tells(&delete, Verdict::Note, "refused", "retention cannot work, and this test's objects stay");
    assert_eq!(fake.kept().0, 3);
}

#[tokio::test]
async fn garage_keeps_no_versions_and_knows_no_locks() {
    let bucket = garage::bucket("probe").await;
    let [versions, lock, delete] = tried(&bucket).await;
    assert_tells(&versions, Verdict::Works, "off", "none are kept");
    assert_tells(&lock, Verdict::Note, "not_told", "NotImplemented");
    assert_tells(&delete, Verdict::Works, "gone", "MAY DELETE");
    assert_eq!(keys(&bucket, "").await, [""; 0]);
}

#[tokio::test]
async fn a_folder_and_a_memory_keep_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (folder, memory) = (Folder::new(place.path().join("bucket")), Memory::new(Clock::system()));
    for bucket in [&folder as &dyn Bucket, &memory] {
        let [versions, lock, delete] = tried(bucket).await;
        assert_tells(&versions, Verdict::Works, "off", "none are kept");
        assert_tells(&lock, Verdict::Works, "off", "nothing is locked");
        assert_tells(&delete, Verdict::Works, "gone", "MAY DELETE");
        assert_eq!(keys(bucket, "").await, [""; 0]);
    }
}

#[tokio::test]
async fn a_purge_removes_the_versions_of_that_key_and_of_no_other() {
    let nature = Nature { versioning: Some("Enabled"), may_remove_versions: true, ..Nature::default() };
    let fake = FakeS3::start(nature).await;
    let part = Prefixed::new(std::sync::Arc::new(fake.bucket().await), "part");
    for key in ["a", "ab", "a/b", "a"] {
        part.put(key, "x".into(), Put::Replace).await.unwrap();
    }
    part.delete("a").await.unwrap();
    assert_eq!(fake.kept(), (5, 4));
    let purged = part.purge("a").await.unwrap();
    assert_eq!((purged.found, purged.left, purged.refusal), (3, 0, None));
    assert_eq!(fake.kept(), (2, 2));
    assert_eq!(keys(&part, "").await, ["a/b", "ab"]);
    assert_eq!(part.versions().await.unwrap(), Versions::On);
    assert_eq!(part.object_lock().await.unwrap(), ObjectLock::Off);
}

#[tokio::test]
async fn where_objects_are_locked_each_body_goes_with_its_md5_and_elsewhere_none() {
    for (object_lock, locks) in [(Some(GOVERNANCE), true), (Some(ON_REQUEST), false)] {
        let fake = FakeS3::start(Nature { versioning: Some("Enabled"), object_lock, ..Nature::default() }).await;
        let bucket = fake.bucket().await;
        upload(&bucket, "large", &noise(1, 2 * PART + 1000)).await.unwrap();
        bucket.put("small", "x".into(), Put::Replace).await.unwrap();
        bucket.put("small", "y".into(), Put::IfAbsent).await.unwrap_err();
        assert!(read(&bucket, "large").await.unwrap() == noise(1, 2 * PART + 1000));
        assert_eq!(read(&bucket, "small").await.unwrap(), "x");
        let with: Vec<bool> = fake.server.seen().iter().map(|seen| seen.header("content-md5").is_some()).collect();
        let puts: Vec<_> = fake.server.seen().into_iter().filter(|seen| seen.line.starts_with("PUT ")).collect();
        if locks {
            // Parts are on their way at once, and each may be told once.
            let refused = puts.iter().filter(|seen| seen.header("content-md5").is_none()).count();
            assert!((1..=3).contains(&refused) && puts.len() == 5 + refused, "{refused} of {}", puts.len());
        } else {
            assert_eq!((puts.len(), with.contains(&true)), (5, false));
        }
    }
}

#[tokio::test]
async fn a_lock_that_cannot_be_read_is_not_told_as_none() {
    let locked = FakeS3::start(Nature { object_lock: Some(GOVERNANCE), ..Nature::default() }).await;
    let part = Prefixed::new(std::sync::Arc::new(locked.bucket().await), "part");
    let expected = ObjectLock::Each { mode: LockMode::Governance, time: "30 days".into() };
    assert_eq!(part.object_lock().await.unwrap(), expected);
    for (object_lock, word) in [
        ("<Rule><DefaultRetention><Mode>GOVERNANCE</Mode></DefaultRetention></Rule>", "DefaultRetention"),
        ("<Rule><DefaultRetention><Mode>WAXED</Mode><Days>3</Days></DefaultRetention></Rule>", "WAXED"),
    ] {
        let odd = FakeS3::start(Nature { object_lock: Some(object_lock), ..Nature::default() }).await;
        let error = odd.bucket().await.object_lock().await.unwrap_err();
        assert!(matches!(&error, BucketError::Other(text) if text.contains(word)), "{error:?}");
    }
}

fn bucket_test(home: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rusuban"))
        .arg("--home")
        .arg(home)
        .args(["bucket", "test", "kept"])
        .args(more)
        .env("S3_ACCESS_KEY", "fake-access-key")
        .env("S3_SECRET_KEY", "fake-secret-key")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_it_to_people_and_to_programs() {
    let nature = Nature { versioning: Some("Enabled"), object_lock: Some(GOVERNANCE), ..Nature::default() };
    let fake = FakeS3::start(nature).await;
    let home = tempfile::tempdir().unwrap();
    let settings = format!(
        "[bucket.kept]\ns3 = \"{BUCKET}/house\"\nendpoint = \"{}\"\n\
         access_key = {{ env = \"S3_ACCESS_KEY\" }}\nsecret_key = {{ env = \"S3_SECRET_KEY\" }}\n",
        fake.server.url("")
    );
    std::fs::write(home.path().join("rusuban.toml"), settings).unwrap();
    let path = home.path().to_owned();
    let (text, json) =
        tokio::task::spawn_blocking(move || (bucket_test(&path, &[]), bucket_test(&path, &["--json"]))).await.unwrap();
    let (text, json) = (String::from_utf8(text.stdout).unwrap(), String::from_utf8(json.stdout).unwrap());
    for words in ["versions", "older versions are kept", "object lock", "locked for 30 days", "Of this test 7 stay"] {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }
    let trials: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}:\n{json}"));
    let state = |what: &str| {
        let trial = trials.as_array().unwrap().iter().find(|trial| trial["what"] == what);
        trial.unwrap_or_else(|| panic!("{what} is missing:\n{json}"))["state"].clone()
    };
    assert_eq!((state("versions"), state("object lock")), ("on".into(), "governance".into()));
    assert_eq!((state("delete"), state("read")), ("kept".into(), serde_json::Value::Null));
}
