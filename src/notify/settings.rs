//! `[notifier.NAME]` in `rusuban.toml`: the keys that all notifiers share.
use std::{fmt, marker::PhantomData, str::FromStr, sync::Arc};

use chrono::{NaiveTime, Timelike as _};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Visitor};

use super::{
    Notifier,
    words::{Language, Template},
};
use crate::model::news::Severity;

/// The keys that all notifiers share.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Common {
    /// Which service it is.
    pub kind: Option<String>,
    /// In which language it is told: `en` or `ja` [default: en].
    pub language: Language,
    /// What matters less is not told here [default: info].
    pub min_severity: Option<Severity>,
    /// From when to when only what is critical is told, such as `22:00-07:00`; the rest is told afterwards.
    pub quiet: Option<Quiet>,
    /// Words of one's own, such as `{title}: {what}`.
    pub template: Option<Template>,
}

/// Their names.
pub const KEYS: [&str; 5] = ["kind", "language", "min_severity", "quiet", "template"];

/// One notifier of the settings.
#[derive(Clone, Debug)]
pub struct NotifierSettings {
    /// Which service it is, by its name in the table of notifiers.
    pub kind: &'static str,
    /// The shared keys.
    pub common: Common,
    /// The service with its own keys.
    pub notifier: Arc<dyn Notifier>,
}

/// Hours of every day in which it is quiet, by the house's clock. They may go over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// From this time.
    pub from: NaiveTime,
    /// Until this one.
    pub until: NaiveTime,
}

impl Quiet {
    /// Whether it is quiet at this time of day.
    #[must_use]
    pub fn covers(&self, time: NaiveTime) -> bool {
        if self.from <= self.until {
            self.from <= time && time < self.until
        } else {
            self.from <= time || time < self.until
        }
    }
}

impl FromStr for Quiet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` are no hours: write them as in `22:00-07:00`");
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").map_err(|_| wrong());
        let (from, until) = text.split_once(['-', '–']).ok_or_else(wrong)?;
        let (from, until) = (time(from)?, time(until)?);
        if from == until {
            return Err(format!("`{text}` would be the whole day or nothing of it: give two different times"));
        }
        Ok(Self { from, until })
    }
}

impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: NaiveTime| format!("{:02}:{:02}", time.hour(), time.minute());
        write!(f, "{}-{}", time(self.from), time(self.until))
    }
}

impl<'de> Deserialize<'de> for Quiet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "hours in quotes, such as `\"22:00-07:00\"`")
    }
}

/// Reads what is written as a text, by a visitor that says what is expected.
pub(super) fn from_text<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<T, D::Error> {
    struct Text<T>(&'static str, PhantomData<T>);

    impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(expected, PhantomData))
}

impl JsonSchema for Quiet {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quiet".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": r"^\s*\d{1,2}:\d{2}\s*-\s*\d{1,2}:\d{2}\s*$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_go_over_midnight() {
        let at = |hour, minute| NaiveTime::from_hms_opt(hour, minute, 0).unwrap();
        let night: Quiet = "22:00-07:00".parse().unwrap();
        for (time, quiet) in
            [(at(21, 59), false), (at(22, 0), true), (at(0, 0), true), (at(6, 59), true), (at(7, 0), false)]
        {
            assert_eq!(night.covers(time), quiet, "{time}");
        }
        let noon: Quiet = "12:00 - 13:30".parse().unwrap();
        assert!(noon.covers(at(13, 29)) && !noon.covers(at(13, 30)) && !noon.covers(at(0, 0)));
        assert_eq!(noon.to_string(), "12:00-13:30");
        for wrong in ["", "22:00", "22-7", "25:00-07:00", "07:00-07:00", "a-b"] {
            wrong.parse::<Quiet>().unwrap_err();
        }
    }

    #[test]
    fn the_shared_keys_are_those_of_the_struct_that_reads_them() {
        let schema = Common::json_schema(&mut schemars::SchemaGenerator::default()).to_value();
        let known: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(known, KEYS);
    }
}
