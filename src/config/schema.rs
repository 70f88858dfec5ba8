//! The JSON schema of both files, from the structs that read them.
use schemars::{JsonSchema as _, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{jobs::JobKeys, settings::SettingsFile};
use crate::kinds::{KINDS, KindEntry};

/// The schema of `rusuban.toml`.
#[must_use]
pub fn settings() -> Value {
    let mut schema = generator().into_root_schema_for::<SettingsFile>();
    schema.insert("title".to_owned(), json!("rusuban.toml"));
    schema.to_value()
}

/// The schema of a job file: the shared keys, and for each kind its own.
#[must_use]
pub fn job() -> Value {
    let mut generator = generator();
    let shared = JobKeys::json_schema(&mut generator);
    let kinds: Vec<Value> = KINDS
        .iter()
        .map(|kind| {
            let own = (kind.schema)(&mut generator);
            let mut properties = part(&shared, "properties");
            properties.extend(part(&own, "properties"));
            properties.insert("kind".to_owned(), json!({ "const": kind.name, "description": kind.summary }));
            let mut required = vec![json!("kind")];
            required.extend(own.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
            json!({
                "title": kind.name,
                "description": kind.summary,
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            })
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a job of Rusuban",
        "oneOf": kinds,
        "$defs": generator.take_definitions(true),
    })
}

/// The schema of a kind's own keys.
pub(super) fn of_kind(kind: &KindEntry) -> Value {
    (kind.schema)(&mut generator()).to_value()
}

/// The keys that a schema knows at the top of a file.
pub(super) fn top_keys(schema: &Value) -> Vec<String> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(Map::keys).cloned().collect()
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().into_generator()
}

fn part(schema: &Schema, name: &str) -> Map<String, Value> {
    schema.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}
