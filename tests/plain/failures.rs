//! Whatever goes wrong, there is a whole backup or none.
use std::{
    fs,
    io::{Cursor, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rusuban::{
    clock::Clock,
    plain::{Single, SourceKind},
    tree::Tree,
};

use super::support::Place;
use crate::bucket::promises::noise;

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

type Damage = Box<dyn Fn(&Path)>;

/// What an unreliable disk may do to what was stored, before it is read back.
fn damages() -> Vec<(String, Damage)> {
    const STRETCH: u64 = 16 << 20;
    let flip = |from_end: bool, offset: u64| -> (String, Damage) {
        let damage = move |path: &Path| {
            let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
            let at = if from_end { file.metadata().unwrap().len() - offset } else { offset };
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        };
        (format!("a bit flipped {offset} bytes from its {}", if from_end { "end" } else { "start" }), Box::new(damage))
    };
    let resize = |by: i64| -> (String, Damage) {
        let damage = move |path: &Path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len().strict_add_signed(by)).unwrap();
        };
        (format!("{by:+} bytes"), Box::new(damage))
    };
    let swap = |path: &Path| {
        let mut all = fs::read(path).unwrap();
        let (one, other) = all.split_at_mut(usize::try_from(STRETCH).unwrap());
        one[..1000].swap_with_slice(&mut other[..1000]);
        fs::File::create(path).unwrap().write_all(&all).unwrap();
    };
    vec![
        flip(false, 0),
        flip(false, STRETCH - 1),
        flip(false, STRETCH),
        flip(false, 2 * STRETCH + 77),
        flip(true, 1),
        resize(-1),
        resize(1),
        ("two stretches exchanged".to_owned(), Box::new(swap)),
        ("gone".to_owned(), Box::new(|path| fs::remove_file(path).unwrap())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bucket_holds_otherwise_than_it_was_sent_is_no_backup() {
    let facts = || Single { kind: SourceKind::Tree, path: None, rows: [].into(), file: None, bytes: None };
    // It cannot be compressed, so it is stored in several stretches.
    let bytes = noise(1, 40 << 20);
    for (what, damage) in damages() {
        let place = Place::new();
        let mut writer = place.writer().await;
        writer.stream("data", facts(), Cursor::new(bytes.clone())).await.unwrap();
        let [object] = place.stored().try_into().unwrap();
        damage(&object);
        let error = writer.finish("here".into(), &Clock::system()).await.unwrap_err();
        assert!(format!("{error:#}").contains("read back what was stored"), "{what}: {error:#}");
        assert_eq!(place.stored(), Vec::<PathBuf>::new(), "{what}");
    }
}
