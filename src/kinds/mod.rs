//! What a job does. A kind is a struct in a file of its own, one line in [`KINDS`], and its example under `jobs/`.
pub mod backup;
mod beside;
pub mod boot;
pub mod command;
pub mod container_snapshot;
pub mod container_update;
pub mod disk_report;
pub mod dynamic_dns;
mod generations;
pub mod heartbeat;
pub mod http_call;
pub mod keeping;
mod listening;
pub mod mirror;
mod mounts;
pub(crate) mod quiet;
pub mod report;
pub mod repository_care;
mod request;
pub mod restore;
pub mod rollback;
pub mod routes;
pub mod site_check;
mod swap;

use std::{collections::BTreeMap, fmt::Debug, future::Future, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use self::keeping::Keeping;
use crate::{
    bucket::Bucket,
    clock::Clock,
    config::mistake::{Problem, suggest},
    config::secret::{Redactor, SecretReader, SecretSource, TextOrSecret},
    config::units::Span,
    docker::{Access, Choice, Chosen, Docker, Engine, Listed, Purpose},
    model::{
        Debt, DebtId, JobName, Level, RunId, Trigger,
        news::{Event, Severity},
        overview::Overview,
        watch::{Checked, Rules as CheckRules},
    },
    notify::{plan::Rules, settings::NotifierSettings},
    policy::MissedPolicy,
    repository::settings::Shelf,
};

/// A job's own part, read from its file and ready to run.
#[async_trait]
pub trait Kind: Send + Sync + Debug {
    /// What only shows when the values are seen together, and against the site's settings. No IO.
    fn check(&self, site: &Site) -> Vec<Problem>;

    /// What it touches, such as `path:/srv/photos`: two runs that touch one thing never overlap.
    fn locks(&self) -> Vec<String> {
        Vec::new()
    }

    /// The secrets it reads, to be removed from captured output.
    fn secrets(&self) -> Vec<SecretSource> {
        Vec::new()
    }

    /// The bucket in which it keeps backups, if it keeps any.
    fn bucket(&self) -> Option<&str> {
        None
    }

    /// The repository in which it keeps backups, if it keeps any there.
    fn repository(&self) -> Option<&str> {
        None
    }

    /// The sources that it reads from a Docker engine, by their names in a backup, and what each is there.
    fn docker_sources(&self) -> BTreeMap<String, DockerSource> {
        BTreeMap::new()
    }

    /// What it keeps, for whoever looks for what nobody keeps.
    fn keeps(&self) -> Vec<Keeping> {
        Vec::new()
    }

    /// The hosts whose records it keeps true.
    fn dns_hosts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether it keeps databases: their repository is made for small changes here and there.
    fn keeps_databases(&self) -> bool {
        false
    }

    /// What it asks of the Docker engine: all of it, so that a proxy may refuse everything else.
    fn engine(&self) -> Vec<Access> {
        Vec::new()
    }

    /// What it asks besides where the engine's files are not seen from here.
    fn engine_afar(&self) -> Vec<Access> {
        Vec::new()
    }

    /// What it asks of it besides where a label of a container says so, and labels count.
    fn engine_by_label(&self) -> Vec<Access> {
        Vec::new()
    }

    /// The containers that it follows, for a kind whose work is never done: while the server runs, it is asked
    /// [`is_due`](Self::is_due) whenever they change, and from time to time.
    fn follows(&self) -> Option<Follow> {
        None
    }

    /// Whether a run would change anything; what must only be refreshed is refreshed here. Without one nobody has to read a row for
    /// each minute in which all was as it should be.
    ///
    /// # Errors
    /// When it cannot be seen; a run is started then and says so.
    async fn is_due(&self, _: &JobName, _: &Services) -> anyhow::Result<bool> {
        Ok(true)
    }

    /// Whether it wants to know which containers ran when they were last seen: the fact [`RAN`] is kept for it.
    fn remembers(&self) -> bool {
        false
    }

    /// The checks that it makes, by their labels, if it makes any.
    fn watches(&self) -> Vec<(String, CheckRules)> {
        Vec::new()
    }

    /// Looks once at these of its checks and tells nobody, for whoever wants to know whether a site has come back.
    ///
    /// # Errors
    /// When it cannot look.
    async fn look(&self, _cx: &Cx, _checks: &[String]) -> anyhow::Result<Vec<Checked>> {
        Ok(Vec::new())
    }

    /// Where others call it, if they do: the secret part of the address.
    fn ping_key(&self) -> Option<&TextOrSecret> {
        None
    }

    /// Does it. Asked to stop through `cx.cancelled`, it ends soon, with nothing half done left behind.
    ///
    /// # Errors
    /// Anything that keeps it from being done; the chain of contexts is the run's message.
    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary>;
}

/// What a kind follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Which containers.
    pub choice: Choice,
    /// It is asked that often even when nothing has changed.
    pub every: Duration,
}

