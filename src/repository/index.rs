//! Which blob lies where: index objects as they are stored, and all of them in memory, 48 bytes for each blob.
use serde::{Deserialize, Serialize};

use super::{
    Id,
    pack::{Blob, BlobKind},
};

/// An index object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFile {
    /// Index objects that this one stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supersedes: Vec<Id>,
    /// Packs and what is in them.
    #[serde(default)]
    pub packs: Vec<IndexedPack>,
}

/// A pack in an index object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedPack {
    /// Its name.
    pub id: Id,
    /// What is in it.
    pub blobs: Vec<IndexedBlob>,
}

/// A blob in an index object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedBlob {
    /// Its name.
    pub id: Id,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: BlobKind,
    /// Where it begins.
    pub offset: u32,
    /// Its bytes there.
    pub length: u32,
    /// Its bytes before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed_length: Option<u32>,
}

impl IndexFile {
    /// Reads what is stored. A blob that no pack can hold is an error.
    ///
    /// # Errors
    /// When it is no index object.
    pub fn from_json(json: &[u8]) -> anyhow::Result<Self> {
        let file: Self = serde_json::from_slice(json)?;
        file.packs.iter().flat_map(|pack| &pack.blobs).try_for_each(|blob| blob.blob().check())?;
        Ok(file)
    }
}

impl IndexedPack {
    /// A pack's line in an index object.
    #[must_use]
    pub fn new(id: Id, blobs: &[Blob]) -> Self {
        let blobs = blobs.iter().map(|&Blob { id, kind, offset, length, plain }| IndexedBlob {
            id,
            kind,
            offset,
            length,
            uncompressed_length: plain,
        });
        Self { id, blobs: blobs.collect() }
    }
}

impl IndexedBlob {
    /// The blob.
    #[must_use]
    pub fn blob(&self) -> Blob {
        let &Self { id, kind, offset, length, uncompressed_length } = self;
        Blob { id, kind, offset, length, plain: uncompressed_length.filter(|plain| *plain > 0) }
    }
}

/// Where a blob lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which pack.
    pub pack: Id,
    /// And where in it.
    pub blob: Blob,
}

/// All blobs of a repository. Filled by [`Index::add`], and sorted once by [`Index::settle`] before it is asked.
#[derive(Debug)]
pub struct Index {
    packs: Vec<Id>,
    /// By the first byte of the name: small lists grow without copying all of it.
    shelves: Vec<Vec<Slot>>,
}

/// A blob in memory.
#[derive(Clone, Copy, Debug)]
struct Slot {
    id: Id,
    /// Number of its pack; the highest bit says that it is a tree.
    pack: u32,
    offset: u32,
    length: u32,
    /// 0: not compressed.
    plain: u32,
}

const TREE: u32 = 1 << 31;

impl Default for Index {
    fn default() -> Self {
        Self { packs: Vec::new(), shelves: vec![Vec::new(); 256] }
    }
}

impl Slot {
    fn order(&self) -> (&Id, bool) {
        (&self.id, self.pack & TREE != 0)
    }
}

impl Index {
    /// Adds a pack.
    pub fn add(&mut self, pack: Id, blobs: impl IntoIterator<Item = Blob>) {
        // 2^31 packs of 16 MiB are 32 PiB.
        let number = self.packs.len() as u32 & !TREE;
        self.packs.push(pack);
        for Blob { id, kind, offset, length, plain } in blobs {
            let pack = number | if kind == BlobKind::Tree { TREE } else { 0 };
            self.shelves[usize::from(id.0[0])].push(Slot { id, pack, offset, length, plain: plain.unwrap_or(0) });
        }
    }

    /// Adds packs as an index object names them.
    pub fn add_all(&mut self, packs: &[IndexedPack]) {
        packs.iter().for_each(|pack| self.add(pack.id, pack.blobs.iter().map(IndexedBlob::blob)));
    }

    /// Sorts what was added; the same pack told twice counts once.
    pub fn settle(&mut self) {
        // The same pack may stand in two index objects: its first number stands for all.
        let mut numbers: Vec<u32> = (0..self.packs.len() as u32).collect();
        numbers.sort_unstable_by_key(|number| (self.packs[*number as usize], *number));
        let mut first: Vec<u32> = (0..self.packs.len() as u32).collect();
        let mut several = false;
        for pair in numbers.windows(2) {
            if self.packs[pair[0] as usize] == self.packs[pair[1] as usize] {
                first[pair[1] as usize] = first[pair[0] as usize];
                several = true;
            }
        }
        for shelf in &mut self.shelves {
            if several {
                for slot in shelf.iter_mut() {
                    slot.pack = slot.pack & TREE | first[(slot.pack & !TREE) as usize];
                }
            }
            shelf.sort_unstable_by(|one, other| {
                one.order().cmp(&other.order()).then((one.pack, one.offset).cmp(&(other.pack, other.offset)))
            });
            shelf.dedup_by(|one, other| {
                one.order() == other.order() && (one.pack, one.offset) == (other.pack, other.offset)
            });
            shelf.shrink_to_fit();
        }
    }

    /// Where a blob lies: one place, though it may lie in several packs.
    #[must_use]
    pub fn find(&self, kind: BlobKind, id: &Id) -> Option<Place> {
        let shelf = &self.shelves[usize::from(id.0[0])];
        let at = shelf.partition_point(|slot| slot.order() < (id, kind == BlobKind::Tree));
        shelf.get(at).filter(|slot| slot.order() == (id, kind == BlobKind::Tree)).map(|slot| self.place(slot))
    }

    /// Every place of every blob.
    pub fn all(&self) -> impl Iterator<Item = Place> {
        self.shelves.iter().flatten().map(|slot| self.place(slot))
    }

    /// How many places.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shelves.iter().map(Vec::len).sum()
    }

    /// Whether there is no blob.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shelves.iter().all(Vec::is_empty)
    }

    /// Packs that index objects name, each once.
    #[must_use]
    pub fn packs(&self) -> Vec<Id> {
        let mut packs = self.packs.clone();
        packs.sort_unstable();
        packs.dedup();
        packs
    }

    fn place(&self, slot: &Slot) -> Place {
        let kind = if slot.pack & TREE == 0 { BlobKind::Data } else { BlobKind::Tree };
        let plain = (slot.plain > 0).then_some(slot.plain);
        let blob = Blob { id: slot.id, kind, offset: slot.offset, length: slot.length, plain };
        Place { pack: self.packs[(slot.pack & !TREE) as usize], blob }
    }
}
