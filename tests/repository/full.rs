//! A disk and a bucket that are full: a red run that says so, nothing lost, and a way out.
use std::{fs, path::Path, sync::Arc};

use chrono::TimeDelta;
use rusuban::{
    bucket::{Bucket, folder::Folder},
    repository::{Backup, Class, Look, Options, PruneOptions, Repository, Single, Snapshot, Unlock, Wish},
    tree::Listener,
};

use super::{
    restore::noise,
    support::{PASSWORD, Place, SMALL},
};
use crate::support::{
    disk::Disk,
    restic::Restic,
    trees::{assert_equal, sh},
};

const NOW: PruneOptions =
    PruneOptions { dry_run: false, grace: TimeDelta::zero(), patience: std::time::Duration::ZERO };

/// A repository on a small disk, of a folder that is elsewhere.
struct World {
    disk: Disk,
    place: Place,
}

impl World {
    async fn new(size: &str) -> (Self, Repository) {
        let disk = Disk::new(size);
        let bucket: Arc<dyn Bucket> = Arc::new(Folder::new(disk.path().join("repository")));
        let world = Self { disk, place: Place { bucket, ..Place::new() } };
        fs::create_dir(world.original()).unwrap();
        let repository = world.place.create(SMALL).await;
        // One thread packs files in the order of their names: what is forgotten together lies together.
        let unlock = Unlock::Key(Box::new(repository.objects().key().clone()));
        let options = Options { threads: 1, ..world.place.options() };
        let repository = Repository::open(Arc::clone(&world.place.bucket), &unlock, options).await.unwrap();
        (world, repository)
    }

    fn original(&self) -> std::path::PathBuf {
        self.place.path("original")
    }

    fn change(&self, files: std::ops::Range<u32>, bytes: usize, seed: u32) {
        for number in files {
            fs::write(self.original().join(number.to_string()), noise(bytes, seed + number)).unwrap();
        }
    }

    fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(self.disk.path()).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Everything that is there is whole.
    async fn look(&self, repository: &Repository, snapshots: usize) {
        let listener = Arc::clone(&self.place.told) as Arc<dyn Listener>;
        let look = Look { snapshots: None, data: 1.0, part: 0 };
        let found = repository.check(&look, &listener, &self.place.cancelled).await.unwrap();
        assert!(found.is_whole() && found.snapshots == snapshots, "{found:?}");
        assert_eq!(repository.locks().await.unwrap(), []);
    }

    /// What a backup holds is what `kept` holds.
    async fn same(&self, repository: &Repository, snapshot: &Snapshot, kept: &Path) {
        let restored = self.place.restore(repository, snapshot, &self.original(), |wish| wish).await.unwrap();
        assert_eq!(restored.failures, Vec::<String>::new());
        assert_equal(kept, &self.place.path("back"));
        fs::remove_dir_all(self.place.path("back")).unwrap();
    }

    async fn prune(&self, repository: &Repository) -> anyhow::Result<rusuban::repository::Pruned> {
        repository.prune(&NOW, "here", &*self.place.told, &self.place.clock).await
    }

