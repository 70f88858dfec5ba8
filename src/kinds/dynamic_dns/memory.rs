//! What the runs of a job remember: the fact `address`. Whoever looks for the cause of an incident reads it too, so its form is
//! kept:
//!
//! ```json
//! {
//!   "provider": "MyDNS.JP", "settings": ["…", "…"],
//!   "ipv4": "93.184.216.34", "ipv6": "2a01:4f8::1",     // this host's own, as last agreed on
//!   "changed_at": "2026-11-27T20:04:00Z",               // since when it is another than before
//!   "told_at": "2026-11-27T20:04:02Z",                  // when a provider last took something
//!   "stopped": { … },                                   // none of the hosts may be told
//!   "hosts": {
//!     "home.example.org": {
//!       "ipv4": { "address": "93.184.216.34", "since": "…", "told_at": "…", "seen_at": "…" },
//!       "next": "2026-11-28T20:04:02Z",                 // when it is told again though nothing changes
//!       "tries": 0, "sending": { … }, "wait": { … }, "stopped": { … }
//!     }
//!   }
//! }
//! ```
//!
//! `seen_at` is when the record was first seen to say so; it is missing until then. `sending` is there from before a request goes out
//! until its answer is written down: after a crash it says that one may have been taken. The fact `lifted` is a list of the `id`s of
//! stops that a person has lifted.
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    dyndns::{Addresses, Answer, End, Family},
    text,
};

/// The fact's key.
pub const KEY: &str = "address";
/// The key of the stops that were lifted.
pub const LIFTED: &str = "lifted";
/// An answer that nobody knows is not asked for again before this time is over; twice as long each time, up to the second.
const PATIENCE: [Duration; 2] = [Duration::from_secs(30 * 60), Duration::from_secs(24 * 3600)];

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The provider's name for people.
    pub provider: String,
    /// A digest of the provider's settings, and its salt: another provider was told nothing yet.
    pub settings: [String; 2],
    /// This host's own addresses, as last agreed on.
    #[serde(flatten)]
    pub own: Addresses,
    /// Since when they are others than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<DateTime<Utc>>,
    /// The address before, until its change was told as news: a run that fails tells of that alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untold: Option<Addresses>,
    /// When a provider last took something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told_at: Option<DateTime<Utc>>,
    /// No host may be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// By name.
    pub hosts: BTreeMap<String, OfHost>,
}

/// What is remembered of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OfHost {
    /// What the provider has for A.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Told>,
    /// What the provider has for AAAA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Told>,
    /// When it is told again though nothing changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<DateTime<Utc>>,
    /// Requests since the last one that ended well.
    pub tries: u32,
    /// A request went out, and its answer is not written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sending: Option<Sending>,
    /// It may not be told for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// It may not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// An address that the provider has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which.
    pub address: IpAddr,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When it was last told.
    pub told_at: DateTime<Utc>,
    /// When the record was first seen to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<DateTime<Utc>>,
}

/// A request that went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// When.
    pub at: DateTime<Utc>,
    /// With these.
    #[serde(flatten)]
    pub addresses: Addresses,
}

/// A time in which nothing is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Its beginning.
    pub from: DateTime<Utc>,
    /// Its end.
    pub until: DateTime<Utc>,
    /// What was said.
    pub why: String,
}

/// A stop: until the settings change, or a person lifts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// What tells it from others; also the salt of `settings`.
    pub id: String,
    /// Since when.
    pub at: DateTime<Utc>,
    /// What was said.
    pub why: String,
    /// What can be done.
    pub mend: String,
    /// The settings that led to it, secrets included, as a digest that tells nothing of them.
    pub settings: String,
}

/// What is to be done about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Todo {
    /// The provider has what it should.
    Nothing,
    /// It must be told of these.
    Tell { due: Addresses, why: Why },
    /// Not before then.
    Wait { until: DateTime<Utc>, why: String },
    /// Not before something is changed.
    Stopped { why: String, mend: String },
}

/// Why a provider is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    First,
    Changed { from: Addresses },
    Refresh { told_at: DateTime<Utc> },
}

