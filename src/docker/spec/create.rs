//! Creating a container from what is known of one.
use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::{Spec, config, host, image_defaults};
use crate::docker::client::{Engine, EngineError, PATIENCE, Version};

type Fields = Map<String, Value>;

/// From here on a container is created in all of its networks; before, in one, and is connected to the others.
const MANY_NETWORKS: Version = Version(1, 44);
/// An image that nobody has.
const NO_IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// Labels that make others take a container for their own: a proxy would publish it, compose would stop it.
const CLAIMS: [&str; 2] = ["com.docker.compose.", "traefik."];

/// Whose configuration counts where the new container's image says something else than the old one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defaults {
    /// The container's: the new one is configured as it is, whatever its image says. For going back to a snapshot.
    #[default]
    Kept,
    /// The new image's, with what the container was told on top. For an update.
    OfImage,
}

/// How a container is created.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// Whose defaults count.
    pub defaults: Defaults,
    /// Create volumes and networks that are not there; else their absence is an error.
    pub make_missing: bool,
    /// This network instead of its own ones; `none` for none.
    pub network: Option<String>,
    /// It is to live beside the one that it is a copy of: no published ports, fixed addresses or aliases, and labels that would
    /// make a proxy or compose take it for the other are blanked. It is not started again by the engine.
    pub beside: bool,
    /// It may only read what is mounted in it.
    pub read_only_mounts: bool,
    /// The engine never starts it by itself. Its restart policy can be set later.
    pub no_restart: bool,
    /// Other volumes in the place of these.
    pub volumes: BTreeMap<String, String>,
    /// Labels that it gets beside its own.
    pub labels: Vec<(String, String)>,
}

/// A container that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// What the engine remarks.
    pub warnings: Vec<String>,
}

/// What is asked of the engine.
struct Plan {
    body: Fields,
    /// Networks that it is connected to afterwards.
    connect: Vec<(String, Fields)>,
    /// One that it is created in and is not to be in.
    leave: Option<String>,
}

