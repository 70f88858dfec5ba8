//! Resource limits that a child has from its first moment: they are ours while it is forked, and set back at once.
//!
//! One of them is a mark. A limit is inherited over `fork`, `exec`, `setsid` and a cleared environment, every process may
//! read every other's, and setting it needs no privilege. The soft limit on uninterrupted real-time processor time counts
//! microseconds, so a number of some hundred thousand years limits nothing, and is free to tell which run a process is of.
use std::{
    io,
    sync::{Mutex, OnceLock, PoisonError},
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::process::Child;

/// The limit on open files with which this process was started.
static OPEN_FILES: OnceLock<Rlimit> = OnceLock::new();

/// Lets this process open as many files as its hard limit allows. What it starts gets the limit with which it was itself
/// started: a program that uses `select` cannot count beyond 1024.
pub fn raise_open_files() {
    let started_with = *OPEN_FILES.get_or_init(|| getrlimit(Resource::Nofile));
    // Refused, the old limit stays in force, and it is enough for most.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: started_with.maximum, ..started_with });
}

/// Starts a child that is marked with `mark`.
pub(super) fn start(mark: u64, child: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // Refused where the hard limit is lower: the mark in the environment is left.
    let _marked = Changed::to(Resource::Rttime, mark);
    let few = OPEN_FILES
        .get()
        .and_then(|limit| limit.current)
        .filter(|limit| Some(*limit) != getrlimit(Resource::Nofile).current);
    let Some(few) = few else { return child() };
    // With more open than that, another thread could meet the low limit; the child gets it a moment late then.
    if are_open_at_least(few / 2) {
        let child = child()?;
        if let Some(id) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
            let _ = prlimit(Some(id), Resource::Nofile, Rlimit { current: Some(few), ..getrlimit(Resource::Nofile) });
        }
        return Ok(child);
    }
    let _few = Changed::to(Resource::Nofile, few);
    child()
}

/// The mark that a process carries, as it stands in its `limits`.
pub(super) fn mark_in(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout")?.split_whitespace().next()?.parse().ok())
}

fn are_open_at_least(files: u64) -> bool {
    let most = usize::try_from(files).unwrap_or(usize::MAX);
    std::fs::read_dir("/proc/self/fd").map_or(true, |open| open.take(most).count() >= most)
}

/// A soft limit of ours that is set back when this is dropped.
struct Changed(Resource, Rlimit);

impl Changed {
    fn to(resource: Resource, soft: u64) -> Option<Self> {
        let before = getrlimit(resource);
        setrlimit(resource, Rlimit { current: Some(soft), ..before }).ok().map(|()| Self(resource, before))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // Up to the hard limit everyone may.
        let _ = setrlimit(self.0, self.1);
    }
}
