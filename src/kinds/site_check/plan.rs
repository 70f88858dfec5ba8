//! From keys to checks: done once, when the job is read; what is wrong with the values shows here.
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use hyper::header::{HeaderName, HeaderValue};
use reqwest::Url;

use super::keys::SiteKeys;
use crate::{
    check::{
        CHECKS, Check, CheckEntry,
        certificate::CertificateOf,
        condition::{Condition, Wrong, write},
        container::Contained,
        dns::{self, Dns},
        domain::{self, Domain},
        guard::Network,
        host_and_port,
        page::Page,
        ping::Ping,
        reach::{Family, Way},
        tcp::Tcp,
    },
    config::{
        mistake::{Problem, suggest},
        secret::{SecretSource, TextOrSecret},
        units::{Size, Span},
    },
    docker,
    kinds::request::{Method, address},
    model::watch::Rules,
};

/// A look may take so long, without a word.
const PATIENCE: Span = Span::seconds(10);
/// And never longer.
const MOST_PATIENCE: Duration = Duration::from_secs(300);
/// So much of an answer is read, without a word.
const READ: Size = Size(1 << 20);
/// And never more.
const MOST_READ: u64 = 64 << 20;
/// A longer name does not fit into a message.
const LONGEST_NAME: usize = 100;
/// So many sites may stand above one.
const DEEPEST: usize = 50;
/// So long a registration must last, without a word.
const DOMAIN_LEFT: Span = Span::hours(30 * 24);
/// A look that fails once may be the line's fault.
const FAILURES: u32 = 2;

/// A site that is looked at.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) label: String,
    pub(super) check: Check,
    pub(super) rules: Rules,
}

/// What a job's keys come to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) sites: Vec<Planned>,
    pub(super) secrets: Vec<SecretSource>,
    pub(super) problems: Vec<Problem>,
}

impl Plan {
    pub(super) fn of(mut keys: SiteKeys) -> Self {
        let sites = std::mem::take(&mut keys.site);
        let mut making = Making { plan: Self::default(), known: HashMap::new(), prefix: String::new() };
        let mut labels: Vec<(String, String)> = Vec::new();
        let mut parents: Vec<(String, usize, String)> = Vec::new();
        if sites.is_empty() {
            labels.extend(making.site(keys, &SiteKeys::default()).map(|label| (String::new(), label)));
        } else {
            making.common(&keys);
            for (number, site) in sites.into_iter().enumerate() {
                making.prefix = format!("site[{number}].");
                if !site.site.is_empty() {
                    making.problem("site", "sites have no sites within them", "write `[[site]]` for each of them");
                }
                let label = making.site(site, &keys);
                labels.extend(label.map(|label| (format!("site[{number}]"), label)));
            }
        }
        let mut plan = making.plan;
        let mut seen = HashSet::new();
        for (key, label) in &labels {
            if !seen.insert(label.as_str()) {
                let problem = Problem::new(key, format!("a site before it is named `{label}` as well"));
                plan.problems.push(problem.hint("give one of them another: `name = \"…\"`"));
            }
        }
        for (index, ((key, label), site)) in labels.iter().zip(&mut plan.sites).enumerate() {
            // What all have in common is not meant for the one that is named there.
            if site.rules.parent.as_ref() == Some(label) && !key.is_empty() {
                site.rules.parent = None;
            }
            if let Some(parent) = site.rules.parent.clone() {
                parents.push((key.clone(), index, parent));
            }
        }
        if plan.problems.is_empty() {
            let known = self::parents(&plan.sites);
            let wrong = parents.iter().filter_map(|(key, index, parent)| {
                let key = if key.is_empty() { "parent".to_owned() } else { format!("{key}.parent") };
                let (message, hint) = wrong_parent(&known, &plan.sites[*index].label, parent)?;
                Some(Problem::new(key, message).hint(hint))
            });
            plan.problems.extend(wrong.collect::<Vec<_>>());
        }
        // Those on whom others depend are looked at first.
        let depths = depths(&plan.sites);
        let mut sites: Vec<(usize, Planned)> = depths.into_iter().zip(plan.sites).collect();
        sites.sort_by_key(|(depth, _)| *depth);
        plan.sites = sites.into_iter().map(|(_, site)| site).collect();
        plan
    }
}

