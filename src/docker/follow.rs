//! What happens to containers, out of what an engine says and of what its list shows. Pure: no engine, no clock.
//!
//! The list is the truth; events only say when to look, and what a list cannot show: how a container ended, and whether somebody
//! asked it to. An event is settled a moment later, because what explains it may come after it: `docker stop` says `die`, then `stop`.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{container::Listed, events::Event, labels::is_ours};
use crate::model::happening::{Happening, Happens};

/// What explains an event comes within so long.
const SETTLES: Duration = Duration::from_millis(500);
/// What a list shows may be explained by an event that is still on its way.
const SETTLES_LATE: Duration = Duration::from_millis(1500);
/// A container that ends within so long after it was asked to has done what it was told, by the engine's clock in nanoseconds.
const ASKED: i64 = 30_000_000_000;
/// One death for want of memory is told up to fourteen times.
const ONE_OOM: i64 = 60_000_000_000;
/// So many events are known again when the engine repeats them.
const REMEMBERED: usize = 1024;
/// Signals that ask a program to do something and go on: HUP, USR1, USR2, CONT, WINCH.
const GOES_ON: [&str; 5] = ["1", "10", "12", "18", "28"];

/// A container as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It holds a process.
    pub is_up: bool,
}

/// A happening that has settled, and the container's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What happened.
    pub happening: Happening,
    /// The container's labels.
    pub labels: BTreeMap<String, String>,
    /// Only the list showed it: whoever tells it looks at the container first.
    pub is_guessed: bool,
}

/// What is known of an engine's containers, and what happened to them that has not settled yet.
#[derive(Debug, Default)]
pub struct Following {
    seen: BTreeMap<String, Seen>,
    open: Vec<(Instant, Settled)>,
    /// When containers were asked to end, by their ids.
    asked: HashMap<String, i64>,
    /// When they had no memory left.
    ooms: HashMap<String, i64>,
    heard: VecDeque<(i64, String, String)>,
    newest: Option<i64>,
    /// Containers have been listed, now or by who was here before.
    has_list: bool,
}

impl Following {
    /// Goes on from what was known before: ids and names of what ran, and how far the events had been heard.
    #[must_use]
    pub fn from(ran: BTreeMap<String, String>, newest: Option<i64>) -> Self {
        let seen = |(id, name)| (id, Seen { name, labels: BTreeMap::new(), is_up: true });
        Self { seen: ran.into_iter().map(seen).collect(), newest, has_list: true, ..Self::default() }
    }

    /// From when on events are asked for: a moment before the newest, for they do not come in order to the nanosecond. Where nobody
    /// knows which were heard in that moment, just after it.
    #[must_use]
    pub fn since(&self) -> Option<i64> {
        let newest = self.newest?;
        Some(if self.heard.is_empty() { newest.saturating_add(1) } else { newest.saturating_sub(1_000_000_000) })
    }

    /// It cannot be looked at now: it settles again at `at`.
    pub fn put_off(&mut self, settled: Settled, at: Instant) {
        self.open.push((at, settled));
    }

    /// How far the events have been heard.
    #[must_use]
    pub fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// Those that are up, by id.
    #[must_use]
    pub fn running(&self) -> BTreeMap<String, String> {
        let up = self.seen.iter().filter(|(_, seen)| seen.is_up);
        up.map(|(id, seen)| (id.clone(), seen.name.clone())).collect()
    }

    /// When the next one settles.
    #[must_use]
    pub fn settles_at(&self) -> Option<Instant> {
        self.open.iter().map(|(at, _)| *at).min()
    }

    /// What has settled by `now`, in the order in which it happened.
    pub fn settled(&mut self, now: Instant) -> Vec<Settled> {
        let (mut done, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.open).into_iter().partition(|(at, _)| *at <= now);
        self.open = open;
        done.sort_by_key(|(_, settled)| settled.happening.at);
        done.into_iter().map(|(_, settled)| settled).collect()
    }

