//! Making files and folders of a tar archive, under one name beside where they belong.
//!
//! Nothing in an archive is trusted: every folder is opened one below the other without following symlinks, every thing
//! is made anew, and a name can lead nowhere else.
use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, fs::FileExt},
};

use anyhow::{Context, bail, ensure};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};
use tar::EntryType;
use tokio_util::sync::CancellationToken;

use super::untar::{Member, Reader, safe_parts};
use crate::tree::{Dress, cancelled_error};

/// Warnings that are kept; the rest is counted.
const WARNINGS: usize = 100;

/// What was made.
#[derive(Clone, Debug, Default)]
pub(super) struct Unpacked {
    pub(super) entries: u64,
    pub(super) warnings: Vec<String>,
}

/// Makes what is in `archive`. Its first part of every name becomes `name` in the folder `parent`, where there is nothing of that name yet.
pub(super) fn unpack(
    archive: &mut dyn io::Read,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    cancelled: &CancellationToken,
) -> anyhow::Result<Unpacked> {
    let mut reader = Reader::new(archive);
    let mut unpacking = Unpacking {
        parent,
        name,
        base: None,
        cancelled,
        is_root: rustix::process::geteuid().is_root(),
        strangers: false,
        last: None,
        folders: Vec::new(),
        done: Unpacked::default(),
        dropped: 0,
        buffer: vec![0; 256 << 10],
    };
    while let Some(member) = reader.next()? {
        if cancelled.is_cancelled() {
            return Err(cancelled_error().into());
        }
        let shown = || member.parts.join(&b'/').escape_ascii().to_string();
        unpacking.member(&mut reader, &member).with_context(|| format!("restore {}", shown()))?;
    }
    unpacking.end()
}

struct Unpacking<'a> {
    parent: BorrowedFd<'a>,
    name: &'a OsStr,
    /// The first part of every name in the archive.
    base: Option<Vec<u8>>,
    cancelled: &'a CancellationToken,
    is_root: bool,
    /// We are not root, and something belongs to somebody else.
    strangers: bool,
    /// The folder opened last: files of one folder follow each other.
    last: Option<(Vec<Vec<u8>>, OwnedFd)>,
    /// Their owners, modes and times are set at the end, the deepest first: making files in them would change their times.
    folders: Vec<Member>,
    done: Unpacked,
    dropped: usize,
    buffer: Vec<u8>,
}

