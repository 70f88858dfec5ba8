//! A tree that lies where only another process sees it: a helper beside the files walks it and tells what it finds, and is asked for
//! the content of those files that are wanted. What is unchanged since the backup before never comes over the line.
//!
//! [`serve`] is the helper's side, over its input and output; [`Far`] is ours. Both speak in frames: a kind, a length, and words or bytes.
mod here;
mod there;

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use here::Far;
pub(super) use here::{Remote, Stream, walk};
pub use there::serve;

use super::{attributes::Xattrs, notes::Note};

/// The version of this language. Both sides must speak the same.
const VERSION: u32 = 1;
/// No frame is longer.
const LONGEST: usize = 64 << 20;
/// So much of a file is sent at once.
const PIECE: usize = 64 << 10;
/// A frame of words.
const WORDS: u8 = 0;
/// A frame of a file's bytes, behind its number.
const BYTES: u8 = 1;
/// A frame of bytes begins with so many others.
const BYTES_HEAD: usize = 13;

/// What we ask.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// Walk a tree. Its files have numbers until the next batch is asked for.
    Walk(Order),
    /// Tell more of what there is.
    More,
    /// The content of a file. All are sent in the order in which they were asked for.
    Content(u64),
    /// Has the kernel write down what it holds; see `settle`.
    Settle(Vec<Vec<u8>>),
}

/// A tree to be walked.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    base: Vec<u8>,
    roots: Vec<(Vec<u8>, Vec<u8>)>,
    excludes: Vec<String>,
    one_file_system: bool,
    allow_empty: bool,
    as_it_is: bool,
}

/// What the helper says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// Its first word.
    Hello { version: u32 },
    /// What it found, in order; and how the walk ended, if it has.
    Batch { items: Vec<Item>, end: Option<Result<(), String>> },
    /// A file's content begins, unless it is not there any more.
    Head { entry: u64, head: Option<Head>, notes: Vec<Note> },
    /// It is over: what the file is then, or why it could not be read.
    End { entry: u64, how: Result<Facts, String> },
    /// Whether an unchanged time means an unchanged file.
    Settled(bool),
}

/// Something in a tree.
#[derive(Debug, Serialize, Deserialize)]
enum Item {
    Root(Vec<u8>),
    Folder(Entry),
    Leave,
    File { entry: Entry, has_companions: bool },
    Special(Entry),
    Link { entry: Entry, first: Vec<u8> },
    Note(Note),
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Files have one of their own.
    number: u64,
    name: Vec<u8>,
    member: Vec<u8>,
    path: Vec<u8>,
    facts: Facts,
    /// Of a symlink.
    target: Option<Vec<u8>>,
    /// Of all but files, which tell theirs with their content.
    xattrs: Xattrs,
}

/// What comes before a file's content.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    facts: Facts,
    xattrs: Xattrs,
    /// Bytes to come, holes among them.
    size: u64,
    /// Where it has data, if it has holes. Only that is sent.
    pieces: Option<Vec<(u64, u64)>>,
    /// Of a database that was copied while in use.
    rows: Option<BTreeMap<String, u64>>,
}

/// What the system knows of something.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Facts {
    device: u64,
    inode: u64,
    links: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
    size: i64,
    blocks: i64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Facts {
    #[expect(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the types differ by the kind of machine")]
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            links: stat.st_nlink as u64,
            mode: stat.st_mode.into(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev as u64,
            size: stat.st_size,
            blocks: stat.st_blocks as i64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    /// As the system would say it here. `form`: any answer of the system, for nobody but it can make one.
    fn stat(&self, form: &Stat) -> Stat {
        let mut stat = *form;
        stat.st_dev = self.device as _;
        stat.st_ino = self.inode as _;
        stat.st_nlink = self.links as _;
        stat.st_mode = self.mode as _;
        stat.st_uid = self.uid;
        stat.st_gid = self.gid;
        stat.st_rdev = self.rdev as _;
        stat.st_size = self.size as _;
        stat.st_blocks = self.blocks as _;
        (stat.st_mtime, stat.st_mtime_nsec) = (self.mtime.0 as _, self.mtime.1 as _);
        (stat.st_ctime, stat.st_ctime_nsec) = (self.ctime.0 as _, self.ctime.1 as _);
        stat
    }
}

/// A frame of words.
fn words(said: &impl Serialize) -> io::Result<Vec<u8>> {
    let words = postcard::to_stdvec(said).map_err(io::Error::other)?;
    let length = u32::try_from(words.len()).ok().filter(|_| words.len() <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("there is too much to say of one thing"))?;
    Ok([&[WORDS][..], &length.to_le_bytes(), &words].concat())
}

/// The head of a frame of bytes.
fn bytes_head(entry: u64, length: usize) -> io::Result<[u8; BYTES_HEAD]> {
    let length = u32::try_from(length + 8).map_err(io::Error::other)?;
    let mut head = [BYTES; BYTES_HEAD];
    head[1..5].copy_from_slice(&length.to_le_bytes());
    head[5..].copy_from_slice(&entry.to_le_bytes());
    Ok(head)
}

fn understood<T: DeserializeOwned>(words: &[u8]) -> io::Result<T> {
    postcard::from_bytes(words).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The next ask; none when nobody asks any more.
fn heard(from: &mut impl Read) -> io::Result<Option<Ask>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != WORDS || length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is nothing that a helper is asked"));
    }
    let mut words = vec![0; length];
    from.read_exact(&mut words)?;
    understood(&words).map(Some)
}

fn say(to: &mut impl Write, said: &impl Serialize) -> io::Result<()> {
    to.write_all(&words(said)?)?;
    to.flush()
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_of_something_comes_over_whole() {
        let (form, stat) = (rustix::fs::stat("/").unwrap(), rustix::fs::stat("/proc/self/exe").unwrap());
        let facts: Facts = understood(&postcard::to_stdvec(&Facts::of(&stat)).unwrap()).unwrap();
        let told = facts.stat(&form);
        assert_eq!(
            (told.st_size, told.st_mtime, told.st_ctime_nsec),
            (stat.st_size, stat.st_mtime, stat.st_ctime_nsec)
        );
        assert_eq!(
            (told.st_dev, told.st_ino, told.st_mode, told.st_nlink),
            (stat.st_dev, stat.st_ino, stat.st_mode, stat.st_nlink)
        );
        assert_eq!(
            (told.st_uid, told.st_gid, told.st_blocks, told.st_rdev),
            (stat.st_uid, stat.st_gid, stat.st_blocks, stat.st_rdev)
        );
    }

    #[test]
    fn an_ask_that_is_none_is_an_error_and_no_ask_is_the_end() {
        assert!(heard(&mut &b""[..]).unwrap().is_none());
        let ask = words(&Ask::Content(7)).unwrap();
        assert!(matches!(heard(&mut &ask[..]).unwrap(), Some(Ask::Content(7))));
        assert!(heard(&mut &b"\0\xff\xff\xff\xff"[..]).is_err());
        assert!(heard(&mut &b"GET / HTTP/1.1"[..]).is_err());
    }
}
