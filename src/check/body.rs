//! An answer's body, decompressed as it comes and never more than was asked for: a few bytes may be many.
use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

/// Takes what comes and keeps what is in it, up to a limit.
pub(super) struct Taking {
    into: Into,
    /// Bytes that came.
    pub(super) came: u64,
}

enum Into {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

/// A buffer that refuses to grow beyond its limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        let room = self.limit - self.bytes.len();
        if more.len() > room {
            self.bytes.extend_from_slice(&more[..room]);
            self.is_full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    All,
    /// The limit is reached: what follows is not wanted.
    Enough,
    /// It is not compressed as it says.
    Wrong,
}

impl Taking {
    /// Room for `limit` bytes; `expected` of them are told of beforehand.
    pub(super) fn new(gzip: bool, limit: usize, expected: usize) -> Self {
        let bounded = Bounded { bytes: Vec::with_capacity(expected.min(limit)), limit, is_full: false };
        let into = if gzip { Into::Gzip(Box::new(MultiGzDecoder::new(bounded))) } else { Into::Plain(bounded) };
        Self { into, came: 0 }
    }

    pub(super) fn take(&mut self, piece: &[u8]) -> Took {
        self.came += piece.len() as u64;
        let (result, is_full) = match &mut self.into {
            Into::Plain(bounded) => (bounded.write_all(piece), bounded.is_full),
            Into::Gzip(gzip) => {
                let result = gzip.write_all(piece);
                (result, gzip.get_ref().is_full)
            }
        };
        match result {
            _ if is_full => Took::Enough,
            Ok(()) => Took::All,
            Err(_) => Took::Wrong,
        }
    }

    /// The bytes, whether there was more, and whether they ended as they should.
    pub(super) fn end(self) -> (Vec<u8>, bool, bool) {
        match self.into {
            Into::Plain(bounded) => (bounded.bytes, bounded.is_full, true),
            Into::Gzip(mut gzip) => {
                let is_whole = self.came == 0 || gzip.try_finish().is_ok();
                let bounded = std::mem::replace(gzip.get_mut(), Bounded { bytes: Vec::new(), limit: 0, is_full: true });
                (bounded.bytes, bounded.is_full, is_whole || bounded.is_full)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_comes() {
        let bomb = gzip(&vec![0; 50 << 20]);
        let mut taking = Taking::new(true, 1000, 0);
        let took: Vec<Took> = bomb.chunks(1000).map(|piece| taking.take(piece)).take(3).collect();
        assert!(took.contains(&Took::Enough), "{took:?}");
        let (bytes, is_cut, is_whole) = taking.end();
        assert_eq!((bytes.len(), is_cut, is_whole), (1000, true, true));
        assert!(bytes.capacity() <= 2048);
        let mut plain = Taking::new(false, 3, usize::MAX);
        assert_eq!((plain.take(b"ab"), plain.take(b"c"), plain.take(b"d")), (Took::All, Took::All, Took::Enough));
        assert_eq!(plain.end(), (b"abc".to_vec(), true, true));
    }

    #[test]
    fn what_is_cut_off_or_not_compressed_is_found_out() {
        let whole = gzip(b"Welcome to the shop");
        let mut taking = Taking::new(true, 1000, 0);
        assert_eq!(taking.take(&whole), Took::All);
        assert_eq!(taking.end(), (b"Welcome to the shop".to_vec(), false, true));
        let mut cut = Taking::new(true, 1000, 0);
        cut.take(&whole[..whole.len() - 6]);
        assert!(!cut.end().2);
        let mut plain = Taking::new(true, 1000, 0);
        let took = [plain.take(b"no gzip at all, but long enough"), plain.take(b"more")];
        assert!(took.contains(&Took::Wrong) || !plain.end().2);
    }
}
