//! Threads that read files, cut them, and hash, compress and seal the pieces. Whoever reads a large file hands pieces to
//! those who have nothing to do; when all are at work, he does them himself. So nobody waits for nobody, and memory is bounded.
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never, select};
use tokio_util::sync::CancellationToken;

use super::super::{
    Id,
    chunker::Cutter,
    node::{ExtendedAttribute, Node, NodeKind},
    pack::BlobKind,
    saver::{Intake, Tools},
};
use crate::tree::{
    Found, Notes,
    attributes::{self, Xattrs},
    cancelled_error, live, shown,
};

/// Files that wait to be read.
const FILES_AHEAD: usize = 256;

/// What all threads of a source share.
pub(super) struct Pool<'a> {
    pub(super) intake: Intake,
    pub(super) cutter: Cutter,
    pub(super) notes: &'a Notes,
    pub(super) spool: &'a Path,
    pub(super) stopped: CancellationToken,
    /// The first thing that went wrong.
    failure: Mutex<Option<anyhow::Error>>,
    files: Receiver<FileJob>,
    pieces: Receiver<Piece>,
    /// Memory of pieces that are stored, for those to come.
    spare: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
}

/// Where work is handed in. The pool works until all of these, and the pieces' in waiting files, are gone.
pub(super) struct Inlets {
    pub(super) files: Sender<FileJob>,
    pub(super) pieces: Sender<Piece>,
}

/// A file to be read.
pub(super) struct FileJob {
    pub(super) found: Found,
    pub(super) node: Node,
    pub(super) done: Arc<Slot>,
    /// Where whoever reads it hands in pieces.
    pub(super) pieces: Sender<Piece>,
}

/// A piece of a large file or stream.
pub(super) struct Piece {
    bytes: Vec<u8>,
    number: usize,
    of: Arc<Content>,
}

/// Where a file's node will be; `None` when it is not stored.
#[derive(Default)]
pub(super) struct Slot {
    value: Mutex<Option<Option<Node>>>,
    ready: Condvar,
}

