//! Time limits, cancel, retries, panics, the server's end.
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_ends_a_grandchild_that_left_its_group_and_is_deaf() {
    let house = House::new();
    let deaf =
        "(setsid sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 0.05; done' &) ; while :; do sleep 0.05; done";
    let mut job = command("deaf", &format!("shell = '''{deaf}'''"));
    job.policies.timeout = Some(Span(Duration::from_millis(500)));
    let run = house.start(&job).await;
    let pid = house.appears("pid").await;
    assert!(is_there(&pid));
    let run = house.end(run).await;
    assert_eq!(outcome(&run), Outcome::TimedOut);
    assert_eq!(run.message, "it took longer than its timeout of 500ms");
    house.until(|| !is_there(&pid)).await;
    let lines = house.lines(run.id).await;
    assert!(lines.iter().any(|line| line.contains("had not stopped and were killed")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_ends_what_left_its_session_and_its_parent_and_cleared_its_environment() {
    let house = House::new();
    let other = shell("other", "setsid env -i sh -c 'echo $$ > other; exec sleep 1000' < /dev/null > /dev/null 2>&1 &");
    assert_eq!(outcome(&house.run(&other).await), Outcome::Succeeded);
    let mut job = shell("runs-away", "setsid env -i sh -c 'echo $$ > pid; exec sleep 1000' & sleep 1000");
    job.policies.timeout = Some(Span(Duration::from_millis(500)));
    let run = house.start(&job).await;
    let (pid, other) = (house.appears("pid").await, house.appears("other").await);
    let run = house.end(run).await;
    assert_eq!(outcome(&run), Outcome::TimedOut);
    house.until(|| !is_there(&pid)).await;
    assert!(is_there(&other), "what another run left behind is none of this one's");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(other.parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_command_ends_at_once_even_if_it_ends_well() {
    let house = House::new();
    let run = house.start(&shell("sleeper", "trap 'exit 0' TERM; echo > here; sleep 1000 & wait")).await;
    house.appears("here").await;
    let asked = std::time::Instant::now();
    assert!(house.runner.cancel(run, "cancelled by hand"));
    let ended = house.end(run).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!((outcome(&ended), &*ended.message), (Outcome::Cancelled, "cancelled by hand"));
    house.until(|| house.runner.active().is_empty()).await;
    assert!(!house.runner.cancel(run, "again"), "there is no such run any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_does_not_listen_is_ended_after_its_grace() {
    let house = House::new();
    let mut job = job("deaf", Does::kind(|_| std::future::pending()));
    job.policies.timeout = Some(Span(Duration::from_millis(50)));
    let run = house.run(&job).await;
    assert_eq!(outcome(&run), Outcome::TimedOut);
    assert_eq!(run.message, "it took longer than its timeout of 50ms; it did not stop and was killed");
    // Its lock is free again.
    job.kind = Does::kind(async |_| Ok("done".into()));
    assert_eq!(outcome(&house.run(&job).await), Outcome::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_blocks_keeps_its_locks_until_it_has_truly_ended() {
    let house = House::new();
    let mut job = job(
        "stuck",
        Does::kind(async |_| {
            std::thread::sleep(Duration::from_secs(6));
            Ok("done".into())
        }),
    );
    job.policies.timeout = Some(Span(Duration::from_millis(50)));
    job.policies.locks = vec!["nas".into()];
    let run = house.run(&job).await;
    assert_eq!(outcome(&run), Outcome::TimedOut);
    let mut next = shell("next", "true");
    next.policies.locks = vec!["nas".into()];
    let next = house.start(&next).await;
    house.until(|| house.runner.active().iter().any(|run| run.id == next && run.waits_for.is_some())).await;
    assert_eq!(outcome(&house.end(next).await), Outcome::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_only_its_own_run_and_its_debts_are_paid() {
    let house = House::new();
    let spool = house.home().join("spool-of-a-run");
    let owed = spool.clone();
    let kind = Does::kind(move |cx| {
        let owed = owed.clone();
        async move {
            cx.record.owe(rusuban::model::Debt::Remove { path: owed.clone() }).await?;
            std::fs::create_dir(&owed)?;
            panic!("index {} out of reach", 7)
        }
    });
    let other = house.start(&shell("other", "sleep 0.3; echo fine")).await;
    let run = house.run(&job("panics", kind)).await;
    assert_eq!(outcome(&run), Outcome::Failed);
    assert!(run.message.contains("panic: index 7 out of reach"), "{}", run.message);
    assert!(!spool.exists());
    assert!(house.store.debts().await.unwrap().is_empty());
    assert_eq!(outcome(&house.end(other).await), Outcome::Succeeded);
}

fn works_at(attempt: u32) -> Arc<dyn Kind> {
    let tries = AtomicU32::new(0);
    Does::kind(move |_| {
        let now = tries.fetch_add(1, SeqCst) + 1;
        async move {
            anyhow::ensure!(now >= attempt, "try {now} did not work");
            Ok(format!("try {now} worked"))
        }
    })
}

fn retry(attempts: u32, delay: Duration) -> Retry {
    Retry { attempts: attempts.try_into().unwrap(), delay: Span(delay), max_delay: Span::seconds(3600) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_tried_again_as_often_as_it_says() {
    let house = House::new();
    let mut job = job("flaky", works_at(3));
    job.policies.retry = retry(3, Duration::from_millis(10));
    let run = house.run(&job).await;
    assert_eq!((outcome(&run), run.attempts, &*run.message), (Outcome::Succeeded, 3, "try 3 worked"));
    let lines = house.lines(run.id).await;
    assert!(lines[0].starts_with("attempt 1 of 3: try 1 did not work; the next one is in "), "{lines:?}");
    assert_eq!(lines[1], "attempt 2 of 3");
    assert_eq!(lines.len(), 4);

    job.kind = works_at(4);
    let run = house.run(&job).await;
    assert_eq!((outcome(&run), run.attempts, &*run.message), (Outcome::Failed, 3, "try 3 did not work"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_a_retry_ends_when_it_is_cancelled_and_holds_no_place() {
    let house = House::new();
    let mut job = job("flaky", works_at(9));
    job.policies.retry = retry(5, Duration::from_secs(1000));
    job.policies.class = "disk".into();
    let run = house.start(&job).await;
    house
        .until(|| house.runner.active()[0].waits_for.as_deref().is_some_and(|why| why.starts_with("its next attempt")))
        .await;
    let mut other = shell("other", "true");
    other.policies.class = "disk".into();
    assert_eq!(outcome(&house.run(&other).await), Outcome::Succeeded);
    house.runner.cancel(run, "enough");
    let run = house.end(run).await;
    assert_eq!((outcome(&run), run.attempts), (Outcome::Cancelled, 1));
    assert_eq!(run.message, "enough, before attempt 2; the last one: try 1 did not work");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_servers_end_all_runs_end_in_the_ledger() {
    let house = House::new();
    let mut finished = house.runner.finished();
    let mut runs = Vec::new();
    for name in ["gentle", "deaf", "waits"] {
        let mut job = shell(
            name,
            if name == "deaf" { "trap '' TERM; echo > deaf; while :; do sleep 0.05; done" } else { "sleep 1000" },
        );
        job.policies.class = "disk".into();
        runs.push(house.start(&job).await);
        if name == "gentle" {
            house.runner.set_limits(Limits { classes: [].into(), others: 2 });
        }
    }
    house.appears("deaf").await;
    house.runner.shutdown().await;
    assert!(house.runner.active().is_empty());
    for run in runs {
        let run = house.store.run(run).await.unwrap().unwrap();
        assert_eq!((outcome(&run), &*run.message), (Outcome::Cancelled, "Rusuban was stopped"));
        finished.try_recv().unwrap();
    }
    let late = house.run(&shell("late", "echo > late")).await;
    assert_eq!(outcome(&late), Outcome::Cancelled);
    assert_eq!(house.read("late"), "");
}

/// A kind whose answer to a simple question is a panic.
#[derive(Debug)]
struct Rotten;

#[async_trait::async_trait]
impl Kind for Rotten {
    fn check(&self, _: &Site) -> Vec<Problem> {
        Vec::new()
    }

    fn locks(&self) -> Vec<String> {
        panic!("no locks for you")
    }

    async fn run(&self, _: &Cx) -> anyhow::Result<Summary> {
        Ok(String::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_outside_the_work_ends_the_run_too() {
    let house = House::new();
    let run = house.run(&job("rotten", Arc::new(Rotten))).await;
    assert_eq!(outcome(&run), Outcome::Failed);
    assert!(run.message.ends_with("panic: no locks for you"), "{}", run.message);
    house.until(|| house.runner.active().is_empty()).await;
}
