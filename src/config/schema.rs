//! The JSON schema of both files, from the structs that read them.
use schemars::{JsonSchema as _, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{jobs::JobKeys, notifiers, settings::SettingsFile};
use crate::{
    kinds::{KINDS, KindEntry},
    notify::{NOTIFIERS, NotifierEntry, settings::Common},
};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of `rusuban.toml`.
#[must_use]
pub fn settings() -> Value {
    let mut generator = generator();
    let mut schema = SettingsFile::json_schema(&mut generator);
    let shared = Common::json_schema(&mut generator);
    let all: Vec<Value> = NOTIFIERS
        .iter()
        .map(|entry| member(entry.name, entry.summary, &shared, &(entry.schema)(&mut generator)))
        .collect();
    let description = "Where people are told what happens, by names of their own.";
    let each = json!({ "type": "object", "description": description, "additionalProperties": { "oneOf": all } });
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(notifiers::TABLE.to_owned(), each);
    }
    schema.insert("$schema".to_owned(), json!(DIALECT));
    schema.insert("title".to_owned(), json!("rusuban.toml"));
    schema.insert("$defs".to_owned(), generator.take_definitions(true).into());
    schema.to_value()
}

/// The schema of a job file: the shared keys, and for each kind its own.
#[must_use]
pub fn job() -> Value {
    let mut generator = generator();
    let shared = JobKeys::json_schema(&mut generator);
    let kinds: Vec<Value> =
        KINDS.iter().map(|kind| member(kind.name, kind.summary, &shared, &(kind.schema)(&mut generator))).collect();
    json!({
        "$schema": DIALECT,
        "title": "a job of Rusuban",
        "oneOf": kinds,
        "$defs": generator.take_definitions(true),
    })
}

/// The schema of one that `kind` picks: the shared keys and its own.
fn member(name: &str, summary: &str, shared: &Schema, own: &Schema) -> Value {
    let mut properties = part(shared, "properties");
    properties.extend(part(own, "properties"));
    properties.insert("kind".to_owned(), json!({ "const": name, "description": summary }));
    let mut required = vec![json!("kind")];
    required.extend(own.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
    json!({
        "title": name,
        "description": summary,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The schema of a notifier's own keys.
pub(super) fn of_notifier(entry: &NotifierEntry) -> Value {
    (entry.schema)(&mut generator()).to_value()
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
