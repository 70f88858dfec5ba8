//! Whether there is room for a snapshot, before it is begun.
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::bail;

use crate::{docker::Engine, text};

/// The engine's disk.
#[derive(Debug)]
pub(in crate::kinds) struct Room {
    folder: Option<PathBuf>,
    /// What is being written by others now.
    taken: Mutex<u64>,
}

/// Room that nobody else counts on.
#[derive(Debug)]
pub(in crate::kinds) struct Held<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Room {
    /// The disk where the engine keeps its images, if it can be looked at from here.
    pub(in crate::kinds) async fn of(engine: &Engine) -> anyhow::Result<Self> {
        let info = engine.info().await?;
        let folder = info["DockerRootDir"].as_str().map(PathBuf::from);
        // On another host, or behind a container's own view of the disk, the path leads nowhere.
        let folder = folder.filter(|folder| engine.is_local() && folder.is_dir());
        Ok(Self { folder, taken: Mutex::new(0) })
    }

    pub(in crate::kinds) fn is_known(&self) -> bool {
        self.folder.is_some()
    }

    /// Takes room for a copy of `bytes`; so many times that, with what others have taken, must be free.
    pub(in crate::kinds) fn take(&self, bytes: u64, times: u64) -> anyhow::Result<Held<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &self.folder {
            let (free, wanted) = (free(folder)?, bytes.saturating_add(*taken).saturating_mul(times));
            if free < wanted {
                bail!(
                    "too little room: a copy takes {}, so {} should be free in {}, and {} is",
                    text::size(bytes),
                    text::size(wanted),
                    folder.display(),
                    text::size(free)
                );
            }
        }
        *taken += bytes;
        Ok(Held { room: self, bytes })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.room.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
    }
}

fn free(folder: &Path) -> anyhow::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_what_all_write_must_be_free() {
        let folder = tempfile::tempdir().unwrap();
        let free = free(folder.path()).unwrap();
        let room = Room { folder: Some(folder.path().to_owned()), taken: Mutex::new(0) };
        let held = room.take(free / 5, 2).unwrap();
        let error = room.take(free / 2, 2).unwrap_err().to_string();
        assert!(error.starts_with("too little room: a copy takes "), "{error}");
        drop(held);
        assert_eq!(*room.taken.lock().unwrap(), 0);
        room.take(u64::MAX, 2).unwrap_err();
        let unknown = Room { folder: None, taken: Mutex::new(0) };
        unknown.take(u64::MAX / 4, 2).unwrap();
    }
}
