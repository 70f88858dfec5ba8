//! How a check is, look by look: thresholds, incidents, flapping, reminders.
//!
//! An incident begins at the first failing look, though it is told of only when there were enough of them, and ends at the first
//! look that was well. What nobody can say (`unknown`) and what is being worked on (`maintenance`) neither begins an incident nor
//! ends one. Kept in the ledger after each look, so counting goes on where it was after a restart.
use std::{net::IpAddr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::model::{
    news::{Event, IncidentId},
    watch::{Checked, State, Trouble, Verdict},
};

/// A check that turned so often within [`WINDOW`] comes and goes: it is told of once, and then not before it has settled.
const TURNS: usize = 6;
/// See [`TURNS`].
const WINDOW: TimeDelta = TimeDelta::hours(1);
/// So long it stays as it is before it counts as settled.
const SETTLED: TimeDelta = TimeDelta::minutes(15);
/// So often it is kept that a check was looked at, although nothing has changed.
const KEPT: TimeDelta = TimeDelta::minutes(10);

/// What is known of a check between two looks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// How it is.
    pub state: State,
    /// Since when.
    pub since: DateTime<Utc>,
    /// How it was found to be, whatever hides that now: up, certificate bad or down; unknown before it was ever found to be anything.
    pub settled: State,
    /// Looks in a row that say otherwise, too few so far.
    pub doubt: Option<Doubt>,
    /// The incident that goes on.
    pub incident: Option<Open>,
    /// When it turned well or unwell, the newest last; only what matters for flapping.
    pub turns: Vec<DateTime<Utc>>,
    /// The last look that was kept here. Of a check that goes on being well, not each one is.
    pub last: DateTime<Utc>,
    /// Seconds between looks that were kept here; none after the first.
    pub pace: Option<i64>,
    /// What that found.
    pub what: String,
    /// What kind of trouble that was.
    pub trouble: Option<Trouble>,
    /// Where it was reached when it was last well.
    pub address: Option<IpAddr>,
    /// When its certificate ends, as last seen.
    pub certificate_ends: Option<DateTime<Utc>>,
}

/// Looks in a row that say something else than what is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// What the last of them said.
    pub state: State,
    /// When the first of them was.
    pub since: DateTime<Utc>,
    /// How many.
    pub looks: u32,
}

/// An incident that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Its number.
    pub id: IncidentId,
    /// The first failing look.
    pub began: DateTime<Utc>,
    /// When it was first told of; not yet, while what it depends on is down.
    pub told: Option<DateTime<Utc>>,
    /// When it was last told of.
    pub last_told: Option<DateTime<Utc>>,
    /// How often it was told of again.
    pub again: u32,
    /// It comes and goes.
    pub flaps: bool,
    /// It was down at some time, and not only its certificate bad.
    pub was_down: bool,
}

/// A change to the history of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// From then on it is this.
    From(DateTime<Utc>, State),
    /// From then on it was this wherever it was thought to be that.
    Was {
        /// The first look that said so.
        since: DateTime<Utc>,
        /// What it was thought to be.
        thought: State,
        /// What it was.
        was: State,
    },
    /// The clock was set back: what lies after this never came.
    Cut(DateTime<Utc>),
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Of which incident.
    pub incident: IncidentId,
    /// What happened.
    pub event: Event,
    /// Counted within the incident and event, so that nothing is told twice.
    pub number: u32,
    /// When the incident began.
    pub since: DateTime<Utc>,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// It comes and goes, and is told of only when it has settled.
    pub flaps: bool,
    /// It was down at some time, and not only its certificate bad: whoever heard of that hears of its end.
    pub was_down: bool,
}

/// What a look changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is known now.
    pub known: Known,
    /// Whether that is more than was known before the look.
    pub is_news: bool,
    /// What the history of states gets.
    pub marks: Vec<Mark>,
    /// An incident that begins.
    pub begun: Option<Open>,
    /// An incident that ends, and when it did.
    pub ended: Option<(Open, DateTime<Utc>)>,
    /// What is to be told.
    pub tell: Option<Telling>,
}