/// Under this key a job whose kind [`remembers`](Kind::remembers) finds a [`Ran`].
pub const RAN: &str = "ran";

/// Which containers ran when they were last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ran {
    /// The host's own name for the time between two of its starts.
    pub boot: String,
    /// Their names.
    pub names: Vec<String>,
    /// The same before the host was started the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Self>>,
}

impl Ran {
    /// What ran before this start of the host, if that is known.
    #[must_use]
    pub fn before(self, boot: &str) -> Option<Vec<String>> {
        match self.before {
            _ if self.boot != boot => Some(self.names),
            before => before.map(|before| before.names),
        }
    }

    /// With what runs now.
    #[must_use]
    pub fn now(self, boot: &str, names: Vec<String>) -> Self {
        let before = if self.boot.is_empty() || self.boot == boot {
            self.before
        } else {
            Some(Box::new(Self { before: None, ..self }))
        };
        Self { boot: boot.to_owned(), names, before }
    }
}

/// What a source is to a Docker engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerSource {
    /// A volume, of this name.
    Volume(String),
    /// The volumes of a container of this name, each a folder.
    Container(String),
}

/// Another's lock on a repository, a prune's for example, is waited for so long.
const LOCK_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// One line that says what a run did, such as `3 sources, 1.2 GiB stored and read back`.
pub type Summary = String;

/// What a kind's check may know of the settings.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The job that is checked.
    pub job: Option<JobName>,
    /// The buckets' names.
    pub buckets: Vec<String>,
    /// The repositories' names.
    pub repositories: Vec<String>,
    /// The job is not enabled: it may name what is still to be written in the settings, as an example does.
    pub is_draft: bool,
}

impl Site {
    /// A problem at `key`, if rusuban.toml has no such bucket.
    #[must_use]
    pub fn knows_bucket(&self, key: &str, bucket: &str) -> Option<Problem> {
        let known: Vec<&str> = self.buckets.iter().map(String::as_str).collect();
        let hint = suggest(bucket, &known, "the buckets are");
        let problem = || Problem::new(key, format!("rusuban.toml has no bucket `{bucket}`")).hint(hint);
        (!self.is_draft && !known.is_empty() && !known.contains(&bucket)).then(problem)
    }

    /// A problem at `key`, if rusuban.toml has no such repository.
    #[must_use]
    pub fn knows_repository(&self, key: &str, repository: &str) -> Option<Problem> {
        let known: Vec<&str> = self.repositories.iter().map(String::as_str).collect();
        let hint = if known.is_empty() {
            format!("write `[repository.{repository}]` there, with a `password`")
        } else {
            suggest(repository, &known, "the repositories are")
        };
        let problem = || Problem::new(key, format!("rusuban.toml has no repository `{repository}`")).hint(hint);
        (!self.is_draft && !known.contains(&repository)).then(problem)
    }
}

