//! Looks at sites and services: one look, one verdict. When it is looked, and what becomes of a verdict, is not known here.
//!
//! A check is one file: what it needs to know, `look`, and the words that a condition about it may use.
pub mod certificate;
pub mod condition;
pub mod container;
pub mod dns;
pub mod domain;
pub mod guard;
pub mod page;
pub mod ping;
pub mod reach;
pub mod tcp;

mod body;
mod exchange;
mod tls;
mod verdict;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

pub use self::tls::Tls;
use self::{condition::Subject, reach::Fail};
use crate::{
    clock::Clock,
    config::secret::SecretReader,
    docker::Engine,
    model::watch::{State, Trouble, Verdict},
};

/// So many names are looked up at once: the system's look-up takes a thread each, and longer than we wait for it.
const LOOKUPS: usize = 64;
/// So many pages are read into trees at once.
const HEAVY: usize = 2;

/// A kind of check, by the key that asks for it.
pub struct CheckEntry {
    /// The key.
    pub key: &'static str,
    /// How its value is written.
    pub example: &'static str,
    /// What a condition about it can ask.
    pub subject: Subject,
}

/// The checks. Which key stands in a job says which it is.
pub const CHECKS: &[CheckEntry] = &[
    CheckEntry { key: "url", example: "url = \"https://example.org/\"", subject: page::SUBJECT },
    CheckEntry { key: "tcp", example: "tcp = \"db:5432\"", subject: tcp::SUBJECT },
    CheckEntry { key: "dns", example: "dns = \"example.org\"", subject: dns::SUBJECT },
    CheckEntry { key: "ping", example: "ping = \"router.lan\"", subject: ping::SUBJECT },
    CheckEntry { key: "tls", example: "tls = \"mail.example.org:993\"", subject: certificate::SUBJECT },
    CheckEntry { key: "domain", example: "domain = \"example.org\"", subject: domain::SUBJECT },
    CheckEntry {
        key: "container",
        example: "container = \"blog\"",
        subject: Subject { name: "a container", words: &[] },
    },
];

/// One thing that is looked at.
#[derive(Clone, Debug)]
pub enum Check {
    /// A web page.
    Page(page::Page),
    /// A port.
    Tcp(tcp::Tcp),
    /// A name.
    Dns(dns::Dns),
    /// A host.
    Ping(ping::Ping),
    /// A certificate.
    Certificate(certificate::CertificateOf),
    /// A registration.
    Domain(domain::Domain),
    /// A container.
    Container(container::Contained),
    /// The same over IPv4 and over IPv6: both must be well.
    Both(Box<[Check; 2]>),
}

/// What all looks of a run share.
#[derive(Debug)]
pub struct Looking {
    /// The time.
    pub clock: Clock,
    /// Reads secrets.
    pub secrets: SecretReader,
    /// Where relative paths begin.
    pub home: PathBuf,
    /// The Docker engine, or why there is none; none when no check asks for it.
    pub docker: Option<Result<Engine, String>>,
    tls: Arc<Tls>,
    lookups: Arc<Semaphore>,
    heavy: Semaphore,
    past: Mutex<Past>,
}

/// What earlier looks saw that later ones need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// Containers by their names.
    pub containers: BTreeMap<String, container::Seen>,
    /// Domains by their names.
    pub domains: BTreeMap<String, domain::Known>,
}

impl Tls {
    /// Ready to speak.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn ready() -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self::new()?))
    }
}

impl Looking {
    /// For looks that share all this.
    #[must_use]
    pub fn new(
        clock: Clock,
        secrets: SecretReader,
        home: PathBuf,
        docker: Option<Result<Engine, String>>,
        tls: Arc<Tls>,
        past: Past,
    ) -> Self {
        Self {
            clock,
            secrets,
            home,
            docker,
            tls,
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            heavy: Semaphore::new(HEAVY),
            past: Mutex::new(past),
        }
    }

    /// A file of authorities, wherever it is.
    fn authorities(&self, path: Option<&Path>) -> Option<PathBuf> {
        path.map(|path| self.home.join(path))
    }

    /// What later looks need to know.
    pub fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of a name, as this machine sees it.
    async fn lookup(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Fail> {
        let (host, lookups) = (host.to_owned(), Arc::clone(&self.lookups));
        // In a task of its own, which keeps its turn until the system has answered: nobody can tell it to stop.
        let work = tokio::spawn(async move {
            let _turn = lookups.acquire_owned().await;
            tokio::net::lookup_host((host.as_str(), port))
                .await
                .map(Iterator::collect::<Vec<_>>)
                .map_err(|error| (host.clone(), error))
        });
        match work.await {
            Ok(Ok(found)) if !found.is_empty() => Ok(found),
            Ok(Ok(_)) => Err(Fail::new(Trouble::Name, "the name has no address")),
            Ok(Err((host, error))) => {
                let said = error.to_string();
                let said = said.strip_prefix("failed to lookup address information: ").unwrap_or(&said).to_owned();
                Err(Fail::new(Trouble::Name, format!("the name {} has no address: {said}", condition::quoted(&host))))
            }
            Err(_) => Err(Fail::new(Trouble::Name, "the name could not be looked up")),
        }
    }
}

impl Check {
    /// Looks once.
    pub async fn look(&self, looking: &Looking) -> Verdict {
        match self {
            Self::Both(both) => {
                let [one, other] = &**both;
                let (four, six) = tokio::join!(Box::pin(one.look(looking)), Box::pin(other.look(looking)));
                over_both(four, six)
            }
            Self::Page(page) => page.look(looking).await,
            Self::Tcp(tcp) => tcp.look(looking).await,
            Self::Dns(dns) => dns.look().await,
            Self::Ping(ping) => ping.look(looking).await,
            Self::Certificate(certificate) => certificate.look(looking).await,
            Self::Domain(domain) => domain.look(looking).await,
            Self::Container(container) => container.look(looking).await,
        }
    }
}

/// The worse of the two, and what the other is.
fn over_both(four: Verdict, six: Verdict) -> Verdict {
    let weight = |verdict: &Verdict| match verdict.state {
        State::Down => 3,
        State::CertificateBad => 2,
        State::Unknown => 1,
        State::Up | State::Maintenance => 0,
    };
    let what = match (four.trouble.is_some(), six.trouble.is_some()) {
        (true, true) if four.what == six.what => four.what.clone(),
        (true, true) => format!("over IPv4: {}; over IPv6: {}", four.what, six.what),
        (true, false) => format!("over IPv4: {} (over IPv6 it is well)", four.what),
        (false, true) => format!("over IPv6: {} (over IPv4 it is well)", six.what),
        (false, false) => format!("{} over IPv4; {} over IPv6", four.what, six.what),
    };
    let took = four.took.max(six.took);
    let worse = if weight(&six) > weight(&four) { six } else { four };
    Verdict { what, took, ..worse }
}

/// Where a host and a port are written: `db:5432`, `[2001:db8::1]:443`.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_name = |host: &str| {
        !host.is_empty()
            && host.len() <= 253
            && host.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '.' | '_'))
    };
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = inside.map_or_else(|| is_name(host), |host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let port = port.parse().ok().filter(|port| *port != 0)?;
    fits.then(|| (host.to_owned(), port))
}
