//! One question to one name server, over UDP, and its answer.
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType},
};
use tokio::{net::UdpSocket, time::Instant};

/// A question is asked so often, for a datagram may be lost, and waited for so long each time.
const TRIES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(3)];
/// The largest answer over UDP that is taken.
const LARGEST: usize = 4096;
/// More than this is not read of one answer.
const MOST_RECORDS: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Addresses of this family.
    Address(super::Family),
    /// Words, in the class that name servers keep for themselves.
    Chaos,
    /// Words.
    Text,
    /// Who answers for the zone.
    Servers,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The server answers for this name itself, not from what it has heard.
    pub authoritative: bool,
    /// The addresses, those of another name that this one is another word for included.
    pub addresses: Vec<IpAddr>,
    /// The words.
    pub texts: Vec<String>,
    /// The names of the zone's servers.
    pub servers: Vec<String>,
    /// The name is another word for this one.
    pub alias: Option<String>,
    /// So many seconds the answer may be kept.
    pub ttl: Option<u32>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoFound {
    /// The server says so: there is no such name.
    NoSuchName,
    /// Nobody answered, or not what was asked.
    Silent(String),
}

impl fmt::Display for NoFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("there is no such name"),
            Self::Silent(why) => f.write_str(why),
        }
    }
}

/// Asks `server` for `name`.
///
/// # Errors
/// When the name is none, nobody answers in time, or the server refuses.
pub async fn ask(server: SocketAddr, name: &str, what: What, recursive: bool) -> Result<Found, NoFound> {
    let silent = |why: String| NoFound::Silent(why);
    let question = question(name, what).map_err(silent)?;
    let from: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let failed = |error: std::io::Error| NoFound::Silent(format!("{server}: {error}"));
    for patience in TRIES {
        // A port and a number of its own each time: what others send in its name is not the answer.
        let socket = UdpSocket::bind((from, 0)).await.map_err(failed)?;
        socket.connect(server).await.map_err(failed)?;
        let mut message = Message::query();
        message.metadata.recursion_desired = recursive;
        message.add_query(question.clone());
        let bytes = message.to_vec().map_err(|error| silent(error.to_string()))?;
        socket.send(&bytes).await.map_err(failed)?;
        let until = Instant::now() + patience;
        let mut buffer = vec![0; LARGEST];
        while let Ok(received) = tokio::time::timeout_at(until, socket.recv(&mut buffer)).await {
            let length = received.map_err(failed)?;
            // What is no answer to this question may be a stranger's: the right one may still come.
            if let Some(answer) = read(&buffer[..length], message.metadata.id, &question) {
                return answer.map_err(|error| match error {
                    NoFound::Silent(why) => NoFound::Silent(format!("{server}: {why}")),
                    other => other,
                });
            }
        }
    }
    let waited: Duration = TRIES.iter().sum();
    Err(silent(format!("{server} did not answer within {} s", waited.as_secs())))
}

/// The question for a name.
///
/// # Errors
/// When that is no name.
pub fn question(name: &str, what: What) -> Result<Query, String> {
    let mut name = Name::from_ascii(name).map_err(|error| format!("`{name}` is no name: {error}"))?;
    name.set_fqdn(true);
    let (kind, class) = match what {
        What::Address(super::Family::Ipv4) => (RecordType::A, DNSClass::IN),
        What::Address(super::Family::Ipv6) => (RecordType::AAAA, DNSClass::IN),
        What::Chaos => (RecordType::TXT, DNSClass::CH),
        What::Text => (RecordType::TXT, DNSClass::IN),
        What::Servers => (RecordType::NS, DNSClass::IN),
    };
    let mut query = Query::query(name, kind);
    query.set_query_class(class);
    Ok(query)
}

/// Reads a datagram; nothing, if it is no answer to this question.
#[must_use]
pub fn read(bytes: &[u8], id: u16, question: &Query) -> Option<Result<Found, NoFound>> {
    let message = Message::from_vec(bytes).ok()?;
    let head = &message.metadata;
    let is_it = head.id == id
        && head.message_type == MessageType::Response
        && head.op_code == OpCode::Query
        && matches!(message.queries.as_slice(), [asked] if asked.name() == question.name()
            && asked.query_type() == question.query_type() && asked.query_class() == question.query_class());
    if !is_it {
        return None;
    }
    Some(match head.response_code {
        _ if head.truncation => Err(NoFound::Silent("the answer does not fit in one datagram".to_owned())),
        ResponseCode::NoError => Ok(found(&message, question)),
        ResponseCode::NXDomain => Err(NoFound::NoSuchName),
        other => Err(NoFound::Silent(format!("the server says: {other}"))),
    })
}

fn found(message: &Message, question: &Query) -> Found {
    let mut found = Found { authoritative: message.metadata.authoritative, ..Found::default() };
    let mut name = question.name().clone();
    for record in message.answers.iter().take(MOST_RECORDS).filter(|record| record.dns_class == question.query_class())
    {
        // In the order in which they stand: an alias comes before what it stands for.
        if record.name != name {
            continue;
        }
        found.ttl = Some(found.ttl.map_or(record.ttl, |known| known.min(record.ttl)));
        match &record.data {
            RData::A(address) if question.query_type() == RecordType::A => found.addresses.push(address.0.into()),
            RData::AAAA(address) if question.query_type() == RecordType::AAAA => found.addresses.push(address.0.into()),
            RData::TXT(words) => {
                let bytes: Vec<u8> = words.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
                found.texts.push(String::from_utf8_lossy(&bytes).into_owned());
            }
            RData::NS(server) => found.servers.push(server.0.to_ascii()),
            RData::CNAME(other) => {
                found.alias = Some(other.0.to_ascii());
                name = other.0.clone();
            }
            _ => {}
        }
    }
    found
}
