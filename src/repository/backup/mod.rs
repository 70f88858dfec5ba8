//! Making a backup: sources are read, stored and joined under one tree, and the snapshot that names it is put last.
mod ahead;
mod assemble;
mod gather;
mod pool;

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, FixedOffset, SubsecRound as _, Utc};
use crossbeam_channel::Receiver;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use self::ahead::Ahead;
use self::{
    ahead::Unconcerned,
    assemble::{Folders, assemble, join},
    gather::{Before, Event, Gathering, Taken},
    pool::{Inlets, Pool, node_of},
};
use super::{
    Id, Index, Repository,
    lock::Lock,
    node::{Node, NodeKind},
    objects::Class,
    open::Early,
    saver::{Intake, Saver, Stored},
    snapshot::{Facts, Snapshot, SourceFacts, Summary},
};
use crate::{
    clock::Clock,
    model::{JobName, RunId},
    tree::{Listener, Notes, Tree, TreeReport, attributes::Owners, walk},
};

/// Who wants a backup, and what it is called.
#[derive(Clone)]
pub struct Setting {
    /// Whose backup.
    pub job: JobName,
    /// The run that makes it.
    pub run: Option<RunId>,
    /// The host's name.
    pub host: String,
    /// Words by which people find it, besides the job's.
    pub tags: Vec<String>,
    /// A folder for temporary copies of databases; the caller removes it.
    pub spool: PathBuf,
    /// Who hears of it.
    pub listener: Arc<dyn Listener>,
    /// Asked to stop.
    pub cancelled: CancellationToken,
    /// Another's lock is waited for at most so long.
    pub patience: Duration,
}

/// Facts of a source that is a single stream.
#[derive(Clone, Debug, Default)]
pub struct Single {
    /// What it is: `sqlite`, `stream`.
    pub kind: String,
    /// Where it was read, if it is a file: its owner, rights and times are kept.
    pub path: Option<PathBuf>,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
}

/// A stream that is stored and has no place in the backup yet.
#[derive(Clone, Debug)]
pub struct Piece(Node);

/// A backup being made. End it with [`Backup::finish`] or [`Backup::abandon`].
pub struct Backup {
    repository: Repository,
    setting: Setting,
    index: Arc<Index>,
    lock: Lock,
    saver: Saver,
    stopped: CancellationToken,
    begun: DateTime<Utc>,
    parent: Option<(Id, Snapshot)>,
    owners: Arc<Owners>,
    nodes: Vec<(PathBuf, Node)>,
    facts: Vec<SourceFacts>,
    warnings: Vec<String>,
    excludes: Vec<String>,
    taken: Taken,
    folders: Folders,
    partial: bool,
}

impl Backup {
    /// Begins a backup: takes a lock and reads the index. Nothing is stored yet.
    ///
    /// # Errors
    /// When another holds the repository, or it cannot be read.
    pub async fn begin(repository: Repository, setting: Setting, clock: &Clock) -> anyhow::Result<Self> {
        let taking = Lock::take(&repository, false, &setting.host, setting.patience, clock);
        let (lock, early) = tokio::try_join!(taking, async { Ok(repository.early().await) })?;
        match Self::begin_locked(&repository, &setting, &lock, early, clock).await {
            Ok((index, parent)) => {
                let index = Arc::new(index);
                let stopped = setting.cancelled.child_token();
                let saver = Saver::start(&repository, Arc::clone(&index), stopped.clone());
                Ok(Self {
                    repository,
                    setting,
                    index,
                    lock,
                    saver,
                    stopped,
                    begun: clock.now(),
                    parent,
                    owners: Arc::new(Owners::of_this_host()),
                    nodes: Vec::new(),
                    facts: Vec::new(),
                    warnings: Vec::new(),
                    excludes: Vec::new(),
                    taken: Taken::default(),
                    folders: Folders::default(),
                    partial: false,
                })
            }
            Err(error) => {
                lock.release().await?;
                Err(error)
            }
        }
    }