/// The parents of sites that have one, by their names.
fn parents(sites: &[Planned]) -> HashMap<&str, Option<&str>> {
    sites.iter().map(|site| (site.label.as_str(), site.rules.parent.as_deref())).collect()
}

/// How many stand above each.
fn depths(sites: &[Planned]) -> Vec<usize> {
    let parents = parents(sites);
    let depth = |site: &Planned| {
        let (mut depth, mut label) = (0, site.label.as_str());
        while let Some(Some(parent)) = parents.get(label).filter(|_| depth < DEEPEST) {
            (depth, label) = (depth + 1, *parent);
        }
        depth
    };
    sites.iter().map(depth).collect()
}

/// What is wrong with the parent of the site `own`, and how to mend it.
fn wrong_parent(parents: &HashMap<&str, Option<&str>>, own: &str, parent: &str) -> Option<(String, String)> {
    if !parents.contains_key(parent) {
        let mut known: Vec<&str> = parents.keys().copied().filter(|label| *label != own).collect();
        known.sort_unstable();
        known.truncate(20);
        let hint =
            if known.is_empty() { "it is the only one".to_owned() } else { suggest(parent, &known, "the sites are") };
        return Some((format!("this job has no site `{parent}`"), hint));
    }
    let mut label = parent;
    for steps in 0..=DEEPEST {
        if label == own {
            let message = match steps {
                0 => "a site cannot be its own parent".to_owned(),
                _ => format!("`{parent}` has `{own}` above it in turn"),
            };
            return Some((message, "remove it".to_owned()));
        }
        label = (*parents.get(label)?)?;
    }
    // Either a circle further up, which is told there, or more than anybody needs.
    let message = format!("more than {DEEPEST} sites stand above `{own}`");
    Some((message, "name the one that matters".to_owned()))
}

/// A plan that is being made.
struct Making {
    plan: Plan,
    /// Conditions that were read before, by check and text: many sites are asked for the same.
    known: HashMap<(&'static str, String), Condition>,
    /// Of the site that is read: `site[3].`.
    prefix: String,
}

impl Making {
    fn problem(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        let key = format!("{}{key}", self.prefix);
        self.plan.problems.push(Problem::new(key.trim_end_matches('.'), message).hint(hint));
    }

    /// What stands above the sites.
    fn common(&mut self, keys: &SiteKeys) {
        for (key, is_set) in [
            ("name", keys.name.is_some()),
            ("url", keys.url.is_some()),
            ("tcp", keys.tcp.is_some()),
            ("dns", keys.dns.is_some()),
            ("ping", keys.ping.is_some()),
            ("tls", keys.tls.is_some()),
            ("domain", keys.domain.is_some()),
            ("bearer", keys.bearer.is_some()),
            ("basic", keys.basic.is_some()),
            ("body", keys.body.is_some()),
            ("send", keys.send.is_some()),
            ("resolve", keys.resolve.is_some()),
        ] {
            if is_set {
                let message = format!("`{key}` is of one site, and this job has several");
                self.problem(key, message, "write it below the `[[site]]` that it is for");
            }
        }
    }

