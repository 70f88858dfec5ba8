//! Amazon Route 53: a record set is read, and put with another address; its TTL stays.
use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, End, Line, Provider, Refresh, WAIT, Wanted, base, check_server, header, said, same};
use crate::{
    config::{
        mistake::Problem,
        secret::{Secret, SecretSource},
    },
    dyndns::{Addresses, Family, ask::Reply, xml},
};

/// A hosted zone at Route 53.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route53 {
    /// The access key; it needs `route53:ListResourceRecordSets` and `route53:ChangeResourceRecordSets` of the zone.
    pub access_key: SecretSource,
    /// Its secret.
    pub secret_key: SecretSource,
    /// The zone's ID: `Z0123456789ABCDEFGHIJ`.
    pub zone_id: String,
    /// Make records that are not there yet [default: false].
    #[serde(default)]
    pub create: bool,
    /// Another server, for trials.
    #[serde(default)]
    pub server: Option<String>,
}

/// Of records that are made here.
const TTL: &str = "300";
const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";

#[async_trait]
impl Provider for Route53 {
    fn name(&self) -> String {
        "Route 53".to_owned()
    }

    fn check(&self, key: &str) -> Vec<Problem> {
        let mut problems: Vec<Problem> = check_server(key, self.server.as_deref()).into_iter().collect();
        let is_id = !self.zone_id.is_empty() && self.zone_id.bytes().all(|letter| letter.is_ascii_alphanumeric());
        if !is_id {
            let message = format!("`{}` is no zone's ID", self.zone_id);
            problems.push(
                Problem::new(format!("{key}.zone_id"), message)
                    .hint("it stands beside the zone, such as `Z0123456789ABCDEFGHIJ`"),
            );
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        vec![self.access_key.clone(), self.secret_key.clone()]
    }

    fn refresh(&self) -> Refresh {
        Refresh { usual: Duration::from_secs(86_400), most: None }
    }

    async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer> {
        let mut answers: Vec<Answer> = Vec::new();
        for wanted in hosts {
            if let Some(end @ (End::Stop { all: true, .. } | End::Later { .. })) = answers.last().map(|last| &last.end)
            {
                answers.push(Answer::end(end.clone()));
                continue;
            }
            let mut parts = Vec::new();
            for address in wanted.due.each() {
                let end = self.set(line, &wanted.host, address).await.unwrap_or_else(|end| end);
                let taken = if matches!(end, End::Taken { .. }) {
                    [address].into_iter().collect()
                } else {
                    Addresses::default()
                };
                parts.push(Answer { taken, end });
            }
            answers.push(Answer::together(parts));
        }
        answers
    }
}

impl Route53 {
    async fn set(&self, line: &Line<'_>, host: &str, address: IpAddr) -> Result<End, End> {
        let kind = Family::of(address).record();
        let path = format!("/2013-04-01/hostedzone/{}/rrset", self.zone_id);
        let reply = self.call(line, Method::GET, &path, &format!("maxitems=1&name={host}.&type={kind}"), None).await?;
        let stop = |why: String, mend: &str| End::Stop { all: false, why, mend: mend.to_owned() };
        let ttl = match read(&reply.body, host, kind) {
            Set::Unknown => {
                return Err(End::Unknown {
                    why: format!("Route 53 answered {} with what is no list: {}", reply.status, said(&reply.body, [])),
                });
            }
            Set::Missing if self.create => TTL.to_owned(),
            Set::Missing => {
                return Err(stop(
                    format!("Route 53 has no {kind} record of {host}"),
                    "make it there, or let it be made: `create = true`",
                ));
            }
            Set::Special => {
                return Err(stop(
                    format!("the {kind} record of {host} is an alias, or one of several by a routing policy"),
                    "a plain record is needed here",
                ));
            }
            Set::Plain { values, .. } if matches!(values.as_slice(), [only] if same(only, address)) => {
                return Ok(End::Taken { had_it: true, proven: true });
            }
            Set::Plain { values, .. } if values.len() > 1 => {
                let count = values.len();
                return Err(stop(
                    format!(
                        "Route 53 has {count} addresses in the {kind} record of {host}, and which of them is this host is not known"
                    ),
                    "leave one there",
                ));
            }
            Set::Plain { ttl, .. } => ttl,
        };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ChangeResourceRecordSetsRequest xmlns=\"{NAMESPACE}\"><ChangeBatch><Changes>\
             <Change><Action>UPSERT</Action><ResourceRecordSet><Name>{host}.</Name><Type>{kind}</Type><TTL>{ttl}</TTL>\
             <ResourceRecords><ResourceRecord><Value>{address}</Value></ResourceRecord></ResourceRecords></ResourceRecordSet>\
             </Change></Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
        );
        let reply = self.call(line, Method::POST, &path, "", Some(body)).await?;
        match xml::first(&xml::texts(&reply.body), "Status") {
            Some("PENDING" | "INSYNC") => Ok(End::Taken { had_it: false, proven: false }),
            _ => Err(End::Unknown { why: format!("Route 53 answered {}: {}", reply.status, said(&reply.body, [])) }),
        }
    }