    /// An event. `is_held`: one of our own runs has this container in its hands. Returns the container, unless it was heard before
    /// or is one of ours.
    pub fn event(&mut self, event: &Event, is_held: bool, now: Instant) -> Option<Seen> {
        let known = (event.at, event.id.clone(), event.action.clone());
        if self.heard.contains(&known) {
            return None;
        }
        self.heard.push_back(known);
        if self.heard.len() > REMEMBERED {
            self.heard.pop_front();
        }
        self.newest = self.newest.max(Some(event.at));
        let id = &event.id;
        // An event of a network knows the container by its id alone.
        let is_of_network = event.action.ends_with("connect");
        if !is_of_network {
            let name = event.attributes.get("name").cloned().unwrap_or_default();
            let is_up = self.seen.get(id).is_some_and(|seen| seen.is_up);
            self.seen.insert(id.clone(), Seen { name, labels: labels(event), is_up });
        }
        // Made for a moment: nobody's business.
        if is_ours(&event.attributes) {
            self.seen.remove(id);
            return None;
        }
        let seen = self.seen.get(id).cloned();
        match event.action.as_str() {
            "start" => {
                self.set_up(id, true);
                self.asked.remove(id);
                // What the list has shown before is no longer so.
                self.open.retain(|(_, one)| !(one.is_guessed && one.happening.id == *id));
                self.opens(event, Happens::Started, now);
            }
            "die" => {
                self.set_up(id, false);
                self.open.retain(|(_, one)| !(one.is_guessed && one.happening.id == *id));
                let status = event.attributes.get("exitCode").and_then(|code| code.parse::<i64>().ok());
                let was_asked = self.asked.get(id).is_some_and(|at| event.at - at <= ASKED);
                if !was_asked && !is_held && status != Some(0) {
                    self.opens(event, Happens::Died, now);
                    if let Some((_, last)) = self.open.last_mut() {
                        last.happening.status = status;
                        last.happening.out_of_memory = self.ooms.get(id).is_some_and(|at| event.at - at <= ASKED);
                    }
                }
            }
            // Somebody stopped it, with whatever status it ended.
            "stop" => self.open.retain(|(_, one)| !is_death_of(one, id)),
            "kill" => {
                let signal = event.attributes.get("signal").map_or("", String::as_str);
                if !GOES_ON.contains(&signal) {
                    self.asked.insert(id.clone(), event.at);
                }
            }
            "oom" => {
                let is_new = self.ooms.get(id).is_none_or(|at| event.at - at > ONE_OOM);
                self.ooms.insert(id.clone(), event.at);
                for (_, one) in self.open.iter_mut().filter(|(_, one)| is_death_of(one, id)) {
                    one.happening.out_of_memory = true;
                }
                if is_new {
                    self.opens(event, Happens::Oom, now);
                }
            }
            "health_status: unhealthy" => self.opens(event, Happens::Unhealthy, now),
            "destroy" => {
                self.seen.remove(id);
                self.asked.remove(id);
                self.ooms.remove(id);
            }
            _ => {}
        }
        seen
    }

    /// The list, which is the truth. Returns those that are not as they were.
    pub fn list(&mut self, all: &[Listed], at: DateTime<Utc>, now: Instant) -> Vec<Seen> {
        let (mut changed, mut ids) = (Vec::new(), BTreeSet::new());
        for one in all.iter().filter(|one| !is_ours(&one.labels)) {
            ids.insert(one.id.clone());
            let seen = Seen { name: one.name.clone(), labels: one.labels.clone(), is_up: one.state.is_up() };
            let before = self.seen.insert(one.id.clone(), seen.clone());
            let was_up = before.as_ref().is_some_and(|before| before.is_up);
            let is_told = self.open.iter().any(|(_, open)| open.happening.id == one.id);
            let event = match (was_up, seen.is_up) {
                (true, false) => Some(Happens::Died),
                (false, true) => Some(Happens::Started),
                _ => None,
            };
            if let Some(event) = event.filter(|_| self.has_list && !is_told) {
                let happening = Happening {
                    event,
                    container: one.name.clone(),
                    id: one.id.clone(),
                    status: None,
                    out_of_memory: false,
                    late: true,
                    at,
                };
                let settled = Settled { happening, labels: one.labels.clone(), is_guessed: true };
                self.open.push((now + SETTLES_LATE, settled));
            }
            if was_up != seen.is_up || before.is_none_or(|before| before.name != seen.name) {
                changed.push(seen);
            }
        }
        self.seen.retain(|id, seen| {
            let is_there = ids.contains(id);
            if !is_there {
                changed.push(seen.clone());
            }
            is_there
        });
        self.asked.retain(|id, _| ids.contains(id));
        self.ooms.retain(|id, _| ids.contains(id));
        self.has_list = true;
        changed
    }

