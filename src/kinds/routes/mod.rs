//! `routes`: where containers are, by name, in a hosts file and in Redis, kept true as they come and go.
mod hosts;
mod redis;
mod table;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    redis::{Redis, RedisSettings},
    table::{Member, Rules, Table},
};
use super::{Cx, Follow, Kind, KindEntry, Services, Site, Summary};
use crate::{
    config::{mistake::Problem, secret::SecretSource, units::Span},
    docker::{Access, Choice, Container, Engine, EngineError, Listed, Purpose, access, is_host_name},
    model::{JobName, Level},
    policy::{CommandLine, MissedPolicy},
    process::{self, Exit, Tree},
    text,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "routes",
    summary: "Keeps a hosts file and a Redis table true: which container is at which address",
    example: include_str!("../../../jobs/routes.toml"),
    parse: super::read::<Routes>,
    schema: Routes::json_schema,
    missed: MissedPolicy::Skip,
    class: "routes",
    timeout: Some(Span::seconds(300)),
};

/// What is written is looked at that often even when no container has changed.
const LOOK: Duration = Duration::from_secs(300);
/// Under this key it stands that what was written has not been told yet.
const OWED: &str = "reload-owed";

/// Containers and where their names are written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Routes {
    /// Names of containers, and patterns of names: `wiki-*`.
    pub containers: Vec<String>,
    /// All containers that run.
    pub all: bool,
    /// All containers of these compose projects.
    pub compose: Vec<String>,
    /// All containers with one of these labels: `name` or `name=value`.
    pub label: Vec<String>,
    /// Names and patterns of containers that are left out, whatever chose them.
    pub exclude: Vec<String>,
    /// The network whose address counts [default: the only one that a container is in].
    pub network: Option<String>,
    /// The name of each: `{name}` is the container's, `{service}` and `{project}` are compose's [default: `{name}`].
    pub name: String,
    /// The port of each, for Redis [default: the only one that a container exposes].
    pub port: Option<u16>,
    /// Only those that their own health check does not call unhealthy.
    pub healthy: bool,
    /// A hosts file. Only a marked block in it is written.
    pub hosts: Option<PathBuf>,
    /// A table in Redis.
    pub redis: Option<RedisSettings>,
    /// A command that is run after a change, such as one that reloads a proxy: a line for the shell, or a list of arguments.
    pub reload: Option<CommandLine>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            containers: Vec::new(),
            all: false,
            compose: Vec::new(),
            label: Vec::new(),
            exclude: Vec::new(),
            network: None,
            name: "{name}".to_owned(),
            port: None,
            healthy: false,
            hosts: None,
            redis: None,
            reload: None,
        }
    }
}

/// The server and the table that it has, or why that cannot be seen.
type InRedis = anyhow::Result<(Redis, BTreeMap<String, String>)>;

/// What is to be written, and what is there.
struct Standing {
    table: Table,
    hosts: Option<hosts::File>,
    redis: Option<InRedis>,
}

#[async_trait]
impl Kind for Routes {
    fn check(&self, _: &Site) -> Vec<Problem> {
        let mut problems = self.choice().check();
        if self.hosts.is_none() && self.redis.is_none() {
            problems.push(
                Problem::new("", "the names are written nowhere")
                    .hint("add `hosts = \"/etc/hosts\"`, or a table `[redis]` with `address` and `key`"),
            );
        }
        let sample = table::filled(&self.name, "blog", Some("web"), Some("shop"));
        match sample {
            Some(sample) if is_host_name(&sample) && self.name.contains('{') => {}
            Some(sample) if is_host_name(&sample) => problems.push(
                Problem::new("name", format!("every container would be called `{}`", self.name))
                    .hint("`{name}` stands for the container's name: `name = \"{name}.home\"`"),
            ),
            _ => {
                problems.push(Problem::new("name", format!("`{}` cannot become a host's name", self.name)).hint(
                    "letters, digits, `-`, `.`, and `{name}`, `{service}` or `{project}`: `name = \"{name}.home\"`",
                ))
            }
        }
        if self.port == Some(0) {
            problems.push(Problem::new("port", "there is no port 0"));
        }
        if self.network.as_ref().is_some_and(|network| network.trim().is_empty()) {
            problems.push(Problem::new("network", "the network's name is empty"));
        }
        problems.extend(self.redis.iter().flat_map(RedisSettings::check));
        problems
    }

