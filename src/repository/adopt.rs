//! Packs that no index object names: an interrupted backup stored them. What is in them is in their headers.
use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};

use super::{
    Id, Index, Repository,
    index::IndexedPack,
    objects::Class,
    pack::{Blob, header_length, read_header},
};

/// Headers that are read at once.
const AT_ONCE: usize = 8;
/// Bytes read of a pack's end at first: most headers are shorter.
const TAIL: u64 = 16 << 10;

impl Repository {
    /// Whole packs that no index object names.
    ///
    /// # Errors
    /// When the bucket cannot be read. A pack that is not whole is passed over.
    pub async fn adopt(&self, index: &Index) -> anyhow::Result<Vec<IndexedPack>> {
        let known = index.packs();
        let packs = self.objects().list(Class::Pack).await?;
        let unknown = packs.into_iter().filter(|(id, _)| known.binary_search(id).is_err());
        let mut reading = stream::iter(unknown)
            .map(|(id, size)| async move { (id, self.header(&id, size).await) })
            .buffer_unordered(AT_ONCE);
        let mut found = Vec::new();
        while let Some((id, header)) = reading.next().await {
            match header {
                Ok(blobs) => found.push(IndexedPack::new(id, &blobs)),
                Err(error) => tracing::warn!(pack = %id, error = format!("{error:#}"), "a pack that is not whole"),
            }
        }
        Ok(found)
    }

    /// What is in a pack, by its own header.
    ///
    /// # Errors
    /// When it cannot be read, or is not whole.
    pub async fn header(&self, id: &Id, size: u64) -> anyhow::Result<Vec<Blob>> {
        let what = || format!("the pack {}", id.short());
        let begin = size.saturating_sub(TAIL);
        let mut tail = self.part(id, begin..size).await?;
        let last: [u8; 4] = *tail.last_chunk().context("it is shorter than four bytes").with_context(what)?;
        let length = header_length(last, size).with_context(what)?;
        if length > tail.len() as u64 {
            tail = self.part(id, size - length..size).await?;
        }
        // It fits what was read.
        let header = &tail[tail.len() - length as usize..];
        read_header(self.objects().key(), header, size).with_context(what)
    }
}
