//! The content of a file that was opened: here, or where a helper reads it for us.
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
};

use rustix::fs::Stat;

use super::{
    attributes::{self, Xattrs},
    far, live,
};

/// What is in a file.
pub enum Content {
    /// On this machine.
    Here(File),
    /// Where a helper is. It is read once, from its beginning to its end.
    There(Box<far::Stream>),
}

impl Content {
    /// Its extended attributes.
    pub(crate) fn xattrs(&self) -> io::Result<Xattrs> {
        match self {
            Self::Here(file) => attributes::of_open(file),
            Self::There(stream) => Ok(stream.xattrs()),
        }
    }

    /// Bytes that it should have, where it was a file with these facts when it was opened.
    pub(crate) fn size(&self, stat: &Stat) -> u64 {
        match self {
            Self::Here(_) => u64::try_from(stat.st_size).unwrap_or(0),
            Self::There(stream) => stream.size(),
        }
    }

    /// Whether it begins as a SQLite database does. Elsewhere that is the helper's to know.
    pub(crate) fn is_database(&mut self) -> io::Result<bool> {
        match self {
            Self::Here(file) => live::is_database(file),
            Self::There(_) => Ok(false),
        }
    }

    /// Rows by table, where it is a copy of a database in use that the helper has made.
    pub(crate) fn rows(&mut self) -> Option<BTreeMap<String, u64>> {
        match self {
            Self::Here(_) => None,
            Self::There(stream) => stream.rows(),
        }
    }

    /// Where it has data, as offsets and lengths, when it has holes that can be told.
    pub(crate) fn pieces(&self, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
        match self {
            Self::Here(file) => {
                let blocks = u64::try_from(rustix::fs::fstat(file)?.st_blocks).unwrap_or(u64::MAX);
                if blocks.saturating_mul(512) < size { attributes::data_pieces(file, size) } else { Ok(None) }
            }
            Self::There(stream) => Ok(stream.pieces()),
        }
    }

    /// Goes on at `offset`; between here and there is nothing but a hole.
    pub(crate) fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        match self {
            Self::Here(file) => file.seek(SeekFrom::Start(offset)).map(drop),
            Self::There(stream) => stream.skip_to(offset),
        }
    }

    /// What the system says of it when it was read.
    pub(crate) fn stat(&mut self) -> io::Result<Stat> {
        match self {
            Self::Here(file) => Ok(rustix::fs::fstat(file)?),
            Self::There(stream) => stream.stat(),
        }
    }
}

impl Read for Content {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Here(file) => file.read(to),
            Self::There(stream) => stream.read(to),
        }
    }
}
