//! The check that a site's keys ask for, one function for each kind of check.
use std::{net::IpAddr, time::Duration};

use hyper::header::{HeaderName, HeaderValue};
use reqwest::Url;

use super::{
    keys::SiteKeys,
    plan::{Made, Making},
};
use crate::{
    check::{
        Check, CheckEntry,
        certificate::CertificateOf,
        condition::write,
        dns::{self, Dns},
        domain::{self, Domain},
        host_and_port,
        page::Page,
        ping::Ping,
        reach::Family,
        tcp::Tcp,
    },
    config::{
        mistake::suggest,
        secret::TextOrSecret,
        units::{Size, Span},
    },
    kinds::request::{Method, address},
};

/// So much of an answer is read, without a word.
const READ: Size = Size(1 << 20);
/// And never more.
const MOST_READ: u64 = 64 << 20;
/// So long a registration must last, without a word.
const DOMAIN_LEFT: Span = Span::hours(30 * 24);

impl Making {
    pub(super) fn page(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
        let url = keys.url.clone()?;
        let mut host = None;
        if let TextOrSecret::Text(text) = &url {
            match address(text) {
                Ok(url) => host = url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned()),
                Err(why) => {
                    let why = why.to_string();
                    let (wrong, mend) = why.split_once(": use ").map_or(
                        (why.as_str(), "write it as in `https://example.org/path`".to_owned()),
                        |(wrong, mend)| (wrong, format!("use {mend}")),
                    );
                    self.problem("url", wrong, mend);
                }
            }
        }
        let mut headers = Vec::new();
        for (name, value) in keys.headers.iter().flatten() {
            let key = format!("headers.{name}");
            match HeaderName::try_from(name) {
                Ok(read) => headers.push((read, value.clone())),
                Err(_) => self.problem(&key, format!("`{name}` cannot be a header's name"), "such as `Accept`"),
            }
            if let TextOrSecret::Text(text) = value
                && HeaderValue::try_from(text).is_err()
            {
                self.problem(&key, "a header's value is one line without control characters", "remove them");
            }
        }
        let own_authorization = headers.iter().any(|(name, _)| *name == hyper::header::AUTHORIZATION);
        if [own_authorization, keys.bearer.is_some(), keys.basic.is_some()].into_iter().filter(|is| *is).count() > 1 {
            let key = if keys.basic.is_some() { "basic" } else { "bearer" };
            let hint = "keep one of `bearer`, `basic` and the header `Authorization`";
            self.problem(key, "the request would be authorised in two ways", hint);
        }
        let method = keys.method.unwrap_or_default();
        if keys.body.is_some() && matches!(method, Method::Get | Method::Head) {
            self.problem("body", format!("a {method} sends nothing"), "add `method = \"POST\"`");
        }
        let read = keys.read.unwrap_or(READ).0;
        if read == 0 || read > MOST_READ {
            let message = format!("of an answer 1 B to {} are read", Size(MOST_READ));
            self.problem("read", message, format!("it is {READ} when absent"));
        }
        let way = self.way(keys);
        let mut more = Vec::new();
        let mut follow = true;
        match keys.redirect.as_deref() {
            None | Some("follow") => {}
            Some("no") => follow = false,
            Some(to) => match Url::parse(to) {
                Ok(url) => {
                    follow = false;
                    more.push(format!("redirect == {}", write(url.as_str())));
                }
                Err(_) => {
                    let message = format!("`{to}` is no web address");
                    self.problem(
                        "redirect",
                        message,
                        "write `\"follow\"`, `\"no\"`, or the address to which it must point",
                    );
                }
            },
        }
        if keys.http2 == Some(true) {
            more.push("http >= 2".to_owned());
        }
        let condition = self.condition(keys, entry, &more);
        if method == Method::Head && condition.reads_body() {
            self.problem("method", "the answer to a HEAD has no text to look at", "ask with GET, which is the default");
        }
        let secrets = headers.iter().map(|(_, value)| Some(value.clone())).collect::<Vec<_>>();
        self.secret(secrets);
        self.secret([
            Some(url.clone()),
            keys.bearer.clone(),
            keys.body.clone(),
            keys.basic.as_ref().map(|basic| basic.password.clone()),
        ]);
        let page = Page {
            url,
            method: method.into(),
            headers,
            bearer: keys.bearer.clone(),
            basic: keys.basic.as_ref().map(|basic| (basic.user.clone(), basic.password.clone())),
            body: keys.body.clone(),
            follow,
            way,
            insecure: keys.insecure.unwrap_or_default(),
            ca: keys.ca.clone(),
            http2: keys.http2 == Some(true) || condition.is_about_http(),
            patience,
            read: usize::try_from(read).unwrap_or(usize::MAX),
            condition,
        };
        if page.url.secret().is_some() && keys.name.is_none() {
            self.problem("", "a site whose address is secret needs a name", "such as `name = \"blog\"`");
            return None;
        }
        Some((Check::Page(page), host.clone().unwrap_or_default(), host))
    }

    pub(super) fn tcp(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
        let text = keys.tcp.as_deref()?;
        let (host, port) = self.host_and_port("tcp", text, "db:5432")?;
        let tls = keys.encrypted.unwrap_or_default();
        if !tls && (keys.ca.is_some() || keys.insecure.is_some() || keys.certificate_left.is_some()) {
            let key = if keys.ca.is_some() {
                "ca"
            } else if keys.insecure.is_some() {
                "insecure"
            } else {
                "certificate_left"
            };
            self.problem(key, "without TLS there is no certificate to look at", "add `encrypted = true`");
        }
        let way = self.way(keys);
        let condition = self.condition(keys, entry, &[]);
        self.secret([keys.send.clone()]);
        let shown = host.trim_matches(['[', ']']).to_owned();
        let tcp = Tcp {
            host,
            port,
            way,
            tls,
            insecure: keys.insecure.unwrap_or_default(),
            ca: keys.ca.clone(),
            send: keys.send.clone(),
            patience,
            condition,
        };
        Some((Check::Tcp(tcp), text.to_owned(), Some(shown)))
    }

    pub(super) fn dns(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
        let text = keys.dns.as_deref()?;
        let name = match dns::name(text) {
            Ok(name) => name,
            Err(why) => {
                self.problem("dns", why, "such as `dns = \"example.org\"`");
                return None;
            }
        };
        let record = keys.record.as_deref().unwrap_or("A");
        let Some(kind) = dns::record(record) else {
            let message = format!("`{record}` is no kind of record that can be asked for");
            self.problem("record", message, suggest(record, &dns::RECORDS, "choose one of"));
            return None;
        };
        let resolver = match keys.resolver.as_deref().map(|text| (text, dns::resolver(text))) {
            None => None,
            Some((_, Some(resolver))) => Some(resolver),
            Some((text, None)) => {
                let message = format!("`{text}` is no name server's address");
                self.problem("resolver", message, "write it as in `192.0.2.1` or `192.0.2.1:5353`");
                return None;
            }
        };
        let default =
            if keys.answer.is_none() && keys.expect.is_none() { vec!["answer".to_owned()] } else { Vec::new() };
        let condition = self.condition(keys, entry, &default);
        Some((
            Check::Dns(Dns { name, record: kind, resolver, patience, condition }),
            text.to_owned(),
            Some(text.to_owned()),
        ))
    }

    pub(super) fn ping(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
        let host = keys.ping.clone()?;
        if host_and_port(&format!("{host}:1")).is_none() && host.parse::<IpAddr>().is_err() {
            self.problem(
                "ping",
                format!("`{host}` is neither an address nor a host's name"),
                "such as `ping = \"router.lan\"`",
            );
            return None;
        }
        let way = self.way(keys);
        let condition = self.condition(keys, entry, &[]);
        Some((Check::Ping(Ping { host: host.clone(), way, patience, condition }), host.clone(), Some(host)))
    }

    pub(super) fn certificate(
        &mut self,
        keys: &SiteKeys,
        entry: &'static CheckEntry,
        patience: Duration,
    ) -> Option<Made> {
        let text = keys.tls.as_deref()?;
        let (host, port) = self.host_and_port("tls", text, "mail.example.org:993")?;
        let way = self.way(keys);
        let condition = self.condition(keys, entry, &[]);
        let shown = host.trim_matches(['[', ']']).to_owned();
        let check = CertificateOf { host, port, way, ca: keys.ca.clone(), patience, condition };
        Some((Check::Certificate(check), text.to_owned(), Some(shown)))
    }

    pub(super) fn domain(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
        let name = keys.domain.as_deref()?.trim_end_matches('.').to_lowercase();
        let is_name = dns::name(&name).is_ok() && host_and_port(&format!("{name}:1")).is_some() && name.contains('.');
        if !is_name || name.parse::<IpAddr>().is_ok() {
            self.problem("domain", format!("`{name}` is no registered domain"), "such as `domain = \"example.org\"`");
            return None;
        }
        let rdap = keys.rdap.clone().unwrap_or_else(|| domain::RDAP.to_owned());
        if address(&rdap).is_err() {
            self.problem("rdap", format!("`{rdap}` is no web address"), format!("it is {} when absent", domain::RDAP));
        }
        let way = self.way(keys);
        let default = match (keys.domain_left, &keys.expect) {
            (None, None) => vec![format!("domain > {DOMAIN_LEFT}")],
            _ => Vec::new(),
        };
        let condition = self.condition(keys, entry, &default);
        let check = Domain { name: name.clone(), rdap, way, patience, condition };
        Some((Check::Domain(check), name.clone(), Some(name)))
    }

    fn host_and_port(&mut self, key: &str, text: &str, example: &str) -> Option<(String, u16)> {
        let read = host_and_port(text);
        if read.is_none() {
            let message = format!("`{text}` is no host and port");
            self.problem(key, message, format!("write it as in `{key} = \"{example}\"`"));
        }
        read
    }
}

/// The same over each family.
pub(super) fn over_both(check: Check) -> Check {
    let over = |family: Family| {
        let mut check = check.clone();
        match &mut check {
            Check::Page(page) => page.way.family = family,
            Check::Tcp(tcp) => tcp.way.family = family,
            Check::Ping(ping) => ping.way.family = family,
            Check::Certificate(certificate) => certificate.way.family = family,
            _ => {}
        }
        check
    };
    Check::Both(Box::new([over(Family::Ipv4), over(Family::Ipv6)]))
}
