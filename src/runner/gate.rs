//! Who may begin: named locks, taken all at once or not at all, and classes with a number of places.
//!
//! A run that waits holds nothing, so no two can wait for each other. The one that has waited longest is looked at first,
//! and what it waits for is kept free for it.
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::locks::{Held, Lock, decrease};

/// How many runs of each class are at work at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Places by class.
    pub classes: BTreeMap<String, usize>,
    /// Places in each class that is not named.
    pub others: usize,
}

impl Default for Limits {
    /// One for the disk, four for the network, 64 for each other class.
    fn default() -> Self {
        Self { classes: [("disk".to_owned(), 1), ("network".to_owned(), 4)].into(), others: 64 }
    }
}

impl Limits {
    /// The number of places in `class`; at least one, or its jobs would wait for ever.
    #[must_use]
    pub fn of(&self, class: &str) -> usize {
        self.classes.get(class).copied().unwrap_or(self.others).max(1)
    }
}

/// The one gate through which all runs pass.
#[derive(Debug)]
pub(super) struct Gate(Mutex<State>);

/// The right to be at work; given back when it is dropped. While it waits it holds nothing, or only its locks.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    id: u64,
}

/// A place in the queue. Dropped, it no longer waits.
#[derive(Debug)]
pub(super) struct Turn {
    pass: Pass,
    granted: oneshot::Receiver<()>,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    held: Held,
    places: HashMap<String, usize>,
    inside: HashMap<u64, Inside>,
    waiting: BTreeMap<u64, Waiting>,
    /// How many wait by class.
    crowds: HashMap<String, usize>,
    next: u64,
}

#[derive(Debug)]
struct Inside {
    locks: Vec<Lock>,
    class: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    who: Arc<str>,
    locks: Vec<Lock>,
    class: String,
    grant: oneshot::Sender<()>,
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            limits,
            held: Held::default(),
            places: HashMap::new(),
            inside: HashMap::new(),
            waiting: BTreeMap::new(),
            crowds: HashMap::new(),
            next: 0,
        })))
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        let mut state = self.state();
        state.limits = limits;
        state.admit();
    }

    /// What a run with these locks would wait for now, in words.
    pub(super) fn obstacle(&self, locks: &[Lock], class: &str) -> Option<String> {
        let state = self.state();
        for lock in locks {
            if let Some(who) = state.held.in_the_way(lock) {
                return Some(format!("{lock}, which {who} holds"));
            }
        }
        let limit = state.limits.of(class);
        (state.places_taken(class) >= limit).then(|| format!("a place among the {limit} of class `{class}`"))
    }

    /// Takes a place in the queue for all `locks` and a place in `class`: who comes first is served first.
    pub(super) fn queue(self: &Arc<Self>, who: &str, locks: Vec<Lock>, class: &str) -> Turn {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let granted = state.wait(id, who.into(), locks, class);
        Turn { pass: Pass { gate: Arc::clone(self), id }, granted }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits until it comes.
    pub(super) async fn comes(self) -> Pass {
        // The sender lives in the gate until it has sent.
        let _ = self.granted.await;
        self.pass
    }
}

impl Pass {
    /// Gives the place in the class away and keeps the locks: for a long wait between two attempts.
    pub(super) fn step_aside(&self) {
        let mut state = self.gate.state();
        let class = state.inside.get_mut(&self.id).and_then(|inside| inside.class.take());
        state.leave(class);
        state.admit();
    }

    /// Waits for a place in the class again. It waits for no lock, so nobody waits for it in a circle.
    pub(super) async fn step_in(&self, who: &str, class: &str) {
        let granted = {
            let mut state = self.gate.state();
            // An earlier wait may have been given up half way, or granted unheard.
            state.no_longer_waits(self.id);
            if state.inside.get(&self.id).is_some_and(|inside| inside.class.is_some()) {
                return;
            }
            state.wait(self.id, who.into(), Vec::new(), class)
        };
        let _ = granted.await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.no_longer_waits(self.id);
        if let Some(inside) = state.inside.remove(&self.id) {
            state.held.release(&inside.locks);
            state.leave(inside.class);
        }
        state.admit();
    }
}

impl State {
    fn places_taken(&self, class: &str) -> usize {
        self.places.get(class).copied().unwrap_or_default()
    }

    fn is_full(&self, class: &str) -> bool {
        self.places_taken(class) >= self.limits.of(class)
    }

    fn wait(&mut self, id: u64, who: Arc<str>, locks: Vec<Lock>, class: &str) -> oneshot::Receiver<()> {
        let (grant, granted) = oneshot::channel();
        *self.crowds.entry(class.to_owned()).or_default() += 1;
        self.waiting.insert(id, Waiting { who, locks, class: class.to_owned(), grant });
        // The newest can only get in itself: with its class full there is nothing to look at.
        if !self.is_full(class) {
            self.admit();
        }
        granted
    }

