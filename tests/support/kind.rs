//! One run of one kind, without a runner: what it says, what it remembers, what it owes.
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusuban::{
    bucket::Bucket,
    clock::Clock,
    config::secret::{Redactor, Secret, SecretReader, SecretSource},
    kinds::{self, Cx, Kind, Progress, Record, Services, Told},
    model::{Debt, DebtId, Level, RunId, Trigger, overview::Overview, watch::Checked},
};
use tokio_util::sync::CancellationToken;

/// A record that keeps all in memory.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) lines: Mutex<Vec<(Level, String)>>,
    pub(crate) facts: Mutex<BTreeMap<String, serde_json::Value>>,
    pub(crate) debts: Mutex<BTreeMap<i64, Debt>>,
    pub(crate) told: Mutex<Vec<Told>>,
    pub(crate) overview: Mutex<Overview>,
    pub(crate) checks: Mutex<Vec<Checked>>,
    numbers: AtomicI64,
}

impl Kept {
    /// The lines, each with a letter in front: `o` output, `i` info, `w` warning, `e` error.
    pub(crate) fn text(&self) -> String {
        let letter = |level| match level {
            Level::Output => 'o',
            Level::Info => 'i',
            Level::Warning => 'w',
            Level::Error => 'e',
        };
        self.lines.lock().unwrap().iter().map(|(level, text)| format!("{} {text}\n", letter(*level))).collect()
    }
}

#[async_trait]
impl Record for Kept {
    fn line(&self, level: Level, text: &str) {
        self.lines.lock().unwrap().push((level, text.to_owned()));
    }

    fn progress(&self, _: Progress) {}

    fn step_began(&self, _: &str) {}

    fn step_ended(&self, _: &str, _: Option<&str>) {}

    async fn owe(&self, debt: Debt) -> anyhow::Result<DebtId> {
        let id = self.numbers.fetch_add(1, Ordering::SeqCst);
        self.debts.lock().unwrap().insert(id, debt);
        Ok(DebtId(id))
    }

    async fn paid(&self, debt: DebtId) -> anyhow::Result<()> {
        self.debts.lock().unwrap().remove(&debt.0);
        Ok(())
    }

    async fn fact(&self, key: &str) -> anyhow::Result<Option<serde_json::Value>> {
        Ok(self.facts.lock().unwrap().get(key).cloned())
    }

    async fn checked(&self, checks: Vec<Checked>) -> anyhow::Result<Vec<String>> {
        self.checks.lock().unwrap().extend(checks);
        Ok(Vec::new())
    }

    async fn overview(&self, _: DateTime<Utc>) -> anyhow::Result<Overview> {
        Ok(self.overview.lock().unwrap().clone())
    }

    fn tell(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    async fn remember(&self, key: &str, value: serde_json::Value) -> anyhow::Result<()> {
        self.facts.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }
}

/// A job's context in `home`; an environment secret `NAME` has the value `secret-NAME`.
pub(crate) fn context(
    home: &Path,
    clock: Clock,
    buckets: impl IntoIterator<Item = (String, Arc<dyn Bucket>)>,
) -> (Cx, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let read = |source: &SecretSource| match source {
        SecretSource::Env(name) => Ok(Secret::new(format!("secret-{name}"))),
        other => anyhow::bail!("{other:?}"),
    };
    let services = Services {
        home: home.to_owned(),
        spool: home.to_owned(),
        store: home.join("store"),
        buckets: buckets.into_iter().collect(),
        repositories: BTreeMap::new(),
        rules: Arc::default(),
        notifiers: BTreeMap::new(),
        docker: crate::support::docker::none(),
        time_zone: chrono_tz::UTC,
        http: rusuban::http::client().unwrap(),
        secrets: SecretReader(Arc::new(read)),
        redactor: Redactor::new([Secret::new("of-the-settings")]),
    };
    let cx = Cx {
        job: "job".parse().unwrap(),
        run: RunId(1),
        trigger: Trigger::Manual,
        clock,
        cancelled: CancellationToken::new(),
        grace: std::time::Duration::from_secs(5),
        services: Arc::new(services),
        record: Arc::clone(&kept) as Arc<dyn Record>,
    };
    (cx, kept)
}

/// A kind from its own keys.
pub(crate) fn read(kind: &str, keys: &str) -> Arc<dyn Kind> {
    (kinds::find(kind).unwrap().parse)(toml::Deserializer::parse(keys).unwrap()).unwrap()
}
