//! The scheduler's loop under a clock that is set, and beside pauses.
use chrono::{DateTime, TimeDelta, Utc};
use rusuban::{
    model::{JobName, SlotEnd},
    schedule::Schedule,
    scheduler::Scheduler,
};
use tokio_util::sync::CancellationToken;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// A loop with one job, at work.
struct Loop {
    scheduler: Arc<Scheduler>,
    store: Store,
    clock: Clock,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    name: JobName,
    job: Arc<Job>,
    house: House,
}

impl Loop {
    async fn start(line: &str, now: &str, missed: MissedPolicy, overlap: Overlap) -> Self {
        let house = House::new();
        let clock = Clock::simulated(at(now));
        let store = Store::in_memory(clock.clone()).unwrap();
        let mut job = job("photos", Does::kind(|_| async { Ok("done".into()) }));
        job.schedule = Some(Schedule::parse(line, chrono_tz::UTC, &job.name).unwrap());
        (job.policies.missed, job.policies.overlap, job.source) = (missed, overlap, line.into());
        let (name, job) = (job.name.clone(), Arc::new(job));
        let (scheduler, stop, task) = Self::process(&house, &store, &clock, &job).await;
        Self { scheduler, store, clock, stop, task, name, job, house }
    }

    async fn process(
        house: &House,
        store: &Store,
        clock: &Clock,
        job: &Arc<Job>,
    ) -> (Arc<Scheduler>, CancellationToken, tokio::task::JoinHandle<()>) {
        let runner = Runner::new(store.clone(), clock.clone(), Arc::clone(&house.services), Limits::default());
        let scheduler = Arc::new(Scheduler::new(store.clone(), runner, clock.clone()));
        scheduler.reload(vec![Arc::clone(job)]).await.unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (scheduler, stop) = (Arc::clone(&scheduler), stop.clone());
            async move { scheduler.run(stop).await }
        });
        (scheduler, stop, task)
    }

    /// Ends, and starts again under a clock that is set by so much.
    async fn restart(&mut self, by: TimeDelta) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
        self.clock.step(by);
        (self.scheduler, self.stop, self.task) = Self::process(&self.house, &self.store, &self.clock, &self.job).await;
    }

    /// Long enough for the loop to look at the clock.
    async fn look(&self) {
        tokio::time::sleep(Duration::from_millis(1300)).await;
    }

    async fn slots(&self) -> Vec<(DateTime<Utc>, u64, SlotEnd)> {
        let mut slots = self.store.slots(&self.name, 1000).await.unwrap();
        slots.reverse();
        slots.into_iter().map(|slot| (slot.due, slot.count, slot.end)).collect()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_ended_before_the_slot_does_not_cost_the_slot() {
    let house = Loop::start("0 4 * * *", "2026-11-21T03:59:50Z", MissedPolicy::Skip, Overlap::Skip).await;
    house.scheduler.pause(&house.name).await.unwrap();
    house.look().await;
    house.scheduler.resume(&house.name).await.unwrap();
    house.look().await;
    house.clock.step(TimeDelta::seconds(10));
    house.look().await;
    let slots = house.slots().await;
    assert!(matches!(slots.as_slice(), [(_, 1, SlotEnd::Run(_))]), "{slots:?}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_went_a_month_ahead_and_back_does_not_stop_the_schedule() {
    let house = Loop::start("* * * * *", "2026-11-21T12:00:50Z", MissedPolicy::Latest, Overlap::Skip).await;
    house.look().await;
    house.clock.step(TimeDelta::days(30));
    house.look().await;
    house.clock.step(TimeDelta::days(-30));
    house.look().await;
    let before = house.slots().await.len();
    for _ in 0..3 {
        house.clock.step(TimeDelta::seconds(60));
        house.look().await;
    }
    let after = house.slots().await;
    assert!(after.len() >= before + 2, "it waits until the clock is there again: {before}, {}", after.len());
    // And so does the ledger: what falls into a downtime now is not lost.
    let cursor = house.store.cursors().await.unwrap()[&house.name].at.unwrap();
    assert!(cursor < at("2026-11-22T00:00:00Z"), "{cursor}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clock_that_went_a_month_ahead_let_go_by_is_run_when_its_time_comes() {
    let house = Loop::start("0 4 * * *", "2026-11-21T03:59:00Z", MissedPolicy::Latest, Overlap::Skip).await;
    house.look().await;
    house.clock.step(TimeDelta::days(30));
    house.look().await;
    assert_eq!(house.slots().await.len(), 30, "all went by, as it seems");
    house.clock.step(TimeDelta::days(-30));
    house.look().await;
    house.clock.step(TimeDelta::seconds(58));
    for _ in 0..3 {
        house.look().await;
        house.clock.step(TimeDelta::days(1));
    }
    let slots = house.slots().await;
    let ran: Vec<_> = slots.iter().filter(|(.., end)| matches!(end, SlotEnd::Run(_))).map(|(due, ..)| *due).collect();
    let mornings = ["2026-11-21T04:00:00Z", "2026-11-22T04:00:00Z", "2026-11-23T04:00:00Z"].map(at);
    assert_eq!(ran[..3], mornings, "{slots:?}");
    assert_eq!(ran[ran.len() - 1], at("2026-12-20T04:00:00Z"), "made up for under the wrong clock");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_begins_in_1970_and_is_then_set_right_settles_nothing_anew() {
    let years = TimeDelta::days(20_000);
    for at_a_start in [false, true] {
        let mut house = Loop::start("0 4 * * *", "2026-11-21T03:59:59Z", MissedPolicy::Latest, Overlap::Skip).await;
        house.look().await;
        assert_eq!(house.slots().await.len(), 1);
        if at_a_start {
            house.restart(-years).await;
        } else {
            house.clock.step(-years);
        }
        house.look().await;
        house.clock.step(years + TimeDelta::days(2));
        house.look().await;
        let slots = house.slots().await;
        let due: Vec<_> = slots.iter().map(|(due, count, _)| (due.format("%m-%d").to_string(), *count)).collect();
        assert_eq!(due, [("11-21".into(), 1), ("11-22".into(), 1), ("11-23".into(), 1)]);
        assert!(matches!(slots[2].2, SlotEnd::Run(_)), "the newest is made up for: {slots:?}");
        assert_eq!(house.store.cursors().await.unwrap()[&house.name].at, Some(at("2026-11-23T04:00:00Z")));
        house.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_for_a_few_hours_runs_nothing_twice() {
    let house = Loop::start("0 * * * *", "2026-11-21T11:59:59Z", MissedPolicy::Latest, Overlap::Skip).await;
    house.look().await;
    house.look().await;
    house.clock.step(TimeDelta::hours(-3));
    house.look().await;
    for _ in 0..4 {
        house.clock.step(TimeDelta::hours(1));
        house.look().await;
    }
    let due: Vec<String> = house.slots().await.iter().map(|(due, ..)| due.format("%H:%M").to_string()).collect();
    assert_eq!(due, ["12:00", "13:00"]);
    house.end().await;
}

// In one thread, the clock is set back before the loop looks.
#[tokio::test]
async fn a_clock_set_back_just_then_does_not_put_off_what_is_to_be_settled_at_once() {
    let house = Loop::start("0 * * * *", "2026-11-21T11:30:00Z", MissedPolicy::Skip, Overlap::Skip).await;
    house.look().await;
    house.scheduler.pause(&house.name).await.unwrap();
    house.clock.step(TimeDelta::hours(3));
    house.look().await;
    house.scheduler.resume(&house.name).await.unwrap();
    house.clock.step(TimeDelta::hours(-1));
    house.look().await;
    let due: Vec<String> = house.slots().await.iter().map(|(due, ..)| due.format("%H:%M").to_string()).collect();
    assert_eq!(due, ["12:00", "13:00"]);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_that_are_due_at_one_moment_run_where_they_may_and_are_told_where_not() {
    for (overlap, runs) in [(Overlap::Queue, 6), (Overlap::Skip, 1)] {
        let house = Loop::start("@every 1s", "2026-11-21T11:59:59Z", MissedPolicy::Skip, overlap).await;
        house.look().await;
        let before = house.slots().await.len();
        house.clock.step(TimeDelta::seconds(6));
        house.look().await;
        let found = house.slots().await;
        let ran = found[before..].iter().filter(|(.., end)| matches!(end, SlotEnd::Run(_))).count();
        assert!(ran >= runs && found.len() >= before + 6, "{overlap:?}: {found:?}");
        let told = found.iter().any(|(.., end)| matches!(end, SlotEnd::Missed(rusuban::model::Missed::Overtaken)));
        assert_eq!(told, overlap == Overlap::Skip);
        house.end().await;
    }
}
