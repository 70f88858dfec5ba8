//! Bringing a source back: written beside where it belongs, checked to its last byte, and only then renamed.
//!
//! Killed at any moment, it leaves under the final name either what was there before, or nothing, or all of the new.
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use rustix::{
    fd::AsFd,
    fs::{Mode, OFlags},
};

use super::{
    decode::{Reading, choose, decode},
    manifest::{FileFacts, Manifest, Source, SourceKind},
    unpack::{Unpacked, unpack},
};
use crate::{
    bucket::Bucket,
    tree::{Dress, Place},
};

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where it is.
    pub to: PathBuf,
    /// Files, folders and other entries.
    pub entries: u64,
    /// Bytes before compression.
    pub bytes: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Restores one source (by name; the only one if there is only one) so that it is at `to` itself, not in it.
/// What is at `to` already is an error, or with `replace` kept aside until the new is whole.
///
/// # Errors
/// When the backup is not whole, does not open with the keys given, or cannot be written. Nothing has changed at `to` then.
pub async fn restore(
    bucket: &Arc<dyn Bucket>,
    manifest: &Manifest,
    source: Option<&str>,
    to: &Path,
    replace: bool,
    reading: &Reading,
) -> anyhow::Result<Restored> {
    let source = choose(&manifest.sources, source)?.clone();
    let what = format!("restore {} of {}/{}", source.name, manifest.job, manifest.id);
    let place = {
        let (to, id, kind) = (to.to_owned(), manifest.id.clone(), source.kind);
        blocking(move || Place::prepare(&to, &id, kind == SourceKind::Sqlite, replace, false))
            .await
            .with_context(|| what.clone())?
    };
    let place = Arc::new(place);
    let written = {
        let (place, source, reading) = (Arc::clone(&place), source.clone(), reading.clone());
        let (kind, facts, cancelled) = (source.kind, source.file.clone(), reading.cancelled.clone());
        decode(bucket, &source, &reading.clone(), move |from| match kind {
            SourceKind::Tree => unpack(from, place.parent.as_fd(), &place.beside, &cancelled),
            SourceKind::Sqlite | SourceKind::Stream => write_file(&place, from, facts.as_ref()),
        })
        .await
    };
    let cancelled = reading.cancelled.clone();
    let finishing = blocking(move || {
        let done = written.and_then(|unpacked| {
            if cancelled.is_cancelled() {
                bail!("cancelled");
            }
            place.swap_in()?;
            Ok(unpacked)
        });
        if done.is_err() {
            place.remove_beside();
        }
        done
    });
    let Unpacked { entries, warnings } = finishing.await.context(what)?;
    Ok(Restored { to: to.to_owned(), entries, bytes: source.plain.bytes, warnings })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a thread died")?
}

/// One file, under the name beside its place.
fn write_file(place: &Place, from: &mut dyn Read, facts: Option<&FileFacts>) -> anyhow::Result<Unpacked> {
    let what = || format!("write {}", place.beside_path().display());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(&place.parent, &place.beside, flags, mode).with_context(what)?);
    let mut buffer = vec![0; 256 << 10];
    loop {
        // Errors of reading speak for themselves.
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        io::Write::write_all(&mut file, &buffer[..count]).with_context(what)?;
    }
    let mut warnings = Vec::new();
    if let Some(facts) = facts {
        dress(&file, facts, &mut warnings).with_context(what)?;
    }
    Ok(Unpacked { entries: 1, warnings })
}

/// Owner, mode and time of a file that is restored.
fn dress(file: &File, facts: &FileFacts, warnings: &mut Vec<String>) -> anyhow::Result<()> {
    let us = rustix::process::geteuid();
    if !us.is_root() && facts.uid != us.as_raw() {
        warnings.push("its owner was not restored: that takes root".into());
    }
    let &FileFacts { mode, uid, gid, modified } = facts;
    let mtime = (modified.timestamp(), modified.timestamp_subsec_nanos());
    let dress = Dress { uid, gid, mode: mode & 0o777, mtime, xattrs: Vec::new() };
    dress.open(file, &mut |warning| warnings.push(warning))
}

impl FileFacts {
    /// Those of the file at `path`.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let found = path.metadata().with_context(|| format!("look at {}", path.display()))?;
        let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or(0);
        let modified = chrono::DateTime::from_timestamp(found.mtime(), nanoseconds).unwrap_or_default();
        Ok(Self { mode: found.mode() & 0o7777, uid: found.uid(), gid: found.gid(), modified })
    }
}

/// Where a source belongs when nobody says where to: where it was read.
#[must_use]
pub fn original_place(source: &Source) -> Option<PathBuf> {
    source.path.as_ref().map(PathBuf::from)
}

/// The name it has in a folder of somebody's choice: its own, which no other source of the backup has.
#[must_use]
pub fn file_name(source: &Source) -> String {
    source.name.clone()
}
