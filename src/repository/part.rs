//! Part of a pack, read as it comes.
use anyhow::Context as _;
use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;

use super::{
    Id, Repository,
    blobs::BELIEVED,
    objects::{Class, Damaged},
};
use crate::bucket::Body;

/// Bytes of a pack that are on their way.
pub(super) struct Part {
    pack: Id,
    body: Body,
    /// What came, and was not taken yet.
    here: Bytes,
    /// How many are still to be taken.
    left: u64,
}

impl Repository {
    /// Asks for part of a pack.
    pub(super) async fn begin_part(&self, pack: &Id, range: std::ops::Range<u64>) -> anyhow::Result<Part> {
        let left = range.end - range.start;
        let key = Class::Pack.key(pack);
        let body = self.objects().bucket().get(&key, Some(range)).await.with_context(|| format!("read {key}"))?;
        Ok(Part { pack: *pack, body, here: Bytes::new(), left })
    }
}

impl Part {
    /// The next `count` bytes. With the last ones, it is certain that no more come.
    pub(super) async fn read(&mut self, count: u64) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(count)?.min(BELIEVED));
        self.take(count, |piece| bytes.extend_from_slice(piece)).await?;
        Ok(bytes)
    }

    /// Passes over the next `count` bytes.
    pub(super) async fn skip(&mut self, count: u64) -> anyhow::Result<()> {
        self.take(count, |_| ()).await
    }

    async fn take(&mut self, mut count: u64, mut each: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let what = || format!("read {}", Class::Pack.key(&self.pack));
        loop {
            let now = self.here.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            each(&self.here[..now]);
            self.here.advance(now);
            count -= now as u64;
            self.left -= now as u64;
            if count == 0 && self.left > 0 {
                return Ok(());
            }
            match self.body.next().await {
                Some(piece) => self.here = piece.with_context(what)?,
                None if count == 0 => return Ok(()),
                None => {
                    let why = format!("{} bytes of it are missing", self.left);
                    return Err(Damaged { class: Class::Pack, id: self.pack, why }.into());
                }
            }
            if self.here.len() as u64 > self.left {
                return Err(anyhow::anyhow!("more was sent than was asked for")).with_context(what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// Ten bytes, of which so many come.
    fn ten(come: u8) -> Part {
        let bytes: Vec<u8> = (0..come).collect();
        let pieces: Vec<_> = bytes.chunks(3).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Part { pack: Id::of(b"pack"), body: stream::iter(pieces).boxed(), here: Bytes::new(), left: 10 }
    }

    #[tokio::test]
    async fn bytes_are_taken_and_passed_over_however_they_come() {
        let mut part = ten(10);
        assert_eq!(part.read(4).await.unwrap(), [0, 1, 2, 3]);
        part.skip(3).await.unwrap();
        assert_eq!(part.read(3).await.unwrap(), [7, 8, 9]);
    }

    #[tokio::test]
    async fn what_comes_before_the_end_of_a_short_pack_is_there_and_more_than_was_asked_for_is_noticed() {
        let mut short = ten(8);
        assert_eq!(short.read(5).await.unwrap(), [0, 1, 2, 3, 4]);
        let why = short.read(5).await.unwrap_err().to_string();
        assert!(why.contains("2 bytes of it are missing"), "{why}");
        let mut long = ten(11);
        assert_eq!(long.read(9).await.unwrap().len(), 9);
        let why = format!("{:#}", long.read(1).await.unwrap_err());
        assert!(why.contains("more was sent than was asked for"), "{why}");
    }
}
