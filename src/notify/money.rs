//! Dollars, exactly: prices of a post are fractions of a cent.
use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// An amount, in millionths of a dollar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dollars(pub(super) u64);

impl FromStr for Dollars {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no amount: write dollars as in `$5` or `$0.015`");
        let number = text.trim().strip_prefix('$').unwrap_or(text.trim());
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || part.len() > 6 || (!part.is_empty() && !digits(part)) || number.ends_with('.') {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let part: u64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
        whole.checked_mul(1_000_000).and_then(|whole| whole.checked_add(part)).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = format!("{:06}", self.0 % 1_000_000);
        // Cents at least.
        let end = part.trim_end_matches('0').len().max(2);
        write!(f, "${}.{}", self.0 / 1_000_000, &part[..end])
    }
}

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::settings::from_text(deserializer, "dollars in quotes, such as `\"$0.015\"`")
    }
}

impl JsonSchema for Dollars {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dollars".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": r"^\s*\$?\d+(\.\d{1,6})?\s*$", "examples": ["$0.015"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_read_back_as_printed() {
        for (text, millionths, shown) in [
            ("$0.015", 15_000, "$0.015"),
            ("5", 5_000_000, "$5.00"),
            ("$0.2", 200_000, "$0.20"),
            ("1.000001", 1_000_001, "$1.000001"),
        ] {
            assert_eq!(text.parse(), Ok(Dollars(millionths)));
            assert_eq!(Dollars(millionths).to_string(), shown);
            assert_eq!(shown.parse(), Ok(Dollars(millionths)));
        }
        for wrong in ["", "$", "-1", "1.", ".5", "1.0000001", "five", "1e3", "99999999999999999999"] {
            wrong.parse::<Dollars>().unwrap_err();
        }
    }
}
