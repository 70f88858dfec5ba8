//! Incidents: begun once, told once, ended once, whatever happens to the process.
use std::collections::BTreeMap;

use proptest::prelude::*;
use rusuban::model::{Debt, HeldContainer, Outcome};

use super::*;

/// What happens at a look.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is made and written.
    Kept,
    /// The process dies before it is written.
    Lost,
    /// The process dies right after it was written.
    ThenCrash,
    /// The process dies right after, and the same look is made again.
    Twice,
    /// The clock is set back before it, by so many minutes.
    SetBack(i64),
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Kept),
        2 => Just(Fate::Lost),
        2 => Just(Fate::ThenCrash),
        2 => Just(Fate::Twice),
        1 => (1i64..600).prop_map(Fate::SetBack),
    ]
}

fn states() -> impl Strategy<Value = State> {
    prop_oneof![
        5 => Just(State::Up),
        5 => Just(State::Down),
        1 => Just(State::CertificateBad),
        1 => Just(State::Unknown),
        1 => Just(State::Maintenance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn each_incident_is_told_once_and_its_end_once_wherever_the_process_dies(
        looks in prop::collection::vec((states(), fates()), 1..40),
        failures in 1u32..4,
        successes in 1u32..3,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(lives_through(&looks, failures, successes))?;
    }
}

async fn lives_through(looks: &[(State, Fate)], failures: u32, successes: u32) -> Result<(), TestCaseError> {
    let mut house = House::new(Clock::simulated(at(0))).await;
    let job = house.job(&["mail", "feed"]);
    let rules = rules(failures, successes);
    let mut minute = 1000;
    for (state, fate) in looks {
        minute += 1;
        if let Fate::SetBack(by) = fate {
            minute -= by;
        }
        let look = || vec![checked("blog", at(minute), *state, &rules)];
        match fate {
            Fate::Lost => house.crash().await,
            Fate::Kept | Fate::SetBack(_) => drop(house.look(&job, look()).await),
            Fate::ThenCrash => {
                house.look(&job, look()).await;
                house.crash().await;
            }
            Fate::Twice => {
                house.look(&job, look()).await;
                house.crash().await;
                house.look(&job, look()).await;
            }
        }
    }
    // In the end it is well, for long enough that all is settled.
    for _ in 0..40 {
        minute += 1;
        house.look(&job, vec![checked("blog", at(minute), State::Up, &rules)]).await;
    }
    let incidents = house.store.incidents(None, false, 1000).await.unwrap();
    let mut counts: BTreeMap<(i64, String), (u32, u32)> = BTreeMap::new();
    for (notifier, event, incident, _) in house.told() {
        let count = counts.entry((incident, notifier)).or_default();
        match event {
            Event::Failed => count.0 += 1,
            Event::Recovered => count.1 += 1,
            _ => {}
        }
    }
    prop_assert_eq!(counts.len(), incidents.len() * 2, "two notifiers hear of each");
    prop_assert!(counts.values().all(|count| *count == (1, 1)), "{:?}", counts);
    let mut last = None;
    for incident in incidents.iter().rev() {
        let ended = incident.ended.expect("all is well in the end");
        prop_assert!(incident.began <= ended, "{:?}", incident);
        prop_assert!(last.is_none_or(|last| incident.id > last));
        last = Some(incident.id);
    }
    let spans = house.store.spans(1, at(-10_000)..at(10_000)).await.unwrap();
    prop_assert!(spans.is_sorted_by(|one, other| one.since < other.since));
    prop_assert_eq!(spans.last().unwrap().state, State::Up);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_alert_and_not_fifty() {
    let house = House::new(Clock::simulated(at(0))).await;
    let job = house.job(&["mail"]);
    let (router, mut site) = (rules(2, 1), rules(2, 1));
    site.parent = Some("router".into());
    let all = |minute: i64, of_router: State, of_sites: State| {
        let sites = (0..50).map(|number| checked(&format!("site {number}"), at(minute), of_sites, &site));
        sites.chain([checked("router", at(minute), of_router, &router)]).collect::<Vec<_>>()
    };
    for minute in 0..6 {
        let state = if minute < 2 { State::Up } else { State::Down };
        house.look(&job, all(minute, state, state)).await;
    }
    assert_eq!(house.told().len(), 1);
    let open = house.store.incidents(None, true, 100).await.unwrap();
    assert_eq!(open.len(), 51, "they are known all the same");
    // The router is well again, and so are all but one.
    let mut found = all(6, State::Up, State::Up);
    found[7].verdict = verdict(State::Down);
    house.look(&job, found.clone()).await;
    found.iter_mut().for_each(|one| one.at = at(7));
    house.look(&job, found).await;
    let told: Vec<(Event, String)> =
        house.told().into_iter().map(|(_, event, _, news)| (event, format!("{:?}", news.about))).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].0 == Event::Failed && told[0].1.contains("router"), "{told:?}");
    assert!(told[1].0 == Event::Recovered && told[1].1.contains("router"), "{told:?}");
    assert!(told[2].0 == Event::Failed && told[2].1.contains("site 7"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_line_makes_nothing_down_and_is_told_of_itself() {
    let mut house = House::new(Clock::system()).await;
    house.settings.line = vec!["255.255.255.255:53".into(), "255.255.255.255:54".into()];
    house.runner.set_watch(house.settings.clone(), []);
    let job = house.job(&["mail"]);
    let far = |state: State, now: DateTime<Utc>| {
        let mut one = checked("blog", now, state, &rules(1, 1));
        one.verdict.address = Some("203.0.113.7".parse().unwrap());
        let near = checked("wiki", now, state, &rules(1, 1));
        vec![one, near]
    };
    house.look(&job, far(State::Up, Utc::now())).await;
    let said = house.look(&job, far(State::Down, Utc::now())).await;
    assert!(said.iter().any(|line| line.starts_with("our own line is down since")), "{said:?}");
    assert!(
        said.iter().any(|line| line.contains("blog: our own line is down (none of 255.255.255.255:53")),
        "{said:?}"
    );
    house.look(&job, far(State::Down, Utc::now())).await;
    // What is beside us is down by itself.
    let events =
        |house: &House| house.told().into_iter().map(|(_, event, _, news)| (event, news.about)).collect::<Vec<_>>();
    let told = events(&house);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], (Event::Failed, rusuban::model::news::About::House));
    house.crash().await;
    house.look(&job, far(State::Up, Utc::now())).await;
    let told = events(&house);
    assert_eq!(told[2..].iter().map(|(event, _)| *event).collect::<Vec<_>>(), [Event::Recovered, Event::Recovered]);
}

fn thaw(container: &str, since: DateTime<Utc>) -> Debt {
    Debt::Thaw {
        container: HeldContainer {
            name: container.into(),
            id: "0".repeat(64),
            compose: None,
            started: "2026-11-21T00:00:00Z".into(),
            since,
        },
    }
}

/// A kind that holds a container for a moment.
fn holds(container: &'static str) -> Arc<dyn Kind> {
    crate::runner::Does::kind(move |cx: Cx| async move {
        let debt = cx.record.owe(thaw(container, cx.clock.now())).await?;
        tokio::time::sleep(Duration::from_millis(30)).await;
        cx.record.paid(debt).await?;
        Ok("snapshot made".to_owned())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_our_own_job_holds_is_in_maintenance_and_the_job_fails_when_it_does_not_come_back() {
    let mut house = House::new(Clock::system()).await;
    house.settings.back_within = Duration::from_millis(300);
    let job = house.job(&["mail"]);
    let mut rules = rules(1, 1);
    rules.container = Some("blog".into());
    let blog = |state| vec![checked("blog", Utc::now(), state, &rules)];
    house.look(&job, blog(State::Up)).await;
    house.runner.set_watch(house.settings.clone(), [Arc::clone(&job)]);
    // It comes back.
    let snapshot = Arc::new(crate::runner::job("snapshot", holds("blog")));
    let run = house.run(&snapshot).await;
    let outcome = |run: rusuban::model::Run| match run.state {
        RunState::Finished { outcome, .. } => (outcome, run.message),
        other => panic!("{other:?}"),
    };
    let ended = outcome(house.store.run(run).await.unwrap().unwrap());
    assert_eq!(ended, (Outcome::Succeeded, "snapshot made".to_owned()));
    // Looked at while it is held, or a moment later, it is in maintenance.
    let said = house.look(&job, blog(State::Down)).await;
    assert!(said[0].contains("our own job snapshot (run 2) had paused the container blog until"), "{said:?}");
    assert!(house.told().is_empty());
    house.look(&job, blog(State::Up)).await;
    // It does not come back.
    *house.kind.next.lock().unwrap() = blog(State::Down);
    let run = house.run(&snapshot).await;
    let (ended, message) = outcome(house.store.run(run).await.unwrap().unwrap());
    assert_eq!(ended, Outcome::Failed);
    assert_eq!(
        message,
        "the work was done (snapshot made), but what it held (blog) did not come back: blog: connection refused"
    );
    // And the site's own incident knows whose fault it is.
    tokio::time::sleep(Duration::from_millis(310)).await;
    house.look(&job, blog(State::Down)).await;
    let (_, event, _, news) = house.told().pop().unwrap();
    assert_eq!(event, Event::Failed);
    assert_eq!(news.causes[0].what, "our own job snapshot paused it, and it did not come back");
    assert!(!news.causes[0].is_certain);
    assert!(news.offers.iter().any(|offer| offer.command == format!("rusuban log {run}")), "{news:?}");
    // Another run says nothing of a site that was down before it.
    let run = house.run(&snapshot).await;
    assert_eq!(outcome(house.store.run(run).await.unwrap().unwrap()).0, Outcome::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_by_hand_and_windows_are_no_failures() {
    let mut house = House::new(Clock::simulated(at(0))).await;
    let job = house.job(&["mail"]);
    let rules = rules(1, 1);
    house.look(&job, vec![checked("blog", at(0), State::Up, &rules)]).await;
    house.store.begin_pause("blog", Some(at(20))).await.unwrap();
    let said = house.look(&job, vec![checked("blog", at(1), State::Down, &rules)]).await;
    assert!(said[0].contains("`blog` is in maintenance until"), "{said:?}");
    house.store.end_pause("blog").await.unwrap();
    let zone = chrono_tz::UTC;
    let schedule = rusuban::schedule::Schedule::parse("10 0 * * *", zone, &"x".parse().unwrap()).unwrap();
    house.settings.windows =
        vec![rusuban::watch::Window { schedule, lasts: Duration::from_secs(600), checks: vec!["sites".into()] }];
    house.runner.set_watch(house.settings.clone(), []);
    house.look(&job, vec![checked("blog", at(12), State::Down, &rules)]).await;
    assert!(house.told().is_empty());
    house.look(&job, vec![checked("blog", at(21), State::Down, &rules)]).await;
    assert_eq!(house.told().len(), 1);
}
