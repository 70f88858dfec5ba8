//! A fault at every single operation of a backup and of a prune, and a process that dies at each of them: whatever is left
//! behind is consistent, nothing that was there is lost, and the next try succeeds.
use std::{fs, sync::Arc};

use chrono::TimeDelta;
use rusuban::{
    bucket::{Bucket, folder::Folder},
    repository::{Cache, CopySetting, Key, Look, Options, PruneOptions, Repository, Snapshot, Unlock},
    tree::Listener,
};

use super::{
    restore::noise,
    support::{PASSWORD, Place, SMALL},
};
use crate::support::{
    faulty::{Fault, Faulty},
    restic::Restic,
    trees::{assert_equal, sh},
};

const ALL: Look = Look { snapshots: None, data: 1.0, part: 0 };

/// What happens at operation number `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    /// It fails.
    Before,
    /// It is done, and its answer is lost.
    After,
    /// From it on nothing is done any more: the process was killed, or the line was cut.
    Dead,
    /// From it on there is no room for anything new.
    Full,
}

impl Day {
    fn plan(self, k: usize) -> impl Fn(usize) -> Option<Fault> + Send + Sync + 'static {
        move |operation| match self {
            Self::Before => (operation == k).then_some(Fault::Before),
            Self::After => (operation == k).then_some(Fault::After),
            Self::Dead => (operation >= k).then_some(Fault::Refused),
            Self::Full => (operation >= k).then_some(Fault::Full),
        }
    }
}

/// A repository with two backups, one of them forgotten, and a folder that has changed since.
struct World {
    place: Place,
    key: Key,
}

impl World {
    async fn new() -> Self {
        let place = Place::new();
        let original = place.path("original");
        fs::create_dir(&original).unwrap();
        for number in 0..6 {
            fs::write(original.join(format!("{number}")), noise(90_000, number + 1)).unwrap();
        }
        let repository = place.create(SMALL).await;
        let (first, _) = place.back_up(&repository, &original).await.unwrap();
        for number in 0..3 {
            fs::write(original.join(format!("{number}")), noise(90_000, number + 100)).unwrap();
        }
        place.back_up(&repository, &original).await.unwrap();
        repository.objects().remove(rusuban::repository::Class::Snapshot, &first).await.unwrap();
        for number in 0..2 {
            fs::write(original.join(format!("{number}")), noise(90_000, number + 200)).unwrap();
        }
        let key = repository.objects().key().clone();
        sh(&format!("cp -a '{}' '{}'", place.path("repository").display(), place.path("before").display()));
        Self { place, key }
    }

    /// The repository as it was, seen through a bucket with this plan.
    async fn again(&self, plan: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static) -> (Repository, Faulty) {
        let folder = self.place.path("repository");
        sh(&format!("rm -rf '{0}'; cp -a '{1}' '{0}'", folder.display(), self.place.path("before").display()));
        // Opening is no part of it.
        let opened =
            Faulty::new(Arc::new(Folder::new(folder)), move |operation| operation.checked_sub(OPENING).and_then(&plan));
        (self.open(Arc::new(opened.clone())).await, opened)
    }

    async fn open(&self, bucket: Arc<dyn Bucket>) -> Repository {
        let options = Options { pack_size: 200_000, threads: 2, cache: Cache::default(), ..Options::default() };
        Repository::open(bucket, &Unlock::Key(Box::new(self.key.clone())), options).await.unwrap()
    }

    async fn sound(&self) -> Repository {
        let repository = self.open(Arc::new(Folder::new(self.place.path("repository")))).await;
        // The process that held them is dead, in these tests.
        repository.unlock(true, "here", &self.place.clock).await.unwrap();
        repository
    }

    /// Everything that is there is whole, and the newest backup restores.
    async fn look(&self, what: &str, judge: bool) -> usize {
        let repository = self.sound().await;
        let listener = Arc::clone(&self.place.told) as Arc<dyn Listener>;
        let found = repository.check(&ALL, &listener, &self.place.cancelled).await.unwrap();
        assert!(found.is_whole(), "{what}: {found:?}");
        if judge {
            Restic::new(&self.place.path("repository"), PASSWORD).check().unwrap();
        }
        found.snapshots
    }
}

/// Operations by which a repository is opened with its key.
const OPENING: usize = 2;

async fn back_up(world: &World, repository: &Repository) -> anyhow::Result<()> {
    world.place.back_up(repository, &world.place.path("original")).await.map(drop)
}

