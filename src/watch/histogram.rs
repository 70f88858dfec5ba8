//! How long answers took, in buckets that grow by a tenth: percentiles of any span are those of its parts, put together.
use std::{collections::BTreeMap, time::Duration};

/// The most that a percentile is off.
const ERROR: f64 = 0.05;
/// What a bucket's upper end is to its lower one, so that no time in it is further from its middle than that.
const GROWTH: f64 = (1.0 + ERROR) / (1.0 - ERROR);

/// How many answers took how long, each within 5 %.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram(BTreeMap<u16, u64>);

impl Histogram {
    /// Counts one answer.
    pub fn add(&mut self, took: Duration) {
        *self.0.entry(bucket(took)).or_default() += 1;
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The time within which this share of the answers came, such as `0.95`; none without answers.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among counted answers, far below 2^52"
        )]
        let rank = ((share.clamp(0.0, 1.0) * self.count() as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.0.iter().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| middle(*bucket))
        })
    }

    /// Writes it in few bytes: each bucket's distance from the one before, and its count.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        let mut last = 0;
        for (bucket, count) in &self.0 {
            write_number(bytes, u64::from(bucket - last));
            write_number(bytes, *count);
            last = *bucket;
        }
    }

    /// Reads all that is left.
    pub(super) fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (mut all, mut last) = (BTreeMap::new(), 0u16);
        while !bytes.is_empty() {
            last = last.checked_add(read_number(bytes)?.try_into().ok()?)?;
            all.insert(last, read_number(bytes)?);
        }
        Some(Self(all))
    }
}

/// The bucket of a time: it holds times above the bucket's lower end, up to its upper one.
fn bucket(took: Duration) -> u16 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a logarithm of at most 2^128 microseconds is below 1000"
    )]
    let bucket = ((took.as_micros().max(1) as f64).ln() / GROWTH.ln()).ceil() as u16;
    bucket
}

/// The time from which both ends of a bucket are equally far, in shares of themselves.
fn middle(bucket: u16) -> Duration {
    Duration::from_secs_f64((2.0 * GROWTH.powi(i32::from(bucket)) / (GROWTH + 1.0) / 1e6).min(1e9))
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
pub(super) fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

pub(super) fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The time within which this share came, from the times themselves.
    fn exact(times: &mut [u64], share: f64) -> u64 {
        times.sort_unstable();
        let rank = ((share * times.len() as f64).ceil() as usize).max(1);
        times[rank - 1]
    }

    proptest! {
        #[test]
        fn percentiles_are_within_five_percent_however_the_parts_were_put_together(
            mut times in prop::collection::vec(prop_oneof![1u64..2_000, 1_000u64..400_000, 1u64..60_000_000], 1..400),
            parts in 1usize..9,
            share in 0.0f64..1.0,
        ) {
            let mut all = Histogram::default();
            for part in times.chunks(times.len().div_ceil(parts)) {
                let mut one = Histogram::default();
                part.iter().for_each(|micros| one.add(Duration::from_micros(*micros)));
                let mut bytes = Vec::new();
                one.write(&mut bytes);
                let read = Histogram::read(&mut bytes.as_slice()).unwrap();
                prop_assert_eq!(&read, &one);
                all.merge(&read);
            }
            prop_assert_eq!(all.count(), times.len() as u64);
            for share in [0.5, 0.9, 0.95, 0.99, share] {
                let exact = exact(&mut times, share) as f64;
                let told = all.quantile(share).unwrap().as_secs_f64() * 1e6;
                prop_assert!((told - exact).abs() <= exact * (ERROR + 1e-3), "{share}: {told} for {exact}");
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(read) = Histogram::read(&mut bytes.as_slice()) {
                prop_assert!(read.0.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn without_answers_there_is_no_percentile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
