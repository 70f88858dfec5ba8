//! Checks that depend on others: one alert and not fifty.
use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::Known;
use crate::model::watch::Checked;

/// A check in its place: what is known of it, when it was last looked at by this process, and what it depends on.
#[derive(Clone, Debug)]
pub struct Seat {
    /// What is known.
    pub known: Known,
    /// The last look.
    pub looked: Option<DateTime<Utc>>,
    /// The label of the check that it depends on.
    pub parent: Option<String>,
}

/// The checks of a job, by their labels.
pub type Seats = HashMap<String, Seat>;

/// Those that this one depends on, the nearest first. A circle ends where it began.
fn above<'a>(check: &str, parent: impl Fn(&str) -> Option<&'a str>) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    let mut next = parent(check);
    while let Some(one) = next.filter(|one| *one != check && !all.contains(one)) {
        all.push(one);
        next = parent(one);
    }
    all
}

/// Whether nothing is told of this look, because of what the check depends on: that fails; or it is well only since the last look
/// at this one, which gets one look more to become well, too; or it has not been looked at since this one began to fail.
#[must_use]
pub fn is_quiet(one: &Checked, seats: &Seats) -> bool {
    let own = seats.get(&one.check);
    let before = own.and_then(|seat| seat.looked.or(Some(seat.known.last)));
    let began = own.and_then(|seat| seat.known.doubt).map_or(one.at, |doubt| doubt.since);
    let begins = own.is_none_or(|seat| seat.known.incident.is_none());
    let parent = |check: &str| {
        if check == one.check { one.rules.parent.as_deref() } else { seats.get(check)?.parent.as_deref() }
    };
    above(&one.check, parent).into_iter().filter_map(|parent| seats.get(parent)).any(|parent| {
        let turned = parent.known.turns.last().is_some_and(|turn| before.is_some_and(|before| *turn > before));
        let is_behind = begins && parent.looked.is_some_and(|looked| looked < began);
        parent.known.fails() || turned || is_behind
    })
}

/// The checks, each after what it depends on.
#[must_use]
pub fn in_order(mut checks: Vec<Checked>) -> Vec<Checked> {
    let parents: HashMap<String, String> =
        checks.iter().filter_map(|one| Some((one.check.clone(), one.rules.parent.clone()?))).collect();
    checks.sort_by_key(|one| above(&one.check, |check| parents.get(check).map(String::as_str)).len());
    checks
}