/// What a look makes of what was known. `quiet`: what it depends on is down itself, so nothing is told of this one. `number` gives
/// an incident its number.
pub fn advance(
    before: Option<&Known>,
    checked: &Checked,
    quiet: bool,
    number: &mut impl FnMut() -> IncidentId,
) -> Step {
    let (at, seen) = (checked.at, checked.verdict.state);
    let mut marks = Vec::new();
    let mut known = before.cloned().unwrap_or_else(|| Known::new(at));
    if before.is_none() {
        marks.push(Mark::From(at, State::Unknown));
    }
    if known.lies_after(at) {
        known.turn_back(at);
        marks.extend([Mark::Cut(at), Mark::From(at, known.state)]);
    }
    marks.extend(known.gap(at).into_iter().flatten());
    let is_news = !is_same(&known, &checked.verdict) || known.state != State::Up;
    if is_news || known.pace.is_none() || at - known.last >= KEPT {
        known.keep_pace(at);
    }
    if is_news {
        known.what.clone_from(&checked.verdict.what);
        known.trouble.clone_from(&checked.verdict.trouble);
    }
    let mut step = Step { known, is_news: false, marks, begun: None, ended: None, tell: None };
    if matches!(seen, State::Unknown | State::Maintenance) {
        step.hide(at, seen);
    } else {
        step.look(checked, quiet, number);
    }
    step.is_news = before != Some(&step.known);
    step
}

/// Whether a verdict says nothing new, the time that the answer took aside.
fn is_same(known: &Known, verdict: &Verdict) -> bool {
    known.state == verdict.state && known.trouble == verdict.trouble && !known.what.is_empty()
}

impl Known {
    fn new(at: DateTime<Utc>) -> Self {
        Self {
            state: State::Unknown,
            since: at,
            settled: State::Unknown,
            doubt: None,
            incident: None,
            turns: Vec::new(),
            last: at,
            pace: None,
            what: String::new(),
            trouble: None,
            address: None,
            certificate_ends: None,
        }
    }

    /// Whether it fails, told of or not: what depends on it is not told of then.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.incident.is_some()
            || self.state == State::Maintenance
            || self.doubt.is_some_and(|doubt| doubt.state != State::Up)
    }

    /// When nobody looked any more: so long after the last look that was kept, nobody knows how it is.
    #[must_use]
    pub fn unseen_after(&self) -> Option<DateTime<Utc>> {
        self.last.checked_add_signed(TimeDelta::seconds(self.pace?.checked_mul(3)?) + KEPT)
    }

    /// Nobody looked for too long, as when Rusuban was not running: that time is unknown.
    fn gap(&self, at: DateTime<Utc>) -> Option<[Mark; 2]> {
        let began = self.last + TimeDelta::seconds(self.pace?);
        let is_gap = self.unseen_after().is_some_and(|unseen| at > unseen) && began < at;
        is_gap.then_some([Mark::From(began, State::Unknown), Mark::From(at, self.state)])
    }

    fn keep_pace(&mut self, at: DateTime<Utc>) {
        if at > self.last && self.unseen_after().is_none_or(|unseen| at <= unseen) {
            self.pace = Some((at - self.last).num_seconds().max(1));
        }
        self.last = at;
    }

    /// Whether something lies in the future: the clock was ahead, and is set back.
    fn lies_after(&self, at: DateTime<Utc>) -> bool {
        self.moments().any(|moment| moment > at)
    }

    fn moments(&self) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        [self.since, self.last]
            .into_iter()
            .chain(self.doubt.map(|doubt| doubt.since))
            .chain(self.turns.iter().copied())
            .chain(self.incident.iter().flat_map(|open| [Some(open.began), open.told, open.last_told]).flatten())
    }

    /// What was in the future is now.
    fn turn_back(&mut self, at: DateTime<Utc>) {
        let back = |moment: &mut DateTime<Utc>| *moment = (*moment).min(at);
        back(&mut self.since);
        back(&mut self.last);
        self.doubt.iter_mut().for_each(|doubt| back(&mut doubt.since));
        self.turns.retain(|turn| *turn <= at);
        if let Some(open) = &mut self.incident {
            back(&mut open.began);
            open.told.iter_mut().chain(&mut open.last_told).for_each(back);
        }
    }

    /// One more look that says otherwise; whether there are enough of them. Of failures it does not matter which.
    fn doubts(&mut self, at: DateTime<Utc>, seen: State, enough: u32) -> Option<Doubt> {
        let goes_on = |doubt: &Doubt| match self.settled {
            State::Up | State::Unknown => doubt.state != State::Up,
            _ => doubt.state == seen,
        };
        let before = self.doubt.filter(goes_on);
        let looks = before.map_or(0, |doubt| doubt.looks).saturating_add(1);
        let doubt = Doubt { state: seen, since: before.map_or(at, |doubt| doubt.since), looks };
        let is_enough = looks >= enough.max(1);
        self.doubt = (!is_enough).then_some(doubt);
        is_enough.then_some(doubt)
    }
}

