use proptest::prelude::*;

use super::*;
use crate::{model::news::IncidentId, notify::routes::Routes};

fn at(minutes: i64) -> DateTime<Utc> {
    // 2026-11-27, midnight in UTC.
    DateTime::from_timestamp(1_795_737_600, 0).unwrap() + TimeDelta::minutes(minutes)
}

fn news(incident: i64, event: Event, minutes: i64) -> News {
    News {
        about: About::Check { job: "sites".parse().unwrap(), check: format!("site-{incident}") },
        event,
        severity: Severity::Warning,
        at: at(minutes),
        since: Some(at(minutes)),
        incident: Some(IncidentId(incident)),
        what: String::new(),
        causes: Vec::new(),
        offers: Vec::new(),
        lines: Vec::new(),
    }
}

fn waiting(all: &[(i64, Event, i64)]) -> Vec<Waiting> {
    let rows = all.iter().zip(1..).map(|((incident, event, minutes), id)| {
        let news = news(*incident, *event, *minutes);
        Waiting { id, key: format!("{}:feed", news.key()), not_before: news.at + TimeDelta::seconds(30), news }
    });
    rows.collect()
}

fn sent(next: Next) -> Parcel {
    match next {
        Next::Send(parcel) => parcel,
        other => panic!("{other:?}"),
    }
}

fn names(notify: &str) -> Notify {
    toml::from_str::<std::collections::BTreeMap<String, Notify>>(&format!("notify = {notify}"))
        .unwrap()
        .remove("notify")
        .unwrap()
}

#[test]
fn routes_are_by_event_and_severity_and_whoever_hears_of_a_failure_hears_of_its_end() {
    let who = |notify: &str, event, severity| -> Vec<String> {
        let news = News { severity, ..news(1, event, 0) };
        names(notify).who(&news).into_iter().map(str::to_owned).collect()
    };
    use Severity::{Critical, Info, Warning};
    assert_eq!(who("['feed']", Event::Failed, Warning), ["feed"]);
    assert_eq!(who("[]", Event::Failed, Critical), [""; 0]);
    let routes = "{ failed = ['mail'], to = ['feed'], critical = ['phone', 'mail'] }";
    assert_eq!(who(routes, Event::Failed, Warning), ["mail"]);
    assert_eq!(who(routes, Event::StillFailing, Warning), ["mail"]);
    // Of these, whoever has heard that it began: the ledger knows.
    assert_eq!(who(routes, Event::Recovered, Info), ["mail", "feed", "phone"]);
    assert_eq!(who(routes, Event::Missed, Info), ["feed"]);
    assert_eq!(who(routes, Event::Failed, Critical), ["mail", "phone"]);
    assert_eq!(who("{ failed = ['mail'], recovered = [] }", Event::Recovered, Warning), [""; 0]);
    assert_eq!(who("{ failed = ['mail'] }", Event::Missed, Warning), [""; 0]);
}

#[test]
fn nobody_hears_of_what_matters_less_than_he_wants_to_hear_of() {
    let ear = Ear { min_severity: Some(Severity::Critical), ..Ear::default() };
    let rules = Rules { ears: [("phone".to_owned(), ear)].into(), ..Rules::default() };
    let rows = |notify: &str, event| -> Vec<(String, bool)> {
        let rows = outgoing(&names(notify), &rules, &news(1, event, 0), at(0));
        rows.into_iter().map(|row| (row.notifier, row.only_if_begun)).collect()
    };
    assert_eq!(rows("['feed', 'phone']", Event::Failed), [("feed".to_owned(), false)]);
    let both = [("feed".to_owned(), true), ("phone".to_owned(), true)];
    assert_eq!(rows("['feed', 'phone']", Event::Recovered), both, "the ledger knows who has heard of it");
    assert_eq!(rows("{ failed = ['phone'], recovered = ['feed'] }", Event::Recovered), [("feed".to_owned(), false)]);
}

#[test]
fn a_job_that_names_anybody_names_all_and_the_rest_is_by_default() {
    let by_default = names("{ to = ['feed'], critical = ['phone'], after = 2, remind = '6h' }");
    let own = names("['mail']").or(Some(&by_default));
    assert_eq!(own.0, Routes { after: by_default.0.after, remind: by_default.0.remind, ..names("['mail']").0 });
    let own = names("{ after = 3 }").or(Some(&by_default));
    assert_eq!(own.0, Routes { after: names("{ after = 3 }").0.after, ..by_default.0.clone() });
    assert!(names("[]").or(Some(&by_default)).is_silent_by_choice());
    assert!(!names("{ after = 3 }").is_silent_by_choice());
}

