//! Cloudflare. Of a record only the address is changed: whether it is proxied, its TTL and its comment stay as they are.
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use async_trait::async_trait;
use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Answer, End, Line, Provider, Refresh, Wanted, authorisation, base, check_server, said, same};
use crate::{
    config::{
        mistake::Problem,
        secret::{Secret, SecretSource},
    },
    dyndns::{Addresses, Family},
};

/// A zone at Cloudflare.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cloudflare {
    /// An API token that may edit the zone's DNS (Zone:Read, DNS:Edit).
    pub token: SecretSource,
    /// The zone, such as `example.org` [default: found by the hosts' names].
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
struct Envelope {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    errors: Vec<Fault>,
    #[serde(default)]
    result: Value,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    content: String,
    #[serde(default)]
    proxied: bool,
}

#[async_trait]
impl Provider for Cloudflare {
    fn name(&self) -> String {
        "Cloudflare".to_owned()
    }

    fn check(&self, key: &str) -> Vec<Problem> {
        let mut problems: Vec<Problem> = check_server(key, self.server.as_deref()).into_iter().collect();
        if self.zone.as_ref().is_some_and(|zone| !zone.contains('.')) {
            let message = format!("`{}` is no zone", self.zone.as_deref().unwrap_or_default());
            problems.push(Problem::new(format!("{key}.zone"), message).hint("it is the domain, such as `example.org`"));
        }
        problems
    }

    fn check_host(&self, host: &str) -> Option<String> {
        let zone = self.zone.as_deref()?;
        (host != zone && !host.ends_with(&format!(".{zone}"))).then(|| format!("`{host}` is not in the zone {zone}"))
    }

    fn secrets(&self) -> Vec<SecretSource> {
        vec![self.token.clone()]
    }

    fn refresh(&self) -> Refresh {
        // A look at the record: what somebody else changed there comes back within a day.
        Refresh { usual: Duration::from_secs(86_400), most: None }
    }

    async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer> {
        let mut zones = BTreeMap::new();
        let mut answers: Vec<Answer> = Vec::new();
        for wanted in hosts {
            let answer = match answers.last().map(|last| &last.end) {
                // It would answer the same to all.
                Some(end @ (End::Stop { all: true, .. } | End::Later { .. })) => Answer::end(end.clone()),
                _ => self.tell_one(line, wanted, &mut zones).await,
            };
            answers.push(answer);
        }
        answers
    }
}

impl Cloudflare {
    async fn tell_one(&self, line: &Line<'_>, wanted: &Wanted, zones: &mut BTreeMap<String, String>) -> Answer {
        let zone = match self.zone(line, &wanted.host, zones).await {
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

    /// The zone's number; the longest part of the host's name that is one.
    async fn zone(&self, line: &Line<'_>, host: &str, known: &mut BTreeMap<String, String>) -> Result<String, End> {
        let mut name = self.zone.as_deref().unwrap_or(host);
        loop {
            if let Some(id) = known.get(name) {
                return Ok(id.clone());
            }
            let mut url = self.url("client/v4/zones")?;
            url.query_pairs_mut().append_pair("name", name).append_pair("status", "active");
            let found: Vec<Zone> = self.call(line, Method::GET, url, None).await?;
            if let Some(zone) = found.into_iter().find(|zone| zone.name == name) {
                known.insert(name.to_owned(), zone.id.clone());
                return Ok(zone.id);
            }
            match name.split_once('.') {
                Some((_, above)) if self.zone.is_none() && above.contains('.') => name = above,
                _ => {
                    let name = self.zone.as_deref().unwrap_or(host);
                    return Err(End::Stop {
                        all: self.zone.is_some(),
                        why: format!("Cloudflare has no zone of {name} that this token may see"),
                        mend: "look at the name, and that the token has Zone:Read and DNS:Edit for its zone".to_owned(),
                    });
                }
            }
        }
    }

    async fn set(&self, line: &Line<'_>, zone: &str, host: &str, address: IpAddr) -> Result<End, End> {
        let kind = Family::of(address).record();
        let records = format!("client/v4/zones/{zone}/dns_records");
        let mut url = self.url(&records)?;
        url.query_pairs_mut().append_pair("type", kind).append_pair("name", host).append_pair("per_page", "5");
        let found: Vec<Record> = self.call(line, Method::GET, url, None).await?;
        let stop = |why: String, mend: &str| End::Stop { all: false, why, mend: mend.to_owned() };
        let record: Record = match found.as_slice() {
            [record] if same(&record.content, address) => {
                return Ok(End::Taken { had_it: true, proven: true });
            }
            [record] => {
                let url = self.url(&format!("{records}/{}", record.id))?;
                self.call(line, Method::PATCH, url, Some(json!({ "content": address }))).await?
            }
            [] if self.create => {
                let body = json!({ "type": kind, "name": host, "content": address, "ttl": 1, "proxied": false });
                self.call(line, Method::POST, self.url(&records)?, Some(body)).await?
            }
            [] => {
                return Err(stop(
                    format!("Cloudflare has no {kind} record of {host}"),
                    "make it there, or let it be made: `create = true`",
                ));
            }
            more => {
                let count = more.len();
                return Err(stop(
                    format!(
                        "Cloudflare has {count} {kind} records of {host}, and which of them is this host is not known"
                    ),
                    "leave one there",
                ));
            }
        };
        if !same(&record.content, address) {
            return Err(End::Unknown {
                why: format!("Cloudflare was told {address} and has {} now", said(&record.content, [])),
            });
        }
        // Name servers show Cloudflare's own addresses of a proxied record.
        Ok(End::Taken { had_it: false, proven: record.proxied })
    }

    fn url(&self, path: &str) -> Result<Url, End> {
        let mut url = base(self.server.as_deref(), "https://api.cloudflare.com")?;
        url.set_path(path);
        Ok(url)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        line: &Line<'_>,
        method: Method,
        url: Url,
        body: Option<Value>,
    ) -> Result<T, End> {
        let token = line.read(&self.token).await?;
        let mut request = Request::new(method, url);
        authorisation(&mut request, &format!("Bearer {}", token.reveal()))?;
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        let reply = line.ask(None, request).await?;
        let clean = |text: &str| said(text, [Secret::new(token.reveal())]);
        let unknown = || End::Unknown { why: format!("Cloudflare answered {}: {}", reply.status, clean(&reply.body)) };
        let envelope: Envelope = serde_json::from_str(&reply.body).map_err(|_| unknown())?;
        if reply.status.is_success() && envelope.success {
            return serde_json::from_value(envelope.result).map_err(|_| unknown());
        }
        let fault = envelope.errors.first().map_or_else(
            || format!("Cloudflare answered {}", reply.status),
            |fault| format!("Cloudflare answered {}: {} ({})", reply.status, clean(&fault.message), fault.code),
        );
        Err(match reply.status.as_u16() {
            400 if envelope.errors.iter().any(|fault| matches!(fault.code, 6003 | 6111 | 9109 | 10_000 | 10_001)) => {
                refused(fault)
            }
            401 | 403 => refused(fault),
            _ => End::Unknown { why: fault },
        })
    }
}

fn refused(why: String) -> End {
    End::Stop { all: true, why, mend: "make a token with Zone:Read and DNS:Edit for the zone".to_owned() }
}
