//! Packs: many sealed blobs in one object, and behind them a sealed header that says which.
//!
//! ```text
//! blob, blob, …, sealed header, length of the sealed header (4 bytes, the lowest first)
//! ```
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;

use super::{
    Id,
    crypto::{Key, SEAL},
};

/// Bytes of a header's entry, without and with the length before compression.
const ENTRY: usize = 1 + 4 + 32;
const ENTRY_COMPRESSED: usize = ENTRY + 4;
/// The longest header, sealed: other programs read no longer ones.
const MOST_HEADER: usize = 16 << 20;

/// What a blob holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A piece of a file.
    Data,
    /// What is in a folder.
    Tree,
}

/// A blob in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The SHA-256 of what it holds, before compression.
    pub id: Id,
    /// What it holds.
    pub kind: BlobKind,
    /// Where it begins in its pack.
    pub offset: u32,
    /// Its bytes there, the seal included.
    pub length: u32,
    /// Its bytes before compression, if it is compressed.
    pub plain: Option<u32>,
}

impl Blob {
    /// Holds its numbers against what can be.
    ///
    /// # Errors
    /// When no blob is like that.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.length as usize >= SEAL, "it names a blob that is shorter than its seal");
        ensure!(self.offset.checked_add(self.length).is_some(), "it names a blob beyond 4 GiB");
        Ok(())
    }

    /// Bytes of what it holds.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.plain.unwrap_or_else(|| self.length.saturating_sub(SEAL as u32))
    }
}

/// A pack that is being filled.
#[derive(Debug, Default)]
pub struct Building {
    bytes: Vec<u8>,
    blobs: Vec<Blob>,
}

/// A pack, ready to be stored.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Its name.
    pub id: Id,
    /// All of it.
    pub bytes: Bytes,
    /// What is in it.
    pub blobs: Vec<Blob>,
}

impl Building {
    /// One in memory that another had.
    #[must_use]
    pub fn reusing(mut memory: Vec<u8>) -> Self {
        memory.clear();
        Self { bytes: memory, blobs: Vec::new() }
    }

    /// Bytes of blobs so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no blob in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Bytes that the pack will have.
    #[must_use]
    pub fn whole(&self) -> usize {
        self.bytes.len() + self.blobs.len() * ENTRY_COMPRESSED + SEAL + 4
    }

    /// Whether it is to be stored before it gets `more` blobs, if packs have so many bytes.
    #[must_use]
    pub fn is_full(&self, size: usize, more: usize) -> bool {
        self.whole() >= size || (self.blobs.len() + more) * ENTRY_COMPRESSED + SEAL > MOST_HEADER
    }

    /// Adds a sealed blob.
    ///
    /// # Errors
    /// When the pack would be larger than 4 GiB.
    pub fn add(&mut self, id: Id, kind: BlobKind, sealed: &[u8], plain: Option<u32>) -> anyhow::Result<()> {
        let offset = u32::try_from(self.bytes.len()).context("a pack larger than 4 GiB")?;
        let length = u32::try_from(sealed.len()).context("a blob larger than 4 GiB")?;
        ensure!(offset.checked_add(length).is_some(), "a pack larger than 4 GiB");
        self.bytes.extend_from_slice(sealed);
        self.blobs.push(Blob { id, kind, offset, length, plain });
        Ok(())
    }

    /// Adds the header.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn finish(self, key: &Key) -> anyhow::Result<Pack> {
        let Self { mut bytes, blobs } = self;
        let begin = bytes.len();
        Key::room(&mut bytes);
        for blob in &blobs {
            let kind = match (blob.kind, blob.plain) {
                (BlobKind::Data, None) => 0,
                (BlobKind::Tree, None) => 1,
                (BlobKind::Data, Some(_)) => 2,
                (BlobKind::Tree, Some(_)) => 3,
            };
            bytes.push(kind);
            bytes.extend_from_slice(&blob.length.to_le_bytes());
            bytes.extend(blob.plain.iter().flat_map(|plain| plain.to_le_bytes()));
            bytes.extend_from_slice(&blob.id.0);
        }
        key.seal_in_place(&mut bytes, begin)?;
        let length = u32::try_from(bytes.len() - begin).context("a header larger than 4 GiB")?;
        bytes.extend_from_slice(&length.to_le_bytes());
        Ok(Pack { id: Id::of(&bytes), bytes: bytes.into(), blobs })
    }
}

