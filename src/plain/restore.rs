//! Bringing a source back: written beside where it belongs, checked to its last byte, and only then renamed.
//!
//! Killed at any moment, it leaves under the final name either what was there before, or nothing, or all of the new.
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid},
    io::Errno,
};

use super::{
    decode::{Reading, choose, decode},
    manifest::{FileFacts, Manifest, Source, SourceKind},
    unpack::{Unpacked, unpack},
};
use crate::bucket::Bucket;

/// The files SQLite keeps beside a database: left there, they would be taken for parts of the restored one.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

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
        blocking(move || Place::prepare(&to, &id, kind, replace)).await.with_context(|| what.clone())?
    };
    let place = Arc::new(place);
    let written = {
        let (place, source, reading) = (Arc::clone(&place), source.clone(), reading.clone());
        let (kind, facts, cancelled) = (source.kind, source.file.clone(), reading.cancelled.clone());
        decode(bucket, &source, &reading.clone(), move |from| match kind {
            SourceKind::Tree => unpack(from, place.parent.as_fd(), &place.beside, &cancelled),
            SourceKind::Sqlite | SourceKind::Stream => place.write_file(from, facts.as_ref()),
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

/// Where something is restored to.
struct Place {
    /// The folder that holds it.
    parent: OwnedFd,
    path: PathBuf,
    name: OsString,
    /// The name it has until it is whole.
    beside: OsString,
    /// The name that the old state has while the new one takes its place.
    aside: OsString,
    is_database: bool,
    replace: bool,
    /// Held as long as we are at work: two restores of one backup to one place do not mix.
    _lock: Lock,
}

impl Place {
    fn prepare(to: &Path, id: &str, kind: SourceKind, replace: bool) -> anyhow::Result<Self> {
        let path = std::path::absolute(to).with_context(|| format!("find {}", to.display()))?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{} cannot be replaced: name a folder in it", path.display());
        };
        std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent =
            rustix::fs::open(folder, flags, Mode::empty()).with_context(|| format!("open {}", folder.display()))?;
        let named = |what: &str| {
            let mut made = OsString::from(".");
            made.push(name);
            made.push(format!(".rusuban-{what}-{id}"));
            made
        };
        let lock = Lock::take(folder.join(named("lock")))?;
        let (name, beside, aside) = (name.to_owned(), named("restore"), named("old"));
        let is_database = kind == SourceKind::Sqlite;
        let place = Self { parent, path: path.clone(), name, beside, aside, is_database, replace, _lock: lock };
        if !replace {
            place.refuse_what_is_there()?;
        }
        // Left behind by a restore that was killed: the lock tells that nobody is at work on it.
        place.remove(&place.beside.clone())?;
        Ok(place)
    }

    fn refuse_what_is_there(&self) -> anyhow::Result<()> {
        for name in self.names() {
            if self.exists(&name)? {
                let found = self.path.with_file_name(name);
                bail!("{} exists already: restore to another place, or replace it with --replace", found.display());
            }
        }
        Ok(())
    }

    /// The final name and those of the files that belong to it.
    fn names(&self) -> Vec<OsString> {
        let mut names = vec![self.name.clone()];
        if self.is_database {
            names.extend(COMPANIONS.map(|ending| with(&self.name, ending)));
        }
        names
    }

    /// Where one of the names goes aside: a database's companions under names that fit its own.
    fn aside_of(&self, name: &OsStr) -> OsString {
        let ending = COMPANIONS.into_iter().find(|ending| *name == *with(&self.name, ending));
        with(&self.aside, ending.unwrap_or_default())
    }

    fn exists(&self, name: &OsStr) -> anyhow::Result<bool> {
        match rustix::fs::statat(&self.parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("look for {}", self.path.with_file_name(name).display())),
        }
    }

    fn write_file(&self, from: &mut dyn Read, facts: Option<&FileFacts>) -> anyhow::Result<Unpacked> {
        let what = || format!("write {}", self.path.with_file_name(&self.beside).display());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&self.parent, &self.beside, flags, mode).with_context(what)?);
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

    /// The new takes the place of the old, whole and on the disk.
    fn swap_in(&self) -> anyhow::Result<()> {
        let what = || format!("put {} in its place", self.path.display());
        rustix::fs::syncfs(&self.parent).with_context(what)?;
        if !self.replace {
            self.refuse_what_is_there()?;
            self.rename(&self.beside, &self.name, RenameFlags::NOREPLACE).with_context(what)?;
            rustix::fs::fsync(&self.parent).with_context(what)?;
            return Ok(());
        }
        // One step in which the name is never without a state, where the file system can do it.
        if !self.is_database && self.exists(&self.name)? {
            match rustix::fs::renameat_with(&self.parent, &self.beside, &self.parent, &self.name, RenameFlags::EXCHANGE)
            {
                Ok(()) => {
                    rustix::fs::fsync(&self.parent).with_context(what)?;
                    return self.remove(&self.beside).context("the new state is in its place; remove the old one");
                }
                Err(Errno::INVAL | Errno::NOSYS) => {}
                Err(error) => return Err(error).with_context(what),
            }
        }
        // A database and its companions belong together: they go aside together, under names that still fit each other.
        let mut old = Vec::new();
        let names = self.names();
        for name in &names {
            if self.exists(name)? {
                let aside = self.aside_of(name);
                self.remove(&aside)?;
                self.rename(name, &aside, RenameFlags::NOREPLACE).with_context(what)?;
                old.push((name, aside));
            }
        }
        if let Err(error) = self.rename(&self.beside, &self.name, RenameFlags::NOREPLACE) {
            for (name, aside) in old {
                // What cannot be put back is named; it is still there.
                if self.rename(&aside, name, RenameFlags::NOREPLACE).is_err() {
                    return Err(error).with_context(what).with_context(|| {
                        format!("the old state is kept as {}", self.path.with_file_name(aside).display())
                    });
                }
            }
            return Err(error).with_context(what);
        }
        rustix::fs::fsync(&self.parent).with_context(what)?;
        for name in &names {
            // Those of an earlier restore that was killed at this point are among them.
            self.remove(&self.aside_of(name)).context("the new state is in its place; remove the old one")?;
        }
        Ok(())
    }

    fn rename(&self, from: &OsStr, to: &OsStr, flags: RenameFlags) -> rustix::io::Result<()> {
        match rustix::fs::renameat_with(&self.parent, from, &self.parent, to, flags) {
            // File systems that do not know the flag.
            Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::statat(&self.parent, to, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(_) => rustix::fs::renameat(&self.parent, from, &self.parent, to),
            },
            renamed => renamed,
        }
    }

    fn remove(&self, name: &OsStr) -> anyhow::Result<()> {
        let path = self.path.with_file_name(name);
        let removed = match path.symlink_metadata() {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// After an error: what was written is of no use. If it cannot be removed, the next restore will do it.
    fn remove_beside(&self) {
        let _ = self.remove(&self.beside);
    }
}

/// A file that only one process has locked; gone when it is dropped, and free when the process is killed.
struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    fn take(path: PathBuf) -> anyhow::Result<Self> {
        let mut options = File::options();
        options.create(true).append(true).mode(0o600);
        let file = options.open(&path).with_context(|| format!("make {}", path.display()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file, path }),
            Err(Errno::WOULDBLOCK) => bail!("another restore of the same backup to the same place is at work"),
            Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // One that stays is empty and locked by nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn with(name: &OsStr, ending: &str) -> OsString {
    let mut whole = name.to_owned();
    whole.push(ending);
    whole
}

/// Owner, mode and time of a file that is restored.
fn dress(file: &File, facts: &FileFacts, warnings: &mut Vec<String>) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        if let Err(error) = rustix::fs::fchown(file, Some(Uid::from_raw(facts.uid)), Some(Gid::from_raw(facts.gid))) {
            warnings.push(format!("its owner could not be restored: {}", io::Error::from(error)));
        }
    } else if facts.uid != rustix::process::geteuid().as_raw() {
        warnings.push("its owner was not restored: that takes root".into());
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(facts.mode & 0o777)).context("set its mode")?;
    let time = Timespec { tv_sec: facts.modified.timestamp(), tv_nsec: facts.modified.timestamp_subsec_nanos().into() };
    rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time }).context("set its time")
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
