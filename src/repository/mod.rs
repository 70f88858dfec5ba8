//! Deduplicated, encrypted backups in the restic repository format, version 2: what is written here, stock `restic` can
//! list, check and restore without us, and what it wrote can be read and continued here.
//!
//! Files are cut into chunks where their content says so (`chunker`), each chunk is a blob named by its SHA-256 and stored
//! once, sealed (`crypto`), many of them in a pack (`pack`). A folder is a tree (`node`), itself a blob; a backup is a
//! snapshot (`snapshot`) that names its top tree. Index objects (`index`) tell which blob lies where. Order on the bucket is packs, then
//! index, then snapshot: whenever we die, what is left behind is of no use, but never a backup that is not whole.
//!
//! The format: <https://restic.readthedocs.io/en/stable/100_references.html>.
mod adopt;
mod backup;
mod blobs;
mod cache;
mod check;
pub mod chunker;
mod copy;
mod crypto;
mod diff;
mod find;
mod id;
mod index;
mod lock;
mod node;
mod objects;
mod open;
mod pack;
mod part;
mod password;
mod prune;
mod ranges;
mod repair;
mod restore;
mod saver;
pub mod settings;
mod snapshot;

pub use backup::{Ahead, Backup, Piece, Setting, Single};
pub use blobs::{Lost, open_blob};
pub use cache::Cache;
pub use check::{Findings, Look, Touched};
pub use copy::{Copied, CopySetting};
pub use crypto::{Key, SEAL, Tampered};
pub use diff::{Change, Difference, How};
pub use find::{Descent, Found};
pub use id::Id;
pub use index::{Index, IndexFile, IndexedBlob, IndexedPack, Place};
pub use lock::{Lock, LockFile, Locked, Unlocked};
pub use node::{Base64, ExtendedAttribute, Moment, Node, NodeKind, Tree};
pub use objects::{Class, Damaged, Objects, is_missing};
pub use open::{Absent, Chunking, Options, Repository, Unlock};
pub use pack::{Blob, BlobKind, Building, Pack, header_length, read_header};
pub use password::KeyFile;
pub use prune::{GRACE, PruneOptions, Pruned};
pub use repair::{Mended, RepairOptions, Repaired};
pub use restore::{Restored, Wish};
pub use saver::{Intake, Saved, Saver, Stored, Tools};
pub use snapshot::{Facts, Snapshot, SourceFacts, Summary};
