//! Two containers compared leaf by leaf, but for what cannot be the same: ids, times, and addresses and ports that nobody fixed.
use serde_json::Value;

/// Leaves that are the container's own: its ids, times, processes, and the files and interfaces that the engine made for it.
const OWN: [&str; 17] = [
    "/Id",
    "/Created",
    "/State",
    "/ResolvConfPath",
    "/HostnamePath",
    "/HostsPath",
    "/LogPath",
    "/GraphDriver",
    "/RestartCount",
    "/NetworkSettings/SandboxID",
    "/NetworkSettings/SandboxKey",
    "/NetworkSettings/EndpointID",
    "/NetworkSettings/IPAddress",
    "/NetworkSettings/MacAddress",
    "/NetworkSettings/GlobalIPv6Address",
    "/ExecIDs",
    "/Name",
];

/// Fails, and tells each leaf that differs.
pub(crate) fn assert_same(before: &Value, after: &Value) {
    assert_equal(&comparable(before), &comparable(after));
}

/// The same, without forgiving anything.
pub(crate) fn assert_equal(before: &Value, after: &Value) {
    let (one, other) = (leaves(before), leaves(after));
    let mut different: Vec<String> = Vec::new();
    for (path, value) in &one {
        match other.iter().find(|(other, _)| other == path) {
            Some((_, same)) if same == value => {}
            Some((_, changed)) => different.push(format!("{path}: {value} is now {changed}")),
            None => different.push(format!("{path}: {value} is gone")),
        }
    }
    let new = other.iter().filter(|(path, _)| !one.iter().any(|(other, _)| other == path));
    different.extend(new.map(|(path, value)| format!("{path}: {value} is new")));
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(one.len() > 50, "only {} leaves were compared", one.len());
}

fn comparable(inspected: &Value) -> Value {
    let mut all = inspected.clone();
    let id = all["Id"].as_str().unwrap().to_owned();
    let object = all.as_object_mut().unwrap();
    for path in OWN {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match parts[..] {
            [name] => drop(object.remove(name)),
            [folder, name] => drop(object.get_mut(folder).and_then(|value| value.as_object_mut()?.remove(name))),
            _ => unreachable!(),
        }
    }
    let config = &mut all["Config"];
    if config["Hostname"] == id[..12] {
        config["Hostname"] = "its own".into();
    }
    sort(&mut config["Env"]);
    // What nobody published by number is another port each time.
    let bindings = all["HostConfig"]["PortBindings"].clone();
    let all_published = all["HostConfig"]["PublishAllPorts"] == true;
    for (port, given) in all["NetworkSettings"]["Ports"].as_object_mut().into_iter().flatten() {
        let fixed = bindings[port][0]["HostPort"].as_str().unwrap_or_default();
        if (["", "0"].contains(&fixed) || (all_published && bindings[port].is_null())) && given.is_array() {
            *given = "any".into();
        }
    }
    let has_fixed_hardware = all["Config"]["MacAddress"].as_str().is_some_and(|address| !address.is_empty());
    for endpoint in
        all["NetworkSettings"]["Networks"].as_object_mut().into_iter().flatten().map(|(_, endpoint)| endpoint)
    {
        let endpoint = endpoint.as_object_mut().unwrap();
        endpoint.remove("EndpointID");
        let fixed = endpoint["IPAMConfig"]["IPv4Address"].as_str().unwrap_or_default().to_owned();
        if fixed.is_empty() {
            endpoint.remove("IPAddress");
            endpoint.remove("IPAMConfig");
        }
        if fixed.is_empty() && !has_fixed_hardware {
            // It follows from the address.
            endpoint.remove("MacAddress");
        }
        if let Some(aliases) = endpoint["Aliases"].as_array_mut() {
            aliases.retain(|alias| alias != &id[..12]);
            if aliases.is_empty() {
                endpoint["Aliases"] = Value::Null;
            }
        }
    }
    mounts(&mut all);
    all
}

/// What the engine named is named now; what is mounted where is in the list of mounts.
fn mounts(all: &mut Value) {
    let anonymous = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(binds) = all["HostConfig"]["Binds"].as_array_mut() {
        binds.retain(|bind| !anonymous(bind.as_str().unwrap().split(':').next().unwrap()));
        if binds.is_empty() {
            all["HostConfig"]["Binds"] = Value::Null;
        }
    }
    for mount in all["HostConfig"]["Mounts"].as_array_mut().into_iter().flatten() {
        if mount["Source"].as_str().is_some_and(anonymous) {
            mount.as_object_mut().unwrap().remove("Source");
        }
    }
    if let Some(mounted) = all["Mounts"].as_array_mut() {
        for mount in mounted.iter_mut() {
            if mount["Mode"] == "z" {
                mount["Mode"] = "".into();
            }
        }
        mounted.sort_by_key(|mount| mount["Destination"].to_string());
    }
}

fn sort(list: &mut Value) {
    if let Some(list) = list.as_array_mut() {
        list.sort_by_key(Value::to_string);
    }
}

/// Every leaf with its path.
fn leaves(value: &Value) -> Vec<(String, Value)> {
    fn walk(path: &str, value: &Value, found: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| walk(&format!("{path}/{name}"), value, found));
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(number, value)| walk(&format!("{path}/{number}"), value, found));
            }
            Value::Null => {}
            leaf => found.push((path.to_owned(), leaf.clone())),
        }
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    found
}