/// A member of [`KINDS`].
pub struct KindEntry {
    /// Its name in `kind = "…"`.
    pub name: &'static str,
    /// One line for `rusuban kinds`.
    pub summary: &'static str,
    /// Its example: `jobs/….toml`, the help text of `rusuban kinds NAME`.
    pub example: &'static str,
    /// Reads the kind's own keys.
    pub parse: fn(toml::Deserializer<'_>) -> Result<Arc<dyn Kind>, toml::de::Error>,
    /// Their JSON schema.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
    /// What becomes of missed slots when the job does not say.
    pub missed: MissedPolicy,
    /// Its class when the job does not say; the settings limit how many of a class run at once.
    pub class: &'static str,
    /// Its time limit when the job does not say.
    pub timeout: Option<Span>,
}

/// What a run is given.
#[derive(Clone, Debug)]
pub struct Cx {
    /// Whose run.
    pub job: JobName,
    /// Which run.
    pub run: RunId,
    /// What started it.
    pub trigger: Trigger,
    /// The time.
    pub clock: Clock,
    /// Set when the run is asked to stop.
    pub cancelled: CancellationToken,
    /// How long it has then, before it is killed.
    pub grace: Duration,
    /// What all runs share.
    pub services: Arc<Services>,
    /// The run's record.
    pub record: Arc<dyn Record>,
}

/// What all runs share.
#[derive(Debug)]
pub struct Services {
    /// The home folder: relative paths in job files start here.
    pub home: PathBuf,
    /// Where temporary files may be made; on the data folder's disk.
    pub spool: PathBuf,
    /// Where Rusuban's own store is.
    pub store: PathBuf,
    /// The buckets by name.
    pub buckets: BTreeMap<String, Arc<dyn Bucket>>,
    /// The repositories by name.
    pub repositories: BTreeMap<String, Arc<Shelf>>,
    /// What notifiers are told by.
    pub rules: Arc<Rules>,
    /// The notifiers by name.
    pub notifiers: BTreeMap<String, Arc<NotifierSettings>>,
    /// The Docker engine.
    pub docker: Docker,
    /// Days and weekdays in backups' names and retention are of this zone.
    pub time_zone: chrono_tz::Tz,
    /// The one HTTP client.
    pub http: reqwest::Client,
    /// Reads secrets.
    pub secrets: SecretReader,
    /// Removes the secrets of the settings.
    pub redactor: Redactor,
}

/// A run's record: lines, steps, progress, facts and debts. Kept by the runner in the store, which no kind sees.
#[async_trait]
pub trait Record: Send + Sync + Debug {
    /// Adds a line to the run's log; secrets of the settings and of the job are removed. Never waits.
    fn line(&self, level: Level, text: &str);

    /// Shows how far the current step has come, to whoever follows; not kept.
    fn progress(&self, progress: Progress);

    /// Tells something to the program that follows the run, if one does; not kept.
    fn told(&self, _value: serde_json::Value) {}

    /// A step begins.
    fn step_began(&self, name: &str);

    /// The step of that name ended.
    fn step_ended(&self, name: &str, error: Option<&str>);

    /// Writes down what must be undone even if we die now. Returns once it is on disk.
    async fn owe(&self, debt: Debt) -> anyhow::Result<DebtId>;

    /// The debt is paid.
    async fn paid(&self, debt: DebtId) -> anyhow::Result<()>;

    /// What an earlier run of this job remembered under `key`.
    async fn fact(&self, key: &str) -> anyhow::Result<Option<serde_json::Value>>;

    /// Has something told when the run ends, in the transaction of its end; a try that fails takes back what it had to tell.
    fn tell(&self, told: Told);

    /// Has what checks found judged and written down, with what is to be told of it. Returns what the log should say.
    async fn checked(&self, checks: Vec<Checked>) -> anyhow::Result<Vec<String>>;

