//! Containers that are quiet while what they write is read: paused or stopped, and running again afterwards. The one place that
//! stops or pauses a container, and starts or thaws it on every path: what it will have to undo is written down before the deed,
//! undone here when the work ends in any way, and by the runner when it did not come to that.
mod choose;
mod claim;
mod hooks;
mod pay;

use std::{collections::BTreeSet, future::Future, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use tokio::time::Instant;

use self::choose::Users;
pub(super) use self::claim::Claim;
pub(crate) use self::claim::is_claimed;
pub(super) use self::hooks::{Hooks, with_hooks};
use self::pay::pay;
pub(crate) use self::pay::{Paid, pay_for_another};
use super::Cx;
use crate::{
    config::units::Span,
    docker::{Container, Engine, EngineError, Policy, State, dependents_first},
    model::{ComposePlace, Debt, DebtId, HeldContainer},
};

/// One that others want to be healthy before they are started gets so long.
const UNTIL_HEALTHY: Duration = Duration::from_secs(60);
/// An engine that is away, because it is being restarted, is waited for so long.
const PATIENCE: Duration = Duration::from_secs(90);

/// How containers are made quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Frozen: for the moment they stand still, as they are.
    Pause,
    /// Ended, as `docker stop` does, so that all they had in mind is on the disk.
    Stop,
}

/// What is read, as the engine's host knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    /// Volumes.
    pub(super) volumes: BTreeSet<String>,
    /// Folders and files.
    pub(super) folders: Vec<PathBuf>,
    /// Who only reads it must be quiet, too, and who has it bound as a part of a larger folder: it is exchanged for another.
    pub(super) readers: bool,
    /// Servers that must go on meanwhile, because what is read goes to them: `host:port`.
    pub(super) servers: Vec<String>,
}

/// A container that we hold.
struct Held {
    container: HeldContainer,
    /// As it was.
    was: Container,
    debt: DebtId,
    owed: Debt,
    since: Instant,
}

/// Does `work` while all containers that write to what is touched are quiet. Whatever becomes of it, they run again afterwards; those
/// that did not run before do not.
///
/// # Errors
/// Those of `work`; when a container cannot be made quiet, did not stay so, or does not run again.
pub(super) async fn with_quiet<T>(
    cx: &Cx,
    engine: &Engine,
    touched: &Touched,
    way: Way,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let (claim, group) = gather(cx, engine, touched, way).await?;
    let mut held = Vec::new();
    let mut result = async {
        for container in &group {
            ensure!(!cx.cancelled.is_cancelled(), "cancelled");
            hold(cx, engine, container, way, &mut held).await?;
        }
        work.await
    }
    .await;
    if result.is_ok()
        && let Err(error) = still_quiet(engine, touched, &held).await
    {
        result = Err(error);
    }
    let undone = let_go(cx, engine, way, held).await;
    drop(claim);
    match (result, undone) {
        (result, Ok(())) => result,
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Err(undoing)) => Err(error.context(format!("{undoing:#}"))),
    }
}

/// Who writes to it, in words: for whoever reads it all the same.
pub(super) async fn writers(engine: &Engine, touched: &Touched) -> anyhow::Result<Vec<String>> {
    let users = Users::of(engine, touched).await?;
    Ok(users.writers().iter().map(|container| container.name().to_owned()).collect())
}

/// Those among them whose labels ask to be stopped and not frozen.
pub(super) async fn asking_to_stop(engine: &Engine, touched: &Touched) -> anyhow::Result<Vec<String>> {
    let users = Users::of(engine, touched).await?;
    let asks = |container: &&&Container| Policy::read(&container.labels()).stop;
    Ok(users.writers().iter().filter(asks).map(|container| container.name().to_owned()).collect())
}

/// The containers to be made quiet, in the order in which that is done. Nobody else touches them while they are claimed.
async fn gather(
    cx: &Cx,
    engine: &Engine,
    touched: &Touched,
    way: Way,
) -> anyhow::Result<(Option<Claim>, Vec<Container>)> {
    let choose = async || -> anyhow::Result<Vec<Container>> {
        let users = Users::of(engine, touched).await?;
        let group = users.group(way);
        for container in &group {
            users.refuse(container, way)?;
        }
        Ok(dependents_first(group))
    };
    let ids = |group: &[Container]| group.iter().map(|one| one.id().to_owned()).collect::<BTreeSet<_>>();
    loop {
        let group = choose().await?;
        if group.is_empty() {
            return Ok((None, group));
        }
        let claim = tokio::select! {
            claim = Claim::take(ids(&group)) => claim,
            () = cx.cancelled.cancelled() => bail!("cancelled"),
        };
        // While we waited, another run may have started some of them again.
        let now = choose().await?;
        if ids(&now) == ids(&group) {
            return Ok((Some(claim), now));
        }
    }
}

