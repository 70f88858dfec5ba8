//! What a container was told, what its image says, and what both come to. Pure.
use serde_json::{Map, Value, json};

use crate::docker::label;

type Fields = Map<String, Value>;

/// Fields that are the image's word or the engine's own, and never told.
const NOT_TOLD: [&str; 3] = ["Image", "OnBuild", "ArgsEscaped"];

/// Fields of a text that an image fills in, with what says "none of that".
const TEXTS: [(&str, &str); 3] = [("User", "0"), ("WorkingDir", "/"), ("StopSignal", "SIGTERM")];

/// Fields of a health check that an image fills in, with what the engine takes where nobody says anything (times in nanoseconds).
const HEALTH: [(&str, u64); 5] = [
    ("Interval", 30_000_000_000),
    ("Timeout", 30_000_000_000),
    ("StartPeriod", 1_000_000),
    ("StartInterval", 5_000_000_000),
    ("Retries", 3),
];

/// Variables that the engine sets where nobody does.
const BY_ENGINE: [&str; 4] = ["PATH", "HOME", "HOSTNAME", "TERM"];

/// What the engine makes of what a container is told and of its image's defaults.
pub(super) fn effective(told: &Fields, defaults: &Fields) -> Fields {
    let mut whole: Fields = told.iter().filter(|(_, value)| !is_empty(value)).map(owned).collect();
    for (name, _) in TEXTS {
        if !whole.contains_key(name) {
            inherit(&mut whole, name, defaults);
        }
    }
    for name in ["ExposedPorts", "Volumes", "Labels"] {
        let mut all = fields(told, name);
        for (key, value) in fields(defaults, name) {
            all.entry(key).or_insert(value);
        }
        put(&mut whole, name, all.into());
    }
    let mut environment = list(told, "Env");
    let names: Vec<String> = environment.iter().map(|entry| name_of(entry).to_owned()).collect();
    environment
        .extend(list(defaults, "Env").into_iter().filter(|entry| !names.iter().any(|name| name == name_of(entry))));
    put(&mut whole, "Env", environment.into());
    if list(told, "Entrypoint") == [""] {
        whole.remove("Entrypoint");
    } else if list(told, "Entrypoint").is_empty() {
        if list(told, "Cmd").is_empty() {
            inherit(&mut whole, "Cmd", defaults);
        }
        inherit(&mut whole, "Entrypoint", defaults);
    }
    let (mut health, by_image) = (fields(told, "Healthcheck"), fields(defaults, "Healthcheck"));
    for name in std::iter::once("Test").chain(HEALTH.map(|(name, _)| name)) {
        if health.get(name).is_none_or(is_nothing) {
            inherit(&mut health, name, &by_image);
        }
    }
    put(&mut whole, "Healthcheck", health.into());
    whole
}

/// The least that must be told for `whole` to come out over these defaults. An image's labels, ports and volumes can be added to
/// but not taken away: such labels are blanked.
pub(super) fn difference(whole: &Fields, defaults: &Fields) -> Fields {
    let told = whole.iter().filter(|(name, value)| !is_empty(value) && !NOT_TOLD.contains(&name.as_str()));
    let mut told: Fields = told.map(owned).collect();
    for (name, none) in TEXTS {
        let (here, there) = (text(whole, name), text(defaults, name));
        if here == there {
            told.remove(name);
        } else if here.is_empty() {
            told.insert(name.into(), none.into());
        }
    }
    for name in ["ExposedPorts", "Volumes"] {
        let known = fields(defaults, name);
        put(&mut told, name, without(fields(whole, name), &known).into());
    }
    let (labels, known) = (fields(whole, "Labels"), fields(defaults, "Labels"));
    let lost = known.keys().filter(|name| !labels.contains_key(*name) && !name.starts_with(label::ALL));
    let blanked: Vec<_> = lost.map(|name| (name.clone(), Value::from(""))).collect();
    let mut labels = without(labels, &known);
    labels.extend(blanked);
    put(&mut told, "Labels", labels.into());
    put(&mut told, "Env", environment(&list(whole, "Env"), &list(defaults, "Env")).into());
    command(&mut told, whole, defaults);
    health(&mut told, &fields(whole, "Healthcheck"), &fields(defaults, "Healthcheck"));
    told
}

/// Takes out the labels that a container got from the snapshot that it was made of: they say of that image, not of the container.
pub(super) fn forget_snapshot(whole: &mut Fields) {
    if let Some(Value::Object(labels)) = whole.get_mut("Labels") {
        labels.retain(|name, _| !name.starts_with(label::ALL));
    }
}

/// A name without `=` takes the image's variable of that name away, and the engine's too.
fn environment(whole: &[String], defaults: &[String]) -> Vec<String> {
    let is_here = |entry: &&String| !whole.iter().any(|other| name_of(other) == name_of(entry));
    let lost = defaults.iter().filter(is_here).map(|entry| name_of(entry)).filter(|name| !BY_ENGINE.contains(name));
    whole.iter().filter(|entry| !defaults.contains(entry)).cloned().chain(lost.map(str::to_owned)).collect()
}

