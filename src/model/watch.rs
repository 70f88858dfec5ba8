//! What checks find, as values: one look at a site or service, and what its owner wants to hear of it.
use std::{fmt, net::IpAddr, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// How a site or service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All that was asked of it is so.
    Up,
    /// It answers as it should, but its certificate is expired, or about to, or not for it.
    CertificateBad,
    /// It does not answer, or not as it should.
    Down,
    /// Nobody can say: our own line is dead, or what would have to be asked is not there.
    Unknown,
    /// It is being worked on, by its owner's word or by a job of ours: not looked at as a failure.
    Maintenance,
}

impl State {
    /// The word used in TOML, SQL, JSON and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::CertificateBad => "certificate_bad",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CertificateBad => "certificate bad",
            other => other.word(),
        })
    }
}

/// What one look found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it is.
    pub state: State,
    /// One line: what was found, such as `200 in 84 ms`, or what is wrong, such as `the page lacks "Welcome"`. Without secrets.
    pub what: String,
    /// How long the answer took; none when none came.
    pub took: Option<Duration>,
    /// What kind of trouble it is; none when all is well.
    pub trouble: Option<Trouble>,
    /// Its certificate, if it showed one.
    pub certificate: Option<Certificate>,
    /// Where the connection went.
    pub address: Option<IpAddr>,
}

/// A kind of trouble, for whoever looks for its cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The name has no address, or nobody could be asked.
    Name,
    /// Nobody listens there.
    Refused,
    /// It cannot be reached: no route, or no answer to the knock.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
    /// The connection broke in the middle.
    Broken,
    /// TLS could not be agreed on, for another reason than the certificate.
    Tls,
    /// The certificate: expired, about to, not trusted, not for this name.
    Certificate,
    /// The server answered with this status.
    Status(u16),
    /// The answer is not what it should be: words, numbers, size, place.
    Content,
    /// It is well, but too slow.
    Slow,
    /// The container is not there, not running, not healthy, restarting or was killed.
    Container,
    /// What should have called us has not.
    Silent,
    /// The domain's registration ends.
    Domain,
    /// We may not or cannot look: an address that is refused, a missing permission.
    NotAllowed,
}

/// A certificate as it was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// When the first of its chain ends.
    pub ends: DateTime<Utc>,
    /// Why it is not trusted; none when it is.
    pub distrust: Option<String>,
}

/// One look at one check of a job, with what its owner wants to hear.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The check's label, unique in the job.
    pub check: String,
    /// When it was looked at.
    pub at: DateTime<Utc>,
    /// What was found.
    pub verdict: Verdict,
    /// When that matters.
    pub rules: Rules,
}

/// When a verdict becomes an incident, and when that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// So many failures in a row begin an incident; at least 1. The incident begins at the first of them.
    pub failures: u32,
    /// So many successes in a row end it; at least 1.
    pub successes: u32,
    /// A reminder after each such time while it lasts; none when never.
    pub remind: Option<Duration>,
    /// The label of the check, in the same job, without which this one cannot be well: while that one is down, this one is not told of.
    pub parent: Option<String>,
    /// The container that serves it, whose state explains failures and whose handling by our own jobs is maintenance.
    pub container: Option<String>,
    /// The host name that is looked at, for whoever looks for the cause.
    pub host: Option<String>,
}
