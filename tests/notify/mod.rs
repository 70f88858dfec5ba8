//! Notifiers against strict servers that speak as the real ones do.
mod command;
mod docs;
mod email;
mod peers;
mod promises;
mod services;
mod words;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use rusuban::{
    clock::Clock,
    config::secret::{Redactor, Secret, SecretReader, SecretSource},
    http,
    model::news::{About, Cause, Event, IncidentId, News, Offer, Severity},
    notify::{self, Memory, Message, Notifier, Sending, words::Language},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::services::{Service, fake, push::WHSEC, secret};

/// A memory that is kept as long as the test.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<BTreeMap<String, Value>>);

#[async_trait]
impl Memory for Kept {
    async fn state(&self, key: &str) -> anyhow::Result<Option<Value>> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    async fn remember(&self, key: &str, value: Value) -> anyhow::Result<()> {
        self.0.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }
}

/// A notifier and the service that it speaks to.
struct House {
    service: Service,
    notifier: Arc<dyn Notifier>,
    cx: Sending,
}

impl House {
    /// Of this kind, with its usual keys.
    async fn of(kind: &str) -> Self {
        Self::with(kind, fake(kind).keys).await
    }

    async fn with(kind: &str, keys: &str) -> Self {
        let service = Service::start(fake(kind).desk).await;
        let notifier = notifier(kind, &keys.replace("SERVER", &service.server.url("")));
        let cx = sending(&service.server.url(""));
        Self { service, notifier, cx }
    }

    async fn send(&self, message: &Message) -> Result<notify::Receipt, notify::Refusal> {
        self.notifier.send(&self.cx, message).await
    }
}

/// The notifier that these keys describe.
fn notifier(kind: &str, keys: &str) -> Arc<dyn Notifier> {
    let entry = notify::find(kind).unwrap();
    let notifier = (entry.parse)(toml::Deserializer::parse(keys).unwrap()).unwrap();
    let problems = notifier.check();
    assert!(problems.is_empty(), "{problems:?}");
    notifier
}

/// What it sends with. Secrets are their names twice, but for addresses and the one that has a form of its own.
fn sending(server: &str) -> Sending {
    let hook = format!("{server}/{}", secret("HOOK"));
    let reader = SecretReader(Arc::new(move |source| match source {
        SecretSource::Env(name) if name == "HOOK_URL" => Ok(Secret::new(hook.as_str())),
        SecretSource::Env(name) if name == "WHSEC" => Ok(Secret::new(WHSEC)),
        SecretSource::Env(name) => Ok(Secret::new(secret(name))),
        other => anyhow::bail!("no test has {other:?}"),
    }));
    Sending {
        http: http::client().unwrap(),
        secrets: reader,
        redactor: Redactor::default(),
        clock: Clock::system(),
        home: std::env::temp_dir(),
        cancelled: CancellationToken::new(),
        time_limit: Duration::from_millis(1500),
        memory: Arc::new(Kept::default()),
    }
}

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// The blog went down at 02:14 in Tokyo, because its database was killed.
fn blog_is_down() -> News {
    News {
        about: About::Check { job: "sites".parse().unwrap(), check: "blog".into() },
        event: Event::Failed,
        severity: Severity::Critical,
        at: at("2026-11-27T02:15:00+09:00"),
        since: Some(at("2026-11-27T02:14:00+09:00")),
        incident: Some(IncidentId(7)),
        what: "the page lacks \"Welcome\"".into(),
        causes: vec![Cause {
            what: "the container blog-db was killed for lack of memory".into(),
            is_certain: false,
            evidence: vec!["it ended at 02:14:05 with status 137, limit 256 MiB".into()],
        }],
        offers: vec![Offer {
            what: "go back to Tuesday's snapshot".into(),
            command: "rusuban rollback blog Tue".into(),
        }],
        lines: Vec::new(),
    }
}

fn blog_is_well() -> News {
    News {
        event: Event::Recovered,
        at: at("2026-11-27T02:29:00+09:00"),
        what: "200 in 84 ms".into(),
        causes: Vec::new(),
        offers: Vec::new(),
        ..blog_is_down()
    }
}

/// Told three minutes after it began.
fn message(key: &str, news: Vec<News>) -> Message {
    let now = news.iter().map(|news| news.at).max().unwrap() + TimeDelta::minutes(2);
    Message {
        key: key.into(),
        news,
        language: Language::En,
        template: None,
        thread: None,
        host: "attic".into(),
        time_zone: Tz::Asia__Tokyo,
        now,
        delay: None,
    }
}