async fn prune(world: &World, repository: &Repository) -> anyhow::Result<()> {
    let options = PruneOptions { grace: TimeDelta::zero(), ..PruneOptions::default() };
    repository.prune(&options, "here", &*world.place.told, &world.place.clock).await.map(drop)
}

macro_rules! tests {
    ($($name:ident: $what:ident at $day:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $what(Day::$day).await;
            }
        )*
    };
}

tests! {
    a_backup_that_fails_at_any_operation_harms_nothing_and_the_next_succeeds: backups at Before,
    a_backup_that_loses_any_answer_harms_nothing_and_the_next_succeeds: backups at After,
    a_backup_that_dies_at_any_operation_harms_nothing_and_the_next_succeeds: backups at Dead,
    a_backup_that_finds_no_more_room_at_any_operation_harms_nothing_and_the_next_succeeds: backups at Full,
    a_prune_that_fails_at_any_operation_harms_nothing_and_the_next_succeeds: prunes at Before,
    a_prune_that_loses_any_answer_harms_nothing_and_the_next_succeeds: prunes at After,
    a_prune_that_dies_at_any_operation_harms_nothing_and_the_next_succeeds: prunes at Dead,
    a_repair_that_fails_at_any_operation_harms_nothing_and_the_next_succeeds: repairs at Before,
    a_repair_that_dies_at_any_operation_harms_nothing_and_the_next_succeeds: repairs at Dead,
    a_copy_that_fails_at_any_operation_harms_nothing_and_the_next_succeeds: copies at Before,
    a_copy_that_loses_any_answer_harms_nothing_and_the_next_succeeds: copies at After,
    a_copy_that_dies_at_any_operation_harms_nothing_and_the_next_succeeds: copies at Dead,
    a_prune_that_finds_no_more_room_at_any_operation_harms_nothing_and_the_next_succeeds: prunes at Full,
    a_repository_whose_making_fails_at_any_operation_can_be_made_again: makings at Before,
    a_repository_whose_making_loses_any_answer_can_be_made_again: makings at After,
    a_repository_whose_making_dies_at_any_operation_can_be_made_again: makings at Dead,
}

