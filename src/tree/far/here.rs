//! Our side: a walk that is told to us, and files that are read as if they were here.
use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, anyhow, bail};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream as Pieces, StreamExt as _};
use rustix::fs::{FileType, Stat};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Answer, Ask, BYTES, Entry, Facts, Head, Item, LONGEST, Order, VERSION, WORDS, path_of, understood, words};
use crate::tree::{Came, Found, Notes, Tree, Visitor, attributes::Xattrs, cancelled_error, notes::Note, walk::At};

/// Pieces of one file that are held until somebody reads them.
const AHEAD: usize = 2;

/// A helper that has said hello.
#[derive(Clone)]
pub struct Far(Arc<Session>);

struct Session {
    asks: mpsc::UnboundedSender<Ask>,
    /// What it says of trees.
    answers: Mutex<mpsc::Receiver<Answer>>,
    shared: Arc<Shared>,
    /// Where the helper has what lies at a place that people know, the longest first.
    places: Vec<(PathBuf, PathBuf)>,
    /// Any answer of the system, to be filled in.
    form: Stat,
    _tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Shared {
    /// Who waits for the content of which file.
    readers: Mutex<HashMap<u64, mpsc::Sender<Part>>>,
    /// Why nothing more comes.
    failure: Mutex<Option<String>>,
}

/// A part of what is sent of one file.
enum Part {
    Head(Option<Box<Head>>, Vec<Note>),
    Bytes(Bytes),
    End(Result<Facts, String>),
}

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Far({:?})", self.0.places)
    }
}

impl Far {
    /// Meets a helper. `places`: what people know a place as, and where the helper has it.
    ///
    /// # Errors
    /// When it does not say hello in our language.
    pub async fn meet(
        pieces: impl Pieces<Item = anyhow::Result<Bytes>> + Send + Unpin + 'static,
        mut to: impl AsyncWrite + Send + Unpin + 'static,
        places: Vec<(PathBuf, PathBuf)>,
        cancelled: CancellationToken,
    ) -> anyhow::Result<Self> {
        let (asks, mut asked) = mpsc::unbounded_channel::<Ask>();
        let (answered, mut answers) = mpsc::channel(4);
        let shared = Arc::<Shared>::default();
        let mut tasks = JoinSet::new();
        let hearing = Arc::clone(&shared);
        tasks.spawn(async move {
            let heard = tokio::select! {
                heard = hear(pieces, &hearing, &answered) => heard,
                () = cancelled.cancelled() => Err(cancelled_error().into()),
            };
            let why = heard.map_or_else(|error| format!("{error:#}"), |()| "the helper ended too early".to_owned());
            *hearing.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            // Those who wait learn that nothing comes.
            hearing.readers().clear();
        });
        tasks.spawn(async move {
            while let Some(ask) = asked.recv().await {
                let Ok(words) = words(&ask) else { return };
                if to.write_all(&words).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
        });
        let Some(Answer::Hello { version }) = answers.recv().await else { bail!("{}", shared.why()) };
        if version != VERSION {
            bail!(
                "the helper is of another version of Rusuban: give it the image of this one ({})",
                env!("CARGO_PKG_VERSION")
            );
        }
        let mut places = places;
        places.sort_by_key(|(known, _)| std::cmp::Reverse(known.as_os_str().len()));
        let form = rustix::fs::stat("/").context("look at /")?;
        let (answers, tasks) = (Mutex::new(answers), Mutex::new(tasks));
        Ok(Self(Arc::new(Session { asks, answers, shared, places, form, _tasks: tasks })))
    }

    /// Whether an unchanged time means an unchanged file where these places are.
    pub(crate) fn settle<'a>(&self, places: impl Iterator<Item = &'a Path>) -> bool {
        let places = places.map(|place| self.there(place).into_os_string().into_vec()).collect();
        self.0.asks.send(Ask::Settle(places)).is_ok() && matches!(self.answer(), Ok(Answer::Settled(true)))
    }

    /// Never to be called where others wait for their turn: it waits for the helper.
    fn answer(&self) -> anyhow::Result<Answer> {
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.blocking_recv().ok_or_else(|| anyhow!("{}", self.0.shared.why()))
    }

    /// Where the helper has it.
    fn there(&self, place: &Path) -> PathBuf {
        let found = self.0.places.iter().find_map(|(known, there)| {
            let within = place.strip_prefix(known).ok()?;
            Some(if within.as_os_str().is_empty() { there.clone() } else { there.join(within) })
        });
        found.unwrap_or_else(|| place.to_owned())
    }

