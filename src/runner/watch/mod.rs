//! What becomes of what checks find: read what was known, decide ([`crate::watch`]), and write all of it in one transaction, with
//! the incidents and what is to be told.
mod back;
mod cause;
mod container;
mod holds;
mod line;
mod words;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::ensure;
use chrono::{DateTime, TimeDelta, Utc};

pub(super) use holds::container_of;
pub use line::GATEWAY;

use self::{
    cause::Scene,
    holds::{Held, Holds},
    line::Line,
};
use super::news::outgoing;
use crate::{
    clock::Clock,
    job::Job,
    kinds::Services,
    model::{
        Debt, DebtId, JobName, RunId,
        news::{About, Cause, Event, Offer, Outgoing},
        watch::{Checked, Rules, State, Verdict},
    },
    store::{Begun, Found, Store},
    watch::{Known, Look, Seat, Seats, Step, WatchSettings, advance, code, in_order, is_quiet},
};

/// Checks of one run at most, and letters of a label.
const MOST: usize = 10_000;
const LONGEST_LABEL: usize = 200;
/// Checks that are kept in memory; beyond, they are read anew.
const MOST_KEPT: usize = 50_000;
/// The house's own checks are kept under this name.
pub const HOUSE: &str = "house";
/// The check of our own line.
const OUR_LINE: &str = "our own line";

/// What is known of a job's checks; read from the ledger when it is first needed.
type Desk = Arc<tokio::sync::Mutex<Option<Seats>>>;

/// Judges what checks find.
pub(super) struct Watch {
    store: Store,
    clock: Clock,
    settings: Mutex<Arc<WatchSettings>>,
    desks: Mutex<HashMap<String, Desk>>,
    holds: Holds,
    line: Line,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// Whose checks they are, and what is at hand.
pub(super) struct Report<'a> {
    pub(super) job: &'a Arc<Job>,
    pub(super) services: &'a Services,
}

