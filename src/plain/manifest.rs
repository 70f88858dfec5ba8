//! The manifest of a backup: what it holds, and how to know that it is whole. Written last; without it there is no backup.
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::JobName;

/// The version of the layout and of the manifest that this Rusuban writes; newer ones are refused, older ones read.
pub const FORMAT: u32 = 1;

/// A backup's last object, `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Whose backup this is.
    pub job: JobName,
    /// Its folder's name: the time it was begun, such as `2026-11-21T03-15-00Z`.
    pub id: String,
    /// When it was begun.
    pub at: DateTime<Utc>,
    /// When its data was stored.
    pub finished: DateTime<Utc>,
    /// The machine it was made on.
    pub host: String,
    /// The Rusuban that made it.
    pub rusuban: String,
    /// The public keys it is encrypted to; absent when it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// What it holds.
    pub sources: Vec<Source>,
    /// What a person should know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One source of a backup, and the object that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name within the backup.
    pub name: String,
    /// What it is.
    pub kind: SourceKind,
    /// Where it was read: the default place to restore it to. Absent for what is gathered from several places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The object's key within the bucket.
    pub key: String,
    /// Whether the object is encrypted with age.
    #[serde(default)]
    pub encrypted: bool,
    /// The object as it is stored.
    pub stored: Fingerprint,
    /// The stream before compression and encryption: the tar, or the file itself.
    pub plain: Fingerprint,
    /// Files, folders and other entries of a tree; 1 for a file.
    pub entries: u64,
    /// Rows by table, for databases.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<String, u64>,
    /// Owner, mode and time of a source that is a single file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileFacts>,
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Files and folders: the stream is a tar archive.
    Tree,
    /// A SQLite database: the stream is its file.
    Sqlite,
    /// The output of something else: the stream is that.
    Stream,
}

/// Size and SHA-256 of a stream of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 as hexadecimal digits, as `sha256sum` prints it.
    pub sha256: String,
}

/// Owner, mode and time of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Permission bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When it was last changed.
    pub modified: DateTime<Utc>,
}

impl Manifest {
    /// Bytes stored, the manifest itself aside.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        crate::text::total(self.sources.iter().map(|source| source.stored.bytes))
    }

    /// Bytes before compression.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        crate::text::total(self.sources.iter().map(|source| source.plain.bytes))
    }

    /// The manifest's own key.
    #[must_use]
    pub fn key(&self) -> String {
        manifest_key(&self.job, &self.id)
    }

    /// Reads a manifest and holds it against the place it was found at.
    ///
    /// # Errors
    /// When it is damaged, made by a newer Rusuban, or names objects outside its own folder.
    pub fn read(job: &JobName, id: &str, json: &[u8]) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_slice(json)?;
        if format > FORMAT {
            anyhow::bail!("written by a newer Rusuban (format {format}, this one reads up to {FORMAT}): use that one");
        }
        let manifest: Self = serde_json::from_slice(json)?;
        if manifest.job != *job || manifest.id != id {
            anyhow::bail!("it says it is {}/{}: it was moved or copied here", manifest.job, manifest.id);
        }
        // Restoring writes files of these names, and deleting removes these keys.
        let folder = folder(job, id);
        for source in &manifest.sources {
            let inside = source.key.strip_prefix(&folder).is_some_and(is_plain_name);
            if !inside || !is_plain_name(&source.name) {
                anyhow::bail!(
                    "source `{}` claims the object `{}`, which is not of this backup",
                    source.name,
                    source.key
                );
            }
        }
        Ok(manifest)
    }
}

/// Whether `name` can be a file's name and part of a key.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// The "folder" of one backup.
pub(super) fn folder(job: &JobName, id: &str) -> String {
    format!("{job}/{id}/")
}

/// The key of a backup's manifest.
pub(super) fn manifest_key(job: &JobName, id: &str) -> String {
    format!("{job}/{id}/manifest.json")
}

/// A backup's name: when it was begun, without characters that file systems mind.
#[must_use]
pub fn id_of(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H-%M-%SZ").to_string()
}

/// The time in a backup's name; a number behind it, for a second backup in one second, is passed over.
#[must_use]
pub fn time_of(id: &str) -> Option<DateTime<Utc>> {
    let time = id.get(..20)?;
    id.get(20..).filter(|rest| rest.is_empty() || rest.starts_with('-'))?;
    chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%dT%H-%M-%SZ").ok().map(|time| time.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_time_and_others_tell_none() {
        let at = "2026-11-21T03:15:00Z".parse().unwrap();
        assert_eq!(id_of(at), "2026-11-21T03-15-00Z");
        assert_eq!(time_of("2026-11-21T03-15-00Z"), Some(at));
        assert_eq!(time_of("2026-11-21T03-15-00Z-2"), Some(at));
        for other in ["", "photos", "2026-11-21", "2026-11-21T03-15-00Zx", "2026-13-21T03-15-00Z", "éééééééééééééé"]
        {
            assert_eq!(time_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_manifest_that_points_elsewhere_is_refused() {
        let job: JobName = "photos".parse().unwrap();
        let manifest = |key: &str, name: &str| {
            format!(
                r#"{{"format":1,"job":"photos","id":"x","at":"2026-11-21T03:15:00Z","finished":"2026-11-21T03:15:00Z","host":"h","rusuban":"0.1.0",
                "sources":[{{"name":"{name}","kind":"tree","key":"{key}","stored":{{"bytes":1,"sha256":""}},"plain":{{"bytes":1,"sha256":""}},"entries":1}}]}}"#
            )
        };
        Manifest::read(&job, "x", manifest("photos/x/files.tar.zst", "files").as_bytes()).unwrap();
        for (key, name) in [
            ("other/x/files.tar.zst", "files"),
            ("photos/x/../../other", "files"),
            ("photos/x/files.tar.zst", "../files"),
        ] {
            Manifest::read(&job, "x", manifest(key, name).as_bytes()).unwrap_err();
        }
        Manifest::read(&job, "y", manifest("photos/x/files.tar.zst", "files").as_bytes()).unwrap_err();
        let newer = br#"{"format":2,"everything":"else"}"#;
        assert!(Manifest::read(&job, "x", newer).unwrap_err().to_string().contains("newer Rusuban"));
    }
}
