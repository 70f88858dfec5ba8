//! What a walk finds: files are handed to the pool unless the backup before has them as they are, and all is told in order
//! to whoever makes trees of it.
use std::{collections::HashMap, os::unix::ffi::OsStrExt as _, path::Path, sync::Arc};

use crossbeam_channel::Sender;
use rustix::fs::FileType;
use tokio::runtime::Handle;

use super::{
    super::{
        Index, Repository,
        node::{Node, NodeKind, Tree},
        pack::BlobKind,
    },
    ahead::Ahead,
    pool::{FileJob, Inlets, Pool, Slot, database, node_of, xattrs},
};
use crate::tree::{
    Came, Found, Visitor,
    attributes::{Owners, Xattrs},
    cancelled_error,
};

/// What was found, in order.
pub(super) enum Event {
    /// A root of the source begins; where it belongs below the source.
    Root(std::path::PathBuf),
    /// A folder begins.
    Enter(Node),
    /// It ends.
    Leave,
    /// Something that is complete, and whether the backup before has it as it is.
    Node(Node),
    /// A file that is being read.
    File(Arc<Slot>),
}

/// Where the backup before is read.
pub(super) struct Before<'a> {
    pub(super) repository: &'a Repository,
    pub(super) index: &'a Index,
    pub(super) runtime: Handle,
    /// When it was begun: what changed at that moment or later is read again.
    pub(super) begun: i64,
}

/// Files that were taken from the backup before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) files_new: u64,
    pub(super) files_changed: u64,
    pub(super) files_unmodified: u64,
    pub(super) bytes_unmodified: u64,
}

pub(super) struct Gathering<'a> {
    pub(super) pool: &'a Pool<'a>,
    pub(super) inlets: Inlets,
    pub(super) events: Sender<Event>,
    pub(super) owners: &'a Owners,
    pub(super) before: Option<Before<'a>>,
    /// What the backup before has of the open folders, the innermost last.
    pub(super) trees: Vec<Option<Tree>>,
    /// What it has where the source is.
    pub(super) source: Option<Node>,
    /// What it has where the current root of the source is.
    pub(super) root: Option<Node>,
    /// Files that a first look has read.
    pub(super) ahead: &'a Ahead,
    /// First names of files with several.
    pub(super) links: HashMap<(u64, u64), Arc<Slot>>,
    pub(super) taken: Taken,
}

impl Gathering<'_> {
    fn tell(&self, event: Event) -> anyhow::Result<()> {
        // Nobody listens any more only after an error, which is told by whoever had it.
        self.events.send(event).map_err(|_| cancelled_error().into())
    }

    /// What the backup before has of it.
    fn known(&self, found: &Found) -> Option<Node> {
        match self.trees.last() {
            Some(tree) => tree.as_ref()?.find(found.name.as_bytes()).cloned(),
            None => self.root.clone(),
        }
    }

    /// Whether the file is as the backup before has it, and all of it is there.
    fn is_unchanged(&self, node: &Node, known: &Node, found: &Found) -> bool {
        let Some(before) = &self.before else { return false };
        is_same(node, known, found, before.begun)
            && known.content.iter().flatten().all(|id| before.index.find(BlobKind::Data, id).is_some())
    }

    /// The file as a first look has read it, if it has not changed since.
    fn read_ahead(&self, node: &Node, found: &Found) -> Option<&Node> {
        let ahead = self.ahead;
        ahead.files.get(&(node.device_id, node.inode)).filter(|seen| is_same(node, seen, found, ahead.begun))
    }

    fn tree_before(&self, known: Option<&Node>) -> Option<Tree> {
        let before = self.before.as_ref()?;
        let id = known?.subtree?;
        match before.runtime.block_on(before.repository.tree(before.index, &id)) {
            Ok(tree) => Some(tree),
            Err(error) => {
                let why = format!("{error:#}");
                self.pool
                    .notes
                    .warn(format!("a folder of the backup before cannot be read, so all of it is read anew: {why}"));
                None
            }
        }
    }

    fn read_at_once(&mut self, found: &Found, mut node: Node) -> anyhow::Result<Option<Came>> {
        let Some(mut copy) = database(found, self.pool.spool, self.pool.notes, &self.pool.stopped)? else {
            return Ok(None);
        };
        node.extended_attributes = xattrs(found.xattrs_or_warn(found.xattrs(), self.pool.notes));
        if let Some(node) = self.pool.stream(&mut copy, node, self.inlets.pieces.clone())? {
            self.tell(Event::Node(node))?;
        }
        Ok(Some(Came::Database))
    }
}