    /// Where people know what the helper has at a path.
    fn known(&self, there: &Path) -> PathBuf {
        let found = self.0.places.iter().find_map(|(known, helper)| {
            let within = there.strip_prefix(helper).ok()?;
            Some(if within.as_os_str().is_empty() { known.clone() } else { known.join(within) })
        });
        found.unwrap_or_else(|| there.to_owned())
    }

    /// Words of the helper's, with places as people know them.
    fn in_words(&self, said: &str) -> String {
        self.0.places.iter().fold(said.to_owned(), |said, (known, there)| {
            said.replace(&there.display().to_string(), &known.display().to_string())
        })
    }

    fn note(&self, note: Note, notes: &Notes) {
        match note {
            Note::Info(text) => notes.info(&self.in_words(&text)),
            Note::Warning(text) => notes.warn(self.in_words(&text)),
            Note::Changed(text) => notes.changed(self.in_words(&text)),
            Note::Unreadable(path, why) => notes.cannot(&self.known(&path_of(&path)), io::Error::other(why)),
        }
    }

    fn order(&self, tree: &Tree) -> Order {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        Order {
            base: tree.base.as_bytes().to_vec(),
            roots: tree.roots.iter().map(|(member, place)| (bytes(member), bytes(&self.there(place)))).collect(),
            excludes: tree.excludes.patterns().to_vec(),
            one_file_system: tree.one_file_system,
            allow_empty: tree.allow_empty,
            as_it_is: tree.as_it_is,
        }
    }

    fn found(&self, entry: Entry, has_companions: bool, as_it_is: bool) -> Found {
        let Entry { number, name, member, path, facts, target, xattrs } = entry;
        let remote = Remote { far: self.clone(), number, target, xattrs, parts: Mutex::default() };
        Found {
            at: At::There(Arc::new(remote)),
            name: path_of(&name).into_os_string(),
            member,
            path: self.known(&path_of(&path)),
            stat: facts.stat(&self.0.form),
            is_open_here: false,
            has_companions,
            as_it_is,
        }
    }
}

impl Shared {
    fn readers(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Part>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn why(&self) -> String {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().unwrap_or_else(|| "the helper does not answer any more".to_owned())
    }
}

/// Hands on what the helper says until it says no more.
async fn hear(
    mut pieces: impl Pieces<Item = anyhow::Result<Bytes>> + Unpin,
    shared: &Shared,
    answers: &mpsc::Sender<Answer>,
) -> anyhow::Result<()> {
    let mut room = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        room.extend_from_slice(&piece?);
        while let Some((kind, frame)) = frame(&mut room)? {
            let (entry, part) = if kind == BYTES {
                let mut frame = frame;
                let number = frame.split_to(8);
                let number = u64::from_le_bytes(number[..].try_into().context("a frame is damaged")?);
                (number, Part::Bytes(frame))
            } else {
                match understood(&frame).context("what the helper says is damaged")? {
                    Answer::Head { entry, head, notes } => (entry, Part::Head(head.map(Box::new), notes)),
                    Answer::End { entry, how } => (entry, Part::End(how)),
                    other => {
                        // Nobody waits any more when all is over.
                        let _ = answers.send(other).await;
                        continue;
                    }
                }
            };
            let is_last = matches!(part, Part::End(_) | Part::Head(None, _));
            let reader = match is_last {
                true => shared.readers().remove(&entry),
                false => shared.readers().get(&entry).cloned(),
            };
            if let Some(reader) = reader {
                // One that is dropped does not want it any more.
                let _ = reader.send(part).await;
            }
        }
    }
    Ok(())
}

fn frame(room: &mut BytesMut) -> anyhow::Result<Option<(u8, Bytes)>> {
    let Some([kind, length @ ..]) = room.first_chunk::<5>() else { return Ok(None) };
    let (kind, length) = (*kind, u32::from_le_bytes(*length) as usize);
    if !matches!(kind, WORDS | BYTES) || length > LONGEST || (kind == BYTES && length < 8) {
        bail!("what the helper says is damaged: {:?}", String::from_utf8_lossy(&room[..room.len().min(100)]));
    }
    if room.len() < 5 + length {
        return Ok(None);
    }
    let mut frame = room.split_to(5 + length).freeze();
    let _ = frame.split_to(5);
    Ok(Some((kind, frame)))
}

/// Something that lies where the helper is.
pub(crate) struct Remote {
    far: Far,
    number: u64,
    target: Option<Vec<u8>>,
    xattrs: Xattrs,
    /// Its content, once it is asked for.
    parts: Mutex<Option<mpsc::Receiver<Part>>>,
}

