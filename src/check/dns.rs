//! A name: what a name server answers for it. Asked directly, by UDP and, where that has no room for the answer, by TCP: the
//! system's own look-up would answer from a hosts file and from memory.
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use super::{
    condition::{Condition, Found, Subject},
    reach::{self, Fail, Phase},
    verdict,
};
use crate::{
    model::watch::{Trouble, Verdict},
    text,
};

/// A question is asked again after so long: packets get lost.
const AGAIN: Duration = Duration::from_secs(2);
/// So many records are looked at.
const MOST: usize = 200;

/// What a condition about a name can ask.
pub const SUBJECT: Subject = Subject { name: "a name", words: &["answer", "count", "time"] };

/// The kinds of records that can be asked for.
pub const RECORDS: [&str; 10] = ["A", "AAAA", "CNAME", "MX", "NS", "TXT", "SRV", "SOA", "PTR", "CAA"];

/// A name, and what is answered for it.
#[derive(Clone, Debug)]
pub struct Dns {
    /// The name.
    pub name: Name,
    /// The kind of record.
    pub record: RecordType,
    /// Who is asked; the machine's first name server when none is named.
    pub resolver: Option<SocketAddr>,
    /// How long all of it may take.
    pub patience: Duration,
    /// What must be so.
    pub condition: Condition,
}

/// Reads a name.
///
/// # Errors
/// When it cannot be one.
pub fn name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_utf8(text).map_err(|error| format!("`{text}` cannot be a name: {error}"))?;
    name.set_fqdn(true);
    if text.trim_matches('.').is_empty() { Err("the name is empty".to_owned()) } else { Ok(name) }
}

/// Reads a kind of record.
#[must_use]
pub fn record(text: &str) -> Option<RecordType> {
    text.parse().ok().filter(|_| RECORDS.contains(&text))
}

/// Reads where a name server is: `192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:53`.
#[must_use]
pub fn resolver(text: &str) -> Option<SocketAddr> {
    let alone = text.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    alone.ok().or_else(|| text.parse().ok())
}

impl Dns {
    /// Asks once.
    pub async fn look(&self) -> Verdict {
        let (begun, phase) = (Instant::now(), Phase::default());
        let resolver = match self.resolver.or_else(of_this_machine) {
            Some(resolver) => resolver,
            None => {
                return verdict::failed(Fail::new(
                    Trouble::NotAllowed,
                    "/etc/resolv.conf names no name server; write `resolver = \"…\"`",
                ));
            }
        };
        let asked = tokio::time::timeout(self.patience, self.ask(resolver)).await;
        let took = begun.elapsed();
        let message = match asked {
            Ok(Ok(message)) => message,
            Ok(Err(fail)) => return verdict::failed(fail),
            Err(_) => {
                let Fail { trouble, told } = phase.late(self.patience);
                let told = told.replace(
                    "no name server has answered",
                    &format!("the name server {} has not answered", resolver.ip()),
                );
                return verdict::failed(Fail::new(trouble, told));
            }
        };
        let code = message.metadata.response_code;
        let told = match code {
            ResponseCode::NoError => None,
            ResponseCode::NXDomain => Some("the name does not exist (NXDOMAIN)".to_owned()),
            code => Some(format!(
                "the name server {} answers {}",
                resolver.ip(),
                super::condition::quoted(&code.to_string())
            )),
        };
        let address = Some(resolver.ip());
        if let Some(told) = told {
            return Verdict { address, took: Some(took), ..verdict::failed(Fail::new(Trouble::Name, told)) };
        }
        let records = message.answers.iter().map(|record| &record.data);
        let mut answers: Vec<String> =
            records.filter(|data| data.record_type() == self.record).take(MOST).map(written).collect();
        answers.sort();
        let failing = self.condition.failing(&Found { time: took, answers: &answers, ..Found::default() });
        let some: Vec<&str> = answers.iter().take(3).map(String::as_str).collect();
        let more = answers.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let short = match some[..] {
            [] => format!("no {} record, in {}", self.record, text::duration(took)),
            _ => format!(
                "{}{more} in {}",
                super::condition::quoted(&some.join(", ")).trim_matches('"'),
                text::duration(took)
            ),
        };
        let verdict = verdict::of(failing, &short, None, Some(took), None, false);
        Verdict { address, ..verdict }
    }

    async fn ask(&self, resolver: SocketAddr) -> Result<Message, Fail> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(self.name.clone(), self.record));
        let bytes = question
            .to_vec()
            .map_err(|error| Fail::new(Trouble::NotAllowed, format!("it cannot be asked: {error}")))?;
        let own: SocketAddr = if resolver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let io = |error: std::io::Error| {
            let Fail { trouble, told } = reach::unreachable(&error);
            Fail::new(trouble, format!("the name server {}: {told}", resolver.ip()))
        };
        let socket = UdpSocket::bind(own).await.map_err(io)?;
        // So that nobody else's answers are heard.
        socket.connect(resolver).await.map_err(io)?;
        let mut room = [0; 4096];
        loop {
            socket.send(&bytes).await.map_err(io)?;
            let until = tokio::time::Instant::now() + AGAIN;
            while let Ok(count) = tokio::time::timeout_at(until, socket.recv(&mut room)).await {
                let Some(answer) = fitting(&room[..count.map_err(io)?], &question) else { continue };
                if !answer.metadata.truncation {
                    return Ok(answer);
                }
                return self.ask_by_tcp(resolver, &bytes, &question).await;
            }
        }
    }

    async fn ask_by_tcp(&self, resolver: SocketAddr, bytes: &[u8], question: &Message) -> Result<Message, Fail> {
        let broke = |_| Fail::new(Trouble::Broken, "the name server broke off its long answer");
        let mut stream = TcpStream::connect(resolver).await.map_err(|error| reach::unreachable(&error))?;
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
        stream.write_all(&[&length, bytes].concat()).await.map_err(broke)?;
        let mut room = vec![0; usize::from(stream.read_u16().await.map_err(broke)?)];
        stream.read_exact(&mut room).await.map_err(broke)?;
        fitting(&room, question).ok_or_else(|| Fail::new(Trouble::Broken, "the name server's answer cannot be read"))
    }
}

/// The answer, if it is one to our question.
fn fitting(bytes: &[u8], question: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let asked =
        |message: &Message| message.queries.first().map(|query| (query.name().to_lowercase(), query.query_type()));
    (answer.metadata.id == question.metadata.id && asked(&answer) == asked(question)).then_some(answer)
}

/// A record as it is compared: names without their last dot, in lower case.
fn written(data: &RData) -> String {
    let text = data.to_string();
    match data {
        RData::TXT(_) => text,
        _ => text
            .to_lowercase()
            .split(' ')
            .map(|part| part.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(part))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// The first name server that this machine uses.
fn of_this_machine() -> Option<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    text.lines().filter_map(|line| line.strip_prefix("nameserver")).find_map(|server| resolver(server.trim()))
}
