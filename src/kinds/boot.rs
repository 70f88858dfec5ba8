//! `boot`: containers that should run are started after the host was, what others need first, and are waited for.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Cx, Kind, KindEntry, RAN, Ran, Site, Summary, quiet::Claim};
use crate::{
    config::{mistake::Problem, units::Span},
    docker::{
        Access, Choice, Container, Engine, EngineError, Listed, Purpose, access, dependents_first, is_ours,
        swap::{self, Verdict},
    },
    model::{self, Trigger},
    policy::MissedPolicy,
    text,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "boot",
    summary: "Starts what should run after the host was started, in order, and waits until it is well",
    example: include_str!("../../jobs/boot.toml"),
    parse: super::read::<Boot>,
    schema: Boot::json_schema,
    missed: MissedPolicy::Skip,
    class: "boot",
    timeout: Some(Span::hours(2)),
};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(250);
/// A container without a health check is well when it has run for so long.
const LONG_ENOUGH: Duration = Duration::from_secs(5);
/// Under this key is the start of the host for which it has been done.
const DONE: &str = "boot";
/// A host that has run for longer was not started just now.
const JUST_NOW: Duration = Duration::from_secs(15 * 60);

/// Containers to be started.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Boot {
    /// Names of containers, and patterns of names. One that is named itself, without a pattern, is started even if it did not run before.
    pub containers: Vec<String>,
    /// All containers.
    pub all: bool,
    /// All containers of these compose projects.
    pub compose: Vec<String>,
    /// All containers with one of these labels: `name` or `name=value`.
    pub label: Vec<String>,
    /// Names and patterns of containers that are left out, whatever chose them.
    pub exclude: Vec<String>,
    /// How long the engine may take to answer [default: 5m].
    pub engine: Span,
    /// How long each container has to become well [default: as long as its health check may take, a minute at least].
    pub wait: Option<Span>,
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            containers: Vec::new(),
            all: false,
            compose: Vec::new(),
            label: Vec::new(),
            exclude: Vec::new(),
            engine: Span::seconds(300),
            wait: None,
        }
    }
}

/// What becomes of a container.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is up already.
    Up,
    /// It is started; why.
    Start(&'static str),
    /// It stays as it is; why.
    Stay(&'static str),
}

/// One that was started.
struct Started {
    container: Container,
    at: Instant,
}

#[async_trait]
impl Kind for Boot {
    fn check(&self, _: &Site) -> Vec<Problem> {
        let mut problems = self.choice().check();
        for (key, time) in [("engine", Some(self.engine)), ("wait", self.wait)] {
            if time.is_some_and(|time| time.0.is_zero()) {
                problems.push(Problem::new(key, "nothing is well in no time").hint("give it a time such as `2m`"));
            }
        }
        problems
    }

    fn engine(&self) -> Vec<Access> {
        vec![access::VERSION, access::CONTAINERS, access::CONTAINER, access::START]
    }

    fn remembers(&self) -> bool {
        true
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let boot = model::boot_id();
        let ran: Option<Ran> = cx.record.fact(RAN).await?.and_then(|fact| serde_json::from_value(fact).ok());
        if cx.trigger == Trigger::Startup
            && let Some(why) = not_now(cx, &boot, ran.as_ref()).await?
        {
            cx.record.remember(DONE, boot.into()).await?;
            return Ok(why.to_owned());
        }
        let engine = cx.step("engine", self.wait_for_engine(cx)).await?;
        let ran: Option<BTreeSet<String>> =
            ran.and_then(|ran| ran.before(&boot)).map(|names| names.into_iter().collect());
        if ran.is_none() {
            cx.info("which containers ran before the host was started is not known: those are started that are named, and those whose restart policy is `always`");
        }
        let (listed, missing) = self.choose(cx, &engine).await?;
        let mut failures = missing;
        let (mut all, mut stay) = (Vec::new(), 0);
        for one in &listed {
            match engine.container(&one.id).await {
                Ok(container) => all.push(container),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error).with_context(|| format!("look at the container {}", one.name)),
            }
        }
        let mut fates = BTreeMap::new();
        for container in &all {
            let fate = self.fate(container, ran.as_ref());
            if let Fate::Stay(why) = fate {
                stay += 1;
                cx.info(format!("{}: stays as it is: {why}", container.name()));
            }
            fates.insert(container.id().to_owned(), fate);
        }
        // Whoever needs others comes after them.
        let mut order = dependents_first(all);
        order.reverse();
        let mut started: Vec<Started> = Vec::new();
        let mut bad: BTreeMap<String, String> = BTreeMap::new();
        for container in &order {
            let Some(Fate::Start(why)) = fates.get(container.id()) else { continue };
            let name = container.name();
            cx.info(format!("{name}: {why}"));
            let starting = self.start(cx, &engine, container, &order, &mut started, &mut bad);
            if let Err(error) = cx.step(name, starting).await {
                bad.insert(container.id().to_owned(), format!("{name}: {error:#}"));
            }
            if cx.cancelled.is_cancelled() {
                bail!("cancelled; {} started before", text::count(started.len(), "container"));
            }
        }
        for one in &started {
            if let Err(error) = self.until_well(cx, &engine, one).await {
                bad.entry(one.container.id().to_owned()).or_insert(format!("{}: {error:#}", one.container.name()));
            }
        }
        cx.record.remember(DONE, boot.into()).await?;
        let up = fates.values().filter(|fate| **fate == Fate::Up).count();
        let well = started.iter().filter(|one| !bad.contains_key(one.container.id())).count();
        let mut done = format!("{} started and well, {up} ran already", text::count(well, "container"));
        if stay > 0 {
            done.push_str(&format!(", {stay} left stopped"));
        }
        failures.extend(bad.into_values());
        if failures.is_empty() { Ok(done) } else { bail!("{}; {done}", failures.join("; ")) }
    }
}

