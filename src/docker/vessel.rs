//! A volume that files are brought back into: made as the one that it is to stand in for, and where its files are on this machine.
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::{
    client::{Engine, EngineError, PATIENCE},
    own,
    volume::Volume,
};

/// What tells Docker that nobody named a volume, so that it may be pruned.
const NAMELESS: &str = "com.docker.volume.anonymous";

/// A volume that nothing runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vessel {
    /// Its name.
    pub name: String,
    /// Where its files are.
    pub seat: Seat,
    /// It was not there before.
    pub is_new: bool,
}

/// Whether a volume's files can be written from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seat {
    /// In this folder.
    Here(PathBuf),
    /// They cannot, and why.
    Hidden(String),
}

impl Engine {
    /// The volume `name`, made with the driver, options and labels of `like` if it is not there.
    ///
    /// # Errors
    /// When a container that is up uses it. One that was made is removed again when the engine does not answer any more.
    pub async fn vessel(&self, name: &str, like: &str) -> anyhow::Result<Vessel> {
        self.refuse_in_use(name).await?;
        let (volume, is_new) = match self.volume(name).await {
            Ok(volume) => (volume, false),
            Err(EngineError::NotFound(_)) => (self.make_like(name, like).await?, true),
            Err(error) => return Err(error).with_context(|| format!("look at the volume `{name}`")),
        };
        match self.seat(&volume).await {
            Ok(seat) => Ok(Vessel { name: name.to_owned(), seat, is_new }),
            Err(error) if is_new => Err(match self.remove_volume(name).await {
                Ok(()) => error,
                Err(left) => error.context(format!("the volume `{name}` was made and could not be removed ({left})")),
            }),
            Err(error) => Err(error),
        }
    }

    /// Fails when a container that is up uses the volume.
    ///
    /// # Errors
    /// Then, and when the engine does not answer.
    pub async fn refuse_in_use(&self, name: &str) -> anyhow::Result<()> {
        self.refuse_in_use_but(name, "").await
    }

    /// The same, where the container `ours` is meant to use it.
    ///
    /// # Errors
    /// When another does, and when the engine does not answer.
    pub async fn refuse_in_use_but(&self, name: &str, ours: &str) -> anyhow::Result<()> {
        let own = own::own_id();
        for listed in self.containers().await.context("list the containers")? {
            if !listed.state.is_up() || own.as_deref() == Some(listed.id.as_str()) || listed.name == ours {
                continue;
            }
            let container = match self.container(&listed.id).await {
                Ok(container) => container,
                Err(EngineError::NotFound(_)) => continue,
                Err(error) => return Err(error).with_context(|| format!("look at the container {}", listed.name)),
            };
            if container.mounts().iter().any(|mount| mount.volume.as_deref() == Some(name)) {
                bail!(
                    "the container {0} uses the volume `{name}`, so nothing is written to it: choose another name, or `docker stop {0}` first",
                    listed.name
                );
            }
        }
        Ok(())
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// When one does, or the engine does not answer.
    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.delete(&format!("/volumes/{name}"), &[]).await.map(drop)
    }

    async fn make_like(&self, name: &str, like: &str) -> anyhow::Result<Volume> {
        let model = match self.volume(like).await {
            Ok(model) => model,
            Err(EngineError::NotFound(_)) => Volume::of(json!({ "Driver": "local" })),
            Err(error) => return Err(error).with_context(|| format!("look at the volume `{like}`")),
        };
        if let Some(kind) = model.mounted_kind() {
            bail!(
                "`{like}` is a volume of the type {kind}, and one with the same options would be the same files: make an empty volume with \
                 `docker volume create {name}` and say the command again"
            );
        }
        let mut labels = model.raw()["Labels"].as_object().cloned().unwrap_or_default();
        labels.remove(NAMELESS);
        let mut asked = Map::new();
        asked.insert("Name".to_owned(), name.into());
        asked.insert("Driver".to_owned(), model.driver().into());
        asked.insert("Labels".to_owned(), labels.into());
        if let Some(options) = model.raw()["Options"].as_object() {
            asked.insert("DriverOpts".to_owned(), options.clone().into());
        }
        let made = self.post("/volumes/create", &[], Some(&Value::from(asked)), Some(PATIENCE)).await;
        made.map(Volume::of).with_context(|| format!("create the volume `{name}`"))
    }

    async fn seat(&self, volume: &Volume) -> anyhow::Result<Seat> {
        let name = volume.name();
        let Some(there) = volume.folder() else {
            return Ok(Seat::Hidden(format!("the files of the volume `{name}` lie where only a container sees them")));
        };
        let own = self.own_container().await?;
        if self.is_elsewhere(own.as_ref()) {
            let at = self.address();
            return Ok(Seat::Hidden(format!(
                "the volume `{name}` lies on the machine of the engine at {at}, and that is not this one"
            )));
        }
        let here = match own {
            None => there.clone(),
            Some(own) => match own::seen_in(&own.mounts(), &there) {
                Some(here) => here,
                None => {
                    return Ok(Seat::Hidden(format!(
                        "the volume `{name}` lies at {} on the host, which this container does not see",
                        there.display()
                    )));
                }
            },
        };
        // What may be read may still not be written, which whoever writes is told; what is not seen is for others to write.
        Ok(match std::fs::read_dir(&here) {
            Ok(_) => Seat::Here(here),
            Err(error) => Seat::Hidden(format!(
                "the volume `{name}` lies at {}, which is not to be seen here ({error})",
                there.display()
            )),
        })
    }
}