/// Bytes of the header at a pack's end, the length itself included, as its last four bytes tell.
///
/// # Errors
/// When that is more than the pack has, or than any header has.
pub fn header_length(last: [u8; 4], pack: u64) -> anyhow::Result<u64> {
    let length = u64::from(u32::from_le_bytes(last)) + 4;
    let fits = (SEAL + 4) as u64..=pack.min(MOST_HEADER as u64 + 4);
    ensure!(fits.contains(&length), "it does not end as a pack does");
    Ok(length)
}

/// What is in a pack, as its header says. `tail` is the pack's end, from the header on; `pack` are its bytes in all.
///
/// # Errors
/// When the header is damaged, or does not fit the pack.
pub fn read_header(key: &Key, tail: &[u8], pack: u64) -> anyhow::Result<Vec<Blob>> {
    ensure!(tail.len() >= SEAL + 4, "it does not end as a pack does");
    let header = key.open(&tail[..tail.len() - 4]).context("its header")?;
    let mut rest = header.as_slice();
    let mut blobs = Vec::new();
    let mut offset: u32 = 0;
    while let Some(&kind) = rest.first() {
        let entry = if kind >= 2 { ENTRY_COMPRESSED } else { ENTRY };
        ensure!(rest.len() >= entry, "its header breaks off");
        let number = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let (kind, plain) = match kind {
            0 => (BlobKind::Data, None),
            1 => (BlobKind::Tree, None),
            2 => (BlobKind::Data, Some(number(5))),
            3 => (BlobKind::Tree, Some(number(5))),
            other => bail!("its header names a kind of blob that is not known here ({other})"),
        };
        let mut id = [0; 32];
        id.copy_from_slice(&rest[entry - 32..entry]);
        let blob = Blob { id: Id(id), kind, offset, length: number(1), plain };
        blob.check().context("its header")?;
        blobs.push(blob);
        offset += blob.length;
        rest = &rest[entry..];
    }
    ensure!(pack.checked_sub(tail.len() as u64) == Some(offset.into()), "its header does not fit its size");
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_what_was_packed() {
        let key = Key::random().unwrap();
        let mut building = Building::default();
        for (number, kind, plain) in
            [(0, BlobKind::Data, None), (1, BlobKind::Data, Some(9)), (2, BlobKind::Tree, Some(3))]
        {
            building.add(Id([number; 32]), kind, &vec![0; SEAL + usize::from(number)], plain).unwrap();
        }
        let pack = building.finish(&key).unwrap();
        let size = pack.bytes.len();
        let last: [u8; 4] = pack.bytes[size - 4..].try_into().unwrap();
        let length = header_length(last, size as u64).unwrap() as usize;
        let read = read_header(&key, &pack.bytes[size - length..], size as u64).unwrap();
        assert_eq!(read, pack.blobs);
        read_header(&key, &pack.bytes[size - length..], size as u64 + 1).unwrap_err();
        header_length([255; 4], size as u64).unwrap_err();
    }

    #[test]
    fn a_pack_is_full_before_its_header_is_longer_than_others_read() {
        let mut building = Building::default();
        while !building.is_full(1 << 30, 1) {
            building.blobs.push(Blob { id: Id([0; 32]), kind: BlobKind::Tree, offset: 0, length: 32, plain: Some(0) });
        }
        let header = building.whole() - building.len() - 4;
        assert!((MOST_HEADER - 41..=MOST_HEADER).contains(&header), "{header}");
        let last = |header: usize| u32::try_from(header).unwrap().to_le_bytes();
        header_length(last(header), 1 << 31).unwrap();
        header_length(last(MOST_HEADER + 1), 1 << 31).unwrap_err();
        assert!(building.is_full(1, 0) && !building.is_full(1 << 30, 0));
    }
}
