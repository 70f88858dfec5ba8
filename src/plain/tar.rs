//! Writing a tree as a tar archive that GNU tar can extract: files with their bytes and holes, links, pipes, devices.
use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{FileType, Stat};
use tar::EntryType;
use tokio_util::sync::CancellationToken;

use super::archive::{Archive, Entry};
use crate::tree::{
    Came, Content, Found, Notes, Tree, TreeReport, Visitor,
    attributes::{Owners, Xattr, Xattrs},
    live, shown, walk,
};

/// Writes the tree as a tar archive.
pub(super) fn write(
    tree: &Tree,
    to: &mut dyn Write,
    spool: &Path,
    notes: &Notes,
    cancelled: &CancellationToken,
) -> anyhow::Result<TreeReport> {
    let mut tarring = Tarring {
        tree,
        archive: Archive::new(to),
        spool,
        notes,
        cancelled,
        owners: tree.owners(),
        made: HashSet::new(),
        buffer: vec![0; 256 << 10],
    };
    walk(&tree.clone().wanted_whole(), &mut tarring, notes, cancelled)?;
    tarring.archive.finish()?;
    Ok(notes.report())
}

struct Tarring<'a> {
    tree: &'a Tree,
    archive: Archive<'a>,
    spool: &'a Path,
    notes: &'a Notes,
    cancelled: &'a CancellationToken,
    owners: Owners,
    /// Folders of the archive that stand for no single folder on the disk, and are there already.
    made: HashSet<PathBuf>,
    buffer: Vec<u8>,
}

impl Visitor for Tarring<'_> {
    fn root(&mut self, member: &Path) -> anyhow::Result<()> {
        if member.as_os_str().is_empty() {
            return Ok(());
        }
        let whole = Path::new(self.tree.base()).join(member);
        let mut above: Vec<_> = whole.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        for folder in above {
            if self.made.insert(folder.to_owned()) {
                let member = [folder.as_os_str().as_bytes(), b"/"].concat();
                self.notes.entry();
                self.archive.begin(&Entry {
                    member: &member,
                    kind: EntryType::Directory,
                    link: None,
                    size: 0,
                    data: None,
                    mode: 0o700,
                    uid: rustix::process::geteuid().as_raw(),
                    gid: rustix::process::getegid().as_raw(),
                    user: None,
                    group: None,
                    mtime: (0, 0),
                    device: None,
                    xattrs: &[],
                })?;
            }
        }
        Ok(())
    }

    fn folder(&mut self, found: &Found, xattrs: Xattrs) -> anyhow::Result<()> {
        let member = [found.member.as_slice(), b"/"].concat();
        self.put(&Found { member, ..found.clone() }, EntryType::Directory, None, &xattrs)
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn file(&mut self, found: &Found) -> anyhow::Result<Came> {
        if found.is_open_here {
            return self.database_open_here(found);
        }
        let Some((mut file, stat)) = found.open(self.notes)? else { return Ok(Came::Out) };
        if self.notes.is_unreadable() {
            return Ok(Came::Out);
        }
        let what = || format!("read {}", found.path.display());
        let xattrs = found.xattrs_or_warn(file.xattrs(), self.notes);
        if let Some(rows) = file.rows() {
            let size = file.size(&stat);
            self.database(found, &stat, &xattrs, file, size, rows).with_context(what)?;
            return Ok(Came::Database);
        }
        if !found.as_it_is && file.is_database().with_context(what)? {
            match live::copy(&found.path, self.spool, self.cancelled)? {
                live::Copied::Whole { copy, rows } => {
                    let size = copy.metadata()?.len();
                    self.database(found, &stat, &xattrs, Content::Here(copy), size, rows).with_context(what)?;
                    return Ok(Came::Database);
                }
                live::Copied::NoDatabase(why) => self.notes.warn(format!(
                    "{} looks like a SQLite database and cannot be read as one ({why}): copied as it is",
                    found.path.display()
                )),
            }
        }
        self.content_as_it_is(found, &stat, &mut file, &xattrs)?;
        Ok(Came::In)
    }

    fn special(&mut self, found: &Found) -> anyhow::Result<bool> {
        let mut target = None;
        let kind = match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::Symlink => {
                target = found.target(self.notes);
                if target.is_none() {
                    return Ok(false);
                }
                EntryType::Symlink
            }
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            _ => EntryType::Fifo,
        };
        let xattrs = found.xattrs_or_warn(found.xattrs(), self.notes);
        self.put(found, kind, target.as_deref(), &xattrs)?;
        Ok(true)
    }

    fn link(&mut self, found: &Found, first: &[u8]) -> anyhow::Result<()> {
        self.put(found, EntryType::Link, Some(first), &[])
    }
}

