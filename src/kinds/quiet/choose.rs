//! Which containers write to what is read, and which of them must not be made quiet.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::{Touched, Way};
use crate::docker::{
    Container, Engine, Mount, State,
    own::{Need, Ours},
};

/// The containers that are up.
pub(super) struct Users {
    up: Vec<Container>,
    /// Ids of those that write to it.
    writing: Vec<String>,
    /// Those that must go on.
    ours: Ours,
}

impl Users {
    /// Asks the engine.
    pub(super) async fn of(engine: &Engine, touched: &Touched) -> anyhow::Result<Self> {
        let mut up = Vec::new();
        for listed in engine.containers().await.context("list the containers")? {
            if !listed.state.is_up() {
                continue;
            }
            match engine.container(&listed.id).await {
                Ok(container) => up.push(container),
                // It ended and was removed a moment ago.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error).with_context(|| format!("look at the container `{}`", listed.name)),
            }
        }
        Ok(Self::among(up, touched, engine.ours(touched.servers.iter().cloned()).await?))
    }

    fn among(up: Vec<Container>, touched: &Touched, ours: Ours) -> Self {
        let writing = |container: &&Container| container.mounts().iter().any(|mount| writes(mount, touched));
        let writing = up.iter().filter(writing).map(|container| container.id().to_owned()).collect();
        Self { up, writing, ours }
    }

    /// Those that may write at this moment; one that is paused does not.
    pub(super) fn writers(&self) -> Vec<&Container> {
        self.up
            .iter()
            .filter(|one| self.writing.iter().any(|id| id == one.id()) && one.state() != State::Paused)
            .collect()
    }

    /// Those that must be quiet: who writes, and, when those are stopped, who lives in their network and would lose it.
    pub(super) fn group(&self, way: Way) -> Vec<Container> {
        let mut group: Vec<Container> = self.writers().into_iter().cloned().collect();
        if way == Way::Stop {
            loop {
                let lives_in_it = |one: &&Container| {
                    let host = one.lives_in_network_of();
                    one.state() != State::Paused
                        && !group.iter().any(|other| other.id() == one.id())
                        && host.is_some_and(|host| group.iter().any(|other| other.is_called(host)))
                };
                let Some(more) = self.up.iter().find(lives_in_it).cloned() else { break };
                group.push(more);
            }
        }
        group
    }

    /// Fails for one that must not be made quiet, and says what to do instead.
    pub(super) fn refuse(&self, container: &Container, way: Way) -> anyhow::Result<()> {
        let name = container.name();
        let verb = if way == Way::Pause { "pause" } else { "stop" };
        match self.ours.need(container) {
            Some(Need::Itself) => bail!(
                "`{name}` is the container that Rusuban runs in, and writes to this volume: mount it there read-only (`:ro`)"
            ),
            Some(Need::Way) => bail!(
                "`{name}` is how Rusuban reaches the Docker engine: it cannot {verb} that; use `consistency = \"none\"`"
            ),
            Some(Need::Server) => bail!(
                "`{name}` is the server that this backup is stored in: it cannot {verb} that; use `consistency = \"none\"`, or another bucket"
            ),
            None => {}
        }
        if way == Way::Stop && container.is_removed_at_its_end() {
            bail!(
                "`{name}` was started with `--rm` and would be gone when it is stopped; use `consistency = \"pause\"`"
            );
        }
        if way == Way::Stop && container.label("com.docker.swarm.task.id").is_some() {
            bail!(
                "`{name}` belongs to a swarm service, which starts another when it is stopped; use `consistency = \"pause\"`"
            );
        }
        if way == Way::Pause && container.state() == State::Restarting {
            bail!(
                "`{name}` ends and is restarted again and again, and cannot be paused; mend it, or use `consistency = \"stop\"`"
            );
        }
        Ok(())
    }
}

