//! Files that are restored together: each blob is fetched once, neighbours in one go, several packs at a time.
use std::{collections::HashMap, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use futures_util::future::join_all;
use rustix::fd::OwnedFd;
use tokio::task::JoinHandle;

use super::{
    super::{Id, index::Place, pack::Blob, ranges::ranges},
    Restoring,
    fetch::{Fetcher, Wanted},
    file::FilePlan,
};
use crate::tree::Dress;

/// So many bytes, files or folders are planned before they are done.
const BYTES: u64 = 256 << 20;
const FILES: usize = 4096;
const FOLDERS: usize = 128;

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
    pub(super) fn start(self, fetcher: &Arc<Fetcher>) -> UnderWay {
        let wanted = self.wanted.into_iter().map(|((pack, _), (blob, wanted))| (pack, blob, wanted)).collect();
        let fetching =
            ranges(wanted, fetcher.longest(self.bytes)).into_iter().map(|range| Arc::clone(fetcher).fetch(range));
        let fetching = fetching.map(|fetching| fetcher.runtime.spawn(fetching)).collect();
        UnderWay { fetching, folders: self.folders }
    }
}

/// A batch that is being fetched.
pub(super) struct UnderWay {
    fetching: Vec<JoinHandle<()>>,
    folders: Vec<(Arc<OwnedFd>, Dress, PathBuf)>,
}

impl UnderWay {
    /// Waits until all is there. The batches before it must have ended: then its folders are complete, and get their times.
    pub(super) fn end(self, restoring: &Restoring) -> anyhow::Result<()> {
        let fetched = restoring.runtime.block_on(join_all(self.fetching)).into_iter().collect::<Result<Vec<()>, _>>();
        fetched.context("a task that fetches died")?;
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