impl Memory {
    /// As it is now: what a clock that was ahead has written does not hold anybody up for longer than it was meant to.
    pub(super) fn tidied(mut self, now: DateTime<Utc>) -> Self {
        let past = |at: &mut DateTime<Utc>| *at = (*at).min(now);
        self.changed_at.iter_mut().chain(&mut self.told_at).for_each(past);
        for host in self.hosts.values_mut() {
            for told in host.ipv4.iter_mut().chain(&mut host.ipv6) {
                past(&mut told.since);
                past(&mut told.told_at);
                told.seen_at.iter_mut().for_each(past);
            }
            if let Some(sending) = &mut host.sending {
                past(&mut sending.at);
            }
            if let Some(wait) = &mut host.wait
                && wait.from > now
            {
                wait.until = now + (wait.until - wait.from);
                wait.from = now;
            }
        }
        self
    }

    /// The provider is another, or has other settings: what the one before was told does not count. Stops stay until they are
    /// looked at by themselves.
    pub(super) fn begin_anew(&mut self) {
        for host in self.hosts.values_mut() {
            *host = OfHost { stopped: host.stopped.take(), ..OfHost::default() };
        }
    }

    /// Takes in what the sources agreed on; whether an address is another than before, and which that was.
    pub(super) fn found(&mut self, addresses: Addresses, now: DateTime<Utc>) -> Option<Addresses> {
        let before = self.own;
        addresses.each().for_each(|address| self.own.set(address));
        let changed = Family::ALL
            .into_iter()
            .any(|family| before.get(family).is_some_and(|was| self.own.get(family).is_some_and(|is| is != was)));
        if changed || self.changed_at.is_none() {
            self.changed_at = Some(now);
        }
        changed.then_some(before)
    }
}

impl OfHost {
    /// What the provider has.
    #[must_use]
    pub fn told(&self, family: Family) -> Option<&Told> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }

    pub(super) fn told_mut(&mut self, family: Family) -> &mut Option<Told> {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }

    /// Each address that the provider has.
    pub fn each(&self) -> impl Iterator<Item = &Told> {
        self.ipv4.iter().chain(&self.ipv6)
    }

    /// What is to be done, when it should have these.
    pub(super) fn todo(&self, wanted: Addresses, refresh: Duration, now: DateTime<Utc>) -> Todo {
        if let Some(Stopped { why, mend, .. }) = &self.stopped {
            return Todo::Stopped { why: why.clone(), mend: mend.clone() };
        }
        let is_old = |told: &Told| (now - told.told_at).to_std().is_ok_and(|age| age >= refresh);
        let due = |address: &IpAddr| {
            self.told(Family::of(*address)).is_none_or(|told| told.address != *address || is_old(told))
        };
        let due: Addresses = wanted.each().filter(due).collect();
        if due.is_empty() {
            return Todo::Nothing;
        }
        if let Some(wait) = self.waits(now) {
            return Todo::Wait { until: wait.until, why: wait.why.clone() };
        }
        let had: Addresses = due.each().filter_map(|address| Some(self.told(Family::of(address))?.address)).collect();
        let why = if had.is_empty() {
            Why::First
        } else if had == due {
            let oldest = due.each().filter_map(|address| Some(self.told(Family::of(address))?.told_at)).min();
            Why::Refresh { told_at: oldest.unwrap_or(now) }
        } else {
            Why::Changed { from: had }
        };
        Todo::Tell { due, why }
    }

    /// The wait that goes on; that of a request whose answer was never written down included.
    fn waits(&self, now: DateTime<Utc>) -> Option<Wait> {
        let cut_off = self.sending.as_ref().filter(|_| self.tries > 1).map(|sending| Wait {
            from: sending.at,
            until: sending.at + delta(backoff(self.tries)),
            why: "the last requests were cut off before their answers were written down".to_owned(),
        });
        self.wait.clone().or(cut_off).filter(|wait| now < wait.until)
    }

    /// A request goes out.
    pub(super) fn sends(&mut self, due: Addresses, now: DateTime<Utc>) {
        self.tries = self.tries.saturating_add(1);
        self.sending = Some(Sending { at: now, addresses: due });
    }

    /// Its answer is there. A stop is the caller's to write.
    pub(super) fn answered(&mut self, answer: &Answer, now: DateTime<Utc>) {
        if let (Some(sending), End::Unknown { .. }) = (self.sending.take(), &answer.end) {
            self.is_unsure_of(sending.addresses);
        }
        let proven = matches!(answer.end, End::Taken { proven: true, .. });
        answer.taken.each().for_each(|address| self.has(address, now, proven));
        self.wait = match &answer.end {
            End::Taken { .. } | End::Stop { .. } => {
                self.tries = 0;
                None
            }
            // Nothing was asked: the next look may.
            End::NotSent { .. } => {
                self.tries = self.tries.saturating_sub(1);
                None
            }
            End::Later { why, wait } => {
                self.tries = self.tries.saturating_sub(1);
                Some(Wait { from: now, until: now + delta(*wait), why: why.clone() })
            }
            End::Unknown { why } => Some(Wait { from: now, until: now + delta(backoff(self.tries)), why: why.clone() }),
        };
    }

    /// Whether the provider has these is not known, and so neither whether it has others.
    pub(super) fn is_unsure_of(&mut self, addresses: Addresses) {
        for address in addresses.each() {
            let place = self.told_mut(Family::of(address));
            *place = place.take().filter(|told| told.address == address);
        }
    }

    /// The provider has this address.
    pub(super) fn has(&mut self, address: IpAddr, now: DateTime<Utc>, proven: bool) {
        let place = self.told_mut(Family::of(address));
        let known = place.take().filter(|told| told.address == address);
        let since = known.as_ref().map_or(now, |told| told.since);
        // Seen once is seen, as long as it is the same.
        let seen_at = known.and_then(|told| told.seen_at).or(proven.then_some(now));
        *place = Some(Told { address, since, told_at: now, seen_at });
    }
}

