//! Trying a bucket out: what works there, and what its key may do. What is written is removed again, as far as the bucket
//! lets it go.
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::TimeDelta;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::{
    Body, Bucket, BucketError, PART, Put, Result,
    keeping::{LockMode, ObjectLock, Purged, Versions},
};
use crate::clock::Clock;

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It works.
    Works,
    /// Backups work without it, and a person should know.
    Note,
    /// It does not work, and backups need it.
    Fails,
}

/// One trial.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// What was tried.
    pub what: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// In words.
    pub detail: String,
    /// In one word, where programs may want to know more than the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
}

/// A clock that differs by more makes signatures fail soon.
const CLOCK_DIFFERENCE: TimeDelta = TimeDelta::minutes(3);

/// Tries the bucket out. Stops at the first thing that makes the rest senseless.
pub async fn probe(bucket: &dyn Bucket, clock: &Clock) -> Vec<Trial> {
    let folder = format!("rusuban-test-{}", clock.now().format("%Y%m%dT%H%M%S%3f"));
    let mut trials = Vec::new();
    let keys = [format!("{folder}/small"), format!("{folder}/once"), format!("{folder}/large")];
    if try_out(bucket, clock, &keys, &mut trials).await.is_none() {
        // What was written before it stopped is removed all the same, as far as the key may.
        for key in &keys {
            let _ = bucket.delete(key).await;
            let _ = bucket.purge(key).await;
        }
    }
    trials
}

async fn try_out(bucket: &dyn Bucket, clock: &Clock, keys: &[String; 3], trials: &mut Vec<Trial>) -> Option<()> {
    let [small, once, large] = keys;
    let mut told = |what, verdict, detail: String| trials.push(Trial { what, verdict, detail, state: None });
    let mut needed = |what, result: Result<String>| match result {
        Ok(detail) => {
            told(what, Verdict::Works, detail);
            Some(())
        }
        Err(error) => {
            told(what, Verdict::Fails, error.to_string());
            None
        }
    };

    let first = Bytes::from_static(b"kept by rusuban");
    needed(
        "write",
        bucket.put(small, first.clone(), Put::Replace).await.map(|()| "a small object was written".to_owned()),
    )?;
    needed("read", same(bucket, small, None, &first).await)?;
    let second = Bytes::from_static(b"written again");
    bucket.put(small, second.clone(), Put::Replace).await.ok();
    needed("overwrite", same(bucket, small, None, &second).await)?;
    needed("read a range", same(bucket, small, Some(8..13), &second.slice(8..13)).await)?;
    needed("list", listed(bucket, small).await)?;
    let parts = upload(bucket, large).await;
    needed("upload in parts", parts)?;

    match bucket.put(once, first.clone(), Put::IfAbsent).await {
        Ok(()) => match bucket.put(once, second, Put::IfAbsent).await {
            Err(BucketError::Exists(_)) => {
                told("write only if absent", Verdict::Works, "the second write was refused".to_owned())
            }
            Ok(()) => told(
                "write only if absent",
                Verdict::Note,
                "the server says yes and overwrites; Rusuban does not rely on it".to_owned(),
            ),
            Err(error) => told("write only if absent", Verdict::Note, error.to_string()),
        },
        Err(error) => told("write only if absent", Verdict::Note, error.to_string()),
    }
    match bucket.head(small).await {
        Ok(object) => {
            let difference = object.modified - clock.now();
            let verdict = if difference.abs() > CLOCK_DIFFERENCE { Verdict::Note } else { Verdict::Works };
            told("clock", verdict, format!("the bucket's clock differs by about {} s", difference.num_seconds()));
        }
        Err(error) => told("clock", Verdict::Note, error.to_string()),
    }
    let (versions, lock) = (bucket.versions().await, bucket.object_lock().await);
    let delete = deletes(bucket, keys, &versions, &lock).await;
    trials.extend([of_versions(versions), of_object_lock(lock), delete]);
    Some(())
}

fn of_versions(told: Result<Versions>) -> Trial {
    let (verdict, state, detail) = match told {
        Ok(Versions::Off) => (Verdict::Works, "off", "none are kept: what is deleted is gone, and its space is free".into()),
        Ok(Versions::On) => (
            Verdict::Note,
            "on",
            "older versions are kept: deleted objects stay and cost until a lifecycle rule of the bucket removes them, and \
             prune frees nothing before"
                .into(),
        ),
        Ok(Versions::Suspended) => (
            Verdict::Note,
            "suspended",
            "no new ones are kept; those from before stay and cost until a lifecycle rule of the bucket removes them".into(),
        ),
        Err(error) => (Verdict::Note, "not_told", format!("not told: {error}")),
    };
    Trial { what: "versions", verdict, detail, state: Some(state) }
}

fn of_object_lock(told: Result<ObjectLock>) -> Trial {
    let (verdict, state, detail) = match told {
        Ok(ObjectLock::Off) => (Verdict::Works, "off", "nothing is locked against removal".to_owned()),
        Ok(ObjectLock::OnRequest) => (
            Verdict::Note,
            "on_request",
            "objects can be locked, but the bucket has no default retention, so backups are not".to_owned(),
        ),
        Ok(ObjectLock::Each { mode, time }) => {
            let (state, who) = match mode {
                LockMode::Governance => ("governance", "only a key that may bypass governance"),
                LockMode::Compliance => ("compliance", "nobody"),
            };
            let detail = format!(
                "each object is locked for {time} ({state}): {who} can remove it before, so what retention and prune delete \
                 stays and costs until then"
            );
            (Verdict::Note, state, detail)
        }
        Err(error) => (Verdict::Note, "not_told", format!("not told: {error}")),
    };
    Trial { what: "object lock", verdict, detail, state: Some(state) }
}

