//! Stock restic works on with what was stored here, and what it does is understood here.
use std::fs;

use super::support::{Place, SMALL};
use crate::support::trees::{assert_equal, sh};

#[tokio::test(flavor = "multi_thread")]
async fn stock_restic_lists_prints_and_prunes_what_was_stored_here() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir_all(original.join("sub")).unwrap();
    let old: Vec<u8> = (0..400_000_u32).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect();
    fs::write(original.join("sub/changed"), &old).unwrap();
    fs::write(original.join("same"), "the same").unwrap();
    let repository = place.create(SMALL).await;
    let (first, _) = place.back_up(&repository, &original).await.unwrap();
    fs::write(original.join("sub/changed"), "short now").unwrap();
    let (second, snapshot) = place.back_up(&repository, &original).await.unwrap();

    let restic = place.restic();
    let listed = restic.snapshots();
    let ids: Vec<_> = listed.iter().map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, [first.to_string(), second.to_string()]);
    assert_eq!(listed[1]["hostname"], "here");
    let changed = original.join("sub/changed");
    let size = |id: &str| {
        let nodes = restic.ls(id);
        nodes.iter().find(|node| node["path"].as_str() == changed.to_str()).unwrap()["size"].as_u64()
    };
    assert_eq!((size(&ids[0]), size(&ids[1])), (Some(old.len() as u64), Some(9)));
    assert_eq!(restic.dump(&ids[0], &changed), old);

    let stored =
        || sh(&format!("du -sb '{}/data' | cut -f 1", place.path("repository").display())).trim().parse::<u64>();
    let before = stored().unwrap();
    restic.forget(&ids[0]);
    restic.prune();
    restic.check().unwrap();
    assert!(stored().unwrap() + 1_000_000 < before, "what the first one alone needed is still there");
    // The copies that were kept on this machine are of before.
    let repository = place.open().await;
    place.restore(&repository, &snapshot, &original, |wish| wish).await.unwrap();
    assert_equal(&original, &place.path("back"));

    restic.back_up_all(&[&original.join("sub"), &original.join("same")], &["--tag", "evening", "--host", "there"]);
    let (snapshots, _) = repository.snapshots().await.unwrap();
    let newest = &snapshots.last().unwrap().1;
    assert_eq!((newest.tags.clone(), newest.hostname.as_str()), (Some(vec!["evening".to_owned()]), "there"));
    assert_eq!(newest.paths.len(), 2);
}