/// The image's command counts only where neither a command nor an entrypoint is told.
fn command(told: &mut Fields, whole: &Fields, defaults: &Fields) {
    let both = |of: &Fields| (list(of, "Entrypoint"), list(of, "Cmd"));
    let ((entrypoint, command), (their_entrypoint, their_command)) = (both(whole), both(defaults));
    if (&entrypoint, &command) == (&their_entrypoint, &their_command) {
        told.remove("Entrypoint");
        told.remove("Cmd");
    } else if entrypoint == their_entrypoint && !command.is_empty() {
        told.remove("Entrypoint");
    } else if entrypoint.is_empty() && !their_entrypoint.is_empty() {
        told.insert("Entrypoint".into(), json!([""]));
    }
}

fn health(told: &mut Fields, here: &Fields, there: &Fields) {
    told.remove("Healthcheck");
    let is_none = |health: &Fields| health.get("Test").is_none_or(is_empty);
    if here == there || (here.is_empty() && is_none(there)) {
        return;
    }
    let mut health = here.clone();
    if is_none(here) && !is_none(there) {
        health.insert("Test".into(), json!(["NONE"]));
    }
    for (name, usual) in HEALTH {
        if health.get(name).is_none_or(is_nothing) && !there.get(name).is_none_or(is_nothing) {
            health.insert(name.into(), usual.into());
        }
    }
    told.insert("Healthcheck".into(), health.into());
}

fn without(all: Fields, known: &Fields) -> Fields {
    all.into_iter().filter(|(name, value)| known.get(name) != Some(value)).collect()
}

fn inherit(whole: &mut Fields, name: &str, defaults: &Fields) {
    if let Some(value) = defaults.get(name).filter(|value| !is_empty(value)) {
        whole.insert(name.into(), value.clone());
    }
}

fn put(into: &mut Fields, name: &str, value: Value) {
    if is_empty(&value) {
        into.remove(name);
    } else {
        into.insert(name.into(), value);
    }
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// What says nothing: the engine takes it as if it were not there.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn is_nothing(value: &Value) -> bool {
    is_empty(value) || value.as_u64() == Some(0)
}

