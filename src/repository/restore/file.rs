//! One file that is restored: written under another name, piece by piece in any order, and renamed when all are there.
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use anyhow::Context as _;
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Id, Index, node::Node, pack::BlobKind},
    Shared, dress,
};
use crate::tree::{Dress, cancelled_error};

/// Zeros for so long are not written: the file gets a hole.
const HOLE: usize = 64 << 10;

/// A file that is being restored.
pub(super) struct FilePlan {
    folder: Arc<OwnedFd>,
    name: OsString,
    beside: OsString,
    pub(super) path: PathBuf,
    dress: Dress,
    size: AtomicU64,
    /// Pieces that are still to come.
    left: AtomicUsize,
    failure: Mutex<Option<String>>,
}

/// What became of it.
pub(super) enum Finished {
    /// More pieces are to come.
    NotYet,
    /// It is in its place.
    Whole,
    /// It is not there.
    Failed(String),
}

impl FilePlan {
    pub(super) fn new(folder: Arc<OwnedFd>, node: &Node, path: PathBuf, pieces: usize) -> Self {
        let name = node.os_name().to_owned();
        // Not longer than the name itself may be, and the same each time: what a killed restore left is found again.
        let beside = format!(".{}.rusuban-part", Id::of(name.as_bytes()).short()).into();
        Self {
            folder,
            name,
            beside,
            path,
            dress: dress(node),
            size: AtomicU64::new(0),
            left: AtomicUsize::new(pieces),
            failure: Mutex::default(),
        }
    }

    /// Removes what an earlier restore left.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        match rustix::fs::unlinkat(&self.folder, &self.beside, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).context("remove what an earlier restore left"),
        }
    }

    pub(super) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// Writes a piece. After a failure nothing is written any more.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> anyhow::Result<()> {
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let file = self.open()?;
        for (begin, run) in runs(bytes) {
            file.write_all_at(run, offset + begin as u64)?;
        }
        Ok(())
    }

    /// It will not be whole.
    pub(super) fn fail(&self, why: &str) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
    }

    /// A piece was written, or failed.
    pub(super) fn done(&self, shared: &Shared) -> Finished {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Finished::NotYet;
        }
        self.finish(self.size.load(Ordering::Relaxed), shared)
    }

    /// All pieces are there: it takes its place.
    pub(super) fn finish(&self, size: u64, shared: &Shared) -> Finished {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let finished = match failure {
            Some(why) => Err(anyhow::anyhow!(why)),
            None => self.dress_and_rename(size, shared),
        };
        match finished {
            Ok(()) => Finished::Whole,
            Err(error) => {
                // If it cannot be removed, the next restore does it.
                let _ = rustix::fs::unlinkat(&self.folder, &self.beside, AtFlags::empty());
                Finished::Failed(format!("{error:#}"))
            }
        }
    }

    fn dress_and_rename(&self, size: u64, shared: &Shared) -> anyhow::Result<()> {
        let file = self.open()?;
        file.set_len(size)?;
        self.dress.open(&file, &mut |why| shared.warn(&self.path, &why))?;
        rustix::fs::renameat(&self.folder, &self.beside, &self.folder, &self.name).context("put it in its place")
    }

    fn open(&self) -> rustix::io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, &self.beside, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }
}

/// Pieces that are not zeros for long, each with where it begins.
fn runs(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (number, piece) in bytes.chunks(HOLE).enumerate() {
        if piece.iter().all(|byte| *byte == 0) && piece.len() == HOLE {
            continue;
        }
        let begin = number * HOLE;
        match runs.last_mut() {
            Some((_, end)) if *end == begin => *end = begin + piece.len(),
            _ => runs.push((begin, begin + piece.len())),
        }
    }
    runs.into_iter().map(|(begin, end)| (begin, &bytes[begin..end])).collect()
}

/// Whether the file that is there holds what the backup has: all of it is read and compared.
pub(super) fn is_equal(
    folder: &OwnedFd,
    node: &Node,
    index: &Index,
    cancelled: &CancellationToken,
) -> anyhow::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let name: &OsStr = node.os_name();
    let Ok(file) = rustix::fs::openat(folder, name, flags, Mode::empty()).map(File::from) else { return Ok(false) };
    let content = node.content.as_deref().unwrap_or_default();
    let places: Option<Vec<_>> = content.iter().map(|id| index.find(BlobKind::Data, id)).collect();
    let Some(places) = places else { return Ok(false) };
    let size: u64 = places.iter().map(|place| u64::from(place.blob.size())).sum();
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    let (mut offset, mut buffer) = (0, Vec::new());
    for place in places {
        if cancelled.is_cancelled() {
            return Err(cancelled_error().into());
        }
        buffer.resize(place.blob.size() as usize, 0);
        if file.read_exact_at(&mut buffer, offset).is_err() || Id::of(&buffer) != place.blob.id {
            return Ok(false);
        }
        offset += buffer.len() as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_zeros_become_holes_and_nothing_else_is_lost() {
        let mut bytes = vec![0; 5 * HOLE + 7];
        bytes[HOLE] = 1;
        bytes[5 * HOLE + 6] = 2;
        let runs = runs(&bytes);
        assert_eq!(
            runs.iter().map(|(begin, run)| (*begin, run.len())).collect::<Vec<_>>(),
            [(HOLE, HOLE), (5 * HOLE, 7)]
        );
    }
}
