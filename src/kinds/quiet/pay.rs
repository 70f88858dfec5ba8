//! Letting a container run again that was made quiet: by whoever did it, or, if that one died, by the runner. Doing it twice is fine.
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use super::claim::Claim;
use crate::{
    clock::Clock,
    docker::{Compose, Docker, Engine, EngineError, Listed, State},
    model::{Debt, HeldContainer},
};

/// What an engine says that is not away is heard again for so long: it may be busy.
const BUSY: Duration = Duration::from_secs(10);
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
/// A request that was on its way when we died is done soon after, or never.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// One that has a long time to end is not waited for to the end of that: it is looked at again later.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// How a debt was paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Paid {
    /// The container runs.
    AsPromised,
    /// There was nothing to be done, or it did not help: why.
    Otherwise(String),
}

/// What became of a container.
#[derive(Debug, PartialEq, Eq)]
enum Found<'a> {
    /// It is there.
    Itself(&'a Listed),
    /// Another one has its place.
    Replaced(&'a Listed),
    /// It was removed.
    Gone,
}

/// Starts or thaws what a debt is about. An engine that is away is waited for as long as `patience`.
///
/// # Errors
/// When it could not be done; it is still owed then.
pub(crate) async fn pay(debt: &Debt, docker: &Docker, clock: &Clock, patience: Duration) -> anyhow::Result<Paid> {
    let (container, grace) = match debt {
        Debt::Start { container, grace } => (container, Some(Duration::from_secs(*grace))),
        Debt::Thaw { container } => (container, None),
        _ => bail!("this is not owed to a container"),
    };
    let what =
        || format!("{} the container `{}` again", if grace.is_some() { "start" } else { "thaw" }, container.name);
    let begun = Instant::now();
    loop {
        let tried = match docker.connect().await {
            Ok(engine) => match grace {
                Some(grace) => start(&engine, clock, container, grace).await,
                None => thaw(&engine, clock, container).await.map(Some),
            },
            Err(error) => Err(error),
        };
        let is_over = |error: &EngineError| {
            let is_away = error.is_open() || matches!(error, EngineError::Unreachable { .. });
            begun.elapsed() > if is_away { patience } else { patience.min(BUSY) }
        };
        match tried {
            Ok(Some(paid)) => return Ok(paid),
            Ok(None) => return Err(anyhow::anyhow!("it still runs, and may be about to end")).with_context(what),
            Err(error) if is_over(&error) => return Err(error).with_context(what),
            Err(_) => tokio::time::sleep(BETWEEN_TRIES).await,
        }
    }
}

/// None when it may still be on its way to its end.
async fn start(
    engine: &Engine,
    clock: &Clock,
    held: &HeldContainer,
    grace: Duration,
) -> Result<Option<Paid>, EngineError> {
    // It is stopped: not at once, if it has work to end, and whoever starts it before that has done nothing.
    let (begun, until) = (Instant::now(), until(clock, held, grace + ON_ITS_WAY));
    loop {
        let all = engine.containers().await?;
        let id = match find(held, &all) {
            Found::Itself(listed) => {
                let now = engine.container(&listed.id).await?;
                if now.state().is_up() {
                    if now.state() == State::Paused || now.started() != held.started || Instant::now() >= until {
                        return Ok(Some(Paid::AsPromised));
                    }
                    if begun.elapsed() > LONGEST_LOOK {
                        return Ok(None);
                    }
                    tokio::time::sleep(BETWEEN_TRIES / 5).await;
                    continue;
                }
                listed.id.clone()
            }
            Found::Replaced(listed) if listed.state.is_up() => {
                let why = "it was created anew meanwhile, and the new one runs";
                return Ok(Some(Paid::Otherwise(why.into())));
            }
            Found::Replaced(listed) if engine.container(&listed.id).await?.has_run() => {
                let why = "it was created anew meanwhile, and the new one has run and ended: it is left as it is";
                return Ok(Some(Paid::Otherwise(why.into())));
            }
            // Whoever created it anew did not come to starting it; the one before it ran.
            Found::Replaced(listed) => listed.id.clone(),
            Found::Gone => return Ok(Some(Paid::Otherwise("it was removed meanwhile".into()))),
        };
        engine.start(&id).await?;
        let now = engine.container(&id).await?;
        return Ok(Some(match now.state() {
            state if state.is_up() => Paid::AsPromised,
            _ => Paid::Otherwise(format!(
                "it was started again and has ended at once, with code {}",
                now.raw()["State"]["ExitCode"]
            )),
        }));
    }
}

async fn thaw(engine: &Engine, clock: &Clock, held: &HeldContainer) -> Result<Paid, EngineError> {
    let until = until(clock, held, ON_ITS_WAY);
    loop {
        let now = match engine.container(&held.id).await {
            Ok(now) => now,
            Err(EngineError::NotFound(_)) => return Ok(Paid::Otherwise("it was removed meanwhile".into())),
            Err(error) => return Err(error),
        };
        match now.state() {
            State::Paused => {
                // It may die between two requests; then the next look says so.
                match engine.unpause(&held.id).await {
                    Ok(()) => return Ok(Paid::AsPromised),
                    Err(EngineError::Refused { .. } | EngineError::Conflict(_)) if Instant::now() < until => {}
                    Err(error) => return Err(error),
                }
            }
            state if state.is_up() && now.started() != held.started => return Ok(Paid::AsPromised),
            state if state.is_up() && Instant::now() >= until => return Ok(Paid::AsPromised),
            state if state.is_up() => {}
            _ => return Ok(Paid::Otherwise("it has ended while it was paused, and is left as it is".into())),
        }
        tokio::time::sleep(BETWEEN_TRIES / 5).await;
    }
}

/// Until when a request that was sent just after the debt was written may still be at work.
fn until(clock: &Clock, held: &HeldContainer, longest: Duration) -> Instant {
    let passed = (clock.now() - held.since).to_std().unwrap_or_default();
    Instant::now() + longest.saturating_sub(passed)
}

/// Looks for a container by its name, then by its place in its compose project: one that was created anew has another id. If a new
/// one runs, the old one must not, even if it is still there: both have the same data.
fn find<'a>(held: &HeldContainer, all: &'a [Listed]) -> Found<'a> {
    let place = held.compose.as_ref();
    let has_place = |one: &Listed| {
        let own = Compose::read(|label| one.labels.get(label).map(String::as_str));
        own.zip(place).is_some_and(|(own, place)| {
            (own.project, own.service, own.number) == (&*place.project, &*place.service, &*place.number)
        })
    };
    let others = || all.iter().filter(|one| one.id != held.id && (one.name == held.name || has_place(one)));
    let itself = all.iter().find(|one| one.id == held.id);
    if let Some(other) = others().find(|one| one.state.is_up()) {
        return Found::Replaced(other);
    }
    match itself {
        Some(one) if one.name == held.name => Found::Itself(one),
        _ => match others().next() {
            Some(other) => Found::Replaced(other),
            None => itself.map_or(Found::Gone, Found::Itself),
        },
    }
}

