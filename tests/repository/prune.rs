//! What no backup needs goes, and nothing else; beside others at work, nothing at all.
use std::{fs, time::Duration};

use chrono::TimeDelta;
use rusuban::{
    clock::Clock,
    repository::{Backup, Class, Lock, PruneOptions, Setting},
    tree::Tree,
};

use super::{
    restore::noise,
    support::{Place, SMALL},
};
use crate::support::trees::assert_equal;

fn at_once() -> PruneOptions {
    PruneOptions { grace: TimeDelta::zero(), ..PruneOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forgotten_backup_alone_needed_is_removed_a_day_later_and_the_rest_restores() {
    let mut place = Place::new();
    place.clock = Clock::simulated("2026-11-21T03:00:00Z".parse().unwrap());
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    for number in 0..30 {
        fs::write(original.join(format!("{number}")), noise(150_000, number + 1)).unwrap();
    }
    let repository = place.create(SMALL).await;
    let (first, _) = place.back_up(&repository, &original).await.unwrap();
    for number in 0..20 {
        fs::write(original.join(format!("{number}")), noise(150_000, number + 100)).unwrap();
    }
    let (_, second) = place.back_up(&repository, &original).await.unwrap();
    repository.objects().remove(Class::Snapshot, &first).await.unwrap();
    let stored = || -> u64 { super::support::sizes(&place.path("repository/data")).iter().sum() };
    let before = stored();

    let dry = PruneOptions { dry_run: true, ..PruneOptions::default() };
    let planned = repository.prune(&dry, "here", &*place.told, &place.clock).await.unwrap();
    assert!(planned.unneeded > 2_500_000, "{planned:?}");
    assert_eq!(stored(), before);

    let pruned = repository.prune(&PruneOptions::default(), "here", &*place.told, &place.clock).await.unwrap();
    assert_eq!(pruned.removed, 0, "nothing is removed at once");
    assert!(pruned.waiting > 0 && pruned.repacked > 0, "{pruned:?}");
    place.restic().check().unwrap();
    place.clock.step(TimeDelta::hours(25));
    let pruned = repository.prune(&PruneOptions::default(), "here", &*place.told, &place.clock).await.unwrap();
    assert!(pruned.removed_bytes > 2_500_000, "{pruned:?}");
    assert!(stored() < before - 2_000_000);
    place.restic().check().unwrap();
    let restored = place.restore(&repository, &second, &original, |wish| wish).await.unwrap();
    assert_eq!(restored.failures, Vec::<String>::new());
    assert_equal(&original, &place.path("back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_restic_prunes_what_we_stored_and_we_what_it_stored() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    let repository = place.create(SMALL).await;
    let restic = place.restic();
    for round in 0..4 {
        fs::write(original.join("changing"), noise(900_000, round + 1)).unwrap();
        fs::write(original.join(format!("stays {round}")), noise(100_000, round + 50)).unwrap();
        if round % 2 == 0 {
            place.back_up(&repository, &original).await.unwrap();
        } else {
            restic.back_up(&original);
        }
    }
    restic.run(&["forget", "--keep-last", "1", "--group-by", "host", "--prune"]).unwrap();
    restic.check().unwrap();
    let pruned = place.open().await.prune(&at_once(), "here", &*place.told, &place.clock).await.unwrap();
    assert!(pruned.snapshots >= 1);
    restic.check().unwrap();
    let back = place.path("by-restic");
    restic.restore("latest", &back);
    assert_equal(&original, &place.below(&back, &original));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_prunes_beneath_a_backup_and_no_backup_begins_beneath_a_prune() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(500_000, 3)).unwrap();
    let repository = place.create(SMALL).await;
    let mut backup = Backup::begin(repository.clone(), place.setting(), &place.clock).await.unwrap();
    let error = repository.prune(&at_once(), "elsewhere", &*place.told, &place.clock).await.unwrap_err();
    assert!(format!("{error:#}").contains("the repository is in use"), "{error:#}");
    let restic = place.restic();
    let said = restic.run(&["prune"]).unwrap_err();
    assert!(said.contains("already locked"), "{said}");
    backup.tree("files", Tree::at(&original)).await.unwrap();
    backup.finish(&place.clock).await.unwrap();
    restic.run(&["prune"]).unwrap();

    let lock = Lock::take(&repository, true, "elsewhere", Duration::ZERO, &place.clock).await.unwrap();
    let error = place.back_up(&repository, &original).await.unwrap_err();
    assert!(format!("{error:#}").contains("exclusive lock"), "{error:#}");
    assert!(restic.run(&["backup", original.to_str().unwrap()]).is_err());
    lock.release().await.unwrap();
    place.back_up(&repository, &original).await.unwrap();
    assert_eq!(repository.locks().await.unwrap(), []);
    restic.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_while_a_backup_waited_for_its_lock_is_stored_anew() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(500_000, 3)).unwrap();
    let repository = place.create(SMALL).await;
    place.back_up(&repository, &original).await.unwrap();
    let lock = Lock::take(&repository, true, "elsewhere", Duration::ZERO, &place.clock).await.unwrap();
    let setting = Setting { patience: Duration::from_secs(60), ..place.setting() };
    let (waiting, clock) = (repository.clone(), place.clock.clone());
    let begun = tokio::spawn(async move { Backup::begin(waiting, setting, &clock).await });
    // It has read ahead what was there when it began.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for class in [Class::Snapshot, Class::Index, Class::Pack] {
        for (id, _) in repository.objects().list(class).await.unwrap() {
            repository.objects().remove(class, &id).await.unwrap();
        }
    }
    lock.release().await.unwrap();
    let mut backup = begun.await.unwrap().unwrap();
    backup.tree("files", Tree::at(&original)).await.unwrap();
    backup.finish(&place.clock).await.unwrap();
    place.restic().check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_process_that_is_gone_is_removed_and_what_it_stored_is_used() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(6_000_000, 3)).unwrap();
    let repository = place.create(SMALL).await;
    // A backup that died before it wrote an index: its packs are there, and its lock.
    let mut backup = Backup::begin(repository.clone(), place.setting(), &place.clock).await.unwrap();
    backup.tree("files", Tree::at(&original)).await.unwrap();
    let lock = repository.locks().await.unwrap().pop().unwrap().1;
    backup.abandon().await;
    for (id, _) in repository.objects().list(Class::Index).await.unwrap() {
        repository.objects().remove(Class::Index, &id).await.unwrap();
    }
    let packs = repository.objects().list(Class::Pack).await.unwrap().len();
    assert!(packs >= 5);
    // No process has this number: the kernel's limit is lower.
    let dead = rusuban::repository::LockFile { pid: 4_194_999, ..lock };
    repository.objects().save(Class::Lock, serde_json::to_vec(&dead).unwrap()).await.unwrap();

    let (_, snapshot) = place.back_up(&repository, &original).await.unwrap();
    let added = snapshot.summary.unwrap().data_added;
    assert!(added < 1_500_000, "{added} bytes were sent again");
    let infos = place.told.infos.lock().unwrap().join("\n");
    assert!(infos.contains("removed the lock of process 4194999"), "{infos}");
    assert_eq!(repository.locks().await.unwrap(), []);
    place.restic().check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_refuses_when_a_backup_is_not_whole() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(500_000, 3)).unwrap();
    let repository = place.create(SMALL).await;
    let (id, _) = place.back_up(&repository, &original).await.unwrap();
    let snapshot = place.path("repository").join(Class::Snapshot.key(&id));
    let whole = fs::read(&snapshot).unwrap();
    fs::write(&snapshot, &whole[..whole.len() - 1]).unwrap();
    let packs = repository.objects().list(Class::Pack).await.unwrap();
    let error = repository.prune(&at_once(), "here", &*place.told, &place.clock).await.unwrap_err();
    assert!(format!("{error:#}").contains("nothing is removed"), "{error:#}");
    assert_eq!(repository.objects().list(Class::Pack).await.unwrap(), packs);
}
