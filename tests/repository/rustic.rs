//! rustic works on with what was stored here, and what it does is understood here. `dev/test --rustic` runs these; what it
//! stored once is read by every run of the tests (`golden`).
use std::{fs, path::Path};

use rusuban::repository::{Chunking, chunker::Rule};

use super::{
    restore::noise,
    support::{PASSWORD, Place},
};
use crate::support::{
    rustic::Rustic,
    trees::{assert_equal, every_kind_of_file, sh},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "dev/test --rustic runs it"]
async fn rustic_reads_and_continues_what_was_stored_here() {
    for chunker in [Rule::Rabin, Rule::FastCdc] {
        let place = Place::new();
        let original = place.path("original");
        every_kind_of_file(&original);
        fs::write(original.join("large"), noise(9_000_000, 3)).unwrap();
        let repository = place.create(Chunking { chunker, average: 1 << 20 }).await;
        place.back_up(&repository, &original).await.unwrap();

        let rustic = Rustic::new(&place.path("repository"), PASSWORD);
        rustic.run(&["check", "--read-data"]);
        let theirs = place.path("theirs");
        rustic.run(&["restore", &format!("latest:{}", original.display()), theirs.to_str().unwrap()]);
        // It makes two files of a file with two names, and leaves the times of the folder itself.
        let (from, to) = (original.display(), theirs.display());
        assert_eq!(sh(&format!("rsync -aAXn --omit-dir-times --checksum --delete -i '{from}/' '{to}/'")), "");

        fs::write(original.join("new"), noise(2_000_000, 4)).unwrap();
        rustic.run(&["backup", "--host", "here", original.to_str().unwrap()]);
        let (snapshots, damaged) = repository.snapshots().await.unwrap();
        assert!(damaged.is_empty() && snapshots.len() == 2, "{damaged:?} {snapshots:?}");
        let newest = &snapshots[1].1;
        place.restore(&repository, newest, Path::new(&newest.paths[0]), |wish| wish).await.unwrap();
        sh(&format!("touch -r '{from}' '{}'", place.path("back").display()));
        assert_equal(&original, &place.path("back"));

        // And we go on with theirs.
        let (_, ours) = place.back_up(&place.open().await, &original).await.unwrap();
        if chunker == Rule::Rabin {
            assert_eq!(ours.summary.unwrap().data_blobs, 0, "what rustic stored is not stored again");
        }
        rustic.run(&["check", "--read-data"]);
        place.restic().check().unwrap();
    }
}
