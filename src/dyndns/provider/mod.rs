//! Those who keep the records. A provider is a struct in a file of its own, and a line in [`Setting`].
mod cloudflare;
mod desec;
mod duckdns;
mod dyndns2;
mod mydns;
mod noip;
mod route53;
mod url;

use std::{fmt::Debug, net::IpAddr, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reqwest::{
    Request, StatusCode,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use schemars::JsonSchema;
use serde::Deserialize;

pub use dyndns2::codes;
pub use mydns::read as read_mydns;

use super::{
    Addresses, Family, Lines,
    ask::{self, MOST, NoAnswer, Reply},
};
use crate::config::{
    mistake::Problem,
    secret::{Redactor, Secret, SecretReader, SecretSource},
};

/// Who keeps the records: `[provider.NAME]` in a job file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Setting {
    /// Cloudflare.
    Cloudflare(cloudflare::Cloudflare),
    /// deSEC.
    Desec(desec::Desec),
    /// Duck DNS.
    Duckdns(duckdns::DuckDns),
    /// Those who speak as dyn.com once did.
    Dyndns2(dyndns2::DynDns2),
    /// MyDNS.JP.
    Mydns(mydns::MyDns),
    /// No-IP.
    Noip(noip::NoIp),
    /// Amazon Route 53.
    Route53(route53::Route53),
    /// Anybody else who takes a request.
    Url(url::Generic),
}

impl Setting {
    /// What it is.
    #[must_use]
    pub fn provider(&self) -> &dyn Provider {
        match self {
            Self::Cloudflare(it) => it,
            Self::Desec(it) => it,
            Self::Duckdns(it) => it,
            Self::Dyndns2(it) => it,
            Self::Mydns(it) => it,
            Self::Noip(it) => it,
            Self::Route53(it) => it,
            Self::Url(it) => it,
        }
    }

    /// Its key in a job file.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Cloudflare(_) => "cloudflare",
            Self::Desec(_) => "desec",
            Self::Duckdns(_) => "duckdns",
            Self::Dyndns2(_) => "dyndns2",
            Self::Mydns(_) => "mydns",
            Self::Noip(_) => "noip",
            Self::Route53(_) => "route53",
            Self::Url(_) => "url",
        }
    }
}

/// Somebody who keeps records.
#[async_trait]
pub trait Provider: Send + Sync + Debug {
    /// Its name for people.
    fn name(&self) -> String;

    /// What only shows when the values are looked at. `key` is where the table is. No IO.
    fn check(&self, key: &str) -> Vec<Problem>;

    /// What keeps it from having a record of this host's name.
    fn check_host(&self, _host: &str) -> Option<String> {
        None
    }

    /// Whether it takes the address that it is told; one that takes the address it sees cannot keep a host's own half.
    fn takes_any(&self) -> bool {
        true
    }

    /// The secrets it reads.
    fn secrets(&self) -> Vec<SecretSource>;

    /// How often it wants to hear that nothing has changed.
    fn refresh(&self) -> Refresh {
        Refresh { usual: Duration::from_secs(7 * 86_400), most: None }
    }

    /// Tells it what the hosts' addresses are; an answer for each host, in the same order.
    async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer>;
}

/// How often a provider wants to hear from a host whose address stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Unless the job says otherwise.
    pub usual: Duration,
    /// Later than this the record may be gone.
    pub most: Option<Duration>,
}

/// What a host should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub host: String,
    /// All its addresses.
    pub addresses: Addresses,
    /// Those among them that the provider must be told of. Where a request carries all of them, it does.
    pub due: Addresses,
}

/// What became of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The addresses that the provider certainly has now.
    pub taken: Addresses,
    /// How it ended.
    pub end: End,
}

/// How telling a provider ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It took all of them.
    Taken {
        /// It had them already.
        had_it: bool,
        /// It has shown the record as it is now, or names others in public: name servers need not be asked.
        proven: bool,
    },
    /// It must not be told again until its owner has changed something.
    Stop {
        /// Of none of the job's hosts.
        all: bool,
        /// What it said.
        why: String,
        /// What its owner can do.
        mend: String,
    },
    /// It must not be told again before this time is over.
    Later {
        /// What it said.
        why: String,
        /// So long.
        wait: Duration,
    },
    /// What became of it is not known, or it answered what nobody knows.
    Unknown {
        /// What is known.
        why: String,
    },
    /// It was not told at all.
    NotSent {
        /// Why.
        why: String,
    },
}

impl Answer {
    /// All of what a host should have was taken.
    fn taken(wanted: &Wanted, had_it: bool, proven: bool) -> Self {
        Self { taken: wanted.addresses, end: End::Taken { had_it, proven } }
    }

    fn end(end: End) -> Self {
        Self { taken: Addresses::default(), end }
    }

