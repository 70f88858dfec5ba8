//! Several programs at work in one repository at once, a backup that is asked to stop, and one that is killed.
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use rusuban::{
    bucket::Bucket,
    repository::{Backup, PruneOptions, Setting},
    tree::Tree,
};

use super::{
    damage::{ALL, check},
    restore::noise,
    support::{Place, SMALL},
};
use crate::support::{
    faulty::{Fault, Faulty},
    trees::{assert_equal, sh},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn backups_and_prunes_of_ours_and_of_stock_restic_go_on_side_by_side() {
    let place = Arc::new(Place::new());
    let (ours, theirs) = (place.path("ours"), place.path("theirs"));
    for folder in [&ours, &theirs] {
        fs::create_dir(folder).unwrap();
    }
    place.create(SMALL).await;
    let until = Instant::now() + Duration::from_secs(12);
    let write = |folder: &Path, round: u32| {
        for number in 0..4 {
            fs::write(folder.join(number.to_string()), noise(150_000, round * 7 + number)).unwrap();
        }
    };
    let backing_up = {
        let (place, ours) = (Arc::clone(&place), ours.clone());
        tokio::spawn(async move {
            let mut made = 0;
            // Who waits for the others has his turn when they are done.
            while Instant::now() < until || made < 2 {
                write(&ours, made);
                // Another's lock is waited for, as a job does.
                let setting = Setting { patience: Duration::from_secs(60), ..place.setting() };
                let mut backup = Backup::begin(place.open().await, setting, &place.clock).await.unwrap();
                backup.tree("files", Tree::at(&ours)).await.unwrap();
                backup.finish(&place.clock).await.unwrap();
                made += 1;
            }
            made
        })
    };
    let pruning = {
        let place = Arc::clone(&place);
        tokio::spawn(async move {
            let options =
                PruneOptions { grace: TimeDelta::zero(), patience: Duration::from_secs(60), ..PruneOptions::default() };
            let mut pruned = 0;
            while Instant::now() < until || pruned < 2 {
                let repository = place.open().await;
                // The oldest of ours is forgotten, so that there is something to do.
                let (all, _) = repository.snapshots().await.unwrap();
                let mine: Vec<_> = all.iter().filter(|(_, snapshot)| snapshot.job().is_some()).collect();
                if mine.len() > 2 {
                    repository.objects().remove(rusuban::repository::Class::Snapshot, &mine[0].0).await.unwrap();
                }
                repository.prune(&options, "here", &*place.told, &place.clock).await.unwrap();
                pruned += 1;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            pruned
        })
    };
    let by_restic = {
        let (place, theirs) = (Arc::clone(&place), theirs.clone());
        tokio::task::spawn_blocking(move || {
            let (mut done, mut round) = (0, 1000);
            while Instant::now() < until || done < 2 {
                write(&theirs, round);
                round += 1;
                let restic = place.restic();
                // It does not wait: it says that the repository is locked.
                let backed_up = restic.run(&["backup", "-q", theirs.to_str().unwrap()]);
                let forgotten = restic.run(&[
                    "forget",
                    "-q",
                    "--prune",
                    "--host",
                    &hostname(),
                    "--path",
                    theirs.to_str().unwrap(),
                    "--keep-last",
                    "1",
                ]);
                for outcome in [backed_up, forgotten] {
                    match outcome {
                        Ok(_) => done += 1,
                        Err(error) => assert!(error.contains("locked"), "{error}"),
                    }
                }
            }
            done
        })
    };
    let (made, pruned, done) = (backing_up.await.unwrap(), pruning.await.unwrap(), by_restic.await.unwrap());
    assert!(made > 1 && pruned > 1 && done > 1, "{made} backups, {pruned} prunes, {done} by restic");
    let repository = place.open().await;
    let found = check(&place, &repository, &ALL).await.unwrap();
    assert!(found.is_whole(), "{found:?}");
    place.restic().check().unwrap();
    let (all, _) = repository.snapshots().await.unwrap();
    let newest = all.iter().rev().find(|(_, snapshot)| snapshot.job().is_some()).unwrap();
    let restored = place.restore(&repository, &newest.1, &ours, |wish| wish).await.unwrap();
    assert_eq!(restored.failed, 0);
    assert_equal(&ours, &place.path("back"));
}

fn hostname() -> String {
    sh("hostname").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_while_the_line_is_dead_it_ends_within_seconds_and_harms_nothing() {
    let place = Place::new();
    let original = place.path("original");
    fs::create_dir(&original).unwrap();
    fs::write(original.join("file"), noise(30_000_000, 1)).unwrap();
    let made = place.create(SMALL).await;
    let dead = Arc::new(AtomicBool::new(false));
    let is_dead = Arc::clone(&dead);
    let bucket: Arc<dyn Bucket> = Arc::new(Faulty::new(Arc::clone(&place.bucket), move |_| {
        is_dead.load(Ordering::SeqCst).then_some(Fault::Hang)
    }));
    let unlock = rusuban::repository::Unlock::Key(Box::new(made.objects().key().clone()));
    let repository = rusuban::repository::Repository::open(bucket, &unlock, place.options()).await.unwrap();
    let mut backup = Backup::begin(repository, place.setting(), &place.clock).await.unwrap();
    dead.store(true, Ordering::SeqCst);
    let stop = place.cancelled.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.cancel();
    });
    let begun = Instant::now();
    backup.tree("files", Tree::at(&original)).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    backup.abandon().await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    dead.store(false, Ordering::SeqCst);
    // What stays behind, such as its lock, is of a process that is gone.
    made.unlock(true, "here", &place.clock).await.unwrap();
    assert!(check(&place, &made, &ALL).await.is_ok() || place.cancelled.is_cancelled());
    place.restic().check().unwrap();
}

#[test]
fn killed_at_any_moment_a_backup_leaves_a_sound_repository_and_the_next_one_succeeds() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    sh(&format!("cd '{}' && mkdir jobs kept && echo correct > password && chmod 600 password", at.display()));
    fs::write(
        at.join("rusuban.toml"),
        "[repository.safe]\npassword = { file = \"password\" }\npack_size = \"1 MiB\"\n",
    )
    .unwrap();
    let job = format!(
        "kind = \"backup\"\nrepository = \"safe\"\nkeep = {{ last = 3 }}\n[[source]]\npath = {:?}\n",
        at.join("kept")
    );
    fs::write(at.join("jobs/files.toml"), job).unwrap();
    let rusuban = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rusuban"));
        command.arg("--home").arg(at).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(rusuban(&["repository", "init", "safe"]).status().unwrap().success());
    let restic = crate::support::restic::Restic::new(&at.join("data/backups/safe"), "correct");
    let mut killed = 0;
    for round in 0..14_u32 {
        for number in 0..6 {
            fs::write(at.join(format!("kept/{number}")), noise(700_000, round * 10 + number)).unwrap();
        }
        let mut run = rusuban(&["run", "files"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(150 + u64::from(round) * 90));
        if run.try_wait().unwrap().is_none() {
            run.kill().unwrap();
            killed += 1;
        }
        run.wait().unwrap();
        assert!(rusuban(&["repository", "check", "safe"]).status().unwrap().success(), "after {round} rounds");
    }
    assert!(killed > 4, "only {killed} were killed");
    assert!(rusuban(&["run", "files"]).status().unwrap().success());
    let back = at.join("back");
    assert!(rusuban(&["restore", "files", "--to", back.to_str().unwrap()]).status().unwrap().success());
    assert_equal(&at.join("kept"), &back.join("kept"));
    assert!(rusuban(&["repository", "prune", "safe", "--now"]).status().unwrap().success());
    restic.check().unwrap();
}
