//! What is needed to create a container again: its configuration, mounts, networks and limits, and the volumes and networks that
//! it uses. A value that can be kept as JSON, made from the engine's own words, so that fields that we have never heard of stay.
//!
//! It holds the environment of the container, passwords and all: it is kept encrypted, and never printed.
mod config;
mod create;
mod host;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    client::{Engine, EngineError},
    container::Container,
    image::{Image, repository_of},
    snapshots::label,
};
pub use create::{Created, Creation, Defaults};

type Fields = Map<String, Value>;

/// The label of a container that a swarm made.
const SWARM: &str = "com.docker.swarm.service.id";
/// What a network is made of; the rest of what the engine says of it is its present state.
const NETWORK: [&str; 12] = [
    "Name",
    "Driver",
    "EnableIPv4",
    "EnableIPv6",
    "IPAM",
    "Internal",
    "Attachable",
    "Ingress",
    "ConfigFrom",
    "ConfigOnly",
    "Options",
    "Labels",
];
/// What a container asks of a network; the rest is what it got.
const ENDPOINT: [&str; 5] = ["IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority"];
/// What a volume is made of.
const VOLUME: [(&str, &str); 4] =
    [("Name", "Name"), ("Driver", "Driver"), ("Options", "DriverOpts"), ("Labels", "Labels")];
/// Networks that every engine has.
const BUILT_IN: [&str; 5] = ["default", "bridge", "host", "none", "podman"];

/// Everything that is needed to create a container again.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// What it was created from.
    pub image: Origin,
    /// What differs from the image's defaults.
    pub config: Fields,
    /// Mounts, ports, limits, devices and so on: the engine's `HostConfig`. Other containers are called by name, and each
    /// volume is named.
    pub host: Fields,
    /// What it asks of each network that it is in.
    pub endpoints: BTreeMap<String, Fields>,
    /// The volumes that are mounted in it.
    pub volumes: Vec<Fields>,
    /// The networks that it is in, without those that every engine has.
    pub networks: Vec<Fields>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub more: Fields,
}

/// The image that a container was created from.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Its digest.
    pub id: String,
    /// As it was written then; that name may be another image's by now.
    pub name: String,
    /// Its defaults. Of a snapshot those of the image below it: a snapshot repeats what its container was told.
    pub defaults: Fields,
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spec({} of {})", self.name, self.image.name)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({}, {})", self.name, self.id)
    }
}

impl Spec {
    /// What is needed to create this container again.
    ///
    /// # Errors
    /// When it is not there, belongs to a swarm, or the engine does not answer.
    pub async fn of(engine: &Engine, name: &str) -> anyhow::Result<Self> {
        let container = engine.container(name).await?;
        refuse_swarm(&container)?;
        let names: BTreeMap<String, String> =
            engine.containers().await?.into_iter().map(|one| (one.id, one.name)).collect();
        let defaults = defaults(engine, container.image_id()).await?;
        let lent = lent_volumes(engine, &container).await?;
        let raw = container.raw();
        let mut whole = object(&raw["Config"]);
        config::forget_snapshot(&mut whole);
        let host = host::portable(raw, &names, &lent);
        if host::forbids_hostname(&host)
            || is_own_id(&whole, container.id())
            || is_hosts_name(&whole, &host, engine).await?
        {
            whole.remove("Hostname");
        }
        let (endpoints, networks) = networks(engine, &container).await?;
        Ok(Self {
            name: container.name().to_owned(),
            image: Origin {
                id: container.image_id().to_owned(),
                name: container.image().to_owned(),
                defaults: defaults.clone(),
            },
            config: config::difference(&whole, &defaults),
            host,
            endpoints,
            volumes: volumes(engine, &container).await?,
            networks,
            more: Fields::new(),
        })
    }

    /// The whole configuration, the image's defaults with it.
    #[must_use]
    pub fn effective(&self) -> Fields {
        config::effective(&self.config, &self.image.defaults)
    }

    /// The compose project that it belongs to.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.config.get("Labels")?["com.docker.compose.project"].as_str()
    }

    /// A name of the image that it was created from: the one written then while it still is that image's, else its digest.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn image_name(&self, engine: &Engine) -> Result<&str, EngineError> {
        if repository_of(&self.image.name).is_none() {
            return Ok(&self.image.id);
        }
        match engine.image(&self.image.name).await {
            Ok(image) if image.id() == self.image.id => Ok(&self.image.name),
            Ok(_) | Err(EngineError::NotFound(_)) => Ok(&self.image.id),
            Err(error) => Err(error),
        }
    }
}

fn refuse_swarm(container: &Container) -> anyhow::Result<()> {
    if container.label(SWARM).is_some() {
        bail!(
            "the container {} is a task of a swarm's service, which would make another in its place: work on the service, with `docker service`",
            container.name()
        );
    }
    Ok(())
}

