//! Quantities as people write them: `"36h"`, `"2 GiB"`, `"80%"`. A quantity carries its unit in its type, and is
//! written back (`Display`, `Serialize`) in a form that reads as the same value.
use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// A length of time, such as `"90s"`, `"36h"`, `"1h 30m"`, `"2 weeks"`. A day is 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A number of bytes, such as `"500 MB"` (decimal) or `"2 GiB"` (binary).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A share of a whole, such as `"80%"`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

const SPANS: [(&str, &[&str], u64); 6] = [
    ("w", &["week", "weeks"], 604_800_000),
    ("d", &["day", "days"], 86_400_000),
    ("h", &["hour", "hours", "hr"], 3_600_000),
    ("m", &["min", "mins", "minute", "minutes"], 60_000),
    ("s", &["sec", "secs", "second", "seconds"], 1_000),
    ("ms", &["millisecond", "milliseconds"], 1),
];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Span {
    /// This many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// This many hours.
    #[must_use]
    pub const fn hours(hours: u64) -> Self {
        Self::seconds(hours * 3600)
    }
}

/// Splits `1h 30m` into (`1`, `h`), (`30`, `m`); a number without a unit has an empty one.
fn quantities(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text.trim();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let tail = tail.trim_start();
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        rest = tail.trim_start();
        Some((number, unit))
    })
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not a length of time: write a number and a unit, such as `90s`, `15m`, `36h`, `7d`")
        };
        let mut total = 0u64;
        let mut any = false;
        for (number, unit) in quantities(text) {
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let (.., scale) =
                SPANS.iter().find(|(short, long, _)| *short == unit || long.contains(&unit)).ok_or_else(wrong)?;
            total = number.checked_mul(*scale).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
            any = true;
        }
        if any { Ok(Self(Duration::from_millis(total))) } else { Err(wrong()) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.pad("0s");
        }
        let mut parts = Vec::new();
        for (unit, _, scale) in SPANS {
            if rest >= scale {
                parts.push(format!("{}{unit}", rest / scale));
                rest %= scale;
            }
        }
        f.pad(&parts.join(" "))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a size: write a number and a unit, such as `500 MB` or `2 GiB`");
        let mut parts = quantities(text);
        let (Some((number, unit)), None) = (parts.next(), parts.next()) else { return Err(wrong()) };
        let (_, scale) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*scale).map(Self).ok_or_else(wrong);
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`1.5 GiB` is rounded to a byte; the number is not negative, and a cast saturates"
        )]
        Ok(Self((number * *scale as f64).round() as u64))
    }
}

impl fmt::Display for Size {
    /// The largest unit that divides it exactly, so that it reads back as the same number. For eyes there is `text::size`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) =
            SIZES.into_iter().find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale)).unwrap_or(("B", 1));
        f.pad(&format!("{} {unit}", self.0 / scale))
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.trim()
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok())
            .filter(|share| (0.0..=100.0).contains(share))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a share: write a number from 0 to 100 and `%`, such as `80%`"))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.0))
    }
}

/// Serde and schema through the text forms above.
macro_rules! as_text {
    ($($unit:ident, $name:literal, $what:literal, $pattern:literal, $example:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $unit;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!($what, " in quotes, such as `\"", $example, "\"`"))
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$unit, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }

        impl Serialize for $unit {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $unit {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    )*};
}

as_text! {
    Span, "Span", "a length of time", r"^\s*(\d+\s*[a-z]+\s*)+$", "36h";
    Size, "Size", "a size", r"^\s*\d+(\.\d+)?\s*[kKMGT]?i?[bB]\s*$", "2 GiB";
    Percent, "Percent", "a share", r"^\s*\d+(\.\d+)?\s*%\s*$", "80%";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them_and_read_back_as_printed() {
        for (text, seconds) in
            [("90s", 90), ("36h", 129_600), ("1h 30m", 5_400), ("2 weeks", 1_209_600), ("1h30m", 5_400)]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span::seconds(seconds), "{text}");
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
        for wrong in ["", "5", "h", "5 parsecs", "-3h", "1.5h"] {
            wrong.parse::<Span>().unwrap_err();
        }
    }

    #[test]
    fn sizes_and_shares_read_back_as_printed() {
        for (text, bytes) in
            [("2 GiB", 2 << 30), ("500 MB", 500_000_000), ("1.5KiB", 1536), ("0 B", 0), ("10kb", 10_000)]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!(size, Size(bytes), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
        }
        assert_eq!("80%".parse(), Ok(Percent(80.0)));
        assert_eq!(Percent(80.0).to_string(), "80%");
        for wrong in ["", "2", "2 GiBs", "-1 B"] {
            wrong.parse::<Size>().unwrap_err();
        }
        for wrong in ["80", "101%", "x%"] {
            wrong.parse::<Percent>().unwrap_err();
        }
    }
}