/// A repository that is made on such a day, and then once more.
async fn makings(day: Day) {
    let place = Place::new();
    let make = async |bucket: Arc<dyn Bucket>| {
        let password = PASSWORD.as_bytes();
        Repository::create(bucket, password, SMALL, Options::default(), "here", &place.clock).await.map(drop)
    };
    let counted = Faulty::new(Arc::new(Folder::new(place.path("counted"))), |_| None);
    make(Arc::new(counted.clone())).await.unwrap();
    for k in 0..counted.operations() {
        let what = format!("operation {k} of {}, {day:?}", counted.operations());
        let folder = place.path(&k.to_string());
        let bucket: Arc<dyn Bucket> = Arc::new(Folder::new(folder.clone()));
        let first = make(Arc::new(Faulty::new(Arc::clone(&bucket), day.plan(k)))).await;
        if let Err(error) = make(Arc::clone(&bucket)).await {
            let error = format!("{error:#}");
            assert!(error.contains("there is a repository already"), "{what}: {error}");
        } else {
            assert!(first.is_err(), "{what}: made twice");
        }
        Repository::open(bucket, &Unlock::Password(PASSWORD.into()), Options::default())
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        if day == Day::Dead {
            Restic::new(&folder, PASSWORD).check().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_where_data_has_lost_its_configuration() {
    let place = Place::new();
    fs::create_dir(place.path("original")).unwrap();
    let repository = place.create(SMALL).await;
    place.back_up(&repository, &place.path("original")).await.unwrap();
    let config = place.path("repository/config");
    fs::rename(&config, place.path("config")).unwrap();
    let making = Repository::create(Arc::clone(&place.bucket), b"x", SMALL, Options::default(), "here", &place.clock);
    let error = format!("{:#}", making.await.unwrap_err());
    assert!(error.contains("`config` is missing: bring that back"), "{error}");
    fs::rename(place.path("config"), &config).unwrap();
    place.restic().check().unwrap();
}

/// A backup with such a day at each operation.
async fn backups(day: Day) {
    let world = World::new().await;
    let (repository, bucket) = world.again(|_| None).await;
    back_up(&world, &repository).await.unwrap();
    let operations = bucket.operations() - OPENING;
    assert!(operations > 12, "{operations}");
    assert_eq!(world.look("clean", true).await, 2);
    let mut red = 0;
    for k in 0..operations {
        let what = format!("operation {k} of {operations}, {day:?}");
        let (repository, _) = world.again(day.plan(k)).await;
        let done = back_up(&world, &repository).await;
        red += usize::from(done.is_err());
        if let (Day::Full, Err(error)) = (day, &done) {
            let error = format!("{error:#}");
            assert!(error.contains("no space left"), "{what}: {error}");
        }
        let there = world.look(&what, day == Day::Dead && k % 8 == 3).await;
        assert!(done.is_err() || there == 2, "{what}: green, and no backup is there");
        assert!(there >= 1, "{what}");
        back_up(&world, &world.sound().await).await.unwrap_or_else(|error| panic!("{what}, again: {error:#}"));
        assert!(world.look(&what, false).await > 1);
    }
    assert!(red > operations / 3, "only {red} of {operations} runs failed");
}

/// A repair with such a day at each operation, of a repository in which a piece of one file is lost.
async fn repairs(day: Day) {
    let world = World::new().await;
    let repository = world.sound().await;
    back_up(&world, &repository).await.unwrap();
    // A file that only the newest backup has in this state.
    let (_, newest) = repository.snapshots().await.unwrap().0.pop().unwrap();
    let index = repository.index().await.unwrap();
    let node = repository.at(&index, &newest, &world.place.path("original/0")).await.unwrap().unwrap();
    let pack = index.find(rusuban::repository::BlobKind::Data, &node.content.unwrap()[0]).unwrap().pack;
    let file = world.place.path("repository").join(rusuban::repository::Class::Pack.key(&pack));
    super::damage::damage(&file, "flipped");
    let folder = |name: &str| world.place.path(name).display().to_string();
    sh(&format!("rm -rf '{0}'; cp -a '{1}' '{0}'", folder("before"), folder("repository")));
    let (repository, bucket) = world.again(|_| None).await;
    let done = super::repair::repair(&world.place, &repository, false).await.unwrap();
    assert!(done.backups.len() == 1 && done.backups[0].count == 1, "{done:?}");
    let operations = bucket.operations() - OPENING;
    assert_eq!(world.look("clean", true).await, 2);
    for k in 0..operations {
        let what = format!("operation {k} of {operations}, {day:?}");
        let (repository, _) = world.again(day.plan(k)).await;
        let _ = super::repair::repair(&world.place, &repository, false).await;
        let again = super::repair::repair(&world.place, &world.sound().await, false).await;
        again.unwrap_or_else(|error| panic!("{what}, again: {error:#}"));
        let judge = day == Day::Dead && k % 8 == 3;
        let there = world.look(&what, judge).await;
        assert_eq!(there, 2, "{what}");
        let (snapshots, _) = world.sound().await.snapshots().await.unwrap();
        let partial = |snapshot: &Snapshot| snapshot.rusuban.as_ref().is_some_and(|facts| facts.partial);
        assert!(snapshots.iter().any(|(_, snapshot)| !partial(snapshot)), "{what}: the whole backup is gone");
        assert!(snapshots.iter().any(|(_, snapshot)| partial(snapshot)), "{what}: the rest of the other is gone");
    }
}

/// A copy into another repository with such a day at each operation there.
async fn copies(day: Day) {
    let world = World::new().await;
    let place = &world.place;
    let from = world.sound().await;
    back_up(&world, &from).await.unwrap();
    let wanted = from.snapshots().await.unwrap().0;
    assert_eq!(wanted.len(), 2);
    let folder = place.path("copy");
    let open = async |bucket: Arc<dyn Bucket>| {
        let options = Options { pack_size: 200_000, threads: 2, cache: Cache::default(), ..Options::default() };
        Repository::open(bucket, &Unlock::Key(Box::new(key_of(&folder).await)), options).await.unwrap()
    };
    let empty = place.path("empty");
    Repository::create(
        Arc::new(Folder::new(empty.clone())),
        b"another",
        SMALL,
        Options::default(),
        "here",
        &place.clock,
    )
    .await
    .unwrap();
    let again = || sh(&format!("rm -rf '{0}'; cp -a '{1}' '{0}'", folder.display(), empty.display()));
    let copy = async |to: &Repository| {
        let there = to.snapshots().await?.0;
        let is_there = |one: &Snapshot| there.iter().any(|(_, other)| one.is_same_as(other));
        let missing = wanted.iter().filter(|(_, one)| !is_there(one)).cloned().collect();
        let setting = CopySetting {
            host: "here".into(),
            patience: std::time::Duration::ZERO,
            listener: Arc::clone(&place.told) as Arc<dyn Listener>,
            cancelled: place.cancelled.clone(),
        };
        let copied = from.copy_to(to, missing, &setting, &place.clock).await;
        // The process that held it is dead, in these tests.
        from.unlock(true, "here", &place.clock).await?;
        copied.map(|copied| assert!(copied.damaged.is_empty(), "{:?}", copied.damaged))
    };
    again();
    let counting = Faulty::new(Arc::new(Folder::new(folder.clone())), |_| None);
    copy(&open(Arc::new(counting.clone())).await).await.unwrap();
    let operations = counting.operations() - OPENING;
    assert!(operations > 12, "{operations}");
    let mut red = 0;
    for k in 0..operations {
        let what = format!("operation {k} of {operations}, {day:?}");
        again();
        let plan = day.plan(k);
        let bad = Faulty::new(Arc::new(Folder::new(folder.clone())), move |at| at.checked_sub(OPENING).and_then(&plan));
        let done = copy(&open(Arc::new(bad)).await).await;
        red += usize::from(done.is_err());
        let honest = open(Arc::new(Folder::new(folder.clone()))).await;
        honest.unlock(true, "here", &place.clock).await.unwrap();
        let listener = Arc::clone(&place.told) as Arc<dyn Listener>;
        let found = honest.check(&ALL, &listener, &place.cancelled).await.unwrap();
        assert!(found.is_whole(), "{what}: {found:?}");
        assert!(done.is_err() || found.snapshots == 2, "{what}: green, and the copies are not there");
        copy(&honest).await.unwrap_or_else(|error| panic!("{what}, again: {error:#}"));
        let found = honest.check(&ALL, &listener, &place.cancelled).await.unwrap();
        assert!(found.is_whole() && found.snapshots == 2, "{what}, again: {found:?}");
    }
    assert!(red > operations / 3, "only {red} of {operations} copies failed");
    let judge = Restic::new(&folder, "another");
    judge.check().unwrap();
    let restored = place.path("by-restic");
    judge.restore("latest", &restored);
    let original = place.path("original");
    assert_equal(&original, &place.below(&restored, &original));
}

/// The key of the repository that the copies go to: its password is derived once.
async fn key_of(folder: &std::path::Path) -> Key {
    static KEY: tokio::sync::OnceCell<Key> = tokio::sync::OnceCell::const_new();
    let opening = async || {
        let unlock = Unlock::Password("another".into());
        let opened =
            Repository::open(Arc::new(Folder::new(folder.to_owned())), &unlock, Options::default()).await.unwrap();
        opened.objects().key().clone()
    };
    KEY.get_or_init(opening).await.clone()
}

/// A prune with such a day at each operation.
async fn prunes(day: Day) {
    let world = World::new().await;
    let (repository, bucket) = world.again(|_| None).await;
    prune(&world, &repository).await.unwrap();
    let operations = bucket.operations() - OPENING;
    assert_eq!(world.look("clean", true).await, 1);
    let packs = world.sound().await.objects().list(rusuban::repository::Class::Pack).await.unwrap().len();
    for k in 0..operations {
        let what = format!("operation {k} of {operations}, {day:?}");
        let (repository, _) = world.again(day.plan(k)).await;
        let _ = prune(&world, &repository).await;
        assert_eq!(world.look(&what, day == Day::Dead && k % 8 == 3).await, 1);
        prune(&world, &world.sound().await).await.unwrap_or_else(|error| panic!("{what}, again: {error:#}"));
        assert_eq!(world.look(&what, false).await, 1);
        let left = world.sound().await.objects().list(rusuban::repository::Class::Pack).await.unwrap().len();
        assert!(left <= packs + 1, "{what}: {left} packs stay instead of {packs}");
    }
    let repository = world.sound().await;
    let (_, snapshot) = repository.snapshots().await.unwrap().0.pop().unwrap();
    // The folder has changed since: what the backup has is compared with a restore of it before all this.
    let original = world.place.path("original");
    world.place.restore(&repository, &snapshot, &original, |wish| wish).await.unwrap();
    let by_restic = world.place.path("by-restic");
    Restic::new(&world.place.path("before"), PASSWORD).restore("latest", &by_restic);
    assert_equal(&world.place.below(&by_restic, &original), &world.place.path("back"));
}