    /// One site; its label, unless it is not known what it is.
    fn site(&mut self, own: SiteKeys, all: &SiteKeys) -> Option<String> {
        let entry = self.which(&own)?;
        for (key, checks) in own.set() {
            if !checks.contains(&entry.key) {
                let are: Vec<String> = checks.iter().map(|check| format!("`{check}`")).collect();
                let message =
                    format!("`{key}` is for sites with {}, and this one has `{}`", are.join(" or "), entry.key);
                self.problem(key, message, "remove it");
            }
        }
        if !self.prefix.is_empty() && own.spread.is_some() {
            self.problem("spread", "`spread` is of the job as a whole", "write it above the first `[[site]]`");
        }
        let before = self.plan.problems.len();
        let keys = own.or(all, entry.key);
        let patience = self.patience(&keys);
        let made = match entry.key {
            "url" => self.page(&keys, entry, patience),
            "tcp" => self.tcp(&keys, entry, patience),
            "dns" => self.dns(&keys, entry, patience),
            "ping" => self.ping(&keys, entry, patience),
            "tls" => self.certificate(&keys, entry, patience),
            "domain" => self.domain(&keys, entry, patience),
            _ => {
                let name = keys.container.clone().unwrap_or_default();
                Some((Check::Container(Contained { name: name.clone() }), name, None))
            }
        };
        if let Some(name) = keys.container.as_deref().filter(|name| !docker::is_name(name)) {
            let message = format!("`{name}` cannot be a container's name");
            self.problem("container", message, "`docker ps` shows their names in its last column");
        }
        let rules = self.rules(&keys);
        let (check, default, host) = made?;
        let label = keys.name.clone().unwrap_or(default);
        let label = self.label(label, keys.name.is_some())?;
        if self.plan.problems.len() == before {
            let family = keys.family.unwrap_or_default();
            let check = if family == Family::Both { over_both(check) } else { check };
            self.plan.sites.push(Planned { label: label.clone(), check, rules: Rules { host, ..rules } });
            return Some(label);
        }
        None
    }

    /// Which check it is, by the one key that says so.
    fn which(&mut self, own: &SiteKeys) -> Option<&'static CheckEntry> {
        let has = |key: &str| match key {
            "url" => own.url.is_some(),
            "tcp" => own.tcp.is_some(),
            "dns" => own.dns.is_some(),
            "ping" => own.ping.is_some(),
            "tls" => own.tls.is_some(),
            "domain" => own.domain.is_some(),
            _ => own.container.is_some(),
        };
        let mut all: Vec<&CheckEntry> = CHECKS.iter().filter(|entry| has(entry.key)).collect();
        // A container is looked at only when nothing else of it is.
        if all.len() > 1 {
            all.retain(|entry| entry.key != "container");
        }
        let examples: Vec<String> = CHECKS.iter().map(|entry| format!("`{}`", entry.example)).collect();
        match all[..] {
            [only] => return Some(only),
            [] => {
                let hint = format!("write one of {}", examples.join(", "));
                self.problem("", "this site does not say what is looked at", hint);
            }
            [one, other, ..] => {
                let hint = "make two sites of it, each with a `[[site]]` of its own";
                self.problem(other.key, format!("`{}` and `{}` are two things to look at", one.key, other.key), hint);
            }
        }
        None
    }

    fn label(&mut self, label: String, is_given: bool) -> Option<String> {
        let fits =
            !label.trim().is_empty() && label.chars().count() <= LONGEST_NAME && !label.chars().any(char::is_control);
        if fits {
            return Some(label);
        }
        let message = format!("a name has 1 to {LONGEST_NAME} letters, and no line breaks");
        self.problem(if is_given { "name" } else { "" }, message, "such as `name = \"blog\"`");
        None
    }

    fn patience(&mut self, keys: &SiteKeys) -> Duration {
        let patience = keys.patience.unwrap_or(PATIENCE).0;
        if patience.is_zero() || patience > MOST_PATIENCE {
            let message = format!("a look may take from 1ms to {}", Span(MOST_PATIENCE));
            self.problem("patience", message, format!("it is {PATIENCE} when absent"));
        }
        patience
    }

    fn rules(&mut self, keys: &SiteKeys) -> Rules {
        for (key, count) in [("failures", keys.failures), ("successes", keys.successes)] {
            if count.is_some_and(|count| count == 0 || count > 1000) {
                self.problem(key, "this goes from 1 to 1000", "1: at once");
            }
        }
        if keys.remind.is_some_and(|remind| remind.0 < Duration::from_secs(60)) {
            self.problem(
                "remind",
                "a reminder comes once a minute at most",
                "such as `remind = \"6h\"`; without it there are none",
            );
        }
        Rules {
            failures: keys.failures.unwrap_or(FAILURES),
            successes: keys.successes.unwrap_or(1),
            remind: keys.remind.map(|remind| remind.0),
            parent: keys.parent.clone(),
            container: keys.container.clone(),
            host: None,
        }
    }

