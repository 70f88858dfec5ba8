//! Cutting streams where their content says so: what is inserted or removed changes the chunks around it, and no others.
//!
//! A cut is where a fingerprint of the 64 bytes before it ends in zeros. As it depends on those bytes alone, four places are
//! looked at side by side, which keeps the processor busy.
mod gear;
mod polynomial;
mod rabin;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{gear::Gear, rabin::Rabin};
pub use polynomial::Polynomial;

/// Bytes that a fingerprint sees.
const WINDOW: usize = 64;
/// Bytes that each of the four lanes looks at before they are compared.
const STRIDE: usize = 4096;

/// By which rule streams are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Rabin fingerprints: what restic and rustic do. For repositories that they write to as well.
    Rabin,
    /// Gear hashes, chunks nearer to the average: faster.
    FastCdc,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rabin => "rabin",
            Self::FastCdc => "fastcdc",
        })
    }
}

/// Where streams are cut. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cutter {
    min: usize,
    average: usize,
    max: usize,
    roll: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Rabin {
        roll: Arc<Rabin>,
        mask: u64,
    },
    /// Before the average fewer places fit, behind it more: chunks come nearer to it.
    Gear {
        roll: Arc<Gear>,
        hard: u64,
        easy: u64,
    },
}

/// A fingerprint that moves along a stream, and depends on its last [`WINDOW`] bytes only.
trait Roll {
    /// The next one: a byte comes in, and the one that came in [`WINDOW`] bytes before goes out.
    fn step(&self, fingerprint: u64, goes: u8, comes: u8) -> u64;
}

impl Cutter {
    /// restic's rule: with an average of 1 MiB chunks have 512 KiB to 8 MiB.
    #[must_use]
    pub fn rabin(polynomial: Polynomial, average: usize) -> Self {
        let average = usable(average);
        let roll = Kind::Rabin { roll: Arc::new(Rabin::new(polynomial)), mask: average as u64 - 1 };
        Self { min: average / 2, average, max: average * 8, roll }
    }

    /// `FastCDC` with a table made of a secret: whoever knows chunks' sizes only cannot tell by them which files are there.
    #[must_use]
    pub fn fastcdc(secret: &[u8; 32], average: usize) -> Self {
        let average = usable(average);
        let bits = average.trailing_zeros();
        let mask = |bits: u32| u64::MAX << (64 - bits);
        let roll = Kind::Gear { roll: Arc::new(Gear::new(secret)), hard: mask(bits + 2), easy: mask(bits - 2) };
        Self { min: average / 4, average, max: average * 4, roll }
    }

    /// No chunk but the last of a stream is smaller.
    #[must_use]
    pub fn min(&self) -> usize {
        self.min
    }

    /// No chunk is larger.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// The length of the first chunk of `data`, which holds [`Cutter::max`] bytes or all that is left of the stream.
    #[must_use]
    pub fn cut(&self, data: &[u8]) -> usize {
        if data.len() <= self.min {
            return data.len();
        }
        let data = &data[..data.len().min(self.max)];
        let found = match &self.roll {
            Kind::Rabin { roll, mask } => first(&**roll, data, self.min, data.len(), *mask),
            Kind::Gear { roll, hard, easy } => {
                let middle = self.average.min(data.len());
                first(&**roll, data, self.min, middle, *hard)
                    .or_else(|| first(&**roll, data, middle + 1, data.len(), *easy))
            }
        };
        found.unwrap_or(data.len())
    }
}

fn usable(average: usize) -> usize {
    average.clamp(4 << 10, 64 << 20).next_power_of_two()
}

/// The first length from `from` to `to`, both included, at which the fingerprint of the last bytes has no bit of `mask`.
fn first<R: Roll>(roll: &R, data: &[u8], from: usize, to: usize, mask: u64) -> Option<usize> {
    let mut at = from;
    while at + 4 * STRIDE <= to + 1 {
        // What each lane looks at: bytes that come, and before them those that go.
        let lane = |number: usize| {
            let begin = at + number * STRIDE - 1;
            (&data[begin - WINDOW..begin - WINDOW + STRIDE], &data[begin..begin + STRIDE], prime(roll, data, begin))
        };
        let [(go0, in0, mut f0), (go1, in1, mut f1), (go2, in2, mut f2), (go3, in3, mut f3)] =
            [lane(0), lane(1), lane(2), lane(3)];
        let mut hits = [usize::MAX; 4];
        for i in 0..STRIDE {
            f0 = roll.step(f0, go0[i], in0[i]);
            f1 = roll.step(f1, go1[i], in1[i]);
            f2 = roll.step(f2, go2[i], in2[i]);
            f3 = roll.step(f3, go3[i], in3[i]);
            let none = f0 & mask != 0 && f1 & mask != 0 && f2 & mask != 0 && f3 & mask != 0;
            if !none {
                if f0 & mask == 0 {
                    return Some(at + i);
                }
                for (number, fingerprint) in [(1, f1), (2, f2), (3, f3)] {
                    if fingerprint & mask == 0 && hits[number] == usize::MAX {
                        hits[number] = at + number * STRIDE + i;
                    }
                }
            }
        }
        if let Some(hit) = hits.into_iter().find(|hit| *hit != usize::MAX) {
            return Some(hit);
        }
        at += 4 * STRIDE;
    }
    if at > to {
        return None;
    }
    let mut fingerprint = prime(roll, data, at - 1);
    (at..=to).find(|&length| {
        fingerprint = roll.step(fingerprint, data[length - 1 - WINDOW], data[length - 1]);
        fingerprint & mask == 0
    })
}