    fn leave(&mut self, class: Option<String>) {
        if let Some(class) = class {
            decrease(&mut self.places, &class);
        }
    }

    /// Lets in all that can go in, the longest waiting first.
    fn admit(&mut self) {
        let mut reserved = Held::default();
        let mut from = 0;
        // Thousands may wait for one class: with every class full there is nobody to look at.
        while self.crowds.keys().any(|class| !self.is_full(class)) {
            let Some((&id, waiting)) = self.waiting.range(from..).next() else { return };
            from = id + 1;
            if self.is_full(&waiting.class) {
                continue;
            }
            let blocked = |lock| self.held.in_the_way(lock).is_some() || reserved.in_the_way(lock).is_some();
            if waiting.locks.iter().any(blocked) {
                reserved.take(&waiting.locks, &waiting.who);
                continue;
            }
            let Some(waiting) = self.no_longer_waits(id) else { return };
            self.held.take(&waiting.locks, &waiting.who);
            *self.places.entry(waiting.class.clone()).or_default() += 1;
            let inside = self.inside.entry(id).or_insert_with(|| Inside { locks: Vec::new(), class: None });
            inside.locks.extend(waiting.locks);
            inside.class = Some(waiting.class);
            // Whoever no longer listens gives it back by dropping its pass.
            let _ = waiting.grant.send(());
        }
    }

    fn no_longer_waits(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        decrease(&mut self.crowds, &waiting.class);
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn names(names: &[&str]) -> Vec<Lock> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Lock::all(&names, std::path::Path::new("/home"))
    }

    async fn gets_in(gate: &Arc<Gate>, locks: &[&str], class: &str) -> Option<Pass> {
        tokio::time::timeout(Duration::from_millis(1), gate.queue("a test", names(locks), class).comes()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_is_in_the_way_of_all_above_and_below_it() {
        let gate = Gate::new(Limits::default());
        let pass = gets_in(&gate, &["path:/srv/photos/"], "command").await.unwrap();
        for blocked in ["path:/srv/photos", "path:/srv", "path:/", "path:/srv//photos/2026"] {
            assert!(gets_in(&gate, &[blocked], "command").await.is_none(), "{blocked}");
        }
        for free in ["path:/srv/photos-old", "path:/var", "/srv/photos"] {
            assert!(gets_in(&gate, &[free], "command").await.is_some(), "{free}");
        }
        let why = gate.obstacle(&names(&["path:/srv"]), "command").unwrap();
        assert_eq!(why, "/srv, which a test holds");
        drop(pass);
        assert!(gets_in(&gate, &["path:/srv"], "command").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_may_name_one_thing_twice() {
        let gate = Gate::new(Limits::default());
        let pass = gets_in(&gate, &["path:/a", "path:/a/b", "x", "x"], "command").await.unwrap();
        drop(pass);
        assert!(gets_in(&gate, &["path:/a/b", "x"], "command").await.is_some());
        let state = gate.state();
        assert!(state.held.is_empty() && state.places.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_longest_is_not_overtaken_for_ever() {
        let gate = Gate::new(Limits::default());
        let a = gets_in(&gate, &["a"], "command").await.unwrap();
        let both = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.queue("both", names(&["a", "b"]), "command").comes().await }
        });
        tokio::task::yield_now().await;
        // `b` is free, but it is kept for the one that waits for both.
        assert!(gets_in(&gate, &["b"], "command").await.is_none());
        assert!(gets_in(&gate, &["c"], "command").await.is_some());
        drop(a);
        drop(both.await.unwrap());
        assert!(gets_in(&gate, &["b"], "command").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_back_stepped_aside_from_and_set_anew() {
        let gate = Gate::new(Limits::default());
        let first = gets_in(&gate, &["x"], "disk").await.unwrap();
        assert!(gets_in(&gate, &[], "disk").await.is_none());
        assert_eq!(gate.obstacle(&[], "disk").unwrap(), "a place among the 1 of class `disk`");
        first.step_aside();
        let second = gets_in(&gate, &[], "disk").await.unwrap();
        assert!(gets_in(&gate, &["x"], "network").await.is_none(), "the locks are kept");
        let back = first.step_in("first", "disk");
        assert!(tokio::time::timeout(Duration::from_millis(1), back).await.is_err());
        gate.set_limits(Limits { classes: [("disk".to_owned(), 2)].into(), others: 1 });
        first.step_in("first", "disk").await;
        drop((first, second));
        assert!(gate.state().places.is_empty());
        assert!(gate.state().crowds.is_empty());
    }

    #[tokio::test]
    async fn ten_thousand_that_wait_for_one_class_are_let_in_quickly() {
        let gate = Gate::new(Limits::default());
        let began = std::time::Instant::now();
        let all: Vec<_> = (0..10_000)
            .map(|number| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move {
                    drop(gate.queue("x", names(&[&format!("job:{number}")]), "command").comes().await)
                })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
