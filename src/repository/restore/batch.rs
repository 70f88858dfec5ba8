//! Files that are restored together: each blob is fetched once, neighbours in one go, several packs at a time.
use std::{collections::HashMap, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use rustix::fd::OwnedFd;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Id, Repository,
        blobs::open_blob,
        index::Place,
        pack::Blob,
        ranges::{Range, ranges},
    },
    Restoring, Shared, fatal,
    file::{FilePlan, Finished},
};
use crate::tree::{Dress, Listener, cancelled_error};

/// So many bytes, files or folders are planned before they are done.
const BYTES: u64 = 64 << 20;
const FILES: usize = 2048;
const FOLDERS: usize = 128;
/// Where a blob belongs: a file, and where in it.
type Wanted = Vec<(Arc<FilePlan>, u64)>;

/// What is done at once.
#[derive(Default)]
pub(super) struct Batch {
    wanted: HashMap<(Id, u32), (Blob, Wanted)>,
    bytes: u64,
    places: usize,
    /// Folders whose content is complete when the batch is done: they get their times then.
    pub(super) folders: Vec<(Arc<OwnedFd>, Dress, PathBuf)>,
}

impl Batch {
    pub(super) fn add(&mut self, place: Place, plan: &Arc<FilePlan>, offset: u64) {
        let Place { pack, blob } = place;
        self.bytes += u64::from(blob.length);
        self.places += 1;
        let (_, wanted) = self.wanted.entry((pack, blob.offset)).or_insert_with(|| (blob, Vec::new()));
        wanted.push((Arc::clone(plan), offset));
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BYTES || self.places >= FILES || self.folders.len() >= FOLDERS
    }

    /// Begins to fetch it. While it is under way, the next one is planned.
    pub(super) fn start(self, restoring: &Restoring) -> UnderWay {
        let Self { wanted, folders, .. } = self;
        let Restoring { repository, shared, listener, stop, turns, at_once, .. } = restoring;
        let (repository, shared, listener) = (repository.clone(), Arc::clone(shared), Arc::clone(listener));
        let (stop, turns, at_once) = (stop.clone(), Arc::clone(turns), *at_once);
        let fetching = restoring.runtime.spawn(async move {
            let wanted = wanted.into_iter().map(|((pack, _), (blob, wanted))| (pack, blob, wanted)).collect();
            let mut fetching = stream::iter(ranges(wanted))
                .map(|range| async {
                    // Those of several batches share them.
                    let _turn = turns.acquire().await?;
                    fetch(&repository, range, &shared, &listener, &stop).await
                })
                .buffer_unordered(at_once);
            // After the first failure the others are ended, and not left to themselves: they may be writing.
            while let Some(fetched) = fetching.next().await {
                if let Err(error) = fetched {
                    shared.give_up(error);
                    stop.cancel();
                }
            }
        });
        UnderWay { fetching, folders }
    }
}

/// A batch that is being fetched.
pub(super) struct UnderWay {
    fetching: JoinHandle<()>,
    folders: Vec<(Arc<OwnedFd>, Dress, PathBuf)>,
}

impl UnderWay {
    /// Waits until all is there. The batches before it must have ended: then its folders are complete, and get their times.
    pub(super) fn end(self, restoring: &Restoring) -> anyhow::Result<()> {
        restoring.runtime.block_on(self.fetching).context("the task that fetches died")?;
        restoring.shared.gave_up()?;
        for (folder, dress, path) in self.folders {
            let shared = &restoring.shared;
            if let Err(error) = dress.open(&*folder, &mut |why| shared.warn(&path, &why)) {
                shared.fail(&path, &format!("{error:#}"));
            }
        }
        Ok(())
    }
}

async fn fetch(
    repository: &Repository,
    range: Range<Wanted>,
    shared: &Arc<Shared>,
    listener: &Arc<dyn Listener>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if stop.is_cancelled() {
        return Err(cancelled_error().into());
    }
    let Range { pack, begin, end, blobs } = range;
    let fetched = tokio::select! {
        fetched = repository.part(&pack, u64::from(begin)..u64::from(end)) => fetched,
        () = stop.cancelled() => return Err(cancelled_error().into()),
    };
    let mut bytes = match fetched {
        Ok(bytes) => bytes,
        // It breaks off somewhere in this range: each blob by itself tells which are whole.
        Err(error) if blobs.len() > 1 => {
            fatal(error)?;
            for (blob, wanted) in blobs {
                let (begin, end) = (blob.offset, blob.offset.saturating_add(blob.length));
                let alone = Range { pack, begin, end, blobs: vec![(blob, wanted)] };
                Box::pin(fetch(repository, alone, shared, listener, stop)).await?;
            }
            return Ok(());
        }
        Err(error) => {
            let why = fatal(error)?;
            for (plan, _) in blobs.into_iter().flat_map(|(_, wanted)| wanted) {
                plan.fail(&why);
                told(shared, &plan, plan.done(shared));
            }
            return Ok(());
        }
    };
    let (key, shared, listener) = (repository.objects().key().clone(), Arc::clone(shared), Arc::clone(listener));
    let writing = tokio::task::spawn_blocking(move || {
        for (blob, wanted) in blobs {
            let at = (blob.offset - begin) as usize;
            let opened = open_blob(&key, &Place { pack, blob }, &mut bytes[at..at + blob.length as usize]);
            for (plan, offset) in wanted {
                match &opened {
                    Ok(content) => match plan.write(content, offset) {
                        Ok(()) => {
                            shared.with(|restored| {
                                restored.bytes += content.len() as u64;
                                listener.progress(restored.bytes, None);
                            });
                        }
                        Err(error) => plan.fail(&fatal(error)?),
                    },
                    Err(damaged) => plan.fail(&damaged.to_string()),
                }
                told(&shared, &plan, plan.done(&shared));
            }
        }
        Ok(())
    });
    writing.await.context("a thread died")?
}

/// Tells what became of a file.
pub(super) fn told(shared: &Shared, plan: &FilePlan, finished: Finished) {
    if let Finished::Failed(why) = finished {
        shared.fail(&plan.path, &why);
    }
}
