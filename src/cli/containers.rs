//! Containers out of a repository, into an engine: `rusuban restore JOB` for what `container-snapshot` has stored.
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::{Context, Exit, backups::Restore, run};
use crate::{
    app::control::Request,
    config::Config,
    docker::EngineError,
    kinds::restore::{self, Backup, Beside, What, in_the_way},
    repository::{Id, SourceFacts},
};

/// What such a source is called in a backup.
pub(super) const KIND: &str = "container-image";

/// Has the container made: anew when it is gone, beside the one that is there with `--as`, in its place with `--replace`.
pub(super) async fn bring_back(
    context: &mut Context<'_>,
    config: &Config,
    (repository, id): (&str, Id),
    source: &SourceFacts,
    arguments: &Restore,
) -> anyhow::Result<Exit> {
    let name = &source.name;
    let engine = config.settings.docker.connect().await?;
    match engine.container(name).await {
        Ok(_) if arguments.beside.is_none() && !arguments.replace => bail!(in_the_way(name)),
        Ok(_) | Err(EngineError::NotFound(_)) => {}
        Err(error) => return Err(error).with_context(|| format!("look at the container {name}")),
    }
    let beside = arguments.beside.clone();
    let asked = restore::Restore {
        job: arguments.which.job.clone(),
        backup: Some(Backup::Repository { name: repository.to_owned(), id }),
        source: name.clone(),
        what: What::Container {
            path: PathBuf::from(&source.path),
            replace: arguments.replace,
            beside: beside.map(|name| Beside { name, network: arguments.network.clone(), writes: false }),
        },
    };
    run::begin(context, config, &format!("restore {name}"), Request::Restore(asked), false).await
}
