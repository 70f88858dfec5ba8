//! The walk: folder by folder, in the order of names.
use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use tokio_util::sync::CancellationToken;

use super::{
    Content, Notes, Tree,
    attributes::{self, Xattrs},
    cancelled_error, far, live,
};

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

/// Where something is.
#[derive(Clone)]
pub(crate) enum At {
    /// In this folder, which is open.
    Here(Arc<OwnedFd>),
    /// Where a helper reads it for us.
    There(Arc<far::Remote>),
}

/// One thing in a folder.
#[derive(Clone)]
pub struct Found {
    /// Where it is.
    pub(crate) at: At,
    /// Its name there.
    pub name: OsString,
    /// Its name in an archive: from the tree's base on, parts separated by `/`.
    pub member: Vec<u8>,
    /// Where it is, for people.
    pub path: PathBuf,
    /// What was found.
    pub stat: Stat,
    /// This process has it open as a SQLite database: it must not be opened as a file.
    pub is_open_here: bool,
    /// Files that SQLite keeps beside a database in use are beside it.
    pub has_companions: bool,
    /// It is read as a file even if it is a database.
    pub as_it_is: bool,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It is stored.
    In,
    /// It is stored, as a database that was in use: what SQLite keeps beside it is not needed.
    Database,
    /// It is not stored; why was noted.
    Out,
}

/// Whoever stores what a walk finds.
pub trait Visitor {
    /// A root of the tree begins; `member` is where it belongs below the tree's base.
    fn root(&mut self, member: &Path) -> anyhow::Result<()>;
    /// A folder, before what is in it.
    fn folder(&mut self, found: &Found, xattrs: Xattrs) -> anyhow::Result<()>;
    /// The innermost folder ends.
    fn leave(&mut self) -> anyhow::Result<()>;
    /// A file.
    fn file(&mut self, found: &Found) -> anyhow::Result<Came>;
    /// A symlink, a pipe, a device. Whether it is stored.
    fn special(&mut self, found: &Found) -> anyhow::Result<bool>;
    /// Another name of something that was stored as `first`.
    fn link(&mut self, found: &Found, first: &[u8]) -> anyhow::Result<()>;
}

/// Shows all of a tree to `visitor`.
///
/// # Errors
/// Those of the visitor, and what cannot be read.
pub fn walk(
    tree: &Tree,
    visitor: &mut dyn Visitor,
    notes: &Notes,
    cancelled: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(far) = &tree.far {
        return far::walk(far, tree, visitor, notes, cancelled);
    }
    let identity = |path: &PathBuf| rustix::fs::stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
    let mut walk = Walk {
        tree,
        visitor,
        notes,
        cancelled,
        links: HashMap::new(),
        skip: tree.skip.iter().filter_map(identity).collect(),
        open_here: tree.open_here.iter().filter_map(identity).collect(),
        device: 0,
        sockets: 0,
    };
    for (member, path) in &tree.roots {
        walk.visitor.root(member)?;
        let whole =
            if member.as_os_str().is_empty() { tree.base.clone() } else { Path::new(&tree.base).join(member).into() };
        walk.root(whole.into_vec(), path)?;
    }
    notes.judge(tree.allow_empty)?;
    if walk.sockets > 0 {
        let (count, word) = (walk.sockets, if walk.sockets == 1 { "socket" } else { "sockets" });
        notes.info(&format!("{count} {word} left out: a socket is made anew by the program that owns it"));
    }
    Ok(())
}

struct Walk<'a> {
    tree: &'a Tree,
    visitor: &'a mut dyn Visitor,
    notes: &'a Notes,
    cancelled: &'a CancellationToken,
    /// First names of files with several, and how many names are still to come.
    links: HashMap<(u64, u64), (Vec<u8>, i128)>,
    /// Device and inode of folders that are never entered.
    skip: HashSet<(u64, u64)>,
    /// And of databases that must not be opened as files.
    open_here: HashSet<(u64, u64)>,
    /// The file system of the current root.
    device: u64,
    sockets: u64,
}

/// A folder that is being read.
struct Level {
    folder: Arc<OwnedFd>,
    member: Vec<u8>,
    path: PathBuf,
    /// All names, sorted.
    names: Vec<OsString>,
    /// How many of them are done.
    done: usize,
    /// Companions of databases that were copied while in use.
    companions: HashSet<OsString>,
}

