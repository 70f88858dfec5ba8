//! Locks, as the restic format has them: objects that say who is at work, so that nobody prunes beneath a backup.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::{
    Id, Repository,
    objects::{Class, Damaged, Objects, is_missing},
};
use crate::{bucket::BucketError, clock::Clock};

/// A lock is written anew so often.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// One that was not written anew for so long is nobody's any more; restic counts the same.
const STALE: TimeDelta = TimeDelta::minutes(30);
/// Between writing our lock and looking whether another did so at the same moment; restic waits as long.
const SETTLE: Duration = Duration::from_millis(200);
/// We look again so often whether another's lock is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A lock as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// When it was written, last.
    pub time: DateTime<Utc>,
    /// Nobody else may be at work.
    pub exclusive: bool,
    /// Whose host.
    #[serde(default)]
    pub hostname: String,
    /// Whose user.
    #[serde(default)]
    pub username: String,
    /// Whose process.
    #[serde(default)]
    pub pid: u32,
    /// The user's number.
    #[serde(default)]
    pub uid: u32,
    /// The group's number.
    #[serde(default)]
    pub gid: u32,
}

/// Another is at work.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the repository is in use: process {} on {} holds {} lock since {}; if it is gone, `rusuban repository unlock` removes the lock",
    .0.pid, .0.hostname, if .0.exclusive { "an exclusive" } else { "a" }, .0.time.format("%Y-%m-%d %H:%M:%S UTC")
)]
pub struct Locked(pub LockFile);

/// What [`Repository::unlock`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unlocked {
    /// Locks that were removed.
    pub removed: Vec<LockFile>,
    /// And those that could not be read.
    pub unreadable: Vec<Id>,
    /// How many are still there.
    pub left: usize,
}

/// Our lock. Release it; dropped, it is released soon after if the runtime lives.
#[derive(Debug)]
pub struct Lock {
    objects: Objects,
    current: Arc<Mutex<Option<Id>>>,
    refreshing: JoinHandle<()>,
    stale: Stale,
}

/// Locks of processes that are gone.
#[derive(Debug, Default)]
struct Stale {
    removed: Vec<LockFile>,
    /// There are some that our key may not remove.
    stays: bool,
}

/// Locks that this process holds: one with our number that is not among them was left behind by another with the same
/// number, as happens in containers, where everybody is number 1.
static HELD: Mutex<Vec<Id>> = Mutex::new(Vec::new());

fn held() -> std::sync::MutexGuard<'static, Vec<Id>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lock {
    /// Takes a lock, waiting for others at most as long as `patience`. Locks of processes of this host that are gone
    /// are removed; [`Lock::removed`] tells which.
    ///
    /// # Errors
    /// [`Locked`], or when the bucket cannot be read or written.
    pub async fn take(
        repository: &Repository,
        exclusive: bool,
        host: &str,
        patience: Duration,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let objects = repository.objects();
        let begun = tokio::time::Instant::now();
        let mut stale = Stale::default();
        loop {
            let attempt = Self::attempt(objects, exclusive, host, &mut stale, clock).await?;
            match attempt {
                Ok(id) => return Ok(Self::keep(objects.clone(), id, exclusive, host.to_owned(), stale, clock.clone())),
                Err(other) if begun.elapsed() >= patience => return Err(Locked(other).into()),
                Err(_) => clock.sleep(LOOK_AGAIN).await,
            }
        }
    }

    async fn attempt(
        objects: &Objects,
        exclusive: bool,
        host: &str,
        stale: &mut Stale,
        clock: &Clock,
    ) -> anyhow::Result<Result<Id, LockFile>> {
        if let Some(other) = in_the_way(objects, exclusive, host, None, stale, clock.now()).await? {
            return Ok(Err(other));
        }
        let id = write(objects, exclusive, host, clock.now()).await?;
        clock.sleep(SETTLE).await;
        // Two that wrote at the same moment see each other here, and both step back.
        match in_the_way(objects, exclusive, host, Some(&id), stale, clock.now()).await {
            Ok(None) => Ok(Ok(id)),
            found => {
                remove(objects, &id).await?;
                found.map(|other| match other {
                    Some(other) => Err(other),
                    None => Ok(id),
                })
            }
        }
    }

    fn keep(objects: Objects, id: Id, exclusive: bool, host: String, stale: Stale, clock: Clock) -> Self {
        let current = Arc::new(Mutex::new(Some(id)));
        let (mine, at) = (Arc::clone(&current), objects.clone());
        let refreshing = tokio::spawn(async move {
            loop {
                clock.sleep(REFRESH).await;
                // If it cannot be written now, it is not stale for a while; the next round tries again.
                let Ok(fresh) = write(&at, exclusive, &host, clock.now()).await else { continue };
                let old = {
                    let mut current = mine.lock().unwrap_or_else(PoisonError::into_inner);
                    current.replace(fresh)
                };
                if let Some(old) = old
                    && let Err(error) = remove(&at, &old).await
                {
                    tracing::warn!(error = format!("{error:#}"), "an old lock stays behind");
                }
            }
        });
        Self { objects, current, refreshing, stale }
    }

    /// Locks of dead processes that were removed.
    #[must_use]
    pub fn removed(&self) -> &[LockFile] {
        &self.stale.removed
    }

    /// Processes died here: what they were at may be half done.
    #[must_use]
    pub fn others_died(&self) -> bool {
        self.stale.stays || !self.stale.removed.is_empty()
    }

    /// Gives it back. Where our key may not delete, it stays, and is stale after half an hour.
    ///
    /// # Errors
    /// When the bucket fails.
    pub async fn release(self) -> anyhow::Result<()> {
        self.refreshing.abort();
        let id = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        match id {
            Some(id) => remove(&self.objects, &id).await.context("release the lock").map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.refreshing.abort();
        let id = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(id), Ok(runtime)) = (id, tokio::runtime::Handle::try_current()) {
            let objects = self.objects.clone();
            runtime.spawn(async move { remove(&objects, &id).await });
        }
    }
}

