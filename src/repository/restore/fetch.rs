//! Fetching ranges of packs: each comes as one stream, and its blobs are written wherever they belong while the next ones are
//! on their way.
use std::{ops, sync::Arc};

use anyhow::Context as _;
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Id, Repository, blobs::open_blob, index::Place, pack::Blob, ranges::Range},
    Shared, fatal,
    file::FilePlan,
};
use crate::tree::{Listener, cancelled_error};

/// So many bytes of blobs are in memory at once, sealed and opened; a larger blob is there alone.
const ROOM: u32 = 32 << 20;
/// A pack is rarely longer; what is shorter is not worth a request.
const LONGEST: u32 = 16 << 20;
const SHORTEST: u32 = 4 << 20;

/// Where a blob belongs: a file, and where in it.
pub(super) type Wanted = Vec<(Arc<FilePlan>, u64)>;

/// Fetches for all batches.
pub(super) struct Fetcher {
    repository: Repository,
    pub(super) runtime: Handle,
    listener: Arc<dyn Listener>,
    /// What is under way ends early: all was cancelled, or has failed.
    stop: CancellationToken,
    pub(super) shared: Arc<Shared>,
    /// So many ranges come at once, of all batches together.
    at_once: usize,
    turns: Semaphore,
    room: Semaphore,
}

impl Fetcher {
    pub(super) fn new(
        repository: Repository,
        runtime: Handle,
        listener: Arc<dyn Listener>,
        stop: CancellationToken,
    ) -> Self {
        // While some are written, others come.
        let at_once = (2 * repository.options().connections).max(repository.options().threads);
        let (turns, room) = (Semaphore::new(at_once), Semaphore::new(ROOM as usize));
        Self { repository, runtime, listener, stop, shared: Arc::default(), at_once, turns, room }
    }

    /// How long the ranges of a batch may be, so that there are some for everyone: the longer, the fewer are asked for.
    pub(super) fn longest(&self, bytes: u64) -> u32 {
        let share = bytes / self.at_once as u64;
        u32::try_from(share).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
    }

    /// Fetches a range when its turn comes. A failure that concerns all ends the others too.
    pub(super) async fn fetch(self: Arc<Self>, range: Range<Wanted>) {
        let fetcher = Arc::clone(&self);
        let fetching = async {
            let _turn = self.turns.acquire().await?;
            tokio::task::spawn_blocking(move || fetcher.range(range)).await.context("a thread died")?
        };
        if let Err(error) = fetching.await {
            self.shared.give_up(error);
            self.stop.cancel();
        }
    }

    fn range(&self, range: Range<Wanted>) -> anyhow::Result<()> {
        let Range { pack, begin, end, blobs } = range;
        let is_alone = blobs.len() == 1;
        let mut left = blobs.into_iter();
        let Err(error) = self.stream(pack, begin..end, &mut left) else { return Ok(()) };
        let why = fatal(error)?;
        for (blob, wanted) in left {
            if is_alone {
                for (plan, _) in wanted {
                    plan.fail(&why);
                    self.shared.finished(&plan, plan.done(&self.shared));
                }
            } else {
                // It breaks off somewhere: each blob by itself tells which are whole.
                let (begin, end) = (blob.offset, blob.offset.saturating_add(blob.length));
                self.range(Range { pack, begin, end, blobs: vec![(blob, wanted)] })?;
            }
        }
        Ok(())
    }

    /// Writes blobs as they come. Those that did not come are left.
    fn stream(
        &self,
        pack: Id,
        range: ops::Range<u32>,
        blobs: &mut std::vec::IntoIter<(Blob, Wanted)>,
    ) -> anyhow::Result<()> {
        let mut at = range.start;
        let mut part = self.wait(self.repository.begin_part(&pack, range.start.into()..range.end.into()))?;
        while let Some(&(blob, _)) = blobs.as_slice().first() {
            let _room = self.wait(async { Ok(self.room.acquire_many(weight(&blob)).await?) })?;
            self.wait(part.skip((blob.offset - at).into()))?;
            let sealed = self.wait(part.read(blob.length.into()))?;
            at = blob.offset.saturating_add(blob.length);
            let Some((blob, wanted)) = blobs.next() else { break };
            self.write(&Place { pack, blob }, sealed, wanted)?;
        }
        Ok(())
    }

    fn write(&self, place: &Place, mut sealed: Vec<u8>, wanted: Wanted) -> anyhow::Result<()> {
        let opened = open_blob(self.repository.objects().key(), place, &mut sealed);
        for (plan, offset) in wanted {
            match &opened {
                Ok(content) => match plan.write(content, offset) {
                    Ok(()) => self.shared.with(|restored| {
                        restored.bytes += content.len() as u64;
                        self.listener.progress(restored.bytes, None);
                    }),
                    Err(error) => plan.fail(&fatal(error)?),
                },
                Err(damaged) => plan.fail(&damaged.to_string()),
            }
            self.shared.finished(&plan, plan.done(&self.shared));
        }
        Ok(())
    }

    /// Unless all ends before.
    fn wait<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(cancelled_error().into()),
                done = work => done,
            }
        })
    }
}

/// What a blob takes in memory.
fn weight(blob: &Blob) -> u32 {
    blob.length.saturating_add(blob.plain.unwrap_or(0)).min(ROOM)
}
