//! The helper's side.
use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
};

use anyhow::{Context as _, bail};
use rustix::fs::Stat;
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Ask, BYTES_HEAD, Entry, Facts, Head, Item, Order, PIECE, VERSION, bytes_head, heard, path_of, say,
};
use crate::tree::{
    Came, Content, Excludes, Found, Notes, Tree, Visitor, attributes::Xattrs, cancelled_error, live, settle, walk,
};

/// A batch has no more than so many things in it, or so many bytes.
const MANY: usize = 512;
const MUCH: usize = 256 << 10;

/// Answers what is asked until nobody asks any more. `spool`: a folder for copies of databases.
///
/// # Errors
/// When what is asked makes no sense, or nobody hears the answers.
pub fn serve(mut from: impl Read, to: impl Write + Send + 'static, spool: &Path) -> anyhow::Result<()> {
    let helper = Arc::new(Helper {
        to: Mutex::new(Box::new(to)),
        files: Mutex::default(),
        spool: spool.to_owned(),
        cancelled: CancellationToken::new(),
    });
    helper.say(&Answer::Hello { version: VERSION })?;
    let (wanted, contents) = channel();
    let sending = Arc::clone(&helper);
    std::thread::spawn(move || sending.send_contents(&contents));
    let mut walking: Option<Sender<()>> = None;
    while let Some(ask) = heard(&mut from).context("hear what is wanted")? {
        match ask {
            Ask::Walk(order) => {
                let (more, asked) = channel();
                walking = Some(more);
                let walker = Arc::clone(&helper);
                std::thread::spawn(move || walker.walk(order, asked));
            }
            Ask::More => {
                let Some(walking) = &walking else { bail!("there is no tree of which more could be told") };
                // One that has ended has said so.
                let _ = walking.send(());
            }
            Ask::Content(number) => {
                let Some(kept) = helper.files().remove(&number) else { bail!("there is no file {number}") };
                let _ = wanted.send((number, kept));
            }
            Ask::Settle(places) => {
                let places: Vec<PathBuf> = places.iter().map(|place| path_of(place)).collect();
                helper.say(&Answer::Settled(settle(places.iter().map(PathBuf::as_path))))?;
            }
        }
    }
    helper.cancelled.cancel();
    Ok(())
}

struct Helper {
    to: Mutex<Box<dyn Write + Send>>,
    /// Files that were told of in the last batch.
    files: Mutex<HashMap<u64, Kept>>,
    spool: PathBuf,
    cancelled: CancellationToken,
}

/// A file, and a copy of it if it is a database that is in use.
struct Kept {
    found: Found,
    copy: Option<Copy>,
}

struct Copy {
    file: File,
    stat: Stat,
    xattrs: Xattrs,
    rows: std::collections::BTreeMap<String, u64>,
}

impl Helper {
    fn say(&self, said: &Answer) -> anyhow::Result<()> {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        say(&mut *to, said).context("answer")
    }

