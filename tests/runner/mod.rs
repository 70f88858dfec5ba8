//! Runs from outside: whatever happens to them, they end in the ledger, and nothing is left behind.
mod admission;
mod clock;
mod crash;
mod hooks;
mod log;
mod many;
mod news;
mod stopping;
mod whole;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use rusuban::{
    clock::Clock,
    config::{
        mistake::Problem,
        secret::{Redactor, Secret, SecretReader, SecretSource},
        units::Span,
    },
    job::Job,
    kinds::{Cx, Kind, Services, Site, Summary},
    model::{Outcome, Run, RunId, RunState, Trigger},
    notify::routes::{Notify, Target},
    policy::{CommandLine, History, Hooks, MissedPolicy, OnCrash, Overlap, Policies, Retry},
    runner::{Limits, Runner},
    store::Store,
};

/// A house with a runner and an empty ledger.
struct House {
    folder: tempfile::TempDir,
    store: Store,
    clock: Clock,
    services: Arc<Services>,
    runner: Arc<Runner>,
}

impl House {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        // Fails when another test of this process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let store = Store::in_memory(clock.clone()).unwrap();
        let read = |source: &SecretSource| match source {
            SecretSource::Env(name) => Ok(Secret::new(format!("secret-{name}"))),
            other => anyhow::bail!("{other:?}"),
        };
        let services = Arc::new(Services {
            home: folder.path().to_owned(),
            spool: folder.path().to_owned(),
            store: folder.path().join("store"),
            buckets: [].into(),
            repositories: [].into(),
            rules: Arc::default(),
            notifiers: [].into(),
            docker: crate::support::docker::none(),
            time_zone: chrono_tz::UTC,
            http: reqwest::Client::new(),
            secrets: SecretReader(Arc::new(read)),
            redactor: Redactor::new([Secret::new("of-the-settings")]),
        });
        let runner = Runner::new(store.clone(), clock.clone(), Arc::clone(&services), limits);
        Self { folder, store, clock, services, runner }
    }

    fn home(&self) -> &Path {
        self.folder.path()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.home().join(file)).unwrap_or_default()
    }

    /// Starts a run by hand, admitted or not.
    async fn start(&self, job: &Job) -> RunId {
        let run = self.store.queue_run(&job.name, Trigger::Manual).await.unwrap();
        let id = run.id;
        self.runner.start(Arc::new(job.clone()), run);
        id
    }

    /// Waits for a run's end.
    async fn end(&self, id: RunId) -> Run {
        let wait = async {
            loop {
                let run = self.store.run(id).await.unwrap().unwrap();
                if matches!(run.state, RunState::Finished { .. }) {
                    return run;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the run has not ended")
    }

    async fn run(&self, job: &Job) -> Run {
        self.end(self.start(job).await).await
    }

    /// Waits until a file of the home folder is there and not empty.
    async fn appears(&self, file: &str) -> String {
        let wait = async {
            loop {
                let text = self.read(file);
                if text.ends_with('\n') {
                    return text.trim().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the file has not appeared")
    }

    /// Waits until something is so.
    async fn until(&self, so: impl Fn() -> bool) {
        let wait = async {
            while !so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it has not become so");
    }

    async fn lines(&self, run: RunId) -> Vec<String> {
        let lines = self.store.lines(run, 0, u32::MAX).await.unwrap();
        for (line, number) in lines.iter().zip(1..) {
            assert_eq!(line.number, number, "no gaps");
        }
        lines.into_iter().map(|line| line.text).collect()
    }
}

fn outcome(run: &Run) -> Outcome {
    match run.state {
        RunState::Finished { outcome, .. } => outcome,
        _ => panic!("{run:?} has not ended"),
    }
}

fn policies() -> Policies {
    Policies {
        jitter: Span::seconds(0),
        missed: MissedPolicy::Latest,
        missed_window: Span::hours(24),
        overlap: Overlap::Skip,
        retry: Retry::default(),
        timeout: None,
        grace: Span(Duration::from_millis(400)),
        on_crash: OnCrash::Fail,
        locks: Vec::new(),
        class: "command".into(),
        hooks: Hooks::default(),
        history: History::default(),
    }
}

pub(crate) fn job(name: &str, kind: Arc<dyn Kind>) -> Job {
    Job {
        name: name.parse().unwrap(),
        kind_name: "test",
        kind,
        description: None,
        enabled: true,
        schedule: None,
        after: Vec::new(),
        on: None,
        policies: policies(),
        notify: Notify::default(),
        target: Target::default(),
        source: "".into(),
    }
}

/// A job of the kind `command` that is a line for the shell.
fn shell(name: &str, line: &str) -> Job {
    command(name, &format!("shell = '''{line}'''"))
}

fn command(name: &str, toml: &str) -> Job {
    let kind = (rusuban::kinds::find("command").unwrap().parse)(toml::Deserializer::parse(toml).unwrap()).unwrap();
    assert!(kind.check(&Site::default()).is_empty());
    job(name, kind)
}

fn line(text: impl Into<String>) -> Option<CommandLine> {
    Some(CommandLine::Shell(text.into()))
}

/// A kind that does what a test says.
pub(crate) struct Does(Box<dyn Fn(Cx) -> BoxFuture<'static, anyhow::Result<Summary>> + Send + Sync>);

impl Does {
    pub(crate) fn kind<F: Future<Output = anyhow::Result<Summary>> + Send + 'static>(
        work: impl Fn(Cx) -> F + Send + Sync + 'static,
    ) -> Arc<dyn Kind> {
        Arc::new(Self(Box::new(move |cx| Box::pin(work(cx)))))
    }
}

impl fmt::Debug for Does {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Does")
    }
}

#[async_trait::async_trait]
impl Kind for Does {
    fn check(&self, _: &Site) -> Vec<Problem> {
        Vec::new()
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        (self.0)(cx.clone()).await
    }
}

/// Whether a process with this number is there and at work.
fn is_there(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}
