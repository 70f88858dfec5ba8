//! A tree that is read first and stored later: what was read counts, and nothing stays behind.
use std::fs;

use rusuban::{
    clock::Clock,
    plain::{Reading, restore, verify},
    tree::Tree,
};

use super::support::{Place, files_below};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_stored_whatever_becomes_of_it_meanwhile() {
    let place = Place::new();
    let source = place.path("source");
    fs::create_dir(&source).unwrap();
    let big: Vec<u8> = (0..2_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(source.join("big"), &big).unwrap();
    fs::write(source.join("file"), "as it was").unwrap();
    let mut writer = place.writer().await;
    let spooled = writer.spool("files", Tree::at(&source)).await.unwrap();
    assert_eq!(spooled.report().entries, 3);
    assert!(place.stored().is_empty() && files_below(&place.path("spool")).is_empty());
    fs::write(source.join("file"), "changed since").unwrap();
    let report = writer.put_spooled(spooled).await.unwrap();
    assert_eq!((report.entries, report.bytes), (3, big.len() as u64 + 9));
    let manifest = writer.finish("here".into(), &Clock::system()).await.unwrap();
    verify(&place.bucket, &manifest, &Reading::default()).await.unwrap();
    let back = place.path("back");
    restore(&place.bucket, &manifest, None, &back, false, &Reading::default()).await.unwrap();
    let back = if back.join("files").is_dir() { back.join("files") } else { back };
    assert_eq!(fs::read_to_string(back.join("file")).unwrap(), "as it was");
    assert_eq!(fs::read(back.join("big")).unwrap(), big);
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_while_it_is_read_nothing_is_left() {
    let place = Place::new();
    let source = place.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "text").unwrap();
    place.cancelled.cancel();
    let mut writer = place.writer().await;
    let error = writer.spool("files", Tree::at(&source)).await.err().unwrap();
    assert!(format!("{error:#}").contains("cancelled"), "{error:#}");
    writer.abandon().await;
    assert!(place.stored().is_empty() && files_below(&place.path("spool")).is_empty());
}
