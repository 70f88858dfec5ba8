//! Reading a tree of files and folders into a tar archive that GNU tar can extract.
//!
//! Folders are opened one below the other and never followed through a symlink, so a tree that changes under our hands
//! cannot lead us out of it. What changes while it is read is told as a warning; what cannot be read is an error.
mod archive;
mod attributes;
mod exclude;
mod live;
mod walk;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use tokio_util::sync::CancellationToken;

use super::writer::Watcher;
pub use exclude::Excludes;

/// What is read.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The first part of every name in the archive.
    base: OsString,
    /// Where in the archive, seen from the base, and where on the disk.
    roots: Vec<(PathBuf, PathBuf)>,
    /// Where it was read, when that is one place.
    origin: Option<PathBuf>,
    excludes: Excludes,
    one_file_system: bool,
    skip: Vec<PathBuf>,
    open_here: Vec<PathBuf>,
    allow_empty: bool,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct TreeReport {
    /// Entries of the archive.
    pub entries: u64,
    /// Rows by `file: table` of the SQLite databases that were met and copied while in use.
    pub rows: BTreeMap<String, u64>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl Tree {
    /// The file or folder at `path`. If that is a symlink, what it points to.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let base = path.file_name().map_or_else(|| "root".into(), OsString::from);
        let roots = vec![(PathBuf::new(), path.to_owned())];
        Self::new(base, roots, Some(path.to_owned()))
    }

    /// Files and folders from several places, each under a name of its own below `base`.
    #[must_use]
    pub fn gathered(base: &str, roots: Vec<(PathBuf, PathBuf)>) -> Self {
        Self::new(base.into(), roots, None)
    }

    fn new(base: OsString, roots: Vec<(PathBuf, PathBuf)>, origin: Option<PathBuf>) -> Self {
        Self {
            base,
            roots,
            origin,
            excludes: Excludes::default(),
            one_file_system: false,
            skip: Vec::new(),
            open_here: Vec::new(),
            allow_empty: false,
        }
    }

    /// Without these.
    #[must_use]
    pub fn without(self, excludes: Excludes) -> Self {
        Self { excludes, ..self }
    }

    /// Folders that are never entered: our own bucket, data and temporary files.
    #[must_use]
    pub fn skipping(self, skip: Vec<PathBuf>) -> Self {
        Self { skip, ..self }
    }

    /// SQLite databases that this process itself has open. They are not opened as files, for a process that closes a file
    /// loses all its locks on it, and others would take the database for unused.
    #[must_use]
    pub fn with_databases_open_here(self, open_here: Vec<PathBuf>) -> Self {
        Self { open_here, ..self }
    }

    /// Other file systems mounted below are not entered.
    #[must_use]
    pub fn on_one_file_system(self, one_file_system: bool) -> Self {
        Self { one_file_system, ..self }
    }

    /// A tree without a single file is not an error.
    #[must_use]
    pub fn even_if_empty(self, allow_empty: bool) -> Self {
        Self { allow_empty, ..self }
    }

    pub(super) fn origin(&self) -> Option<String> {
        self.origin.as_ref().map(|path| path.to_string_lossy().into_owned())
    }
}

/// Writes the tree as a tar archive.
pub(super) fn write(
    tree: &Tree,
    to: &mut dyn Write,
    spool: &Path,
    watcher: &dyn Watcher,
    cancelled: &CancellationToken,
) -> anyhow::Result<TreeReport> {
    walk::Walk::new(tree, to, spool, watcher, cancelled).all()
}

/// A name for a person: bytes that are no text are shown as such.
pub(super) fn shown(name: &[u8]) -> String {
    std::ffi::OsStr::from_bytes(name).display().to_string()
}