    fn files(&self) -> MutexGuard<'_, HashMap<u64, Kept>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn walk(&self, order: Order, asked: Receiver<()>) {
        let notes = Notes::to_be_handed_on();
        let mut teller =
            Teller { helper: self, notes: &notes, asked, items: Vec::new(), bytes: 0, number: 0, is_awaited: false };
        let walked = teller.begin().and_then(|()| {
            let tree = tree(order)?;
            walk(&tree, &mut teller, &notes, &self.cancelled)
        });
        if self.cancelled.is_cancelled() || !teller.is_awaited {
            return;
        }
        teller.take_notes();
        let end = walked.map_err(|error| format!("{error:#}"));
        // When nobody hears it, nobody wants it.
        let _ = self.say(&Answer::Batch { items: std::mem::take(&mut teller.items), end: Some(end) });
    }

    fn send_contents(&self, wanted: &Receiver<(u64, Kept)>) {
        for (number, kept) in wanted {
            if self.cancelled.is_cancelled() || self.send(number, kept).is_err() {
                return;
            }
        }
    }

    /// Sends one file. Its own errors are told; others mean that nobody hears us.
    fn send(&self, entry: u64, kept: Kept) -> anyhow::Result<()> {
        let notes = Notes::to_be_handed_on();
        let opened = match kept.copy {
            Some(Copy { file, stat, xattrs, rows }) => {
                let size = file.metadata().map(|found| found.len());
                size.map(|size| {
                    let head = Head { facts: Facts::of(&stat), xattrs, size, pieces: None, rows: Some(rows) };
                    Some((head, Content::Here(file)))
                })
                .map_err(Into::into)
            }
            None => self.open(&kept.found, &notes),
        };
        let (head, mut content) = match opened {
            Ok(Some((head, content))) => (head, content),
            Ok(None) => return self.say(&Answer::Head { entry, head: None, notes: notes.handed_on() }),
            Err(error) => return self.say(&Answer::End { entry, how: Err(format!("{error:#}")) }),
        };
        let pieces = head.pieces.clone();
        self.say(&Answer::Head { entry, head: Some(head), notes: notes.handed_on() })?;
        let how = match self.send_bytes(entry, &mut content, pieces)? {
            Ok(()) => content.stat().map(|stat| Facts::of(&stat)),
            Err(error) => Err(error),
        };
        self.say(&Answer::End { entry, how: how.map_err(|error| error.to_string()) })
    }

    fn open(&self, found: &Found, notes: &Notes) -> anyhow::Result<Option<(Head, Content)>> {
        let Some((mut content, stat)) = found.open(notes)? else { return Ok(None) };
        let xattrs = found.xattrs_or_warn(content.xattrs(), notes);
        let (facts, mut size, mut rows) = (Facts::of(&stat), u64::try_from(stat.st_size).unwrap_or(0), None);
        if !found.as_it_is && content.is_database()? {
            match live::copy(&found.path, &self.spool, &self.cancelled).context("copy the database")? {
                live::Copied::Whole { copy, rows: counted } => {
                    (size, rows) = (copy.metadata()?.len(), Some(counted));
                    content = Content::Here(copy);
                }
                live::Copied::NoDatabase(why) => notes.warn(format!(
                    "{} looks like a SQLite database and cannot be read as one ({why}): copied as it is",
                    found.path.display()
                )),
            }
        }
        let pieces = content.pieces(size)?;
        Ok(Some((Head { facts, xattrs, size, pieces, rows }, content)))
    }

    /// The outer error means that nobody hears us, the inner that the file cannot be read.
    fn send_bytes(
        &self,
        entry: u64,
        content: &mut Content,
        pieces: Option<Vec<(u64, u64)>>,
    ) -> anyhow::Result<std::io::Result<()>> {
        let mut room = vec![0; BYTES_HEAD + PIECE];
        for (offset, mut left) in pieces.unwrap_or(vec![(0, u64::MAX)]) {
            if let Err(error) = content.skip_to(offset) {
                return Ok(Err(error));
            }
            while left > 0 {
                if self.cancelled.is_cancelled() {
                    return Err(cancelled_error().into());
                }
                let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                let count = match content.read(&mut room[BYTES_HEAD..BYTES_HEAD + most]) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Ok(Err(error)),
                    Ok(count) => count,
                };
                if count == 0 {
                    break;
                }
                left -= count as u64;
                let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
                room[..BYTES_HEAD].copy_from_slice(&bytes_head(entry, count)?);
                to.write_all(&room[..BYTES_HEAD + count])?;
            }
        }
        Ok(Ok(()))
    }
}

fn tree(order: Order) -> anyhow::Result<Tree> {
    let excludes =
        Excludes::new(&order.excludes).map_err(|(number, why)| anyhow::anyhow!("pattern {number}: {why}"))?;
    let roots = order.roots.iter().map(|(member, path)| (path_of(member), path_of(path))).collect();
    let tree = Tree::new(path_of(&order.base).into_os_string(), roots, None).without(excludes);
    Ok(tree.on_one_file_system(order.one_file_system).even_if_empty(order.allow_empty).as_it_is(order.as_it_is))
}

/// Tells what a walk finds, as much as is asked for.
struct Teller<'a> {
    helper: &'a Helper,
    notes: &'a Notes,
    asked: Receiver<()>,
    items: Vec<Item>,
    bytes: usize,
    number: u64,
    /// A batch was asked for and is not told yet.
    is_awaited: bool,
}