impl Unpacking<'_> {
    fn member(&mut self, reader: &mut Reader<'_>, member: &Member) -> anyhow::Result<()> {
        match &self.base {
            None => self.base = Some(member.parts[0].clone()),
            Some(base) => ensure!(*base == member.parts[0], "it is not below `{}`", base.escape_ascii()),
        }
        self.done.entries += 1;
        self.strangers |= !self.is_root && member.uid != rustix::process::geteuid().as_raw();
        let (above, name) = self.place(&member.parts)?;
        let at = self.open(&above)?;
        let name = OsStr::from_bytes(&name);
        match member.kind {
            EntryType::Directory => {
                rustix::fs::mkdirat(&at, name, Mode::RWXU)?;
                self.folders.push(Member { pieces: Vec::new(), ..member.clone() });
            }
            EntryType::Regular | EntryType::Continuous => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::openat(&at, name, flags, Mode::RUSR | Mode::WUSR)?);
                self.content(reader, member, &file)?;
                self.dress_open(&file, member)?;
            }
            EntryType::Symlink => {
                rustix::fs::symlinkat(member.target.as_slice(), &at, name)?;
                self.dress_entry(at.as_fd(), name, member, false)?;
            }
            EntryType::Link => {
                let target = safe_parts(&member.target)?;
                ensure!(self.base.as_ref() == target.first(), "it is a link to something outside of the backup");
                let (target_above, target_name) = self.place(&target)?;
                let target_at = self.open(&target_above)?;
                rustix::fs::linkat(&target_at, target_name.as_slice(), &at, name, AtFlags::empty())?;
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => self.special(at.as_fd(), name, member)?,
            other => bail!("an entry of a kind that is not known here ({:?})", char::from(other.as_byte())),
        }
        self.last = Some((above, at));
        Ok(())
    }

    /// Where something belongs: the folders above it, seen from `parent`, and its own name.
    fn place(&self, parts: &[Vec<u8>]) -> anyhow::Result<(Vec<Vec<u8>>, Vec<u8>)> {
        let mut place = parts.to_vec();
        place[0] = self.name.as_bytes().to_vec();
        let name = place.pop().context("it has no name")?;
        Ok((place, name))
    }

    fn open(&mut self, folders: &[Vec<u8>]) -> anyhow::Result<OwnedFd> {
        if let Some((last, folder)) = self.last.take()
            && last == folders
        {
            return Ok(folder);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = self.parent.try_clone_to_owned()?;
        for folder in folders {
            at = rustix::fs::openat(&at, folder.as_slice(), flags, Mode::empty())
                .context("the folder it belongs to does not come before it")?;
        }
        Ok(at)
    }

    fn content(&mut self, reader: &mut Reader<'_>, member: &Member, file: &File) -> anyhow::Result<()> {
        if member.pieces != [(0, member.size)] {
            file.set_len(member.size)?;
        }
        for (offset, length) in &member.pieces {
            let mut at = *offset;
            let end = offset + length;
            while at < end {
                if self.cancelled.is_cancelled() {
                    return Err(cancelled_error().into());
                }
                let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
                let bytes = &mut self.buffer[..count];
                reader.data(bytes)?;
                file.write_all_at(bytes, at)?;
                at += count as u64;
            }
        }
        Ok(())
    }

    fn special(&mut self, at: BorrowedFd<'_>, name: &OsStr, member: &Member) -> anyhow::Result<()> {
        let (kind, device) = match member.kind {
            EntryType::Char => (FileType::CharacterDevice, rustix::fs::makedev(member.device.0, member.device.1)),
            EntryType::Block => (FileType::BlockDevice, rustix::fs::makedev(member.device.0, member.device.1)),
            _ => (FileType::Fifo, 0),
        };
        match rustix::fs::mknodat(at, name, kind, Mode::RUSR | Mode::WUSR, device) {
            Err(Errno::PERM) if kind != FileType::Fifo => {
                self.warn(member, "a device can only be made as root: left out");
                return Ok(());
            }
            made => made?,
        }
        self.dress_entry(at, name, member, true)
    }

    fn dress_open(&mut self, file: impl AsFd, member: &Member) -> anyhow::Result<()> {
        let mut warnings = Vec::new();
        let dressed = dress(member).open(file, &mut |warning| warnings.push(warning));
        warnings.iter().for_each(|warning| self.warn(member, warning));
        dressed
    }

    fn dress_entry(&mut self, at: BorrowedFd<'_>, name: &OsStr, member: &Member, has_mode: bool) -> anyhow::Result<()> {
        let mut warnings = Vec::new();
        let dressed = dress(member).entry(at, name, has_mode, &mut |warning| warnings.push(warning));
        warnings.iter().for_each(|warning| self.warn(member, warning));
        dressed
    }

    fn end(mut self) -> anyhow::Result<Unpacked> {
        ensure!(self.base.is_some(), "the archive is empty");
        self.last = None;
        for member in std::mem::take(&mut self.folders).into_iter().rev() {
            let shown = || format!("restore {}", member.parts.join(&b'/').escape_ascii());
            let (mut place, name) = self.place(&member.parts)?;
            place.push(name);
            let folder = self.open(&place).with_context(shown)?;
            self.dress_open(&folder, &member).with_context(shown)?;
        }
        if self.dropped > 0 {
            self.done.warnings.push(format!("and {} warnings more", self.dropped));
        }
        if self.strangers {
            self.done.warnings.push("owners were not restored: that takes root".into());
        }
        Ok(self.done)
    }

    fn warn(&mut self, member: &Member, text: &str) {
        if self.done.warnings.len() < WARNINGS {
            self.done.warnings.push(format!("{}: {text}", member.parts.join(&b'/').escape_ascii()));
        } else {
            self.dropped += 1;
        }
    }
}

fn dress(member: &Member) -> Dress {
    let &Member { uid, gid, mode, mtime, .. } = member;
    Dress { uid, gid, mode, mtime, xattrs: member.xattrs.clone() }
}