impl Spec {
    /// Creates the container under `name`, of `image`, and does not start it.
    ///
    /// # Errors
    /// When the name is taken, or something that it needs is not there: the image, a folder or file of the host, a volume, a
    /// network. Nothing is left of it then, but for volumes and networks that were missing.
    pub async fn create(
        &self,
        engine: &Engine,
        name: &str,
        image: &str,
        creation: &Creation,
    ) -> anyhow::Result<Created> {
        let what = || format!("create the container {name}");
        let defaults = image_defaults(&engine.image(image).await.with_context(what)?);
        let plan = self.plan(image, &defaults, creation, engine.version() >= MANY_NETWORKS).with_context(what)?;
        refuse_missing_folders(engine, &plan.body).await.with_context(what)?;
        if creation.network.is_none() {
            for network in &self.networks {
                self.have_network(engine, network, creation.make_missing).await.with_context(what)?;
            }
        }
        for volume in &self.volumes {
            have_volume(engine, volume, creation).await.with_context(what)?;
        }
        let query = [("name", name)];
        let said = engine.post("/containers/create", &query, Some(&plan.body.into()), Some(PATIENCE)).await;
        let said = said.with_context(what)?;
        let id = said["Id"].as_str().unwrap_or_default().to_owned();
        if let Err(error) = connect(engine, &id, plan.connect, plan.leave).await {
            return Err(match engine.remove_container(&id).await {
                Ok(()) => error.context(what()),
                Err(left) => error.context(format!("{}, which is left, half made ({left})", what())),
            });
        }
        let warnings = said["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(Created { id, warnings: warnings.map(str::to_owned).collect() })
    }

    fn plan(&self, image: &str, defaults: &Fields, creation: &Creation, many: bool) -> anyhow::Result<Plan> {
        let mut told = match creation.defaults {
            Defaults::Kept => config::difference(&self.effective(), defaults),
            Defaults::OfImage => self.config.clone(),
        };
        let mut host = self.host.clone();
        let mut endpoints = self.endpoints.clone();
        // One that is removed as soon as it ends can be neither stopped nor renamed safely.
        host.insert("AutoRemove".into(), false.into());
        if creation.no_restart || creation.beside {
            host.insert("RestartPolicy".into(), json!({ "Name": "no" }));
        }
        let mut labels = config::fields(&told, "Labels");
        if creation.beside {
            let whole = config::effective(&told, defaults);
            let claims = config::fields(&whole, "Labels").into_iter().map(|(label, _)| label);
            let claims = claims.filter(|label| CLAIMS.iter().any(|claim| label.starts_with(claim)));
            labels.extend(claims.map(|label| (label, "".into())));
            step_aside(&mut told, &mut host, &mut endpoints);
        }
        labels.extend(creation.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())));
        if !labels.is_empty() {
            told.insert("Labels".into(), labels.into());
        }
        if let Some(network) = &creation.network {
            host.insert("NetworkMode".into(), network.clone().into());
            host.remove("Links");
            told.remove("MacAddress");
            endpoints = BTreeMap::from([(network.clone(), Fields::new())]);
        } else if creation.beside && host.get("NetworkMode").is_some_and(|mode| mode == "host") {
            bail!("it uses the network of the host, where the ports are taken; say `--network none`");
        }
        change_mounts(&mut host, creation);
        told.insert("Image".into(), image.into());
        Ok(network_plan(told, host, endpoints, many))
    }

    async fn have_network(&self, engine: &Engine, network: &Fields, make_missing: bool) -> anyhow::Result<()> {
        let name = network.get("Name").and_then(Value::as_str).unwrap_or_default();
        match engine.get(&format!("/networks/{name}"), &[]).await {
            Ok(_) => return Ok(()),
            Err(EngineError::NotFound(_)) if make_missing => {}
            Err(EngineError::NotFound(_)) => bail!("there is no network `{name}`"),
            Err(error) => return Err(error.into()),
        }
        let what = || format!("create the network {name}");
        let mut body = network.clone();
        // Older engines would make a second one of that name.
        body.insert("CheckDuplicate".into(), true.into());
        match engine.post("/networks/create", &[], Some(&body.clone().into()), Some(PATIENCE)).await {
            // Its range is another's here, and nobody has a fixed address in it.
            Err(EngineError::Refused { message, .. }) if message.contains("overlap") && !self.fixes_address(name) => {
                body.remove("IPAM");
                engine.post("/networks/create", &[], Some(&body.into()), Some(PATIENCE)).await.with_context(what)?;
                Ok(())
            }
            made => made.map(drop).with_context(what),
        }
    }

    fn fixes_address(&self, network: &str) -> bool {
        self.endpoints.get(network).is_some_and(|endpoint| endpoint.contains_key("IPAMConfig"))
    }
}

/// Nothing that the other one has for itself.
fn step_aside(told: &mut Fields, host: &mut Fields, endpoints: &mut BTreeMap<String, Fields>) {
    host.remove("PortBindings");
    host.remove("PublishAllPorts");
    told.remove("MacAddress");
    for endpoint in endpoints.values_mut() {
        endpoint.remove("IPAMConfig");
        endpoint.remove("Aliases");
    }
}

fn change_mounts(host: &mut Fields, creation: &Creation) {
    let other = |name: &str| creation.volumes.get(name).cloned();
    if let Some(Value::Array(binds)) = host.get_mut("Binds") {
        for bind in binds {
            let mut parts: Vec<String> = bind.as_str().unwrap_or_default().split(':').map(str::to_owned).collect();
            if let Some(name) = parts.first().and_then(|name| other(name)) {
                parts[0] = name;
            }
            if creation.read_only_mounts && parts.len() > 1 {
                let options = parts.get(2).cloned().unwrap_or_default();
                let kept = options.split(',').filter(|option| !["", "ro", "rw"].contains(option));
                let options: Vec<&str> = kept.chain(["ro"]).collect();
                let options = options.join(",");
                parts.truncate(2);
                parts.push(options);
            }
            *bind = parts.join(":").into();
        }
    }
    if let Some(Value::Array(mounts)) = host.get_mut("Mounts") {
        for mount in mounts {
            if let Some(name) = mount["Source"].as_str().and_then(other) {
                mount["Source"] = name.into();
            }
            if creation.read_only_mounts && mount["Type"] != "tmpfs" {
                mount["ReadOnly"] = true.into();
            }
        }
    }
    if let (Some(Value::Array(from)), true) = (host.get_mut("VolumesFrom"), creation.read_only_mounts) {
        for entry in from {
            let name = entry.as_str().unwrap_or_default().split(':').next().unwrap_or_default();
            *entry = format!("{name}:ro").into();
        }
    }
}

