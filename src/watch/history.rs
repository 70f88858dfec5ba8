//! A check's history in few bytes: each look for some days, what an hour and a day come to for longer.
use std::{ops::Range, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::histogram::{Histogram, read_number, write_number};
use crate::model::watch::{State, Trouble};

/// The states in the order in which they are kept; never changed.
const STATES: [State; 5] = [State::Up, State::CertificateBad, State::Down, State::Unknown, State::Maintenance];

/// One look, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Look {
    /// When.
    pub at: DateTime<Utc>,
    /// What was found, thresholds aside.
    pub state: State,
    /// How long the answer took, to the microsecond.
    pub took: Option<Duration>,
    /// What kind of trouble it was, as a number: see [`code`].
    pub trouble: u16,
}

/// The number of a state.
pub(crate) fn number(state: State) -> u8 {
    STATES.iter().position(|one| *one == state).unwrap_or(3) as u8
}

/// The state of a number.
pub(crate) fn state(number: u8) -> State {
    STATES.get(usize::from(number)).copied().unwrap_or(State::Unknown)
}

/// The number of a trouble, 0 for none; that of a status is 1000 more than the status.
#[must_use]
pub fn code(trouble: Option<&Trouble>) -> u16 {
    match trouble {
        None => 0,
        Some(Trouble::Name) => 1,
        Some(Trouble::Refused) => 2,
        Some(Trouble::Unreachable) => 3,
        Some(Trouble::TimedOut) => 4,
        Some(Trouble::Broken) => 5,
        Some(Trouble::Tls) => 6,
        Some(Trouble::Certificate) => 7,
        Some(Trouble::Content) => 8,
        Some(Trouble::Slow) => 9,
        Some(Trouble::Container) => 10,
        Some(Trouble::Silent) => 11,
        Some(Trouble::Domain) => 12,
        Some(Trouble::NotAllowed) => 13,
        Some(Trouble::Status(status)) => 1000u16.saturating_add(*status),
    }
}

/// Looks of one hour, packed: about six bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looks(pub Vec<Look>);

impl Looks {
    /// Times are kept to a tenth of a second. `hour` is its beginning.
    #[must_use]
    pub fn pack(&self, hour: DateTime<Utc>) -> Vec<u8> {
        let (mut bytes, mut last) = (Vec::with_capacity(self.0.len() * 6), 0);
        let mut looks: Vec<&Look> = self.0.iter().collect();
        looks.sort_by_key(|look| look.at);
        for look in looks {
            let tenths = (look.at - hour).num_milliseconds().max(0).unsigned_abs() / 100;
            write_number(&mut bytes, tenths - last);
            last = tenths;
            bytes.push(number(look.state) | u8::from(look.took.is_some()) << 3 | u8::from(look.trouble != 0) << 4);
            if let Some(took) = look.took {
                write_number(&mut bytes, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
            if look.trouble != 0 {
                write_number(&mut bytes, u64::from(look.trouble));
            }
        }
        bytes
    }

    /// What was packed, as far as it can be read.
    #[must_use]
    pub fn unpack(hour: DateTime<Utc>, mut bytes: &[u8]) -> Self {
        let (mut looks, mut tenths) = (Vec::new(), 0u64);
        while let Some(look) = (|| {
            tenths = tenths.checked_add(read_number(&mut bytes)?)?;
            let (kind, rest) = bytes.split_first()?;
            bytes = rest;
            let took = if kind & 8 != 0 { Some(Duration::from_micros(read_number(&mut bytes)?)) } else { None };
            let trouble = if kind & 16 != 0 { read_number(&mut bytes)?.try_into().ok()? } else { 0 };
            let at = hour.checked_add_signed(TimeDelta::milliseconds(i64::try_from(tenths.checked_mul(100)?).ok()?))?;
            Some(Look { at, state: state(kind & 7), took, trouble })
        })() {
            looks.push(look);
        }
        Self(looks)
    }
}

/// What a span comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Looks by what they found, in the order of [`STATES`].
    looks: [u64; 5],
    /// Milliseconds in each state, in that order.
    time: [u64; 5],
    /// How long answers took that were well.
    pub answers: Histogram,
}

impl Summary {
    /// Counts a look. Only what was well tells how fast the site is: failures and timeouts are counted apart.
    pub fn add(&mut self, look: &Look) {
        self.looks[usize::from(number(look.state))] += 1;
        if let (Some(took), State::Up | State::CertificateBad) = (look.took, look.state) {
            self.answers.add(took);
        }
    }

    /// Adds the time that the span `within` has of these, each of which goes on until the next.
    pub fn add_time(&mut self, marks: &[(DateTime<Utc>, State)], within: &Range<DateTime<Utc>>) {
        let ends = marks.iter().skip(1).map(|(at, _)| *at).chain([within.end]);
        for ((at, state), end) in marks.iter().zip(ends) {
            let time = (end.min(within.end) - (*at).max(within.start)).num_milliseconds();
            self.time[usize::from(number(*state))] += u64::try_from(time).unwrap_or(0);
        }
    }