    fn locks(&self) -> Vec<String> {
        let hosts = self.hosts.iter().map(|path| format!("path:{}", path.display()));
        hosts.chain(self.redis.iter().map(|redis| format!("redis:{}/{}", redis.address, redis.key))).collect()
    }

    fn secrets(&self) -> Vec<SecretSource> {
        self.redis.iter().filter_map(|redis| redis.password.as_ref()?.secret().cloned()).collect()
    }

    fn engine(&self) -> Vec<Access> {
        vec![access::VERSION, access::CONTAINERS, access::CONTAINER]
    }

    fn follows(&self) -> Option<Follow> {
        // What expires is refreshed long before.
        let every = self.redis.as_ref().map_or(LOOK, |redis| (redis.expire.0 / 3).min(LOOK));
        Some(Follow { choice: self.choice(), every })
    }

    async fn is_due(&self, job: &JobName, services: &Services) -> anyhow::Result<bool> {
        let engine = services.docker.connect().await?;
        let all = engine.containers().await?;
        let chosen = services.docker.pick(&self.choice(), &all, job.as_str(), Purpose::Other).chosen;
        let standing = self.standing(job, services, &engine, &chosen.containers).await?;
        if standing.hosts.as_ref().is_some_and(|file| file.differs(&standing.table)) {
            // Whatever becomes of the other.
            return Ok(true);
        }
        Ok(match (standing.redis, &self.redis) {
            (Some(there), Some(settings)) => {
                let (mut redis, values) = there?;
                let is_right = values == standing.table.values();
                if is_right {
                    redis.refresh(&settings.key, settings.expire.0, values.is_empty()).await?;
                }
                !is_right
            }
            _ => false,
        })
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let engine = cx.engine().await?;
        let chosen = cx.pick(&self.choice(), &engine.containers().await?, Purpose::Other);
        // What is not there has no address; it may be there tomorrow.
        let absent = chosen.missing.iter().chain(&chosen.unmatched);
        absent.for_each(|one| cx.info(format!("{one}, so it has no address")));
        let standing = self.standing(&cx.job, &cx.services, &engine, &chosen.containers).await?;
        standing.table.notes.iter().for_each(|note| cx.warn(note));
        let Standing { table, hosts, redis } = standing;
        let hosts_differ = hosts.as_ref().is_some_and(|file| file.differs(&table));
        let redis_differs =
            redis.as_ref().is_some_and(|there| there.as_ref().is_ok_and(|(_, values)| *values != table.values()));
        let is_owed = cx.record.fact(OWED).await? == Some(true.into());
        if self.reload.is_some() && !is_owed && (hosts_differ || redis_differs) {
            // Before the deed: whoever reads the names is told of them, even if we die in between.
            cx.record.remember(OWED, true.into()).await?;
        }
        let before = before(hosts.as_ref(), redis.as_ref());
        let mut failures = Vec::new();
        if let Some(file) = hosts.filter(|_| hosts_differ) {
            let path = file.path().to_owned();
            let lines = table.lines();
            let writing = async { tokio::task::spawn_blocking(move || file.write(&lines)).await? };
            match cx.step("hosts", writing).await.with_context(|| format!("write {}", path.display())) {
                Ok(hosts::How::Renamed) => {}
                Ok(hosts::How::InPlace(why)) => cx.info(format!("{} was written in place: {why}", path.display())),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        match (redis, &self.redis) {
            (Some(Ok((mut redis, _))), Some(settings)) => {
                let values = table.values();
                let writing = redis.put(&settings.key, &values, settings.expire.0);
                if let Err(error) = cx.step("redis", writing).await {
                    failures.push(format!("write the table `{}` in Redis: {error:#}", settings.key));
                }
            }
            (Some(Err(error)), _) => failures.push(format!("{error:#}")),
            _ => {}
        }
        let mut done = told(cx, &table, &before);
        let has_changed = hosts_differ || redis_differs || is_owed;
        if let Some(reload) = self.reload.as_ref().filter(|_| has_changed) {
            match cx.step("reload", self.reload(cx, reload)).await {
                Ok(()) => {
                    cx.record.remember(OWED, false.into()).await?;
                    done.push_str("; reloaded");
                }
                Err(error) => failures.push(format!("the names are written, but `reload` failed: {error:#}")),
            }
        }
        if failures.is_empty() { Ok(done) } else { bail!("{}; {done}", failures.join("; ")) }
    }
}

impl Routes {
    fn choice(&self) -> Choice {
        Choice {
            containers: self.containers.clone(),
            all: self.all,
            compose: self.compose.clone(),
            label: self.label.clone(),
            exclude: self.exclude.clone(),
        }
    }

    async fn standing(
        &self,
        job: &JobName,
        services: &Services,
        engine: &Engine,
        chosen: &[Listed],
    ) -> anyhow::Result<Standing> {
        let rules = Rules {
            network: self.network.as_deref(),
            name: &self.name,
            port: self.port,
            only_healthy: self.healthy,
            needs_port: self.redis.is_some(),
            heeds_labels: services.docker.heeds_labels(),
        };
        let table = table::of(&members(engine, chosen).await?, &rules);
        let hosts = match &self.hosts {
            Some(path) => {
                let (path, job) = (services.home.join(path), job.to_string());
                Some(tokio::task::spawn_blocking(move || hosts::File::read(&path, &job)).await??)
            }
            None => None,
        };
        let redis = match &self.redis {
            Some(settings) => Some(self.in_redis(settings, services).await),
            None => None,
        };
        Ok(Standing { table, hosts, redis })
    }

    async fn in_redis(&self, settings: &RedisSettings, services: &Services) -> InRedis {
        let mut redis = Redis::connect(settings, &services.secrets).await?;
        let what = || format!("read the table `{}` in Redis", settings.key);
        let values = redis.table(&settings.key).await.with_context(what)?;
        Ok((redis, values))
    }

    async fn reload(&self, cx: &Cx, reload: &CommandLine) -> anyhow::Result<()> {
        let home = &cx.services.home;
        let mut environment =
            vec![("RUSUBAN_JOB".to_owned(), cx.job.to_string()), ("RUSUBAN_RUN".to_owned(), cx.run.to_string())];
        environment.extend(cx.trigger.environment());
        let command = process::Command {
            arguments: reload.arguments(),
            folder: Some(home.clone()),
            environment,
            user: None,
            tree: Tree::new(home, cx.run),
            limits: process::Limits::default(),
            grace: None,
        };
        let ended = process::run(&command, &cx.cancelled, |line| cx.record.line(Level::Output, line)).await?;
        match ended.exit {
            _ if ended.stopped => bail!("it was stopped"),
            Exit::Code(0) => Ok(()),
            exit => bail!("{exit}"),
        }
    }
}

/// The containers that run, each with the one in whose network it lives.
async fn members(engine: &Engine, chosen: &[Listed]) -> Result<Vec<Member>, EngineError> {
    let mut members = Vec::new();
    for listed in chosen.iter().filter(|one| one.state.is_up()) {
        let Some(container) = there(engine, &listed.id).await? else { continue };
        let network = match container.lives_in_network_of() {
            Some(host) => there(engine, host).await?,
            None => None,
        };
        members.push(Member { container, network });
    }
    Ok(members)
}

async fn there(engine: &Engine, name: &str) -> Result<Option<Container>, EngineError> {
    match engine.container(name).await {
        Ok(container) => Ok(Some(container)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names as they were, from whichever place has them.
fn before(hosts: Option<&hosts::File>, redis: Option<&InRedis>) -> BTreeMap<String, String> {
    match (hosts, redis) {
        (Some(file), _) => file.names(),
        (None, Some(Ok((_, values)))) => {
            values.iter().map(|(name, at)| (name.clone(), table::address_in(at).to_owned())).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// What has changed, name by name in the log, in numbers in the summary.
fn told(cx: &Cx, table: &Table, before: &BTreeMap<String, String>) -> String {
    let now = table.addresses();
    let (mut new, mut moved) = (0, 0);
    for (name, address) in &now {
        match before.get(name) {
            None => {
                new += 1;
                cx.info(format!("{name} is at {address}"));
            }
            Some(old) if old != address => {
                moved += 1;
                cx.info(format!("{name} is at {address} now, not at {old}"));
            }
            Some(_) => {}
        }
    }
    let gone: Vec<&String> = before.keys().filter(|name| !now.contains_key(*name)).collect();
    gone.iter().for_each(|name| cx.info(format!("{name} is gone")));
    let parts = [(new, "new"), (moved, "moved"), (gone.len(), "gone")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    let changes = if parts.is_empty() { "none has changed".to_owned() } else { parts.join(", ") };
    format!("{}: {changes}", text::count(now.len(), "name"))
}

/// The place of a file that a link may point to.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