/// Deletes what was written, and finds out what is left of it.
async fn deletes(
    bucket: &dyn Bucket,
    keys: &[String; 3],
    versions: &Result<Versions>,
    lock: &Result<ObjectLock>,
) -> Trial {
    let mut removed = Ok(());
    for key in keys {
        removed = removed.and(bucket.delete(key).await);
    }
    let (verdict, state, detail) = match (removed, bucket.head(&keys[0]).await) {
        (Ok(()), Err(BucketError::NotFound(_))) => of_purge(purge(bucket, keys).await, versions, lock),
        (Ok(()), _) => {
            let detail = "the server says yes, and the object is still there (versions, or a lock)".to_owned();
            (Verdict::Note, "still_there", detail)
        }
        (Err(error), _) => {
            let detail =
                format!("this key may not delete: retention cannot work, and this test's objects stay: {error}");
            (Verdict::Note, "refused", detail)
        }
    };
    Trial { what: "delete", verdict, detail, state: Some(state) }
}

async fn purge(bucket: &dyn Bucket, keys: &[String; 3]) -> Result<Purged> {
    let mut all = Purged::default();
    for key in keys {
        let purged = bucket.purge(key).await?;
        all.found += purged.found;
        all.left += purged.left;
        all.left_bytes += purged.left_bytes;
        all.refusal = all.refusal.or(purged.refusal);
    }
    Ok(all)
}

fn of_purge(
    purged: Result<Purged>,
    versions: &Result<Versions>,
    lock: &Result<ObjectLock>,
) -> (Verdict, &'static str, String) {
    let gone = "this key MAY DELETE: whoever takes over this machine can delete its backups";
    match purged {
        // A server that keeps none need not be able to list them.
        Err(_) if matches!(versions, Ok(Versions::Off)) => (Verdict::Works, "gone", gone.to_owned()),
        Ok(Purged { found: 0, .. }) => (Verdict::Works, "gone", gone.to_owned()),
        Ok(Purged { left: 0, .. }) => {
            let detail = "a delete leaves older versions, and this key MAY REMOVE THEM TOO: whoever takes over this machine \
                          can delete its backups for good";
            (Verdict::Works, "removable", detail.to_owned())
        }
        Ok(Purged { left, left_bytes, refusal, .. }) => {
            // Who may break a lock has to say so, and we do not.
            let breakable = matches!(lock, Ok(ObjectLock::Each { mode: LockMode::Governance, .. }));
            let who = if breakable {
                "this key could not remove them; whether it may bypass governance was not tried"
            } else {
                "this key may not remove them: nor may whoever takes over this machine"
            };
            let detail = format!(
                "a delete leaves older versions, and {who}. Of this test {left} stay, {}: {}",
                crate::text::size(left_bytes),
                refusal.unwrap_or_default()
            );
            (Verdict::Note, "kept", detail)
        }
        Err(error) => (Verdict::Works, "not_told", format!("{gone}; whether older versions stay is not told: {error}")),
    }
}

async fn same(bucket: &dyn Bucket, key: &str, range: Option<std::ops::Range<u64>>, expected: &[u8]) -> Result<String> {
    let read = collect(bucket.get(key, range).await?).await?;
    if read == expected {
        Ok(format!("{} bytes came back as they were written", read.len()))
    } else {
        Err(BucketError::Other(format!("{} bytes came back, and they are not what was written", read.len())))
    }
}

async fn collect(mut body: Body) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

async fn listed(bucket: &dyn Bucket, key: &str) -> Result<String> {
    let mut listing = bucket.list(key).await?;
    while let Some(object) = listing.next().await {
        if object?.key == key {
            return Ok("what was written is listed".to_owned());
        }
    }
    Err(BucketError::Other("what was just written is not listed".to_owned()))
}

/// A part and a little more, and its speed both ways.
async fn upload(bucket: &dyn Bucket, key: &str) -> Result<String> {
    let mut pattern = BytesMut::zeroed(PART + 1000);
    for (index, byte) in pattern.iter_mut().enumerate() {
        *byte = u8::try_from((index * 31 + index / 251) % 256).unwrap_or(0);
    }
    let pattern = pattern.freeze();
    let began = tokio::time::Instant::now();
    let mut upload = bucket.upload(key).await?;
    for part in [pattern.slice(..PART), pattern.slice(PART..)] {
        if let Err(error) = upload.part(part).await {
            upload.abort().await.ok();
            return Err(error);
        }
    }
    upload.finish().await?;
    let up = began.elapsed();
    let began = tokio::time::Instant::now();
    let read = collect(bucket.get(key, None).await?).await?;
    if read != pattern {
        return Err(BucketError::Other(format!("{} bytes came back, and they are not what was written", read.len())));
    }
    let speed = |time: Duration| crate::text::rate(pattern.len() as u64, time);
    Ok(format!("{} up, {} down", speed(up), speed(began.elapsed())))
}
