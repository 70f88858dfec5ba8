//! A repository's life, made up at random: folders change, backups are made and forgotten, prunes run, processes die at any
//! operation, others are at work at the same time. A model remembers which backups must be there and what is in them.
//!
//! `RUSUBAN_MODEL=1000` walks through so many lives more, `RUSUBAN_MODEL=17..18` through a certain one.
#![expect(clippy::print_stderr, reason = "when a walk fails, its steps are told")]
use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use rusuban::{
    bucket::{Bucket, folder::Folder},
    clock::Clock,
    repository::{
        Backup, Cache, Class, Id, Key, Lock, Locked, Look, Options, PruneOptions, Repository, Setting, Unlock,
    },
    retention::{Generation, Keep, Rule, decide},
    tree::{Listener, Tree},
};

use super::{
    restore::noise,
    support::{PASSWORD, Place, SMALL},
};
use crate::support::{
    faulty::{Fault, Faulty},
    mutate::Random,
    restic::Restic,
    trees::{assert_equal, sh},
};

const STEPS: usize = 24;

macro_rules! walks {
    ($($name:ident: $seeds:expr,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                for seed in $seeds {
                    walk(seed).await;
                }
            }
        )*
    };
}

// Side by side, for most of their time they wait.
walks! {
    whatever_happens_every_backup_that_must_be_there_restores_a: 0..1,
    whatever_happens_every_backup_that_must_be_there_restores_b: 1..2,
    whatever_happens_every_backup_that_must_be_there_restores_c: 2..3,
    whatever_happens_every_backup_that_must_be_there_restores_d: 3..4,
    whatever_happens_every_backup_that_must_be_there_restores_on_longer_walks: more(),
}

/// As many walks more as the environment asks for.
#[expect(clippy::disallowed_methods, reason = "how whoever has time asks for more")]
fn more() -> Range<u64> {
    let Ok(wanted) = std::env::var("RUSUBAN_MODEL") else { return 0..0 };
    let number = |text: &str| text.parse().unwrap();
    wanted.split_once("..").map_or_else(|| 4..4 + number(&wanted), |(from, to)| number(from)..number(to))
}

/// A backup that must be there, and a copy of what is in it.
#[derive(Clone, Debug)]
struct Kept {
    at: DateTime<Utc>,
    job: &'static str,
    copy: PathBuf,
}

struct Walk {
    place: Place,
    key: Key,
    random: Random,
    seed: u64,
    /// What has happened, for people.
    trail: Vec<String>,
    kept: BTreeMap<Id, Kept>,
    copies: usize,
}

impl Drop for Walk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the walk with the seed {}:\n{}", self.seed, self.trail.join("\n"));
        }
    }
}

async fn walk(seed: u64) {
    let mut place = Place::new();
    place.clock = Clock::simulated("2027-03-01T12:00:00Z".parse().unwrap());
    fs::create_dir(place.path("original")).unwrap();
    let key = place.create(SMALL).await.objects().key().clone();
    let random = Random::new(seed + 1000);
    let mut walk = Walk { place, key, random, seed, trail: Vec::new(), kept: BTreeMap::new(), copies: 0 };
    for _ in 0..5 {
        walk.change();
    }
    for _ in 0..STEPS {
        walk.step().await;
        walk.look().await;
    }
    walk.end().await;
}

impl Walk {
    async fn step(&mut self) {
        if self.random.below(2) == 0 {
            self.change();
        }
        match self.random.below(20) {
            0..6 => self.back_up("photos", None).await,
            6..10 => {
                let fault = self.fault();
                self.back_up("photos", Some(fault)).await;
            }
            10..14 => self.forget(None).await,
            14 => {
                let fault = self.fault();
                self.forget(Some(fault)).await;
            }
            15 => self.prune(None).await,
            16 | 17 => {
                let fault = self.fault();
                self.prune(Some(fault)).await;
            }
            18 => self.two_at_once().await,
            _ => {
                let hours = self.random.below(40) as i64;
                self.place.clock.step(TimeDelta::hours(hours));
                self.trail.push(format!("{hours} hours pass"));
            }
        }
    }