    async fn begin_locked(
        repository: &Repository,
        setting: &Setting,
        lock: &Lock,
        Early { index, snapshots }: Early,
        clock: &Clock,
    ) -> anyhow::Result<(Index, Option<(Id, Snapshot)>)> {
        let reading = async { repository.index_from(index).await?.settle().await };
        let (mut index, (snapshots, damaged)) = tokio::try_join!(reading, repository.snapshots_from(snapshots))?;
        for gone in lock.removed() {
            let at = gone.time.format("%Y-%m-%d %H:%M UTC");
            setting.listener.info(&format!(
                "removed the lock of process {} on {}, which is gone since {at}",
                gone.pid, gone.hostname
            ));
        }
        if lock.others_died() {
            let adopted = repository.adopt(&index).await?;
            if !adopted.is_empty() {
                let packs = adopted.len();
                setting.listener.info(&format!("{packs} packs that an interrupted backup had stored are used again"));
                index.add_all(&adopted);
                super::saver::write_index(repository, adopted).await?;
                index.settle();
            }
        }
        for damaged in damaged {
            setting.listener.warn(&damaged.to_string());
        }
        let now = clock.now();
        let parent = snapshots.into_iter().rev().find(|(_, snapshot)| {
            // One from the future tells that the clock is, or was, wrong: what is unchanged cannot be known by it.
            snapshot.job().as_ref() == Some(&setting.job) && snapshot.hostname == setting.host && snapshot.time <= now
        });
        Ok((index, parent))
    }

    /// Reads and stores the files of a tree that others still write to, and waits until what was stored has arrived. Nothing of it is in
    /// the backup yet: [`Backup::tree_after`] takes from it what has not changed since.
    ///
    /// # Errors
    /// When something cannot be read or stored. That something changes is no error. Call [`Backup::abandon`] then.
    pub async fn look_ahead(&mut self, name: &str, tree: Tree, clock: &Clock) -> anyhow::Result<Ahead> {
        let place = self.place_of(name, &tree)?;
        let begun = clock.now().timestamp();
        let stopped = self.stopped.child_token();
        let work = TreeWork { stopped, ..self.work(name, &tree, &place, Ahead::default()).await };
        let looking = tokio::task::spawn_blocking(move || work.look(&tree, begun));
        let looked = looking.await.context("the thread that reads died")?;
        ensure!(!self.setting.cancelled.is_cancelled(), "cancelled");
        if self.stopped.is_cancelled() {
            return Err(self.saver.reason(anyhow::anyhow!("cancelled")));
        }
        self.saver.settle().await;
        looked
    }

    /// Stores files and folders.
    ///
    /// # Errors
    /// When something cannot be read or stored. Call [`Backup::abandon`] then.
    pub async fn tree(&mut self, name: &str, tree: Tree) -> anyhow::Result<TreeReport> {
        self.tree_after(name, tree, Ahead::default()).await
    }

    /// The same after a first look.
    ///
    /// # Errors
    /// When something cannot be read or stored. Call [`Backup::abandon`] then.
    pub async fn tree_after(&mut self, name: &str, tree: Tree, ahead: Ahead) -> anyhow::Result<TreeReport> {
        let place = self.place_of(name, &tree)?;
        // What was gathered has no place of its own to go back to.
        let kind = if tree.origin().is_some() { "path" } else { "gathered" };
        let work = self.work(name, &tree, &place, ahead).await;
        let done = tokio::task::spawn_blocking(move || work.run(&tree)).await.context("the thread that reads died")?;
        let Walked { tops, report, taken, folders } = done.map_err(|error| self.saver.reason(error))?;
        ensure!(!tops.is_empty(), "it vanished while it was read");
        for (member, node) in tops {
            self.nodes.push((place.join(member), node));
        }
        self.warnings.extend(report.warnings.iter().map(|warning| format!("{name}: {warning}")));
        self.facts.push(SourceFacts {
            name: name.to_owned(),
            kind: kind.into(),
            path: place.to_string_lossy().into_owned(),
            entries: report.entries,
            bytes: folders.bytes,
            rows: report.rows.clone(),
        });
        self.taken.files_new += taken.files_new;
        self.taken.files_changed += taken.files_changed;
        self.taken.files_unmodified += taken.files_unmodified;
        self.folders.new_or_changed += folders.new_or_changed;
        self.folders.unmodified += folders.unmodified;
        self.folders.files += folders.files;
        self.folders.bytes += folders.bytes;
        Ok(report)
    }

