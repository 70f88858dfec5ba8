//! All processes that came of one run, wherever they have gone: found by a mark and by their parents.
//!
//! A process group is not enough: `setsid` leaves it. The mark is inherited by everything that the run starts, also after
//! a double fork, and there are two of it: in the environment, which a process may clear, and in a resource limit (see
//! [`inherited`]), which a process can set anew and hardly one does. Neither adopting orphans nor a control group tells
//! more: an adopted orphan does not say which of the runs at work it is of, and a control group is rarely ours to make.
use std::{
    collections::HashSet,
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::inherited;
use crate::model::RunId;

/// The processes of one run, or others that have a mark in common.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The mark, in the environment.
    variables: Vec<(&'static str, OsString)>,
    /// The mark, as a limit.
    number: u64,
    /// A process that belongs to it even without the mark, and so does its group.
    root: Option<i32>,
    /// That process has ended and was reaped: only its group is meant.
    reaped: bool,
}

/// What it took to end a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Processes that were asked to stop.
    pub asked: usize,
    /// Processes that were killed because they had not.
    pub killed: usize,
    /// Processes that are still there, stuck in the kernel or not ours to kill.
    pub left: usize,
}

/// A process, told apart from a later one of the same number by when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    id: i32,
    parent: i32,
    group: i32,
    began: u64,
}

impl Tree {
    /// The tree of this run of this home. Both are in the mark: two servers on one machine number their runs alike.
    #[must_use]
    pub fn new(home: &Path, run: RunId) -> Self {
        // The same path at the next start, wherever that is done from and however it is written.
        let home: PathBuf = std::path::absolute(home).unwrap_or_else(|_| home.to_owned()).components().collect();
        let hash = Sha256::new().chain_update(home.as_os_str().as_bytes()).chain_update(run.0.to_le_bytes());
        Self::marked(vec![("RUSUBAN_HOME", home.into_os_string()), ("RUSUBAN_RUN", run.to_string().into())], hash)
    }

    /// What has this variable in its environment, and what is below it. Its value must be one that nobody else could have.
    #[must_use]
    pub fn of_variable(name: &'static str, value: &str) -> Self {
        Self::marked(vec![(name, value.into())], Sha256::new().chain_update(name).chain_update(value))
    }

    fn marked(variables: Vec<(&'static str, OsString)>, hash: Sha256) -> Self {
        let first = hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        // So large that it limits nothing, and another for each mark.
        Self { variables, number: 1 << 62 | first >> 2, root: None, reaped: false }
    }

    /// The mark, for the environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        self.variables.clone()
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn with_root(&self, id: Option<u32>) -> Self {
        Self { root: id.and_then(|id| id.try_into().ok()), ..self.clone() }
    }

    pub(super) fn root_ended(&mut self) {
        self.reaped = true;
    }

    /// Sends `signal` to each of its processes; says to how many.
    pub async fn signal(&self, signal: Signal) -> usize {
        let tree = self.clone();
        tokio::task::spawn_blocking(move || tree.signal_now(signal)).await.unwrap_or_default()
    }

    /// As [`Tree::signal`], at once; it reads all of `/proc`.
    pub(super) fn signal_now(&self, signal: Signal) -> usize {
        self.members().into_iter().filter(|process| process.signal(signal)).count()
    }

    /// Ends it: SIGTERM, then up to `grace` for the processes to go, then SIGKILL for those that are left.
    pub async fn end(&self, grace: Duration) -> Ending {
        let tree = self.clone();
        let members = || {
            let tree = tree.clone();
            async move { tokio::task::spawn_blocking(move || tree.members()).await.unwrap_or_default() }
        };
        let mut ending = Ending::default();
        let mut left = members().await;
        if left.is_empty() {
            return ending;
        }
        let until = Instant::now() + grace;
        if !grace.is_zero() {
            ending.asked = left.iter().filter(|process| process.signal(Signal::TERM)).count();
            while Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(50)).await;
                left.retain(Process::is_there);
                if left.is_empty() {
                    left = members().await;
                    if left.is_empty() {
                        return ending;
                    }
                }
            }
        }
        // A process may be born while we look: look again until there is none.
        let mut killed = HashSet::new();
        for _ in 0..50 {
            left = members().await;
            if left.is_empty() {
                break;
            }
            killed.extend(left.iter().copied().filter(|process| process.signal(Signal::KILL)));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ending { killed: killed.len(), left: left.len(), ..ending }
    }

    /// Every process with the mark, those below them, and the root with its group.
    fn members(&self) -> Vec<Process> {
        let ours = i32::try_from(std::process::id()).unwrap_or_default();
        let all: Vec<_> = processes().filter(|process| process.id != ours).collect();
        let entry = |(name, value): &(&str, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
        let mark: Vec<_> = self.variables.iter().map(entry).collect();
        let mut found: HashSet<i32> = all
            .iter()
            .filter(|process| {
                Some(process.group) == self.root
                    || (Some(process.id) == self.root && !self.reaped)
                    || process.has_in_limits(self.number)
                    || process.has_in_environment(&mark)
            })
            .map(|process| process.id)
            .collect();
        loop {
            let before = found.len();
            let below = all.iter().filter(|process| found.contains(&process.parent)).map(|process| process.id);
            found.extend(below.collect::<Vec<_>>());
            if found.len() == before {
                break;
            }
        }
        all.into_iter().filter(|process| found.contains(&process.id)).collect()
    }
}

/// Every process there is, but those that have ended and only wait to be reaped.
fn processes() -> impl Iterator<Item = Process> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| Process::read(std::str::from_utf8(entry.ok()?.file_name().as_bytes()).ok()?.parse().ok()?))
}

impl Process {
    fn read(id: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the fields after it are numbered from 3 in proc(5).
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { id, parent, group, began: fields.nth(16)?.parse().ok()? })
    }

    fn is_there(&self) -> bool {
        Self::read(self.id).is_some_and(|now| now.began == self.began)
    }

    fn has_in_limits(&self, mark: u64) -> bool {
        std::fs::read_to_string(format!("/proc/{}/limits", self.id))
            .is_ok_and(|limits| inherited::mark_in(&limits) == Some(mark))
    }

    fn has_in_environment(&self, entries: &[Vec<u8>]) -> bool {
        let Ok(environment) = std::fs::read(format!("/proc/{}/environ", self.id)) else { return false };
        entries.iter().all(|entry| environment.split(|byte| *byte == 0).any(|variable| variable == entry))
    }

    /// Sends a signal to this process and to no later one of its number.
    fn signal(&self, signal: Signal) -> bool {
        let Some(id) = Pid::from_raw(self.id) else { return false };
        match rustix::process::pidfd_open(id, PidfdFlags::empty()) {
            Ok(handle) => self.is_there() && rustix::process::pidfd_send_signal(&handle, signal).is_ok(),
            // An old kernel or a strict sandbox has no such handle.
            Err(_) => self.is_there() && rustix::process::kill_process(id, signal).is_ok(),
        }
    }
}
