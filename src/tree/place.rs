//! Where something is restored to: it is written beside the place where it belongs, and takes that place when it is whole.
//!
//! Killed at any moment, there is under the final name either what was there before, or nothing, or all of the new.
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags},
    io::Errno,
};

/// The files SQLite keeps beside a database: left there, they would be taken for parts of the restored one.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Where something is restored to.
pub struct Place {
    /// The folder that holds it.
    pub parent: OwnedFd,
    path: PathBuf,
    name: OsString,
    /// The name it has until it is whole.
    pub beside: OsString,
    /// The name that the old state has while the new one takes its place.
    aside: OsString,
    is_database: bool,
    replace: bool,
    /// Held as long as we are at work: two restores of one backup to one place do not mix.
    _lock: Lock,
}

impl Place {
    /// Makes ready to restore what has the name `id` to `to`. What an earlier restore of the same left behind is removed,
    /// unless it is to be continued.
    ///
    /// # Errors
    /// When there is something at `to` that is not to be replaced, or another is at work there.
    pub fn prepare(to: &Path, id: &str, is_database: bool, replace: bool, continued: bool) -> anyhow::Result<Self> {
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
        let place = Self { parent, path: path.clone(), name, beside, aside, is_database, replace, _lock: lock };
        if !replace {
            place.refuse_what_is_there()?;
        }
        // Left behind by a restore that was killed: the lock tells that nobody is at work on it.
        if !continued {
            place.remove(&place.beside.clone())?;
        }
        Ok(place)
    }

    /// The path it has until it is whole.
    #[must_use]
    pub fn beside_path(&self) -> PathBuf {
        self.path.with_file_name(&self.beside)
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

    /// The new takes the place of the old, whole and on the disk.
    ///
    /// # Errors
    /// When that cannot be done; the old is in its place then, or the error says where it is.
    pub fn swap_in(&self) -> anyhow::Result<()> {
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
    pub fn remove_beside(&self) {
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
