//! The next start after a process that died.
use std::{collections::BTreeMap, os::unix::process::CommandExt};

use rusuban::{
    model::{Debt, Level},
    process::Tree,
    runner::recover,
};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_cut_off_is_interrupted_ended_and_undone() {
    let house = House::new();
    let mut job = shell("site", "true");
    job.policies.on_crash = OnCrash::Rerun;
    let (name, spool) = (&job.name, house.home().join("spool-of-a-run"));
    let begun = house.store.queue_run(name, Trigger::Manual).await.unwrap().id;
    house.store.run_started(begun, 1).await.unwrap();
    let hook = vec!["sh".into(), "-c".into(), "echo $RUSUBAN_RUN $RUSUBAN_OUTCOME | tee log".into()];
    house.store.owe(begun, name, &Debt::AfterHook { command: hook }).await.unwrap();
    house.store.owe(begun, name, &Debt::Remove { path: spool.clone() }).await.unwrap();
    std::fs::write(&spool, "half a dump").unwrap();
    let queued = house.store.queue_run(&"other".parse().unwrap(), Trigger::Manual).await.unwrap().id;
    // A command of the run that outlived Rusuban.
    let mut orphan = std::process::Command::new("sleep");
    orphan.arg("1000").envs(Tree::new(house.home(), begun).environment()).process_group(0);
    let mut orphan = orphan.spawn().unwrap();

    let jobs = BTreeMap::from([(name.clone(), Arc::new(job.clone()))]);
    let again = recover(&house.store, &house.clock, &house.services, &jobs).await.unwrap();

    assert_eq!(again, [begun], "the other says nothing of `on_crash`");
    assert!(!orphan.wait().unwrap().success());
    assert!(!spool.exists());
    assert_eq!(house.read("log"), format!("{begun} interrupted\n"));
    assert!(house.store.debts().await.unwrap().is_empty());
    let run = house.store.run(begun).await.unwrap().unwrap();
    assert_eq!(outcome(&run), Outcome::Interrupted);
    assert_eq!(
        run.message,
        "Rusuban ended while this run was at work; processes that it had left behind were stopped: 1"
    );
    let run = house.store.run(queued).await.unwrap().unwrap();
    assert_eq!((outcome(&run), &*run.message), (Outcome::Interrupted, "Rusuban ended before this run began"));
    let lines = house.store.lines(begun, 0, 100).await.unwrap();
    assert_eq!(lines[0].level, Level::Error);
    assert!(house.lines(begun).await.contains(&format!("{begun} interrupted")));

    assert!(recover(&house.store, &house.clock, &house.services, &jobs).await.unwrap().is_empty(), "once is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_that_cannot_be_paid_is_owed_still() {
    let house = House::new();
    let name = "site".parse().unwrap();
    let run = house.store.queue_run(&name, Trigger::Manual).await.unwrap().id;
    let debt = Debt::Upload { bucket: "gone".into(), key: "a/b".into(), upload: "7".into() };
    house.store.owe(run, &name, &debt).await.unwrap();
    recover(&house.store, &house.clock, &house.services, &BTreeMap::new()).await.unwrap();
    assert_eq!(house.store.debts().await.unwrap().len(), 1);
    let lines = house.lines(run).await;
    assert!(lines.last().unwrap().contains("the settings no longer have this bucket; it is tried again"), "{lines:?}");
}
