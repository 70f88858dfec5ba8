//! Giving what is restored its owner, rights, extended attributes and times.
use std::{ffi::OsStr, io, os::fd::AsRawFd, path::PathBuf};

use anyhow::Context as _;
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

/// No owner has this number: to the kernel it says that nothing is to be changed.
const NOBODY: u32 = u32::MAX;

/// What something is beside its content.
#[derive(Clone, Debug, Default)]
pub struct Dress {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Rights, `0o7777` at most.
    pub mode: u32,
    /// When it was changed: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Dress {
    /// Of something that is open. What only matters a little is told to `warn` when it cannot be done.
    ///
    /// # Errors
    /// When rights or times cannot be set.
    pub fn open(&self, file: impl AsFd, warn: &mut dyn FnMut(String)) -> anyhow::Result<()> {
        // In this order: a new owner clears set-uid bits and capabilities.
        let owned = self.own(warn, |uid, gid| rustix::fs::fchown(&file, uid, gid));
        rustix::fs::fchmod(&file, self.rights(owned)).context("set its mode")?;
        for (key, value) in &self.xattrs {
            let set = rustix::fs::fsetxattr(&file, key.as_slice(), value, XattrFlags::empty());
            or_warn(&format!("extended attribute {}", key.escape_ascii()), set, warn);
        }
        rustix::fs::futimens(&file, &self.times()).context("set its time")
    }

    /// The same for what is not opened: a symlink, a pipe, a device. It must have been made by us, where nobody else may write.
    ///
    /// # Errors
    /// When rights or times cannot be set.
    pub fn entry(
        &self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        has_mode: bool,
        warn: &mut dyn FnMut(String),
    ) -> anyhow::Result<()> {
        let itself = AtFlags::SYMLINK_NOFOLLOW;
        let owned = self.own(warn, |uid, gid| rustix::fs::chownat(at, name, uid, gid, itself));
        if has_mode {
            rustix::fs::chmodat(at, name, self.rights(owned), AtFlags::empty()).context("set its mode")?;
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", at.as_raw_fd())).join(name);
        for (key, value) in &self.xattrs {
            let set = rustix::fs::lsetxattr(&path, key.as_slice(), value, XattrFlags::empty());
            or_warn(&format!("extended attribute {}", key.escape_ascii()), set, warn);
        }
        rustix::fs::utimensat(at, name, &self.times(), itself).context("set its time")
    }

    /// Gives it to its owner, as root; whether that was done.
    fn own(
        &self,
        warn: &mut dyn FnMut(String),
        give: impl FnOnce(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    ) -> bool {
        if !is_root() {
            return false;
        }
        let given = if self.uid == NOBODY || self.gid == NOBODY {
            Err(Errno::INVAL)
        } else {
            give(Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
        };
        or_warn("owner", given, warn)
    }

    fn rights(&self, owned: bool) -> Mode {
        // A program that runs with its owner's rights must not run with ours.
        Mode::from_raw_mode(if owned { self.mode } else { self.mode & 0o1777 })
    }

    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime.0, tv_nsec: self.mtime.1.min(999_999_999).into() };
        Timestamps { last_access: time, last_modification: time }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn or_warn(what: &str, done: rustix::io::Result<()>, warn: &mut dyn FnMut(String)) -> bool {
    let Err(error) = done else { return true };
    warn(format!("its {what} could not be restored: {}", io::Error::from(error)));
    false
}
