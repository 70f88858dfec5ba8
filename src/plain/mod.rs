//! Backups that a person can read without Rusuban: for each source one object, tar where it is a tree, compressed with
//! zstd, encrypted with age where recipients are named, and a manifest in JSON that is put last.
//!
//! ```text
//! redmine/2026-11-21T03-15-00Z/redmine.db.zst
//! redmine/2026-11-21T03-15-00Z/files.tar.zst       (….age when encrypted)
//! redmine/2026-11-21T03-15-00Z/manifest.json
//! ```
//!
//! Nothing here needs local state: a bucket and a job's name are enough to list, verify and restore.
pub mod age;
mod archive;
mod decode;
mod encode;
mod manifest;
mod pack;
mod restore;
mod shelf;
mod tar;
mod unpack;
mod untar;
mod verify;
mod writer;

pub use decode::{OnBytes, Reading};
pub use encode::Options;
pub use manifest::{FORMAT, FileFacts, Fingerprint, Manifest, Source, SourceKind, id_of, is_plain_name, time_of};
pub use pack::{pack, unpack_into};
pub use restore::{Restored, file_name, original_place, restore};
pub use shelf::{Leftover, Listing, delete, find, leftovers, list, remove_leftover};
pub use verify::{Entry, Verified, entries, verify};
pub use writer::{Setting, Single, Spooled, Watcher, Writer};
