//! `consistency = "…"` or `{ before = …, after = … }`.
use std::fmt;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::policy::CommandLine;

const WORDS: [&str; 3] = ["none", "pause", "stop"];

/// What becomes of the containers that write to a volume while it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// They go on: files may be of different moments.
    None,
    /// They are frozen: all files are of one moment, as after a power cut.
    #[default]
    Pause,
    /// They are stopped, and started again: all files are as the programs leave them.
    Stop,
    /// One of them is told.
    Told(Told),
}

/// Commands in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Told {
    /// In which one [default: the source's, or the only one that writes to the volume].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Run before the files are read; when it fails, they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<CommandLine>,
    /// Run after that, whatever came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<CommandLine>,
}

impl Consistency {
    /// Whether nobody writes while it is read.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Self::Pause | Self::Stop)
    }

    /// Whether it is worth a look before.
    pub(super) fn has_a_moment(&self) -> bool {
        *self != Self::None
    }

    fn word(&self) -> Option<&'static str> {
        match self {
            Self::None => Some("none"),
            Self::Pause => Some("pause"),
            Self::Stop => Some("stop"),
            Self::Told(_) => None,
        }
    }
}

impl Serialize for Consistency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self, self.word()) {
            (Self::Told(told), _) => told.serialize(serializer),
            (_, word) => word.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Consistency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrTable;

        impl<'de> Visitor<'de> for WordOrTable {
            type Value = Consistency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\", \"pause\", \"stop\", or a table with `before` and `after`")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Consistency, E> {
                match word {
                    "none" => Ok(Consistency::None),
                    "pause" => Ok(Consistency::Pause),
                    "stop" => Ok(Consistency::Stop),
                    other => Err(E::unknown_variant(other, &WORDS)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Consistency, A::Error> {
                Told::deserialize(MapAccessDeserializer::new(map)).map(Consistency::Told)
            }
        }

        deserializer.deserialize_any(WordOrTable)
    }
}

impl JsonSchema for Consistency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Consistency".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let table = generator.subschema_for::<Told>();
        schemars::json_schema!({ "anyOf": [{ "type": "string", "enum": WORDS }, table] })
    }
}