impl Remote {
    pub(crate) fn target(&self) -> Option<Vec<u8>> {
        self.target.clone()
    }

    pub(crate) fn xattrs(&self) -> Xattrs {
        self.xattrs.clone()
    }

    /// Asks for its content, which is sent after that of all that were asked for before.
    pub(crate) fn want(&self) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.is_none() {
            let (sender, receiver) = mpsc::channel(AHEAD);
            self.far.0.shared.readers().insert(self.number, sender);
            *parts = Some(receiver);
            let is_asked = self.far.0.asks.send(Ask::Content(self.number)).is_ok();
            if !is_asked || self.far.0.shared.has_failed() {
                // Nobody would ever send it.
                self.far.0.shared.readers().remove(&self.number);
            }
        }
    }

    /// Its content, if it is there still; else says why not.
    pub(crate) fn open(&self, notes: &Notes) -> anyhow::Result<Option<(Stream, Stat)>> {
        self.want();
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut parts = parts.context("it was read already")?;
        match parts.blocking_recv() {
            Some(Part::Head(head, said)) => {
                said.into_iter().for_each(|note| self.far.note(note, notes));
                let Some(head) = head else { return Ok(None) };
                let stat = head.facts.stat(&self.far.0.form);
                let pieces = head.pieces.clone().map(Vec::into_iter);
                let stream = Stream {
                    far: self.far.clone(),
                    parts,
                    head,
                    at: 0,
                    piece: None,
                    pieces,
                    rest: Bytes::new(),
                    end: None,
                };
                Ok(Some((stream, stat)))
            }
            Some(Part::End(Err(why))) => bail!("{}", self.far.in_words(&why)),
            Some(_) => bail!("what the helper says is out of order"),
            None => bail!("{}", self.far.0.shared.why()),
        }
    }
}

/// The content of a file, as it comes.
pub struct Stream {
    far: Far,
    parts: mpsc::Receiver<Part>,
    head: Box<Head>,
    /// Where in the file we are.
    at: u64,
    /// Where it has data: the piece that we are in or before, and those after it.
    piece: Option<(u64, u64)>,
    pieces: Option<std::vec::IntoIter<(u64, u64)>>,
    rest: Bytes,
    end: Option<Facts>,
}

impl Stream {
    pub(crate) fn xattrs(&self) -> Xattrs {
        self.head.xattrs.clone()
    }

    pub(crate) fn size(&self) -> u64 {
        self.head.size
    }

    pub(crate) fn pieces(&self) -> Option<Vec<(u64, u64)>> {
        self.head.pieces.clone()
    }

    pub(crate) fn rows(&mut self) -> Option<BTreeMap<String, u64>> {
        self.head.rows.take()
    }

    /// Goes on at `offset`, from here over a hole.
    pub(crate) fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        if offset < self.at {
            return Err(io::Error::other("what is read from elsewhere is read once"));
        }
        if self.head.pieces.is_some() {
            self.at = offset;
        }
        Ok(())
    }

    /// What the file is at its end, to which it is read.
    pub(crate) fn stat(&mut self) -> io::Result<Stat> {
        while self.end.is_none() {
            self.rest = Bytes::new();
            self.more()?;
        }
        Ok(self.end.unwrap_or_default().stat(&self.far.0.form))
    }

    /// Waits for the next bytes; whether there are any.
    fn more(&mut self) -> io::Result<bool> {
        while self.rest.is_empty() && self.end.is_none() {
            match self.parts.blocking_recv() {
                Some(Part::Bytes(bytes)) => self.rest = bytes,
                Some(Part::End(Ok(facts))) => self.end = Some(facts),
                Some(Part::End(Err(why))) => return Err(io::Error::other(self.far.in_words(&why))),
                Some(Part::Head(..)) => return Err(io::Error::other("what the helper says is out of order")),
                None => return Err(io::Error::other(self.far.0.shared.why())),
            }
        }
        Ok(!self.rest.is_empty())
    }

    fn take(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if !self.more()? {
            return Ok(0);
        }
        let count = to.len().min(self.rest.len());
        to[..count].copy_from_slice(&self.rest.split_to(count));
        self.at += count as u64;
        Ok(count)
    }
}

