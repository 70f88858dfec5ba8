//! Ten thousand runs at once.
use std::{collections::HashMap, sync::Mutex};

use rusuban::store::RunFilter;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_runs_at_once_are_each_done_once() {
    let house = House::new();
    let store = Store::open(&house.home().join("ledger"), house.clock.clone()).await.unwrap();
    let runner = Runner::new(store.clone(), house.clock.clone(), Arc::clone(&house.services), Limits::default());
    let done = Arc::new(Mutex::new(HashMap::new()));
    let kind = {
        let done = Arc::clone(&done);
        Does::kind(move |cx: Cx| {
            *done.lock().unwrap().entry(cx.run).or_insert(0) += 1;
            async { Ok("done".into()) }
        })
    };
    let jobs: Vec<_> = (0..10_000).map(|number| Arc::new(job(&format!("job-{number}"), Arc::clone(&kind)))).collect();
    let rows = jobs.iter().map(|job| store.queue_run(&job.name, Trigger::Manual));
    let runs = futures_util::future::join_all(rows).await;
    let began = std::time::Instant::now();
    for (job, run) in jobs.iter().zip(runs) {
        runner.start(Arc::clone(job), run.unwrap());
    }
    house.until(|| runner.active().is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let done = std::mem::take(&mut *done.lock().unwrap());
    assert!(done.len() == 10_000 && done.values().all(|times| *times == 1));
    let filter = RunFilter { job: None, before: None, limit: 20_000 };
    let ended = store.runs(filter).await.unwrap();
    assert_eq!(ended.iter().filter(|run| outcome(run) == Outcome::Succeeded).count(), 10_000);
}
