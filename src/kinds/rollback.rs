//! A container goes back to a snapshot: asked for by a person, so it is no kind that a job file can name.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use super::beside::Beside;
use super::{
    Cx, Kind, Site, Summary, beside,
    quiet::Claim,
    swap::{self, Replacement},
};
use crate::{
    config::{mistake::Problem, units::Span},
    docker::{Defaults, Spec},
    model::Old,
};

/// A container that goes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rollback {
    /// Its name.
    pub container: String,
    /// The image, by name or digest.
    pub image: String,
    /// The image's digest: it is refused when the name is another's by the time it is looked at.
    pub id: String,
    /// How long the new container has to become well; else as long as its health check may take.
    pub wait: Option<Span>,
    /// A port on which it must answer, too.
    pub port: Option<u16>,
    /// What becomes of the container that is there.
    pub old: Old,
    /// It is started even if the container that is there does not run.
    pub start: bool,
    /// Instead of taking its place: beside it, for a look.
    pub beside: Option<Beside>,
}

impl Rollback {
    /// As a kind.
    #[must_use]
    pub fn kind(self) -> Arc<dyn Kind> {
        Arc::new(self)
    }
}

#[async_trait]
impl Kind for Rollback {
    fn check(&self, _: &Site) -> Vec<Problem> {
        Vec::new()
    }

    fn locks(&self) -> Vec<String> {
        vec![format!("container:{}", self.container)]
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let engine = cx.engine().await?;
        let image = engine.image(&self.image).await.with_context(|| format!("look at the image {}", self.image))?;
        if image.id() != self.id {
            bail!(
                "{} is another image than a moment ago; look again with `rusuban rollback {} --list`",
                self.image,
                self.container
            );
        }
        let id = engine.container(&self.container).await.map(|container| container.id().to_owned());
        let id = id.with_context(|| format!("look at the container {}", self.container))?;
        // A backup may have stopped it for a moment: it would be taken for one that does not run.
        let _claim = tokio::select! {
            claim = Claim::take([id].into()) => claim,
            () = cx.cancelled.cancelled() => bail!("it was asked to stop"),
        };
        let spec = Spec::of(&engine, &self.container)
            .await
            .with_context(|| format!("look at the container {}", self.container))?;
        if let Some(beside) = &self.beside {
            return beside::look(cx, &engine, &spec, &self.image, beside).await;
        }
        let replacement = Replacement {
            spec: &spec,
            image: &self.image,
            defaults: Defaults::Kept,
            wait: self.wait.map(|wait| wait.0),
            port: self.port,
            check: None,
            watch: Duration::ZERO,
            labels: Vec::new(),
            volumes: BTreeMap::new(),
            old: self.old,
            start: self.start,
        };
        swap::replace(cx, &engine, &replacement)
            .await
            .with_context(|| format!("roll {} back to {}", spec.name, self.image))?;
        Ok(format!("{} is back at {}, from {}", spec.name, self.image, spec.image.name))
    }
}
