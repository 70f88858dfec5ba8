//! What is backed up, stock restic checks and restores.
use std::fs;

use rusuban::repository::{Backup, Single};

use super::support::{Place, SMALL};
use crate::support::{
    restic::Restic,
    trees::{assert_equal, every_kind_of_file},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_every_kind_of_file_is_restored_by_stock_restic() {
    let place = Place::new();
    let original = place.path("original");
    every_kind_of_file(&original);
    let repository = place.create(SMALL).await;
    let (id, snapshot) = place.back_up(&repository, &original).await.unwrap();
    assert_eq!(place.warnings(), Vec::<String>::new());
    let restic = place.restic();
    restic.check().unwrap();
    let back = place.path("by-restic");
    restic.restore(&id.to_string(), &back);
    // Stock restic does not bring back all that Linux has (times behind 2262, symlinks with two names): what it makes
    // of its own backup is the measure.
    let own = Restic::new(&place.path("own-repository"), "other");
    own.init();
    own.back_up(&original);
    let back_of_own = place.path("by-restic-from-its-own");
    own.restore("latest", &back_of_own);
    assert_equal(&place.below(&back_of_own, &original), &place.below(&back, &original));

    let restored = place.restore(&repository, &snapshot, &original, |wish| wish).await.unwrap();
    assert_eq!((restored.failures, restored.warnings), (Vec::new(), Vec::new()));
    assert_equal(&original, &place.path("back"));

    // Nothing has changed: nothing is read or stored.
    let (_, second) = place.back_up(&place.open().await, &original).await.unwrap();
    assert_eq!(second.parent, Some(id));
    let index = repository.index().await.unwrap();
    let (before, after) = (repository.at(&index, &snapshot, &original), repository.at(&index, &second, &original));
    assert_eq!(before.await.unwrap(), after.await.unwrap());
    let summary = second.summary.unwrap();
    assert_eq!((summary.data_blobs, summary.files_new), (0, 0), "{summary:?}");
    restic.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_unknown_length_has_its_right_size() {
    let place = Place::new();
    let repository = place.create(SMALL).await;
    for length in [0_usize, 1, 5_000_000] {
        let bytes: Vec<u8> = (0..length).map(|at| ((at * at) >> 7) as u8).collect();
        let mut backup = Backup::begin(repository.clone(), place.setting(), &place.clock).await.unwrap();
        backup.stream("dump.sql", Single::default(), std::io::Cursor::new(bytes.clone())).await.unwrap();
        let (id, _) = backup.finish(&place.clock).await.unwrap();
        let back = place.path(&format!("by-restic-{length}"));
        place.restic().restore(&id.to_string(), &back);
        assert_eq!(fs::read(back.join("dump.sql")).unwrap(), bytes);
    }
    place.restic().check().unwrap();
}
