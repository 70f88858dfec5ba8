//! Blobs that lie near to each other in a pack are fetched in one go.
use super::{Id, pack::Blob};

/// So near.
const GAP: u32 = 64 << 10;

/// Neighbours in a pack, one after the other, each with what it is wanted for.
pub(super) struct Range<W> {
    pub(super) pack: Id,
    pub(super) begin: u32,
    pub(super) end: u32,
    pub(super) blobs: Vec<(Blob, W)>,
}

/// Blobs of packs, put together up to so many bytes.
pub(super) fn ranges<W>(mut wanted: Vec<(Id, Blob, W)>, longest: u32) -> Vec<Range<W>> {
    wanted.sort_unstable_by_key(|(pack, blob, _)| (*pack, blob.offset));
    let mut ranges: Vec<Range<W>> = Vec::new();
    for (pack, blob, wanted) in wanted {
        let (begin, end) = (blob.offset, blob.offset.saturating_add(blob.length));
        match ranges.last_mut() {
            Some(last)
                if last.pack == pack
                    && begin.checked_sub(last.end).is_some_and(|gap| gap <= GAP)
                    && end - last.begin <= longest =>
            {
                last.end = end;
                last.blobs.push((blob, wanted));
            }
            _ => ranges.push(Range { pack, begin, end, blobs: vec![(blob, wanted)] }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::{super::BlobKind, *};

    #[test]
    fn neighbours_are_fetched_together_and_what_overlaps_is_not() {
        let pack = Id::of(b"pack");
        let blob = |offset, length| {
            (pack, Blob { id: Id::of(b"blob"), kind: BlobKind::Data, offset, length, plain: None }, ())
        };
        let wanted = vec![blob(150, 100), blob(0, 100), blob(200, 100), blob(300 + GAP, 100), blob(401 + 2 * GAP, 100)];
        let found: Vec<_> = ranges(wanted, 4 * GAP).iter().map(|range| (range.begin, range.end)).collect();
        assert_eq!(found, [(0, 250), (200, 400 + GAP), (401 + 2 * GAP, 501 + 2 * GAP)]);
        let found = ranges(vec![blob(0, 100), blob(100, 100), blob(200, 100)], 200);
        assert_eq!(found.iter().map(|range| range.blobs.len()).collect::<Vec<_>>(), [2, 1]);
    }
}