impl Watch {
    pub(super) fn new(store: Store, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            settings: Mutex::default(),
            desks: Mutex::default(),
            holds: Holds::default(),
            line: Line::default(),
        })
    }

    pub(super) fn set(&self, settings: Arc<WatchSettings>) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> Arc<WatchSettings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A debt of a run was written down.
    pub(super) fn owed(&self, id: DebtId, debt: &Debt, job: &JobName, run: RunId) {
        self.holds.begin(id, debt, job, run, self.clock.now());
    }

    /// A debt was paid.
    pub(super) fn paid(&self, id: DebtId) {
        self.holds.end(id, self.clock.now());
    }

    /// What is known of a job's checks. Whoever has it is the only one who looks at them: two runs of a job would otherwise begin
    /// an incident each.
    fn desk(&self, job: &str) -> Desk {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if desks.len() > MOST_KEPT / 10 && !desks.contains_key(job) {
            // Those in use stay with their users; the next one reads the ledger.
            desks.retain(|_, desk| Arc::strong_count(desk) > 1);
        }
        Arc::clone(desks.entry(job.to_owned()).or_default())
    }

    /// Judges what a run found and writes it down; returns what the run's log should have of it.
    ///
    /// # Errors
    /// When there is more than can be kept, or the ledger cannot be read or written.
    pub(super) async fn checked(&self, from: &Report<'_>, mut checks: Vec<Checked>) -> anyhow::Result<Vec<String>> {
        ensure!(checks.len() <= MOST, "{} checks in one run are too many: at most {MOST}", checks.len());
        for one in &mut checks {
            ensure!(one.check.len() <= LONGEST_LABEL, "a check's label has at most {LONGEST_LABEL} letters");
            words::shorten(&mut one.verdict.what);
        }
        let now = self.clock.now();
        let job = from.job.name.as_str();
        let desk = self.desk(job);
        let mut desk = desk.lock().await;
        let mut seats = match desk.take() {
            Some(seats) => seats,
            None => self.read(job).await?,
        };
        let holds = self.holds.now(&self.store, now).await;
        self.find_maintenance(&from.job.name, &mut checks, &holds, now).await?;
        let mut said = self.ask_line(from, &mut checks, now).await?;
        let all = self.judge(from, checks, &mut seats, &holds, &mut said).await;
        // If this fails nobody knows what was written, and the next look reads it.
        self.store.found(job, all).await?;
        if seats.len() <= MOST_KEPT {
            *desk = Some(seats);
        }
        Ok(said)
    }

    async fn read(&self, job: &str) -> anyhow::Result<Seats> {
        let known = self.store.known(job).await?;
        let seat = |(check, known)| (check, Seat { known, looked: None, parent: None });
        Ok(known.into_iter().map(seat).collect())
    }

    /// What each look makes of what was known, in an order in which what others depend on comes first.
    async fn judge(
        &self,
        from: &Report<'_>,
        checks: Vec<Checked>,
        seats: &mut Seats,
        holds: &[Held],
        said: &mut Vec<String>,
    ) -> Vec<Found> {
        let mut judged = Vec::with_capacity(checks.len());
        for one in in_order(checks) {
            let quiet = is_quiet(&one, seats);
            let before = seats.get(&one.check).map(|seat| seat.known.clone());
            let before = before.as_ref();
            let step = advance(before, &one, quiet, &mut || self.store.new_incident());
            let scene =
                Scene { from, checked: &one, before, step: &step, holds, store: &self.store, clock: &self.clock };
            let (causes, offers) = match step.tell {
                Some(tell) if tell.event == Event::Failed => scene.causes().await,
                _ => Default::default(),
            };
            let about = About::Check { job: from.job.name.clone(), check: one.check.clone() };
            let news = step.tell.map(|tell| words::news(&tell, about, &one, causes.clone(), offers.clone()));
            said.extend(words::line(&one, before, &step, quiet, causes.first()));
            let now = self.clock.now();
            let rows = news.iter().flat_map(|news| outgoing(from.job, &from.services.rules, news, now)).collect();
            judged.push(found(&one, &step, before, (causes, offers), rows));
            let seat = Seat { known: step.known, looked: Some(one.at), parent: one.rules.parent };
            seats.insert(one.check, seat);
        }
        judged
    }

    /// What fails while it is being worked on is maintenance: by a window of the settings, by a person's word, or by a job of ours.
    async fn find_maintenance(
        &self,
        job: &JobName,
        checks: &mut [Checked],
        holds: &[Held],
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let settings = self.settings();
        let pauses = self.store.pauses().await?;
        for one in checks {
            let names: Vec<&str> =
                [one.check.as_str(), job.as_str()].into_iter().chain(one.rules.container.as_deref()).collect();
            let by_hand = pauses.iter().find(|pause| pause.is_for(&names, one.at)).map(words::pause);
            let window = || {
                let open = settings.windows.iter().find(|window| window.is_for(&names) && window.is_open(one.at));
                open.map(|window| format!("in the maintenance window `{}`", window.schedule.line()))
            };
            let by_us = || {
                let grace = TimeDelta::from_std(settings.back_within).unwrap_or_default();
                let is_bad = matches!(one.verdict.state, State::Down | State::CertificateBad);
                let container = one.rules.container.as_deref().filter(|_| is_bad)?;
                let ours = |held: &&Held| {
                    held.container == container
                        && held.since <= now
                        && held.until.is_none_or(|until| one.at <= until + grace)
                };
                holds.iter().rev().find(ours).map(words::held)
            };
            if let Some(why) = by_hand.or_else(window).or_else(by_us) {
                one.verdict.what = format!("{why}: {}", one.verdict.what);
                one.verdict.state = State::Maintenance;
            }
        }
        Ok(())
    }

    /// Before anything far away is called down, our own line is looked at, once.
    async fn ask_line(
        &self,
        from: &Report<'_>,
        checks: &mut [Checked],
        now: DateTime<Utc>,
    ) -> anyhow::Result<Vec<String>> {
        let suspect = checks.iter().any(|one| line::may_be_ours(&one.verdict));
        let well = checks.iter().any(|one| line::shows_it_well(&one.verdict));
        let desk = self.desk(HOUSE);
        let mut desk = desk.lock().await;
        if desk.is_none() {
            *desk = Some(self.read(HOUSE).await?);
        }
        let before = desk.as_ref().and_then(|seats| seats.get(OUR_LINE)).map(|seat| seat.known.clone());
        let was_down = before.as_ref().is_some_and(|known| known.incident.is_some());
        let may_be_over = was_down && well;
        if !suspect && !may_be_over {
            return Ok(Vec::new());
        }
        // What was reached this very moment answers for the line.
        let dead = if well { None } else { self.line.is_dead(&self.settings().line).await };
        if let Some(why) = &dead {
            for one in checks.iter_mut().filter(|one| line::may_be_ours(&one.verdict)) {
                one.verdict.what = format!("our own line is down ({why}), so nobody knows: {}", one.verdict.what);
                one.verdict.state = State::Unknown;
            }
        }
        if dead.is_none() && !was_down {
            return Ok(Vec::new());
        }
        let state = if dead.is_some() { State::Down } else { State::Up };
        let what = dead.unwrap_or_else(|| "it is well again".to_owned());
        let verdict = Verdict { state, what, took: None, trouble: None, certificate: None, address: None };
        let rules = Rules { failures: 1, successes: 1, remind: None, parent: None, container: None, host: None };
        let one = Checked { check: OUR_LINE.to_owned(), at: now, verdict, rules };
        let step = advance(before.as_ref(), &one, false, &mut || self.store.new_incident());
        let news = step.tell.map(|tell| words::news(&tell, About::House, &one, Vec::new(), Vec::new()));
        let rows = news.iter().flat_map(|news| outgoing(from.job, &from.services.rules, news, now)).collect();
        let found = found(&one, &step, before.as_ref(), Default::default(), rows);
        let line = words::line(&one, before.as_ref(), &step, false, None);
        *desk = None;
        self.store.found(HOUSE, vec![found]).await?;
        Ok(line.into_iter().collect())
    }
}

/// What the ledger gets of one look.
fn found(
    one: &Checked,
    step: &Step,
    before: Option<&Known>,
    (causes, offers): (Vec<Cause>, Vec<Offer>),
    outgoing: Vec<Outgoing>,
) -> Found {
    let open = step.known.incident.filter(|open| before.and_then(|before| before.incident) != Some(*open));
    let incident =
        open.map(|open| Begun { open, state: step.known.settled, what: step.known.what.clone(), causes, offers });
    Found {
        check: one.check.clone(),
        look: Look {
            at: one.at,
            state: one.verdict.state,
            took: one.verdict.took,
            trouble: code(one.verdict.trouble.as_ref()),
        },
        known: step.is_news.then(|| step.known.clone()),
        marks: step.marks.clone(),
        incident,
        ended: step.ended.map(|(open, at)| (open.id, at)),
        outgoing,
    }
}
