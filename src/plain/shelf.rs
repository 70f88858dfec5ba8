//! What a bucket holds of a job: its backups, and what was left over by those that never became one.
use std::sync::Arc;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    decode::small,
    manifest::{Manifest, folder, manifest_key, time_of},
};
use crate::{
    bucket::{Bucket, BucketError},
    model::JobName,
};

/// Manifests are read so many at a time.
const AT_ONCE: usize = 8;

/// A job's backups in a bucket.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Oldest first.
    pub backups: Vec<Manifest>,
    /// Manifests that cannot be read: `photos/2026-…/manifest.json: why`.
    pub damaged: Vec<String>,
}

/// Data without a manifest: a backup that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its folder's name.
    pub id: String,
    /// Its objects' keys.
    pub keys: Vec<String>,
    /// Their bytes in all.
    pub bytes: u64,
}

/// A job's backups. One manifest that cannot be read does not hide the others.
///
/// # Errors
/// When the bucket cannot be read.
pub async fn list(bucket: &Arc<dyn Bucket>, job: &JobName) -> anyhow::Result<Listing> {
    let mut listing = Listing::default();
    let mut found = stream::iter(ids(bucket, job).await?)
        .map(|id| async move {
            let read = read(bucket, job, &id).await;
            (id, read)
        })
        .buffered(AT_ONCE);
    while let Some((id, read)) = found.next().await {
        match read {
            Ok(Some(manifest)) => listing.backups.push(manifest),
            Ok(None) => {}
            Err(error) if error.is::<BucketError>() => return Err(error.context("list backups")),
            Err(error) => listing.damaged.push(format!("{}: {error:#}", manifest_key(job, &id))),
        }
    }
    listing.backups.sort_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
    Ok(listing)
}

/// The backup that was the newest at that time; without a time, the newest.
///
/// # Errors
/// When the bucket cannot be read, or there is none. It does not pass over one that cannot be read without saying so.
pub async fn find(bucket: &Arc<dyn Bucket>, job: &JobName, at: Option<DateTime<Utc>>) -> anyhow::Result<Manifest> {
    let Listing { backups, damaged } = list(bucket, job).await?;
    let oldest = backups.first().map(|oldest| oldest.id.clone());
    let found = backups.into_iter().rev().find(|backup| at.is_none_or(|at| backup.at <= at));
    match (found, oldest) {
        (Some(found), _) => Ok(found),
        (None, Some(oldest)) => bail!("no backup of {job} is that old: the oldest is {oldest}"),
        (None, None) if damaged.is_empty() => bail!("{} has no backup of {job}", bucket.describe()),
        (None, None) => bail!("no backup of {job} can be read: {}", damaged.join("; ")),
    }
}

/// Removes a backup: first its manifest, so that it is no backup any more, then its data.
///
/// # Errors
/// When something cannot be removed. What is left is found as a leftover later.
pub async fn delete(bucket: &Arc<dyn Bucket>, manifest: &Manifest) -> anyhow::Result<()> {
    let what = || format!("remove the backup {}/{}", manifest.job, manifest.id);
    bucket.delete(&manifest.key()).await.with_context(what)?;
    let keys: Vec<String> = objects(bucket, &folder(&manifest.job, &manifest.id)).await.with_context(what)?.1;
    for key in keys {
        bucket.delete(&key).await.with_context(what)?;
    }
    Ok(())
}

/// Data without a manifest, all of it stored before `before`: younger data may be a backup that is being written now.
///
/// # Errors
/// When the bucket cannot be read.
pub async fn leftovers(
    bucket: &Arc<dyn Bucket>,
    job: &JobName,
    before: DateTime<Utc>,
) -> anyhow::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for id in ids(bucket, job).await? {
        // A backup takes its name when it is begun.
        if time_of(&id).is_none_or(|begun| begun >= before) {
            continue;
        }
        let manifest = manifest_key(job, &id);
        match bucket.head(&manifest).await {
            Err(BucketError::NotFound(_)) => {}
            other => {
                other.with_context(|| format!("look for {manifest}"))?;
                continue;
            }
        }
        let (newest, keys, bytes) = objects(bucket, &folder(job, &id)).await?;
        if newest.is_some_and(|newest| newest < before) {
            found.push(Leftover { id, keys, bytes });
        }
    }
    Ok(found)
}

/// Removes what [`leftovers`] found.
///
/// # Errors
/// When something cannot be removed.
pub async fn remove_leftover(bucket: &Arc<dyn Bucket>, leftover: &Leftover) -> anyhow::Result<()> {
    for key in &leftover.keys {
        bucket.delete(key).await.with_context(|| format!("remove {key}"))?;
    }
    Ok(())
}

/// The names of a job's folders that look like backups', oldest first; other people's folders are left alone.
async fn ids(bucket: &Arc<dyn Bucket>, job: &JobName) -> anyhow::Result<Vec<String>> {
    let prefix = format!("{job}/");
    let folders = bucket.folders(&prefix).await.with_context(|| format!("list {prefix} in {}", bucket.describe()))?;
    let id = |folder: &String| {
        let name = folder.trim_end_matches('/');
        time_of(name).map(|_| name.to_owned())
    };
    Ok(folders.iter().filter_map(id).collect())
}

async fn read(bucket: &Arc<dyn Bucket>, job: &JobName, id: &str) -> anyhow::Result<Option<Manifest>> {
    match small(bucket, &manifest_key(job, id)).await {
        Ok(json) => Manifest::read(job, id, &json).map(Some),
        Err(BucketError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The newest time, the keys and the bytes of what is below `prefix`.
async fn objects(bucket: &Arc<dyn Bucket>, prefix: &str) -> anyhow::Result<(Option<DateTime<Utc>>, Vec<String>, u64)> {
    let found: Vec<_> = bucket.list(prefix).await?.try_collect().await?;
    let newest = found.iter().map(|object| object.modified).max();
    let bytes = found.iter().map(|object| object.size).sum();
    Ok((newest, found.into_iter().map(|object| object.key).collect(), bytes))
}