/// The id of the container that has its place now.
pub(super) fn id_of(held: &HeldContainer, all: &[Listed]) -> Option<String> {
    match find(held, all) {
        Found::Itself(one) | Found::Replaced(one) => Some(one.id.clone()),
        Found::Gone => None,
    }
}

/// The same for the runner: nobody makes the container quiet meanwhile.
pub(crate) async fn pay_for_another(
    debt: &Debt,
    docker: &Docker,
    clock: &Clock,
    patience: Duration,
) -> anyhow::Result<Paid> {
    let (Debt::Start { container, .. } | Debt::Thaw { container } | Debt::Tell { container, .. }) = debt else {
        bail!("this is not owed to a container")
    };
    // Another run that has it quiet lets it go by itself; so long it must not run.
    let claiming = tokio::time::timeout(patience, Claim::take([container.id.clone()].into())).await;
    let _claim = claiming.with_context(|| format!("another run has the container `{}`", container.name))?;
    match debt {
        Debt::Tell { command, .. } => {
            let telling = super::hooks::pay(docker, container, command).await;
            telling.with_context(|| format!("run `{}` in the container `{}`", command.join(" "), container.name))
        }
        _ => pay(debt, docker, clock, patience).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, name: &str, state: State, service: Option<&str>) -> Listed {
        let labels = service.into_iter().flat_map(|service| {
            [("project", "p"), ("service", service), ("container-number", "1")]
                .map(|(name, value)| (format!("com.docker.compose.{name}"), value.to_owned()))
        });
        Listed { id: id.into(), name: name.into(), state, labels: labels.collect(), image: "image".into() }
    }

    fn held() -> HeldContainer {
        let compose = crate::model::ComposePlace { project: "p".into(), service: "web".into(), number: "1".into() };
        HeldContainer {
            name: "web".into(),
            id: "old".into(),
            compose: Some(compose),
            started: String::new(),
            since: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_container_is_found_again_by_name_then_by_its_place_and_the_new_one_counts() {
        use State::{Created, Exited, Running};
        let itself = listed("old", "web", Exited, Some("web"));
        let other = listed("x", "db", Running, Some("db"));
        let found = |all: &[Listed]| match find(&held(), all) {
            Found::Itself(one) => format!("itself {}", one.id),
            Found::Replaced(one) => format!("replaced {}", one.id),
            Found::Gone => "gone".to_owned(),
        };
        let renamed = listed("old", "web_old", Exited, None);
        for (all, expected) in [
            (vec![itself.clone(), other.clone()], "itself old"),
            (vec![other.clone()], "gone"),
            (vec![renamed.clone()], "itself old"),
            (vec![listed("new", "web", Exited, None)], "replaced new"),
            (vec![renamed.clone(), listed("new", "web", Running, None)], "replaced new"),
            (vec![renamed, listed("new", "web", Created, None)], "replaced new"),
            (vec![listed("new", "p-web-1", Created, Some("web"))], "replaced new"),
            // Compose was cut off while it created the new one, or had just started it.
            (vec![itself.clone(), listed("new", "abc_web", Created, Some("web"))], "itself old"),
            (vec![itself, listed("new", "abc_web", Running, Some("web"))], "replaced new"),
        ] {
            assert_eq!(found(&all), expected, "{all:?}");
        }
    }
}
