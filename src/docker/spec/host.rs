//! `HostConfig` so that it means the same for the next container: others by name, each volume named. Pure.
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{config, object};

type Fields = Map<String, Value>;

/// Keys whose value may be `container:` and an id.
const SHARED: [&str; 3] = ["NetworkMode", "PidMode", "IpcMode"];

/// What the engine says of a container, as a `HostConfig` for the next one. `names` are those of all containers by their ids,
/// `lent` the volumes that come from other containers, by target.
pub(super) fn portable(inspected: &Value, names: &BTreeMap<String, String>, lent: &BTreeMap<String, String>) -> Fields {
    let mut host = object(&inspected["HostConfig"]);
    let name_of = |id: &str| {
        let found = names.iter().find(|(full, _)| id.len() >= 12 && full.starts_with(id));
        found.map_or_else(|| id.to_owned(), |(_, name)| name.clone())
    };
    for key in SHARED {
        if let Some(id) = host.get(key).and_then(Value::as_str).and_then(|mode| mode.strip_prefix("container:")) {
            host[key] = format!("container:{}", name_of(id)).into();
        }
    }
    // A network may have been named by its id.
    let mode = host.get("NetworkMode").and_then(Value::as_str).unwrap_or_default();
    let networks = object(&inspected["NetworkSettings"]["Networks"]);
    let meant = networks.iter().find(|(_, endpoint)| !mode.is_empty() && endpoint["NetworkID"] == mode);
    if let Some((name, _)) = meant {
        host["NetworkMode"] = name.clone().into();
    }
    each_text(&mut host, "Links", plain_link);
    each_text(&mut host, "VolumesFrom", |from| match from.split_once(':') {
        Some((id, mode)) => format!("{}:{mode}", name_of(id)),
        None => name_of(from),
    });
    if let Some(Value::Array(from)) = host.get_mut("VolumesFrom") {
        // One that is gone lends nothing any more; what it lent is mounted, and named below.
        let is_there = |name: &str| names.values().any(|known| known == name);
        from.retain(|entry| entry.as_str().is_some_and(|entry| is_there(entry.split(':').next().unwrap_or(entry))));
    }
    for device in host.get_mut("Devices").and_then(Value::as_array_mut).into_iter().flatten() {
        // Podman says nothing where everything is allowed.
        if device["CgroupPermissions"] == "" {
            device["CgroupPermissions"] = "rwm".into();
        }
    }
    if let Some(Value::Object(ports)) = host.get_mut("PortBindings") {
        ports.retain(|_, bindings| !config::is_empty(bindings));
    }
    name_volumes(&mut host, inspected, lent);
    host
}

/// Whether a container of this kind may not have a name of its own.
pub(super) fn forbids_hostname(host: &Fields) -> bool {
    let is =
        |key: &str, wanted: &str| host.get(key).and_then(Value::as_str).is_some_and(|mode| mode.starts_with(wanted));
    is("NetworkMode", "container:") || is("UTSMode", "host")
}

fn each_text(host: &mut Fields, key: &str, change: impl Fn(&str) -> String) {
    if let Some(Value::Array(list)) = host.get_mut(key) {
        for entry in list {
            if let Some(text) = entry.as_str() {
                *entry = change(text).into();
            }
        }
    }
}

