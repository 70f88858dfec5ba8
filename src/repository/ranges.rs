//! Blobs that lie near to each other in a pack are fetched in one go.
use super::{Id, pack::Blob};

/// So near, and up to so many bytes.
const GAP: u32 = 64 << 10;
const RANGE: u32 = 4 << 20;

/// Neighbours in a pack, each with what it is wanted for.
pub(super) struct Range<W> {
    pub(super) pack: Id,
    pub(super) begin: u32,
    pub(super) end: u32,
    pub(super) blobs: Vec<(Blob, W)>,
}

/// Blobs of packs, put together.
pub(super) fn ranges<W>(mut wanted: Vec<(Id, Blob, W)>) -> Vec<Range<W>> {
    wanted.sort_unstable_by_key(|(pack, blob, _)| (*pack, blob.offset));
    let mut ranges: Vec<Range<W>> = Vec::new();
    for (pack, blob, wanted) in wanted {
        let (begin, end) = (blob.offset, blob.offset.saturating_add(blob.length));
        match ranges.last_mut() {
            Some(last) if last.pack == pack && begin - last.end.min(begin) <= GAP && end - last.begin <= RANGE => {
                last.end = last.end.max(end);
                last.blobs.push((blob, wanted));
            }
            _ => ranges.push(Range { pack, begin, end, blobs: vec![(blob, wanted)] }),
        }
    }
    ranges
}