/// Whether nothing of the file has changed since it was read, by somebody who began at `begun`.
fn is_same(node: &Node, known: &Node, found: &Found, begun: i64) -> bool {
    let same = known.kind == NodeKind::File
        && (known.size, known.mtime, known.ctime, known.inode) == (node.size, node.mtime, node.ctime, node.inode);
    // A database in use changes beside its file; and a file that changed while it was read may have changed once more
    // within the same tick of the file system's clock.
    same && !found.has_companions && !found.is_open_here && node.ctime.seconds + 1 < begun
}

/// The file with what is known to be in it.
fn as_known(node: Node, known: &Node) -> Node {
    let content = Some(known.content.clone().unwrap_or_default());
    Node { content, extended_attributes: known.extended_attributes.clone(), ..node }
}

impl Visitor for Gathering<'_> {
    fn root(&mut self, member: &Path) -> anyhow::Result<()> {
        let mut root = self.source.clone();
        for part in member {
            root = self.tree_before(root.as_ref()).and_then(|tree| tree.find(part.as_bytes()).cloned());
        }
        self.root = root;
        self.tell(Event::Root(member.to_owned()))
    }

    fn folder(&mut self, found: &Found, read: Xattrs) -> anyhow::Result<()> {
        let mut node = node_of(found.name.as_bytes(), NodeKind::Dir, &found.stat, self.owners);
        let known = self.known(found);
        node.extended_attributes = xattrs(read);
        self.trees.push(self.tree_before(known.as_ref()));
        self.tell(Event::Enter(node))
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        self.trees.pop();
        self.tell(Event::Leave)
    }

    fn file(&mut self, found: &Found) -> anyhow::Result<Came> {
        let node = node_of(found.name.as_bytes(), NodeKind::File, &found.stat, self.owners);
        let known = self.known(found);
        if let Some(known) = &known
            && self.is_unchanged(&node, known, found)
        {
            self.taken.files_unmodified += 1;
            self.taken.bytes_unmodified += node.size;
            self.pool.notes.known(node.size);
            self.tell(Event::Node(as_known(node, known)))?;
            return Ok(Came::In);
        }
        match known {
            Some(_) => self.taken.files_changed += 1,
            None => self.taken.files_new += 1,
        }
        if let Some(seen) = self.read_ahead(&node, found) {
            let same = as_known(node, seen);
            self.pool.notes.known(same.size);
            self.tell(Event::Node(same))?;
            return Ok(Came::In);
        }
        // A database in use: whether its companions are needed shows only when it is copied. A helper does that by itself.
        if found.is_here() && (found.has_companions || found.is_open_here) {
            if self.pool.notes.is_unreadable() {
                return Ok(Came::Out);
            }
            let is_database = found.is_open_here
                || match found.open(self.pool.notes)? {
                    Some((mut file, _)) => file.is_database()?,
                    None => return Ok(Came::Out),
                };
            if is_database && let Some(came) = self.read_at_once(found, node.clone())? {
                return Ok(came);
            }
        }
        let slot = Arc::new(Slot::default());
        if found.stat.st_nlink > 1 {
            self.links.insert((found.stat.st_dev, found.stat.st_ino), Arc::clone(&slot));
        }
        let pieces = self.inlets.pieces.clone();
        let job = FileJob { found: found.clone(), node, done: Arc::clone(&slot), pieces };
        found.want();
        self.inlets.files.send(job).map_err(|_| cancelled_error())?;
        self.tell(Event::File(slot))?;
        Ok(Came::In)
    }

    fn special(&mut self, found: &Found) -> anyhow::Result<bool> {
        let kind = match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::Symlink => NodeKind::Symlink,
            FileType::CharacterDevice => NodeKind::CharDev,
            FileType::BlockDevice => NodeKind::Dev,
            _ => NodeKind::Fifo,
        };
        let mut node = node_of(found.name.as_bytes(), kind, &found.stat, self.owners);
        if kind == NodeKind::Symlink {
            let Some(target) = found.target(self.pool.notes) else { return Ok(false) };
            node.set_target(target);
        }
        node.extended_attributes = xattrs(found.xattrs_or_warn(found.xattrs(), self.pool.notes));
        self.tell(Event::Node(node))?;
        Ok(true)
    }

    fn link(&mut self, found: &Found, _: &[u8]) -> anyhow::Result<()> {
        if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
            self.special(found)?;
            return Ok(());
        }
        let first = self.links.get(&(found.stat.st_dev, found.stat.st_ino)).and_then(|slot| slot.wait());
        match first {
            // One file with two names: restored, it is one again by its number.
            Some(first) => self.tell(Event::Node(Node { name: found.name.as_bytes().to_vec(), ..first })),
            None => self.file(found).map(|_| ()),
        }
    }
}
