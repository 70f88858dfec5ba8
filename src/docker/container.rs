//! Containers: which there are, what one is, and what is done to it.
use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use reqwest::Method;
use serde_json::Value;

use super::client::{Engine, EngineError, PATIENCE};
use crate::http;

/// Places of a host that are bound into many containers, and hold nothing of theirs.
const OF_THE_SYSTEM: [&str; 8] =
    ["/dev", "/proc", "/sys", "/run", "/var/run", "/etc/localtime", "/etc/timezone", "/lib/modules"];

/// A line of the list of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its 64 hexadecimal digits.
    pub id: String,
    /// Its name, without the engine's `/`.
    pub name: String,
    /// What it does.
    pub state: State,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it was created from, as it was written then; may be another image by now.
    pub image: String,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has never run.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended and is about to be started again.
    Restarting,
    /// It has ended.
    Exited,
    /// It is being removed, is dead, or is in a state that we do not know.
    Other,
}

impl State {
    fn read(word: &str) -> Self {
        match word {
            "created" | "configured" | "initialized" => Self::Created,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "exited" | "stopped" => Self::Exited,
            _ => Self::Other,
        }
    }

    /// Whether it holds a process, frozen or not.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// Something mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `volume`, `bind`, `tmpfs` …
    pub kind: String,
    /// The volume's name.
    pub volume: Option<String>,
    /// Where it is on the engine's host.
    pub source: String,
    /// Where the container sees it.
    pub target: String,
    /// Whether the container may write to it.
    pub is_writable: bool,
}

impl Mount {
    /// What people call it: the volume's name, or where the container has it if that is no name for people.
    #[must_use]
    pub fn title(&self) -> String {
        let is_nameless = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        match self.volume.as_deref().filter(|name| !is_nameless(name)) {
            Some(name) => name.to_owned(),
            None => Some(self.target.trim_matches('/').replace('/', "-"))
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "root".into()),
        }
    }

    /// Whether it is a part of the host's system that is lent to the container: sockets, clocks and devices, not worth keeping.
    #[must_use]
    pub fn is_of_the_system(&self) -> bool {
        let source = Path::new(&self.source);
        self.kind == "bind" && OF_THE_SYSTEM.iter().any(|place| source.starts_with(place))
    }
}

/// All that the engine says of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container(Value);

impl Container {
    /// From the engine's words.
    #[must_use]
    pub fn of(inspected: Value) -> Self {
        Self(inspected)
    }

    /// The engine's words, all of them.
    #[must_use]
    pub fn raw(&self) -> &Value {
        &self.0
    }

    /// Its 64 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0["Id"].as_str().unwrap_or_default()
    }

    /// Its name, without the engine's `/`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0["Name"].as_str().unwrap_or_default().trim_start_matches('/')
    }

    /// The image that it was created from, by its digest.
    #[must_use]
    pub fn image_id(&self) -> &str {
        self.0["Image"].as_str().unwrap_or_default()
    }

    /// What it was created from, as it was written then.
    #[must_use]
    pub fn image(&self) -> &str {
        self.0["Config"]["Image"].as_str().unwrap_or_default()
    }

    /// One of its labels.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.0["Config"]["Labels"][name].as_str()
    }

    /// All of its labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.0["Config"]["Labels"].as_object().into_iter().flatten();
        labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    }

    /// What it does.
    #[must_use]
    pub fn state(&self) -> State {
        State::read(self.0["State"]["Status"].as_str().unwrap_or_default())
    }

    /// When it was started the last time, in the engine's words.
    #[must_use]
    pub fn started(&self) -> &str {
        self.0["State"]["StartedAt"].as_str().unwrap_or_default()
    }

    /// Whether it has run at some time.
    #[must_use]
    pub fn has_run(&self) -> bool {
        !self.started().is_empty() && !self.started().starts_with("0001-")
    }

    /// What it has to end by itself when it is stopped.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        match self.0["Config"]["StopTimeout"].as_i64() {
            // Docker waits for ever then. So long is for ever to us.
            Some(seconds) if seconds < 0 => Duration::from_secs(24 * 3600),
            Some(seconds) => Duration::from_secs(seconds.unsigned_abs()),
            None => Duration::from_secs(10),
        }
    }

    /// Whether the engine removes it when it ends (`docker run --rm`).
    #[must_use]
    pub fn is_removed_at_its_end(&self) -> bool {
        self.0["HostConfig"]["AutoRemove"].as_bool().unwrap_or_default()
    }

    /// Bytes of its writable layer; only when they were asked for.
    #[must_use]
    pub fn written(&self) -> Option<u64> {
        self.0["SizeRw"].as_u64()
    }

    /// What is mounted in it, ordered by target.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mount> {
        let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        let mount = |mount: &Value| Mount {
            kind: text(&mount["Type"]),
            volume: mount["Name"].as_str().map(str::to_owned),
            source: text(&mount["Source"]),
            target: text(&mount["Destination"]),
            is_writable: mount["RW"].as_bool().unwrap_or(true),
        };
        let mut mounts: Vec<Mount> = self.0["Mounts"].as_array().into_iter().flatten().map(mount).collect();
        mounts.sort_by(|one, other| one.target.cmp(&other.target));
        mounts
    }

    /// Whether it is this container that answers at `host:port`, seen from another container or from the host.
    #[must_use]
    pub fn answers_at(&self, at: &str) -> bool {
        let (host, port) = at.rsplit_once(':').unwrap_or((at, ""));
        let host = host.trim_matches(['[', ']']);
        let settings = &self.0["NetworkSettings"];
        let networks = settings["Networks"].as_object().into_iter().flatten();
        let in_a_network = networks.into_iter().any(|(_, network)| {
            let aliases = network["Aliases"].as_array().into_iter().flatten();
            network["IPAddress"] == host || aliases.into_iter().any(|alias| alias == host)
        });
        let ports = settings["Ports"].as_object().into_iter().flatten();
        let is_published = || {
            let bindings = ports.into_iter().flat_map(|(_, bindings)| bindings.as_array().into_iter().flatten());
            !port.is_empty() && bindings.into_iter().any(|binding| binding["HostPort"] == port)
        };
        let is_this_host = matches!(host, "localhost" | "127.0.0.1" | "::1" | "host.docker.internal" | "172.17.0.1");
        self.name() == host || in_a_network || (is_this_host && is_published())
    }
}