fn network_plan(mut told: Fields, host: Fields, mut endpoints: BTreeMap<String, Fields>, many: bool) -> Plan {
    let mode = host.get("NetworkMode").and_then(Value::as_str).unwrap_or_default();
    let first = if ["", "default"].contains(&mode) { "bridge" } else { mode }.to_owned();
    if host::forbids_hostname(&host) {
        told.remove("Hostname");
    }
    let (mut at_creation, mut leave) = (Fields::new(), None);
    if first.starts_with("container:") {
        // The other one's network, and nothing of one's own in it.
        told.retain(|name, _| !["MacAddress", "ExposedPorts"].contains(&name.as_str()));
    } else if !["host", "none"].contains(&first.as_str()) {
        match endpoints.remove(&first) {
            Some(endpoint) => {
                at_creation.insert(first.clone(), endpoint.into());
            }
            None if endpoints.contains_key("podman") => {}
            None => leave = Some(first.clone()),
        }
    }
    endpoints.retain(|name, _| !["host", "none", "podman"].contains(&name.as_str()));
    let mut connect: Vec<_> = endpoints.into_iter().collect();
    if many {
        at_creation.extend(connect.drain(..).map(|(name, endpoint)| (name, endpoint.into())));
        // It has moved to the network.
        if let Some(Value::Object(endpoint)) = at_creation.get_mut(&first)
            && let Some(address) = told.remove("MacAddress")
        {
            endpoint.insert("MacAddress".into(), address);
        }
    }
    told.insert("HostConfig".into(), host.into());
    told.insert("NetworkingConfig".into(), json!({ "EndpointsConfig": at_creation }));
    Plan { body: told, connect, leave }
}