impl Repository {
    /// All locks that are whole.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn locks(&self) -> anyhow::Result<Vec<(Id, LockFile)>> {
        let found = read(self.objects(), None).await?;
        Ok(found.into_iter().filter_map(|(id, lock)| Some((id, lock.ok()?))).collect())
    }

    /// Removes locks: those of dead processes and those that were not written anew for half an hour; with `all`, all.
    ///
    /// # Errors
    /// When they cannot be read or removed.
    pub async fn unlock(&self, all: bool, host: &str, clock: &Clock) -> anyhow::Result<Unlocked> {
        let mut done = Unlocked::default();
        for (id, lock) in read(self.objects(), None).await? {
            let goes = all || lock.as_ref().is_ok_and(|lock| is_stale(&id, lock, host, clock.now()));
            if !goes {
                done.left += 1;
                continue;
            }
            if !remove(self.objects(), &id).await? {
                bail!("this key may not remove locks; ask somebody with another key");
            }
            match lock {
                Ok(lock) => done.removed.push(lock),
                Err(_) => done.unreadable.push(id),
            }
        }
        Ok(done)
    }
}

/// A lock of another that forbids ours. Stale ones are removed on the way.
async fn in_the_way(
    objects: &Objects,
    exclusive: bool,
    host: &str,
    ours: Option<&Id>,
    stale: &mut Stale,
    now: DateTime<Utc>,
) -> anyhow::Result<Option<LockFile>> {
    let mut found = None;
    for (id, lock) in read(objects, ours).await? {
        let lock = lock.context(
            "somebody's lock cannot be read; if nobody is at work, `rusuban repository unlock NAME --all` removes it",
        )?;
        if is_stale(&id, &lock, host, now) {
            match remove(objects, &id).await.context("remove the lock of a process that is gone")? {
                true => stale.removed.push(lock),
                false => stale.stays = true,
            }
        } else if exclusive || lock.exclusive {
            found = Some(lock);
        }
    }
    Ok(found)
}

/// All locks but ours.
async fn read(objects: &Objects, ours: Option<&Id>) -> anyhow::Result<Vec<(Id, Result<LockFile, Damaged>)>> {
    let mut locks = Vec::new();
    for (id, _) in objects.list(Class::Lock).await?.into_iter().filter(|(id, _)| Some(id) != ours) {
        let lock = match objects.load(Class::Lock, &id).await {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| Damaged {
                class: Class::Lock,
                id,
                why: error.to_string(),
            }),
            // Released meanwhile.
            Err(error) if is_missing(&error) => continue,
            Err(error) => Err(error.downcast()?),
        };
        locks.push((id, lock));
    }
    Ok(locks)
}

async fn write(objects: &Objects, exclusive: bool, host: &str, now: DateTime<Utc>) -> anyhow::Result<Id> {
    let lock = LockFile {
        time: now,
        exclusive,
        hostname: host.to_owned(),
        username: "rusuban".into(),
        pid: std::process::id(),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
    };
    let (id, sealed) = objects.seal(serde_json::to_vec(&lock)?)?;
    // Before it is there: otherwise another of our own might take it for stale.
    held().push(id);
    let put = objects.put(Class::Lock, &id, sealed).await;
    if put.is_err() {
        held().retain(|held| *held != id);
    }
    put.map(|()| id)
}

/// Whether it is gone: a key may be one that only adds.
async fn remove(objects: &Objects, id: &Id) -> anyhow::Result<bool> {
    let removed = objects.remove(Class::Lock, id).await;
    held().retain(|held| held != id);
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(BucketError::Refused(_)))) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_stale(id: &Id, lock: &LockFile, host: &str, now: DateTime<Utc>) -> bool {
    // A clock that was set does not make a lock older: one from the future is as good as one from now.
    if now - lock.time > STALE {
        return true;
    }
    if lock.hostname != host || lock.hostname.is_empty() {
        return false;
    }
    if lock.pid == std::process::id() {
        return !held().contains(id);
    }
    !is_alive(lock.pid)
}

fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}
