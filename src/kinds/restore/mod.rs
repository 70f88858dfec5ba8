//! What a backup holds comes back into Docker, as a container or into volumes: asked for by a person, so it is no kind that a job file
//! can name.
mod afar;
mod container;
mod folder;
mod opened;
mod place;
mod volume;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use self::opened::Opened;
pub use self::{
    afar::{receive, tell_unfilled},
    container::in_the_way,
};
pub use super::beside::Beside;
use super::{Cx, Kind, Site, Summary};
use crate::{
    config::{mistake::Problem, units::Span},
    docker::{Access, Program, access},
    model::JobName,
    repository::Id,
};

/// What comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restore {
    /// The job whose backup it is, as the person has called it.
    pub job: String,
    /// The backup; none when what was there before a restore is taken back.
    pub backup: Option<Backup>,
    /// The source in it.
    pub source: String,
    /// As what.
    pub what: What,
}

/// A backup, wherever it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backup {
    /// A snapshot in a repository of the settings.
    Repository {
        /// The repository's name.
        name: String,
        /// The snapshot's.
        id: Id,
    },
    /// One in the plain layout, in a bucket of the settings.
    Bucket {
        /// The bucket's name.
        name: String,
        /// The job's.
        job: JobName,
        /// The backup's.
        id: String,
        /// A file of keys.
        identity: Option<PathBuf>,
    },
}

/// As what something comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A container and its image.
    Container {
        /// Its folder in the backup.
        path: PathBuf,
        /// It takes the place of the one that is there.
        replace: bool,
        /// Instead of taking a place: beside it, for a look.
        beside: Option<Beside>,
    },
    /// Volumes that no container runs on.
    Volumes {
        /// Which.
        parts: Vec<Part>,
        /// What is in a volume that is there goes, once the new is whole.
        replace: bool,
    },
    /// New volumes, which take the place of those that containers use.
    InPlace {
        /// Which; the new names are found when it is done.
        parts: Vec<Part>,
        /// How long each container has to become well; else as long as its health check may take.
        wait: Option<Span>,
    },
    /// A folder of the host, exchanged for the one that is there while the containers that have it bound are stopped.
    Folder {
        /// Where it is on the host.
        at: PathBuf,
        /// Where it is in the backup; none to take the old one back.
        path: Option<PathBuf>,
        /// As with [`What::InPlace`].
        wait: Option<Span>,
    },
    /// The volumes that were in place before.
    Undo {
        /// As they were called then.
        volumes: Vec<String>,
        /// As with [`What::InPlace`].
        wait: Option<Span>,
    },
}

/// A volume that comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it was called.
    pub old: String,
    /// The volume that is filled.
    pub new: String,
    /// Where it is in a repository's backup.
    pub path: PathBuf,
}

impl Restore {
    /// As a kind.
    #[must_use]
    pub fn kind(self) -> Arc<dyn Kind> {
        Arc::new(self)
    }

    async fn open(&self, cx: &Cx) -> anyhow::Result<Opened> {
        let backup = self.backup.as_ref().context("no backup is named")?;
        cx.step("open", Opened::open(cx, backup, &self.source)).await
    }
}

/// What restores ask of an engine, for whoever lets through no more than that.
#[must_use]
pub fn needs() -> Vec<Access> {
    vec![
        access::VERSION,
        access::CONTAINERS,
        access::CONTAINER,
        access::IMAGE,
        access::VOLUME,
        access::CREATE_VOLUME,
        access::REMOVE_VOLUME.rarely("remove a volume that could not be filled"),
        access::NETWORK,
        access::CREATE_NETWORK.rarely("make a network that is missing on a new machine"),
        access::CONNECT.rarely("containers in several networks"),
        access::DISCONNECT.rarely("containers in several networks"),
        access::LOAD,
        access::TAG,
        access::CREATE,
        access::UPDATE,
        access::STOP,
        access::RENAME,
        access::START,
        access::REMOVE,
        access::INFO.rarely("take a snapshot of a container that has changed itself"),
        access::COMMIT.rarely("take a snapshot of a container that has changed itself"),
        access::EVENTS.rarely("take a snapshot of a container that has changed itself"),
        access::IMAGES.rarely("take a snapshot of a container that has changed itself"),
    ]
}

/// What they ask besides where volumes cannot be written from here.
#[must_use]
pub fn needs_afar() -> Vec<Access> {
    Program::needs()
}

#[async_trait]
impl Kind for Restore {
    fn check(&self, _: &Site) -> Vec<Problem> {
        Vec::new()
    }

    fn locks(&self) -> Vec<String> {
        let volume = |name: &String| format!("volume:{name}");
        match &self.what {
            What::Container { .. } => vec![format!("container:{}", self.source)],
            What::Volumes { parts, .. } => parts.iter().map(|part| volume(&part.new)).collect(),
            What::InPlace { parts, .. } => parts.iter().map(|part| volume(&part.old)).collect(),
            What::Folder { at, .. } => vec![format!("path:{}", at.display())],
            What::Undo { volumes, .. } => volumes.iter().map(volume).collect(),
        }
    }

    fn engine(&self) -> Vec<Access> {
        needs()
    }

    fn engine_afar(&self) -> Vec<Access> {
        needs_afar()
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let engine = cx.engine().await?;
        match &self.what {
            What::Container { path, replace, beside } => {
                let opened = self.open(cx).await?;
                let stored = opened.container(&self.source, path).await?;
                container::bring_back(cx, &engine, &stored, *replace, beside.as_ref()).await
            }
            What::Volumes { parts, replace } => {
                let opened = self.open(cx).await?;
                volume::restore(cx, &engine, &opened, parts, *replace).await
            }
            What::InPlace { parts, wait } => place::restore(cx, &engine, self, parts, wait.map(|wait| wait.0)).await,
            What::Folder { at, path: Some(path), wait } => {
                folder::restore(cx, &engine, self, at, path, wait.map(|wait| wait.0)).await
            }
            What::Folder { at, path: None, wait } => folder::undo(cx, &engine, at, wait.map(|wait| wait.0)).await,
            What::Undo { volumes, wait } => place::undo(cx, &engine, volumes, wait.map(|wait| wait.0)).await,
        }
    }
}
