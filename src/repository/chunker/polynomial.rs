//! Irreducible polynomials of degree 53 over GF(2): each repository has its own.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A polynomial: bit 3 is x³. In a repository's configuration it is written in hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Polynomial(u64);

impl Polynomial {
    /// The degree of all of them; a prime number.
    pub const DEGREE: u32 = 53;

    /// One that cannot be foreseen.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn random() -> anyhow::Result<Self> {
        loop {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes)?;
            let low = u64::from_le_bytes(bytes) & ((1 << Self::DEGREE) - 1);
            let candidate = Self(low | 1 << Self::DEGREE | 1);
            // About one in twenty-six.
            if candidate.is_irreducible() {
                return Ok(candidate);
            }
        }
    }

    /// Whether it is no product of others: x to the power of 2^53 is x again, and that of 2^1 has nothing in common with it.
    #[must_use]
    pub fn is_irreducible(self) -> bool {
        let square = |value: u64| self.multiply(value, value);
        let x = 2;
        let last = (0..Self::DEGREE).fold(x, |value, _| square(value));
        last == x && gcd(square(x) ^ x, self.0) == 1
    }

    /// What is left of `value`.
    pub(super) fn modulo(self, mut value: u64) -> u64 {
        while value >> Self::DEGREE != 0 {
            let degree = 63 - value.leading_zeros();
            value ^= self.0 << (degree - Self::DEGREE);
        }
        value
    }

    fn multiply(self, one: u64, other: u64) -> u64 {
        (0..Self::DEGREE).rev().fold(0, |product, bit| {
            let doubled = self.modulo(product << 1);
            if other >> bit & 1 == 1 { doubled ^ one } else { doubled }
        })
    }
}

fn gcd(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        while one != 0 && one.leading_zeros() <= other.leading_zeros() {
            one ^= other << (other.leading_zeros() - one.leading_zeros());
        }
        (one, other) = (other, one);
    }
    one
}

impl fmt::Display for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is part of what keeps sizes from telling contents.
        f.write_str("Polynomial(…)")
    }
}

impl FromStr for Polynomial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = u64::from_str_radix(text, 16).map_err(|error| format!("the polynomial `{text}`: {error}"))?;
        let found = Self(value);
        if value >> Self::DEGREE != 1 || !found.is_irreducible() {
            return Err(format!("`{text}` is no irreducible polynomial of degree {}", Self::DEGREE));
        }
        Ok(found)
    }
}

impl Serialize for Polynomial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Polynomial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_irreducible_polynomials_are_taken() {
        // The format's documentation has the first; the others are products, or of another degree.
        "25b468838dcb75".parse::<Polynomial>().unwrap();
        for wrong in ["25b468838dcb74", "3", "", "25b468838dcb77", "ffffffffffffffff"] {
            wrong.parse::<Polynomial>().unwrap_err();
        }
        let random = Polynomial::random().unwrap();
        assert_eq!(random.to_string().parse(), Ok(random));
    }
}