    async fn call(
        &self,
        line: &Line<'_>,
        method: Method,
        path: &str,
        query: &str,
        body: Option<String>,
    ) -> Result<Reply, End> {
        let mut url = base(self.server.as_deref(), "https://route53.amazonaws.com")?;
        url.set_path(path);
        url.set_query((!query.is_empty()).then_some(query));
        let (access, secret) = (line.read(&self.access_key).await?, line.read(&self.secret_key).await?);
        let mut request = Request::new(method, url);
        if body.is_some() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        let signed = signatures(&request, body.as_deref().unwrap_or_default(), &access, &secret, line.now);
        for (name, value) in signed.map_err(|error| End::NotSent { why: format!("sign the request: {error:#}") })? {
            let name = HeaderName::try_from(name).map_err(|error| End::NotSent { why: error.to_string() })?;
            header(&mut request, name, &value)?;
        }
        *request.body_mut() = body.map(Into::into);
        let reply = line.ask(None, request).await?;
        if reply.status.is_success() {
            return Ok(reply);
        }
        let texts = xml::texts(&reply.body);
        let code = xml::first(&texts, "Code").unwrap_or_default();
        let message = xml::first(&texts, "Message").unwrap_or(&reply.body);
        let why = format!("Route 53 answered {}, {code}: {}", reply.status, said(message, [access, secret]));
        let stop = |all, mend: &str| End::Stop { all, why: why.clone(), mend: mend.to_owned() };
        Err(match (reply.status.as_u16(), code) {
            (_, "Throttling" | "ThrottlingException" | "PriorRequestNotComplete") => {
                End::Later { why, wait: Duration::from_secs(5 * 60).min(WAIT[0]) }
            }
            (403, "RequestExpired" | "RequestTimeTooSkewed") | (_, "RequestExpired") => {
                End::NotSent { why: format!("{why}; is this machine's clock right?") }
            }
            (401 | 403, _) => stop(true, "look at the keys and at what their user may do"),
            (404, _) => stop(true, "look at `zone_id`"),
            (400, "InvalidChangeBatch" | "InvalidInput") => stop(false, "look at the host's name and its zone"),
            _ => End::Unknown { why },
        })
    }
}

/// The headers that sign a request.
fn signatures(
    request: &Request,
    body: &str,
    access: &Secret,
    secret: &Secret,
    now: chrono::DateTime<chrono::Utc>,
) -> anyhow::Result<Vec<(String, String)>> {
    let credentials = Credentials::new(access.reveal(), secret.reveal(), None, None, "settings");
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("route53")
        .time(now.into())
        .settings(SigningSettings::default())
        .build()?
        .into();
    let host = host_of(request.url());
    let url = request.url().as_str();
    let headers = [(HOST.as_str(), host.as_str())];
    let signable = SignableRequest::new(
        request.method().as_str(),
        url,
        headers.into_iter(),
        SignableBody::Bytes(body.as_bytes()),
    )?;
    let (instructions, _) = sign(signable, &parameters)?.into_parts();
    Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// What Route 53 has of a name and type.
#[derive(Debug, PartialEq, Eq)]
enum Set {
    /// This is no list.
    Unknown,
    Missing,
    Plain {
        ttl: String,
        values: Vec<String>,
    },
    Special,
}

/// The first record set of a list, if it is the one that was asked for: the list begins there and goes on with others.
fn read(document: &str, host: &str, kind: &str) -> Set {
    let texts = xml::texts(document);
    if !texts.iter().any(|(path, _)| path.first() == Some(&"ListResourceRecordSetsResponse")) {
        return Set::Unknown;
    }
    let of_set = |name: &str| {
        let mut all = texts
            .iter()
            .filter(|(path, _)| matches!(path.as_slice(), [.., "ResourceRecordSet", last] if *last == name));
        all.next().map(|(_, text)| text.as_str())
    };
    let is_it = of_set("Name").is_some_and(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host))
        && of_set("Type") == Some(kind);
    if !is_it {
        return Set::Missing;
    }
    let values: Vec<String> = texts
        .iter()
        .filter(|(path, _)| matches!(path.as_slice(), [.., "ResourceRecord", "Value"]))
        .map(|(_, text)| text.clone())
        .collect();
    let ttl = of_set("TTL").filter(|ttl| ttl.parse::<u32>().is_ok());
    match ttl {
        Some(ttl) if of_set("SetIdentifier").is_none() && !values.is_empty() => {
            Set::Plain { ttl: ttl.to_owned(), values }
        }
        _ => Set::Special,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_set_is_read_with_its_ttl() {
        let list = |name: &str, inner: &str| {
            format!(
                "<ListResourceRecordSetsResponse><ResourceRecordSets><ResourceRecordSet><Name>{name}</Name><Type>A</Type>{inner}</ResourceRecordSet></ResourceRecordSets></ListResourceRecordSetsResponse>"
            )
        };
        let plain =
            "<TTL>60</TTL><ResourceRecords><ResourceRecord><Value>1.2.3.4</Value></ResourceRecord></ResourceRecords>";
        let expected = Set::Plain { ttl: "60".into(), values: vec!["1.2.3.4".into()] };
        assert_eq!(read(&list("a.example.org.", plain), "a.example.org", "A"), expected);
        assert_eq!(read(&list("b.example.org.", plain), "a.example.org", "A"), Set::Missing);
        assert_eq!(read("", "a.example.org", "A"), Set::Unknown);
        let alias = "<AliasTarget><DNSName>x</DNSName></AliasTarget>";
        assert_eq!(read(&list("a.example.org.", alias), "a.example.org", "A"), Set::Special);
        let weighted = format!("<SetIdentifier>one</SetIdentifier>{plain}");
        assert_eq!(read(&list("a.example.org.", &weighted), "a.example.org", "A"), Set::Special);
    }
}
