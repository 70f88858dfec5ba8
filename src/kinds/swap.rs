//! Putting a container in the place of another, with a way back at every moment. Shared by the kinds that do so.
mod well;

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

pub(super) use self::well::NotWell;
use self::well::until_well;
use super::Cx;
use crate::{
    docker::{
        Creation, Defaults, Engine, Spec, own,
        swap::{self, Settled},
    },
    model::{Debt, DebtId, Old, Runs, Swap},
};

/// How long it is tried to end a swap, and the pause between two tries.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(3);

/// A container that takes the place of another.
#[derive(Clone, Debug)]
pub(super) struct Replacement<'a> {
    /// What it is made from, and the name of the one that is there.
    pub(super) spec: &'a Spec,
    /// Its image.
    pub(super) image: &'a str,
    /// Whose defaults count.
    pub(super) defaults: Defaults,
    /// How long it has to become well; else as long as its health check may take.
    pub(super) wait: Option<Duration>,
    /// A port on which it must answer, too.
    pub(super) port: Option<u16>,
    /// A command in it that must succeed, too.
    pub(super) check: Option<&'a [String]>,
    /// How long it must stay well then.
    pub(super) watch: Duration,
    /// Labels that it gets beside its own.
    pub(super) labels: Vec<(String, String)>,
    /// What becomes of the old one.
    pub(super) old: Old,
    /// It is started even if the old one does not run.
    pub(super) start: bool,
}

/// Puts it there: made beside the old one, the old one stopped and renamed, the new one started and waited for. When it does not become
/// well, or the run is asked to stop, the old one is back as it was. What is found half done after a crash is settled at the next start.
///
/// # Errors
/// Why it was not done, and whether the old one is back.
pub(super) async fn replace(cx: &Cx, engine: &Engine, replacement: &Replacement<'_>) -> anyhow::Result<()> {
    let name = &replacement.spec.name;
    let old = engine.container(name).await.with_context(|| format!("look at the container {name}"))?;
    swap::refuse(engine, &old).await?;
    refuse_ourselves(old.id())?;
    let ran = old.state().is_up();
    let swap = Swap {
        name: name.clone(),
        old: old.id().to_owned(),
        new: None,
        runs: Runs { old: ran, new: ran || replacement.start },
        restart: old.raw()["HostConfig"]["RestartPolicy"].clone(),
        well: None,
    };
    let mut journal = Journal { cx, debt: cx.record.owe(Debt::Swap(swap.clone())).await?, swap };
    let done = forward(engine, replacement, &mut journal).await;
    let undone = match done {
        Ok(()) => {
            let well = Swap { well: Some(replacement.old), ..journal.swap.clone() };
            journal.turn(well).await?;
            None
        }
        Err(error) => Some(error),
    };
    let settled = settle(cx, engine, &journal.swap).await;
    if settled.is_ok() {
        cx.record.paid(journal.debt).await?;
    }
    match (settled, undone) {
        (Ok(Settled::AsMeant), None) => Ok(()),
        (Ok(Settled::AsMeant), Some(error)) => Err(error.context("the old container is gone, so the new one stays")),
        (Ok(Settled::AsBefore), Some(error)) if ran => {
            Err(error.context(format!("{name} runs again as it was before")))
        }
        (Ok(Settled::AsBefore), Some(error)) => Err(error.context(format!("{name} is as it was before"))),
        (Ok(Settled::AsBefore), None) => {
            bail!("{name} is as it was before: the new container did not start a second time")
        }
        (Ok(Settled::Gone), _) => bail!("both the old and the new container of {name} were removed by somebody else"),
        (Err(left), Some(error)) => Err(error.context(format!("{name} could not be brought back yet ({left:#})"))),
        (Err(left), None) => Err(left),
    }
}

/// Ends it; an engine that is being started again is waited for.
async fn settle(cx: &Cx, engine: &Engine, swap: &Swap) -> anyhow::Result<Settled> {
    let began = Instant::now();
    loop {
        match swap::settle(engine, swap).await {
            Err(error) if began.elapsed() < PATIENCE => {
                cx.warn(format!("{error:#}; it is tried again"));
                tokio::time::sleep(PAUSE).await;
            }
            settled => return settled,
        }
    }
}

/// The steps forward. Each is done or not done before a wish to stop is heard.
async fn forward(engine: &Engine, replacement: &Replacement<'_>, journal: &mut Journal<'_>) -> anyhow::Result<()> {
    let (cx, name) = (journal.cx, replacement.spec.name.as_str());
    let no_restart = !engine.is_podman();
    let creation = Creation {
        defaults: replacement.defaults,
        no_restart,
        labels: replacement.labels.clone(),
        ..Creation::default()
    };
    let beside = swap::beside(name);
    let new = cx.step("create", replacement.spec.create(engine, &beside, replacement.image, &creation)).await?;
    for warning in &new.warnings {
        cx.warn(format!("Docker remarks: {warning}"));
    }
    journal.turn(Swap { new: Some(new.id.clone()), ..journal.swap.clone() }).await?;
    go_on(cx)?;
    let (swap, old) = (&journal.swap, &journal.swap.old);
    let step_aside = async {
        if no_restart && swap.restart["Name"] != swap::no_restart()["Name"] {
            engine.set_restart(old, &swap::no_restart()).await?;
        }
        if swap.runs.old {
            cx.info(format!("stopping {name}"));
            engine.stop(old, None).await?;
        }
        engine.rename(old, &swap::aside(name)).await?;
        engine.rename(&new.id, name).await
    };
    cx.step("take its place", async {
        step_aside.await.with_context(|| format!("put the new container in the place of {name}"))
    })
    .await?;
    if !swap.runs.new {
        cx.info(format!("{name} was not running and is not started, so nobody knows whether it works"));
        return Ok(());
    }
    cx.info(format!("starting {name} from {}", replacement.image));
    go_on(cx)?;
    let starts = async {
        engine.start(&new.id).await.with_context(|| format!("start the new {name}"))?;
        until_well(cx, engine, &new.id, replacement).await
    };
    cx.step("wait until it is well", starts).await
}

fn go_on(cx: &Cx) -> anyhow::Result<()> {
    if cx.cancelled.is_cancelled() {
        bail!("it was asked to stop");
    }
    Ok(())
}

/// The container that Rusuban itself runs in cannot be stopped by it.
fn refuse_ourselves(id: &str) -> anyhow::Result<()> {
    if own::own_id().as_deref() == Some(id) {
        bail!("this is the container that Rusuban itself runs in; it cannot stop itself and go on");
    }
    Ok(())
}

/// What is written down at this moment.
struct Journal<'a> {
    cx: &'a Cx,
    swap: Swap,
    debt: DebtId,
}

impl Journal<'_> {
    /// Turns the page: the new facts are on the disk before the old ones are struck out.
    async fn turn(&mut self, swap: Swap) -> anyhow::Result<()> {
        let debt = self.cx.record.owe(Debt::Swap(swap.clone())).await?;
        let before = std::mem::replace(&mut self.debt, debt);
        self.swap = swap;
        self.cx.record.paid(before).await
    }
}
