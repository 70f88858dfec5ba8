//! The walk: folder by folder, in the order of names.
mod files;

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use tar::EntryType;
use tokio_util::sync::CancellationToken;

use super::{
    Tree, TreeReport,
    archive::{Archive, Entry},
    attributes::{self, Owners, Xattrs},
};
use crate::plain::{encode::cancelled_error, writer::Watcher};

/// Unreadable things are looked for to the end of the tree, and so many are named.
const NAMED: usize = 20;
/// Warnings of one tree that are kept; the rest is counted.
const WARNINGS: usize = 100;
/// File systems that hold no files: what they show is made up by the kernel, some of it without end.
const MADE_UP: [u32; 8] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6367_7270, // cgroup2
    0x27_e0eb,   // cgroup
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
];

pub(super) struct Walk<'a> {
    tree: &'a Tree,
    archive: Archive<'a>,
    spool: &'a Path,
    watcher: &'a dyn Watcher,
    cancelled: &'a CancellationToken,
    owners: Owners,
    /// First names of files with several, and how many names are still to come.
    links: HashMap<(u64, u64), (Vec<u8>, i128)>,
    /// Device and inode of folders that are never entered.
    skip: HashSet<(u64, u64)>,
    /// And of databases that must not be opened as files.
    open_here: HashSet<(u64, u64)>,
    /// The file system of the current root.
    device: u64,
    report: TreeReport,
    dropped_warnings: usize,
    sockets: u64,
    /// Things that cannot be read: once there is one, the rest is only looked at.
    unreadable: Vec<String>,
    unreadable_count: usize,
    files: u64,
    bytes: u64,
    buffer: Vec<u8>,
}

/// A folder that is being read.
struct Level {
    folder: OwnedFd,
    member: Vec<u8>,
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
    /// Companions of databases that were copied while in use.
    companions: HashSet<OsString>,
}