    /// The answers about several parts of one host as one: what was taken is taken, and the worst end counts.
    fn together(all: impl IntoIterator<Item = Self>) -> Self {
        let weight = |end: &End| match end {
            End::Taken { had_it: true, .. } => 0,
            End::Taken { .. } => 1,
            End::NotSent { .. } => 2,
            End::Unknown { .. } => 3,
            End::Later { .. } => 4,
            End::Stop { all: false, .. } => 5,
            End::Stop { .. } => 6,
        };
        let mut whole = Self::end(End::Taken { had_it: true, proven: true });
        for one in all {
            one.taken.each().for_each(|address| whole.taken.set(address));
            let proven = |end: &End| matches!(end, End::Taken { proven: true, .. });
            let unproven = matches!(one.end, End::Taken { .. }) && !(proven(&one.end) && proven(&whole.end));
            if weight(&one.end) > weight(&whole.end) {
                whole.end = one.end;
            }
            if let End::Taken { proven, .. } = &mut whole.end
                && unproven
            {
                *proven = false;
            }
        }
        whole
    }
}

impl From<NoAnswer> for End {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::NotSent(why) => Self::NotSent { why },
            NoAnswer::Lost(why) => Self::Unknown { why: format!("{why} (whether it was taken is not known)") },
        }
    }
}

/// What a provider needs to be told.
#[derive(Debug)]
pub struct Line<'a> {
    /// The ways out.
    pub lines: &'a Lines,
    /// Reads secrets.
    pub secrets: &'a SecretReader,
    /// The time, for signatures.
    pub now: DateTime<Utc>,
}

/// A provider that is too busy is left alone for so long, unless it names a time; and never for longer than the second.
pub const WAIT: [Duration; 2] = [Duration::from_secs(30 * 60), Duration::from_secs(24 * 3600)];

impl Line<'_> {
    /// A secret.
    async fn read(&self, source: &SecretSource) -> Result<Secret, End> {
        let (reader, source) = (self.secrets.clone(), source.clone());
        let read = tokio::task::spawn_blocking(move || reader.0(&source)).await.map_err(anyhow::Error::from).flatten();
        read.map_err(|error| End::NotSent { why: format!("read the secret: {error:#}") })
    }

    /// Sends a request. That the provider is too busy, or broken, is an end that all of them have in common.
    async fn ask(&self, family: Option<Family>, request: Request) -> Result<Reply, End> {
        let server = request.url().host_str().unwrap_or_default().to_owned();
        let reply = self.lines.ask(family, request, MOST).await?;
        let status = reply.status;
        if status == StatusCode::TOO_MANY_REQUESTS || (status == 503 && reply.retry_after.is_some()) {
            let wait = reply.retry_after.unwrap_or(WAIT[0]).clamp(Duration::from_secs(60), WAIT[1]);
            return Err(End::Later { why: format!("{server} answered {status}"), wait });
        }
        if status.is_server_error() {
            return Err(End::Unknown { why: format!("{server} answered {status}") });
        }
        if status.is_redirection() {
            return Err(End::Unknown {
                why: format!("{server} answered {status}: it points to another server, which is not followed"),
            });
        }
        Ok(reply)
    }
}

/// A header's value that libraries do not print.
fn authorisation(request: &mut Request, value: &str) -> Result<(), End> {
    header(request, AUTHORIZATION, value)
}

fn header(request: &mut Request, name: HeaderName, value: &str) -> Result<(), End> {
    let mut value = HeaderValue::try_from(value).map_err(|_| End::NotSent {
        why: format!("the header {name} would have a line break or another control character"),
    })?;
    value.set_sensitive(true);
    request.headers_mut().insert(name, value);
    Ok(())
}

/// An answer without what must not be seen of it.
fn said(text: &str, hidden: impl IntoIterator<Item = Secret>) -> String {
    ask::said(&Redactor::new(hidden).clean(text))
}

/// The base of a provider's addresses: `server`, for a server of one's own, or the usual one.
fn base(server: Option<&str>, usual: &str) -> Result<reqwest::Url, End> {
    let text = server.unwrap_or(usual);
    ask::address(text).map_err(|why| End::NotSent { why })
}

/// The problem of a `server` that cannot be asked.
fn check_server(key: &str, server: Option<&str>) -> Option<Problem> {
    let why = ask::address(server?).err()?;
    Some(super::own::problem(format!("{key}.server"), &why))
}

/// The same end for each host.
fn each(hosts: &[Wanted], end: &End) -> Vec<Answer> {
    hosts.iter().map(|_| Answer::end(end.clone())).collect()
}

/// The value of a record's field in words that two of them can be compared by.
fn same(text: &str, address: IpAddr) -> bool {
    text.trim().parse() == Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_answers_the_worst_counts_and_what_was_taken_is_taken() {
        let address = |text: &str| [text.parse().unwrap()].into_iter().collect::<Addresses>();
        let taken = |text, had_it, proven| Answer { taken: address(text), end: End::Taken { had_it, proven } };
        let both = Answer::together([taken("93.184.216.34", true, true), taken("2a01::1", false, false)]);
        assert_eq!(both.taken.to_string(), "93.184.216.34 and 2a01::1");
        assert_eq!(both.end, End::Taken { had_it: false, proven: false });
        let stop = Answer::end(End::Stop { all: true, why: "no".into(), mend: String::new() });
        let half = Answer::together([taken("93.184.216.34", false, false), stop]);
        assert_eq!(half.taken, address("93.184.216.34"));
        assert!(matches!(half.end, End::Stop { .. }));
    }
}
