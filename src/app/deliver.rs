//! Delivery: what waits in the outbox goes to its notifiers, each at its own pace, in order, at least once.
//!
//! A message is written before it is sent, and after a crash the same is sent again under the same key. One that may go better later
//! waits; a notifier that refuses is blocked, and what it would have told is told through another.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::memory::Memories;
use crate::{
    clock::{Clock, LONGEST_SLEEP},
    config::Config,
    kinds::Services,
    model::{
        host_name,
        news::{About, Event, News, Offer, Severity},
    },
    notify::{
        Message, Receipt, Refusal, Sending, TIME_LIMIT,
        delivery::DeliverySettings,
        plan::{self, Next, Parcel, Rules, Tried, Waiting},
        settings::NotifierSettings,
    },
    store::{Answer, End, Line, OutboxRow, Store},
    text,
};

/// Rows that are looked at for one message.
const ROWS: u32 = 500;
/// A notifier that keeps its own time limits has answered long before.
const LONGEST_SEND: Duration = Duration::from_secs(4 * TIME_LIMIT.as_secs());
/// While it is quiet for a notifier, it is looked whether something critical has come for it as often as this.
const PATIENCE: TimeDelta = TimeDelta::seconds(10);
/// What is further ahead than this was written by a clock that was wrong.
const WRONG_CLOCK: TimeDelta = TimeDelta::hours(25);

/// What delivery works with; another one after the files were read again.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The notifiers by name.
    pub notifiers: BTreeMap<String, Arc<NotifierSettings>>,
    /// What they are told by.
    pub rules: Arc<Rules>,
    /// How news reach people.
    pub settings: DeliverySettings,
    /// The file for what cannot be told.
    pub last_resort: PathBuf,
    /// HTTP, secrets.
    pub services: Arc<Services>,
}

impl Setup {
    /// What the settings say.
    #[must_use]
    pub fn new(config: &Config, services: &Arc<Services>) -> Self {
        let settings = config.settings.notify.clone();
        let last_resort = match &settings.last_resort {
            Some(file) => config.home.path().join(file),
            None => config.settings.data.join("untold.log"),
        };
        let (notifiers, rules) = (services.notifiers.clone(), Arc::clone(&services.rules));
        Self { notifiers, rules, settings, last_resort, services: Arc::clone(services) }
    }

    /// Who is told in another's place, the best first.
    fn order(&self) -> Vec<String> {
        self.settings.instead.clone().unwrap_or_else(|| self.notifiers.keys().cloned().collect())
    }
}

/// Tells people what is in the outbox.
pub struct Delivery {
    pub(super) store: Store,
    pub(super) clock: Clock,
    setup: Mutex<Arc<Setup>>,
    memories: Arc<Memories>,
    /// One message at a time for each notifier.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Rows that have an end which the ledger could not take yet: they are not told again.
    ended: Mutex<BTreeSet<i64>>,
    /// When to look again for a notifier, at the earliest: it waits, or it is quiet. The ledger knows the first, unless its disk is full.
    next: Mutex<HashMap<String, DateTime<Utc>>>,
    /// When the outbox was last looked at.
    looked: AtomicI64,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Delivery")
    }
}