/// The defaults of an image; of a snapshot those of the image below it, and none if that is gone.
async fn defaults(engine: &Engine, image: &str) -> Result<Fields, EngineError> {
    let mut next = image.to_owned();
    loop {
        let image = match engine.image(&next).await {
            Ok(image) => image,
            Err(EngineError::NotFound(_)) => return Ok(Fields::new()),
            Err(error) => return Err(error),
        };
        if image.label(label::CONTAINER).is_none() {
            return Ok(image_defaults(&image));
        }
        next = image.raw()["Parent"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            return Ok(Fields::new());
        }
    }
}

/// What an image gives each container that is made of it.
fn image_defaults(image: &Image) -> Fields {
    let mut defaults = object(&image.raw()["Config"]);
    defaults.retain(|_, value| !config::is_empty(value));
    defaults
}

fn is_own_id(config: &Fields, id: &str) -> bool {
    config.get("Hostname").and_then(Value::as_str).is_some_and(|name| !name.is_empty() && id.starts_with(name))
}

/// In the host's network a container has the host's name unless it was told another; on another host it is another.
async fn is_hosts_name(config: &Fields, host: &Fields, engine: &Engine) -> Result<bool, EngineError> {
    if host.get("NetworkMode").and_then(Value::as_str) != Some("host") {
        return Ok(false);
    }
    Ok(config.get("Hostname") == engine.info().await?.get("Name"))
}

/// Volumes that come from another container (`--volumes-from`), by target.
async fn lent_volumes(engine: &Engine, container: &Container) -> Result<BTreeMap<String, String>, EngineError> {
    let mut lent = BTreeMap::new();
    for from in container.raw()["HostConfig"]["VolumesFrom"].as_array().into_iter().flatten() {
        let from = from.as_str().unwrap_or_default();
        match engine.container(from.split(':').next().unwrap_or(from)).await {
            Ok(parent) => {
                lent.extend(parent.mounts().into_iter().filter_map(|mount| Some((mount.target, mount.volume?))))
            }
            Err(EngineError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(lent)
}

async fn volumes(engine: &Engine, container: &Container) -> anyhow::Result<Vec<Fields>> {
    let mut volumes = Vec::new();
    // Ordered: the engine lists mounts as they come.
    let names: BTreeSet<String> = container.mounts().into_iter().filter_map(|mount| mount.volume).collect();
    for name in names {
        let said =
            engine.get(&format!("/volumes/{name}"), &[]).await.with_context(|| format!("look at the volume {name}"))?;
        let kept = VOLUME.iter().map(|(from, to)| ((*to).to_owned(), said[*from].clone()));
        volumes.push(kept.filter(|(_, value)| !config::is_empty(value)).collect());
    }
    Ok(volumes)
}

async fn networks(engine: &Engine, container: &Container) -> anyhow::Result<(BTreeMap<String, Fields>, Vec<Fields>)> {
    let (mut endpoints, mut networks) = (BTreeMap::new(), Vec::new());
    for (name, endpoint) in object(&container.raw()["NetworkSettings"]["Networks"]) {
        endpoints.insert(name.clone(), request(&endpoint, container.id()));
        if BUILT_IN.contains(&name.as_str()) {
            continue;
        }
        let id = endpoint["NetworkID"].as_str().filter(|id| !id.is_empty()).unwrap_or(&name).to_owned();
        let said = match engine.get(&format!("/networks/{id}"), &[]).await {
            // A stopped container may remember a network that was made anew since.
            Err(EngineError::NotFound(_)) if id != name => engine.get(&format!("/networks/{name}"), &[]).await,
            said => said,
        };
        let said = said.with_context(|| format!("look at the network {name}"))?;
        let kept = object(&said)
            .into_iter()
            .filter(|(key, value)| NETWORK.contains(&key.as_str()) && !config::is_empty(value));
        let mut kept: Fields = kept.collect();
        if kept.get("ConfigFrom").is_some_and(|from| config::is_empty(&from["Network"])) {
            kept.remove("ConfigFrom");
        }
        networks.push(kept);
    }
    Ok((endpoints, networks))
}

/// The part of an endpoint that was asked for. Older engines put the container's own short id among its aliases.
fn request(endpoint: &Value, id: &str) -> Fields {
    let mut asked = object(endpoint);
    asked.retain(|name, value| ENDPOINT.contains(&name.as_str()) && !config::is_empty(value));
    if let Some(Value::Array(aliases)) = asked.get_mut("Aliases") {
        aliases.retain(|alias| !alias.as_str().is_some_and(|alias| alias.len() == 12 && id.starts_with(alias)));
    }
    asked.retain(|_, value| !config::is_empty(value));
    asked
}

fn object(value: &Value) -> Fields {
    value.as_object().cloned().unwrap_or_default()
}