    /// What goes wrong, and at which operation.
    fn fault(&mut self) -> (Fault, usize) {
        let faults = [Fault::Refused, Fault::Refused, Fault::Full, Fault::Before, Fault::After, Fault::Short];
        (faults[self.random.below(faults.len())], self.random.below(50))
    }

    /// Opens the repository through a bucket on such a day.
    async fn open(&mut self, fault: Option<(Fault, usize)>) -> (Repository, Faulty) {
        /// Operations by which it is opened.
        const OPENING: usize = 2;
        let days = move |operation: usize| {
            let (fault, at) = fault?;
            let operation = operation.checked_sub(OPENING)?;
            // Who is dead stays dead, and what is full stays full.
            let holds = if matches!(fault, Fault::Refused | Fault::Full) { operation >= at } else { operation == at };
            holds.then_some(fault)
        };
        let bucket = Faulty::new(Arc::new(Folder::new(self.place.path("repository"))), days);
        let cache = [Cache::default(), Cache::in_folder(self.place.path("cache"))][self.random.below(2)].clone();
        let options = Options { pack_size: 100_000, threads: 2, cache, ..Options::default() };
        let unlock = Unlock::Key(Box::new(self.key.clone()));
        let opened = Arc::new(bucket.clone()) as Arc<dyn Bucket>;
        (Repository::open(opened, &unlock, options).await.unwrap(), bucket)
    }

    /// What a process that died left locked is free again: somebody says so, or half an hour passes.
    async fn unlock(&mut self) {
        let (repository, _) = self.open(None).await;
        let locks = repository.objects().list(Class::Lock).await.unwrap().len();
        if locks == 0 {
            return;
        }
        if self.random.below(2) == 0 {
            repository.unlock(true, "here", &self.place.clock).await.unwrap();
        } else {
            self.place.clock.step(TimeDelta::minutes(31));
        }
        self.trail.push(format!("{locks} locks of the dead are free"));
    }

    fn change(&mut self) {
        let original = self.place.path("original");
        let file = |random: &mut Random| {
            original.join(["", "sub/", "sub/deep/"][random.below(3)]).join(random.below(8).to_string())
        };
        fs::create_dir_all(original.join("sub/deep")).unwrap();
        let mut said = Vec::new();
        for _ in 0..=self.random.below(5) {
            let (path, other) = (file(&mut self.random), file(&mut self.random));
            // Few contents and sizes, so that much is stored already.
            let bytes = noise([0, 100, 30_000, 90_000][self.random.below(4)], self.random.below(5) as u32 + 1);
            let short = |path: &Path| path.strip_prefix(&original).unwrap().display().to_string();
            said.push(match self.random.below(9) {
                4 if path.is_file() => {
                    let mut content = fs::read(&path).unwrap();
                    let at = self.random.below(content.len() + 1);
                    content.splice(at..at, b"more".iter().copied());
                    fs::write(&path, content).unwrap();
                    format!("{} has more", short(&path))
                }
                5 if path.is_file() => {
                    fs::remove_file(&path).unwrap();
                    format!("{} goes", short(&path))
                }
                6 if path.is_file() && fs::symlink_metadata(&other).is_err() => {
                    fs::hard_link(&path, &other).unwrap();
                    format!("{} is {} too", short(&other), short(&path))
                }
                7 if fs::symlink_metadata(&path).is_err() => {
                    std::os::unix::fs::symlink("somewhere", &path).unwrap();
                    format!("{} is a link", short(&path))
                }
                8 if path.is_file() => {
                    sh(&format!("chmod {} '{}'", ["600", "4711"][self.random.below(2)], path.display()));
                    format!("{} has other rights", short(&path))
                }
                _ => {
                    let _ = fs::remove_file(&path);
                    fs::write(&path, &bytes).unwrap();
                    format!("{} has {} bytes", short(&path), bytes.len())
                }
            });
        }
        self.trail.push(said.join(", "));
    }

    /// A copy of the folder as it is now.
    fn copy(&mut self) -> PathBuf {
        self.copies += 1;
        let copy = self.place.path(&format!("copy-{}", self.copies));
        sh(&format!("cp -a '{}' '{}'", self.place.path("original").display(), copy.display()));
        copy
    }

