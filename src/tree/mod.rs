//! Reading a tree of files and folders: what is there, in the order of names, for whoever stores it.
//!
//! Folders are opened one below the other and never followed through a symlink, so a tree that changes under our hands
//! cannot lead us out of it. What changes while it is read is told as a warning; what cannot be read is an error.
pub(crate) mod attributes;
mod content;
mod dress;
mod exclude;
mod far;
pub(crate) mod live;
mod notes;
mod place;
mod settle;
mod unfold;
mod walk;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

pub use content::Content;
pub use dress::Dress;
pub use exclude::Excludes;
pub use far::{Far, serve};
pub use notes::{Listener, Notes};
pub use place::Place;
pub(crate) use settle::settle;
pub use unfold::unfold;
pub use walk::{Came, Found, Visitor, open_file, walk};

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
    as_it_is: bool,
    /// Who reads it for us, where it is not seen from here.
    far: Option<Far>,
    /// All of it will be read, whatever is known of it.
    all_is_wanted: bool,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct TreeReport {
    /// Entries of the archive.
    pub entries: u64,
    /// Rows by `file: table` of the SQLite databases that were met and copied while in use.
    pub rows: BTreeMap<String, u64>,
    /// Bytes that it has.
    pub bytes: u64,
    /// Those among them that had to be read, for nothing was known of them.
    pub anew: u64,
    /// Files that changed or vanished while they were read; there is a warning for each.
    pub changed: u64,
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
            as_it_is: false,
            far: None,
            all_is_wanted: false,
        }
    }

    /// Its places are not seen from here: a helper reads them for us.
    #[must_use]
    pub fn read_by(self, far: Option<Far>) -> Self {
        Self { far, ..self }
    }

    /// All of it will be read, whatever is known of it.
    pub(crate) fn wanted_whole(self) -> Self {
        Self { all_is_wanted: true, ..self }
    }

    /// Whether it lies on this machine, under the paths that it names.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.far.is_none()
    }

    /// The owners whose names are known where it lies.
    pub(crate) fn owners(&self) -> attributes::Owners {
        // Another machine's numbers have names there, and those that they have here are other people's.
        if self.is_here() { attributes::Owners::of_this_host() } else { attributes::Owners::default() }
    }

    /// Has the kernel write down what it holds of the file systems that it is on: a program that writes through mapped memory is seen by
    /// the change of a file's times only at its first write after that. Whether an unchanged time then means an unchanged file.
    pub(crate) fn settle(&self) -> bool {
        match &self.far {
            Some(far) => far.settle(self.places()),
            None => settle(self.places()),
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

    /// Databases are read as files, with what SQLite keeps beside them: nobody writes to them, and together they are of one moment.
    #[must_use]
    pub fn as_it_is(self, as_it_is: bool) -> Self {
        Self { as_it_is, ..self }
    }

    /// By another name than that of its file or folder.
    #[must_use]
    pub fn called(self, name: &str) -> Self {
        Self { base: name.into(), ..self }
    }

    /// The files and folders that it begins with, where they are on the disk.
    pub fn places(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(|(_, path)| path.as_path())
    }

    /// Where it was read, when that is one place.
    #[must_use]
    pub fn origin(&self) -> Option<&Path> {
        self.origin.as_deref()
    }

    /// Its name: the first part of every name in an archive.
    #[must_use]
    pub fn base(&self) -> &OsStr {
        &self.base
    }
}

/// A name for a person: bytes that are no text are shown as such.
#[must_use]
pub fn shown(name: &[u8]) -> String {
    OsStr::from_bytes(name).display().to_string()
}

/// The work was asked to stop.
#[must_use]
pub fn cancelled_error() -> std::io::Error {
    // Not `Interrupted`: the standard library would try that again for ever.
    std::io::Error::other("cancelled")
}
