use std::time::Duration;

use chrono::{DateTime, Utc};

use super::*;
use crate::model::{
    news::{Event, IncidentId},
    watch::{Checked, Rules, State, Trouble, Verdict},
};

fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_000_000 + 60 * minutes, 0).unwrap()
}

/// A check, look by look.
struct Site {
    rules: Rules,
    known: Option<Known>,
    numbers: i64,
    told: Vec<(i64, Event)>,
    last: Option<Step>,
}

impl Site {
    fn new(failures: u32, successes: u32) -> Self {
        let rules = Rules { failures, successes, remind: None, parent: None, container: None, host: None };
        Self { rules, known: None, numbers: 0, told: Vec::new(), last: None }
    }

    fn look(&mut self, minute: i64, state: State) -> Option<Telling> {
        self.look_quietly(minute, state, false)
    }

    fn look_quietly(&mut self, minute: i64, state: State, quiet: bool) -> Option<Telling> {
        let trouble = (state == State::Down).then_some(Trouble::Refused);
        let verdict = Verdict { state, what: state.to_string(), took: None, trouble, certificate: None, address: None };
        let checked = Checked { check: "blog".into(), at: at(minute), verdict, rules: self.rules.clone() };
        let step = advance(self.known.as_ref(), &checked, quiet, &mut || {
            self.numbers += 1;
            IncidentId(self.numbers)
        });
        self.known = Some(step.known.clone());
        self.told.extend(step.tell.map(|tell| (minute, tell.event)));
        let tell = step.tell;
        self.last = Some(step);
        tell
    }

    fn looks(&mut self, first: i64, states: &str) {
        for (minute, letter) in (first..).zip(states.chars()) {
            self.look(
                minute,
                match letter {
                    'u' => State::Up,
                    'd' => State::Down,
                    'c' => State::CertificateBad,
                    '?' => State::Unknown,
                    'm' => State::Maintenance,
                    other => panic!("{other}"),
                },
            );
        }
    }
}

#[test]
fn an_incident_begins_at_the_first_failing_look_and_ends_at_the_first_that_is_well() {
    let mut site = Site::new(3, 2);
    site.looks(0, "uudd");
    assert!(site.told.is_empty(), "two failures of three");
    assert_eq!(site.known.as_ref().unwrap().state, State::Up);
    let told = site.look(4, State::Down).unwrap();
    assert_eq!((told.event, told.since, told.at), (Event::Failed, at(2), at(4)));
    assert_eq!(site.known.as_ref().unwrap().since, at(2));
    assert!(site.look(5, State::Up).is_none(), "one success of two");
    let told = site.look(6, State::Up).unwrap();
    assert_eq!((told.event, told.since, told.at), (Event::Recovered, at(2), at(5)));
    assert_eq!(site.last.as_ref().unwrap().ended.unwrap().1, at(5));
    // A failure in between begins the counting anew.
    site.looks(7, "ddudduddu");
    assert_eq!(site.told.len(), 2);
}

#[test]
fn unknown_neither_begins_nor_ends_an_incident_and_counting_goes_on_after_it() {
    let mut site = Site::new(2, 2);
    site.looks(0, "ud??????d");
    assert_eq!(site.told, [(8, Event::Failed)]);
    site.looks(9, "u????u");
    assert_eq!(site.told, [(8, Event::Failed), (14, Event::Recovered)]);
    let mut fresh = Site::new(2, 1);
    fresh.looks(0, "???");
    assert_eq!(fresh.known.as_ref().unwrap().settled, State::Unknown);
    fresh.looks(3, "dd");
    assert_eq!(fresh.told, [(4, Event::Failed)], "never seen well, and down all the same");
}

#[test]
fn maintenance_is_no_failure_and_what_failed_just_before_was_its_beginning() {
    let mut site = Site::new(2, 1);
    site.looks(0, "udmmmdu");
    assert!(site.told.is_empty());
    site.looks(7, "dd");
    assert_eq!(site.told, [(8, Event::Failed)]);
    site.looks(9, "mmu");
    assert_eq!(site.told.last(), Some(&(11, Event::Recovered)), "an incident goes on through maintenance");
}

#[test]
fn a_bad_certificate_within_an_incident_is_the_same_incident() {
    let mut site = Site::new(2, 1);
    site.looks(0, "uddcc");
    assert_eq!(site.told, [(2, Event::Failed), (4, Event::StillFailing)]);
    let known = site.known.as_ref().unwrap();
    assert_eq!((known.state, known.since, known.incident.unwrap().began), (State::CertificateBad, at(3), at(1)));
    site.looks(5, "u");
    assert_eq!(site.told.last(), Some(&(5, Event::Recovered)));
    assert_eq!(site.numbers, 1);
}

#[test]
fn what_comes_and_goes_is_told_of_once_until_it_has_settled() {
    let mut site = Site::new(1, 1);
    site.looks(0, "ududududududududu");
    let failed = site.told.iter().filter(|(_, event)| *event == Event::Failed).count();
    let recovered = site.told.iter().filter(|(_, event)| *event == Event::Recovered).count();
    assert_eq!((failed, recovered), (4, 3), "the fourth stands for all that follow: {:?}", site.told);
    assert!(site.known.as_ref().unwrap().incident.unwrap().flaps);
    site.looks(17, &"u".repeat(14));
    assert_eq!(site.told.len(), 7, "it has not settled yet");
    site.looks(31, "uu");
    assert_eq!(site.told.last().unwrap().1, Event::Recovered);
    assert_eq!(site.told.len(), 8);
    // And one that settles down.
    let mut site = Site::new(1, 1);
    site.looks(0, &format!("udududud{}", "d".repeat(20)));
    let last = site.told.last().unwrap();
    assert_eq!((last.1, site.told.iter().filter(|(minute, _)| *minute > 7).count()), (Event::StillFailing, 1));
}