/// A folder or file that is mounted and not there would become an empty folder, silently. The engine itself is asked, which may be
/// on another host: it looks at the other form of mounts before it looks for an image that nobody has, and creates nothing.
async fn refuse_missing_folders(engine: &Engine, body: &Fields) -> anyhow::Result<()> {
    let binds = body["HostConfig"]["Binds"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let sources = binds.map(host::source_of).filter(|source| source.starts_with('/'));
    let mount = |(number, source)| json!({ "Type": "bind", "Source": source, "Target": format!("/{number}") });
    let mounts: Vec<Value> = sources.enumerate().map(mount).collect();
    if mounts.is_empty() {
        return Ok(());
    }
    let question = json!({ "Image": NO_IMAGE, "Cmd": ["true"], "HostConfig": { "Mounts": mounts } });
    match engine.post("/containers/create", &[], Some(&question), Some(PATIENCE)).await {
        Err(EngineError::Refused { message, .. }) => match message.split_once("does not exist: ") {
            Some((_, source)) => bail!(
                "{source} is mounted in it and is not there on Docker's host; Docker would make an empty folder of it: bring it back first"
            ),
            None => Ok(()),
        },
        Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => Ok(()),
        Err(error) => Err(error.into()),
        // Nobody has that image, so nothing can have been made of it.
        Ok(_) => Ok(()),
    }
}

async fn have_volume(engine: &Engine, volume: &Fields, creation: &Creation) -> anyhow::Result<()> {
    let mut volume = volume.clone();
    let name = volume.get("Name").and_then(Value::as_str).unwrap_or_default();
    let name = creation.volumes.get(name).map_or(name, String::as_str).to_owned();
    match engine.get(&format!("/volumes/{name}"), &[]).await {
        Ok(_) => Ok(()),
        Err(EngineError::NotFound(_)) if creation.make_missing => {
            volume.insert("Name".into(), name.clone().into());
            let made = engine.post("/volumes/create", &[], Some(&volume.into()), Some(PATIENCE)).await;
            made.map(drop).with_context(|| format!("create the volume {name}"))
        }
        Err(EngineError::NotFound(_)) => bail!("there is no volume `{name}`; Docker would make an empty one of it"),
        Err(error) => Err(error.into()),
    }
}

async fn connect(
    engine: &Engine,
    id: &str,
    networks: Vec<(String, Fields)>,
    leave: Option<String>,
) -> anyhow::Result<()> {
    for (network, endpoint) in networks {
        let body = json!({ "Container": id, "EndpointConfig": endpoint });
        let connected = engine.post(&format!("/networks/{network}/connect"), &[], Some(&body), Some(PATIENCE)).await;
        connected.with_context(|| format!("connect it to the network {network}"))?;
    }
    if let Some(network) = leave {
        let body = json!({ "Container": id, "Force": true });
        let left = engine.post(&format!("/networks/{network}/disconnect"), &[], Some(&body), Some(PATIENCE)).await;
        left.with_context(|| format!("take it out of the network {network}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(config: Value, host: Value, endpoints: &[(&str, Value)]) -> Spec {
        let endpoints: Fields =
            endpoints.iter().map(|(name, endpoint)| ((*name).to_owned(), endpoint.clone())).collect();
        let image = json!({ "id": "sha256:ab", "name": "app:1", "defaults": {} });
        let all = json!({
            "name": "blog", "image": image, "config": config, "host": host, "endpoints": endpoints, "volumes": [], "networks": [],
            "of_tomorrow": 1,
        });
        let spec: Spec = serde_json::from_value(all.clone()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), all, "what a newer version wrote is kept");
        spec
    }

    fn plan(spec: &Spec, creation: &Creation, many: bool) -> Plan {
        spec.plan("app:1", &Fields::new(), creation, many).unwrap()
    }

    #[test]
    fn older_engines_create_in_one_network_and_newer_ones_in_all() {
        let address = json!({ "IPAMConfig": { "IPv4Address": "10.0.0.2" } });
        let networks = [("front", address.clone()), ("back", json!({ "Aliases": ["db"] }))];
        let spec = spec(json!({ "MacAddress": "02:00:00:00:00:01" }), json!({ "NetworkMode": "front" }), &networks);
        let older = plan(&spec, &Creation::default(), false);
        assert_eq!(older.body["NetworkingConfig"]["EndpointsConfig"], json!({ "front": address }));
        assert_eq!(older.body["MacAddress"], "02:00:00:00:00:01");
        assert_eq!(older.connect.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["back"]);
        let newer = plan(&spec, &Creation::default(), true);
        assert!(newer.connect.is_empty() && !newer.body.contains_key("MacAddress"));
        let all = &newer.body["NetworkingConfig"]["EndpointsConfig"];
        assert_eq!(
            (&all["front"]["MacAddress"], &all["back"]["Aliases"]),
            (&json!("02:00:00:00:00:01"), &json!(["db"]))
        );
    }

    #[test]
    fn a_network_that_it_has_left_is_left_again() {
        let spec = spec(json!({}), json!({ "NetworkMode": "default" }), &[("front", json!({}))]);
        let plan = plan(&spec, &Creation::default(), false);
        assert_eq!(plan.leave.as_deref(), Some("bridge"));
        assert_eq!(plan.body["NetworkingConfig"]["EndpointsConfig"], json!({}));
    }

    #[test]
    fn a_copy_reads_other_volumes_and_no_host_network_has_room_for_two() {
        let mounts = json!({
            "Binds": ["data:/data", "/srv:/srv:rw,rshared", "kept:/kept:ro"], "NetworkMode": "bridge",
            "Mounts": [{ "Type": "volume", "Source": "data" }, { "Type": "tmpfs" }], "VolumesFrom": ["other"], "AutoRemove": true,
        });
        let volumes = BTreeMap::from([("data".to_owned(), "new".to_owned())]);
        let copy = Creation { beside: true, read_only_mounts: true, volumes, ..Creation::default() };
        let host = &plan(&spec(json!({}), mounts, &[]), &copy, false).body["HostConfig"];
        assert_eq!(host["Binds"], json!(["new:/data:ro", "/srv:/srv:rshared,ro", "kept:/kept:ro"]));
        assert_eq!(
            host["Mounts"],
            json!([{ "Type": "volume", "Source": "new", "ReadOnly": true }, { "Type": "tmpfs" }])
        );
        assert_eq!((&host["VolumesFrom"], &host["AutoRemove"]), (&json!(["other:ro"]), &json!(false)));
        let host = spec(json!({}), json!({ "NetworkMode": "host" }), &[]);
        assert!(host.plan("app:1", &Fields::new(), &copy, false).is_err());
    }
}