/// `/db:/web/database`, as the engine says it, is `db:database`, as it is told.
fn plain_link(link: &str) -> String {
    let Some((name, alias)) = link.split_once(':') else { return link.to_owned() };
    format!("{}:{}", name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

/// Names the volumes that the engine named: the next container would get new, empty ones. What is mounted tells which they are.
fn name_volumes(host: &mut Fields, inspected: &Value, lent: &BTreeMap<String, String>) {
    let mut binds = host.get("Binds").and_then(Value::as_array).cloned().unwrap_or_default();
    for mount in inspected["Mounts"].as_array().into_iter().flatten() {
        let part = |key: &str| mount[key].as_str().unwrap_or_default();
        let (name, target) = (part("Name"), part("Destination"));
        if part("Type") != "volume" || name.is_empty() || lent.get(target).is_some_and(|volume| volume == name) {
            continue;
        }
        if binds.iter().any(|bind| bind.as_str().is_some_and(|bind| target_of(bind) == Some(target))) {
            continue;
        }
        let mounts = host.get_mut("Mounts").and_then(Value::as_array_mut);
        match mounts.into_iter().flatten().find(|mount| mount["Target"] == target) {
            Some(mount) if config::is_empty(&mount["Source"]) => mount["Source"] = name.into(),
            Some(_) => {}
            None => {
                let mode = if mount["RW"] == false { ":ro" } else { "" };
                binds.push(format!("{name}:{target}{mode}").into());
            }
        }
    }
    if !binds.is_empty() {
        host.insert("Binds".into(), json!(binds));
    }
}

/// The target in `source:target` or `source:target:options`.
pub(super) fn target_of(bind: &str) -> Option<&str> {
    bind.split(':').nth(1)
}

/// The source in it.
pub(super) fn source_of(bind: &str) -> &str {
    bind.split(':').next().unwrap_or(bind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(inspected: Value) -> Value {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let names = BTreeMap::from([(id.to_owned(), "database".to_owned())]);
        let lent = BTreeMap::from([("/lent".to_owned(), "theirs".to_owned())]);
        portable(&inspected, &names, &lent).into()
    }

    #[test]
    fn others_are_called_by_name() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let said = json!({ "HostConfig": {
            "NetworkMode": format!("container:{id}"), "PidMode": format!("container:{id}"), "IpcMode": "private",
            "VolumesFrom": [format!("{id}:ro"), "database", "gone"], "Devices": [{ "CgroupPermissions": "" }], "Links": ["/db:/web/sql", "a:b"],
        }});
        assert_eq!(
            host(said),
            json!({
                "NetworkMode": "container:database", "PidMode": "container:database", "IpcMode": "private",
                "VolumesFrom": ["database:ro", "database"], "Devices": [{ "CgroupPermissions": "rwm" }], "Links": ["db:sql", "a:b"],
            })
        );
    }

    #[test]
    fn each_volume_is_named_once() {
        let mount = |name: &str, target: &str, writable: bool| json!({ "Type": "volume", "Name": name, "Destination": target, "RW": writable });
        let said = json!({
            "HostConfig": {
                "Binds": ["data:/data:ro", "/srv:/srv"],
                "Mounts": [{ "Type": "volume", "Target": "/cache" }, { "Type": "volume", "Source": "named", "Target": "/named" }],
            },
            "Mounts": [
                mount("data", "/data", false), mount("aa", "/cache", true), mount("named", "/named", true),
                mount("bb", "/of-image", true), mount("cc", "/read", false), mount("theirs", "/lent", true),
                json!({ "Type": "bind", "Source": "/srv", "Destination": "/srv" }),
            ],
        });
        assert_eq!(
            host(said),
            json!({
                "Binds": ["data:/data:ro", "/srv:/srv", "bb:/of-image", "cc:/read:ro"],
                "Mounts": [
                    { "Type": "volume", "Target": "/cache", "Source": "aa" },
                    { "Type": "volume", "Source": "named", "Target": "/named" },
                ],
            })
        );
    }

    #[test]
    fn a_network_named_by_its_id_is_called_by_its_name() {
        let said = json!({
            "HostConfig": { "NetworkMode": "ab12", "PortBindings": { "80/tcp": [], "81/tcp": [{ "HostPort": "81" }] } },
            "NetworkSettings": { "Networks": { "front": { "NetworkID": "ab12" } } },
        });
        assert_eq!(host(said), json!({ "NetworkMode": "front", "PortBindings": { "81/tcp": [{ "HostPort": "81" }] } }));
    }
}