    fn setting(&self, job: &str) -> Setting {
        Setting { job: job.parse().unwrap(), ..self.place.setting() }
    }

    async fn back_up(&mut self, job: &'static str, fault: Option<(Fault, usize)>) {
        let copy = self.copy();
        let (repository, _) = self.open(fault).await;
        let begun = self.place.clock.now();
        let done = back_up(repository, self.setting(job), &self.place).await;
        self.trail.push(format!("a backup of {job} with {fault:?}: {}", told(&done)));
        self.unlock().await;
        self.remember(done.ok(), begun, job, copy, fault.is_none()).await;
        self.place.clock.step(TimeDelta::seconds(2));
    }

    /// Puts a backup in the model: it must be there if it was said to be. One that failed may be there if an answer was lost.
    async fn remember(&mut self, done: Option<Id>, at: DateTime<Utc>, job: &'static str, copy: PathBuf, must: bool) {
        assert!(done.is_some() || !must, "it failed without a fault");
        let (repository, _) = self.open(None).await;
        let there = repository.objects().list(Class::Snapshot).await.unwrap();
        let new: Vec<Id> = there.iter().map(|(id, _)| *id).filter(|id| !self.kept.contains_key(id)).collect();
        assert!(new.len() <= 1 && done.is_none_or(|done| new == [done]), "{done:?} of {new:?}");
        self.kept.extend(new.into_iter().map(|id| (id, Kept { at, job, copy: copy.clone() })));
    }