    /// How the house was since then: every job, and every check.
    async fn overview(&self, since: DateTime<Utc>) -> anyhow::Result<Overview>;

    /// Remembers something for later runs of this job.
    async fn remember(&self, key: &str, value: serde_json::Value) -> anyhow::Result<()>;
}

/// What a kind has to tell, beside how its run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What happened.
    pub event: Event,
    /// How much it matters.
    pub severity: Severity,
    /// One line.
    pub what: String,
    /// Further lines.
    pub lines: Vec<String>,
}

/// How far a step has come.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// The step.
    pub step: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, if known or likely.
    pub total: Option<u64>,
    /// Bytes among them that are new to where they are stored, if that is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
}

impl Cx {
    /// A line that says what we did.
    pub fn info(&self, text: impl AsRef<str>) {
        self.record.line(Level::Info, text.as_ref());
    }

    /// A line that says that we went on, but that a person should look.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.record.line(Level::Warning, text.as_ref());
    }

    /// Does `work` as a named step: its beginning, end and error are recorded.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn step<T>(&self, name: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.record.step_began(name);
        let result = work.await;
        let error = result.as_ref().err().map(|error| format!("{error:#}"));
        self.record.step_ended(name, error.as_deref());
        result
    }

    /// The bucket of that name.
    ///
    /// # Errors
    /// When the settings have none; `check` has said so before.
    pub fn bucket(&self, name: &str) -> anyhow::Result<Arc<dyn Bucket>> {
        self.services
            .buckets
            .get(name)
            .cloned()
            .ok_or_else(|| anyhow::anyhow!("rusuban.toml has no bucket `{name}`: write `[bucket.{name}]` there"))
    }

    /// The Docker engine, which has just answered.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn engine(&self) -> anyhow::Result<Engine> {
        use crate::docker::EngineError;
        self.services.docker.connect().await.map_err(|error| match error {
            EngineError::Unreachable { .. } => anyhow::anyhow!(
                "{error}; is it running, and may this user reach it? `docker = {{ host = \"…\" }}` in rusuban.toml names another"
            ),
            error => error.into(),
        })
    }

    /// The containers that this run is about; what their labels have to say is written into its log.
    pub fn pick(&self, choice: &Choice, all: &[Listed], purpose: Purpose) -> Chosen {
        let picked = self.services.docker.pick(choice, all, self.job.as_str(), purpose);
        picked.notes.iter().for_each(|note| self.info(note));
        picked.refused.iter().for_each(|refused| self.warn(refused));
        picked.chosen
    }

    /// The repository of that name, not opened yet.
    ///
    /// # Errors
    /// When the settings have none; `check` has said so before.
    pub fn repository(&self, name: &str) -> anyhow::Result<Arc<Shelf>> {
        self.services.repositories.get(name).cloned().ok_or_else(|| {
            anyhow::anyhow!(
                "rusuban.toml has no repository `{name}`: write `[repository.{name}]` there, with a `password`"
            )
        })
    }
}

/// The kinds.
pub const KINDS: &[KindEntry] = &[
    backup::ENTRY,
    boot::ENTRY,
    command::ENTRY,
    container_snapshot::ENTRY,
    container_update::ENTRY,
    disk_report::ENTRY,
    dynamic_dns::ENTRY,
    heartbeat::ENTRY,
    http_call::ENTRY,
    mirror::ENTRY,
    report::ENTRY,
    repository_care::ENTRY,
    routes::ENTRY,
    site_check::ENTRY,
];

/// The kind of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static KindEntry> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Reads a kind's own keys: [`KindEntry::parse`] of every kind.
///
/// # Errors
/// Where the keys do not fit, with their place.
pub fn read<K: Kind + serde::de::DeserializeOwned + 'static>(
    keys: toml::Deserializer<'_>,
) -> Result<Arc<dyn Kind>, toml::de::Error> {
    Ok(Arc::new(K::deserialize(keys)?))
}