impl Step {
    /// Nobody can say how it is, or it is being worked on.
    fn hide(&mut self, at: DateTime<Utc>, seen: State) {
        let known = &mut self.known;
        if known.state != seen {
            known.state = seen;
            known.since = at;
            self.marks.push(Mark::From(at, seen));
        }
        if seen == State::Maintenance {
            // What failed a moment before was the work that had begun.
            known.doubt = None;
        }
    }

    fn look(&mut self, checked: &Checked, quiet: bool, number: &mut impl FnMut() -> IncidentId) {
        let (at, seen, rules) = (checked.at, checked.verdict.state, &checked.rules);
        let known = &mut self.known;
        if seen == State::Up {
            known.address = checked.verdict.address.or(known.address);
        }
        if let Some(certificate) = &checked.verdict.certificate {
            known.certificate_ends = Some(certificate.ends);
        }
        let thought = known.settled;
        let turned = match (thought, seen) {
            (State::Unknown, State::Up) => {
                known.doubt = None;
                Some(Doubt { state: seen, since: at, looks: 1 })
            }
            (settled, seen) if settled == seen => {
                known.doubt = None;
                None
            }
            (_, State::Up) => known.doubts(at, seen, rules.successes),
            _ => known.doubts(at, seen, rules.failures),
        };
        if known.state != thought {
            // What hid it is over.
            known.state = thought;
            known.since = at;
            self.marks.push(Mark::From(at, thought));
        }
        let mut changed_kind = false;
        if let Some(turned) = turned {
            changed_kind = is_bad(thought) && is_bad(seen);
            known.settled = seen;
            known.state = seen;
            known.since = turned.since;
            self.marks.push(Mark::Was { since: turned.since, thought, was: seen });
            if !changed_kind && (thought, seen) != (State::Unknown, State::Up) {
                known.turns.push(at);
            }
        }
        known.turns.retain(|turn| at - *turn <= WINDOW);
        known.turns.drain(..known.turns.len().saturating_sub(4 * TURNS));
        self.incident(checked, turned.map(|turned| turned.since), changed_kind, quiet, number);
    }

    fn incident(
        &mut self,
        checked: &Checked,
        turned: Option<DateTime<Utc>>,
        changed_kind: bool,
        quiet: bool,
        number: &mut impl FnMut() -> IncidentId,
    ) {
        let (at, known) = (checked.at, &mut self.known);
        let has_settled = known.turns.last().is_none_or(|turn| at - *turn >= SETTLED);
        let mut event = None;
        match known.incident {
            None if is_bad(known.settled) => {
                let began = turned.unwrap_or(at);
                let flaps = known.turns.len() >= TURNS;
                let was_down = known.settled == State::Down;
                let open = Open { id: number(), began, told: None, last_told: None, again: 0, flaps, was_down };
                self.begun = Some(open);
                known.incident = Some(open);
                event = (!quiet).then_some(Event::Failed);
            }
            None => {}
            Some(open) if known.settled == State::Up => {
                if !open.flaps || has_settled {
                    let end = turned.unwrap_or(known.since).max(open.began);
                    self.ended = Some((open, end));
                    known.incident = None;
                    if open.told.is_some() {
                        self.tell = Some(open.telling(Event::Recovered, 0, end));
                    }
                }
                return;
            }
            Some(mut open) => {
                open.was_down |= known.settled == State::Down;
                if open.flaps && has_settled {
                    open.flaps = false;
                    event = Some(Event::StillFailing);
                }
                let remind = |since: DateTime<Utc>| {
                    checked.rules.remind.is_some_and(|every| elapsed(since, at) >= every.max(Duration::from_secs(60)))
                };
                match open.last_told {
                    None if !quiet => event = Some(Event::Failed),
                    None => event = None,
                    Some(_) if open.flaps => {}
                    Some(last) if changed_kind || (remind(last) && !quiet) => event = Some(Event::StillFailing),
                    Some(_) => {}
                }
                known.incident = Some(open);
            }
        }
        if let (Some(event), Some(open)) = (event, &mut known.incident) {
            open.last_told = Some(at);
            if event == Event::Failed {
                open.told = Some(at);
            } else {
                open.again += 1;
            }
            self.tell = Some(open.telling(event, open.again, at));
        }
    }
}

impl Open {
    fn telling(&self, event: Event, number: u32, at: DateTime<Utc>) -> Telling {
        Telling { incident: self.id, event, number, since: self.began, at, flaps: self.flaps, was_down: self.was_down }
    }
}

fn is_bad(state: State) -> bool {
    matches!(state, State::Down | State::CertificateBad)
}

fn elapsed(since: DateTime<Utc>, at: DateTime<Utc>) -> Duration {
    (at - since).to_std().unwrap_or_default()
}