impl Walk<'_> {
    fn root(&mut self, member: Vec<u8>, path: &Path) -> anyhow::Result<()> {
        let path = path.canonicalize().with_context(|| format!("read {}", path.display()))?;
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (parent, name),
            // The root of everything is found in itself.
            _ => (path.as_path(), OsStr::new(".")),
        };
        let what = || format!("read {}", path.display());
        let parent = Arc::new(open_folder(CWD, parent.as_os_str()).with_context(what)?);
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).with_context(what)?;
        self.device = stat.st_dev;
        let has_companions =
            live::companions(name).any(|name| rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok());
        let found = self.found(parent, name.to_owned(), member, path.clone(), stat, has_companions);
        let mut levels: Vec<Level> = self.entry(found, &mut HashSet::new())?.into_iter().collect();
        let top = levels.first().map(|top| top.path.clone());
        while let Some(level) = levels.last_mut() {
            if self.cancelled.is_cancelled() {
                return Err(cancelled_error().into());
            }
            let Some(name) = level.names.get(level.done).cloned() else {
                levels.pop();
                self.visitor.leave()?;
                continue;
            };
            level.done += 1;
            if level.companions.contains(&name) {
                continue;
            }
            let path = level.path.join(&name);
            let stat = match rustix::fs::statat(&level.folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    self.notes.changed(format!("{} vanished while the folder was read", path.display()));
                    continue;
                }
                Err(error) => {
                    self.notes.cannot(&path, error.into());
                    continue;
                }
            };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let seen_from_top = top.as_ref().and_then(|top| path.strip_prefix(top).ok()).unwrap_or(&path);
            if self.tree.excludes.fit(seen_from_top, is_folder) {
                continue;
            }
            let member = [level.member.as_slice(), b"/", name.as_bytes()].concat();
            let has_companions = live::companions(&name).any(|name| level.names.binary_search(&name).is_ok());
            let found = self.found(Arc::clone(&level.folder), name, member, path, stat, has_companions);
            let below = self.entry(found, &mut level.companions)?;
            levels.extend(below);
        }
        Ok(())
    }

    fn found(
        &self,
        parent: Arc<OwnedFd>,
        name: OsString,
        member: Vec<u8>,
        path: PathBuf,
        stat: Stat,
        has_companions: bool,
    ) -> Found {
        let is_open_here = self.open_here.contains(&(stat.st_dev, stat.st_ino));
        let as_it_is = self.tree.as_it_is;
        let has_companions = has_companions && !as_it_is;
        Found { at: At::Here(parent), name, member, path, stat, is_open_here, has_companions, as_it_is }
    }

    /// Shows one thing. A folder is handed back to be read.
    fn entry(&mut self, found: Found, companions: &mut HashSet<OsString>) -> anyhow::Result<Option<Level>> {
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
            self.notes.file();
            self.visitor.link(&found, &first)?;
            return Ok(None);
        }
        let is_in = match kind {
            FileType::RegularFile => match self.visitor.file(&found)? {
                Came::In => true,
                Came::Database => {
                    companions.extend(live::companions(&found.name));
                    true
                }
                Came::Out => false,
            },
            FileType::Symlink | FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                self.visitor.special(&found)?
            }
            _ => {
                self.notes.warn(format!("{} is of a kind that no archive can hold: left out", found.path.display()));
                false
            }
        };
        if is_in {
            self.notes.file();
            if names > 1 {
                self.links.insert(identity, (found.member, names - 1));
            }
        }
        Ok(None)
    }

    fn folder(&mut self, found: Found) -> anyhow::Result<Option<Level>> {
        if self.skip.contains(&(found.stat.st_dev, found.stat.st_ino)) {
            self.notes.info(&format!("{} left out: it is Rusuban's own", found.path.display()));
            return Ok(None);
        }
        let At::Here(parent) = &found.at else { bail!("{} is not on this machine", found.path.display()) };
        let folder = match open_folder(parent, &found.name) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.notes.changed(format!("{} vanished while it was read", found.path.display()));
                return Ok(None);
            }
            Err(error) => {
                self.notes.cannot(&found.path, error.into());
                return Ok(None);
            }
        };
        let stat = rustix::fs::fstat(&folder).with_context(|| format!("read {}", found.path.display()))?;
        let found = Found { stat, ..found };
        let xattrs = found.xattrs_or_warn(attributes::of_open(&folder), self.notes);
        self.visitor.folder(&found, xattrs)?;
        let Found { member, path, .. } = found;
        if stat.st_dev != self.device && (self.tree.one_file_system || is_made_up(&folder)) {
            let why = if self.tree.one_file_system { "it is another file system" } else { "the kernel makes it up" };
            self.notes.info(&format!("{} not entered: {why}", path.display()));
            self.visitor.leave()?;
            return Ok(None);
        }
        if is_made_up(&folder) {
            bail!("{} is made up by the kernel: there are no files in it to back up", path.display());
        }
        match names(&folder) {
            Ok(names) => {
                let folder = Arc::new(folder);
                Ok(Some(Level { folder, member, path, names, done: 0, companions: HashSet::new() }))
            }
            Err(error) => {
                self.notes.cannot(&path, error.into());
                self.visitor.leave()?;
                Ok(None)
            }
        }
    }
}

