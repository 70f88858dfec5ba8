//! A container goes back to a snapshot: asked for by a person, so it is no kind that a job file can name.
use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    Cx, Kind, Site, Summary,
    swap::{self, Replacement},
};
use crate::{
    config::{mistake::Problem, units::Span},
    docker::{Creation, Defaults, Engine, Spec},
    model::{Debt, Old},
};

/// The label of a container that was made to have a look: whose copy it is, and which run made it.
const LOOK: &str = "rusuban.look";

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

/// A container made beside another, for a look.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Beside {
    /// Its name.
    pub name: String,
    /// This network instead of the other's.
    pub network: Option<String>,
    /// It may write to what is mounted in it, as the other does.
    pub writes: bool,
}

impl Rollback {
    /// As a kind.
    #[must_use]
    pub fn kind(self) -> Arc<dyn Kind> {
        Arc::new(self)
    }

    async fn look(&self, cx: &Cx, engine: &Engine, spec: &Spec, beside: &Beside) -> anyhow::Result<Summary> {
        let Beside { name, network, writes } = beside;
        let label = (LOOK.to_owned(), format!("{} in run {}", self.container, cx.run));
        let debt = cx.record.owe(Debt::Unstarted { container: name.clone(), label: label.clone() }).await?;
        let creation = Creation {
            network: network.clone(),
            beside: true,
            read_only_mounts: !writes,
            labels: vec![label],
            ..Creation::default()
        };
        // When it is not started, the debt is paid by whoever ends this run.
        let made = cx.step("create", spec.create(engine, name, &self.image, &creation)).await?;
        engine.start(&made.id).await.with_context(|| format!("start {name}"))?;
        cx.record.paid(debt).await?;
        Ok(format!("{name} runs from {} beside {}; `docker rm -f {name}` ends the look", self.image, self.container))
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
        let spec = Spec::of(&engine, &self.container)
            .await
            .with_context(|| format!("look at the container {}", self.container))?;
        if let Some(beside) = &self.beside {
            return self.look(cx, &engine, &spec, beside).await;
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
            old: self.old,
            start: self.start,
        };
        swap::replace(cx, &engine, &replacement)
            .await
            .with_context(|| format!("roll {} back to {}", spec.name, self.image))?;
        Ok(format!("{} is back at {}, from {}", spec.name, self.image, spec.image.name))
    }
}