impl Tarring<'_> {
    /// A database that must not be opened as a file.
    fn database_open_here(&mut self, found: &Found) -> anyhow::Result<Came> {
        let xattrs = found.xattrs_or_warn(found.xattrs(), self.notes);
        match live::copy(&found.path, self.spool, self.cancelled)? {
            live::Copied::Whole { copy, rows } => {
                let size = copy.metadata()?.len();
                self.database(found, &found.stat, &xattrs, Content::Here(copy), size, rows)?;
                Ok(Came::Database)
            }
            live::Copied::NoDatabase(why) => bail!("back up {}: {why}", found.path.display()),
        }
    }

    fn database(
        &mut self,
        found: &Found,
        stat: &Stat,
        xattrs: &[Xattr],
        mut copy: Content,
        size: u64,
        rows: BTreeMap<String, u64>,
    ) -> anyhow::Result<()> {
        self.content(found, stat, &mut copy, size, xattrs)?;
        self.notes.database(&shown(&found.member), rows);
        Ok(())
    }

    fn content_as_it_is(
        &mut self,
        found: &Found,
        stat: &Stat,
        file: &mut Content,
        xattrs: &[Xattr],
    ) -> anyhow::Result<()> {
        let size = file.size(stat);
        self.content(found, stat, file, size, xattrs)?;
        let after = file.stat().with_context(|| format!("read {}", found.path.display()))?;
        let moment = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if moment(&after) != moment(stat) {
            self.notes.changed(format!("{} changed while it was read", found.path.display()));
        }
        Ok(())
    }

    fn content(
        &mut self,
        found: &Found,
        stat: &Stat,
        file: &mut Content,
        size: u64,
        xattrs: &[Xattr],
    ) -> anyhow::Result<()> {
        let what = || format!("read {}", found.path.display());
        let pieces = file.pieces(size).with_context(what)?;
        let entry = Entry {
            size,
            data: pieces.as_deref(),
            ..header(&self.owners, found, stat, EntryType::Regular, None, xattrs)
        };
        self.archive.begin(&entry)?;
        self.notes.entry();
        let whole = [(0, size)];
        let mut missing = 0;
        for (offset, length) in pieces.as_deref().unwrap_or(&whole) {
            file.skip_to(*offset).with_context(what)?;
            missing += self.piece(file, *length).with_context(what)?;
        }
        if missing > 0 {
            self.notes.changed(format!(
                "{} became shorter while it was read: its last {missing} bytes are zeros in the backup",
                found.path.display()
            ));
        }
        Ok(())
    }

    /// Copies `length` bytes; what the file no longer has is filled with zeros and counted.
    fn piece(&mut self, file: &mut Content, length: u64) -> io::Result<u64> {
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
            self.notes.read(count as u64);
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

    /// An entry without data.
    fn put(&mut self, found: &Found, kind: EntryType, link: Option<&[u8]>, xattrs: &[Xattr]) -> anyhow::Result<()> {
        if self.notes.is_unreadable() {
            return Ok(());
        }
        self.notes.entry();
        let entry = header(&self.owners, found, &found.stat, kind, link, xattrs);
        Ok(self.archive.begin(&entry)?)
    }
}

fn header<'e>(
    owners: &'e Owners,
    found: &'e Found,
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
