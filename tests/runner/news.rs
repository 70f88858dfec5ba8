//! What runs have told: in the outbox when the run has ended, in the same transaction.
use rusuban::{
    kinds::Told,
    model::{
        Missed, Outcome,
        news::{Event, News, Severity},
    },
    notify::plan::Rules,
    runner::news,
    store::Standing,
};

use super::*;

fn told(job: Job, notify: &str) -> Job {
    let table: std::collections::BTreeMap<String, Notify> = toml::from_str(&format!("notify = {notify}")).unwrap();
    Job { notify: table.into_values().next().unwrap(), ..job }
}

impl House {
    async fn outbox(&self) -> Vec<(String, News)> {
        let rows = self.store.waiting(None, 100).await.unwrap();
        rows.into_iter().map(|row| (row.notifier, row.news)).collect()
    }

    async fn events(&self) -> Vec<(String, Event)> {
        self.outbox().await.into_iter().map(|(name, news)| (name, news.event)).collect()
    }
}

fn to(name: &str, event: Event) -> (String, Event) {
    (name.to_owned(), event)
}

#[tokio::test]
async fn a_time_of_failing_has_one_beginning_and_one_end_whatever_happens_in_it() {
    let house = House::new();
    let job = told(shell("a", "test -e well"), "['feed']");
    for _ in 0..3 {
        house.run(&job).await;
    }
    assert_eq!(house.events().await, [to("feed", Event::Failed)]);
    std::fs::write(house.home().join("well"), "").unwrap();
    house.run(&job).await;
    house.run(&job).await;
    std::fs::remove_file(house.home().join("well")).unwrap();
    house.run(&job).await;
    assert_eq!(house.events().await, [Event::Failed, Event::Recovered, Event::Failed].map(|event| to("feed", event)));
    let outbox = house.outbox().await;
    let (first, end) = (&outbox[0].1, &outbox[1].1);
    assert_eq!((first.since, first.since), (Some(first.at), end.since), "since the first failure");
    assert!(end.at > first.at && first.what.contains("exit"), "{first:?}");
    assert_ne!(outbox[2].1.story(), first.story());
}

#[tokio::test]
async fn a_first_success_is_told_and_a_job_told_after_three_is_told_at_the_third() {
    let house = House::new();
    let fine = told(shell("fine", "true"), "['feed']");
    house.run(&fine).await;
    house.run(&fine).await;
    assert_eq!(house.events().await, [to("feed", Event::FirstSuccess)]);
    let patient = told(shell("b", "test -e well"), "{ failed = ['mail'], after = 3, severity = 'critical' }");
    house.run(&patient).await;
    house.run(&patient).await;
    assert_eq!(house.events().await.len(), 1);
    house.run(&patient).await;
    let (name, news) = house.outbox().await.pop().unwrap();
    assert_eq!((name.as_str(), news.event, news.severity), ("mail", Event::Failed, Severity::Critical));
    let first =
        house.store.runs(rusuban::store::RunFilter { job: Some(patient.name.clone()), before: None, limit: 9 }).await;
    let RunState::Finished { at, .. } = first.unwrap().pop().unwrap().state else { panic!() };
    assert_eq!(news.since, Some(at), "it failed from the first on");
    // Two of three are no news at all.
    let other = told(shell("c", "test -e well"), "{ failed = ['mail'], after = 3 }");
    house.run(&other).await;
    std::fs::write(house.home().join("well"), "").unwrap();
    house.run(&other).await;
    assert_eq!(house.events().await.len(), 2);
}

#[tokio::test]
async fn what_a_crash_cut_off_is_told_unless_it_is_run_again() {
    let house = House::new();
    let job = told(shell("a", "true"), "['feed']");
    let again =
        Job { policies: Policies { on_crash: OnCrash::Rerun, ..policies() }, ..told(shell("b", "true"), "['feed']") };
    for job in [&job, &again] {
        let run = house.store.queue_run(&job.name, Trigger::Manual).await.unwrap();
        house.store.run_started(run.id, 1).await.unwrap();
    }
    let jobs = [&job, &again].map(|job| (job.name.clone(), Arc::new(job.clone()))).into();
    rusuban::runner::recover(&house.store, &house.clock, &house.services, &jobs).await.unwrap();
    rusuban::runner::recover(&house.store, &house.clock, &house.services, &jobs).await.unwrap();
    let outbox = house.outbox().await;
    assert_eq!(outbox.len(), 1, "{outbox:?}");
    assert!(outbox[0].1.what.contains("Rusuban ended while this run was at work"));
    house.run(&again).await;
    assert_eq!(house.events().await, [to("feed", Event::Failed), to("feed", Event::FirstSuccess)]);
}