    fn way(&mut self, keys: &SiteKeys) -> Way {
        let mut allow = Vec::new();
        for (number, text) in keys.allow.iter().flatten().enumerate() {
            match text.parse::<Network>() {
                Ok(network) => allow.push(network),
                Err(why) => {
                    let (wrong, mend) = why.split_once(": ").unwrap_or((&why, ""));
                    self.problem(&format!("allow[{number}]"), wrong, mend);
                }
            }
        }
        if let Some(resolve) = &keys.resolve
            && host_and_port(&format!("{resolve}:1")).is_none()
            && resolve.parse::<IpAddr>().is_err()
        {
            let message = format!("`{resolve}` is neither an address nor a host's name");
            self.problem("resolve", message, "such as `resolve = \"192.168.1.10\"`; the port stays that of the site");
        }
        Way { family: keys.family.unwrap_or_default(), resolve: keys.resolve.clone(), allow }
    }

    /// All conditions of a site: those of the keys, and `expect`.
    fn condition(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, more: &[String]) -> Condition {
        let mut parts: Vec<Condition> = Vec::new();
        if let Some(text) = &keys.expect {
            match self.read(entry, text) {
                Ok(condition) => parts.push(condition),
                Err(Wrong { at, message, hint }) => {
                    let problem = Problem::new(format!("{}expect", self.prefix), message).within(at);
                    self.plan.problems.push(Problem { hint, ..problem });
                }
            }
        }
        let is_about_status = parts.iter().any(Condition::is_about_status);
        for (key, text) in wanted(keys) {
            self.part(entry, &key, &text, &mut parts);
        }
        if entry.key == "url" && !is_about_status {
            let text = status(keys);
            self.part(entry, "status", &text, &mut parts);
        }
        for text in more {
            self.part(entry, entry.key, text, &mut parts);
        }
        if let [only] = &parts[..] { only.clone() } else { Condition::all(parts) }
    }

    fn part(&mut self, entry: &'static CheckEntry, key: &str, text: &str, parts: &mut Vec<Condition>) {
        match self.read(entry, text) {
            Ok(condition) => parts.push(condition),
            Err(wrong) => {
                let problem = Problem::new(format!("{}{key}", self.prefix), wrong.message);
                self.plan.problems.push(problem);
            }
        }
    }

    fn read(&mut self, entry: &'static CheckEntry, text: &str) -> Result<Condition, Wrong> {
        if let Some(known) = self.known.get(&(entry.key, text.to_owned())) {
            return Ok(known.clone());
        }
        let condition = Condition::parse(text, &entry.subject)?;
        self.known.insert((entry.key, text.to_owned()), condition.clone());
        Ok(condition)
    }

    fn secret(&mut self, values: impl IntoIterator<Item = Option<TextOrSecret>>) {
        let sources = values.into_iter().flatten().filter_map(|value| value.secret().cloned());
        self.plan.secrets.extend(sources);
    }

    fn page(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
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
        if host.is_none() && keys.name.is_none() {
            self.problem("", "a site whose address is secret needs a name", "such as `name = \"blog\"`");
            return None;
        }
        Some((Check::Page(page), host.clone().unwrap_or_default(), host))
    }

