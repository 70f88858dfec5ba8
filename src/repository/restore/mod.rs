//! Bringing back: trees are walked, files are planned in batches, each batch fetches every blob once, from several
//! packs at a time, and writes it wherever it belongs. What is damaged fails the files it belongs to, and no others.
mod batch;
mod fetch;
mod file;

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, bail};
use globset::GlobSet;
use rustix::{
    fd::{AsFd as _, OwnedFd},
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::{
    batch::{Batch, UnderWay},
    fetch::Fetcher,
    file::{FilePlan, Finished, is_equal},
};
use super::{
    Index, Repository,
    node::{Node, NodeKind},
    pack::BlobKind,
};
use crate::tree::{Dress, Listener, Place, cancelled_error};

/// Failures and warnings that are kept; the rest is counted.
const NAMED: usize = 100;

/// What is to be brought back, and where to.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Where: it becomes this itself, not something in it.
    pub to: PathBuf,
    /// What is there may be replaced. A folder is changed file by file to what the backup has; other files in it stay.
    pub replace: bool,
    /// Only say what would change.
    pub dry_run: bool,
    /// Only these, seen from the top of what is restored, and what is below them.
    pub only: Option<GlobSet>,
    /// A name for what is unfinished: another restore of the same goes on where this one stopped.
    pub id: String,
    /// It is a SQLite database: what SQLite keeps beside one goes with the old one.
    pub is_database: bool,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files, folders and other entries.
    pub entries: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Files that were as they are in the backup, and were left alone.
    pub equal: u64,
    /// What could not be brought back: `path: why`.
    pub failures: Vec<String>,
    /// How many.
    pub failed: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What would change, or has changed, for `dry_run`: `new`, `replaced`, and the path.
    pub changes: Vec<(&'static str, PathBuf)>,
}

impl Repository {
    /// Brings back `node` and all below it.
    ///
    /// # Errors
    /// When nothing could be done, or the disk is full. What only concerns single files is in [`Restored::failures`].
    pub async fn restore(
        &self,
        index: &Arc<Index>,
        node: Node,
        wish: Wish,
        listener: Arc<dyn Listener>,
        cancelled: CancellationToken,
    ) -> anyhow::Result<Restored> {
        let stop = cancelled.child_token();
        let fetcher = Arc::new(Fetcher::new(self.clone(), Handle::current(), Arc::clone(&listener), stop));
        let restoring = Restoring {
            repository: self.clone(),
            index: Arc::clone(index),
            runtime: Handle::current(),
            listener,
            cancelled,
            shared: Arc::clone(&fetcher.shared),
            fetcher,
            batch: Batch::default(),
            under_way: None,
            links: HashMap::new(),
            wish,
        };
        let work = move || restoring.run(node);
        tokio::task::spawn_blocking(work).await.context("the thread that restores died")?
    }
}

/// What threads add to.
#[derive(Default)]
struct Shared {
    restored: Mutex<Restored>,
    /// Why all of it failed, first.
    reason: Mutex<Option<anyhow::Error>>,
}

impl Shared {
    fn with(&self, change: impl FnOnce(&mut Restored)) {
        change(&mut self.restored.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All of it fails; the first reason counts.
    fn give_up(&self, why: anyhow::Error) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    fn gave_up(&self) -> anyhow::Result<()> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn fail(&self, path: &Path, why: &str) {
        self.with(|restored| {
            restored.failed += 1;
            if restored.failures.len() < NAMED {
                restored.failures.push(format!("{}: {why}", path.display()));
            }
        });
    }

    /// What became of a file.
    fn finished(&self, plan: &FilePlan, finished: Finished) {
        if let Finished::Failed(why) = finished {
            self.fail(&plan.path, &why);
        }
    }

    fn warn(&self, path: &Path, why: &str) {
        self.with(|restored| {
            if restored.warnings.len() < NAMED {
                restored.warnings.push(format!("{}: {why}", path.display()));
            }
        });
    }
}

struct Restoring {
    repository: Repository,
    index: Arc<Index>,
    runtime: Handle,
    listener: Arc<dyn Listener>,
    cancelled: CancellationToken,
    shared: Arc<Shared>,
    fetcher: Arc<Fetcher>,
    batch: Batch,
    under_way: Option<UnderWay>,
    /// Where the first name of a file with several is.
    links: HashMap<(u64, u64), PathBuf>,
    wish: Wish,
}

/// A folder that is being restored.
struct Level {
    /// Open, once something is restored in it.
    folder: Option<Arc<OwnedFd>>,
    node: Node,
    name: OsString,
    /// Seen from the top.
    path: PathBuf,
    /// It was asked for, itself or one above it.
    is_wanted: bool,
    nodes: std::vec::IntoIter<Node>,
}

impl Restoring {
    fn run(mut self, node: Node) -> anyhow::Result<Restored> {
        let to = self.wish.to.clone();
        let what = || format!("restore to {}", to.display());
        let is_folder_there = to.symlink_metadata().is_ok_and(|found| found.is_dir());
        if self.wish.dry_run || self.wish.replace && is_folder_there && node.kind == NodeKind::Dir {
            let (Some(above), Some(name)) = (to.parent(), to.file_name()) else {
                bail!("{} cannot be replaced: name a folder in it", to.display())
            };
            let (above, name) = (if above.as_os_str().is_empty() { Path::new(".") } else { above }, name.to_owned());
            if self.wish.dry_run && !above.is_dir() {
                return Ok(Restored { changes: vec![("new", to)], ..Restored::default() });
            }
            let parent = Arc::new(open_folder(CWD, above.as_os_str()).with_context(what)?);
            self.top(&parent, name, node).with_context(what)?;
            return self.end(&parent);
        }
        let place =
            Place::prepare(&to, &self.wish.id, self.wish.is_database, self.wish.replace, true).with_context(what)?;
        let parent = Arc::new(place.parent.try_clone()?);
        self.top(&parent, place.beside.clone(), node).with_context(what)?;
        let restored = self.end(&parent)?;
        if restored.entries == 0 {
            place.remove_beside();
            return Ok(restored);
        }
        place.swap_in()?;
        Ok(restored)
    }

    fn end(self, root: &OwnedFd) -> anyhow::Result<Restored> {
        if !self.wish.dry_run {
            rustix::fs::syncfs(root).context("write all to the disk")?;
        }
        self.shared.with(|restored| {
            let more = restored.failed - restored.failures.len() as u64;
            if more > 0 {
                restored.failures.push(format!("and {more} more"));
            }
        });
        let restored = std::mem::take(&mut *self.shared.restored.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(restored)
    }

    /// Restores the top as `name` in `parent`, and all below it. When it returns, nothing is written any more.
    fn top(&mut self, parent: &Arc<OwnedFd>, name: OsString, node: Node) -> anyhow::Result<()> {
        let done = self.descend(parent, name, node);
        done.and(self.settle())
    }

    fn descend(&mut self, parent: &Arc<OwnedFd>, name: OsString, node: Node) -> anyhow::Result<()> {
        let is_wanted = self.wish.only.is_none();
        let mut levels = vec![Level {
            folder: Some(Arc::clone(parent)),
            // Whatever holds the top is left as it is.
            node: Node::new(Vec::new(), NodeKind::Irregular),
            name: OsString::new(),
            path: PathBuf::new(),
            is_wanted,
            nodes: vec![Node { name: name.as_bytes().to_vec(), ..node }].into_iter(),
        }];
        while let Some(level) = levels.last_mut() {
            if self.cancelled.is_cancelled() {
                return Err(cancelled_error().into());
            }
            let Some(node) = level.nodes.next() else {
                if let Some(ended) = levels.pop()
                    && let Some(folder) = ended.folder
                    && ended.node.kind == NodeKind::Dir
                    && ended.is_wanted
                {
                    self.batch.folders.push((folder, dress(&ended.node), self.shown(&ended.path)));
                }
                self.flush(false)?;
                continue;
            };
            let is_top = levels.len() == 1;
            let above = &levels[levels.len() - 1];
            let path = if is_top { PathBuf::new() } else { above.path.join(node.os_name()) };
            let is_wanted = above.is_wanted || self.wish.only.as_ref().is_some_and(|only| only.is_match(&path));
            if node.kind == NodeKind::Dir {
                levels.extend(self.enter(node, path, is_wanted)?);
                if is_wanted {
                    self.open(&mut levels)?;
                }
            } else if is_wanted {
                let Some(folder) = self.open(&mut levels)? else { continue };
                let shown = self.shown(&path);
                if let Err(error) = self.entry(&folder, node, &path) {
                    fatal(error).map(|why| self.shared.fail(&shown, &why))?;
                }
                self.flush(false)?;
            }
        }
        self.flush(true)
    }

    /// A folder's content, yet without the folder itself.
    fn enter(&self, node: Node, path: PathBuf, is_wanted: bool) -> anyhow::Result<Option<Level>> {
        let loaded = match node.subtree {
            Some(id) => self.runtime.block_on(self.repository.tree(&self.index, &id)),
            None => Err(anyhow::anyhow!("the backup does not say what is in it")),
        };
        match loaded {
            Ok(tree) => {
                let (name, nodes) = (node.os_name().to_owned(), tree.nodes.into_iter());
                Ok(Some(Level { folder: None, node, name, path, is_wanted, nodes }))
            }
            Err(error) => {
                let why = fatal(error)?;
                self.shared.fail(&self.shown(&path), &format!("nothing in this folder can be restored: {why}"));
                Ok(None)
            }
        }
    }

    /// Makes the folders that are being restored, as far as they are not there; the innermost. `None` in a dry run where there is none.
    fn open(&self, levels: &mut [Level]) -> anyhow::Result<Option<Arc<OwnedFd>>> {
        for at in 1..levels.len() {
            if levels[at].folder.is_some() {
                continue;
            }
            let Some(parent) = levels[at - 1].folder.clone() else { return Ok(None) };
            let (name, path) = (levels[at].name.clone(), self.shown(&levels[at].path));
            let what = || format!("make the folder {}", path.display());
            if self.wish.dry_run {
                match open_folder(&*parent, &name) {
                    Ok(folder) => levels[at].folder = Some(Arc::new(folder)),
                    Err(_) => {
                        self.shared.with(|restored| {
                            restored.entries += 1;
                            restored.changes.push(("new", path));
                        });
                        // Nothing of it can be there.
                        levels[at].nodes = Vec::new().into_iter();
                        return Ok(None);
                    }
                }
                continue;
            }
            match rustix::fs::mkdirat(&parent, &name, Mode::RWXU) {
                Ok(()) => self.changed("new", &path),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error).with_context(what),
            }
            let opened = match open_folder(&*parent, &name) {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    rustix::fs::unlinkat(&parent, &name, AtFlags::empty()).with_context(what)?;
                    rustix::fs::mkdirat(&parent, &name, Mode::RWXU).with_context(what)?;
                    self.changed("replaced", &path);
                    open_folder(&*parent, &name)
                }
                opened => opened,
            };
            self.shared.with(|restored| restored.entries += 1);
            levels[at].folder = Some(Arc::new(opened.with_context(what)?));
        }
        Ok(levels.last().and_then(|level| level.folder.clone()))
    }

    fn entry(&mut self, folder: &Arc<OwnedFd>, node: Node, path: &Path) -> anyhow::Result<()> {
        self.shared.with(|restored| restored.entries += 1);
        let found = rustix::fs::statat(folder, node.os_name(), AtFlags::SYMLINK_NOFOLLOW).ok();
        let kind = found.as_ref().map(|found| FileType::from_raw_mode(found.st_mode));
        let shown = self.shown(path);
        if node.kind == NodeKind::File {
            if kind == Some(FileType::RegularFile) && is_equal(folder, &node, &self.index, &self.cancelled)? {
                self.shared.with(|restored| restored.equal += 1);
                if self.wish.dry_run {
                    return Ok(());
                }
                self.listener.progress(0, None);
                let file = rustix::fs::openat(
                    folder,
                    node.os_name(),
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                self.remember(&node, path);
                return dress(&node).open(&file, &mut |why| self.shared.warn(&shown, &why));
            }
        } else if kind == Some(FileType::Symlink)
            && node.kind == NodeKind::Symlink
            && rustix::fs::readlinkat(folder, node.os_name(), Vec::new())
                .is_ok_and(|target| target.as_bytes() == node.target())
        {
            self.shared.with(|restored| restored.equal += 1);
            if self.wish.dry_run {
                return Ok(());
            }
            return dress(&node)
                .entry(folder.as_fd(), node.os_name(), false, &mut |why| self.shared.warn(&shown, &why));
        }
        if self.wish.dry_run {
            let how = if found.is_some() { "replaced" } else { "new" };
            self.shared.with(|restored| restored.changes.push((how, shown)));
            return Ok(());
        }
        if kind == Some(FileType::Directory) {
            bail!("a folder is in its place: it is not removed for a file");
        }
        self.changed(if found.is_some() { "replaced" } else { "new" }, &shown);
        match node.kind {
            NodeKind::File => self.file(folder, node, path),
            NodeKind::Symlink | NodeKind::Fifo | NodeKind::Dev | NodeKind::CharDev => {
                let name = node.os_name();
                if found.is_some() {
                    rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
                }
                if node.kind == NodeKind::Symlink {
                    if node.links > 1 && self.link(folder, &node, path)? {
                        return Ok(());
                    }
                    rustix::fs::symlinkat(node.target(), folder, name)?;
                } else {
                    let (kind, device) = match node.kind {
                        NodeKind::CharDev => (FileType::CharacterDevice, node.device),
                        NodeKind::Dev => (FileType::BlockDevice, node.device),
                        _ => (FileType::Fifo, 0),
                    };
                    match rustix::fs::mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, device) {
                        Err(Errno::PERM) if kind != FileType::Fifo => bail!("a device can only be made as root"),
                        made => made?,
                    }
                }
                self.remember(&node, path);
                let has_mode = node.kind != NodeKind::Symlink;
                dress(&node).entry(folder.as_fd(), name, has_mode, &mut |why| self.shared.warn(&shown, &why))
            }
            NodeKind::Dir | NodeKind::Socket | NodeKind::Irregular => {
                self.shared.warn(&shown, "left out: it is of a kind that cannot be restored");
                Ok(())
            }
        }
    }

    fn file(&mut self, folder: &Arc<OwnedFd>, node: Node, path: &Path) -> anyhow::Result<()> {
        if node.links > 1 && self.links.contains_key(&(node.inode, node.device_id)) {
            // Its first name must be there before it gets another.
            self.flush(true)?;
            if self.link(folder, &node, path)? {
                return Ok(());
            }
        }
        self.remember(&node, path);
        let content = node.content.clone().unwrap_or_default();
        let plan = Arc::new(FilePlan::new(Arc::clone(folder), &node, self.shown(path), content.len()));
        plan.clear()?;
        if content.is_empty() {
            self.shared.finished(&plan, plan.finish(0, &self.shared));
            return Ok(());
        }
        let mut offset = 0;
        for id in content {
            match self.index.find(BlobKind::Data, &id) {
                Some(place) => {
                    let size = place.blob.size();
                    self.batch.add(place, &plan, offset);
                    offset += u64::from(size);
                    plan.set_size(offset);
                }
                None => {
                    plan.fail(&super::blobs::Lost { kind: BlobKind::Data, id }.to_string());
                    self.shared.finished(&plan, plan.done(&self.shared));
                }
            }
            // A large file does not wait for its end.
            self.flush(false)?;
        }
        Ok(())
    }

    /// Makes another name of what is there already; whether that was done.
    fn link(&self, folder: &OwnedFd, node: &Node, path: &Path) -> anyhow::Result<bool> {
        let Some(first) = self.links.get(&(node.inode, node.device_id)) else { return Ok(false) };
        let root = self.batch_root(folder, path)?;
        let above = first.parent().unwrap_or(Path::new(""));
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let Ok(from) = rustix::fs::openat2(&root, above, flags, Mode::empty(), resolve) else { return Ok(false) };
        let Some(first_name) = first.file_name() else { return Ok(false) };
        match rustix::fs::unlinkat(folder, node.os_name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        // If its first name failed, this one is restored by itself.
        Ok(rustix::fs::linkat(&from, first_name, folder, node.os_name(), AtFlags::empty()).is_ok())
    }

    /// The top folder, from a folder as deep in it as `path` says.
    fn batch_root(&self, folder: &OwnedFd, path: &Path) -> anyhow::Result<OwnedFd> {
        let depth = path.components().count().saturating_sub(1);
        let up = if depth == 0 { PathBuf::from(".") } else { "../".repeat(depth).into() };
        Ok(rustix::fs::openat(folder, up, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn remember(&mut self, node: &Node, path: &Path) {
        if node.links > 1 {
            self.links.entry((node.inode, node.device_id)).or_insert_with(|| path.to_owned());
        }
    }

    fn changed(&self, how: &'static str, path: &Path) {
        self.shared.with(|restored| {
            if restored.changes.len() < NAMED {
                restored.changes.push((how, path.to_owned()));
            }
        });
    }

    /// Begins with what is planned, if it is enough; `now`, all is done before this returns.
    fn flush(&mut self, now: bool) -> anyhow::Result<()> {
        if now || self.batch.is_full() {
            let next = std::mem::take(&mut self.batch).start(&self.fetcher);
            if let Some(before) = self.under_way.replace(next) {
                before.end(self)?;
            }
        }
        if now { self.settle() } else { Ok(()) }
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        self.under_way.take().map_or(Ok(()), |last| last.end(self))
    }

    fn shown(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.wish.to.clone() } else { self.wish.to.join(path) }
    }
}

/// Why a single thing failed; an error that concerns all of them is handed on.
fn fatal(error: anyhow::Error) -> anyhow::Result<String> {
    let is_full = error.chain().any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let number = cause.downcast_ref::<Errno>();
        matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem)
        ) || matches!(number, Some(&(Errno::NOSPC | Errno::DQUOT | Errno::ROFS)))
            || cause.to_string() == "cancelled"
    });
    let is_away = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(crate::bucket::BucketError::Unreachable(_) | crate::bucket::BucketError::Refused(_))
        )
    });
    if is_full || is_away { Err(error) } else { Ok(format!("{error:#}")) }
}

fn dress(node: &Node) -> Dress {
    let xattrs = node.extended_attributes.iter().map(|attribute| {
        let value = attribute.value.as_ref().map(|value| value.0.clone()).unwrap_or_default();
        (attribute.name.clone().into_bytes(), value)
    });
    let mtime = (node.mtime.seconds, node.mtime.nanoseconds);
    Dress { uid: node.uid, gid: node.gid, mode: node.mode(), mtime, xattrs: xattrs.collect() }
}

fn open_folder(parent: impl rustix::fd::AsFd, name: &std::ffi::OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The folder above the top may be reached through a symlink; what is restored may not.
    let flags = if name.as_bytes().contains(&b'/') { flags.difference(OFlags::NOFOLLOW) } else { flags };
    rustix::fs::openat(parent, name, flags, Mode::empty())
}
