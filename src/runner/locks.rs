//! Named locks, and paths that are in each other's way.
use std::{
    collections::HashMap,
    fmt,
    path::{Component, Path, PathBuf},
    sync::Arc,
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
    fn new(name: &str) -> Self {
        match name.strip_prefix("path:") {
            // `/srv//photos/` and `/srv/./photos` are one place.
            Some(path) => Self::Path(Path::new(path).components().filter(|part| *part != Component::CurDir).collect()),
            None => Self::Name(name.to_owned()),
        }
    }

    /// The locks of one run: each once, and no path below another of them.
    pub(super) fn all(names: &[String]) -> Vec<Self> {
        let mut locks: Vec<_> = names.iter().map(|name| Self::new(name)).collect();
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