impl Teller<'_> {
    /// Waits until more is wanted. What was told before is done with then.
    fn begin(&mut self) -> anyhow::Result<()> {
        self.asked.recv().map_err(|_| cancelled_error())?;
        self.is_awaited = true;
        self.helper.files().clear();
        Ok(())
    }

    fn take_notes(&mut self) {
        self.items.extend(self.notes.handed_on().into_iter().map(Item::Note));
    }

    fn tell(&mut self, item: Item) -> anyhow::Result<()> {
        self.take_notes();
        self.bytes += match &item {
            Item::Folder(entry) | Item::File { entry, .. } | Item::Special(entry) | Item::Link { entry, .. } => {
                let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
                entry.member.len() + entry.path.len() + xattrs + 100
            }
            _ => 1,
        };
        self.items.push(item);
        if self.items.len() < MANY && self.bytes < MUCH {
            return Ok(());
        }
        let items = std::mem::take(&mut self.items);
        self.bytes = 0;
        self.helper.say(&Answer::Batch { items, end: None })?;
        self.is_awaited = false;
        self.begin()
    }

    fn entry(&mut self, found: &Found, target: Option<Vec<u8>>, xattrs: Xattrs) -> Entry {
        self.number += 1;
        Entry {
            number: self.number,
            name: found.name.as_bytes().to_vec(),
            member: found.member.clone(),
            path: found.path.as_os_str().as_bytes().to_vec(),
            facts: Facts::of(&found.stat),
            target,
            xattrs,
        }
    }

    fn keep(&self, number: u64, found: &Found, copy: Option<Copy>) {
        self.helper.files().insert(number, Kept { found: found.clone(), copy });
    }

    /// A symlink or the like, with all that is to be said of it; none when it is gone.
    fn whole(&mut self, found: &Found) -> Option<Entry> {
        use rustix::fs::FileType;
        let target = match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::Symlink => Some(found.target(self.notes)?),
            _ => None,
        };
        let xattrs = found.xattrs_or_warn(found.xattrs(), self.notes);
        Some(self.entry(found, target, xattrs))
    }

    /// A copy of a database that is in use: only when it was made are the files beside it of no more use. None at all when it is gone.
    fn copied(&self, found: &Found) -> anyhow::Result<Option<Option<Copy>>> {
        let Some((mut content, stat)) = found.open(self.notes)? else { return Ok(None) };
        if !content.is_database()? {
            return Ok(Some(None));
        }
        let xattrs = found.xattrs_or_warn(content.xattrs(), self.notes);
        let copied = live::copy(&found.path, &self.helper.spool, &self.helper.cancelled);
        match copied.with_context(|| format!("copy the database {}", found.path.display()))? {
            live::Copied::Whole { copy, rows } => Ok(Some(Some(Copy { file: copy, stat, xattrs, rows }))),
            live::Copied::NoDatabase(_) => Ok(Some(None)),
        }
    }
}

impl Visitor for Teller<'_> {
    fn root(&mut self, member: &Path) -> anyhow::Result<()> {
        self.tell(Item::Root(member.as_os_str().as_bytes().to_vec()))
    }

    fn folder(&mut self, found: &Found, xattrs: Xattrs) -> anyhow::Result<()> {
        let entry = self.entry(found, None, xattrs);
        self.tell(Item::Folder(entry))
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        self.tell(Item::Leave)
    }

    fn file(&mut self, found: &Found) -> anyhow::Result<Came> {
        let looked = if found.has_companions { self.copied(found)? } else { Some(None) };
        let Some(copy) = looked else { return Ok(Came::Out) };
        let came = if copy.is_some() { Came::Database } else { Came::In };
        let entry = self.entry(found, None, Vec::new());
        self.keep(entry.number, found, copy);
        self.tell(Item::File { entry, has_companions: found.has_companions })?;
        Ok(came)
    }

    fn special(&mut self, found: &Found) -> anyhow::Result<bool> {
        let Some(entry) = self.whole(found) else { return Ok(false) };
        self.tell(Item::Special(entry))?;
        Ok(true)
    }

    fn link(&mut self, found: &Found, first: &[u8]) -> anyhow::Result<()> {
        use rustix::fs::FileType;
        let first = first.to_vec();
        if FileType::from_raw_mode(found.stat.st_mode) == FileType::RegularFile {
            let entry = self.entry(found, None, Vec::new());
            self.keep(entry.number, found, None);
            return self.tell(Item::Link { entry, first });
        }
        match self.whole(found) {
            Some(entry) => self.tell(Item::Link { entry, first }),
            None => Ok(()),
        }
    }
}
