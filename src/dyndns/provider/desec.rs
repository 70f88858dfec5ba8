//! deSEC. Of a record set only the addresses are changed; its TTL stays.
use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, End, Line, Provider, Refresh, Wanted, authorisation, base, check_server, said, same};
use crate::{
    config::{
        mistake::Problem,
        secret::{Secret, SecretSource},
    },
    dyndns::{Addresses, Family, ask::Reply},
};

/// A domain at deSEC.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Desec {
    /// A token that may write the domain's records.
    pub token: SecretSource,
    /// The domain, such as `example.dedyn.io` [default: found by the hosts' names].
    #[serde(default)]
    pub zone: Option<String>,
    /// Make records that are not there yet [default: false].
    #[serde(default)]
    pub create: bool,
    /// Another server, for trials.
    #[serde(default)]
    pub server: Option<String>,
}

#[derive(Deserialize)]
struct Domain {
    name: String,
}

#[derive(Deserialize)]
struct Set {
    records: Vec<String>,
}

/// The shortest that deSEC gives to everybody.
const TTL: u32 = 3600;

#[async_trait]
impl Provider for Desec {
    fn name(&self) -> String {
        "deSEC".to_owned()
    }

    fn check(&self, key: &str) -> Vec<Problem> {
        check_server(key, self.server.as_deref()).into_iter().collect()
    }

    fn check_host(&self, host: &str) -> Option<String> {
        let zone = self.zone.as_deref()?;
        subname(host, zone).is_none().then(|| format!("`{host}` is not in the domain {zone}"))
    }

    fn secrets(&self) -> Vec<SecretSource> {
        vec![self.token.clone()]
    }

    fn refresh(&self) -> Refresh {
        Refresh { usual: Duration::from_secs(86_400), most: None }
    }

    async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer> {
        let mut answers: Vec<Answer> = Vec::new();
        for wanted in hosts {
            let answer = match answers.last().map(|last| &last.end) {
                Some(end @ (End::Stop { all: true, .. } | End::Later { .. })) => Answer::end(end.clone()),
                _ => self.tell_one(line, wanted).await,
            };
            answers.push(answer);
        }
        answers
    }
}

impl Desec {
    async fn tell_one(&self, line: &Line<'_>, wanted: &Wanted) -> Answer {
        let zone = match self.zone(line, &wanted.host).await {
            Ok(zone) => zone,
            Err(end) => return Answer::end(end),
        };
        let mut parts = Vec::new();
        for address in wanted.due.each() {
            let end = self.set(line, &zone, &wanted.host, address).await.unwrap_or_else(|end| end);
            let taken =
                if matches!(end, End::Taken { .. }) { [address].into_iter().collect() } else { Addresses::default() };
            parts.push(Answer { taken, end });
        }
        Answer::together(parts)
    }

    async fn zone(&self, line: &Line<'_>, host: &str) -> Result<String, End> {
        if let Some(zone) = &self.zone {
            return Ok(zone.clone());
        }
        let mut url = self.url(&["domains"])?;
        url.query_pairs_mut().append_pair("owns_qname", host);
        let reply = self.call(line, Method::GET, url, None).await?;
        let found: Vec<Domain> = read(&reply)?;
        match found.as_slice() {
            [domain] if subname(host, &domain.name).is_some() => Ok(domain.name.clone()),
            _ => Err(End::Stop {
                all: false,
                why: format!("deSEC has no domain of {host} in this account"),
                mend: "look at the name, or say the domain: `zone = \"example.dedyn.io\"`".to_owned(),
            }),
        }
    }

    async fn set(&self, line: &Line<'_>, zone: &str, host: &str, address: IpAddr) -> Result<End, End> {
        let kind = Family::of(address).record();
        let name = subname(host, zone).unwrap_or_default();
        let at = if name.is_empty() { "@" } else { name };
        let url = self.url(&["domains", zone, "rrsets", at, kind])?;
        let reply = self.call(line, Method::GET, url.clone(), None).await?;
        if reply.status == 404 {
            if !self.create {
                return Err(End::Stop {
                    all: false,
                    why: format!("deSEC has no {kind} record of {host}"),
                    mend: "make it there, or let it be made: `create = true`".to_owned(),
                });
            }
            let body = json!({ "subname": name, "type": kind, "ttl": TTL, "records": [address] });
            let reply = self.call(line, Method::POST, self.url(&["domains", zone, "rrsets"])?, Some(body)).await?;
            return taken(&read(&reply)?, address);
        }
        let set: Set = read(&reply)?;
        if matches!(set.records.as_slice(), [only] if same(only, address)) {
            return Ok(End::Taken { had_it: true, proven: true });
        }
        if set.records.len() > 1 {
            return Err(End::Stop {
                all: false,
                why: format!(
                    "deSEC has {} {kind} records of {host}, and which of them is this host is not known",
                    set.records.len()
                ),
                mend: "leave one there".to_owned(),
            });
        }
        let reply = self.call(line, Method::PATCH, url, Some(json!({ "records": [address] }))).await?;
        taken(&read(&reply)?, address)
    }

    fn url(&self, path: &[&str]) -> Result<Url, End> {
        let mut url = base(self.server.as_deref(), "https://desec.io")?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(["api", "v1"]).extend(path).push("");
        }
        Ok(url)
    }

    /// An answer that is a success, or that there is no such thing.
    async fn call(&self, line: &Line<'_>, method: Method, url: Url, body: Option<Value>) -> Result<Reply, End> {
        let token = line.read(&self.token).await?;
        let mut request = Request::new(method, url);
        authorisation(&mut request, &format!("Token {}", token.reveal()))?;
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        let mut reply = line.ask(None, request).await?;
        reply.body = crate::config::secret::Redactor::new([Secret::new(token.reveal())]).clean(&reply.body);
        match reply.status.as_u16() {
            200..=299 | 404 => Ok(reply),
            401 | 403 => Err(End::Stop {
                all: true,
                why: format!("deSEC answered {}: {}", reply.status, said(&reply.body, [])),
                mend: "look at the token, and that it may write this domain".to_owned(),
            }),
            _ => Err(End::Unknown { why: format!("deSEC answered {}: {}", reply.status, said(&reply.body, [])) }),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(reply: &Reply) -> Result<T, End> {
    let unknown = || End::Unknown { why: format!("deSEC answered {}: {}", reply.status, said(&reply.body, [])) };
    if reply.status == 404 {
        return Err(unknown());
    }
    serde_json::from_str(&reply.body).map_err(|_| unknown())
}

fn taken(set: &Set, address: IpAddr) -> Result<End, End> {
    match set.records.as_slice() {
        [only] if same(only, address) => Ok(End::Taken { had_it: false, proven: false }),
        other => {
            Err(End::Unknown { why: format!("deSEC was told {address} and has {} now", said(&other.join(", "), [])) })
        }
    }
}

/// The part of a host's name that is before its domain.
fn subname<'a>(host: &'a str, zone: &str) -> Option<&'a str> {
    match host.strip_suffix(zone)? {
        "" => Some(""),
        rest => rest.strip_suffix('.'),
    }
}
