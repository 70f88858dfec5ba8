//! A folder as a stream, and a stream as a folder: for files that are brought to where only another process may write.
use std::{
    ffi::OsStr,
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context as _, ensure};
use rustix::{
    fd::AsFd as _,
    fs::{Mode, OFlags},
};
use tokio_util::sync::CancellationToken;

use super::{tar, unpack};
use crate::tree::{Notes, Tree};

/// Writes a folder with all that is in it, while nobody else is at work on it.
///
/// # Errors
/// When something of it cannot be read, or not be told.
pub fn pack(folder: &Path, to: &mut dyn Write, cancelled: &CancellationToken) -> anyhow::Result<()> {
    let notes = Notes::to_be_handed_on();
    let tree = Tree::at(folder).as_it_is(true).even_if_empty(true);
    let report = tar::write(&tree, to, folder, &notes, cancelled)?;
    ensure!(report.warnings.is_empty(), "{}", report.warnings.join("; "));
    Ok(())
}

/// Makes of such a stream a folder `name` in `parent`, where there is none yet. How many entries it has, and what a person should know.
///
/// # Errors
/// When it is damaged or cut short, or cannot be written.
pub fn unpack_into(parent: &Path, name: &OsStr, from: &mut dyn Read) -> anyhow::Result<(u64, Vec<String>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder =
        rustix::fs::open(parent, flags, Mode::empty()).with_context(|| format!("open {}", parent.display()))?;
    let done = unpack::unpack(from, folder.as_fd(), name, &CancellationToken::new())?;
    Ok((done.entries, done.warnings))
}
