//! One byte flipped, one object cut, one removed, of every class: found, named; unaffected backups restore.
use std::{fs, path::Path, sync::Arc};

use rusuban::{
    repository::{Cache, Class, Findings, Look, Options, Repository, Unlock},
    tree::Listener,
};

use super::{
    repair::repair,
    restore::noise,
    support::{Place, SMALL},
};
use crate::support::{faulty::Faulty, trees::sh};

pub(super) const ALL: Look = Look { snapshots: None, data: 1.0, part: 0 };

pub(super) async fn check(place: &Place, repository: &Repository, look: &Look) -> anyhow::Result<Findings> {
    let listener = Arc::clone(&place.told) as Arc<dyn Listener>;
    repository.check(look, &listener, &place.cancelled).await
}

pub(super) fn damage(file: &Path, how: &str) {
    let mut bytes = fs::read(file).unwrap();
    match how {
        "flipped" => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(file, bytes).unwrap();
        }
        "cut" => fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
        _ => fs::remove_file(file).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_is_found_and_what_it_touches_is_named() {
    for class in [Class::Index, Class::Pack, Class::Snapshot, Class::Lock] {
        for how in ["flipped", "cut", "removed"] {
            let place = Place::new();
            let (one, other) = (place.path("one"), place.path("other"));
            for (folder, seed) in [(&one, 1), (&other, 50)] {
                fs::create_dir(folder).unwrap();
                for number in 0..12 {
                    fs::write(folder.join(format!("file {number:02}")), noise(120_000, seed + number)).unwrap();
                }
            }
            let repository = place.create(SMALL).await;
            let (first, _) = place.back_up(&repository, &one).await.unwrap();
            let (_, second) = place.back_up(&repository, &other).await.unwrap();
            let found = check(&place, &repository, &ALL).await.unwrap();
            assert!(found.is_whole(), "{found:?}");
            assert_eq!(
                (found.snapshots, found.packs),
                (2, repository.objects().list(Class::Pack).await.unwrap().len())
            );
            if class == Class::Lock {
                // A sound repository says so again and again.
                continue;
            }
            // The first object of the class that belongs to the first backup.
            let victim = match class {
                Class::Snapshot => first,
                Class::Index => repository.objects().list(class).await.unwrap()[0].0,
                _ => {
                    let index = repository.index().await.unwrap();
                    let node = repository
                        .at(&index, &load(&repository, &first).await, &one.join("file 03"))
                        .await
                        .unwrap()
                        .unwrap();
                    index.find(rusuban::repository::BlobKind::Data, &node.content.unwrap()[0]).unwrap().pack
                }
            };
            damage(&place.path("repository").join(class.key(&victim)), how);
            // A cache must not hide it.
            fs::remove_dir_all(place.path("cache")).unwrap();
            let found = check(&place, &repository, &ALL).await.unwrap();
            let what = format!("{class} {how}: {found:?}");
            if (class, how) == (Class::Snapshot, "removed") {
                // What was never there cannot be told from what was removed.
                assert!(found.is_whole() && found.snapshots == 1, "{what}");
                continue;
            }
            assert!(!found.errors.is_empty(), "{what}");
            if class == Class::Pack {
                let touched = &found.touched;
                assert!(touched.len() == 1 && touched[0].snapshot == first, "{what}");
                let file = one.join("file 03");
                assert!(how != "removed" || touched[0].files.contains(&file), "{what}");
            }
            if class != Class::Index {
                let restored = place.restore(&repository, &second, &other, |wish| wish).await.unwrap();
                assert_eq!(restored.failed, 0, "{what}");
            }
        }
    }
}

async fn load(repository: &Repository, id: &rusuban::repository::Id) -> rusuban::repository::Snapshot {
    rusuban::repository::Snapshot::load(repository.objects(), id).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_reads_a_share_and_a_hundred_days_read_all() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(30_000_000, 3)).unwrap();
    let repository = place.create(SMALL).await;
    place.back_up(&repository, &original).await.unwrap();
    let packs = repository.objects().list(Class::Pack).await.unwrap().len();
    let mut read = 0;
    for part in 0..10 {
        let found = check(&place, &repository, &Look { snapshots: None, data: 0.1, part }).await.unwrap();
        assert!(found.is_whole() && found.packs < packs);
        read += found.packs;
    }
    // The pack of trees is read each time.
    assert_eq!(read, packs + 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_ends_while_it_is_looked_for_damage_is_none() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(3000, 1)).unwrap();
    let repository = place.create(SMALL).await;
    place.back_up(&repository, &original).await.unwrap();
    let (before, after) = (place.path("before"), place.path("after"));
    sh(&format!("cp -a '{}' '{}'", place.path("repository").display(), before.display()));
    fs::write(original.join("another"), noise(3000, 2)).unwrap();
    place.back_up(&repository, &original).await.unwrap();
    sh(&format!("mv '{}' '{}'", place.path("repository").display(), after.display()));
    for (at, is_repair) in (3..20).flat_map(|at| [(at, false), (at, true)]) {
        let now = place.path("repository");
        sh(&format!("rm -rf '{0}'; cp -a '{1}' '{0}'", now.display(), before.display()));
        let (arrives, unlock) = (after.clone(), Unlock::Key(Box::new(repository.objects().key().clone())));
        let meanwhile = Faulty::new(Arc::clone(&place.bucket), move |number| {
            if number == at {
                sh(&format!("cp -an '{}/.' '{}'", arrives.display(), now.display()));
            }
            None
        });
        let options = Options { cache: Cache::default(), ..place.options() };
        let opened = Repository::open(Arc::new(meanwhile), &unlock, options).await.unwrap();
        if is_repair {
            let would = repair(&place, &opened, true).await.unwrap();
            assert!(would.backups.is_empty(), "operation {at}: {would:?}");
        } else {
            let found = check(&place, &opened, &ALL).await.unwrap();
            assert!(found.is_whole(), "operation {at}: {found:?}");
        }
    }
}
