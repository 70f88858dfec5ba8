//! Whether the record says what it should: asked where it is kept, not where old answers may be remembered.
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    Family,
    own::Question,
    query::{self, Found, NoFound, What},
};

/// So many servers of a zone are asked at most.
const MOST_SERVERS: usize = 3;
/// Names have no more labels above them than are looked at.
const HIGHEST: usize = 8;
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// What a look at a record found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It says what it should.
    Right {
        /// Who said so.
        server: SocketAddr,
    },
    /// It says something else, or is not there.
    Other {
        /// Who said so, and what: a sentence.
        why: String,
        /// What is remembered may be remembered for so long.
        ttl: Option<u32>,
    },
    /// Nobody who knows could be asked.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Looks until the record is right, at most for `patience`. Who is asked is `resolver`, or the servers of the zone.
pub async fn watch(host: &str, address: IpAddr, resolver: Option<SocketAddr>, patience: Duration) -> Look {
    let until = tokio::time::Instant::now() + patience;
    let watching = async {
        loop {
            let found = look(host, address, resolver).await;
            // What a resolver remembers does not change before its time.
            let pause = match &found {
                Look::Other { ttl: Some(ttl), .. } if resolver.is_some() => {
                    PAUSE.max(Duration::from_secs(u64::from(*ttl)))
                }
                _ => PAUSE,
            };
            let in_time = tokio::time::Instant::now() + pause < until;
            if matches!(found, Look::Right { .. }) || !in_time {
                return found;
            }
            tokio::time::sleep(pause).await;
        }
    };
    // A look itself takes at most some seconds for each server.
    let late = Look::Unknown { why: "the name servers took too long".to_owned() };
    tokio::time::timeout(patience + Duration::from_secs(20), watching).await.unwrap_or(late)
}

/// Looks once.
pub async fn look(host: &str, address: IpAddr, resolver: Option<SocketAddr>) -> Look {
    if let Some(resolver) = resolver {
        return ask_one_of(&[resolver], host, address, true).await;
    }
    match resolvers().await {
        Ok(resolvers) => look_by(&resolvers, 53, host, address).await,
        Err(why) => Look::Unknown { why },
    }
}

/// Looks once, at the zone's own servers, which `resolvers` know and which listen at `port`.
pub async fn look_by(resolvers: &[SocketAddr], port: u16, host: &str, address: IpAddr) -> Look {
    match authorities(resolvers, port, host).await {
        Ok(servers) => ask_one_of(&servers, host, address, false).await,
        Err(why) => Look::Unknown { why },
    }
}

/// The first one who answers is believed.
async fn ask_one_of(servers: &[SocketAddr], host: &str, address: IpAddr, recursive: bool) -> Look {
    let what = What::Address(Family::of(address));
    let mut unknown = String::from("there is no name server to ask");
    for server in servers {
        match query::ask(*server, host, what, recursive).await {
            Ok(found) => return judge(*server, &found, address),
            Err(NoFound::NoSuchName) => {
                return Look::Other { why: format!("{server} knows no {host}"), ttl: None };
            }
            Err(NoFound::Silent(why)) => unknown = why,
        }
    }
    Look::Unknown { why: unknown }
}

fn judge(server: SocketAddr, found: &Found, address: IpAddr) -> Look {
    if found.addresses == [address] {
        return Look::Right { server };
    }
    let kind = Family::of(address).record();
    let ttl = found.ttl;
    let is = found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let why = match (&found.alias, found.addresses.as_slice()) {
        (Some(alias), []) => format!("{server} says that it is another name of {alias}"),
        (None, []) => format!("{server} knows no {kind} record of it"),
        _ if found.addresses.contains(&address) => format!("{server} has others beside {address}: {is}"),
        _ => format!("{server} still says {is}"),
    };
    Look::Other { why, ttl }
}

/// The servers of the zone that a name is in.
async fn authorities(resolvers: &[SocketAddr], port: u16, host: &str) -> Result<Vec<SocketAddr>, String> {
    let ask = async |name: &str, what: What| {
        let mut last = Err(NoFound::Silent("there is no resolver".to_owned()));
        for resolver in resolvers {
            last = query::ask(*resolver, name, what, true).await;
            if !matches!(last, Err(NoFound::Silent(_))) {
                break;
            }
        }
        last
    };
    let mut zone = host.trim_end_matches('.');
    let mut names = Vec::new();
    for _ in 0..HIGHEST {
        match ask(zone, What::Servers).await {
            Ok(found) if !found.servers.is_empty() => {
                names = found.servers;
                break;
            }
            Ok(_) | Err(NoFound::NoSuchName) => {}
            Err(NoFound::Silent(why)) => return Err(format!("find the name servers of {host}: {why}")),
        }
        // The highest names of all are nobody's who has a host.
        match zone.split_once('.') {
            Some((_, above)) if above.contains('.') => zone = above,
            _ => break,
        }
    }
    let mut servers = Vec::new();
    for name in names.iter().take(MOST_SERVERS) {
        for family in Family::ALL {
            if let Ok(found) = ask(name, What::Address(family)).await {
                servers.extend(found.addresses.into_iter().take(1).map(|address| SocketAddr::new(address, port)));
            }
            if !servers.is_empty() {
                break;
            }
        }
    }
    if servers.is_empty() { Err(format!("no name server of {host} was found")) } else { Ok(servers) }
}

/// The system's resolvers.
async fn resolvers() -> Result<Vec<SocketAddr>, String> {
    let text = tokio::fs::read_to_string("/etc/resolv.conf").await;
    let text = text.map_err(|error| format!("read /etc/resolv.conf: {error}"))?;
    let found: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next())
        .filter_map(|address| Some(SocketAddr::new(address.split('%').next()?.parse().ok()?, 53)))
        .take(MOST_SERVERS)
        .collect();
    if found.is_empty() { Err("/etc/resolv.conf names no resolver".to_owned()) } else { Ok(found) }
}

/// A resolver as people write it: an address, with or without a port.
#[must_use]
pub fn resolver(text: &str) -> Option<SocketAddr> {
    Question::place(text)
}
