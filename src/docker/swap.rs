//! A container takes another's place: ending that from wherever it stopped, and seeing whether a container is well.
//!
//! The new one is made beside the old one; the old one is stopped, steps aside by another name, and is removed only when the new one
//! is well. Both may use the same volumes, ports and addresses, so never do both run.
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{
    client::{Engine, EngineError},
    container::{Container, State},
};
use crate::model::{Old, Swap};

/// A container without a health check is well when it has run for so long.
pub const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// The least and the most that is waited for a container to become well, unless somebody says.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(1800);
/// The engine's own interval and limit of a health check, in nanoseconds.
const USUAL: u64 = 30_000_000_000;
/// What the engine may take for a request of one who died after it.
const LATEST: Duration = Duration::from_secs(2);

/// How a swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The old container has its place again.
    AsBefore,
    /// The new one has it.
    AsMeant,
    /// Neither is there any more: somebody has removed them.
    Gone,
}

/// Whether a container is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Well,
    /// It may become so; what is waited for.
    NotYet(String),
    /// It is not, and will not be.
    Hopeless(String),
}

/// The name of a new container until it takes the old one's place.
#[must_use]
pub fn beside(name: &str) -> String {
    format!("{name}-rusuban-new")
}

/// The name of an old one that has stepped aside.
#[must_use]
pub fn aside(name: &str) -> String {
    format!("{name}-rusuban-old")
}

/// The restart policy of one that the engine never starts by itself.
#[must_use]
pub fn no_restart() -> Value {
    json!({ "Name": "no", "MaximumRetryCount": 0 })
}

/// A swap, and what is there of it.
struct Standing<'a> {
    swap: &'a Swap,
    old: Option<Container>,
    new: Option<Container>,
}

/// Ends swaps that belong together, however far they came: the new containers stay if all were found well, or where an old one is gone;
/// else they are removed, and the old ones have their names, their restart policies and, if they ran, their processes again. `swaps` are
/// in the order in which the containers are stopped. Doing it twice is fine.
///
/// # Errors
/// When the engine does not answer or refuses; what was done until then stays done, and it can be tried again.
pub async fn settle(engine: &Engine, swaps: &[Swap]) -> anyhow::Result<Settled> {
    let mut all = Vec::new();
    for swap in swaps {
        let new = find_new(engine, swap).await?;
        all.push(Standing { swap, old: find(engine, &swap.old).await?, new });
    }
    let is_meant = |one: &Standing<'_>| one.swap.well.is_some() && (one.new.is_some() || one.old.is_none());
    if !all.iter().all(is_meant) {
        return undo(engine, &all).await;
    }
    match confirm(engine, &all).await {
        // It was well, and does not even start any more.
        Err(error) if error.downcast_ref::<DoesNotStart>().is_some() && all.iter().all(|one| one.old.is_some()) => {
            undo(engine, &all).await
        }
        settled => settled,
    }
}

async fn find_new(engine: &Engine, swap: &Swap) -> Result<Option<Container>, EngineError> {
    if let Some(id) = &swap.new {
        return find(engine, id).await;
    }
    let found = find(engine, &beside(&swap.name)).await?;
    if found.is_some() {
        return Ok(found);
    }
    // It may have been asked for a moment ago, by one who then died.
    tokio::time::sleep(LATEST).await;
    find(engine, &beside(&swap.name)).await
}

#[derive(Debug, thiserror::Error)]
#[error("it does not start: {0}")]
struct DoesNotStart(EngineError);

