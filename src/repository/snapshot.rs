//! Snapshots: what the restic format calls a backup.
use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset};
use serde::{Deserialize, Serialize};

use super::{
    Id,
    objects::{Class, Damaged, Objects},
};
use crate::model::{JobName, RunId};

/// A backup, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was begun.
    pub time: DateTime<FixedOffset>,
    /// The one it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    /// What is in it.
    pub tree: Id,
    /// What was read.
    #[serde(default)]
    pub paths: Vec<String>,
    /// The host it was made on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The user's number.
    #[serde(default)]
    pub uid: u32,
    /// The group's number.
    #[serde(default)]
    pub gid: u32,
    /// Patterns of what was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// Words by which people find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// The one it was made of, by changing its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Id>,
    /// What wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program_version: String,
    /// What it was: files, bytes, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// What only Rusuban tells; other programs leave it out when they write a snapshot anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rusuban: Option<Facts>,
    /// What other programs tell.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// What a backup was, in the words of restic 0.17 and later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// When it was begun.
    pub backup_start: DateTime<FixedOffset>,
    /// When it ended.
    pub backup_end: DateTime<FixedOffset>,
    /// Files that the backup before did not have.
    pub files_new: u64,
    /// Files that were read again.
    pub files_changed: u64,
    /// Files taken from the backup before without reading.
    pub files_unmodified: u64,
    /// Folders that are new.
    pub dirs_new: u64,
    /// Folders in which something changed.
    pub dirs_changed: u64,
    /// Folders as they were.
    pub dirs_unmodified: u64,
    /// New pieces of files.
    pub data_blobs: u64,
    /// New lists of what is in folders.
    pub tree_blobs: u64,
    /// New bytes, before compression.
    pub data_added: u64,
    /// New bytes, as stored.
    pub data_added_packed: u64,
    /// Files in all.
    pub total_files_processed: u64,
    /// Their bytes.
    pub total_bytes_processed: u64,
}

/// What only Rusuban tells of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whose backup it is.
    pub job: JobName,
    /// The run that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// What is in it.
    pub sources: Vec<SourceFacts>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Not everything could be read, and the job allows that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// A source of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// Its name in the job.
    pub name: String,
    /// What it is: `path`, `sqlite`, `stream`.
    pub kind: String,
    /// Where it is in the backup: `/srv/files`.
    pub path: String,
    /// Files, folders and other entries.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Rows of a database by table.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<String, u64>,
}

impl Snapshot {
    /// Whose backup it is, if ours.
    #[must_use]
    pub fn job(&self) -> Option<JobName> {
        // A program that wrote it anew kept its tags only.
        let tagged = || self.tags.iter().flatten().find_map(|tag| tag.strip_prefix("job=")?.parse().ok());
        self.rusuban.as_ref().map(|facts| facts.job.clone()).or_else(tagged)
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub async fn load(objects: &Objects, id: &Id) -> anyhow::Result<Self> {
        let json = objects.load(Class::Snapshot, id).await?;
        serde_json::from_slice(&json)
            .map_err(|error| Damaged { class: Class::Snapshot, id: *id, why: error.to_string() }.into())
    }
}