impl Engine {
    /// All containers, whatever they do, ordered by name.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn containers(&self) -> Result<Vec<Listed>, EngineError> {
        let said = self.get("/containers/json", &[("all", "1")]).await?;
        let mut all: Vec<Listed> = said.as_array().into_iter().flatten().filter_map(listed).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// A container by its name or id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn container(&self, name: &str) -> Result<Container, EngineError> {
        Ok(Container(self.get(&format!("/containers/{name}/json"), &[]).await?))
    }

    /// The same, with the size of its writable layer, which takes a moment to count.
    ///
    /// # Errors
    /// When there is none.
    pub async fn container_with_size(&self, name: &str) -> Result<Container, EngineError> {
        Ok(Container(self.get(&format!("/containers/{name}/json"), &[("size", "1")]).await?))
    }

    /// The command lines of what runs in it.
    ///
    /// # Errors
    /// When it is not there or does not run.
    pub async fn processes(&self, name: &str) -> Result<Vec<String>, EngineError> {
        let said = self.get(&format!("/containers/{name}/top"), &[("ps_args", "-eo pid,args")]).await?;
        let lines = said["Processes"].as_array().into_iter().flatten();
        Ok(lines.filter_map(|line| Some(line.as_array()?.last()?.as_str()?.to_owned())).collect())
    }

    /// Starts it; one that runs is left alone.
    ///
    /// # Errors
    /// When it is not there or does not start.
    pub async fn start(&self, name: &str) -> Result<(), EngineError> {
        self.post_quick(&format!("/containers/{name}/start"), &[]).await.map(drop)
    }

    /// Asks it to end and, after `grace`, kills it; with none its own grace period counts. One that has ended is left alone.
    ///
    /// # Errors
    /// When it is not there or cannot be stopped.
    pub async fn stop(&self, name: &str, grace: Option<Duration>) -> Result<(), EngineError> {
        let seconds = grace.map(|grace| grace.as_secs().to_string());
        let query = seconds.iter().map(|seconds| ("t", seconds.as_str())).collect::<Vec<_>>();
        self.post(&format!("/containers/{name}/stop"), &query, None, None).await.map(drop)
    }

    /// Freezes it.
    ///
    /// # Errors
    /// When it is not there, does not run, or is frozen.
    pub async fn pause(&self, name: &str) -> Result<(), EngineError> {
        self.post_quick(&format!("/containers/{name}/pause"), &[]).await.map(drop)
    }

    /// Thaws it.
    ///
    /// # Errors
    /// When it is not there or is not frozen.
    pub async fn unpause(&self, name: &str) -> Result<(), EngineError> {
        self.post_quick(&format!("/containers/{name}/unpause"), &[]).await.map(drop)
    }

    /// Sets its restart policy, in the engine's words.
    ///
    /// # Errors
    /// When it is not there, or the engine cannot.
    pub async fn set_restart(&self, name: &str, policy: &Value) -> Result<(), EngineError> {
        let body = serde_json::json!({ "RestartPolicy": policy });
        self.post(&format!("/containers/{name}/update"), &[], Some(&body), Some(PATIENCE)).await.map(drop)
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// When it is not there or the name is taken.
    pub async fn rename(&self, name: &str, to: &str) -> Result<(), EngineError> {
        self.post_quick(&format!("/containers/{name}/rename"), &[("name", to)]).await.map(drop)
    }

    /// Its files as a tar, without those of volumes and other mounts. It goes on meanwhile.
    ///
    /// # Errors
    /// When it is not there; within the stream, when the connection breaks.
    pub async fn export(
        &self,
        name: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, EngineError>> + Send + use<>, EngineError> {
        let response = self.open(Method::GET, &format!("/containers/{name}/export"), &[], None).await?;
        Ok(response.bytes_stream().map_err(|error| EngineError::Broken(http::why(error))))
    }

    /// Removes one, and kills it if it runs. Its volumes stay.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn remove_container_now(&self, name: &str) -> Result<(), EngineError> {
        self.delete(&format!("/containers/{name}"), &[("force", "1")]).await.map(drop)
    }

    /// Removes one that has ended. Its volumes stay.
    ///
    /// # Errors
    /// When it is not there, or runs.
    pub async fn remove_container(&self, name: &str) -> Result<(), EngineError> {
        self.delete(&format!("/containers/{name}"), &[]).await.map(drop)
    }
}

fn listed(said: &Value) -> Option<Listed> {
    let names = said["Names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    // Links give a container further names, such as `/web/db`.
    let name = names.map(|name| name.trim_start_matches('/')).min_by_key(|name| name.matches('/').count())?;
    let labels = said["Labels"].as_object().into_iter().flatten();
    Some(Listed {
        id: said["Id"].as_str()?.to_owned(),
        name: name.to_owned(),
        state: State::read(said["State"].as_str().unwrap_or_default()),
        labels: labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
        image: said["Image"].as_str().unwrap_or_default().to_owned(),
    })
}
