//! Reaches a host: its addresses, those that may be connected to, and the first of them that answers the knock.
use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::net::TcpStream;

use super::{
    Looking,
    guard::{self, Network},
};
use crate::{config::units::Span, model::watch::Trouble};

/// One address has this long before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// So many addresses of a name are tried.
const MOST: usize = 6;

/// Which addresses of a name are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Whichever answers first.
    #[default]
    Any,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Each of them, one look over each.
    Both,
}

/// How to get to a host.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Over which family of addresses.
    pub family: Family,
    /// The host, a name or an address, that is connected to instead of the one that is asked.
    pub resolve: Option<String>,
    /// Addresses that are allowed though nothing would lead there otherwise.
    pub allow: Vec<Network>,
}

impl Way {
    /// The host that is connected to when `asked` is asked.
    pub(super) fn host<'a>(&'a self, asked: &'a str) -> &'a str {
        self.resolve.as_deref().unwrap_or(asked)
    }
}

/// Why there is nothing to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fail {
    /// What kind of trouble that is.
    pub trouble: Trouble,
    /// In words.
    pub told: String,
}

impl Fail {
    pub(super) fn new(trouble: Trouble, told: impl Into<String>) -> Self {
        Self { trouble, told: told.into() }
    }
}

/// How far a look has come, for when its time is up.
#[derive(Debug, Default)]
pub(super) struct Phase(AtomicU8);

impl Phase {
    pub(super) const NAME: u8 = 0;
    pub(super) const KNOCK: u8 = 1;
    pub(super) const TLS: u8 = 2;
    pub(super) const ANSWER: u8 = 3;
    pub(super) const BODY: u8 = 4;

    pub(super) fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    /// What has not come in time.
    pub(super) fn late(&self, patience: Duration) -> Fail {
        let time = Span(patience);
        match self.0.load(Ordering::Relaxed) {
            Self::NAME => Fail::new(Trouble::Name, format!("no name server has answered within {time}")),
            Self::KNOCK => {
                Fail::new(Trouble::Unreachable, format!("it cannot be reached: no answer to the knock within {time}"))
            }
            Self::TLS => Fail::new(Trouble::TimedOut, format!("TLS was not agreed on within {time}")),
            Self::ANSWER => Fail::new(Trouble::TimedOut, format!("no answer within {time}")),
            _ => Fail::new(Trouble::TimedOut, format!("the answer did not end within {time}")),
        }
    }
}

/// The addresses of `host` that may be connected to, of both families in turn.
///
/// # Errors
/// When there are none.
pub(super) async fn addresses(
    looking: &Looking,
    host: &str,
    port: u16,
    way: &Way,
    only_public: bool,
) -> Result<Vec<SocketAddr>, Fail> {
    let bare = host.trim_matches(['[', ']']);
    let found = match bare.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => looking.lookup(bare, port).await?,
    };
    let fits = |address: &&SocketAddr| match way.family {
        Family::Any | Family::Both => true,
        Family::Ipv4 => address.is_ipv4(),
        Family::Ipv6 => address.is_ipv6(),
    };
    let mut wanted: Vec<SocketAddr> = found.iter().filter(fits).copied().collect();
    if wanted.is_empty() {
        let family = if way.family == Family::Ipv4 { "IPv4" } else { "IPv6" };
        return Err(Fail::new(Trouble::Name, format!("{bare} has no {family} address")));
    }
    let mut why = None;
    wanted.retain(|address| {
        let refusal = guard::refusal(address.ip(), &way.allow, only_public);
        let fine = refusal.is_none();
        why = refusal.or(why.take());
        fine
    });
    match why.filter(|_| wanted.is_empty()) {
        Some(why) => Err(Fail::new(Trouble::NotAllowed, why)),
        None => Ok(in_turn(wanted)),
    }
}

/// One of each family after the other, beginning with the system's choice.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv4) else { return addresses };
    let (one, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv4() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(one.next());
        all.extend(other.next());
        if all.len() == before || all.len() >= MOST {
            all.truncate(MOST);
            return all;
        }
    }
}

/// A connection to the first of them that takes one.
///
/// # Errors
/// When none does.
pub(super) async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Fail> {
    if let [only] = addresses {
        return TcpStream::connect(only).await.map_err(|error| unreachable(&error));
    }
    let (mut tries, mut left) = (FuturesUnordered::new(), addresses.iter());
    let mut last = Fail::new(Trouble::Name, "there is no address to connect to");
    loop {
        tries.extend(left.next().map(TcpStream::connect));
        tokio::select! {
            result = tries.next() => match result {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = unreachable(&error),
                None => return Err(last),
            },
            () = tokio::time::sleep(HEAD_START), if left.len() > 0 => {}
        }
    }
}

/// Why nobody is connected to.
pub(super) fn unreachable(error: &std::io::Error) -> Fail {
    use std::io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut,
    };
    match error.kind() {
        ConnectionRefused => Fail::new(Trouble::Refused, "nobody listens there (connection refused)"),
        HostUnreachable | NetworkUnreachable => {
            Fail::new(Trouble::Unreachable, "it cannot be reached: there is no route to it")
        }
        TimedOut => Fail::new(Trouble::Unreachable, "it cannot be reached: no answer to the knock"),
        ConnectionReset => Fail::new(Trouble::Broken, "the connection was reset"),
        PermissionDenied => {
            Fail::new(Trouble::NotAllowed, "this machine's own rules do not let us connect (permission denied)")
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            Fail::new(Trouble::NotAllowed, "too many files are open: raise the limit (`ulimit -n`, LimitNOFILE=)")
        }
        _ => Fail::new(Trouble::Unreachable, format!("it cannot be connected to: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let all = ["[2001::1]:1", "[2001::2]:1", "1.1.1.1:1", "1.1.1.2:1", "[2001::3]:1"].map(parse);
        let expected = ["[2001::1]:1", "1.1.1.1:1", "[2001::2]:1", "1.1.1.2:1", "[2001::3]:1"].map(parse);
        assert_eq!(in_turn(all.to_vec()), expected);
        assert_eq!(in_turn(Vec::new()), []);
    }
}
