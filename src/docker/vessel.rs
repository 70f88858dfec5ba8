//! A volume that files are brought back into: made as the one that it is to stand in for, and where its files are on this machine.
use std::{ffi::OsStr, path::PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::{
    client::{Engine, EngineError, PATIENCE},
    own,
    volume::Volume,
};

/// The folder in a volume in which what is brought back is written until it is whole.
pub const UNFINISHED: &str = ".rusuban-restore";

/// What tells Docker that nobody named a volume, so that it may be pruned.
const NAMELESS: &str = "com.docker.volume.anonymous";

/// A volume that nothing runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vessel {
    /// Its name.
    pub name: String,
    /// Where its files are here.
    pub folder: PathBuf,
    /// It was not there before.
    pub is_new: bool,
}

/// Whether a name is one that we, or the restore that we ask, give to what is not whole yet.
#[must_use]
pub fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(UNFINISHED.as_bytes()) || name.starts_with(format!(".{UNFINISHED}.rusuban-").as_bytes())
}

impl Engine {
    /// Removes a volume that was made to be filled and is not whole: there is nothing in it, or something unfinished. Any other is
    /// left alone, and so is one that a container uses.
    ///
    /// # Errors
    /// When the engine does not answer, or the volume cannot be looked into.
    pub async fn remove_unfilled(&self, name: &str) -> anyhow::Result<()> {
        let what = || format!("remove the volume `{name}`, which is not whole");
        let volume = match self.volume(name).await {
            Ok(volume) => volume,
            Err(EngineError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error).with_context(what),
        };
        let folder = self.folder_here(&volume).await.with_context(what)?;
        let looking = tokio::task::spawn_blocking(move || -> std::io::Result<bool> {
            let entries = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
            Ok(entries.is_empty() || entries.iter().any(|entry| is_unfinished(&entry.file_name())))
        });
        if looking.await.context("a thread died")?.with_context(what)? {
            match self.remove_volume(name).await {
                Ok(()) | Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => {}
                Err(error) => return Err(error).with_context(what),
            }
        }
        Ok(())
    }

    /// The volume `name`, made with the driver, options and labels of `like` if it is not there.
    ///
    /// # Errors
    /// When a container that is up uses it, or its files cannot be reached from here. One that was made is removed again then.
    pub async fn vessel(&self, name: &str, like: &str) -> anyhow::Result<Vessel> {
        self.refuse_in_use(name).await?;
        let (volume, is_new) = match self.volume(name).await {
            Ok(volume) => (volume, false),
            Err(EngineError::NotFound(_)) => (self.make_like(name, like).await?, true),
            Err(error) => return Err(error).with_context(|| format!("look at the volume `{name}`")),
        };
        match self.folder_here(&volume).await {
            Ok(folder) => Ok(Vessel { name: name.to_owned(), folder, is_new }),
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
        let own = own::own_id();
        for listed in self.containers().await.context("list the containers")? {
            if !listed.state.is_up() || own.as_deref() == Some(listed.id.as_str()) {
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

    async fn folder_here(&self, volume: &Volume) -> anyhow::Result<PathBuf> {
        let name = volume.name();
        let Some(there) = volume.folder() else {
            bail!(
                "the files of the volume `{name}` lie where only a container sees them; choose a plain `local` volume"
            );
        };
        let here = match self.own_container().await? {
            None => there.clone(),
            Some(own) => own::seen_in(&own.mounts(), &there).with_context(|| {
                format!(
                    "the volume `{name}` lies at {} on the host, which this container does not see: start it with \
                     `-v /var/lib/docker/volumes:/var/lib/docker/volumes`",
                    there.display()
                )
            })?,
        };
        if !here.is_dir() {
            bail!(
                "the volume `{name}` lies at {}, which is not to be seen here: run this as root on the engine's host",
                there.display()
            );
        }
        Ok(here)
    }
}
