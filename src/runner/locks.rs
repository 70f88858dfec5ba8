//! Named locks, and paths that are in each other's way.
use std::{
    collections::HashMap,
    fmt,
    path::{Component, Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// The name of a thing that no two runs touch at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Lock {
    /// `path:/srv/photos` is also in the way of everything above and below it.
    Path(PathBuf),
    Name(String),
}

#[derive(Debug, Default)]
pub(super) struct Held {
    locks: HashMap<Lock, Arc<str>>,
    /// How many locked paths there are below a path.
    below: HashMap<PathBuf, usize>,
}

/// Counts one less; a count of nothing is forgotten.
pub(super) fn decrease<K: std::hash::Hash + Eq + std::borrow::Borrow<Q>, Q: std::hash::Hash + Eq + ?Sized>(
    counts: &mut HashMap<K, usize>,
    key: &Q,
) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Lock {
    fn new(name: &str, home: &Path) -> Self {
        match name.strip_prefix("path:") {
            Some(path) => Self::Path(one_name(&home.join(path))),
            None => Self::Name(name.to_owned()),
        }
    }

    /// The locks of one run: each once, and no path below another of them. Paths are relative to `home`, and two names of one
    /// place are one lock.
    pub(super) fn all(names: &[String], home: &Path) -> Vec<Self> {
        let mut locks: Vec<_> = names.iter().map(|name| Self::new(name, home)).collect();
        locks.sort();
        locks.dedup();
        let mut kept: Vec<Self> = Vec::new();
        for lock in locks {
            let covered =
                matches!((kept.last(), &lock), (Some(Self::Path(above)), Self::Path(path)) if path.starts_with(above));
            if !covered {
                kept.push(lock);
            }
        }
        kept
    }
}

/// How long we wait to be told where a path leads: a network share may never answer, and others wait behind this run.
const PATIENCE: Duration = Duration::from_secs(1);

/// The one name of a place: without `.`, `..` and symbolic links. A share that does not answer keeps the name it was given.
fn one_name(path: &Path) -> PathBuf {
    let (send, answer) = mpsc::channel();
    let asked = path.to_owned();
    let thread = thread::Builder::new().spawn(move || send.send(followed(&asked)));
    thread.ok().and_then(|_| answer.recv_timeout(PATIENCE).ok()).unwrap_or_else(|| spelled_out(path))
}

/// Where a path leads. What is not there yet is named from the last folder that is.
fn followed(path: &Path) -> PathBuf {
    let (mut there, mut missing) = (path, Vec::new());
    loop {
        if let Ok(found) = there.canonicalize() {
            return spelled_out(&missing.iter().rev().fold(found, |found, part| found.join(part)));
        }
        match (there.components().next_back(), there.parent()) {
            (Some(part), Some(above)) => {
                missing.push(part);
                there = above;
            }
            _ => return spelled_out(path),
        }
    }
}

/// A path without `.` and `..`, by its letters alone: `/srv//photos/` and `/srv/x/../photos` are one place.
fn spelled_out(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            // Above the root is the root.
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

impl Held {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.below.is_empty()
    }

    /// Who holds something that keeps `lock` from being taken.
    pub(super) fn in_the_way(&self, lock: &Lock) -> Option<Arc<str>> {
        let holder = match lock {
            Lock::Name(_) => self.locks.get(lock),
            Lock::Path(path) => path
                .ancestors()
                .find_map(|above| self.locks.get(&Lock::Path(above.to_owned())))
                .or_else(|| self.below.contains_key(path).then(|| self.below(path)).flatten()),
        };
        holder.cloned()
    }

    fn below(&self, path: &Path) -> Option<&Arc<str>> {
        self.locks.iter().find_map(|(lock, who)| match lock {
            Lock::Path(below) if below.starts_with(path) => Some(who),
            _ => None,
        })
    }

    pub(super) fn take(&mut self, locks: &[Lock], who: &Arc<str>) {
        for lock in locks {
            if let Lock::Path(path) = lock {
                for above in path.ancestors().skip(1) {
                    *self.below.entry(above.to_owned()).or_default() += 1;
                }
            }
            self.locks.insert(lock.clone(), Arc::clone(who));
        }
    }

    pub(super) fn release(&mut self, locks: &[Lock]) {
        for lock in locks {
            if let Lock::Path(path) = lock {
                for above in path.ancestors().skip(1) {
                    decrease(&mut self.below, above);
                }
            }
            self.locks.remove(lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_of_one_place_are_one_lock() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(home.join("disk/photos")).unwrap();
        std::os::unix::fs::symlink("disk", home.join("link")).unwrap();
        std::os::unix::fs::symlink(home.join("nowhere"), home.join("dangling")).unwrap();
        let lock = |path: &str| Lock::all(&[format!("path:{path}")], &home);
        let place = vec![Lock::Path(home.join("disk/photos"))];
        let absolute = format!("{}/link/photos", home.display());
        for name in
            ["disk/photos", "link/photos", "./disk//photos/", "link/../disk/photos", "disk/photos/../photos", &absolute]
        {
            assert_eq!(lock(name), place, "{name}");
        }
        // What is not there yet may be made below a link.
        assert_eq!(lock("link/new/deep"), [Lock::Path(home.join("disk/new/deep"))]);
        assert_eq!(lock("link/new/../other"), [Lock::Path(home.join("disk/other"))]);
        assert_eq!(lock("dangling/x"), [Lock::Path(home.join("dangling/x"))]);
        assert_eq!(lock("/../.."), [Lock::Path("/".into())]);
        let both = ["path:link/photos/2026", "path:disk", "name", "name"].map(str::to_owned);
        assert_eq!(Lock::all(&both, &home), [Lock::Path(home.join("disk")), Lock::Name("name".into())]);
    }
}