    async fn forget(&mut self, fault: Option<(Fault, usize)>) {
        let (repository, _) = self.open(fault).await;
        let generations: Vec<Generation> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.job == "photos")
            .map(|(id, kept)| Generation { id: id.to_string(), at: kept.at, bytes: 1, good: true })
            .collect();
        let keep =
            Keep { last: 1 + self.random.below(3) as u32, daily: self.random.below(3) as u32, ..Keep::default() };
        let decision = decide(&generations, Rule::Keep(keep), chrono_tz::UTC, self.place.clock.now());
        let mut said = Vec::new();
        for id in decision.remove {
            let id: Id = id.parse().unwrap();
            let removed = repository.objects().remove(Class::Snapshot, &id).await;
            let is_there = self.place.path("repository").join(Class::Snapshot.key(&id)).exists();
            assert!(removed.is_err() || !is_there);
            if !is_there {
                self.kept.remove(&id);
            }
            said.push(format!("{} {}", id.short(), if is_there { "stays" } else { "goes" }));
        }
        self.trail.push(format!("forget with {fault:?}: {}", said.join(", ")));
    }

    async fn prune(&mut self, fault: Option<(Fault, usize)>) {
        let (repository, _) = self.open(fault).await;
        let grace = TimeDelta::hours([0, 24][self.random.below(2)]);
        let options = PruneOptions { grace, ..PruneOptions::default() };
        let done = repository.prune(&options, "here", &*self.place.told, &self.place.clock).await;
        self.trail.push(format!("a prune with {fault:?} after {grace}: {}", told(&done)));
        assert!(done.is_ok() || fault.is_some(), "it failed without a fault");
        self.unlock().await;
    }

    /// A backup beside another one, or beside a prune, or beside restic.
    async fn two_at_once(&mut self) {
        let (copy, at) = (self.copy(), self.place.clock.now());
        let ((one, _), (other, _)) = (self.open(None).await, self.open(None).await);
        let first = back_up(one, self.setting("photos"), &self.place);
        match self.random.below(3) {
            0 => {
                let (first, second) = tokio::join!(first, back_up(other, self.setting("music"), &self.place));
                self.trail.push(format!("two backups at once: {}, {}", told(&first), told(&second)));
                for (id, job) in [(first.unwrap(), "photos"), (second.unwrap(), "music")] {
                    self.kept.insert(id, Kept { at, job, copy: copy.clone() });
                }
            }
            1 => {
                let options = PruneOptions { grace: TimeDelta::zero(), ..PruneOptions::default() };
                let pruning = other.prune(&options, "elsewhere", &*self.place.told, &self.place.clock);
                let (first, second) = tokio::join!(first, pruning);
                self.trail.push(format!("a backup and a prune at once: {}, {}", told(&first), told(&second)));
                // Whoever comes second steps back; if they come at the same moment, both.
                let stepped_back = |error: Option<&anyhow::Error>| error.is_none_or(|error| error.is::<Locked>());
                assert!(stepped_back(first.as_ref().err()) && stepped_back(second.as_ref().err()));
                self.remember(first.ok(), at, "photos", copy, false).await;
            }
            _ => {
                let repository = self.place.path("repository");
                let original = self.place.path("original");
                let theirs = tokio::task::spawn_blocking(move || Restic::new(&repository, PASSWORD).back_up(&original));
                let (first, theirs) = tokio::join!(first, theirs);
                theirs.unwrap();
                let first = first.unwrap();
                let (sound, _) = self.open(None).await;
                let (all, _) = sound.snapshots().await.unwrap();
                let (by_restic, _) =
                    all.iter().find(|(id, _)| *id != first && !self.kept.contains_key(id)).expect("restic's backup");
                self.trail.push(format!("beside restic: {} and {}", first.short(), by_restic.short()));
                self.kept.insert(*by_restic, Kept { at, job: "by restic", copy: copy.clone() });
                self.kept.insert(first, Kept { at, job: "photos", copy });
            }
        }
        self.place.clock.step(TimeDelta::seconds(2));
    }

    /// All that must be there is there, all of it is whole, and nobody has a lock that is not stale.
    async fn look(&mut self) {
        let (repository, _) = self.open(None).await;
        let (there, damaged) = repository.snapshots().await.unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        let mut there: Vec<Id> = there.iter().map(|(id, _)| *id).collect();
        there.sort();
        assert_eq!(there, self.kept.keys().copied().collect::<Vec<_>>());
        let look = Look { snapshots: None, data: 1.0, part: 0 };
        let listener = Arc::clone(&self.place.told) as Arc<dyn Listener>;
        let found = repository.check(&look, &listener, &self.place.cancelled).await.unwrap();
        assert!(found.is_whole(), "{found:?}");
        let lock = Lock::take(&repository, true, "here", std::time::Duration::ZERO, &self.place.clock).await.unwrap();
        lock.release().await.unwrap();
    }

    async fn end(&mut self) {
        for pruned in [false, true] {
            if pruned {
                self.prune(None).await;
                let options = PruneOptions { grace: TimeDelta::zero(), ..PruneOptions::default() };
                let (repository, _) = self.open(None).await;
                repository.prune(&options, "here", &*self.place.told, &self.place.clock).await.unwrap();
                let found = repository.objects().list(Class::Pack).await.unwrap();
                let named = repository.index().await.unwrap().packs();
                assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), named, "packs of no use stay");
            }
            let (repository, _) = self.open(None).await;
            let (snapshots, _) = repository.snapshots().await.unwrap();
            for (id, snapshot) in &snapshots {
                self.trail.push(format!("restore {}", id.short()));
                let original = self.place.path("original");
                let restored = self.place.restore(&repository, snapshot, &original, |wish| wish).await.unwrap();
                assert_eq!((restored.failures, restored.warnings), (Vec::new(), Vec::new()));
                assert_equal(&self.kept[id].copy, &self.place.path("back"));
                fs::remove_dir_all(self.place.path("back")).unwrap();
            }
            assert_eq!(snapshots.len(), self.kept.len());
        }
        self.place.restic().check().unwrap();
    }
}

async fn back_up(repository: Repository, setting: Setting, place: &Place) -> anyhow::Result<Id> {
    let mut backup = Backup::begin(repository, setting, &place.clock).await?;
    match backup.tree("files", Tree::at(&place.path("original")).even_if_empty(true)).await {
        Ok(_) => backup.finish(&place.clock).await.map(|(id, _)| id),
        Err(error) => {
            backup.abandon().await;
            Err(error)
        }
    }
}

fn told<T: std::fmt::Debug>(done: &anyhow::Result<T>) -> String {
    match done {
        Ok(done) => format!("{done:?}"),
        Err(error) => format!("{error:#}"),
    }
}
