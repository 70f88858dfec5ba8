//! The hooks before and after: on every path.
use super::*;

fn hooked(job: &mut Job) {
    job.policies.hooks = Hooks {
        before: line("echo before $RUSUBAN_JOB $RUSUBAN_RUN $RUSUBAN_OUTCOME >> log"),
        after: line("echo after $RUSUBAN_OUTCOME: $RUSUBAN_MESSAGE >> log"),
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_run_once_around_all_attempts_with_the_outcome() {
    let house = House::new();
    let mut job = shell("site", "echo work >> log; echo it is broken; exit 3");
    hooked(&mut job);
    job.policies.retry =
        Retry { attempts: 2.try_into().unwrap(), delay: Span(Duration::from_millis(5)), ..Retry::default() };
    let run = house.run(&job).await;
    assert_eq!(outcome(&run), Outcome::Failed);
    let message = "exit code 3: it is broken";
    assert_eq!(run.message, message);
    assert_eq!(house.read("log"), format!("before site {}\nwork\nwork\nafter failed: {message}\n", run.id));
    assert!(house.store.debts().await.unwrap().is_empty());
    let steps: Vec<_> = house.store.steps(run.id).await.unwrap().into_iter().map(|step| step.name).collect();
    assert_eq!(steps, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hook_after_is_run_when_the_work_is_cancelled_or_panics() {
    let house = House::new();
    let mut job = shell("site", "echo > here; sleep 1000");
    hooked(&mut job);
    let run = house.start(&job).await;
    house.appears("here").await;
    house.runner.cancel(run, "by hand");
    assert_eq!(outcome(&house.end(run).await), Outcome::Cancelled);
    assert_eq!(house.read("log"), format!("before site {run}\nafter cancelled: by hand\n"));
    job.kind = Does::kind(async |_| panic!("oh"));
    let run = house.run(&job).await;
    assert_eq!(outcome(&run), Outcome::Failed);
    assert!(house.read("log").trim_end().ends_with("panic: oh"), "{}", house.read("log"));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_hook_before_fails_the_work_is_not_begun_and_the_hook_after_is_run() {
    let house = House::new();
    let mut job = shell("site", "echo work >> log");
    hooked(&mut job);
    job.policies.hooks.before = line("echo cannot stop it; exit 4");
    let run = house.run(&job).await;
    assert_eq!(outcome(&run), Outcome::Failed);
    assert_eq!(run.message, "the work was not begun: `before` hook: exit code 4");
    assert_eq!(house.read("log"), format!("after failed: {}\n", run.message));
    assert!(house.lines(run.id).await.contains(&"cannot stop it".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_hook_after_fails_so_does_the_run() {
    let house = House::new();
    let mut job = shell("site", "true");
    job.policies.hooks.after = line("exit 5");
    let run = house.run(&job).await;
    assert_eq!(outcome(&run), Outcome::Failed);
    assert_eq!(
        run.message,
        "the work was done (exit code 0, 0 lines of output), but its `after` hook failed: exit code 5"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_has_the_jobs_time_limit_and_is_killed_when_it_is_deaf() {
    let house = House::new();
    let mut job = shell("site", "true");
    job.policies.hooks.before = line("trap '' TERM; while :; do sleep 0.05; done");
    job.policies.timeout = Some(Span(Duration::from_millis(200)));
    job.policies.grace = Span(Duration::from_millis(100));
    let run = house.run(&job).await;
    assert_eq!(run.message, "the work was not begun: `before` hook: stopped after 200ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hook_after_is_owed_before_the_hook_before_is_run() {
    let house = House::new();
    let mut job = shell("site", "true");
    job.policies.hooks = Hooks { before: line("echo > here; sleep 1000"), after: line("echo after >> log") };
    let run = house.start(&job).await;
    house.appears("here").await;
    let debts = house.store.debts().await.unwrap();
    assert!(
        matches!(&debts[..], [(_, owing, _, rusuban::model::Debt::AfterHook { .. })] if *owing == run),
        "{debts:?}"
    );
    house.runner.cancel(run, "enough");
    assert_eq!(outcome(&house.end(run).await), Outcome::Cancelled);
    assert_eq!(house.read("log"), "after\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_after_that_the_servers_end_cuts_short_is_owed_still() {
    let house = House::new();
    let mut job = shell("site", "true");
    job.policies.hooks.after = line(
        "echo $RUSUBAN_OUTCOME >> log; test -e second-time || { touch second-time; echo > here; sleep 1000; }; echo done >> log",
    );
    let run = house.start(&job).await;
    house.appears("here").await;
    house.runner.shutdown().await;
    let ended = house.end(run).await;
    assert_eq!(outcome(&ended), Outcome::Failed);
    assert_eq!(house.store.debts().await.unwrap().len(), 1);
    rusuban::runner::recover(&house.store, &house.clock, &house.services, &[].into()).await.unwrap();
    assert_eq!(house.read("log"), "succeeded\nfailed\ndone\n");
    assert!(house.store.debts().await.unwrap().is_empty());
}