#[test]
fn reminders_come_as_often_as_was_asked_for() {
    let mut site = Site::new(1, 1);
    site.rules.remind = Some(Duration::from_secs(600));
    site.looks(0, &format!("u{}u", "d".repeat(31)));
    let minutes: Vec<_> = site.told.iter().map(|(minute, _)| *minute).collect();
    assert_eq!(minutes, [1, 11, 21, 31, 32]);
}

#[test]
fn what_depends_on_something_that_is_down_is_told_of_when_that_is_well_and_it_is_not() {
    let mut site = Site::new(1, 1);
    site.look(0, State::Up);
    for minute in 1..5 {
        assert!(site.look_quietly(minute, State::Down, true).is_none());
    }
    let told = site.look_quietly(5, State::Down, false).unwrap();
    assert_eq!((told.event, told.since), (Event::Failed, at(1)));
    assert_eq!(site.look(6, State::Up).unwrap().event, Event::Recovered);
    // One that comes back with it is never told of.
    site.look_quietly(7, State::Down, true);
    assert!(site.look(8, State::Up).is_none());
    assert_eq!(site.last.as_ref().unwrap().ended.unwrap().0.told, None);
}

#[test]
fn a_clock_that_was_ahead_and_is_set_back_loses_no_incident_and_doubles_none() {
    let mut site = Site::new(2, 1);
    site.looks(0, "uu");
    let year = 365 * 24 * 60;
    site.looks(year, "dd");
    assert_eq!(site.told.len(), 1);
    site.looks(2, "dd");
    assert_eq!(site.told.len(), 1, "it is the same incident");
    let known = site.known.as_ref().unwrap();
    assert!(known.since <= at(3) && known.incident.unwrap().began <= at(2), "{known:?}");
    site.looks(4, "u");
    assert_eq!(site.told.last().unwrap().1, Event::Recovered);
    let (open, ended) = site.last.as_ref().unwrap().ended.unwrap();
    assert!(ended >= open.began);
}

#[test]
fn time_in_which_nobody_looked_is_unknown() {
    let mut site = Site::new(1, 1);
    site.looks(0, "uuu");
    site.look(600, State::Up);
    let marks = &site.last.as_ref().unwrap().marks;
    assert!(marks.iter().any(|mark| matches!(mark, Mark::From(from, State::Unknown) if *from < at(5))), "{marks:?}");
    assert!(marks.contains(&Mark::From(at(600), State::Up)));
    // One that is looked at once a day has no gaps.
    let mut daily = Site::new(1, 1);
    for day in 0..5 {
        daily.look(day * 1440, State::Up);
        assert!(day == 0 || daily.last.as_ref().unwrap().marks.is_empty(), "day {day}");
    }
}

#[test]
fn a_check_that_goes_on_being_well_is_no_news() {
    let mut site = Site::new(3, 2);
    site.looks(0, "uuuuu");
    let mut written = 0;
    for minute in 5..125 {
        site.look(minute, State::Up);
        written += usize::from(site.last.as_ref().unwrap().is_news);
    }
    assert!(written <= 12, "{written} of 120 looks wrote its row");
}

#[test]
fn one_that_depends_on_another_waits_one_look_after_it_is_well() {
    let checked = |check: &str, parent: Option<&str>| {
        let verdict = Verdict {
            state: State::Up,
            what: String::new(),
            took: None,
            trouble: None,
            certificate: None,
            address: None,
        };
        let rules = Rules {
            failures: 1,
            successes: 1,
            remind: None,
            parent: parent.map(str::to_owned),
            container: None,
            host: None,
        };
        Checked { check: check.into(), at: at(0), verdict, rules }
    };
    let all = vec![checked("leaf", Some("middle")), checked("middle", Some("root")), checked("root", None)];
    let order: Vec<String> = in_order(all.clone()).into_iter().map(|one| one.check).collect();
    assert_eq!(order, ["root", "middle", "leaf"]);
    let circle = vec![checked("a", Some("b")), checked("b", Some("a"))];
    assert_eq!(in_order(circle).len(), 2, "a circle ends");
    let (mut root, mut well) = (Site::new(1, 1), Site::new(1, 1));
    root.looks(0, "ud");
    well.looks(0, "uu");
    let seats = |root: &Site, looked: i64, own: i64| -> Seats {
        let seat = |site: &Site, looked, parent: Option<&str>| Seat {
            known: site.known.clone().unwrap(),
            looked: Some(at(looked)),
            parent: parent.map(str::to_owned),
        };
        [
            ("root".to_owned(), seat(root, looked, None)),
            ("middle".to_owned(), seat(&well, 9, Some("root"))),
            ("leaf".to_owned(), seat(&well, own, Some("middle"))),
        ]
        .into()
    };
    let leaf = |minute| Checked { at: at(minute), ..all[0].clone() };
    assert!(is_quiet(&leaf(1), &seats(&root, 1, 0)), "what it depends on, further up, is down");
    root.looks(2, "u");
    assert!(is_quiet(&leaf(2), &seats(&root, 2, 1)), "it was well only since the last look at this one");
    assert!(!is_quiet(&leaf(3), &seats(&root, 3, 2)));
    assert!(is_quiet(&leaf(4), &seats(&root, 3, 3)), "it has not been looked at since this one began to fail");
    assert!(
        !is_quiet(&Checked { at: at(4), ..all[2].clone() }, &seats(&root, 3, 3)),
        "the uppermost depends on nothing"
    );
}