    /// Adds another span.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.looks.iter_mut().zip(other.looks).chain(self.time.iter_mut().zip(other.time)) {
            *mine += theirs;
        }
        self.answers.merge(&other.answers);
    }

    /// Leaves the time out.
    pub(crate) fn forget_time(&mut self) {
        self.time = [0; 5];
    }

    /// Leaves all but the time out.
    pub(crate) fn only_time(&mut self) {
        *self = Self { time: self.time, ..Self::default() };
    }

    /// How many looks found this.
    #[must_use]
    pub fn looks(&self, state: State) -> u64 {
        self.looks[usize::from(number(state))]
    }

    /// How long it was so.
    #[must_use]
    pub fn time(&self, state: State) -> Duration {
        Duration::from_millis(self.time[usize::from(number(state))])
    }

    /// The share of the time in which it answered as it should, of all time that it is known of and was not worked on. A site
    /// whose certificate is bad answers.
    #[must_use]
    pub fn availability(&self) -> Option<f64> {
        let up = self.time(State::Up) + self.time(State::CertificateBad);
        let all = up + self.time(State::Down);
        (!all.is_zero()).then(|| up.as_secs_f64() / all.as_secs_f64())
    }

    /// The share of the looks that found it well, of those that could tell.
    #[must_use]
    pub fn success(&self) -> Option<f64> {
        let well = self.looks(State::Up) + self.looks(State::CertificateBad);
        let all = well + self.looks(State::Down);
        #[expect(clippy::cast_precision_loss, reason = "looks are far below 2^52")]
        (all > 0).then(|| well as f64 / all as f64)
    }

    /// In few bytes: which numbers are there, those, and the buckets.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let numbers = self.looks.iter().chain(&self.time);
        let there = numbers.clone().enumerate().fold(0, |there, (bit, number)| there | u64::from(*number != 0) << bit);
        write_number(&mut bytes, there);
        numbers.filter(|number| **number != 0).for_each(|number| write_number(&mut bytes, *number));
        self.answers.write(&mut bytes);
        bytes
    }

    /// What was packed; none of what was not.
    #[must_use]
    pub fn unpack(mut bytes: &[u8]) -> Option<Self> {
        let mut all = Self::default();
        let there = read_number(&mut bytes)?;
        for (bit, number) in all.looks.iter_mut().chain(&mut all.time).enumerate() {
            if there >> bit & 1 == 1 {
                *number = read_number(&mut bytes)?;
            }
        }
        all.answers = Histogram::read(&mut bytes)?;
        Some(all)
    }
}

/// A share for people: as many nines as there are, never rounded up to what it is not.
#[must_use]
pub fn percent(share: f64) -> String {
    if share >= 1.0 {
        return "100 %".to_owned();
    }
    let digits = if share > 0.999 { 3 } else { 2 };
    let scale = 10f64.powi(digits);
    format!("{:.*} %", usize::try_from(digits).unwrap_or(2), (share * 100.0 * scale).floor() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn looks_and_summaries_come_back_as_they_were_packed() {
        let hour = at(0);
        let look = |seconds, state, took: Option<u64>, trouble: Option<Trouble>| Look {
            at: at(seconds),
            state,
            took: took.map(Duration::from_micros),
            trouble: code(trouble.as_ref()),
        };
        let looks = Looks(vec![
            look(1, State::Up, Some(84_123), None),
            look(61, State::Down, None, Some(Trouble::TimedOut)),
            look(121, State::Down, Some(12), Some(Trouble::Status(503))),
            look(3599, State::Maintenance, None, None),
        ]);
        let packed = looks.pack(hour);
        assert_eq!(Looks::unpack(hour, &packed), looks);
        assert!(packed.len() <= 4 * 7, "{} bytes", packed.len());
        let mut summary = Summary::default();
        looks.0.iter().for_each(|look| summary.add(look));
        summary.add_time(&[(at(-50), State::Up), (at(61), State::Down)], &(at(0)..at(100)));
        assert_eq!(summary.time(State::Up), Duration::from_secs(61));
        assert_eq!(summary.time(State::Down), Duration::from_secs(39));
        assert_eq!(summary.success(), Some(1.0 / 3.0), "maintenance does not count");
        assert_eq!(summary.answers.count(), 1, "a failure's time is not how fast the site is");
        assert_eq!(Summary::unpack(&summary.pack()), Some(summary));
        assert_eq!(Summary::unpack(&[]), None);
    }

    #[test]
    fn shares_are_never_rounded_up_to_what_they_are_not() {
        for (share, told) in [(1.0, "100 %"), (0.999_999_9, "99.999 %"), (0.9987, "99.87 %"), (0.5, "50.00 %")] {
            assert_eq!(percent(share), told);
        }
    }
}