impl Delivery {
    /// Delivery to these notifiers. What they remember is kept in the ledger, sealed with a key in `data`.
    #[must_use]
    pub fn new(store: Store, clock: Clock, setup: Setup, data: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            memories: Arc::new(Memories::new(store.clone(), data)),
            store,
            looked: AtomicI64::new(clock.now().timestamp_millis()),
            clock,
            setup: Mutex::new(Arc::new(setup)),
            turns: Mutex::default(),
            ended: Mutex::default(),
            next: Mutex::default(),
        })
    }

    /// Takes these settings from now on.
    pub fn set_up(&self, setup: Setup) {
        *self.setup.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(setup);
        self.next().clear();
    }

    /// The settings.
    #[must_use]
    pub fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.setup.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the outbox was last looked at.
    pub(super) fn looked(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.looked.load(Ordering::SeqCst)).unwrap_or_default()
    }

    /// Delivers until `stop`. What is being sent then is asked to end soon.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut turns = JoinSet::new();
        loop {
            match self.due().await {
                Ok(names) => {
                    for name in names {
                        let Ok(turn) = self.turn_of(&name).try_lock_owned() else { continue };
                        let (delivery, stop) = (Arc::clone(&self), stop.clone());
                        turns.spawn(async move {
                            loop {
                                match delivery.turn(&name, &stop, false).await {
                                    Ok(true) if !stop.is_cancelled() => {}
                                    Ok(_) => break,
                                    Err(error) => {
                                        tracing::error!(notifier = name, "deliver what waits for it: {error:#}");
                                        break;
                                    }
                                }
                            }
                            drop(turn);
                        });
                    }
                }
                Err(error) => tracing::error!("look into the outbox: {error:#}"),
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.clock.sleep(LONGEST_SLEEP) => {}
            }
            while turns.try_join_next().is_some() {}
        }
        while turns.join_next().await.is_some() {}
    }

    /// Tells what is due now, and returns when each notifier has been tried until nothing more is due for it. In a `hurry`, nothing
    /// is waited for that might come and be told together with it.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn deliver_now(&self, hurry: bool, stop: &CancellationToken) -> anyhow::Result<()> {
        let names: Vec<String> =
            if hurry { self.store.queues().await?.into_keys().collect() } else { self.due().await? };
        let all = names.iter().map(async |name| {
            let turn = self.turn_of(name);
            let _turn = turn.lock().await;
            while self.turn(name, stop, hurry).await? && !stop.is_cancelled() {}
            anyhow::Ok(())
        });
        futures_util::future::join_all(all).await.into_iter().collect()
    }

    /// The notifiers that something is due for.
    async fn due(&self) -> anyhow::Result<Vec<String>> {
        let now = self.clock.now();
        let awaited = self.store.awaited().await?;
        self.looked.store(now.timestamp_millis(), Ordering::SeqCst);
        let is_due = |at: DateTime<Utc>| at <= now || at > now + WRONG_CLOCK;
        Ok(awaited.into_iter().filter(|(_, at)| is_due(*at)).map(|(name, _)| name).collect())
    }

    fn turn_of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(name.to_owned()).or_default())
    }

    fn next(&self) -> MutexGuard<'_, HashMap<String, DateTime<Utc>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One message for this notifier, if one is due and its line is free. Says whether there was one that it took.
    async fn turn(&self, name: &str, stop: &CancellationToken, hurry: bool) -> anyhow::Result<bool> {
        let setup = self.setup();
        let now = self.clock.now();
        // One that is no longer in the settings: its rows wait until it is again, or until they expire.
        let Some(notifier) = setup.notifiers.get(name) else { return Ok(false) };
        let is_early = |at: &DateTime<Utc>| now < *at && *at < now + WRONG_CLOCK;
        if !hurry && self.next().get(name).is_some_and(is_early) {
            return Ok(false);
        }
        let mut line = self.store.lines_of_notifiers().await?.remove(name).unwrap_or_default();
        if line.blocked.is_some() {
            if line.settings.as_deref() == Some(&*fingerprint(notifier)) {
                return self.divert(&setup, name, now, hurry).await;
            }
            tracing::info!(notifier = name, "its settings have changed: it is tried again");
            line = Line { told: line.told, ..Line::default() };
        }
        if line.next_try.as_ref().is_some_and(is_early) {
            return Ok(false);
        }
        let waiting = self.waiting(name, now, hurry).await?;
        let open = self.store.open_message(name).await?;
        let tried = open.and_then(|open| {
            Some(Tried { parts: serde_json::from_value(open.parts).ok()?, is_put_off: open.is_put_off })
        });
        let ear = setup.rules.ears.get(name).copied().unwrap_or_default();
        match plan::next(&waiting, tried.as_ref(), ear, &setup.rules, line.failing, now) {
            Next::Nothing => Ok(false),
            Next::Wait(until) => {
                // Something critical may come meanwhile.
                self.next().insert(name.to_owned(), until.min(now + PATIENCE));
                Ok(false)
            }
            Next::Send(parcel) => self.send(&setup, name, notifier, &parcel, line, stop).await,
        }
    }

    /// What waits for this notifier and has no end that the ledger only does not know yet.
    async fn waiting(&self, name: &str, now: DateTime<Utc>, hurry: bool) -> anyhow::Result<Vec<Waiting>> {
        let rows = self.store.waiting(Some(name), ROWS).await?;
        let ended = self.ended();
        let rows = rows.into_iter().filter(|row| !ended.contains(&row.id));
        Ok(rows
            .map(|OutboxRow { id, key, news, not_before, .. }| {
                let at_once = hurry || not_before > now + WRONG_CLOCK;
                let not_before = if at_once { not_before.min(now) } else { not_before };
                Waiting { id, key, news, not_before }
            })
            .collect())
    }

    async fn send(
        &self,
        setup: &Setup,
        name: &str,
        notifier: &Arc<NotifierSettings>,
        parcel: &Parcel,
        line: Line,
        stop: &CancellationToken,
    ) -> anyhow::Result<bool> {
        // On a full disk it is sent all the same: the same rows have the same key, with or without this.
        let parts = serde_json::to_value(&parcel.parts)?;
        let message = self.store.begin_message(name, &parcel.key, parts).await.unwrap_or_else(|error| {
            tracing::warn!(notifier = name, "write down a message before it is sent: {error:#}");
            0
        });
        let thread = match parcel.story() {
            Some(story) => self.store.thread(name, &story).await?,
            None => None,
        };
        let plain = self.message(setup, notifier, parcel.key.clone(), parcel.news.clone());
        let told = Message { thread, delay: parcel.delay, ..plain };
        let came = self.give(setup, name, notifier, &told, stop).await;
        if stop.is_cancelled() && came.is_err() {
            // Nobody knows whether it has arrived: the same is sent again at the next start.
            return Ok(false);
        }
        let answer = Answer {
            message,
            told: parcel.parts.told.clone(),
            merged: parcel.parts.merged.clone(),
            ..Answer::default()
        };
        let is_told = came.is_ok();
        let answer = self.answer(setup, name, notifier, parcel, line, came, answer).await?;
        if !answer.is_put_off {
            self.ended().extend(parcel.parts.told.iter().chain(&parcel.parts.merged));
        }
        if let Some(at) = answer.line.next_try {
            self.next().insert(name.to_owned(), at);
        }
        self.store.answered(name, answer).await?;
        self.forget_ended().await?;
        Ok(is_told)
    }

    /// Once the ledger is well it knows all ends.
    async fn forget_ended(&self) -> anyhow::Result<()> {
        if self.store.trouble().is_none() {
            self.ended().clear();
        }
        Ok(())
    }

    /// Gives a notifier a message; whatever it does, there is an answer.
    async fn give(
        &self,
        setup: &Setup,
        name: &str,
        notifier: &Arc<NotifierSettings>,
        message: &Message,
        stop: &CancellationToken,
    ) -> Result<Receipt, Refusal> {
        let services = &setup.services;
        let sending = Sending {
            http: services.http.clone(),
            secrets: services.secrets.clone(),
            redactor: services.redactor.clone(),
            clock: self.clock.clone(),
            home: services.home.clone(),
            cancelled: stop.clone(),
            time_limit: TIME_LIMIT,
            memory: self.memories.of(name),
        };
        let later = |why: String| Refusal::Later { after: None, why };
        let send = AssertUnwindSafe(notifier.notifier.send(&sending, message)).catch_unwind();
        tokio::select! {
            sent = tokio::time::timeout(LONGEST_SEND, send) => match sent {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(later("our own mistake: the notifier panicked; please report it".to_owned())),
                Err(_) => Err(later(format!("it did not answer within {}", text::duration(LONGEST_SEND)))),
            },
            () = async { stop.cancelled().await; self.clock.sleep(LONGEST_SLEEP).await } => {
                Err(later("Rusuban ends".to_owned()))
            }
        }
    }

    /// What an answer means for the message, for the line, and for others.
    #[expect(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
    async fn answer(
        &self,
        setup: &Setup,
        name: &str,
        notifier: &Arc<NotifierSettings>,
        parcel: &Parcel,
        line: Line,
        came: Result<Receipt, Refusal>,
        answer: Answer,
    ) -> anyhow::Result<Answer> {
        let now = self.clock.now();
        let spacing = TimeDelta::from_std(notifier.notifier.spacing()).unwrap_or_default();
        let well = Line { told: line.told, next_try: Some(now + spacing), ..Line::default() };
        Ok(match came {
            Ok(receipt) => {
                if let Some(since) = line.failing {
                    tracing::info!(notifier = name, %since, "its line is well again");
                }
                let mut stories: Vec<String> = parcel.news.iter().filter_map(News::story).collect();
                stories.dedup();
                let threads = receipt
                    .reference
                    .map(|reference| stories.into_iter().map(|story| (story, reference.clone())).collect());
                Answer {
                    threads: threads.unwrap_or_default(),
                    line: Line { told: Some(now), ..well },
                    cost: receipt.cost,
                    ..answer
                }
            }
            Err(Refusal::Later { after, why }) => {
                let failures = line.failures.saturating_add(1);
                let wait = plan::wait_after(failures, after, random());
                if line.failures == 0 {
                    tracing::warn!(notifier = name, why, "a message was not taken; it is tried again");
                }
                let next_try = Some(now + TimeDelta::from_std(wait).unwrap_or_default());
                let failing = line.failing.or(Some(now));
                let line = Line { failures, failing, next_try, error: Some(why), blocked: None, ..line };
                Answer { is_put_off: true, line, ..answer }
            }
            Err(Refusal::NotThis { why }) => {
                tracing::warn!(
                    notifier = name,
                    why,
                    "a message will not be taken; it is told through another notifier"
                );
                match self.stand_in(setup, name).await? {
                    Some(other) => {
                        let news = parcel.news.iter().map(|news| plan::row(news, &other, now)).collect();
                        Answer { is_refused: true, instead: news, line: Line { error: Some(why), ..well }, ..answer }
                    }
                    None => {
                        self.write_last_resort(setup, name, &parcel.news, &why).await;
                        Answer { is_refused: true, line: Line { error: Some(why), ..well }, ..answer }
                    }
                }
            }
            Err(Refusal::Never { why }) => {
                tracing::error!(
                    notifier = name,
                    why,
                    "the notifier refuses; it is blocked until its settings change or `rusuban notify unblock {name}`"
                );
                let blocked = Some(now);
                let settings = Some(fingerprint(notifier));
                let line = Line { error: Some(why.clone()), blocked, settings, told: line.told, ..Line::default() };
                match self.stand_in(setup, name).await? {
                    Some(other) => {
                        let mut news = vec![plan::row(&broken(name, now, &why), &other, now)];
                        news.extend(parcel.news.iter().map(|news| plan::row(news, &other, now)));
                        Answer { is_refused: true, instead: news, line, ..answer }
                    }
                    // Nobody is left: it waits here for whoever works first.
                    None => {
                        let instead = vec![plan::row(&broken(name, now, &why), name, now)];
                        Answer { is_put_off: true, instead, line, ..answer }
                    }
                }
            }
        })
    }

    /// What waits for a notifier that is blocked is told through another, if there is one.
    async fn divert(&self, setup: &Setup, name: &str, now: DateTime<Utc>, hurry: bool) -> anyhow::Result<bool> {
        let Some(other) = self.stand_in(setup, name).await? else { return Ok(false) };
        let waiting = self.waiting(name, now, hurry).await?;
        let due: Vec<&Waiting> = waiting.iter().filter(|row| row.not_before <= now).collect();
        if due.is_empty() {
            return Ok(false);
        }
        let ids: Vec<i64> = due.iter().map(|row| row.id).collect();
        let instead = due.iter().map(|row| plan::row(&row.news, &other, now)).collect();
        self.ended().extend(&ids);
        self.store.end_waiting(name, ids, End::Refused, instead).await?;
        self.forget_ended().await?;
        Ok(false)
    }

    /// Who is told in this one's place.
    pub(super) async fn stand_in(&self, setup: &Setup, name: &str) -> anyhow::Result<Option<String>> {
        let lines = self.store.lines_of_notifiers().await?;
        let is_blocked = |other: &str| is_blocked(setup, &lines, other);
        Ok(plan::instead(name, &setup.order(), is_blocked).map(str::to_owned))
    }

    /// Sends a trial message, now, and says what the service answered. One that takes it is no longer blocked.
    ///
    /// # Errors
    /// When there is no such notifier, or the ledger cannot be read or written.
    pub async fn test(&self, name: &str) -> anyhow::Result<Result<Receipt, Refusal>> {
        let setup = self.setup();
        let Some(notifier) = setup.notifiers.get(name) else {
            anyhow::bail!("rusuban.toml has no notifier `{name}`");
        };
        let turn = self.turn_of(name);
        let _turn = turn.lock().await;
        let now = self.clock.now();
        let news = test_news(name, now);
        let message = self.message(&setup, notifier, plan::row(&news, name, now).key, vec![news]);
        let came = self.give(&setup, name, notifier, &message, &CancellationToken::new()).await;
        if came.is_ok() {
            self.next().remove(name);
            self.store.set_line(name, Line { told: Some(now), ..Line::default() }).await?;
        }
        Ok(came)
    }

    /// Tells what the ledger cannot hold, such as that it cannot be written: the first notifier that takes it, at once.
    pub async fn cry(&self, what: &str) {
        let (setup, now) = (self.setup(), self.clock.now());
        let news = of_the_ledger(Event::Failed, now, what);
        for name in setup.order() {
            let Some(notifier) = setup.notifiers.get(&name) else { continue };
            let message = self.message(&setup, notifier, plan::row(&news, &name, now).key, vec![news.clone()]);
            match self.give(&setup, &name, notifier, &message, &CancellationToken::new()).await {
                Ok(_) => return,
                Err(why) => tracing::warn!(notifier = name, %why, "it does not take that the ledger cannot be written"),
            }
        }
    }

    /// The ledger can be written again.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn calm(&self) -> anyhow::Result<()> {
        let (setup, now) = (self.setup(), self.clock.now());
        let news =
            of_the_ledger(Event::Recovered, now, "the ledger can be written again; what was held in memory is in it");
        let other = self.stand_in(&setup, "").await?;
        self.store.tell(other.iter().map(|name| plan::row(&news, name, now)).collect()).await
    }

    fn message(&self, setup: &Setup, notifier: &NotifierSettings, key: String, news: Vec<News>) -> Message {
        Message {
            key,
            news,
            language: notifier.common.language,
            template: notifier.common.template.clone().map(Arc::new),
            thread: None,
            host: host_name(),
            time_zone: setup.rules.time_zone,
            now: self.clock.now(),
            delay: None,
        }
    }

    /// Tries a notifier again that was blocked, or whose line was down; says whether it was.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub async fn unblock(&self, name: &str) -> anyhow::Result<bool> {
        self.next().remove(name);
        unblock(&self.store, name).await
    }
}