/// One thing in a folder.
struct Found<'p> {
    parent: BorrowedFd<'p>,
    name: &'p OsStr,
    member: Vec<u8>,
    path: PathBuf,
    stat: Stat,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        to: &'a mut dyn Write,
        spool: &'a Path,
        watcher: &'a dyn Watcher,
        cancelled: &'a CancellationToken,
    ) -> Self {
        let identity = |path: &PathBuf| rustix::fs::stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
        Self {
            tree,
            archive: Archive::new(to),
            spool,
            watcher,
            cancelled,
            owners: Owners::of_this_host(),
            links: HashMap::new(),
            skip: tree.skip.iter().filter_map(identity).collect(),
            open_here: tree.open_here.iter().filter_map(identity).collect(),
            device: 0,
            report: TreeReport::default(),
            dropped_warnings: 0,
            sockets: 0,
            unreadable: Vec::new(),
            unreadable_count: 0,
            files: 0,
            bytes: 0,
            buffer: vec![0; 256 << 10],
        }
    }

    pub(super) fn all(mut self) -> anyhow::Result<TreeReport> {
        let mut made = HashSet::new();
        for (member, path) in &self.tree.roots {
            let name = if member.as_os_str().is_empty() {
                self.tree.base.as_bytes().to_vec()
            } else {
                let whole = Path::new(&self.tree.base).join(member);
                self.folders_above(&whole, &mut made)?;
                whole.into_os_string().into_vec()
            };
            self.root(name, path)?;
        }
        self.judge()?;
        self.archive.finish()?;
        if self.sockets > 0 {
            let (count, word) = (self.sockets, if self.sockets == 1 { "socket" } else { "sockets" });
            self.watcher.info(&format!("{count} {word} left out: a socket is made anew by the program that owns it"));
        }
        if self.dropped_warnings > 0 {
            self.report.warnings.push(format!("and {} warnings more", self.dropped_warnings));
        }
        Ok(self.report)
    }

    fn judge(&self) -> anyhow::Result<()> {
        if self.unreadable_count > 0 {
            let more = self.unreadable_count - self.unreadable.len();
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            bail!("cannot be read: {}{more}", self.unreadable.join("; "));
        }
        if self.files == 0 && !self.tree.allow_empty {
            bail!("there is not a single file in it: is it mounted? (`allow_empty = true` if that is right)");
        }
        Ok(())
    }

    /// Folders of the archive that stand for no single folder on the disk.
    fn folders_above(&mut self, member: &Path, made: &mut HashSet<PathBuf>) -> anyhow::Result<()> {
        let mut above: Vec<_> = member.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        for folder in above {
            if made.insert(folder.to_owned()) {
                let member = [folder.as_os_str().as_bytes(), b"/"].concat();
                self.report.entries += 1;
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

    fn root(&mut self, member: Vec<u8>, path: &Path) -> anyhow::Result<()> {
        let path = path.canonicalize().with_context(|| format!("read {}", path.display()))?;
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (parent, name),
            // The root of everything is found in itself.
            _ => (path.as_path(), OsStr::new(".")),
        };
        let what = || format!("read {}", path.display());
        let parent = open_folder(CWD, parent.as_os_str()).with_context(what)?;
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).with_context(what)?;
        self.device = stat.st_dev;
        let found = Found { parent: parent.as_fd(), name, member, path: path.clone(), stat };
        let mut levels: Vec<Level> = self.entry(found, &mut HashSet::new())?.into_iter().collect();
        let top = levels.first().map(|top| top.path.clone());
        while let Some(level) = levels.last_mut() {
            if self.cancelled.is_cancelled() {
                return Err(cancelled_error().into());
            }
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            if level.companions.contains(&name) {
                continue;
            }
            let path = level.path.join(&name);
            let stat = match rustix::fs::statat(&level.folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    self.warn(format!("{} vanished while the folder was read", path.display()));
                    continue;
                }
                Err(error) => {
                    self.cannot(&path, error.into());
                    continue;
                }
            };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let seen_from_top = top.as_ref().and_then(|top| path.strip_prefix(top).ok()).unwrap_or(&path);
            if self.tree.excludes.fit(seen_from_top, is_folder) {
                continue;
            }
            let member = [level.member.as_slice(), b"/", name.as_bytes()].concat();
            let mut companions = std::mem::take(&mut level.companions);
            let found = Found { parent: level.folder.as_fd(), name: &name, member, path, stat };
            let below = self.entry(found, &mut companions)?;
            level.companions = companions;
            levels.extend(below);
        }
        Ok(())
    }

    /// Writes one thing. A folder is handed back to be read.
    fn entry(&mut self, found: Found<'_>, companions: &mut HashSet<OsString>) -> anyhow::Result<Option<Level>> {
        let kind = FileType::from_raw_mode(found.stat.st_mode);
        match kind {
            FileType::Directory => return self.folder(found),
            FileType::Socket => {
                self.sockets += 1;
                return Ok(None);
            }
            _ => {}
        }
        let identity = (found.stat.st_dev, found.stat.st_ino);
        // Its type differs by the kind of machine.
        let names = i128::from(found.stat.st_nlink);
        if names > 1
            && let Some((first, left)) = self.links.get_mut(&identity)
        {
            let first = first.clone();
            *left -= 1;
            if *left == 0 {
                self.links.remove(&identity);
            }
            self.files += 1;
            self.put(&found, EntryType::Link, Some(&first), &[])?;
            return Ok(None);
        }
        let written = match kind {
            FileType::RegularFile => self.file(&found, companions)?,
            FileType::Symlink => self.symlink(&found)?,
            FileType::Fifo => self.special(&found, EntryType::Fifo)?,
            FileType::CharacterDevice => self.special(&found, EntryType::Char)?,
            FileType::BlockDevice => self.special(&found, EntryType::Block)?,
            _ => {
                self.warn(format!("{} is of a kind that no archive can hold: left out", found.path.display()));
                false
            }
        };
        if written {
            self.files += 1;
            if names > 1 {
                self.links.insert(identity, (found.member, names - 1));
            }
        }
        Ok(None)
    }

    fn folder(&mut self, found: Found<'_>) -> anyhow::Result<Option<Level>> {
        if self.skip.contains(&(found.stat.st_dev, found.stat.st_ino)) {
            self.watcher.info(&format!("{} left out: it is Rusuban's own", found.path.display()));
            return Ok(None);
        }
        let folder = match open_folder(found.parent, found.name) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.warn(format!("{} vanished while it was read", found.path.display()));
                return Ok(None);
            }
            Err(error) => {
                self.cannot(&found.path, error.into());
                return Ok(None);
            }
        };
        let xattrs = self.xattrs_or_warn(&found.path, attributes::of_open(&folder));
        let member = [found.member.as_slice(), b"/"].concat();
        let stat = rustix::fs::fstat(&folder).with_context(|| format!("read {}", found.path.display()))?;
        let Found { parent, name, path, .. } = found;
        let as_folder = Found { parent, name, member, path, stat };
        self.put(&as_folder, EntryType::Directory, None, &xattrs)?;
        let path = as_folder.path;
        if stat.st_dev != self.device && (self.tree.one_file_system || is_made_up(&folder)) {
            let why = if self.tree.one_file_system { "it is another file system" } else { "the kernel makes it up" };
            self.watcher.info(&format!("{} not entered: {why}", path.display()));
            return Ok(None);
        }
        if is_made_up(&folder) {
            bail!("{} is made up by the kernel: there are no files in it to back up", path.display());
        }
        match names(&folder) {
            Ok(names) => {
                let (names, companions) = (names.into_iter(), HashSet::new());
                Ok(Some(Level { folder, member: found.member, path, names, companions }))
            }
            Err(error) => {
                self.cannot(&path, error.into());
                Ok(None)
            }
        }
    }

    fn xattrs_or_warn(&mut self, path: &Path, found: io::Result<Xattrs>) -> Xattrs {
        found.unwrap_or_else(|error| {
            self.warn(format!("extended attributes of {} cannot be read: {error}", path.display()));
            Vec::new()
        })
    }

    fn cannot(&mut self, path: &Path, error: io::Error) {
        self.unreadable_count += 1;
        if self.unreadable.len() < NAMED {
            self.unreadable.push(format!("{}: {:#}", path.display(), anyhow!(error)));
        }
    }

    fn warn(&mut self, warning: String) {
        self.watcher.warn(&warning);
        if self.report.warnings.len() < WARNINGS {
            self.report.warnings.push(warning);
        } else {
            self.dropped_warnings += 1;
        }
    }
}

fn open_folder(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn names(folder: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort();
    Ok(names)
}

fn is_made_up(folder: &OwnedFd) -> bool {
    // The type is told as a signed or an unsigned number, by the machine's kind.
    rustix::fs::fstatfs(folder).is_ok_and(|found| MADE_UP.contains(&(found.f_type as u32)))
}