/// The fingerprint of the bytes before `end`.
fn prime<R: Roll>(roll: &R, data: &[u8], end: usize) -> u64 {
    data[end - WINDOW..end].iter().fold(0, |fingerprint, byte| roll.step(fingerprint, 0, *byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
    }

    fn lengths(cutter: &Cutter, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let length = cutter.cut(data);
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    /// The same rule, one byte after the other.
    fn slow<R: Roll>(roll: &R, data: &[u8], from: usize, to: usize, mask: u64) -> Option<usize> {
        (from..=to).find(|&length| prime(roll, data, length) & mask == 0)
    }

    fn cutters(average: usize) -> [Cutter; 2] {
        let polynomial = "25b468838dcb75".parse().unwrap();
        [Cutter::rabin(polynomial, average), Cutter::fastcdc(&[7; 32], average)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn four_lanes_find_what_one_finds(seed: u64, bytes in 200_usize..60_000, from in 65_usize..150, bits in 6_u32..14) {
            let data = noise(bytes, seed);
            let rabin = Rabin::new("25b468838dcb75".parse().unwrap());
            let gear = Gear::new(&[1; 32]);
            let low = (1 << bits) - 1;
            prop_assert_eq!(first(&rabin, &data, from, bytes, low), slow(&rabin, &data, from, bytes, low));
            let high = u64::MAX << (64 - bits);
            prop_assert_eq!(first(&gear, &data, from, bytes, high), slow(&gear, &data, from, bytes, high));
        }

        #[test]
        fn chunks_keep_their_bounds_and_an_insertion_changes_few(seed: u64, at in 0_usize..400_000, more in 1_usize..100) {
            for cutter in cutters(8 << 10) {
                let data = noise(500_000, seed);
                let cut = lengths(&cutter, &data);
                prop_assert_eq!(cut.iter().sum::<usize>(), data.len());
                let (_, all_but_last) = cut.split_last().unwrap();
                prop_assert!(all_but_last.iter().all(|length| (cutter.min()..=cutter.max()).contains(length)));
                let mut changed = data.clone();
                changed.splice(at..at, noise(more, seed ^ 1));
                let pieces = |data: &[u8], lengths: &[usize]| {
                    let mut rest = data;
                    let mut pieces = std::collections::HashSet::new();
                    for length in lengths {
                        pieces.insert(rest[..*length].to_vec());
                        rest = &rest[*length..];
                    }
                    pieces
                };
                let (before, after) = (pieces(&data, &cut), pieces(&changed, &lengths(&cutter, &changed)));
                let new: usize = after.difference(&before).map(Vec::len).sum();
                prop_assert!(new < 200_000, "{new} bytes are new");
            }
        }
    }

    #[test]
    fn averages_are_near_what_was_asked_for() {
        let data = noise(16 << 20, 3);
        for cutter in cutters(64 << 10) {
            let average = data.len() / lengths(&cutter, &data).len();
            assert!((40 << 10..160 << 10).contains(&average), "{average}");
        }
        let [_, one] = cutters(64 << 10);
        assert_ne!(lengths(&one, &data), lengths(&Cutter::fastcdc(&[8; 32], 64 << 10), &data));
    }

    /// If one of these numbers changes, every repository's next backup stores everything again.
    #[test]
    fn cuts_are_the_same_for_ever() {
        let data = noise(100_000, 9);
        let [rabin, fastcdc] = cutters(8 << 10);
        assert_eq!(lengths(&rabin, &data), [27361, 8105, 18733, 9169, 10513, 12954, 13165]);
        assert_eq!(lengths(&fastcdc, &data), [9512, 12305, 9230, 8554, 8411, 8745, 9897, 9718, 10512, 8981, 4135]);
    }
}