/// The same without a server.
///
/// # Errors
/// When the ledger cannot be read or written.
pub async fn unblock(store: &Store, name: &str) -> anyhow::Result<bool> {
    let Some(line) = store.lines_of_notifiers().await?.remove(name) else { return Ok(false) };
    let was = line.blocked.is_some() || line.failing.is_some();
    store.set_line(name, Line { told: line.told, ..Line::default() }).await?;
    Ok(was)
}

/// Whether a notifier refuses, with the settings that it has now.
pub(super) fn is_blocked(setup: &Setup, lines: &BTreeMap<String, Line>, name: &str) -> bool {
    let Some(notifier) = setup.notifiers.get(name) else { return true };
    lines
        .get(name)
        .is_some_and(|line| line.blocked.is_some() && line.settings.as_deref() == Some(&*fingerprint(notifier)))
}

/// What changes with a notifier's settings. It holds nothing of them.
#[must_use]
pub fn fingerprint(notifier: &NotifierSettings) -> String {
    let digest = Sha256::digest(format!("{notifier:?}"));
    text::hexadecimal(digest.get(..8).unwrap_or_default())
}

/// The news of a notifier that refuses.
fn broken(name: &str, at: DateTime<Utc>, why: &str) -> News {
    News {
        about: About::Notifier { name: name.to_owned() },
        event: Event::NotifierBroken,
        severity: Severity::Warning,
        at,
        since: Some(at),
        incident: None,
        what: why.to_owned(),
        causes: Vec::new(),
        offers: vec![Offer {
            what: "try it, once it is mended".to_owned(),
            command: format!("rusuban notify test {name}"),
        }],
        lines: Vec::new(),
    }
}

/// News of the ledger itself.
fn of_the_ledger(event: Event, at: DateTime<Utc>, what: &str) -> News {
    News {
        about: About::House,
        event,
        severity: Severity::Critical,
        at,
        since: None,
        incident: None,
        what: what.to_owned(),
        causes: Vec::new(),
        offers: Vec::new(),
        lines: Vec::new(),
    }
}

/// A trial.
pub(super) fn test_news(name: &str, at: DateTime<Utc>) -> News {
    News {
        about: About::Notifier { name: name.to_owned() },
        event: Event::Test,
        severity: Severity::Info,
        at,
        since: None,
        incident: None,
        what: String::new(),
        causes: Vec::new(),
        offers: Vec::new(),
        lines: Vec::new(),
    }
}

fn random() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness the wait is exact, which is fine.
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}