impl Slot {
    fn set(&self, node: Option<Node>) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        self.ready.notify_all();
    }

    pub(super) fn wait(&self) -> Option<Node> {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(node) = &*value {
                return node.clone();
            }
            value = self.ready.wait(value).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The names of a file's pieces, in order, while they are stored.
struct Content {
    ids: Mutex<Vec<Option<Id>>>,
    left: AtomicUsize,
    /// What happens when the last piece is stored.
    node: Mutex<Option<Node>>,
    done: Arc<Slot>,
    /// Where its pieces are handed in.
    pieces: Sender<Piece>,
}

impl Content {
    fn new(node: Node, done: Arc<Slot>, pieces: Sender<Piece>) -> Arc<Self> {
        // One for whoever reads: it is not over before he says so.
        Arc::new(Self { ids: Mutex::default(), left: AtomicUsize::new(1), node: Mutex::new(Some(node)), done, pieces })
    }

    fn put(&self, number: usize, id: Option<Id>) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() <= number {
            ids.resize(number + 1, None);
        }
        ids[number] = id;
    }

    fn piece_done(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
        // A piece without a name failed, and the whole backup with it.
        let whole: Option<Vec<Id>> = ids.into_iter().collect();
        self.done.set(node.zip(whole).map(|(node, content)| Node { content: Some(content), ..node }));
    }

    fn set_size(&self, size: u64) {
        if let Some(node) = &mut *self.node.lock().unwrap_or_else(PoisonError::into_inner) {
            node.size = size;
        }
    }

    /// It is not stored after all.
    fn give_up(&self) {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<'a> Pool<'a> {
    /// A pool, and where files are handed in.
    pub(super) fn new(
        intake: Intake,
        cutter: Cutter,
        notes: &'a Notes,
        spool: &'a Path,
        stopped: CancellationToken,
        threads: usize,
    ) -> (Self, Inlets) {
        let (files_in, files) = bounded(FILES_AHEAD);
        let (pieces_in, pieces) = bounded(threads);
        let spare = bounded(threads);
        let pool = Self { intake, cutter, notes, spool, stopped, failure: Mutex::default(), files, pieces, spare };
        (pool, Inlets { files: files_in, pieces: pieces_in })
    }

    /// Works until there are no more files and nobody who hands out pieces.
    pub(super) fn work(&self) {
        let mut tools = match self.intake.tools() {
            Ok(tools) => Some(tools),
            Err(error) => {
                self.fail(error);
                None
            }
        };
        let mut buffer = Vec::new();
        let mut files = self.files.clone();
        loop {
            // Pieces first: they hold memory.
            if let Ok(piece) = self.pieces.try_recv() {
                self.piece(piece, tools.as_mut());
                continue;
            }
            select! {
                recv(self.pieces) -> piece => match piece {
                    Ok(piece) => self.piece(piece, tools.as_mut()),
                    Err(_) => return,
                },
                recv(files) -> job => match job {
                    Ok(job) => self.file(job, tools.as_mut(), &mut buffer),
                    // All are handed in; those who read large ones can still be helped.
                    Err(_) => files = never(),
                },
            }
        }
    }

    /// Stores a stream as the content of `node`, in this thread and with the others' help.
    pub(super) fn stream(
        &self,
        from: &mut dyn Read,
        node: Node,
        pieces: Sender<Piece>,
    ) -> anyhow::Result<Option<Node>> {
        let done = Arc::new(Slot::default());
        let mut tools = self.intake.tools()?;
        let content = Content::new(node, Arc::clone(&done), pieces);
        let size = self.content(from, None, &content, Some(&mut tools), &mut Vec::new());
        if size.is_err() {
            content.give_up();
        }
        content.piece_done();
        size?;
        Ok(done.wait())
    }

    /// Remembers the first thing that went wrong, and stops the others.
    pub(super) fn fail(&self, error: anyhow::Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stopped.cancel();
    }

    pub(super) fn failure(&self) -> Option<anyhow::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn piece(&self, piece: Piece, tools: Option<&mut Tools>) {
        let saved = self.save(&piece.bytes, tools);
        piece.of.put(piece.number, saved);
        piece.of.piece_done();
        let _ = self.spare.0.try_send(piece.bytes);
    }

    fn save(&self, bytes: &[u8], tools: Option<&mut Tools>) -> Option<Id> {
        if self.stopped.is_cancelled() {
            return None;
        }
        match self.intake.save(BlobKind::Data, bytes, tools?) {
            Ok(saved) => {
                if saved.is_new {
                    self.notes.added(bytes.len() as u64);
                }
                Some(saved.id)
            }
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    fn file(&self, job: FileJob, tools: Option<&mut Tools>, buffer: &mut Vec<u8>) {
        if self.stopped.is_cancelled() || self.notes.is_unreadable() {
            // Once something cannot be read, the rest is only looked at.
            if self.notes.is_unreadable() && !self.stopped.is_cancelled() {
                let _ = job.found.open(self.notes);
            }
            return job.done.set(None);
        }
        let (path, done) = (job.found.path.clone(), Arc::clone(&job.done));
        match self.read(job, tools, buffer) {
            Ok(true) => {}
            Ok(false) => done.set(None),
            Err(error) => {
                self.fail(error.context(format!("read {}", path.display())));
                done.set(None);
            }
        }
    }

    /// Whether the slot is taken care of.
    fn read(&self, job: FileJob, tools: Option<&mut Tools>, buffer: &mut Vec<u8>) -> anyhow::Result<bool> {
        let FileJob { found, mut node, done, pieces } = job;
        let Some((mut file, stat)) = found.open(self.notes)? else { return Ok(false) };
        node.extended_attributes = xattrs(found.xattrs_or_warn(file.xattrs(), self.notes));
        let content = Content::new(node, done, pieces);
        let size = file.size(&stat);
        if let Some(rows) = file.rows() {
            self.notes.database(&shown(&found.member), rows);
            self.whole(&mut file, size, &content, tools, buffer)?;
            return Ok(true);
        }
        if !found.as_it_is && file.is_database()? {
            match database(&found, self.spool, self.notes, &self.stopped)? {
                Some(mut copy) => {
                    let size = copy.metadata()?.len();
                    self.whole(&mut copy, size, &content, tools, buffer)?;
                    return Ok(true);
                }
                None => self.notes.warn(format!(
                    "{} looks like a SQLite database and cannot be read as one: copied as it is",
                    found.path.display()
                )),
            }
        }
        self.whole(&mut file, size, &content, tools, buffer)?;
        let after = file.stat()?;
        if (after.st_size, after.st_mtime, after.st_mtime_nsec) != (stat.st_size, stat.st_mtime, stat.st_mtime_nsec) {
            self.notes.changed(format!("{} changed while it was read", found.path.display()));
        }
        Ok(true)
    }

    fn whole(
        &self,
        file: &mut dyn Read,
        size: u64,
        content: &Arc<Content>,
        tools: Option<&mut Tools>,
        buffer: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        let read = self.content(file, Some(size), content, tools, buffer);
        if read.is_err() {
            content.give_up();
        }
        content.piece_done();
        read
    }

    /// Cuts what can be read into pieces and stores them.
    fn content(
        &self,
        from: &mut dyn Read,
        expected: Option<u64>,
        content: &Arc<Content>,
        mut tools: Option<&mut Tools>,
        buffer: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        let most = self.cutter.max();
        // A file that grows is read on; one byte of room more shows that it ended.
        let room = expected
            .map_or(2 * most, |size| usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).min(2 * most));
        let room = room.max(64 << 10);
        if buffer.len() < room {
            buffer.resize(room, 0);
        }
        let (mut begin, mut end, mut is_over) = (0, 0, false);
        let (mut size, mut number) = (0, 0);
        loop {
            while !is_over && end - begin < most {
                if end == buffer.len() {
                    if begin > 0 {
                        buffer.copy_within(begin..end, 0);
                        (begin, end) = (0, end - begin);
                    } else {
                        let larger = (2 * buffer.len()).min(2 * most);
                        buffer.resize(larger, 0);
                    }
                }
                if self.stopped.is_cancelled() {
                    return Err(cancelled_error().into());
                }
                match from.read(&mut buffer[end..]) {
                    Ok(0) => is_over = true,
                    Ok(count) => {
                        end += count;
                        self.notes.read(count as u64);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if begin == end {
                break;
            }
            let length = self.cutter.cut(&buffer[begin..end]);
            let piece = &buffer[begin..begin + length];
            begin += length;
            size += length as u64;
            content.put(number, None);
            // The last piece is not worth handing over: this thread would have nothing to do.
            let is_last = is_over && begin == end;
            if is_last || content.pieces.is_full() {
                content.put(number, self.save(piece, tools.as_deref_mut()));
            } else {
                content.left.fetch_add(1, Ordering::AcqRel);
                let mut bytes = self.spare.1.try_recv().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(piece);
                let job = Piece { bytes, number, of: Arc::clone(content) };
                if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = content.pieces.try_send(job) {
                    self.piece(job, tools.as_deref_mut());
                }
            }
            number += 1;
        }
        content.set_size(size);
        Ok(())
    }
}

/// A copy of a database that may be in use; `None` when it is none after all.
pub(super) fn database(
    found: &Found,
    spool: &Path,
    notes: &Notes,
    stopped: &CancellationToken,
) -> anyhow::Result<Option<File>> {
    match live::copy(&found.path, spool, stopped).context("copy the database")? {
        live::Copied::Whole { copy, rows } => {
            notes.database(&shown(&found.member), rows);
            Ok(Some(copy))
        }
        live::Copied::NoDatabase(why) => {
            anyhow::ensure!(!found.is_open_here, "{why}");
            Ok(None)
        }
    }
}

pub(super) fn xattrs(read: Xattrs) -> Vec<ExtendedAttribute> {
    read.into_iter().map(|(name, value)| ExtendedAttribute::new(&name, value)).collect()
}

/// A node with all facts that a look at it tells.
pub(super) fn node_of(name: &[u8], kind: NodeKind, stat: &rustix::fs::Stat, owners: &attributes::Owners) -> Node {
    use super::super::node::Moment;
    let moment =
        |seconds: i64, nanoseconds: i64| Moment { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) };
    // Its type differs by the kind of machine.
    let links = u64::try_from(i128::from(stat.st_nlink)).unwrap_or(1);
    let mut node = Node::new(name.to_vec(), kind);
    node.set_mode(stat.st_mode);
    node.mtime = moment(stat.st_mtime, stat.st_mtime_nsec as i64);
    node.atime = node.mtime;
    node.ctime = moment(stat.st_ctime, stat.st_ctime_nsec as i64);
    (node.uid, node.gid) = (stat.st_uid, stat.st_gid);
    node.user = owners.user(stat.st_uid).unwrap_or_default().to_owned();
    node.group = owners.group(stat.st_gid).unwrap_or_default().to_owned();
    (node.inode, node.device_id) = (stat.st_ino, stat.st_dev);
    match kind {
        NodeKind::Dir => {}
        NodeKind::Dev | NodeKind::CharDev => {
            node.device = stat.st_rdev;
            node.links = links;
        }
        _ => node.links = links,
    }
    if kind == NodeKind::File {
        node.size = u64::try_from(stat.st_size).unwrap_or(0);
    }
    node
}