    /// Whether somebody asked it to end, of a death that only the list shows.
    #[must_use]
    pub fn was_asked(&self, id: &str) -> bool {
        self.asked.contains_key(id)
    }

    fn set_up(&mut self, id: &str, is_up: bool) {
        if let Some(seen) = self.seen.get_mut(id) {
            seen.is_up = is_up;
        }
    }

    fn opens(&mut self, event: &Event, happens: Happens, now: Instant) {
        let container = event.attributes.get("name").cloned().unwrap_or_default();
        let happening = Happening {
            event: happens,
            container,
            id: event.id.clone(),
            status: None,
            out_of_memory: false,
            late: false,
            at: DateTime::from_timestamp_nanos(event.at),
        };
        let settled = Settled { happening, labels: labels(event), is_guessed: false };
        self.open.push((now + SETTLES, settled));
    }
}

/// An event says a container's labels among other things.
fn labels(event: &Event) -> BTreeMap<String, String> {
    let mut labels = event.attributes.clone();
    labels.retain(|name, _| !["name", "image", "exitCode", "signal", "oldName"].contains(&name.as_str()));
    labels
}

fn is_death_of(one: &Settled, id: &str) -> bool {
    one.happening.event == Happens::Died && one.happening.id == id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::State;

    /// Containers that follow a script of seconds and words: `1 die 137`, `2 kill 15`.
    struct Engine {
        following: Following,
        begun: Instant,
    }

    impl Engine {
        fn new() -> Self {
            Self { following: Following::default(), begun: Instant::now() }
        }

        fn says(&mut self, line: &str) {
            self.says_of("blog", line, false);
        }

        fn says_of(&mut self, name: &str, line: &str, is_held: bool) -> bool {
            let mut words = line.splitn(3, ' ');
            let at: i64 = words.next().unwrap().parse().unwrap();
            let action = words.next().unwrap();
            let (action, value) = match (action, words.next()) {
                ("health_status", Some(status)) => (format!("health_status: {status}"), None),
                (action, value) => (action.to_owned(), value),
            };
            let key = if action == "die" { "exitCode" } else { "signal" };
            let mut attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
            attributes.extend(value.map(|value| (key.to_owned(), value.to_owned())));
            let event = Event { action, at: at * 1_000_000_000, id: format!("id-{name}"), attributes };
            self.following.event(&event, is_held, self.begun).is_some()
        }

        fn lists(&mut self, all: &[(&str, State)]) {
            let all: Vec<Listed> = all
                .iter()
                .map(|(name, state)| Listed {
                    id: format!("id-{name}"),
                    name: (*name).to_owned(),
                    state: *state,
                    labels: BTreeMap::new(),
                    image: String::new(),
                })
                .collect();
            self.following.list(&all, DateTime::UNIX_EPOCH, self.begun);
        }

        fn told(&mut self) -> Vec<String> {
            let all = self.following.settled(self.begun + Duration::from_secs(60));
            all.iter().map(|one| format!("{}{}", one.happening, if one.is_guessed { "?" } else { "" })).collect()
        }
    }

    #[test]
    fn who_ended_by_itself_died_and_who_was_asked_to_did_not() {
        let died = |status: i64| vec![format!("the container blog died (status {status})")];
        for (said, expected) in [
            (vec!["1 die 1"], died(1)),
            (vec!["1 die 0"], vec![]),
            // docker stop, with a program that heeds it and one that does not; docker kill; docker rm -f.
            (vec!["1 kill 15", "2 die 143", "2 stop"], vec![]),
            (vec!["1 kill 15", "11 kill 9", "11 die 137", "11 stop"], vec![]),
            (vec!["1 kill 9", "1 die 137"], vec![]),
            (vec!["1 kill 9", "1 die 137", "2 destroy"], vec![]),
            // A long time to end, and what explains it comes afterwards.
            (vec!["1 kill 15", "100 die 1", "100 stop"], vec![]),
            // A reload is not asking to end, and what was asked long ago is no excuse.
            (vec!["1 kill 1", "2 die 1"], died(1)),
            (vec!["1 kill 15", "1000 die 1"], died(1)),
            // Stopped and started, then it crashes.
            (
                vec!["1 kill 15", "2 die 0", "2 stop", "3 start", "4 die 2"],
                [vec!["the container blog was started".to_owned()], died(2)].concat(),
            ),
            // It was to be removed when it ends.
            (vec!["1 die 3", "1 destroy"], died(3)),
        ] {
            let mut engine = Engine::new();
            said.iter().for_each(|line| engine.says(line));
            assert_eq!(engine.told(), expected, "{said:?}");
        }
        let mut engine = Engine::new();
        engine.says_of("blog", "1 die 1", true);
        assert_eq!(engine.told(), Vec::<String>::new(), "one of our own runs has it");
    }

    #[test]
    fn one_death_for_want_of_memory_is_told_once() {
        let mut engine = Engine::new();
        (1..15).for_each(|_| engine.says("5 oom"));
        ["6 oom", "6 die 137", "7 oom"].iter().for_each(|line| engine.says(line));
        assert_eq!(
            engine.told(),
            ["the container blog was out of memory", "the container blog died (status 137, out of memory)"]
        );
        // The other order.
        ["200 die 137", "200 oom"].iter().for_each(|line| engine.says(line));
        assert!(engine.told().iter().any(|said| said.ends_with("died (status 137, out of memory)")));
        engine.says("300 health_status unhealthy");
        engine.says("301 health_status healthy");
        assert_eq!(engine.told(), ["the container blog is unhealthy"]);
    }

    #[test]
    fn what_an_engine_repeats_is_heard_once_and_a_gap_is_filled_by_the_list() {
        use State::{Exited, Running};
        let mut engine = Engine::new();
        // The first list is how things are.
        engine.lists(&[("blog", Running), ("db", Running), ("old", Exited), ("gone", Running)]);
        assert_eq!(engine.told(), Vec::<String>::new());
        assert!(engine.says_of("db", "1 die 1", false));
        assert_eq!(engine.told().len(), 1);
        assert!(!engine.says_of("db", "1 die 1", false), "said again after a break");
        // Nobody heard what became of `blog`; `gone` was removed.
        engine.lists(&[("blog", Exited), ("db", Exited), ("old", Running)]);
        assert_eq!(
            engine.told(),
            ["the container blog died, while nobody looked?", "the container old was started, while nobody looked?",]
        );
        engine.lists(&[("blog", Exited), ("db", Exited), ("old", Running)]);
        assert_eq!(engine.told(), Vec::<String>::new());
        assert_eq!(engine.following.since(), Some(0));
        // The engine knows more than its list, and says it after that.
        engine.lists(&[("blog", Running)]);
        engine.told();
        engine.lists(&[("blog", Exited)]);
        engine.says("9 die 3");
        assert_eq!(engine.told(), ["the container blog died (status 3)"]);
    }

    #[test]
    fn what_ran_before_a_restart_and_does_not_run_now_has_died() {
        let ran = BTreeMap::from([("id-blog".to_owned(), "blog".to_owned()), ("id-db".to_owned(), "db".to_owned())]);
        let mut engine = Engine { following: Following::from(ran, Some(5)), begun: Instant::now() };
        assert_eq!(engine.following.since(), Some(6), "what was heard before is not heard again");
        engine.lists(&[("blog", State::Exited), ("db", State::Running)]);
        assert_eq!(engine.told(), ["the container blog died, while nobody looked?"]);
        assert_eq!(engine.following.running().into_values().collect::<Vec<_>>(), ["db"]);
    }
}
