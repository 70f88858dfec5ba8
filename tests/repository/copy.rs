//! Copies into another repository, where something goes wrong on the way.
use std::{fs, sync::Arc, time::Duration};

use rusuban::{
    bucket::folder::Folder,
    repository::{Chunking, Class, CopySetting, Options, Repository, chunker::Rule},
    tree::Listener,
};

use super::{
    damage::{ALL, check, damage},
    restore::noise,
    support::{PASSWORD, Place},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_for_a_damaged_backup_is_not_missing_in_the_next_one() {
    let place = Place::new();
    // A file is one piece.
    let chunking = Chunking { chunker: Rule::FastCdc, average: 16 << 20 };
    let repository = place.create(chunking).await;
    let damaged = place.path("damaged");
    let fine = place.path("fine");
    fs::create_dir(&damaged).unwrap();
    fs::create_dir(&fine).unwrap();
    fs::write(damaged.join("noise"), noise(15 << 20, 1)).unwrap();
    place.back_up(&repository, &damaged).await.unwrap();
    let noise_is_in = repository.objects().list(Class::Pack).await.unwrap();
    let (pack, _) = noise_is_in.into_iter().max_by_key(|(_, size)| *size).unwrap();
    // This takes long to compress well.
    let slow: Vec<u8> = noise(4_000_000, 2).into_iter().map(|byte| byte & 7).collect();
    fs::write(damaged.join("slow"), &slow).unwrap();
    let first = place.back_up(&repository, &damaged).await.unwrap();
    // Until it comes to that file, the next one takes a while.
    (0..500).for_each(|number| fs::create_dir(fine.join(format!("folder {number}"))).unwrap());
    fs::write(fine.join("slow"), &slow).unwrap();
    let second = place.back_up(&repository, &fine).await.unwrap();
    damage(&place.path("repository").join(Class::Pack.key(&pack)), "flipped");

    let options = Options { level: 19, threads: 2, ..Options::default() };
    let bucket = Arc::new(Folder::new(place.path("copy")));
    let to = Repository::create(bucket, PASSWORD.as_bytes(), chunking, options, "here", &place.clock).await.unwrap();
    let setting = CopySetting {
        host: "here".into(),
        patience: Duration::ZERO,
        listener: Arc::clone(&place.told) as Arc<dyn Listener>,
        cancelled: place.cancelled.clone(),
    };
    let backups = vec![first.clone(), second.clone()];
    let copied = repository.copy_to(&to, backups, &setting, &place.clock).await.unwrap();
    assert_eq!((copied.damaged[0].0, copied.backups[0].0), (first.0, second.0), "{copied:?}");
    let found = check(&place, &to, &ALL).await.unwrap();
    assert!(found.is_whole() && found.snapshots == 1, "{found:?}");
}