fn text<'a>(of: &'a Fields, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn fields(of: &Fields, name: &str) -> Fields {
    of.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// Texts in a list; Podman gives an entrypoint as one text.
fn list(of: &Fields, name: &str) -> Vec<String> {
    match of.get(name) {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(one)) => one.split_whitespace().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option::of, prelude::*, sample::select};

    use super::*;

    fn object(value: Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_the_image_says_by_itself_is_not_told_again() {
        let defaults = object(json!({
            "Env": ["PATH=/bin", "A=1"], "Cmd": ["serve"], "Entrypoint": ["/start"], "User": "www", "WorkingDir": "/srv",
            "Labels": { "maker": "them" }, "Volumes": { "/data": {} }, "ExposedPorts": { "80/tcp": {} }, "StopSignal": "SIGINT",
            "Healthcheck": { "Test": ["CMD", "true"], "Interval": 5 }, "Shell": ["/bin/sh"],
        }));
        assert_eq!(Value::from(difference(&effective(&Fields::new(), &defaults), &defaults)), json!({}));
        let own = object(
            json!({ "Env": ["A=2", "B=3"], "Labels": { "traefik.enable": "true" }, "Tty": true, "StopTimeout": 0 }),
        );
        assert_eq!(Value::from(difference(&effective(&own, &defaults), &defaults)), Value::from(own));
    }

    #[test]
    fn what_an_image_has_gained_since_is_taken_away_again() {
        let whole = object(json!({ "Env": ["A=1"], "Cmd": ["run"] }));
        let gained = object(json!({
            "Env": ["A=1", "OLD=x", "PATH=/bin"], "Cmd": ["other"], "Entrypoint": ["/start"], "User": "www", "WorkingDir": "/x",
            "StopSignal": "SIGINT", "Labels": { "traefik.enable": "true", "rusuban.snapshot.at": "then" },
            "Healthcheck": { "Test": ["CMD", "false"], "Retries": 1 },
        }));
        assert_eq!(
            Value::from(difference(&whole, &gained)),
            json!({
                "Cmd": ["run"], "User": "0", "WorkingDir": "/", "StopSignal": "SIGTERM", "Labels": { "traefik.enable": "" },
                "Env": ["OLD"], "Entrypoint": [""], "Healthcheck": { "Test": ["NONE"], "Retries": 3 },
            })
        );
    }

    #[test]
    fn an_entrypoint_goes_with_its_command() {
        for (whole, defaults, told) in [
            (json!({ "Entrypoint": ["a"], "Cmd": ["b"] }), json!({ "Entrypoint": ["a"], "Cmd": ["b"] }), json!({})),
            (
                json!({ "Entrypoint": ["a"], "Cmd": ["c"] }),
                json!({ "Entrypoint": ["a"], "Cmd": ["b"] }),
                json!({ "Cmd": ["c"] }),
            ),
            (
                json!({ "Entrypoint": ["a"] }),
                json!({ "Entrypoint": ["a"], "Cmd": ["b"] }),
                json!({ "Entrypoint": ["a"] }),
            ),
            (
                json!({ "Cmd": ["b"] }),
                json!({ "Entrypoint": ["a"], "Cmd": ["b"] }),
                json!({ "Cmd": ["b"], "Entrypoint": [""] }),
            ),
            (
                json!({ "Entrypoint": ["x"], "Cmd": ["b"] }),
                json!({ "Cmd": ["b"] }),
                json!({ "Entrypoint": ["x"], "Cmd": ["b"] }),
            ),
        ] {
            assert_eq!(Value::from(difference(&object(whole), &object(defaults))), told);
        }
    }

    /// A configuration as an engine or an image has it.
    fn configuration() -> impl Strategy<Value = Fields> {
        let environment = vec((select(vec!["A", "B", "C"]), 0..3_u8), 0..3);
        let words = || of(vec(select(vec!["run", "serve", "--fast"]), 1..3));
        let texts =
            (of(select(vec!["www", "1000"])), of(select(vec!["/srv", "/"])), of(select(vec!["SIGINT", "SIGTERM"])));
        let sets = || vec(select(vec!["one", "two", "three"]), 0..3);
        let health = of((select(vec!["true", "false"]), 0..3_u64, 0..3_u64));
        (environment, words(), words(), texts, sets(), sets(), health).prop_map(
            |(environment, entrypoint, command, (user, folder, signal), ports, labels, health)| {
                let mut names = std::collections::BTreeMap::new();
                names.extend(environment);
                let entries: Vec<String> = names.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let ports: Fields = ports.iter().map(|port| ((*port).to_owned(), json!({}))).collect();
                let labels: Fields =
                    labels.iter().map(|name| ((*name).to_owned(), json!(format!("of {name}")))).collect();
                let health = health.map(|(test, interval, retries)| {
                    json!({ "Test": ["CMD", test], "Interval": interval * 1_000_000_000, "Retries": retries })
                });
                object(json!({
                    "Env": entries, "Entrypoint": entrypoint, "Cmd": command, "User": user.unwrap_or_default(),
                    "WorkingDir": folder.unwrap_or_default(), "StopSignal": signal, "ExposedPorts": ports,
                    "Labels": labels, "Healthcheck": health, "StopTimeout": null, "Tty": false,
                }))
            },
        )
    }

    /// For a comparison: environments are sets, and empty is absent.
    fn sorted(of: &Fields) -> Fields {
        let mut of: Fields = of.iter().filter(|(_, value)| !is_empty(value)).map(owned).collect();
        let mut environment = list(&of, "Env");
        environment.sort();
        put(&mut of, "Env", environment.into());
        if let Some(Value::Object(health)) = of.get_mut("Healthcheck") {
            health.retain(|_, value| !is_nothing(value));
        }
        of.sort_keys();
        of
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_told_comes_out_again(told in configuration(), defaults in configuration()) {
            let whole = effective(&told, &defaults);
            let again = effective(&difference(&whole, &defaults), &defaults);
            prop_assert_eq!(sorted(&again), sorted(&whole));
        }

        /// Whatever image it is: ports and labels of the image's own, and words for "none", are all that differs.
        #[test]
        fn over_any_image_the_whole_comes_out(whole in configuration(), defaults in configuration()) {
            // A container without a command cannot be.
            prop_assume!(!list(&whole, "Cmd").is_empty() || !list(&whole, "Entrypoint").is_empty());
            let again = effective(&difference(&whole, &defaults), &defaults);
            for name in ["Entrypoint", "Cmd"] {
                prop_assert_eq!(list(&again, name), list(&whole, name));
            }
            for (name, none) in TEXTS {
                let (now, then) = (text(&again, name), text(&whole, name));
                prop_assert!(now == then || (then.is_empty() && now == none), "{} {}", now, then);
            }
            let values = |of: &Fields| {
                let mut values: Vec<_> = list(of, "Env").into_iter().filter(|entry| entry.contains('=')).collect();
                values.sort();
                values
            };
            prop_assert_eq!(values(&again), values(&whole));
            let labels = fields(&whole, "Labels");
            for (name, value) in fields(&again, "Labels") {
                prop_assert!(labels.get(&name) == Some(&value) || (value == "" && !labels.contains_key(&name)));
            }
            prop_assert!(fields(&whole, "ExposedPorts").keys().all(|port| fields(&again, "ExposedPorts").contains_key(port)));
        }
    }
}