#[tokio::test]
async fn what_a_kind_has_to_tell_is_told_once_with_the_runs_end_and_without_secrets() {
    let house = House::new();
    let tries = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let kind = Does::kind(move |cx| {
        let tries = Arc::clone(&tries);
        async move {
            for source in ["db", "files"] {
                let what = format!("{source} is small: of-the-settings");
                cx.record.tell(Told { event: Event::TooSmall, severity: Severity::Warning, what, lines: Vec::new() });
            }
            anyhow::ensure!(tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0, "not yet");
            Ok("kept".to_owned())
        }
    });
    let retry = Retry { attempts: 2.try_into().unwrap(), delay: Span(Duration::from_millis(1)), ..Retry::default() };
    let job =
        Job { policies: Policies { retry, ..policies() }, ..told(super::job("a", kind), "{ too_small = ['feed'] }") };
    house.run(&job).await;
    let outbox = house.outbox().await;
    assert_eq!(outbox.len(), 1, "{outbox:?}");
    assert_eq!(
        (outbox[0].1.what.as_str(), outbox[0].1.lines.clone()),
        ("db is small: •••", vec!["files is small: •••".to_owned()])
    );
}

#[test]
fn slots_that_went_by_are_told_as_one_and_time_alone_brings_reminders_lateness_and_missed_targets() {
    let at = |hours: i64| chrono::DateTime::from_timestamp(1_795_737_600 + hours * 3600, 0).unwrap();
    let rules = Rules::default();
    let job = told(shell("a", "true"), "{ to = ['feed'], remind = '6h' }");
    let rows = news::missed(&job, &rules, (at(0), at(2), 3), Missed::Away, at(9));
    assert!(rows[0].news.what.contains("was due 3 times"), "{}", rows[0].news.what);
    assert_eq!(rows[0].key, news::missed(&job, &rules, (at(0), at(2), 3), Missed::Away, at(10))[0].key);

    let target = rusuban::notify::routes::Target { age: Some(Span::hours(36)), time: Some(Span::hours(1)) };
    let job = Job { target, ..job };
    let well = Standing {
        failures: 0,
        failing: None,
        message: String::new(),
        success: at(0),
        has_succeeded: true,
        open: vec![(RunId(7), at(20), "has been running")],
    };
    let events = |standing: &Standing, hours| -> Vec<(Event, String)> {
        let rows = news::due(&job, &rules, standing, at(hours));
        rows.into_iter().map(|row| (row.news.event, row.key)).collect()
    };
    assert_eq!(events(&well, 20), []);
    let late = events(&well, 22);
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].0, Event::Late);
    assert_eq!(late, events(&well, 30), "looked at again, it is the same");
    let missed = events(&well, 37);
    assert_eq!(missed[0].0, Event::TargetMissed);
    assert_eq!(
        events(&well, 43).iter().map(|(event, _)| *event).collect::<Vec<_>>(),
        [Event::TargetMissed, Event::StillFailing, Event::Late]
    );

    let failing = Standing { failures: 2, failing: Some(at(0)), success: at(-1), open: Vec::new(), ..well };
    assert_eq!(events(&failing, 5), []);
    let first = events(&failing, 6);
    assert_eq!((first[0].0, &first), (Event::StillFailing, &events(&failing, 11)));
    assert_ne!(first, events(&failing, 12));
}

#[tokio::test]
async fn a_target_that_was_missed_is_met_again_by_the_next_success() {
    let house = House::new();
    let job = told(shell("a", "true"), "{ target_missed = ['feed'], critical = ['phone'], info = ['other'] }");
    let target = rusuban::notify::routes::Target { age: Some(Span(Duration::from_millis(1))), time: None };
    let job = Job { target, ..job };
    house.run(&job).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    for _ in 0..2 {
        let standing = house.store.standing(&job.name, news::failures(&job), house.clock.now()).await.unwrap();
        let rows = news::due(&job, &Rules::default(), &standing, house.clock.now());
        house.store.tell(rows).await.unwrap();
    }
    house.run(&job).await;
    house.run(&job).await;
    let events: Vec<_> = house.events().await.into_iter().filter(|(name, _)| name != "other").collect();
    let expected = [
        to("feed", Event::TargetMissed),
        to("phone", Event::TargetMissed),
        to("feed", Event::Recovered),
        to("phone", Event::Recovered),
    ];
    assert_eq!(events, expected, "whoever heard that it was missed, and nobody else");
    let others = house.events().await.into_iter().filter(|(name, _)| name == "other");
    assert_eq!(others.collect::<Vec<_>>(), [to("other", Event::FirstSuccess)]);
    assert_eq!(outcome(&house.run(&job).await), Outcome::Succeeded);
}

#[tokio::test]
async fn tidying_leaves_the_run_that_says_since_when_it_fails() {
    let house = House::new();
    let job = told(shell("a", "false"), "['feed']");
    for _ in 0..8 {
        house.run(&job).await;
    }
    let history = History { runs: 2.try_into().unwrap(), ..History::default() };
    house.store.tidy(&[(job.name.clone(), history)].into()).await.unwrap();
    house.run(&job).await;
    assert_eq!(house.events().await, [to("feed", Event::Failed)], "it is not told as if it began now");
}
