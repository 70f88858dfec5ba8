//! A container made beside another, for a look. Shared by the kinds that do so.
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Cx, Summary};
use crate::{
    docker::{Creation, Engine, Spec},
    model::Debt,
};

/// The label of a container that was made to have a look: whose copy it is, and which run made it.
const LOOK: &str = "rusuban.look";

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

/// Makes it from what is known of the other, and of this image.
///
/// # Errors
/// When it cannot be made or started; it is removed then.
pub(super) async fn look(
    cx: &Cx,
    engine: &Engine,
    spec: &Spec,
    image: &str,
    beside: &Beside,
) -> anyhow::Result<Summary> {
    let Beside { name, network, writes } = beside;
    let label = (LOOK.to_owned(), format!("{} in run {}", spec.name, cx.run));
    let debt = cx.record.owe(Debt::Unstarted { container: name.clone(), label: label.clone() }).await?;
    let creation = Creation {
        network: network.clone(),
        beside: true,
        read_only_mounts: !writes,
        labels: vec![label],
        ..Creation::default()
    };
    // When it is not started, the debt is paid by whoever ends this run.
    let made = cx.step("create", spec.create(engine, name, image, &creation)).await?;
    engine.start(&made.id).await.with_context(|| format!("start {name}"))?;
    cx.record.paid(debt).await?;
    Ok(format!("{name} runs from {image} beside {}; `docker rm -f {name}` ends the look", spec.name))
}