async fn hold(cx: &Cx, engine: &Engine, container: &Container, way: Way, held: &mut Vec<Held>) -> anyhow::Result<()> {
    let name = container.name();
    let known = held_container(cx, container);
    let owed = match way {
        Way::Pause => Debt::Thaw { container: known.clone() },
        Way::Stop => Debt::Start { container: known.clone(), grace: container.stop_grace().as_secs() },
    };
    let debt = cx.record.owe(owed.clone()).await?;
    held.push(Held { container: known, was: container.clone(), debt, owed, since: Instant::now() });
    let done = match way {
        Way::Pause => engine.pause(container.id()).await,
        Way::Stop => engine.stop(container.id(), None).await,
    };
    let Err(error) = done else { return Ok(()) };
    let what = if way == Way::Pause { "pause" } else { "stop" };
    let now = engine.container(container.id()).await.with_context(|| format!("{what} the container `{name}`"))?.state();
    match (way, now) {
        // It ended, or somebody else paused it, a moment before us: that is not ours to undo.
        (Way::Pause, State::Paused) if !error.is_open() => give_back(cx, held).await,
        (Way::Pause, State::Created | State::Exited) => give_back(cx, held).await,
        (Way::Pause, State::Paused) | (Way::Stop, State::Exited) if error.is_open() => Ok(()),
        _ => Err(error).with_context(|| format!("{what} the container `{name}`")),
    }
}

/// A container, written so that it is found again.
fn held_container(cx: &Cx, container: &Container) -> HeldContainer {
    HeldContainer {
        name: container.name().to_owned(),
        id: container.id().to_owned(),
        compose: container.compose().map(|of| ComposePlace {
            project: of.project.to_owned(),
            service: of.service.to_owned(),
            number: of.number.to_owned(),
        }),
        started: container.started().to_owned(),
        since: cx.clock.now(),
    }
}

/// The last one is not ours to undo.
async fn give_back(cx: &Cx, held: &mut Vec<Held>) -> anyhow::Result<()> {
    match held.pop() {
        Some(last) => cx.record.paid(last.debt).await,
        None => Ok(()),
    }
}

/// Whether nobody wrote meanwhile, as far as can be seen.
async fn still_quiet(engine: &Engine, touched: &Touched, held: &[Held]) -> anyhow::Result<()> {
    let woken = |name: &str| {
        format!(
            "the container `{name}` ran while it was to be quiet, so what was read may not be of one moment: was the engine \
             restarted, or the container started by somebody else?"
        )
    };
    let users = Users::of(engine, touched).await.context("look whether the containers stayed quiet")?;
    if let Some(container) = users.writers().first() {
        bail!(woken(container.name()));
    }
    for Held { container, .. } in held {
        match engine.container(&container.id).await {
            Ok(now) => ensure!(now.started() == container.started, woken(&container.name)),
            // Removed while it was stopped: it did not write.
            Err(EngineError::NotFound(_)) => {}
            Err(error) => return Err(error).context("look whether the containers stayed quiet"),
        }
    }
    Ok(())
}

/// Lets all of them run again, the last one first. What does not work stays owed.
async fn let_go(cx: &Cx, engine: &Engine, way: Way, held: Vec<Held>) -> anyhow::Result<()> {
    let (mut failed, mut started) = (Vec::new(), Vec::<Container>::new());
    for Held { container, was, debt, owed, since } in held.into_iter().rev() {
        if way == Way::Stop {
            for other in started.iter().filter(|other| was.needs_healthy(other)) {
                until_healthy(cx, engine, other).await;
            }
            started.push(was);
        }
        match pay(&owed, &cx.services.docker, &cx.clock, PATIENCE).await {
            Ok(paid) => {
                let (was, time) =
                    (if way == Way::Pause { "paused" } else { "stopped" }, Span(rounded(since.elapsed())));
                match paid {
                    Paid::AsPromised => cx.info(format!("{} was {was} for {time}", container.name)),
                    Paid::Otherwise(why) => cx.warn(format!("{} was {was} for {time}: {why}", container.name)),
                }
                cx.record.paid(debt).await?;
            }
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    ensure!(failed.is_empty(), "{}; this is tried again", failed.join("; "));
    Ok(())
}

/// Waits until it is healthy, dead, or time is up: what waits for it is started in any case.
async fn until_healthy(cx: &Cx, engine: &Engine, container: &Container) {
    let begun = Instant::now();
    while begun.elapsed() < UNTIL_HEALTHY {
        match engine.container(container.id()).await {
            Ok(now) if now.state().is_up() && !now.is_healthy() => tokio::time::sleep(Duration::from_millis(200)).await,
            _ => return,
        }
    }
    cx.warn(format!(
        "{} is not healthy after {}; what needs it is started all the same",
        container.name(),
        Span(UNTIL_HEALTHY)
    ));
}

fn rounded(time: Duration) -> Duration {
    let unit = if time < Duration::from_secs(10) { 1 } else { 1000 };
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / unit * unit)
}