fn backoff(tries: u32) -> Duration {
    PATIENCE[0].saturating_mul(1 << tries.saturating_sub(1).min(16)).min(PATIENCE[1])
}

fn delta(length: Duration) -> TimeDelta {
    TimeDelta::from_std(length).unwrap_or(TimeDelta::days(1))
}

impl Why {
    /// In words, after `was told 93.184.216.34`.
    pub(super) fn in_words(&self, now: DateTime<Utc>) -> String {
        match self {
            Self::First => " for the first time".to_owned(),
            Self::Changed { from } => format!(" (it had {from})"),
            Self::Refresh { told_at } => format!(" again, as it was last told {}", text::ago(*told_at, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_000_000, 0).unwrap() + TimeDelta::minutes(minutes)
    }

    fn addresses(text: &str) -> Addresses {
        text.split_whitespace().map(|address| address.parse::<IpAddr>().unwrap()).collect()
    }

    fn answer(taken: &str, end: End) -> Answer {
        Answer { taken: addresses(taken), end }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn nothing_is_told_twice_without_a_reason() {
        let mut host = OfHost::default();
        let wanted = addresses("93.184.216.34 2a01::1");
        assert_eq!(host.todo(wanted, DAY, at(0)), Todo::Tell { due: wanted, why: Why::First });
        host.sends(wanted, at(0));
        host.answered(&answer("93.184.216.34 2a01::1", End::Taken { had_it: false, proven: false }), at(0));
        assert_eq!(host.todo(wanted, DAY, at(5)), Todo::Nothing);
        let changed = addresses("93.184.216.35 2a01::1");
        assert_eq!(
            host.todo(changed, DAY, at(5)),
            Todo::Tell { due: addresses("93.184.216.35"), why: Why::Changed { from: addresses("93.184.216.34") } }
        );
        assert_eq!(
            host.todo(wanted, DAY, at(24 * 60)),
            Todo::Tell { due: wanted, why: Why::Refresh { told_at: at(0) } }
        );
    }

    #[test]
    fn unknown_answers_wait_twice_as_long_each_time_up_to_a_day() {
        let mut host = OfHost::default();
        let wanted = addresses("93.184.216.34");
        let mut now = 0;
        for minutes in [30, 60, 120, 240, 480, 960, 1440, 1440] {
            assert!(matches!(host.todo(wanted, DAY, at(now)), Todo::Tell { .. }));
            host.sends(wanted, at(now));
            host.answered(&answer("", End::Unknown { why: "?".into() }), at(now));
            assert!(matches!(host.todo(wanted, DAY, at(now + minutes - 1)), Todo::Wait { .. }), "{minutes}");
            now += minutes;
        }
        host.sends(wanted, at(now));
        host.answered(&answer("93.184.216.34", End::Taken { had_it: false, proven: true }), at(now));
        assert_eq!((host.tries, host.wait), (0, None));
    }

    #[test]
    fn what_was_never_sent_is_sent_at_the_next_look_and_a_busy_service_is_waited_for() {
        let mut host = OfHost::default();
        let wanted = addresses("93.184.216.34");
        host.sends(wanted, at(0));
        host.answered(&answer("", End::NotSent { why: "?".into() }), at(0));
        assert!(matches!(host.todo(wanted, DAY, at(1)), Todo::Tell { .. }));
        host.sends(wanted, at(1));
        host.answered(&answer("", End::Later { why: "911".into(), wait: PATIENCE[0] }), at(1));
        assert!(matches!(host.todo(wanted, DAY, at(30)), Todo::Wait { .. }));
        // Another address does not make it any less busy.
        assert!(matches!(host.todo(addresses("93.184.216.35"), DAY, at(30)), Todo::Wait { .. }));
        assert!(matches!(host.todo(wanted, DAY, at(31)), Todo::Tell { .. }));
    }

    #[test]
    fn an_address_that_comes_back_is_told_again_when_the_other_may_have_been_taken() {
        let mut host = OfHost::default();
        let (old, new) = (addresses("93.184.216.34"), addresses("93.184.216.35"));
        host.sends(old, at(0));
        host.answered(&answer("93.184.216.34", End::Taken { had_it: false, proven: true }), at(0));
        host.sends(new, at(5));
        host.answered(&answer("", End::Unknown { why: "?".into() }), at(5));
        assert!(matches!(host.todo(old, DAY, at(10)), Todo::Wait { .. }));
        assert!(matches!(host.todo(old, DAY, at(35)), Todo::Tell { .. }));
    }

    #[test]
    fn a_request_that_was_cut_off_is_repeated_once_and_then_waited_with() {
        let mut host = OfHost::default();
        let wanted = addresses("93.184.216.34");
        host.sends(wanted, at(0));
        assert!(matches!(host.todo(wanted, DAY, at(1)), Todo::Tell { .. }));
        host.sends(wanted, at(1));
        assert!(matches!(host.todo(wanted, DAY, at(2)), Todo::Wait { .. }));
        assert!(matches!(host.todo(wanted, DAY, at(61)), Todo::Tell { .. }));
    }

    #[test]
    fn a_clock_that_was_ahead_holds_nobody_up() {
        let mut host = OfHost::default();
        let wanted = addresses("93.184.216.34");
        let year = 366 * 24 * 60;
        host.sends(wanted, at(year));
        host.answered(&answer("93.184.216.34", End::Taken { had_it: false, proven: false }), at(year));
        host.wait = Some(Wait { from: at(year), until: at(year + 30), why: "911".into() });
        let hosts = [("a.b".to_owned(), host)].into();
        let memory = Memory { told_at: Some(at(year)), hosts, ..Memory::default() }.tidied(at(0));
        assert_eq!(memory.told_at, Some(at(0)));
        let host = &memory.hosts["a.b"];
        assert_eq!(host.ipv4.as_ref().unwrap().told_at, at(0));
        assert_eq!(host.wait.as_ref().unwrap().until, at(30));
        // It is told again a day later, not a year and a day.
        assert!(matches!(host.todo(wanted, DAY, at(24 * 60)), Todo::Tell { why: Why::Refresh { .. }, .. }));
    }

    #[test]
    fn what_is_remembered_reads_back_and_old_forms_too() {
        let mut memory = Memory { provider: "it".into(), ..Memory::default() };
        assert_eq!(memory.found(addresses("93.184.216.34"), at(0)), None);
        assert_eq!(memory.found(addresses("93.184.216.35"), at(1)), Some(addresses("93.184.216.34")));
        assert_eq!(memory.changed_at, Some(at(1)));
        memory.hosts.entry("a.b".into()).or_default().sends(addresses("93.184.216.35"), at(1));
        let value = serde_json::to_value(&memory).unwrap();
        assert_eq!(value["ipv4"], "93.184.216.35");
        assert_eq!(value["hosts"]["a.b"]["sending"]["ipv4"], "93.184.216.35");
        assert_eq!(serde_json::from_value::<Memory>(value).unwrap(), memory);
        assert_eq!(serde_json::from_str::<Memory>("{}").unwrap(), Memory::default());
    }
}