    fn tcp(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
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

    fn dns(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
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

    fn ping(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
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

    fn certificate(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
        let text = keys.tls.as_deref()?;
        let (host, port) = self.host_and_port("tls", text, "mail.example.org:993")?;
        let way = self.way(keys);
        let condition = self.condition(keys, entry, &[]);
        let shown = host.trim_matches(['[', ']']).to_owned();
        let check = CertificateOf { host, port, way, ca: keys.ca.clone(), patience, condition };
        Some((Check::Certificate(check), text.to_owned(), Some(shown)))
    }

    fn domain(&mut self, keys: &SiteKeys, entry: &'static CheckEntry, patience: Duration) -> Option<Made> {
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

/// A check, what it is called without a word, and the host that it looks at.
type Made = (Check, String, Option<String>);

/// The same over each family.
fn over_both(check: Check) -> Check {
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

/// What keys demand, each with its condition.
fn wanted(keys: &SiteKeys) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut add = |key: String, text: String| all.push((key, text));
    let several =
        |key: &str, count: usize, number: usize| if count > 1 { format!("{key}[{number}]") } else { key.to_owned() };
    let texts =
        keys.contains.iter().flat_map(|wanted| wanted.0.iter().map(|often| (wanted.0.len(), often)).enumerate());
    for (number, (count, often)) in texts {
        let text = write(&often.text);
        add(
            several("contains", count, number),
            match often.at_least {
                None | Some(1) => format!("body contains {text}"),
                Some(least) => format!("count({text}) >= {least}"),
            },
        );
    }
    for (number, text) in keys.lacks.iter().flat_map(|texts| texts.0.iter().enumerate()) {
        add(
            several("lacks", keys.lacks.as_ref().map_or(0, |texts| texts.0.len()), number),
            format!("not body contains {}", write(text)),
        );
    }
    for (number, text) in keys.matches.iter().flat_map(|texts| texts.0.iter().enumerate()) {
        add(
            several("matches", keys.matches.as_ref().map_or(0, |texts| texts.0.len()), number),
            format!("body matches {}", write(text)),
        );
    }
    for (number, element) in keys.css.iter().flatten().enumerate() {
        let selector = format!("css({})", write(&element.selector));
        let key = format!("css[{number}].selector");
        if let Some(text) = &element.text {
            add(key.clone(), format!("{selector} == {}", write(text)));
        }
        match element.at_least {
            Some(least) => add(key, format!("count({selector}) >= {least}")),
            None if element.text.is_none() => add(key, selector),
            None => {}
        }
    }
    for (path, value) in keys.json.iter().flatten() {
        let value = match value {
            toml::Value::String(text) => write(text),
            value => value.to_string(),
        };
        add(format!("json.{path}"), format!("json({}) == {value}", write(path)));
    }
    for (name, text) in keys.header.iter().flatten() {
        let is_any = text.is_empty();
        add(
            format!("header.{name}"),
            if is_any {
                format!("header({})", write(name))
            } else {
                format!("header({}) contains {}", write(name), write(text))
            },
        );
    }
    for (number, text) in keys.answer.iter().flat_map(|texts| texts.0.iter().enumerate()) {
        add(
            several("answer", keys.answer.as_ref().map_or(0, |texts| texts.0.len()), number),
            format!("answer == {}", write(&text.trim_end_matches('.').to_string())),
        );
    }
    let limits: BTreeMap<&str, Option<String>> = BTreeMap::from([
        ("max_time", keys.max_time.map(|time| format!("time <= {time}"))),
        ("min_size", keys.min_size.map(|size| format!("size >= {size}"))),
        ("max_size", keys.max_size.map(|size| format!("size <= {size}"))),
        ("certificate_left", keys.certificate_left.map(|left| format!("certificate > {left}"))),
        ("domain_left", keys.domain_left.map(|left| format!("domain > {left}"))),
    ]);
    for (key, text) in limits {
        if let Some(text) = text {
            add(key.to_owned(), text);
        }
    }
    all
}

/// The statuses that are fine, as a condition.
fn status(keys: &SiteKeys) -> String {
    let points_elsewhere = keys.redirect.as_deref().is_some_and(|redirect| !matches!(redirect, "follow" | "no"));
    match &keys.status {
        None if points_elsewhere => "status == 3xx".to_owned(),
        None => "status == 2xx".to_owned(),
        Some(status) => {
            let one = |(first, last): &(u16, u16)| match (first, last) {
                (first, last) if first == last => format!("status == {first}"),
                (first, last) if first % 100 == 0 && *last == first + 99 => format!("status == {}xx", first / 100),
                (first, last) => format!("(status >= {first} and status <= {last})"),
            };
            status.ranges().iter().map(one).collect::<Vec<_>>().join(" or ")
        }
    }
}
