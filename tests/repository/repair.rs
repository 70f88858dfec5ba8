//! What is whole of a damaged repository is rescued, what is lost is named, and the next backup stores it again.
use std::{fs, path::Path, sync::Arc, time::Duration};

use rusuban::{
    repository::{
        Backup, BlobKind, Cache, Class, Id, Options, PruneOptions, RepairOptions, Repaired, Repository, Snapshot,
        Unlock,
    },
    tree::{Listener, Tree},
};

use super::{
    damage::{ALL, check, damage},
    restore::noise,
    support::{Place, SMALL},
};
use crate::support::{
    faulty::{Fault, Faulty},
    trees::{assert_equal, sh},
};

pub(super) async fn repair(place: &Place, repository: &Repository, dry_run: bool) -> anyhow::Result<Repaired> {
    let options = RepairOptions {
        dry_run,
        host: "here".into(),
        patience: Duration::ZERO,
        listener: Arc::clone(&place.told) as Arc<dyn Listener>,
        cancelled: place.cancelled.clone(),
    };
    repository.repair(&options, &place.clock).await
}

/// The pack that holds the first piece of a file, or the list of what is in a folder.
async fn pack_of(repository: &Repository, snapshot: &Snapshot, path: &Path) -> Id {
    let index = repository.index().await.unwrap();
    let node = repository.at(&index, snapshot, path).await.unwrap().unwrap();
    let (kind, id) = match node.subtree {
        Some(tree) => (BlobKind::Tree, tree),
        None => (BlobKind::Data, node.content.unwrap()[0]),
    };
    index.find(kind, &id).unwrap().pack
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_is_rescued_whatever_is_damaged() {
    for class in ["index", "data", "trees", "snapshot"] {
        for how in ["flipped", "cut", "removed"] {
            if (class, how) == ("snapshot", "removed") {
                continue;
            }
            let what = format!("{class} {how}");
            let place = Place::new();
            let (one, other) = (place.path("one"), place.path("other"));
            for (folder, seed) in [(&one, 1), (&other, 50)] {
                fs::create_dir_all(folder.join("deeper")).unwrap();
                for number in 0..12 {
                    fs::write(folder.join(format!("file {number:02}")), noise(120_000, seed + number)).unwrap();
                }
                fs::write(folder.join("deeper/small"), noise(500, seed)).unwrap();
            }
            let repository = place.create(SMALL).await;
            let (first, snapshot) = place.back_up(&repository, &one).await.unwrap();
            let (second, _) = place.back_up(&repository, &other).await.unwrap();
            let victim = match class {
                "index" => Class::Index.key(&repository.objects().list(Class::Index).await.unwrap()[0].0),
                "data" => Class::Pack.key(&pack_of(&repository, &snapshot, &one.join("file 03")).await),
                "trees" => Class::Pack.key(&pack_of(&repository, &snapshot, &one.join("deeper")).await),
                _ => Class::Snapshot.key(&first),
            };
            damage(&place.path("repository").join(victim), how);
            fs::remove_dir_all(place.path("cache")).unwrap();
            assert!(!check(&place, &repository, &ALL).await.unwrap().is_whole(), "{what}");

            let before =
                sh(&format!("cd '{}' && find . -type f | sort | xargs sha256sum", place.path("repository").display()));
            let would = repair(&place, &repository, true).await.unwrap();
            let after =
                sh(&format!("cd '{}' && find . -type f | sort | xargs sha256sum", place.path("repository").display()));
            assert_eq!(before, after, "{what}: a dry run changed something");
            let done = repair(&place, &repository, false).await.unwrap();
            assert_eq!(
                (would.rescued, would.lost, would.indexed, would.backups.len()),
                (done.rescued, done.lost, done.indexed, done.backups.len()),
                "{what}: it did something else than it said"
            );
            assert!(check(&place, &repository, &ALL).await.unwrap().is_whole(), "{what}: {done:?}");
            place.restic().check().unwrap_or_else(|error| panic!("{what}: {error}"));
            let (left, _) = repository.snapshots().await.unwrap();
            match class {
                "index" => assert!(done.backups.is_empty() && left.len() == 2, "{what}: nothing is lost: {done:?}"),
                "snapshot" => assert!(left.len() == 1 && left[0].0 == second, "{what}: {left:?}"),
                _ => {
                    assert!(done.backups.len() == 1 && done.backups[0].old == first, "{what}: {done:?}");
                    let count = done.backups[0].count;
                    assert!(count > 0, "{what}");
                    let Some(new) = done.backups[0].new else {
                        assert!(class == "trees" && left.len() == 1, "{what}: not even the top is left: {done:?}");
                        continue;
                    };
                    let (_, mended) = left.iter().find(|(id, _)| *id == new).unwrap();
                    let facts = mended.rusuban.as_ref().unwrap();
                    assert!(facts.partial && facts.warnings.len() as u64 >= count.min(20), "{what}: {facts:?}");
                    assert_eq!(mended.original, Some(first), "{what}");
                    if (class, how) == ("data", "flipped") {
                        assert!(
                            done.lost == 1 && count == 1,
                            "one piece is lost, the others of its pack are not: {done:?}"
                        );
                    }
                    // All that is in it restores, and is what it was.
                    let restored = place.restore(&repository, mended, &one, |wish| wish).await.unwrap();
                    assert_eq!(restored.failed, 0, "{what}");
                    let differs = sh(&format!(
                        "cd '{}' && find . -type f | while read -r file; do cmp -s \"$file\" '{}'/\"$file\" || echo \"$file\"; done",
                        place.path("back").display(),
                        one.display()
                    ));
                    assert_eq!(differs, "", "{what}");
                    fs::remove_dir_all(place.path("back")).unwrap();
                }
            }
            // The other one is untouched, pruning is possible again, and the next backup has everything.
            let prune = PruneOptions { grace: chrono::TimeDelta::zero(), ..PruneOptions::default() };
            repository.prune(&prune, "here", &*place.told, &place.clock).await.unwrap();
            let (third, snapshot) = place.back_up(&repository, &one).await.unwrap();
            let restored = place.restore(&repository, &snapshot, &one, |wish| wish).await.unwrap();
            assert_eq!(restored.failed, 0, "{what}");
            assert_equal(&one, &place.path("back"));
            place.restic().check().unwrap_or_else(|error| panic!("{what}: {error}"));
            let by_restic = place.path("by-restic");
            place.restic().restore(&third.to_string(), &by_restic);
            assert_equal(&one, &place.below(&by_restic, &one));
            place.restic().restore(&second.to_string(), &by_restic.join("other"));
            assert_equal(&other, &place.below(&by_restic.join("other"), &other));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_repository_is_left_as_it_is() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(300_000, 1)).unwrap();
    let repository = place.create(SMALL).await;
    place.back_up(&repository, &original).await.unwrap();
    let all = || sh(&format!("cd '{}' && find . -type f | sort | xargs sha256sum", place.path("repository").display()));
    let before = all();
    let done = repair(&place, &repository, false).await.unwrap();
    assert_eq!(done, Repaired { packs: done.packs, ..Repaired::default() });
    assert_eq!(before, all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_list_that_is_lost_is_taken_from_this_machines_cache() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir_all(original.join("deeper")).unwrap();
    fs::write(original.join("deeper/file"), noise(300_000, 1)).unwrap();
    let repository = place.create(SMALL).await;
    let (_, snapshot) = place.back_up(&repository, &original).await.unwrap();
    let pack = pack_of(&repository, &snapshot, &original.join("deeper")).await;
    damage(&place.path("repository").join(Class::Pack.key(&pack)), "removed");
    let done = repair(&place, &repository, false).await.unwrap();
    assert!(done.backups.is_empty() && done.lost == 0 && done.rescued > 0, "{done:?}");
    place.restic().check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_two_damaged_packs_have_is_taken_from_the_one_where_it_is_whole() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    for number in 0..2 {
        fs::write(original.join(format!("file {number}")), noise(3000, number + 1)).unwrap();
    }
    // Two hosts that keep the same at the same time store it twice.
    let repository = place.create(SMALL).await;
    let mut both = Vec::new();
    for _ in 0..2 {
        both.push(Backup::begin(place.open().await, place.setting(), &place.clock).await.unwrap());
    }
    for mut backup in both {
        backup.tree("files", Tree::at(&original)).await.unwrap();
        backup.finish(&place.clock).await.unwrap();
    }
    let index = repository.index().await.unwrap();
    let mut places: Vec<_> = index.all().filter(|place| place.blob.kind == BlobKind::Data).collect();
    places.sort_by_key(|place| (place.pack, place.blob.id));
    let [one, _, _, other] = places.as_slice() else { panic!("{places:?}") };
    assert!(one.pack != other.pack && one.blob.id != other.blob.id);
    for at in [one, other] {
        let file = place.path("repository").join(Class::Pack.key(&at.pack));
        let mut bytes = fs::read(&file).unwrap();
        bytes[at.blob.offset as usize + 100] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    for dry_run in [true, false] {
        let done = repair(&place, &repository, dry_run).await.unwrap();
        assert!((done.rescued, done.lost) == (2, 0) && done.backups.is_empty(), "{done:?}");
    }
    assert!(check(&place, &repository, &ALL).await.unwrap().is_whole());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_answer_for_a_moment_costs_nothing_that_is_whole() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    for number in 0..4 {
        fs::write(original.join(format!("file {number}")), noise(3000, number + 1)).unwrap();
    }
    let repository = place.create(SMALL).await;
    let (_, snapshot) = place.back_up(&repository, &original).await.unwrap();
    let pack = pack_of(&repository, &snapshot, &original.join("file 1")).await;
    // Only the pack itself says what is in it.
    let file = place.path("repository").join(Class::Pack.key(&pack));
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();
    sh(&format!("rm '{}'/index/*", place.path("repository").display()));
    let damaged = place.path("damaged");
    sh(&format!("cp -a '{}' '{}'", place.path("repository").display(), damaged.display()));
    // All packs are read in these.
    for at in 5..16 {
        sh(&format!("rm -rf '{0}'; cp -a '{1}' '{0}'", place.path("repository").display(), damaged.display()));
        let bad = Faulty::new(Arc::clone(&place.bucket), move |number| (number == at).then_some(Fault::Before));
        let unlock = Unlock::Key(Box::new(repository.objects().key().clone()));
        let options = Options { cache: Cache::default(), connections: 1, ..place.options() };
        let opened = Repository::open(Arc::new(bad), &unlock, options).await.unwrap();
        assert!(repair(&place, &opened, false).await.is_err(), "operation {at}");
        repository.unlock(true, "here", &place.clock).await.unwrap();
        repair(&place, &repository, false).await.unwrap();
        assert!(check(&place, &repository, &ALL).await.unwrap().is_whole(), "operation {at}");
        let (left, _) = repository.snapshots().await.unwrap();
        let top = repository.at(&repository.index().await.unwrap(), &left[0].1, &original).await.unwrap().unwrap();
        let tree = repository.tree(&repository.index().await.unwrap(), &top.subtree.unwrap()).await.unwrap();
        assert_eq!(tree.nodes.len(), 3, "operation {at}: one file is lost, and no other");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_whole_and_not_understood_is_left_alone() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(3000, 1)).unwrap();
    let repository = place.create(SMALL).await;
    place.back_up(&repository, &original).await.unwrap();
    let newer = br#"{"time":"2030-01-01T00:00:00Z","roots":["a program to come"]}"#.to_vec();
    let id = repository.objects().save(Class::Snapshot, newer).await.unwrap();
    let done = repair(&place, &repository, false).await.unwrap();
    assert!(done.unreadable.len() == 1 && done.unreadable[0].contains("left alone"), "{done:?}");
    let left = repository.objects().list(Class::Snapshot).await.unwrap();
    assert!(left.len() == 2 && left.iter().any(|(one, _)| *one == id), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_does_not_fit_its_packs_is_written_anew() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(3000, 1)).unwrap();
    let repository = place.create(SMALL).await;
    place.back_up(&repository, &original).await.unwrap();
    for (id, _) in repository.objects().list(Class::Index).await.unwrap() {
        let mut file = repository.index_file(&id).await.unwrap();
        file.packs.iter_mut().flat_map(|pack| &mut pack.blobs).for_each(|blob| blob.offset += 1);
        repository.objects().save(Class::Index, serde_json::to_vec(&file).unwrap()).await.unwrap();
        repository.objects().remove(Class::Index, &id).await.unwrap();
    }
    assert!(!check(&place, &repository, &ALL).await.unwrap().is_whole());
    let done = repair(&place, &repository, false).await.unwrap();
    assert!(done.backups.is_empty(), "nothing is lost: {done:?}");
    assert!(check(&place, &repository, &ALL).await.unwrap().is_whole());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_cannot_store_says_why() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    for number in 0..200 {
        fs::write(original.join(format!("file {number}")), noise(3000, number + 1)).unwrap();
    }
    let repository = place.create(SMALL).await;
    let (_, snapshot) = place.back_up(&repository, &original).await.unwrap();
    let pack = pack_of(&repository, &snapshot, &original.join("file 1")).await;
    damage(&place.path("repository").join(Class::Pack.key(&pack)), "flipped");
    // The lock still fits.
    let full = Faulty::new(Arc::clone(&place.bucket), |number| (number > 8).then_some(Fault::Full));
    let unlock = Unlock::Key(Box::new(repository.objects().key().clone()));
    let options = Options { pack_size: 100_000, connections: 1, ..place.options() };
    let opened = Repository::open(Arc::new(full), &unlock, options).await.unwrap();
    let error = format!("{:#}", repair(&place, &opened, false).await.unwrap_err());
    assert!(error.contains("store data/") && !error.contains("cancelled"), "{error}");
}