/// Takes the new ones away, those first that need others; then brings the old ones back, those first that others need.
async fn undo(engine: &Engine, all: &[Standing<'_>]) -> anyhow::Result<Settled> {
    for Standing { swap, old, new } in all {
        let (Some(old), Some(new), name) = (old, new, &swap.name) else { continue };
        let may_be_stopping = swap.new.is_some() && old.state().is_up() && restart_of(old) == "no";
        if may_be_stopping {
            // By one who died after he had asked for it. Two who ask wait for one end.
            engine.stop(old.id(), None).await.with_context(|| format!("wait for the end of {name}"))?;
        }
        let what = || format!("remove the container that was to take the place of {name}");
        if new.state().is_up() {
            engine.stop(new.id(), None).await.with_context(what)?;
        }
        unless_gone(engine.remove_container_now(new.id()).await).with_context(what)?;
    }
    let mut settled = Settled::Gone;
    for one in all.iter().rev() {
        match (&one.old, &one.new) {
            (Some(old), _) => {
                bring_back(engine, one.swap, old).await?;
                settled = Settled::AsBefore;
            }
            (None, Some(new)) => {
                put_in_place(engine, one.swap, new).await?;
                settled = if settled == Settled::Gone { Settled::AsMeant } else { settled };
            }
            (None, None) => {}
        }
    }
    Ok(settled)
}

async fn bring_back(engine: &Engine, swap: &Swap, old: &Container) -> anyhow::Result<()> {
    let name = &swap.name;
    let what = || format!("bring back the container {name}");
    if old.name() != name {
        engine.rename(old.id(), name).await.with_context(what)?;
    }
    have_restart(engine, old, &swap.restart).await.with_context(what)?;
    if swap.runs.old {
        engine.start(old.id()).await.with_context(what)?;
    }
    Ok(())
}

/// Has the new ones in their places, those first that others need; only then the old ones are removed.
async fn confirm(engine: &Engine, all: &[Standing<'_>]) -> anyhow::Result<Settled> {
    let mut settled = Settled::Gone;
    for Standing { swap, new, .. } in all.iter().rev() {
        let Some(new) = new else { continue };
        put_in_place(engine, swap, new).await?;
        settled = Settled::AsMeant;
    }
    for Standing { swap, old, .. } in all {
        if let (Some(old), Some(Old::Removed)) = (old, swap.well) {
            unless_gone(engine.remove_container(old.id()).await)
                .with_context(|| format!("remove the old container {}", aside(&swap.name)))?;
        }
    }
    Ok(settled)
}

async fn put_in_place(engine: &Engine, swap: &Swap, new: &Container) -> anyhow::Result<()> {
    let name = &swap.name;
    let what = || format!("put the new container in the place of {name}");
    if new.name() != name {
        engine.rename(new.id(), name).await.with_context(what)?;
    }
    if swap.runs.new {
        engine.start(new.id()).await.map_err(|error| match error {
            EngineError::Refused { .. } | EngineError::Conflict(_) => DoesNotStart(error).into(),
            error => anyhow::Error::from(error).context(what()),
        })?;
    }
    have_restart(engine, new, &swap.restart).await.with_context(what)
}

/// Removes a container that was created and has never run, if it has this label.
///
/// # Errors
/// When the engine does not answer or refuses.
pub async fn remove_unstarted(engine: &Engine, name: &str, label: (&str, &str)) -> Result<(), EngineError> {
    match find(engine, name).await? {
        Some(found) if found.label(label.0) == Some(label.1) && found.state() == State::Created => {
            unless_gone(engine.remove_container(found.id()).await)
        }
        _ => Ok(()),
    }
}

async fn have_restart(engine: &Engine, container: &Container, policy: &Value) -> Result<(), EngineError> {
    if policy["Name"] == restart_of(container) || engine.is_podman() {
        return Ok(());
    }
    engine.set_restart(container.id(), policy).await
}

fn restart_of(container: &Container) -> &str {
    container.raw()["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap_or_default()
}

async fn find(engine: &Engine, name: &str) -> Result<Option<Container>, EngineError> {
    match engine.container(name).await {
        Ok(found) => Ok(Some(found)),
        Err(EngineError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn unless_gone(done: Result<(), EngineError>) -> Result<(), EngineError> {
    done.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}

/// Refuses a container whose place cannot be taken.
///
/// # Errors
/// The reason, and what to do.
pub async fn refuse(engine: &Engine, container: &Container) -> anyhow::Result<()> {
    let (name, raw) = (container.name(), container.raw());
    if container.state() == State::Paused {
        bail!("the container {name} is paused: `docker unpause {name}` first");
    }
    if raw["HostConfig"]["AutoRemove"] == true {
        bail!(
            "the container {name} was started with `--rm`: Docker removes it as soon as it is stopped, so there would be no way back"
        );
    }
    for taken in [beside(name), aside(name)] {
        if find(engine, &taken).await?.is_some() {
            bail!("there is a container {taken} already; look whether it is still needed, and `docker rm {taken}`");
        }
    }
    for other in engine.containers().await? {
        if other.id == container.id() {
            continue;
        }
        let Some(other) = find(engine, &other.id).await? else { continue };
        let host = &other.raw()["HostConfig"];
        let shares =
            |key: &str| host[key].as_str().and_then(|mode| mode.strip_prefix("container:")) == Some(container.id());
        if ["NetworkMode", "PidMode", "IpcMode"].into_iter().any(shares) {
            bail!(
                "the container {} lives in the network or among the processes of {name}, and would be cut off: remove it first, and create it again afterwards",
                other.name()
            );
        }
    }
    Ok(())
}

/// Whether a container that was started `since` ago is well: its health check says so or, without one, it has run for `long_enough`.
#[must_use]
pub fn judge(container: &Container, since: Duration, long_enough: Duration) -> Verdict {
    let state = &container.raw()["State"];
    if !container.state().is_up() {
        let why =
            state["Error"].as_str().filter(|why| !why.is_empty()).map(|why| format!(": {why}")).unwrap_or_default();
        return Verdict::Hopeless(format!("it ended with exit code {}{why}", state["ExitCode"]));
    }
    if container.state() == State::Restarting || container.raw()["RestartCount"].as_u64().is_some_and(|times| times > 0)
    {
        return Verdict::Hopeless(format!("it ended with exit code {} and was started again", state["ExitCode"]));
    }
    match state["Health"]["Status"].as_str() {
        Some("healthy") => Verdict::Well,
        Some("unhealthy") => Verdict::Hopeless(format!("its health check fails{}", last_words(state))),
        Some("starting") => Verdict::NotYet(format!("its health check has not succeeded{}", last_words(state))),
        _ if since >= long_enough => Verdict::Well,
        _ => Verdict::NotYet("it has not run for long enough".to_owned()),
    }
}

fn last_words(state: &Value) -> String {
    let last = state["Health"]["Log"].as_array().and_then(|log| log.last());
    let said = last.and_then(|entry| entry["Output"].as_str()).unwrap_or_default();
    let line = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    if line.is_empty() { String::new() } else { format!(": {}", line.trim().chars().take(200).collect::<String>()) }
}

/// How long a container may take to become well when nobody says: as long as its own health check may take to call it unhealthy, and
/// a minute at least. One that is looked at once a minute is not known to be healthy before.
#[must_use]
pub fn patience(container: &Container) -> Duration {
    let check = &container.raw()["Config"]["Healthcheck"];
    let number = |name: &str, usual: u64| check[name].as_u64().filter(|number| *number > 0).unwrap_or(usual);
    let time = |name: &str, usual: u64| Duration::from_nanos(number(name, usual));
    if check["Test"].is_null() {
        return SHORTEST;
    }
    let each = time("Interval", USUAL).saturating_add(time("Timeout", USUAL));
    let tries = u32::try_from(number("Retries", 3)).unwrap_or(u32::MAX);
    let all = time("StartPeriod", 1).saturating_add(each.saturating_mul(tries));
    all.clamp(SHORTEST, LONGEST)
}

/// The addresses at which a container can be reached from its host.
#[must_use]
pub fn addresses(container: &Container) -> Vec<String> {
    let raw = container.raw();
    if raw["HostConfig"]["NetworkMode"] == "host" {
        return vec!["127.0.0.1".to_owned()];
    }
    let networks = raw["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let address =
        networks.filter_map(|(_, endpoint)| endpoint["IPAddress"].as_str().filter(|address| !address.is_empty()));
    address.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_as_long_as_its_health_check_takes_to_give_it_up() {
        let second = 1_000_000_000_u64;
        for (check, seconds) in [
            (json!(null), 60),
            (json!({ "Test": ["CMD", "true"], "Interval": second, "Timeout": second }), 60),
            (
                json!({ "Test": ["CMD", "true"], "Interval": 60 * second, "StartPeriod": 120 * second, "Retries": 5 }),
                570,
            ),
            (json!({ "Test": ["CMD", "true"], "Interval": 86_400 * second }), 1800),
        ] {
            let container = Container::of(json!({ "Config": { "Healthcheck": check } }));
            assert_eq!(patience(&container).as_secs(), seconds, "{check}");
        }
    }

    #[test]
    fn a_container_is_well_when_its_check_says_so_or_it_has_run_for_long_enough() {
        let is = |state: Value, seconds| {
            judge(&Container::of(json!({ "State": state })), Duration::from_secs(seconds), LONG_ENOUGH)
        };
        let health = |status: &str| json!({ "Status": "running", "Health": { "Status": status, "Log": [{ "Output": "no\nanswer\n" }] } });
        assert_eq!(is(health("healthy"), 0), Verdict::Well);
        let again = is(json!({ "Status": "restarting", "ExitCode": 1 }), 99);
        assert_eq!(again, Verdict::Hopeless("it ended with exit code 1 and was started again".into()));
        assert_eq!(is(health("starting"), 99), Verdict::NotYet("its health check has not succeeded: answer".into()));
        assert_eq!(is(health("unhealthy"), 0), Verdict::Hopeless("its health check fails: answer".into()));
        assert_eq!(is(json!({ "Status": "running" }), 10), Verdict::Well);
        assert_eq!(is(health("none"), 9), Verdict::NotYet("it has not run for long enough".into()));
        assert_eq!(
            is(json!({ "Status": "exited", "ExitCode": 3 }), 99),
            Verdict::Hopeless("it ended with exit code 3".into())
        );
    }
}