impl io::Read for Stream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        let Some(pieces) = &mut self.pieces else { return self.take(to) };
        // The piece at whose bytes, or before which, we are.
        while self.piece.is_none_or(|(begin, length)| begin + length <= self.at) {
            match pieces.next() {
                Some(next) => self.piece = Some(next),
                None => {
                    self.piece = None;
                    break;
                }
            }
        }
        let until = match self.piece {
            Some((begin, length)) if begin <= self.at => {
                let most = usize::try_from(begin + length - self.at).unwrap_or(usize::MAX).min(to.len());
                return self.take(&mut to[..most]);
            }
            Some((begin, _)) => begin,
            None => self.head.size,
        };
        let zeros = usize::try_from(until.saturating_sub(self.at)).unwrap_or(usize::MAX).min(to.len());
        if zeros == 0 {
            // All is told; how it ended comes after.
            self.more()?;
            return Ok(0);
        }
        to[..zeros].fill(0);
        self.at += zeros as u64;
        Ok(zeros)
    }
}

/// Shows all of a tree to `visitor`, as the helper tells it.
pub(crate) fn walk(
    far: &Far,
    tree: &Tree,
    visitor: &mut dyn Visitor,
    notes: &Notes,
    cancelled: &CancellationToken,
) -> anyhow::Result<()> {
    let ask = |ask| far.0.asks.send(ask).map_err(|_| anyhow!("{}", far.0.shared.why()));
    ask(Ask::Walk(far.order(tree)))?;
    let mut walk = Walk { far, tree, visitor, notes, lost: HashMap::new() };
    loop {
        ask(Ask::More)?;
        let Answer::Batch { items, end } = far.answer()? else { bail!("what the helper says is out of order") };
        let items = walk.prepared(items);
        for item in items {
            if cancelled.is_cancelled() {
                return Err(cancelled_error().into());
            }
            walk.item(item)?;
        }
        match end {
            None => {}
            Some(Ok(())) => return notes.judge(tree.allow_empty),
            Some(Err(why)) => {
                notes.judge(true)?;
                bail!("{}", far.in_words(&why))
            }
        }
    }
}

struct Walk<'a> {
    far: &'a Far,
    tree: &'a Tree,
    visitor: &'a mut dyn Visitor,
    notes: &'a Notes,
    /// Names that others are told to be links to, and that did not come in; with the one that did instead.
    lost: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

enum Shown {
    Root(PathBuf),
    Folder(Found, Xattrs),
    Leave,
    File(Found),
    Special(Found),
    Link(Found, Vec<u8>),
    Note(Note),
}

impl Walk<'_> {
    /// Where all is wanted, the content of a whole batch is asked for at once: nobody waits for each file.
    fn prepared(&self, items: Vec<Item>) -> Vec<Shown> {
        let found = |entry, has_companions| self.far.found(entry, has_companions, self.tree.as_it_is);
        let shown = items.into_iter().map(|item| match item {
            Item::Root(member) => Shown::Root(path_of(&member)),
            Item::Folder(mut entry) => {
                let xattrs = std::mem::take(&mut entry.xattrs);
                Shown::Folder(found(entry, false), xattrs)
            }
            Item::Leave => Shown::Leave,
            Item::File { entry, has_companions } => {
                let found = found(entry, has_companions && !self.tree.as_it_is);
                if self.tree.all_is_wanted {
                    found.want();
                }
                Shown::File(found)
            }
            Item::Special(entry) => Shown::Special(found(entry, false)),
            Item::Link { entry, first } => Shown::Link(found(entry, false), first),
            Item::Note(note) => Shown::Note(note),
        });
        shown.collect()
    }

    fn item(&mut self, item: Shown) -> anyhow::Result<()> {
        match item {
            Shown::Root(member) => self.visitor.root(&member),
            Shown::Folder(found, xattrs) => self.visitor.folder(&found, xattrs),
            Shown::Leave => self.visitor.leave(),
            Shown::File(found) | Shown::Special(found) => {
                let is_in = self.show(&found)?;
                if !is_in && found.stat.st_nlink > 1 {
                    self.lost.insert(found.member, None);
                }
                Ok(())
            }
            Shown::Link(found, first) => match self.lost.get(&first).cloned() {
                None => self.linked(&found, &first),
                Some(Some(instead)) => self.linked(&found, &instead),
                Some(None) => {
                    if self.show(&found)? {
                        self.lost.insert(first, Some(found.member));
                    }
                    Ok(())
                }
            },
            Shown::Note(note) => {
                self.far.note(note, self.notes);
                Ok(())
            }
        }
    }

    fn linked(&mut self, found: &Found, first: &[u8]) -> anyhow::Result<()> {
        self.notes.file();
        self.visitor.link(found, first)
    }

    fn show(&mut self, found: &Found) -> anyhow::Result<bool> {
        let is_in = match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => self.visitor.file(found)? != Came::Out,
            _ => self.visitor.special(found)?,
        };
        if is_in {
            self.notes.file();
        }
        Ok(is_in)
    }
}