#[test]
fn what_comes_within_half_a_minute_is_told_together_and_what_comes_later_is_not() {
    let mut rows = waiting(&[(1, Event::Failed, 0), (2, Event::Failed, 0), (3, Event::Failed, 2)]);
    rows[1].not_before += TimeDelta::seconds(25);
    let now = |seconds| at(0) + TimeDelta::seconds(seconds);
    let rules = Rules::default();
    assert_eq!(next(&rows, None, Ear::default(), &rules, None, now(29)), Next::Wait(now(30)));
    let parcel = sent(next(&rows, None, Ear::default(), &rules, None, now(30)));
    assert_eq!((parcel.parts.told, parcel.delay), (vec![1, 2], None));
    assert!(parcel.key.starts_with(&format!("{}+", rows[0].key)));
    assert_eq!(next(&[], None, Ear::default(), &rules, None, now(30)), Next::Nothing);
}

#[test]
fn quiet_hours_let_through_what_is_critical_and_the_rest_is_told_in_the_morning() {
    let ear = Ear { quiet: Some("22:00-07:00".parse().unwrap()), ..Ear::default() };
    let rules = Rules { time_zone: chrono_tz::Asia::Tokyo, ..Rules::default() };
    // Midnight in UTC is nine in Tokyo: 14:00 is 23:00 there.
    let mut rows = waiting(&[(1, Event::Failed, 14 * 60), (2, Event::Failed, 14 * 60 + 1)]);
    rows[1].news.severity = Severity::Critical;
    let parcel = sent(next(&rows, None, ear, &rules, None, at(14 * 60 + 2)));
    assert_eq!(parcel.parts.told, [2]);
    let rest = &rows[..1];
    assert_eq!(next(rest, None, ear, &rules, None, at(14 * 60 + 2)), Next::Wait(at(22 * 60)));
    let parcel = sent(next(rest, None, ear, &rules, None, at(22 * 60)));
    assert_eq!((parcel.parts.told, parcel.delay), (vec![1], Some(Delay::Quiet)));
}

#[test]
fn quiet_hours_end_when_the_clock_that_people_look_at_says_so() {
    let quiet: Quiet = "22:00-02:30".parse().unwrap();
    let paris = chrono_tz::Europe::Paris;
    let utc = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    // The night in which 02:30 does not come, and the one in which it comes twice.
    assert_eq!(quiet_until(quiet, paris, utc("2026-03-28T23:00:00Z")), utc("2026-03-29T01:30:00Z"));
    assert_eq!(quiet_until(quiet, paris, utc("2026-10-24T23:00:00Z")), utc("2026-10-25T00:30:00Z"));
    assert_eq!(quiet_until(quiet, paris, utc("2026-10-24T12:00:00Z")), utc("2026-10-24T12:00:00Z"));
}

#[test]
fn a_message_that_may_have_arrived_is_sent_as_it_was() {
    let rows = waiting(&[(1, Event::Failed, 0), (1, Event::Recovered, 1), (2, Event::Failed, 1)]);
    let rules = Rules::default();
    let parts = Parts { told: vec![1], merged: Vec::new() };
    let died = Tried { parts: parts.clone(), is_put_off: false };
    let parcel = sent(next(&rows, Some(&died), Ear::default(), &rules, None, at(60)));
    assert_eq!((parcel.key, parcel.parts.told), (rows[0].key.clone(), vec![1]));
    // Put off, and it is over meanwhile: told as one.
    let put_off = Tried { parts, is_put_off: true };
    let parcel = sent(next(&rows, Some(&put_off), Ear::default(), &rules, Some(at(1)), at(3)));
    assert_eq!(parcel.parts.told, [1, 2, 3]);
    // Put off, and something else has come: first the same again, for a while.
    let others = [rows[0].clone(), rows[2].clone()];
    let parcel = sent(next(&others, Some(&put_off), Ear::default(), &rules, Some(at(1)), at(3)));
    assert_eq!(parcel.parts.told, [1]);
    let parcel = sent(next(&others, Some(&put_off), Ear::default(), &rules, Some(at(1)), at(10)));
    assert_eq!((parcel.parts.told, parcel.delay), (vec![1, 3], Some(Delay::Line)));
}

