//! A local copy of what is read again and again: index objects, and packs of trees. It may be deleted at any time.
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
};

use super::{Id, objects::Class};

/// A folder of copies, sealed as they are in the bucket; or none.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// Copies in `folder`, which is made when it is needed.
    #[must_use]
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder: Some(folder) }
    }

    /// Whether there is a folder for copies.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.folder.is_some()
    }

    /// A copy, whole. Whoever reads it proves that it is what it was: a disk may have changed it.
    #[must_use]
    pub fn get(&self, class: Class, id: &Id) -> Option<Vec<u8>> {
        fs::read(self.place(class, id)?).ok()
    }

    /// A copy, to read parts of it.
    #[must_use]
    pub fn open(&self, class: Class, id: &Id) -> Option<File> {
        File::open(self.place(class, id)?).ok()
    }

    /// Keeps a copy if that is possible: without one, all works as well, but slower.
    pub fn put(&self, class: Class, id: &Id, bytes: &[u8]) {
        let Some(place) = self.place(class, id) else { return };
        let write = || -> std::io::Result<()> {
            let above = place.parent().ok_or(std::io::ErrorKind::NotFound)?;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
            let beside = place.with_extension(format!("new-{}", std::process::id()));
            let written = File::create(&beside)
                .and_then(|mut file| file.write_all(bytes))
                .and_then(|()| fs::rename(&beside, &place));
            if written.is_err() {
                fs::remove_file(&beside)?;
            }
            written
        };
        if let Err(error) = write() {
            tracing::debug!(place = %place.display(), %error, "no copy was kept");
        }
    }

    /// Forgets a copy that turned out to be damaged.
    pub fn forget(&self, class: Class, id: &Id) {
        if let Some(place) = self.place(class, id) {
            // If it is not there, that is what was wanted; if it cannot be removed, it is found damaged again.
            let _ = fs::remove_file(place);
        }
    }

    /// Removes copies of what is no longer in the bucket. `keep` is sorted.
    pub fn retain(&self, class: Class, keep: &[Id]) {
        let Some(folder) = &self.folder else { return };
        for entry in fs::read_dir(folder.join(class.folder())).into_iter().flatten().flatten() {
            let stays = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<Id>().ok())
                .is_some_and(|id| keep.binary_search(&id).is_ok());
            if !stays {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn place(&self, class: Class, id: &Id) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(class.folder()).join(id.to_string()))
    }
}