    /// Stores one stream of unknown length as a file.
    ///
    /// # Errors
    /// When it cannot be read to its end or stored. Call [`Backup::abandon`] then.
    pub async fn stream(&mut self, name: &str, single: Single, from: impl Read + Send + 'static) -> anyhow::Result<()> {
        let Single { kind, path, rows } = single;
        let place = match &path {
            Some(path) => std::path::absolute(path)?,
            None => Path::new("/").join(name),
        };
        let place = self.place(&place, name);
        let node = match &path {
            Some(path) => {
                let stat = rustix::fs::stat(path).with_context(|| format!("look at {}", path.display()))?;
                node_of(b"", NodeKind::File, &stat, &self.owners)
            }
            None => self.node_of_now(),
        };
        let node = self.store(node, from).await?;
        let bytes = node.size;
        self.nodes.push((place.clone(), node));
        self.count(bytes);
        let path = place.to_string_lossy().into_owned();
        self.facts.push(SourceFacts { name: name.to_owned(), kind, path, entries: 1, bytes, rows });
        Ok(())
    }

    /// Stores one stream of unknown length, to be put in its place by [`Backup::several`].
    ///
    /// # Errors
    /// When it cannot be read to its end or stored. Call [`Backup::abandon`] then.
    pub async fn piece(&mut self, from: impl Read + Send + 'static) -> anyhow::Result<Piece> {
        Ok(Piece(self.store(self.node_of_now(), from).await?))
    }

    /// A source of several files, each with its place below it. The same piece may be in several places.
    pub fn several(&mut self, name: &str, kind: &str, files: Vec<(PathBuf, Piece)>) {
        let place = self.place(&Path::new("/").join(name), name);
        let (entries, mut bytes) = (files.len() as u64, 0);
        for (path, Piece(node)) in files {
            bytes += node.size;
            self.count(node.size);
            self.nodes.push((place.join(path), node));
        }
        let path = place.to_string_lossy().into_owned();
        let (name, kind) = (name.to_owned(), kind.to_owned());
        self.facts.push(SourceFacts { name, kind, path, entries, bytes, rows: BTreeMap::new() });
    }

    /// Not everything that should be in it is.
    pub fn is_partial(&mut self) {
        self.partial = true;
    }

    fn count(&mut self, bytes: u64) {
        self.folders.files += 1;
        self.folders.bytes += bytes;
        self.taken.files_changed += 1;
    }

    async fn store(&self, node: Node, mut from: impl Read + Send + 'static) -> anyhow::Result<Node> {
        let (intake, stopped, setting) = (self.saver.intake(), self.stopped.clone(), self.setting.clone());
        let cutter = self.repository.cutter().clone();
        let threads = self.repository.options().threads;
        let storing = tokio::task::spawn_blocking(move || {
            let notes = Notes::new(setting.listener);
            let (pool, inlets) = Pool::new(intake, cutter, &notes, &setting.spool, stopped, threads);
            std::thread::scope(|scope| {
                for _ in 1..threads {
                    scope.spawn(|| pool.work());
                }
                let Inlets { files, pieces } = inlets;
                drop(files);
                let streamed = pool.stream(&mut from, node, pieces);
                // Those pieces that nobody took.
                pool.work();
                streamed
            })
            .map_err(|error| pool.failure().unwrap_or(error))
            .and_then(|node| {
                node.with_context(|| pool.failure().map_or("cancelled".into(), |error| format!("{error:#}")))
            })
        });
        let stored = storing.await.context("the thread that reads died")?;
        stored.map_err(|error| self.saver.reason(error))
    }