impl Found {
    /// Extended attributes that were read, or none and a warning.
    pub(crate) fn xattrs_or_warn(&self, found: io::Result<Xattrs>, notes: &Notes) -> Xattrs {
        found.unwrap_or_else(|error| {
            notes.warn(format!("extended attributes of {} cannot be read: {error}", self.path.display()));
            Vec::new()
        })
    }

    /// Whether it is on this machine.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.at, At::Here(_))
    }

    /// It will be opened: from elsewhere it is sent meanwhile. What is opened first must be wanted first.
    pub(crate) fn want(&self) {
        if let At::There(remote) = &self.at {
            remote.want();
        }
    }

    /// Extended attributes of what is not opened.
    pub(crate) fn xattrs(&self) -> io::Result<Xattrs> {
        match &self.at {
            At::Here(parent) => attributes::of_entry(parent, &self.name),
            At::There(remote) => Ok(remote.xattrs()),
        }
    }

    /// Opens the file, if it is one still; else says why not.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn open(&self, notes: &Notes) -> anyhow::Result<Option<(Content, Stat)>> {
        let parent = match &self.at {
            At::Here(parent) => parent,
            At::There(remote) => {
                return Ok(remote.open(notes)?.map(|(stream, stat)| (Content::There(Box::new(stream)), stat)));
            }
        };
        let file = match open_file(parent, &self.name) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => {
                notes.changed(format!("{} vanished while it was read", self.path.display()));
                return Ok(None);
            }
            Err(error) => {
                notes.cannot(&self.path, error.into());
                return Ok(None);
            }
        };
        let stat = rustix::fs::fstat(&file).with_context(|| format!("read {}", self.path.display()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            notes.changed(format!("{} became something else while it was read: left out", self.path.display()));
            return Ok(None);
        }
        Ok(Some((Content::Here(file), stat)))
    }

    /// Where the symlink points, if it is one still; else says why not.
    #[must_use]
    pub fn target(&self, notes: &Notes) -> Option<Vec<u8>> {
        let parent = match &self.at {
            At::Here(parent) => parent,
            At::There(remote) => return remote.target(),
        };
        match rustix::fs::readlinkat(parent, &self.name, Vec::new()) {
            Ok(target) => return Some(target.into_bytes()),
            Err(Errno::NOENT | Errno::INVAL) => {
                notes.changed(format!("{} vanished while it was read", self.path.display()));
            }
            Err(error) => notes.cannot(&self.path, error.into()),
        }
        None
    }
}

fn open_folder(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Never waits on a pipe, never follows a symlink, leaves the time of the last reading alone where it may.
///
/// # Errors
/// As the kernel says.
pub fn open_file(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&parent, name, flags, Mode::empty()),
        opened => opened,
    }
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
    names.sort_unstable();
    Ok(names)
}

fn is_made_up(folder: &OwnedFd) -> bool {
    // The type is told as a signed or an unsigned number, by the machine's kind.
    rustix::fs::fstatfs(folder).is_ok_and(|found| MADE_UP.contains(&(found.f_type as u32)))
}
