//! Whatever goes wrong, there is a whole backup or none.
use std::{fs, path::PathBuf};

use rusuban::tree::Tree;

use super::support::Place;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_fails_the_backup_names_it_and_leaves_nothing() {
    let place = Place::new();
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    let nothing = Vec::<PathBuf>::new();
    let error = place.back_up(Tree::at(&empty)).await.unwrap_err();
    assert!(format!("{error:#}").contains("not a single file"), "{error:#}");
    assert_eq!(place.stored(), nothing);
    let error = place.back_up(Tree::at(&place.path("missing"))).await.unwrap_err();
    assert!(format!("{error:#}").contains("missing: No such file"), "{error:#}");
    assert_eq!(place.stored(), nothing);
    let error = place.back_up(Tree::at(std::path::Path::new("/proc"))).await.unwrap_err();
    assert!(format!("{error:#}").contains("made up by the kernel"), "{error:#}");
    assert_eq!(place.stored(), nothing);
    assert!(place.told.owed.lock().unwrap().is_empty());
}
