//! Versions and locks of objects on an S3 server.
use aws_sdk_s3::{
    operation::list_object_versions::ListObjectVersionsOutput,
    types::{BucketVersioningStatus, DefaultRetention, ObjectLockEnabled, ObjectLockRetentionMode},
};

use super::{
    super::{
        BucketError, Result,
        keeping::{LockMode, ObjectLock, Purged, Versions},
    },
    S3, size,
};

impl S3 {
    pub(super) async fn ask_for_versions(&self) -> Result<Versions> {
        let request = self.client.get_bucket_versioning().bucket(&self.bucket);
        match self.ask("", 0, request.send()).await?.status {
            None => Ok(Versions::Off),
            Some(BucketVersioningStatus::Enabled) => Ok(Versions::On),
            Some(BucketVersioningStatus::Suspended) => Ok(Versions::Suspended),
            Some(other) => Err(unknown(&other)),
        }
    }

    pub(super) async fn ask_for_object_lock(&self) -> Result<ObjectLock> {
        let request = self.client.get_object_lock_configuration().bucket(&self.bucket);
        let configuration = match self.ask("", 0, request.send()).await {
            Ok(answer) => answer.object_lock_configuration,
            // So says a server that knows locks of a bucket that has none.
            Err(BucketError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let Some(configuration) = configuration else { return Ok(ObjectLock::Off) };
        match (configuration.object_lock_enabled, configuration.rule.and_then(|rule| rule.default_retention)) {
            (_, Some(retention)) => each_locked(&retention),
            (Some(ObjectLockEnabled::Enabled), None) => Ok(ObjectLock::OnRequest),
            (Some(other), None) => Err(unknown(&other)),
            (None, None) => Ok(ObjectLock::Off),
        }
    }

    /// Removes each version of `key` that the server lists, and then the marks that hid them: without its mark, a version that
    /// stays would be there again.
    pub(super) async fn remove_versions(&self, key: &str) -> Result<Purged> {
        let (versions, marks) = self.all_versions(key).await?;
        let mut purged = Purged { found: versions.len() + marks.len(), ..Purged::default() };
        for (version, bytes) in versions {
            if let Err(error) = self.patience.again(|| self.remove_version(key, version.as_deref())).await {
                purged.left += 1;
                purged.left_bytes += bytes;
                purged.refusal.get_or_insert_with(|| error.to_string());
            }
        }
        if purged.left > 0 {
            purged.left += marks.len();
            return Ok(purged);
        }
        for mark in marks {
            if let Err(error) = self.patience.again(|| self.remove_version(key, mark.as_deref())).await {
                purged.left += 1;
                purged.refusal.get_or_insert_with(|| error.to_string());
            }
        }
        Ok(purged)
    }

    /// The names and sizes of an object's versions, and the names of the marks that deletes have left.
    async fn all_versions(&self, key: &str) -> Result<(Vec<(Option<String>, u64)>, Vec<Option<String>>)> {
        let (whole, mut versions, mut marks) = (self.key(key), Vec::new(), Vec::new());
        let (mut after_key, mut after_version) = (None, None);
        loop {
            let page = self.patience.again(|| self.page_of_versions(key, &after_key, &after_version)).await?;
            let of_key = |of: &Option<String>| of.as_deref() == Some(&whole);
            let found = page.versions.into_iter().flatten().filter(|version| of_key(&version.key));
            versions.extend(found.map(|version| (version.version_id, size(version.size))));
            let found = page.delete_markers.into_iter().flatten().filter(|mark| of_key(&mark.key));
            marks.extend(found.map(|mark| mark.version_id));
            if page.is_truncated != Some(true) || page.next_key_marker.is_none() {
                return Ok((versions, marks));
            }
            (after_key, after_version) = (page.next_key_marker, page.next_version_id_marker);
        }
    }

    async fn page_of_versions(
        &self,
        key: &str,
        after_key: &Option<String>,
        after_version: &Option<String>,
    ) -> Result<ListObjectVersionsOutput> {
        let request = self.client.list_object_versions().bucket(&self.bucket).prefix(self.key(key));
        let request = request.set_key_marker(after_key.clone()).set_version_id_marker(after_version.clone());
        self.ask(key, 0, request.send()).await
    }

    async fn remove_version(&self, key: &str, version: Option<&str>) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.key(key));
        match self.ask(key, 0, request.set_version_id(version.map(str::to_owned)).send()).await {
            Ok(_) | Err(BucketError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn each_locked(retention: &DefaultRetention) -> Result<ObjectLock> {
    let mode = match &retention.mode {
        Some(ObjectLockRetentionMode::Governance) => LockMode::Governance,
        Some(ObjectLockRetentionMode::Compliance) => LockMode::Compliance,
        other => return Err(unknown(other)),
    };
    let time = match (retention.days, retention.years) {
        (Some(1), _) => "1 day".to_owned(),
        (Some(days), _) => format!("{days} days"),
        (None, Some(1)) => "1 year".to_owned(),
        (None, Some(years)) => format!("{years} years"),
        (None, None) => return Err(unknown(retention)),
    };
    Ok(ObjectLock::Each { mode, time })
}

/// A server that knows more than we do, or says less than it should.
fn unknown(said: &impl std::fmt::Debug) -> BucketError {
    BucketError::Other(format!("the server answered {said:?}, which Rusuban does not know"))
}