fn writes(mount: &Mount, touched: &Touched) -> bool {
    let is_touched = match &mount.volume {
        Some(volume) => touched.volumes.contains(volume),
        None => {
            let source = Path::new(&mount.source);
            let is_of = |folder: &PathBuf| source.starts_with(folder) || touched.readers && folder.starts_with(source);
            mount.kind == "bind" && touched.folders.iter().any(is_of)
        }
    };
    (mount.is_writable || touched.readers) && is_touched
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(name: &str, more: serde_json::Value) -> Container {
        let mut said = json!({
            "Id": format!("{name:0<64}"),
            "Name": format!("/{name}"),
            "State": { "Status": "running" },
            "Mounts": [{ "Type": "volume", "Name": "data", "Source": "/v/data", "Destination": "/data", "RW": true }],
            "Config": {},
            "HostConfig": {},
        });
        for (key, value) in more.as_object().unwrap() {
            said[key] = value.clone();
        }
        Container::of(said)
    }

    fn touched() -> Touched {
        Touched { volumes: ["data".to_owned()].into(), folders: vec!["/srv/app".into()], ..Touched::default() }
    }

    fn group(way: Way, more: Vec<Container>) -> String {
        let users = Users::among(more, &touched(), Ours::default());
        users.group(way).iter().map(Container::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn those_that_write_are_meant_and_those_that_only_read_or_stand_still_are_not() {
        let mount = |kind: &str, source: &str, rw: bool| json!({ "Mounts": [{ "Type": kind, "Source": source, "Destination": "/x", "RW": rw }] });
        let all = || {
            vec![
                container("a", json!({})),
                container("paused", json!({ "State": { "Status": "paused" } })),
                container("reader", json!({ "Mounts": [{ "Type": "volume", "Name": "data", "RW": false }] })),
                container("other", json!({ "Mounts": [{ "Type": "volume", "Name": "other", "RW": true }] })),
                container("bound", mount("bind", "/srv/app/sub", true)),
                container("beside", mount("bind", "/srv/app2", true)),
                container("inside", json!({ "Mounts": [], "HostConfig": { "NetworkMode": "container:a" } })),
                container("deeper", json!({ "Mounts": [], "HostConfig": { "NetworkMode": "container:inside" } })),
            ]
        };
        assert_eq!(group(Way::Pause, all()), "a bound");
        assert_eq!(group(Way::Stop, all()), "a bound inside deeper");
    }

    #[test]
    fn what_must_go_on_is_refused_with_a_reason() {
        let refuse = |container: &Container, way, engine: &str| {
            let servers = vec!["s3:9000".to_owned(), "localhost:9001".to_owned()];
            let ours = Ours { own: Some(format!("{:0<64}", "own")), way: Some(engine.to_owned()), servers };
            let users = Users::among(vec![container.clone()], &touched(), ours);
            users.refuse(container, way).map_err(|error| error.to_string())
        };
        let plain = |name: &str| container(name, json!({}));
        let in_network = container("x", json!({ "NetworkSettings": { "Networks": { "n": { "Aliases": ["s3"] } } } }));
        let published =
            container("y", json!({ "NetworkSettings": { "Ports": { "9000/tcp": [{ "HostPort": "9001" }] } } }));
        let rm = container("rm", json!({ "HostConfig": { "AutoRemove": true } }));
        let task = container("t", json!({ "Config": { "Labels": { "com.docker.swarm.task.id": "1" } } }));
        let crashing = container("c", json!({ "State": { "Status": "restarting" } }));
        for (container, way, expected) in [
            (plain("a"), Way::Stop, None),
            (plain("own"), Way::Pause, Some("runs in")),
            (plain("proxy"), Way::Pause, Some("reaches the Docker engine")),
            (plain("s3"), Way::Stop, Some("stored in")),
            (in_network, Way::Pause, Some("stored in")),
            (published, Way::Pause, Some("stored in")),
            (rm.clone(), Way::Stop, Some("--rm")),
            (rm, Way::Pause, None),
            (task.clone(), Way::Stop, Some("swarm")),
            (task, Way::Pause, None),
            (crashing.clone(), Way::Pause, Some("again and again")),
            (crashing, Way::Stop, None),
        ] {
            let said = refuse(&container, way, "proxy:2375");
            match expected {
                None => assert_eq!(said, Ok(())),
                Some(part) => assert!(said.as_ref().is_err_and(|said| said.contains(part)), "{said:?}"),
            }
        }
    }
}
