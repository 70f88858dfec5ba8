//! A volume that files are brought back into: made as the one that it is to stand in for, and where its files are on this machine.
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use super::{
    client::{Engine, EngineError, PATIENCE},
    once::{Helping, Once, VolumeMount},
    own,
    volume::Volume,
};

/// The folder in a volume in which what is brought back is written until it is whole.
pub const UNFINISHED: &str = ".rusuban-restore";

/// Where a container of ours has a volume.
pub const INSIDE: &str = "/rusuban/volume";

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

/// Whether a name is one that we, or the restore that we ask, give to what is not whole yet.
#[must_use]
pub fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(UNFINISHED.as_bytes()) || name.starts_with(format!(".{UNFINISHED}.rusuban-").as_bytes())
}

/// Whether there is nothing in a volume, or something unfinished.
///
/// # Errors
/// When it cannot be looked into.
pub fn is_unfilled(folder: &Path) -> std::io::Result<bool> {
    let entries = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    Ok(entries.is_empty() || entries.iter().any(|entry| is_unfinished(&entry.file_name())))
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
        let is_unfilled = match self.seat(&volume).await.with_context(what)? {
            Seat::Here(folder) => {
                let looking = tokio::task::spawn_blocking(move || is_unfilled(&folder));
                looking.await.context("a thread died")?.with_context(what)?
            }
            Seat::Hidden(_) => self.is_unfilled_there(name).await.with_context(what)?,
        };
        if is_unfilled {
            match self.remove_volume(name).await {
                Ok(()) | Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => {}
                Err(error) => return Err(error).with_context(what),
            }
        }
        Ok(())
    }

    /// Has a container of this program look, where we cannot.
    async fn is_unfilled_there(&self, name: &str) -> anyhow::Result<bool> {
        let program = self.helper().await?;
        let once = Once {
            // One that was left behind is found under the same name by the next who looks.
            name: format!("rusuban-look-{name}"),
            mark: "look".to_owned(),
            image: program.image,
            entrypoint: Some(vec![program.path]),
            arguments: Some(["volume-helper", "look", INSIDE].map(str::to_owned).to_vec()),
            folder: Some("/".to_owned()),
            volumes: vec![VolumeMount { source: name.to_owned(), target: INSIDE.to_owned(), read_only: true }],
            helper: Some(Helping { capabilities: vec!["DAC_READ_SEARCH"], spool: None }),
            ..Once::default()
        };
        self.remove_once(&once.name, &once.mark).await?;
        let looking = async {
            let mut working = self.create_once(&once).await?;
            working.start().await?;
            let (mut output, mut said) = (working.output(), Vec::new());
            while !said.ends_with(b"\n") {
                said.extend_from_slice(&output.next().await.context("the container ended without a word")??);
                ensure!(said.len() < 100, "what the container says is too long");
            }
            let said: Value = serde_json::from_slice(&said).context("what the container says is no JSON")?;
            said["unfilled"].as_bool().context("the container does not say how it is")
        };
        let looked = looking.await;
        self.remove_once(&once.name, &once.mark).await?;
        looked
    }

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