    fn judge(&self) {
        Restic::new(&self.disk.path().join("repository"), PASSWORD).check().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_onto_a_full_disk_is_red_and_says_so_and_the_next_one_succeeds_when_there_is_room() {
    let (world, repository) = World::new("16m").await;
    world.change(0..10, 100_000, 1);
    let (_, first) = world.place.back_up(&repository, &world.original()).await.unwrap();
    let kept = world.place.path("kept");
    crate::support::trees::sh(&format!("cp -a '{}' '{}'", world.original().display(), kept.display()));

    // It fills the disk half way, or has not even room for its lock.
    for filled in [false, true] {
        if filled {
            world.disk.fill();
        }
        world.change(100..125, 1_000_000, 50);
        let error = format!("{:#}", world.place.back_up(&repository, &world.original()).await.unwrap_err());
        assert!(error.contains("no space left") && error.contains("repository/"), "{error}");
        world.look(&repository, 1).await;
        world.same(&repository, &first, &kept).await;
    }

    world.disk.empty();
    for number in 103..125 {
        fs::remove_file(world.original().join(number.to_string())).unwrap();
    }
    // What the first try had stored is found, or removed to make room.
    world.prune(&repository).await.unwrap();
    let (_, second) = world.place.back_up(&repository, &world.original()).await.unwrap();
    world.look(&repository, 2).await;
    world.same(&repository, &second, &world.original()).await;
    world.same(&repository, &first, &kept).await;
    world.judge();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_fit_the_disk_is_red_and_says_so() {
    let (world, repository) = World::new("16m").await;
    let mut backup = Backup::begin(repository.clone(), world.place.setting(), &world.place.clock).await.unwrap();
    let dump = std::io::Cursor::new(noise(25_000_000, 7));
    let error = format!("{:#}", backup.stream("dump.sql", Single::default(), dump).await.unwrap_err());
    assert!(error.contains("no space left") && error.contains("repository/data/"), "{error}");
    // Whoever goes on all the same has no backup.
    let error = format!("{:#}", backup.finish(&world.place.clock).await.unwrap_err());
    assert!(error.contains("there is nothing in this backup"), "{error}");
    world.look(&repository, 0).await;
}

/// A full disk with a backup that is needed and one that was forgotten; `share` of its files are needed still.
async fn forgotten(share: u32) -> (World, Repository, Snapshot) {
    let (world, repository) = World::new("24m").await;
    world.change(0..40, 150_000, 1);
    let (first, _) = world.place.back_up(&repository, &world.original()).await.unwrap();
    world.change(share..40, 150_000, 100);
    let (_, second) = world.place.back_up(&repository, &world.original()).await.unwrap();
    repository.objects().remove(Class::Snapshot, &first).await.unwrap();
    (world, repository, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_frees_room_on_a_disk_that_is_all_but_full() {
    for share in [0, 13] {
        let (world, repository, second) = forgotten(share).await;
        // Room for a lock and for an index, and not for a pack.
        let room = world.disk.path().join("room");
        fs::write(&room, vec![0; 256 << 10]).unwrap();
        world.disk.fill();
        fs::remove_file(&room).unwrap();
        let pruned = world.prune(&repository).await.unwrap();
        // Of which nothing is needed: with a share, only few of the packs.
        let least = if share > 0 { 1_000_000 } else { 5_000_000 };
        assert!(pruned.removed_bytes > least && world.free() > least, "{pruned:?}");
        let warned = world.place.warnings().iter().any(|warning| warning.contains("no room to pack anything anew"));
        assert_eq!((warned, pruned.repacked), (share > 0, 0), "{pruned:?}");
        world.look(&repository, 1).await;
        // Now there is room for what is left to do.
        let pruned = world.prune(&repository).await.unwrap();
        assert_eq!(pruned.repacked > 0, share > 0, "{pruned:?}");
        world.look(&repository, 1).await;
        world.same(&repository, &second, &world.original()).await;
        world.disk.empty();
        world.judge();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_frees_room_on_a_disk_on_which_a_backup_left_not_a_byte() {
    let (world, repository) = World::new("16m").await;
    world.change(0..10, 100_000, 1);
    let (_, first) = world.place.back_up(&repository, &world.original()).await.unwrap();
    let kept = world.place.path("kept");
    crate::support::trees::sh(&format!("cp -a '{}' '{}'", world.original().display(), kept.display()));
    // Packs of a backup that died: of no index.
    for seed in 0..4 {
        let bytes = noise(1_000_000, 900 + seed);
        let mut building = rusuban::repository::Building::default();
        let (key, kind) = (repository.objects().key(), rusuban::repository::BlobKind::Data);
        building.add(rusuban::repository::Id::of(&bytes), kind, &key.seal(&bytes).unwrap(), None).unwrap();
        let pack = building.finish(key).unwrap();
        repository.objects().put(Class::Pack, &pack.id, pack.bytes).await.unwrap();
    }
    world.disk.fill();
    assert_eq!(world.free(), 0);
    // Somebody is at work: nothing is touched.
    let lock = rusuban::repository::LockFile {
        time: world.place.clock.now(),
        exclusive: false,
        hostname: "elsewhere".into(),
        username: "x".into(),
        pid: 1,
        uid: 0,
        gid: 0,
    };
    world.disk.empty();
    let id = repository.objects().save(Class::Lock, serde_json::to_vec(&lock).unwrap()).await.unwrap();
    world.disk.fill();
    let error = format!("{:#}", world.prune(&repository).await.unwrap_err());
    assert!(error.contains("the repository is in use"), "{error}");
    repository.objects().remove(Class::Lock, &id).await.unwrap();

    world.disk.fill();
    let pruned = world.prune(&repository).await.unwrap();
    // One of them went for the lock.
    assert_eq!(pruned.removed, 3, "{pruned:?}");
    assert!(world.free() > 3_900_000);
    world.look(&repository, 1).await;
    world.same(&repository, &first, &kept).await;

    // There is nothing that could go now: it says what to do.
    world.disk.empty();
    world.disk.fill();
    let error = format!("{:#}", world.prune(&repository).await.unwrap_err());
    assert!(error.contains("no space left") && error.contains("make some room there first"), "{error}");
    world.look(&repository, 1).await;
    world.disk.empty();
    world.judge();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_onto_a_full_disk_ends_and_goes_on_when_there_is_room() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    // Several batches.
    for number in 0..50 {
        fs::write(original.join(number.to_string()), noise(3 << 20, number)).unwrap();
    }
    let repository = place.create(SMALL).await;
    let (_, snapshot) = place.back_up(&repository, &original).await.unwrap();
    let disk = Disk::new("90m");
    let to = disk.path().join("back");
    let restore = || place.restore(&repository, &snapshot, &original, |wish| Wish { to: to.clone(), ..wish });
    let error = restore().await.unwrap_err();
    assert!(format!("{error:#}").contains("No space left"), "{error:#}");
    assert!(!to.exists());
    // Whoever was still writing has ended.
    let used = || sh(&format!("ls -lAR '{}'", disk.path().display()));
    let before = used();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(used(), before);

    sh(&format!("mount -o remount,size=300m '{}'", disk.path().display()));
    restore().await.unwrap();
    assert_equal(&original, &to);
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 1);
}