/// Why nothing is to be done at this start of Rusuban.
async fn not_now(cx: &Cx, boot: &str, ran: Option<&Ran>) -> anyhow::Result<Option<&'static str>> {
    if cx.record.fact(DONE).await?.is_some_and(|done| done == boot) {
        return Ok(Some("Rusuban was started, and not the host: nothing to do"));
    }
    let seen_before_the_host_started = ran.is_some_and(|ran| ran.boot != boot);
    let done_before = cx.record.fact(DONE).await?.is_some();
    if done_before || seen_before_the_host_started || uptime().is_none_or(|uptime| uptime < JUST_NOW) {
        return Ok(None);
    }
    Ok(Some("the host has been up for longer than a quarter of an hour: nothing to do before it is started again"))
}

/// How long the host has been up.
fn uptime() -> Option<Duration> {
    let said = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = said.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

impl Boot {
    fn choice(&self) -> Choice {
        Choice {
            containers: self.containers.clone(),
            all: self.all,
            compose: self.compose.clone(),
            label: self.label.clone(),
            exclude: self.exclude.clone(),
        }
    }

    /// Waits until it answers, and says once that it does not yet.
    async fn wait_for_engine(&self, cx: &Cx) -> anyhow::Result<Engine> {
        let begun = Instant::now();
        let mut is_said = false;
        loop {
            let error = match cx.services.docker.connect().await {
                Ok(engine) => return Ok(engine),
                Err(error) => error,
            };
            if begun.elapsed() >= self.engine.0 {
                return Err(error).with_context(|| format!("the engine has not answered within {}", self.engine));
            }
            if !std::mem::replace(&mut is_said, true) {
                cx.info(format!("waiting for Docker: {error}"));
            }
            tokio::select! {
                () = cx.cancelled.cancelled() => bail!("cancelled while it waited for Docker"),
                () = tokio::time::sleep(LOOK * 2) => {}
            }
        }
    }

    /// The containers that are meant, those that do not run above all; and what is not there.
    async fn choose(&self, cx: &Cx, engine: &Engine) -> anyhow::Result<(Vec<Listed>, Vec<String>)> {
        let all = engine.containers().await.context("list the containers")?;
        let mut chosen = cx.pick(&self.choice(), &all, Purpose::Other);
        chosen.unmatched.iter().for_each(|unmatched| cx.warn(unmatched));
        if self.all {
            // Here those that are stopped are meant too.
            let choice = self.choice();
            let more = all.iter().filter(|one| !one.state.is_up() && choice.is_meant(&one.name, &one.labels));
            let known: BTreeSet<String> = chosen.containers.iter().map(|one| one.id.clone()).collect();
            let more: Vec<Listed> = more.filter(|one| !known.contains(&one.id)).cloned().collect();
            let picked = cx.services.docker.pick(
                &Choice { containers: more.iter().map(|one| one.name.clone()).collect(), ..Choice::default() },
                &more,
                cx.job.as_str(),
                Purpose::Other,
            );
            chosen.containers.extend(picked.chosen.containers);
        }
        Ok((chosen.containers, chosen.missing))
    }

    fn fate(&self, container: &Container, ran: Option<&BTreeSet<String>>) -> Fate {
        let policy = container.raw()["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap_or_default();
        let steps_aside =
            [swap::beside(""), swap::aside("")].iter().any(|end| container.name().ends_with(end.as_str()));
        if container.state().is_up() {
            Fate::Up
        } else if steps_aside || is_ours(&container.labels()) {
            Fate::Stay("it is one of Rusuban's own")
        } else if self.choice().names(container.name()) {
            Fate::Start("the job names it")
        } else if container.label("com.docker.swarm.task.id").is_some() {
            Fate::Stay("a swarm looks after it")
        } else if policy == "always" {
            Fate::Start("its restart policy is `always`")
        } else if ran.is_some_and(|ran| ran.contains(container.name())) {
            Fate::Start("it ran before the host was started")
        } else if !container.has_run() {
            Fate::Stay("it has never run")
        } else if ran.is_some() {
            Fate::Stay(
                "it did not run before the host was started; name it in `containers` to have it started all the same",
            )
        } else {
            Fate::Stay("whether it ran before is not known; name it in `containers` to have it started")
        }
    }

    /// Starts one, after what it needs.
    async fn start(
        &self,
        cx: &Cx,
        engine: &Engine,
        container: &Container,
        order: &[Container],
        started: &mut Vec<Started>,
        bad: &mut BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        for needed in order.iter().filter(|other| other.id() != container.id() && container.needs(other)) {
            let wants_health = container.needs_healthy(needed);
            let is_ours = started.iter().find(|one| one.container.id() == needed.id());
            if wants_health
                && let Some(one) = is_ours
                && let Err(error) = self.until_well(cx, engine, one).await
            {
                bad.entry(needed.id().to_owned()).or_insert(format!("{}: {error:#}", needed.name()));
            }
            let is_bad = bad.contains_key(needed.id());
            let now = engine.container(needed.id()).await.with_context(|| format!("look at {}", needed.name()))?;
            if wants_health && (is_bad || !now.is_healthy()) {
                bail!("not started: it needs {} to be healthy, which it is not", needed.name());
            }
            if !now.state().is_up() {
                cx.warn(format!("{}: it needs {}, which does not run", container.name(), needed.name()));
            }
        }
        // Another run may have it stopped for the moment, to read what it writes; that one starts it again.
        let _claim = tokio::select! {
            claim = Claim::take([container.id().to_owned()].into()) => claim,
            () = cx.cancelled.cancelled() => bail!("cancelled"),
        };
        match engine.start(container.id()).await {
            Ok(()) => {}
            // No answer: it may be started all the same.
            Err(error)
                if error.is_open() && engine.container(container.id()).await.is_ok_and(|now| now.state().is_up()) => {}
            Err(error) => return Err(error).context("start it"),
        }
        let now = engine.container(container.id()).await.context("look at it")?;
        started.push(Started { container: now, at: Instant::now() });
        Ok(())
    }

    /// Waits until it is well by its health check; without one, until it has run for a moment.
    async fn until_well(&self, cx: &Cx, engine: &Engine, one: &Started) -> anyhow::Result<()> {
        let wait = self.wait.map_or_else(|| swap::patience(&one.container), |wait| wait.0);
        loop {
            let now = match engine.container(one.container.id()).await {
                Ok(now) => now,
                Err(EngineError::NotFound(_)) => bail!("it was removed"),
                Err(error) => return Err(error).context("look at it"),
            };
            match swap::judge(&now, one.at.elapsed(), LONG_ENOUGH.min(wait)) {
                Verdict::Well => return Ok(()),
                Verdict::Hopeless(why) => bail!("{why}"),
                Verdict::NotYet(why) if one.at.elapsed() >= wait => bail!("not well after {}: {why}", Span(wait)),
                Verdict::NotYet(_) => {}
            }
            tokio::select! {
                () = cx.cancelled.cancelled() => bail!("cancelled before it was well"),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_stopped_on_purpose_stays_stopped() {
        let boot = Boot { containers: vec!["named".into(), "w*".into()], ..Boot::default() };
        let container = |name: &str, status: &str, policy: &str| {
            let started = if status == "created" { "0001-01-01T00:00:00Z" } else { "2026-11-01T00:00:00Z" };
            Container::of(json!({
                "Name": format!("/{name}"), "State": { "Status": status, "StartedAt": started },
                "HostConfig": { "RestartPolicy": { "Name": policy } }, "Config": {},
            }))
        };
        let ran: BTreeSet<String> = ["w-ran".to_owned()].into();
        let starts = |name: &str, status: &str, policy: &str, ran: Option<&BTreeSet<String>>| match boot
            .fate(&container(name, status, policy), ran)
        {
            Fate::Up => None,
            Fate::Start(_) => Some(true),
            Fate::Stay(_) => Some(false),
        };
        assert_eq!(starts("w-up", "running", "no", None), None);
        assert_eq!(starts("named", "exited", "no", Some(&ran)), Some(true));
        assert_eq!(starts("named", "created", "no", None), Some(true));
        assert_eq!(starts("w-ran", "exited", "no", Some(&ran)), Some(true));
        assert_eq!(starts("w-ran", "exited", "unless-stopped", None), Some(false));
        assert_eq!(starts("w-stopped", "exited", "unless-stopped", Some(&ran)), Some(false));
        assert_eq!(starts("w-always", "exited", "always", Some(&ran)), Some(true));
        assert_eq!(starts("w-new", "created", "no", Some(&ran)), Some(false));
    }

    #[test]
    fn what_ran_before_the_host_was_started_is_not_what_runs_now() {
        let first = Ran::default().now("one", vec!["a".into(), "b".into()]);
        assert_eq!(first.clone().before("one"), None);
        assert_eq!(first.clone().before("two"), Some(vec!["a".to_owned(), "b".to_owned()]));
        let second = first.now("two", vec!["a".into()]).now("two", Vec::new());
        assert_eq!(second.clone().before("two"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(second.before("three"), Some(Vec::new()));
    }
}
