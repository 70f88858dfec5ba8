//! Writing what is no folder: files with their bytes and holes, links, pipes, devices.
use std::{
    collections::{BTreeMap, HashSet},
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use anyhow::{Context, bail};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{FileType, Mode, OFlags, Stat},
    io::Errno,
};
use tar::EntryType;

use super::{Found, Walk};
use crate::plain::tree::{
    archive::Entry,
    attributes::{self, Owners, Xattr},
    live, shown,
};

impl Walk<'_> {
    /// Whether it was written.
    pub(super) fn file(&mut self, found: &Found<'_>, companions: &mut HashSet<OsString>) -> anyhow::Result<bool> {
        if self.open_here.contains(&(found.stat.st_dev, found.stat.st_ino)) {
            return self.database_open_here(found, companions);
        }
        let mut file = match open_file(found.parent, found.name) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => {
                self.warn(format!("{} vanished while it was read", found.path.display()));
                return Ok(false);
            }
            Err(error) => {
                self.cannot(&found.path, error.into());
                return Ok(false);
            }
        };
        let what = || format!("read {}", found.path.display());
        let stat = rustix::fs::fstat(&file).with_context(what)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            self.warn(format!("{} became something else while it was read: left out", found.path.display()));
            return Ok(false);
        }
        if !self.unreadable.is_empty() {
            return Ok(false);
        }
        let xattrs = self.xattrs_or_warn(&found.path, attributes::of_open(&file));
        let copy = if live::is_database(&mut file).with_context(what)? {
            Some(live::copy(&found.path, self.spool, self.cancelled)?)
        } else {
            None
        };
        match copy {
            Some(live::Copied::Whole { copy, rows }) => {
                self.database(found, &stat, &xattrs, copy, rows, companions).with_context(what)?;
            }
            Some(live::Copied::NoDatabase(why)) => {
                self.warn(format!(
                    "{} looks like a SQLite database and cannot be read as one ({why}): copied as it is",
                    found.path.display()
                ));
                self.content_as_it_is(found, &stat, &mut file, &xattrs)?;
            }
            None => self.content_as_it_is(found, &stat, &mut file, &xattrs)?,
        }
        Ok(true)
    }

    /// A database that must not be opened as a file.
    fn database_open_here(&mut self, found: &Found<'_>, companions: &mut HashSet<OsString>) -> anyhow::Result<bool> {
        let xattrs = self.xattrs_or_warn(&found.path, attributes::of_entry(found.parent, found.name));
        match live::copy(&found.path, self.spool, self.cancelled)? {
            live::Copied::Whole { copy, rows } => {
                self.database(found, &found.stat, &xattrs, copy, rows, companions)?;
                Ok(true)
            }
            live::Copied::NoDatabase(why) => bail!("back up {}: {why}", found.path.display()),
        }
    }

    fn database(
        &mut self,
        found: &Found<'_>,
        stat: &Stat,
        xattrs: &[Xattr],
        mut copy: File,
        rows: BTreeMap<String, u64>,
        companions: &mut HashSet<OsString>,
    ) -> anyhow::Result<()> {
        companions.extend(live::companions(found.name));
        let size = copy.metadata()?.len();
        self.content(found, stat, &mut copy, size, xattrs)?;
        let name = shown(&found.member);
        self.report.rows.extend(rows.into_iter().map(|(table, count)| (format!("{name}: {table}"), count)));
        Ok(())
    }

    fn content_as_it_is(
        &mut self,
        found: &Found<'_>,
        stat: &Stat,
        file: &mut File,
        xattrs: &[Xattr],
    ) -> anyhow::Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.content(found, stat, file, size, xattrs)?;
        let after = rustix::fs::fstat(&*file).with_context(|| format!("read {}", found.path.display()))?;
        let moment = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if moment(&after) != moment(stat) {
            self.warn(format!("{} changed while it was read", found.path.display()));
        }
        Ok(())
    }

    fn content(
        &mut self,
        found: &Found<'_>,
        stat: &Stat,
        file: &mut File,
        size: u64,
        xattrs: &[Xattr],
    ) -> anyhow::Result<()> {
        let what = || format!("read {}", found.path.display());
        let blocks = u64::try_from(rustix::fs::fstat(&*file).with_context(what)?.st_blocks).unwrap_or(u64::MAX);
        let pieces = if blocks.saturating_mul(512) < size {
            attributes::data_pieces(file, size).with_context(what)?
        } else {
            None
        };
        let entry = Entry {
            size,
            data: pieces.as_deref(),
            ..header(&self.owners, found, stat, EntryType::Regular, None, xattrs)
        };
        self.archive.begin(&entry)?;
        self.report.entries += 1;
        let whole = [(0, size)];
        let mut missing = 0;
        for (offset, length) in pieces.as_deref().unwrap_or(&whole) {
            file.seek(SeekFrom::Start(*offset)).with_context(what)?;
            missing += self.piece(file, *length).with_context(what)?;
        }
        if missing > 0 {
            self.warn(format!(
                "{} became shorter while it was read: its last {missing} bytes are zeros in the backup",
                found.path.display()
            ));
        }
        Ok(())
    }

    /// Copies `length` bytes; what the file no longer has is filled with zeros and counted.
    fn piece(&mut self, file: &mut File, length: u64) -> io::Result<u64> {
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match file.read(&mut self.buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            if count == 0 {
                break;
            }
            self.archive.data(&self.buffer[..count])?;
            left -= count as u64;
            self.bytes += count as u64;
            self.watcher.progress(self.bytes, None);
        }
        let missing = left;
        self.buffer.fill(0);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            self.archive.data(&self.buffer[..most])?;
            left -= most as u64;
        }
        Ok(missing)
    }

    pub(super) fn symlink(&mut self, found: &Found<'_>) -> anyhow::Result<bool> {
        let target = match rustix::fs::readlinkat(found.parent, found.name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::NOENT | Errno::INVAL) => {
                self.warn(format!("{} vanished while it was read", found.path.display()));
                return Ok(false);
            }
            Err(error) => {
                self.cannot(&found.path, error.into());
                return Ok(false);
            }
        };
        let xattrs = self.xattrs_or_warn(&found.path, attributes::of_entry(found.parent, found.name));
        self.put(found, EntryType::Symlink, Some(&target), &xattrs)?;
        Ok(true)
    }

    pub(super) fn special(&mut self, found: &Found<'_>, kind: EntryType) -> anyhow::Result<bool> {
        let xattrs = self.xattrs_or_warn(&found.path, attributes::of_entry(found.parent, found.name));
        self.put(found, kind, None, &xattrs)?;
        Ok(true)
    }

    /// An entry without data.
    pub(super) fn put(
        &mut self,
        found: &Found<'_>,
        kind: EntryType,
        link: Option<&[u8]>,
        xattrs: &[Xattr],
    ) -> anyhow::Result<()> {
        if !self.unreadable.is_empty() {
            return Ok(());
        }
        self.report.entries += 1;
        let entry = header(&self.owners, found, &found.stat, kind, link, xattrs);
        Ok(self.archive.begin(&entry)?)
    }
}

fn header<'e>(
    owners: &'e Owners,
    found: &'e Found<'_>,
    stat: &Stat,
    kind: EntryType,
    link: Option<&'e [u8]>,
    xattrs: &'e [Xattr],
) -> Entry<'e> {
    let is_device = matches!(kind, EntryType::Char | EntryType::Block);
    Entry {
        member: &found.member,
        kind,
        link,
        size: 0,
        data: None,
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: owners.user(stat.st_uid),
        group: owners.group(stat.st_gid),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        device: is_device.then(|| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))),
        xattrs,
    }
}

/// Never waits on a pipe, never follows a symlink, leaves the time of the last reading alone where it may.
fn open_file(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&parent, name, flags, Mode::empty()),
        opened => opened,
    }
}
