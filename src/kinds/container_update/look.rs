//! Which image a container should have, and whether that is another than it has.
use anyhow::Context as _;

use crate::{
    docker::{
        Container, Engine, EngineError, Image, Pulled, Snapshot,
        own::{Need, Ours},
        repository_of, tag_of,
    },
    kinds::{Cx, Progress},
};

/// The name of a container's image, at its registry or on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    /// `ghcr.io/someone/blog`.
    pub(super) repository: String,
    /// `1`.
    pub(super) tag: String,
}

impl Reference {
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// How a container stands to its image's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has that image.
    UpToDate,
    /// The name means another one now: its id on the host, or its digest at the registry.
    Newer(String),
}

/// Why a container is none of ours to replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// So it is meant.
    Fine(String),
    /// A person should look.
    Look(String),
}

/// Why a container is left out, if it is: it must go on, or cannot be replaced.
pub(super) fn left_out(ours: &Ours, container: &Container) -> Option<LeftOut> {
    let why = match ours.need(container) {
        Some(Need::Itself) => "Rusuban runs in it",
        Some(Need::Way) => "Docker is reached through it",
        Some(Need::Server) => "a bucket of rusuban.toml is on it",
        None if container.is_removed_at_its_end() => "it was started with `--rm` and would be gone when it is stopped",
        None if container.label("com.docker.swarm.service.id").is_some() => {
            "a swarm's service would make another in its place: `docker service update` is for that"
        }
        None => return None,
    };
    Some(LeftOut::Fine(why.to_owned()))
}

/// The name that says which image it should have.
pub(super) async fn reference(engine: &Engine, container: &Container) -> anyhow::Result<Result<Reference, LeftOut>> {
    let (name, container_name) = (container.image(), container.name());
    for image in [container.image_id(), name] {
        let Some(image) = existing(engine, image).await? else { continue };
        if Snapshot::of(&image).is_some() {
            return Ok(Err(LeftOut::Look(format!(
                "it runs from the snapshot {name}, to which it was taken back; `rusuban rollback {container_name} IMAGE:TAG` takes it to an image of its maker's again"
            ))));
        }
    }
    let (Some(repository), Some(tag)) = (repository_of(name), tag_of(name)) else {
        let why =
            if name.contains('@') { "its image is fixed to a digest" } else { "its image has no name, only an id" };
        return Ok(Err(LeftOut::Fine(format!("{why} ({name})"))));
    };
    Ok(Ok(Reference { repository: repository.to_owned(), tag: tag.to_owned() }))
}

/// Fetches what the name means at its registry. An image that was made on this host stays as it is.
pub(super) async fn pull(cx: &Cx, engine: &Engine, reference: &Reference) -> anyhow::Result<()> {
    let name = reference.name();
    if existing(engine, &name).await?.is_some_and(|image| image.digests().is_empty()) {
        cx.info(format!("{name} was made on this host, so no registry is asked for it"));
        return Ok(());
    }
    let step = format!("pull {name}");
    let progress = |Pulled { done, total }| {
        cx.record.progress(Progress { step: step.clone(), done, total: Some(total), added: None });
    };
    let pulling = async {
        tokio::select! {
            done = engine.pull(&reference.repository, &reference.tag, progress) => done.with_context(|| format!("pull {name}")),
            () = cx.cancelled.cancelled() => anyhow::bail!("it was asked to stop"),
        }
    };
    cx.step(&step, pulling).await
}

/// Compares it with what its name means on the host.
pub(super) async fn on_the_host(
    engine: &Engine,
    container: &Container,
    reference: &Reference,
) -> anyhow::Result<Standing> {
    let name = reference.name();
    let image = existing(engine, &name).await?;
    let image = image.with_context(|| format!("there is no image {name} on Docker's host: `docker pull {name}`"))?;
    Ok(if image.id() == container.image_id() { Standing::UpToDate } else { Standing::Newer(image.id().to_owned()) })
}

/// The same with what its name means at its registry; nothing is fetched.
pub(super) async fn at_the_registry(
    cx: &Cx,
    engine: &Engine,
    container: &Container,
    reference: &Reference,
) -> anyhow::Result<Standing> {
    let name = reference.name();
    let Some(has) = existing(engine, container.image_id()).await? else {
        return on_the_host(engine, container, reference).await;
    };
    let here = existing(engine, &name).await?;
    if let Some(here) = here.filter(|here| here.id() != has.id()) {
        return Ok(Standing::Newer(here.id().to_owned()));
    }
    if has.digests().is_empty() {
        cx.info(format!("{name} was made on this host, so no registry is asked for it"));
        return Ok(Standing::UpToDate);
    }
    let digest = tokio::select! {
        digest = engine.digest_at_registry(&name) => digest.with_context(|| format!("ask the registry for {name}"))?,
        () = cx.cancelled.cancelled() => anyhow::bail!("it was asked to stop"),
    };
    Ok(if has.digests().contains(&digest.as_str()) { Standing::UpToDate } else { Standing::Newer(digest) })
}

async fn existing(engine: &Engine, image: &str) -> Result<Option<Image>, EngineError> {
    match engine.image(image).await {
        Ok(image) => Ok(Some(image)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
