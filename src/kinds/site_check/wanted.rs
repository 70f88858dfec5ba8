//! Texts as they are written: one, several, or with how often they must be there.
use std::{fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// One text or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts(pub Vec<String>);

/// Texts that must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted(pub Vec<Often>);

/// A text, and how often it must be there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Often {
    /// The text.
    pub text: String,
    /// How often at least [default: 1].
    #[serde(default)]
    pub at_least: Option<u32>,
}

/// Reads one item or a list of items.
struct OneOrMany<T> {
    one: fn(&str) -> T,
    expected: &'static str,
    tables: bool,
    what: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        Ok(vec![(self.one)(text)])
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
        if !self.tables {
            return Err(serde::de::Error::invalid_type(serde::de::Unexpected::Map, &self));
        }
        T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element()? {
            all.push(one);
        }
        Ok(all)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a text in quotes, or a list of them";
        let reading = OneOrMany { one: str::to_owned, expected, tables: false, what: PhantomData };
        deserializer.deserialize_any(reading).map(Self)
    }
}

/// An item of a list, which is a text or a table too.
struct Item(Often);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Often;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WANTED)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Often, E> {
                Ok(Often { text: text.to_owned(), at_least: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Often, A::Error> {
                Often::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Either).map(Self)
    }
}

const WANTED: &str = "a text in quotes, `{ text = \"…\", at_least = 3 }`, or a list of these";

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let one = |text: &str| Item(Often { text: text.to_owned(), at_least: None });
        let reading = OneOrMany { one, expected: WANTED, tables: true, what: PhantomData };
        let items: Vec<Item> = deserializer.deserialize_any(reading)?;
        Ok(Self(items.into_iter().map(|Item(often)| often).collect()))
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

impl JsonSchema for Wanted {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Wanted".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let often = generator.subschema_for::<Often>();
        let one = serde_json::json!([{ "type": "string" }, often]);
        json_schema!({ "anyOf": [one[0], one[1], { "type": "array", "items": { "anyOf": one } }] })
    }
}
