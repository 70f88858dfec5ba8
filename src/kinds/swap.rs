//! Putting a container in the place of another, with a way back at every moment. Shared by the kinds that do so.
mod well;

use std::{collections::BTreeMap, slice, time::Duration};

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
    /// Other volumes in the place of these.
    pub(super) volumes: BTreeMap<String, String>,
    /// What becomes of the old one.
    pub(super) old: Old,
    /// It is started even if the old one does not run.
    pub(super) start: bool,
}

/// Puts it there: see [`replace_all`].
///
/// # Errors
/// Why it was not done, and whether the old one is back.
pub(super) async fn replace(cx: &Cx, engine: &Engine, replacement: &Replacement<'_>) -> anyhow::Result<()> {
    replace_all(cx, engine, slice::from_ref(replacement)).await
}

/// Puts them there, all or none: made beside the old ones, the old ones stopped and renamed, the new ones started and waited for. When one
/// of them does not become well, or the run is asked to stop, the old ones are back as they were. What is found half done after a crash is
/// settled at the next start. They are in the order in which they are stopped, those that need others first.
///
/// # Errors
/// Why it was not done, and whether the old ones are back.
pub(super) async fn replace_all(cx: &Cx, engine: &Engine, replacements: &[Replacement<'_>]) -> anyhow::Result<()> {
    let mut swaps = Vec::new();
    for replacement in replacements {
        let name = &replacement.spec.name;
        let old = engine.container(name).await.with_context(|| format!("look at the container {name}"))?;
        swap::refuse(engine, &old).await?;
        refuse_ourselves(old.id())?;
        let ran = old.state().is_up();
        swaps.push(Swap {
            name: name.clone(),
            old: old.id().to_owned(),
            new: None,
            runs: Runs { old: ran, new: ran || replacement.start },
            restart: old.raw()["HostConfig"]["RestartPolicy"].clone(),
            well: None,
        });
    }
    let ran = swaps.iter().any(|swap| swap.runs.old);
    let mut journal = Journal { cx, debt: cx.record.owe(debt(&swaps)).await?, swaps };
    let done = forward(engine, replacements, &mut journal).await;
    let undone = match done {
        Ok(()) => {
            let well =
                |(swap, replacement): (&Swap, &Replacement<'_>)| Swap { well: Some(replacement.old), ..swap.clone() };
            let well = journal.swaps.iter().zip(replacements).map(well).collect();
            journal.turn(well).await?;
            None
        }
        Err(error) => Some(error),
    };
    let settled = settle(cx, engine, &journal.swaps).await;
    if settled.is_ok() {
        cx.record.paid(journal.debt).await?;
    }
    let names = journal.swaps.iter().map(|swap| swap.name.as_str()).collect::<Vec<_>>().join(", ");
    let (is, one) = if journal.swaps.len() == 1 { ("is", "container") } else { ("are", "containers") };
    match (settled, undone) {
        (Ok(Settled::AsMeant), None) => Ok(()),
        (Ok(Settled::AsMeant), Some(error)) => {
            Err(error.context(format!("the old {one} {is} gone, so the new {one} stay")))
        }
        (Ok(Settled::AsBefore), Some(error)) if ran && is == "is" => {
            Err(error.context(format!("{names} runs again as it was before")))
        }
        (Ok(Settled::AsBefore), Some(error)) if is == "is" => {
            Err(error.context(format!("{names} is as it was before")))
        }
        (Ok(Settled::AsBefore), Some(error)) => Err(error.context(format!("{names} are as they were before"))),
        (Ok(Settled::AsBefore), None) => {
            bail!("{names} {is} as before: the new {one} did not start a second time")
        }
        (Ok(Settled::Gone), _) => bail!("both the old and the new {one} of {names} were removed by somebody else"),
        (Err(left), Some(error)) => Err(error.context(format!("{names} could not be brought back yet ({left:#})"))),
        (Err(left), None) => Err(left),
    }
}

fn debt(swaps: &[Swap]) -> Debt {
    match swaps {
        [swap] => Debt::Swap(swap.clone()),
        all => Debt::Swaps { all: all.to_vec() },
    }
}

/// Ends it; an engine that is being started again is waited for.
async fn settle(cx: &Cx, engine: &Engine, swaps: &[Swap]) -> anyhow::Result<Settled> {
    let began = Instant::now();
    loop {
        match swap::settle(engine, swaps).await {
            Err(error) if began.elapsed() < PATIENCE => {
                cx.warn(format!("{error:#}; it is tried again"));
                tokio::time::sleep(PAUSE).await;
            }
            settled => return settled,
        }
    }
}

/// The steps forward. Each is done or not done before a wish to stop is heard.
async fn forward(engine: &Engine, replacements: &[Replacement<'_>], journal: &mut Journal<'_>) -> anyhow::Result<()> {
    let cx = journal.cx;
    let no_restart = !engine.is_podman();
    for (number, replacement) in replacements.iter().enumerate() {
        let creation = Creation {
            defaults: replacement.defaults,
            no_restart,
            labels: replacement.labels.clone(),
            volumes: replacement.volumes.clone(),
            ..Creation::default()
        };
        let beside = swap::beside(&replacement.spec.name);
        let new = cx.step("create", replacement.spec.create(engine, &beside, replacement.image, &creation)).await?;
        for warning in &new.warnings {
            cx.warn(format!("Docker remarks: {warning}"));
        }
        let mut swaps = journal.swaps.clone();
        swaps[number].new = Some(new.id);
        journal.turn(swaps).await?;
        go_on(cx)?;
    }
    cx.step("take its place", step_aside(cx, engine, &journal.swaps, no_restart)).await?;
    for (swap, replacement) in journal.swaps.iter().zip(replacements).rev() {
        let (name, new) = (&swap.name, swap.new.as_deref().unwrap_or_default());
        if !swap.runs.new {
            cx.info(format!("{name} was not running and is not started, so nobody knows whether it works"));
            continue;
        }
        cx.info(format!("starting {name} from {}", replacement.image));
        go_on(cx)?;
        let starts = async {
            engine.start(new).await.with_context(|| format!("start the new {name}"))?;
            until_well(cx, engine, new, replacement).await
        };
        cx.step("wait until it is well", starts).await?;
    }
    Ok(())
}

/// Stops the old ones, those first that need others, and gives their names to the new ones.
async fn step_aside(cx: &Cx, engine: &Engine, swaps: &[Swap], no_restart: bool) -> anyhow::Result<()> {
    let what = |swap: &Swap| format!("put the new container in the place of {}", swap.name);
    for swap in swaps {
        let stopping = async {
            if no_restart && swap.restart["Name"] != swap::no_restart()["Name"] {
                engine.set_restart(&swap.old, &swap::no_restart()).await?;
            }
            if swap.runs.old {
                cx.info(format!("stopping {}", swap.name));
                engine.stop(&swap.old, None).await?;
            }
            anyhow::Ok(())
        };
        stopping.await.with_context(|| what(swap))?;
    }
    for swap in swaps {
        let renaming = async {
            engine.rename(&swap.old, &swap::aside(&swap.name)).await?;
            engine.rename(swap.new.as_deref().unwrap_or_default(), &swap.name).await
        };
        renaming.await.with_context(|| what(swap))?;
    }
    Ok(())
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
    swaps: Vec<Swap>,
    debt: DebtId,
}

impl Journal<'_> {
    /// Turns the page: the new facts are on the disk before the old ones are struck out.
    async fn turn(&mut self, swaps: Vec<Swap>) -> anyhow::Result<()> {
        let debt = self.cx.record.owe(debt(&swaps)).await?;
        let before = std::mem::replace(&mut self.debt, debt);
        self.swaps = swaps;
        self.cx.record.paid(before).await
    }
}