    /// Patterns that were left out, for the record.
    pub fn note_excludes(&mut self, patterns: &[String]) {
        self.excludes.extend_from_slice(patterns);
    }

    /// Waits until all is stored, read back and indexed, and puts the snapshot: from here on there is a backup.
    ///
    /// # Errors
    /// When something could not be stored. There is no backup then.
    pub async fn finish(mut self, clock: &Clock) -> anyhow::Result<(Id, Snapshot)> {
        if self.facts.is_empty() {
            self.abandon().await;
            bail!("there is nothing in this backup");
        }
        let nodes = std::mem::take(&mut self.nodes);
        let (intake, owners) = (self.saver.intake(), Arc::clone(&self.owners));
        let joining = tokio::task::spawn_blocking(move || {
            let look = |path: &Path| {
                let stat = rustix::fs::lstat(path).ok()?;
                let is_folder = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
                is_folder.then(|| node_of(b"", NodeKind::Dir, &stat, &owners))
            };
            join(nodes, &look, &intake)
        });
        let joined = joining.await.context("a thread died").and_then(|joined| joined);
        let tree = match joined {
            Ok(tree) => tree,
            Err(error) => {
                let error = self.saver.reason(error);
                self.abandon().await;
                return Err(error);
            }
        };
        let Self {
            repository,
            setting,
            lock,
            saver,
            begun,
            parent,
            facts,
            warnings,
            excludes,
            taken,
            folders,
            partial,
            ..
        } = self;
        let stored = match saver.finish().await {
            Ok(stored) => stored,
            Err(error) => {
                lock.release().await?;
                return Err(error);
            }
        };
        let sealed = Snapshot {
            time: whole_seconds(begun),
            parent: parent.map(|(id, _)| id),
            tree,
            paths: facts.iter().map(|source| source.path.clone()).collect(),
            hostname: setting.host.clone(),
            username: owner_name(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            excludes,
            tags: Some(std::iter::once(format!("job={}", setting.job)).chain(setting.tags.iter().cloned()).collect()),
            original: None,
            program_version: concat!("rusuban ", env!("CARGO_PKG_VERSION")).into(),
            summary: Some(summary(begun, clock.now(), taken, folders, stored)),
            rusuban: Some(Facts { job: setting.job.clone(), run: setting.run, sources: facts, warnings, partial }),
            other: BTreeMap::new(),
        };
        let put = async {
            // Asked to stop until here: no backup. From here on it is quicker to end it well.
            ensure!(!setting.cancelled.is_cancelled(), "cancelled");
            repository.objects().save(Class::Snapshot, serde_json::to_vec(&sealed)?).await
        };
        let put = put.await;
        let proving = async {
            match &put {
                Ok(id) => repository.prove_snapshot(id, &sealed).await,
                Err(_) => Ok(()),
            }
        };
        let (released, proven) = tokio::join!(lock.release(), proving);
        released.and(proven)?;
        Ok((put?, sealed))
    }

    /// Ends early. What has arrived stays, of no backup, so that it is not sent again; `prune` removes it otherwise.
    pub async fn abandon(self) {
        self.stopped.cancel();
        self.saver.abandon().await;
        // On a dead line it stays, and is that of a process that is gone.
        match tokio::time::timeout(super::saver::LAST_PATIENCE, self.lock.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.setting.listener.warn(&format!("{error:#}")),
            Err(_) => self.setting.listener.warn("the lock stays behind, for the bucket does not answer"),
        }
    }

    /// What was stored so far.
    #[must_use]
    pub fn so_far(&self) -> Stored {
        self.saver.so_far()
    }

    /// Where a tree is in the backup.
    fn place_of(&self, name: &str, tree: &Tree) -> anyhow::Result<PathBuf> {
        let place = match tree.origin() {
            // What is elsewhere has no symlinks here.
            Some(path) if !tree.is_here() => path.to_owned(),
            Some(path) => path.canonicalize().with_context(|| format!("read {}", path.display()))?,
            None => Path::new("/").join(tree.base()),
        };
        Ok(self.place(&place, name))
    }

    async fn work(&self, name: &str, tree: &Tree, place: &Path, ahead: Ahead) -> TreeWork {
        TreeWork {
            repository: self.repository.clone(),
            index: Arc::clone(&self.index),
            intake: self.saver.intake(),
            owners: if tree.is_here() { Arc::clone(&self.owners) } else { Arc::new(tree.owners()) },
            setting: self.setting.clone(),
            stopped: self.stopped.clone(),
            begun_before: self.parent.as_ref().map(|(_, parent)| parent.time.timestamp()),
            source: self.known(place).await,
            ahead,
            expected: self.bytes_before(name),
            runtime: Handle::current(),
        }
    }

    /// Where a source is in the backup: where it is on the disk, unless another source has that place.
    fn place(&self, wanted: &Path, name: &str) -> PathBuf {
        let collides = |other: &SourceFacts| {
            let other = Path::new(&other.path);
            other.starts_with(wanted) || wanted.starts_with(other)
        };
        if wanted == Path::new("/") || self.facts.iter().any(collides) {
            return Path::new("/rusuban").join(name);
        }
        wanted.to_owned()
    }

    /// Bytes that this source had the last time.
    fn bytes_before(&self, name: &str) -> u64 {
        let facts = self.parent.iter().filter_map(|(_, parent)| parent.rusuban.as_ref());
        facts.flat_map(|facts| &facts.sources).find(|source| source.name == name).map_or(0, |source| source.bytes)
    }

    /// What the backup before has at this place.
    async fn known(&self, place: &Path) -> Option<Node> {
        let (_, parent) = self.parent.as_ref()?;
        match self.repository.at(&self.index, parent, place).await {
            Ok(node) => node,
            Err(error) => {
                let why = format!("{error:#}");
                self.setting.listener.warn(&format!("the backup before cannot be read, so all is read anew: {why}"));
                None
            }
        }
    }

    fn node_of_now(&self) -> Node {
        let mut node = Node::new(Vec::new(), NodeKind::File);
        node.set_mode(0o600);
        (node.uid, node.gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let now = super::node::Moment { seconds: self.begun.timestamp(), nanoseconds: 0 };
        (node.mtime, node.atime, node.ctime, node.links) = (now, now, now, 1);
        node
    }
}

/// What a thread needs to read a tree.
struct TreeWork {
    repository: Repository,
    index: Arc<Index>,
    intake: Intake,
    owners: Arc<Owners>,
    setting: Setting,
    stopped: CancellationToken,
    begun_before: Option<i64>,
    source: Option<Node>,
    ahead: Ahead,
    expected: u64,
    runtime: Handle,
}

struct Walked {
    tops: Vec<(PathBuf, Node)>,
    report: TreeReport,
    taken: Taken,
    folders: Folders,
}

impl TreeWork {
    fn run(self, tree: &Tree) -> anyhow::Result<Walked> {
        let notes = Notes::new(Arc::clone(&self.setting.listener)).expecting(self.expected);
        let made = Mutex::new(None);
        let gather = |events: &Receiver<Event>| {
            let assembled = assemble(events, &self.intake, &notes)?;
            *made.lock().unwrap_or_else(PoisonError::into_inner) = Some(assembled);
            Ok(())
        };
        let taken = self.read(tree, &notes, gather)?;
        notes.judge(true)?;
        ensure!(!self.stopped.is_cancelled(), "cancelled");
        let Some((tops, folders)) = made.into_inner().unwrap_or_else(PoisonError::into_inner) else {
            bail!("the thread that makes trees died")
        };
        Ok(Walked { tops, report: notes.report(), taken, folders })
    }

    fn look(self, tree: &Tree, begun: i64) -> anyhow::Result<Ahead> {
        let is_settled = tree.settle();
        let listener = Arc::new(Unconcerned(Arc::clone(&self.setting.listener)));
        let notes = Notes::new(listener).expecting(self.expected);
        let files = Mutex::new(HashMap::new());
        let gather = |events: &Receiver<Event>| {
            Ahead::gather(events, &files);
            Ok(())
        };
        let read = self.read(tree, &notes, gather);
        // What cannot be read now cannot be read later either. Anything else shows, if it lasts, at the second look.
        notes.judge(true)?;
        if let Err(error) = read {
            tracing::debug!(error = format!("{error:#}"), "a first look was cut short");
        }
        let files = files.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Ahead { files: if is_settled { files } else { HashMap::new() }, begun })
    }

    /// Reads all of a tree; `gather` takes what is found.
    fn read(
        &self,
        tree: &Tree,
        notes: &Notes,
        gather: impl FnOnce(&Receiver<Event>) -> anyhow::Result<()> + Send,
    ) -> anyhow::Result<Taken> {
        let threads = self.repository.options().threads;
        let cutter = self.repository.cutter().clone();
        let (pool, inlets) =
            Pool::new(self.intake.clone(), cutter, notes, &self.setting.spool, self.stopped.clone(), threads);
        let (events_in, events) = crossbeam_channel::bounded(4096);
        let before = self.begun_before.map(|begun| Before {
            repository: &self.repository,
            index: &self.index,
            runtime: self.runtime.clone(),
            begun,
        });
        let (walked, failed_first, taken) = std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| pool.work());
            }
            scope.spawn(|| {
                if let Err(error) = gather(&events) {
                    pool.fail(error);
                }
                // Those who still tell must not wait for ever.
                while events.recv().is_ok() {}
            });
            let mut gathering = Gathering {
                pool: &pool,
                inlets,
                events: events_in,
                owners: &self.owners,
                before,
                trees: Vec::new(),
                source: self.source.clone(),
                root: None,
                ahead: &self.ahead,
                links: HashMap::new(),
                taken: Taken::default(),
            };
            let walked = walk(tree, &mut gathering, notes, &self.stopped);
            // Whoever is stopped says no more than that: the reason is with whoever failed first.
            let failed_first = walked.is_err() && !self.stopped.is_cancelled();
            if walked.is_err() {
                self.stopped.cancel();
            }
            // The channels end here, and the threads with them.
            (walked, failed_first, gathering.taken)
        });
        if let (false, Some(error)) = (failed_first, pool.failure()) {
            return Err(error);
        }
        walked?;
        Ok(taken)
    }
}

fn summary(begun: DateTime<Utc>, ended: DateTime<Utc>, taken: Taken, folders: Folders, stored: Stored) -> Summary {
    Summary {
        backup_start: whole_seconds(begun),
        backup_end: whole_seconds(ended),
        files_new: taken.files_new,
        files_changed: taken.files_changed,
        files_unmodified: taken.files_unmodified,
        dirs_new: 0,
        dirs_changed: folders.new_or_changed,
        dirs_unmodified: folders.unmodified,
        data_blobs: stored.data_blobs,
        tree_blobs: stored.tree_blobs,
        data_added: stored.added,
        data_added_packed: stored.packed,
        total_files_processed: folders.files,
        total_bytes_processed: folders.bytes,
    }
}

fn whole_seconds(time: DateTime<Utc>) -> DateTime<FixedOffset> {
    time.trunc_subsecs(6).fixed_offset()
}

fn owner_name() -> String {
    let owners = Owners::of_this_host();
    owners.user(rustix::process::getuid().as_raw()).unwrap_or("rusuban").to_owned()
}