#[test]
fn lines_wait_longer_each_time_and_as_long_as_they_were_asked_to() {
    let waits: Vec<u64> = (1..10).map(|failures| wait_after(failures, None, 0.5).as_secs()).collect();
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    assert_eq!(wait_after(1, Some(Duration::from_secs(90)), 0.5), Duration::from_secs(90));
    assert_eq!(wait_after(1, Some(Duration::MAX), 0.5), MOST_ASKED);
    assert!(wait_after(u32::MAX, None, 1.0) <= Duration::from_secs(660));
}

#[test]
fn the_weekly_trial_is_on_monday_at_nine_in_the_house() {
    let tokyo = chrono_tz::Asia::Tokyo;
    let utc = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    // 2026-11-23 is a Monday.
    assert_eq!(last_monday(tokyo, utc("2026-11-27T12:00:00Z")), utc("2026-11-23T00:00:00Z"));
    assert_eq!(last_monday(tokyo, utc("2026-11-22T23:59:59Z")), utc("2026-11-16T00:00:00Z"));
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Failed),
        Just(Event::StillFailing),
        Just(Event::Recovered),
        Just(Event::Missed),
        Just(Event::Report),
        Just(Event::TargetMissed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever waits, and however often the line is down: each row is told once, or is in another of its story (of its job, for a report)
    /// that came later and was told; in order; and no story is ended before it has begun.
    #[test]
    fn every_row_is_told_once_or_is_in_one_that_is(
        all in proptest::collection::vec((1..6_i64, event(), 0..3_i64), 1..140),
        fails in proptest::collection::vec(any::<bool>(), 0..30),
        quiet in any::<bool>(),
    ) {
        let mut minute = 0;
        let all: Vec<_> = all.into_iter().map(|(incident, event, wait)| { minute += wait; (incident, event, minute) }).collect();
        let rows = waiting(&all);
        let ear = Ear { quiet: quiet.then(|| "01:00-02:00".parse().unwrap()), ..Ear::default() };
        let rules = Rules::default();
        let (mut open, mut told, mut merged) = (rows.clone(), Vec::new(), Vec::new());
        let (mut tried, mut failing, mut fails) = (None, None, fails.into_iter());
        let mut now = at(0);
        let mut steps = 0;
        while !open.is_empty() {
            steps += 1;
            prop_assert!(steps < 2000, "it never ends");
            let here: Vec<Waiting> = open.iter().filter(|row| row.news.at <= now).cloned().collect();
            match next(&here, tried.as_ref(), ear, &rules, failing, now) {
                Next::Nothing => now += TimeDelta::minutes(1),
                Next::Wait(until) => {
                    prop_assert!(until > now);
                    now = until.min(now + TimeDelta::minutes(1));
                }
                Next::Send(parcel) => {
                    prop_assert!(!parcel.news.is_empty() && parcel.news.len() == parcel.parts.told.len());
                    if fails.next().unwrap_or(false) {
                        tried = Some(Tried { parts: parcel.parts.clone(), is_put_off: steps % 2 == 0 });
                        failing = failing.or(Some(now));
                        now += TimeDelta::minutes(1);
                        continue;
                    }
                    (tried, failing) = (None, None);
                    open.retain(|row| !parcel.parts.told.contains(&row.id) && !parcel.parts.merged.contains(&row.id));
                    told.push(parcel.parts.told);
                    merged.push(parcel.parts.merged);
                }
            }
        }
        let told_ids: Vec<i64> = told.iter().flatten().copied().collect();
        let mut once = told_ids.iter().chain(merged.iter().flatten()).copied().collect::<Vec<_>>();
        once.sort_unstable();
        prop_assert_eq!(once, (1..=rows.len() as i64).collect::<Vec<_>>());
        for message in &told {
            prop_assert!(message.is_sorted() && message.len() <= MOST_TOGETHER);
        }
        let row = |id: i64| &rows[usize::try_from(id).unwrap() - 1];
        for (message, inside) in told.iter().zip(&merged) {
            for id in inside {
                let stands_for = |other: &&i64| **other > *id
                    && (row(**other).news.story() == row(*id).news.story() || row(*id).news.event == Event::Report);
                prop_assert!(message.iter().any(|other| stands_for(&other)), "{id} is in nothing of {message:?}");
                prop_assert!(!matches!(row(*id).news.event, Event::Failed | Event::TargetMissed | Event::Recovered), "a beginning and an end are always told");
            }
        }
    }
}
