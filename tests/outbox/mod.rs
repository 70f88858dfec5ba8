//! From what happens to who is told: nothing is lost, nothing comes twice, and a dead line or notifier holds nobody else up.
mod command_line;
mod day;
mod killed;
mod lines;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use rusuban::{
    app::deliver::{Delivery, Setup},
    clock::Clock,
    model::news::{About, Event, News, Severity},
    notify::{
        Message, Notifier, Receipt, Refusal, Sending,
        delivery::DeliverySettings,
        plan::{self, Rules},
        routes::Notify,
        settings::{Common, NotifierSettings},
    },
    store::Store,
};
use tokio_util::sync::CancellationToken;

/// What a notifier of these tests does with a message.
type Does = dyn Fn(&Message) -> Result<Receipt, Refusal> + Send + Sync;

/// A notifier that keeps what it was given and does what a test says.
struct Fake {
    /// What it took, and when.
    took: Mutex<Vec<Message>>,
    /// How often it was tried.
    tried: Mutex<u32>,
    does: Mutex<Box<Does>>,
    /// It never answers.
    hangs: bool,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

/// The one that the settings hold, and what they say.
struct Held(Arc<Fake>, &'static str);

impl fmt::Debug for Held {
    /// Settings that are equal look equal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.1)
    }
}

#[async_trait::async_trait]
impl Notifier for Held {
    async fn send(&self, _: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        *self.0.tried.lock().unwrap() += 1;
        if self.0.hangs {
            std::future::pending::<()>().await;
        }
        let came = (self.0.does.lock().unwrap())(message);
        if came.is_ok() {
            self.0.took.lock().unwrap().push(message.clone());
        }
        came
    }
}

impl Fake {
    fn new(does: impl Fn(&Message) -> Result<Receipt, Refusal> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            took: Mutex::default(),
            tried: Mutex::default(),
            does: Mutex::new(Box::new(does)),
            hangs: false,
        })
    }

    fn takes_all() -> Arc<Self> {
        Self::new(|_| Ok(Receipt::default()))
    }

    fn refuses(why: &'static str) -> Arc<Self> {
        Self::new(move |_| Err(Refusal::Never { why: why.to_owned() }))
    }

    fn hangs() -> Arc<Self> {
        Arc::new(Self {
            took: Mutex::default(),
            tried: Mutex::default(),
            does: Mutex::new(Box::new(|_| Ok(Receipt::default()))),
            hangs: true,
        })
    }

    fn does(&self, does: impl Fn(&Message) -> Result<Receipt, Refusal> + Send + Sync + 'static) {
        *self.does.lock().unwrap() = Box::new(does);
    }

    fn tried(&self) -> u32 {
        *self.tried.lock().unwrap()
    }

    /// The messages that it took: event and check of each of their news.
    fn took(&self) -> Vec<Vec<(Event, String)>> {
        let name = |news: &News| match &news.about {
            About::Check { check, .. } => check.clone(),
            about => about.to_string(),
        };
        let took = self.took.lock().unwrap();
        took.iter().map(|message| message.news.iter().map(|news| (news.event, name(news))).collect()).collect()
    }

    /// The same, all messages as one.
    fn heard(&self) -> Vec<(Event, String)> {
        self.took().into_iter().flatten().collect()
    }
}

fn later(why: &str) -> Result<Receipt, Refusal> {
    Err(Refusal::Later { after: None, why: why.to_owned() })
}

/// An outbox with notifiers.
struct Post {
    folder: tempfile::TempDir,
    store: Store,
    clock: Clock,
    delivery: Arc<Delivery>,
    stop: CancellationToken,
}

const START: &str = "2026-11-27T02:00:00Z";

fn setup(folder: &Path, clock: &Clock, notifiers: &[(&str, Arc<Fake>, &'static str)]) -> Setup {
    let (cx, _) = crate::support::kind::context(folder, clock.clone(), []);
    let held = |fake: &Arc<Fake>, settings| NotifierSettings {
        kind: "fake",
        common: Common::default(),
        notifier: Arc::new(Held(Arc::clone(fake), settings)),
    };
    Setup {
        notifiers: notifiers
            .iter()
            .map(|(name, fake, settings)| ((*name).to_owned(), Arc::new(held(fake, settings))))
            .collect(),
        rules: Arc::new(Rules::default()),
        settings: DeliverySettings::default(),
        last_resort: folder.join("untold.log"),
        services: cx.services,
    }
}

impl Post {
    fn new(notifiers: &[(&str, Arc<Fake>)]) -> Self {
        let clock = Clock::simulated(START.parse().unwrap());
        Self::with(Store::in_memory(clock.clone()).unwrap(), clock, notifiers)
    }

    fn with(store: Store, clock: Clock, notifiers: &[(&str, Arc<Fake>)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let notifiers: Vec<_> = notifiers.iter().map(|(name, fake)| (*name, Arc::clone(fake), "first")).collect();
        let setup = setup(folder.path(), &clock, &notifiers);
        let delivery = Delivery::new(store.clone(), clock.clone(), setup, folder.path().to_owned());
        Self { folder, store, clock, delivery, stop: CancellationToken::new() }
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Writes news into the outbox, for these.
    async fn tell(&self, to: &[&str], news: &News) {
        let notify = Notify::all(to.iter().map(|name| (*name).to_owned()));
        self.store.tell(plan::outgoing(&notify, &Rules::default(), news, self.now())).await.unwrap();
    }

    /// Time goes by, and what is due is delivered.
    async fn minutes(&self, minutes: i64) {
        for _ in 0..minutes {
            self.clock.step(TimeDelta::minutes(1));
            self.delivery.deliver_now(false, &self.stop).await.unwrap();
            self.delivery.overlook().await.unwrap();
        }
    }

    fn untold(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("untold.log")).unwrap_or_default()
    }
}

/// News of a check; its incident began `ago` minutes ago.
fn news(now: DateTime<Utc>, incident: i64, check: &str, event: Event, ago: i64) -> News {
    News {
        about: About::Check { job: "sites".parse().unwrap(), check: check.to_owned() },
        event,
        severity: Severity::Warning,
        at: now,
        since: Some(now - TimeDelta::minutes(ago)),
        incident: Some(rusuban::model::news::IncidentId(incident)),
        what: "connection refused".to_owned(),
        causes: Vec::new(),
        offers: Vec::new(),
        lines: Vec::new(),
    }
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}
