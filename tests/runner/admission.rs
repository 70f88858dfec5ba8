//! Overlap, locks and classes.
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rusuban::{model::Skipped, runner::Admission};

use super::*;

/// Counts how many are at work at once, and the most there ever were.
#[derive(Default)]
struct Crowd(AtomicUsize, AtomicUsize);

impl Crowd {
    async fn work(&self) {
        let now = self.0.fetch_add(1, SeqCst) + 1;
        self.1.fetch_max(now, SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.0.fetch_sub(1, SeqCst);
    }
}

fn crowd() -> (Arc<Crowd>, Arc<dyn Kind>) {
    let crowd = Arc::new(Crowd::default());
    let kind = {
        let crowd = Arc::clone(&crowd);
        Does::kind(move |_| {
            let crowd = Arc::clone(&crowd);
            async move {
                crowd.work().await;
                Ok("done".into())
            }
        })
    };
    (crowd, kind)
}

async fn run_all(house: &House, jobs: &[Job]) {
    let mut runs = Vec::new();
    for job in jobs {
        runs.push(house.start(job).await);
    }
    for run in runs {
        assert_eq!(outcome(&house.end(run).await), Outcome::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_that_touch_one_thing_never_overlap() {
    let house = House::new();
    let (crowd, kind) = crowd();
    let jobs: Vec<_> = (0..30)
        .map(|number| {
            let mut job = job(&format!("job-{number}"), Arc::clone(&kind));
            // Taken in every order: no two wait for each other for ever.
            let mut locks =
                vec!["one".to_owned(), "two".to_owned(), format!("path:/srv/{}", ["", "a", "a/b"][number % 3])];
            locks.rotate_left(number % 3);
            job.policies.locks = locks;
            job
        })
        .collect();
    run_all(&house, &jobs).await;
    assert_eq!(crowd.1.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_its_limit_of_a_class_are_at_work() {
    let house = House::new();
    for (class, limit) in [("network", 4), ("disk", 1)] {
        let (crowd, kind) = crowd();
        let jobs: Vec<_> = (0..20)
            .map(|number| {
                let mut job = job(&format!("{class}-{number}"), Arc::clone(&kind));
                job.policies.class = class.into();
                job
            })
            .collect();
        run_all(&house, &jobs).await;
        assert_eq!(crowd.1.load(SeqCst), limit, "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_says_for_what() {
    let house = House::new();
    let mut first = shell("first", "echo > here; sleep 1000");
    first.policies.locks = vec!["nas".into()];
    let mut second = shell("second", "true");
    second.policies.locks = vec!["nas".into()];
    let first = house.start(&first).await;
    house.appears("here").await;
    let second = house.start(&second).await;
    house.until(|| house.runner.active().iter().any(|run| run.id == second && run.waits_for.is_some())).await;
    let waits = house.runner.active().into_iter().find(|run| run.id == second).unwrap();
    assert_eq!(waits.waits_for.unwrap(), format!("`nas`, which run {first} of first holds"));
    house.runner.cancel(first, "enough");
    assert_eq!(outcome(&house.end(second).await), Outcome::Succeeded);
    assert_eq!(house.lines(second).await[0], format!("waits for `nas`, which run {first} of first holds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn overlap_is_skipped_queued_cancelled_or_allowed() {
    let house = House::new();
    let mut job = shell("slow", "echo $RUSUBAN_RUN > started; sleep 1000");
    assert_eq!(house.runner.admit(&job), Admission::Start);
    let first = house.start(&job).await;
    house.appears("started").await;
    assert_eq!(house.runner.admit(&job), Admission::Skip(Skipped::Overlap(first)));
    job.policies.overlap = Overlap::Allow;
    assert_eq!(house.runner.admit(&job), Admission::Start);
    job.policies.overlap = Overlap::CancelPrevious;
    assert_eq!(house.runner.admit(&job), Admission::CancelPrevious(first));

    job.policies.overlap = Overlap::Queue;
    let mut waiting = Vec::new();
    for _ in 0..10 {
        assert_eq!(house.runner.admit(&job), Admission::Queue);
        waiting.push(house.start(&job).await);
    }
    assert_eq!(house.runner.admit(&job), Admission::Skip(Skipped::QueueFull));
    assert_eq!(house.read("started").trim(), first.to_string(), "none of them has begun");

    job.policies.overlap = Overlap::CancelPrevious;
    job.kind = shell("slow", "echo last").kind;
    let last = house.start(&job).await;
    assert_eq!(outcome(&house.end(last).await), Outcome::Succeeded);
    for earlier in waiting.into_iter().chain([first]) {
        let earlier = house.end(earlier).await;
        assert_eq!(outcome(&earlier), Outcome::Cancelled);
        assert_eq!(earlier.message, format!("run {last} took its place"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_job_overlap_only_when_it_allows_it() {
    let house = House::new();
    for (overlap, at_once) in [(Overlap::Skip, 1), (Overlap::Queue, 1), (Overlap::Allow, 5)] {
        let (crowd, kind) = crowd();
        let mut job = job("one", kind);
        job.policies.overlap = overlap;
        run_all(&house, &vec![job; 5]).await;
        let most = crowd.1.load(SeqCst);
        assert!(if at_once == 1 { most == 1 } else { most > 1 }, "{overlap:?}: {most}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_job_are_served_in_the_order_in_which_they_were_started() {
    let house = House::new();
    let mut job = shell("one", "echo $RUSUBAN_RUN >> log");
    job.policies.overlap = Overlap::Queue;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(house.start(&job).await);
    }
    for run in &runs {
        house.end(*run).await;
    }
    assert_eq!(house.read("log"), runs.iter().map(|run| format!("{run}\n")).collect::<String>());
}
