//! Those who speak as dyn.com once did: one request, one word of answer for each host, and a duty for each word.
use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Method, Request, header::USER_AGENT};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, End, Line, Provider, Refresh, WAIT, Wanted, authorisation, check_server, each, header, said};
use crate::{
    config::{
        mistake::{Problem, suggest},
        secret::{Secret, SecretSource},
    },
    dyndns::{Addresses, Family, ask},
};

/// A service that speaks DynDNS2: one that is known by name, or a server of one's own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DynDns2 {
    /// One that is known: `dyn`, `dynu`, `he`, `nsupdate`, `spdyn`, `strato`. No-IP has a table of its own.
    #[serde(default)]
    pub service: Option<String>,
    /// Any other: its address up to the `?`, such as `https://dyn.example.org/nic/update`.
    #[serde(default)]
    pub server: Option<String>,
    /// The user; Hurricane Electric and nsupdate.info take the host's name instead.
    #[serde(default)]
    pub user: Option<String>,
    /// The password, or the update key.
    pub password: SecretSource,
    /// How both families are told [default: what the service takes, else `separate`].
    #[serde(default)]
    pub families: Option<Families>,
    /// Whom the service may write to when something is wrong with this program: your mail address. Sent as part of the name that every client gives.
    #[serde(default)]
    pub contact: Option<String>,
}

/// How IPv4 and IPv6 are told together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// `myip=IPV4,IPV6`.
    Comma,
    /// `myip=IPV4&myipv6=IPV6`.
    Myipv6,
    /// A request for each.
    Separate,
}

/// A service that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    word: &'static str,
    name: &'static str,
    server: &'static str,
    families: Families,
    /// Takes several hosts in one request.
    several: bool,
    /// The user is the host's name.
    host_is_user: bool,
}

const SERVICES: [Service; 6] = [
    known("dyn", "Dyn", "https://members.dyndns.org/nic/update", Families::Comma, true, false),
    known("dynu", "Dynu", "https://api.dynu.com/nic/update", Families::Myipv6, false, false),
    known("he", "Hurricane Electric", "https://dyn.dns.he.net/nic/update", Families::Separate, false, true),
    known("nsupdate", "nsupdate.info", "https://nsupdate.info/nic/update", Families::Separate, false, true),
    known("spdyn", "Securepoint", "https://update.spdyn.de/nic/update", Families::Separate, false, false),
    known("strato", "Strato", "https://dyndns.strato.com/nic/update", Families::Comma, false, false),
];

/// No-IP, which has a table of its own.
pub(super) const NO_IP: Service =
    known("no-ip", "No-IP", "https://dynupdate.no-ip.com/nic/update", Families::Comma, true, false);

const fn known(
    word: &'static str,
    name: &'static str,
    server: &'static str,
    families: Families,
    several: bool,
    host_is_user: bool,
) -> Service {
    Service { word, name, server, families, several, host_is_user }
}

/// Hosts in one request, at most.
const AT_ONCE: usize = 20;

#[async_trait]
impl Provider for DynDns2 {
    fn name(&self) -> String {
        match (self.known(), &self.server) {
            (Some(service), _) => service.name.to_owned(),
            (None, Some(server)) => ask::address(server)
                .ok()
                .and_then(|url| url.host_str().map(str::to_owned))
                .unwrap_or_else(|| server.clone()),
            (None, None) => "DynDNS2".to_owned(),
        }
    }

    fn check(&self, key: &str) -> Vec<Problem> {
        let words: Vec<&str> = SERVICES.iter().map(|service| service.word).collect();
        let mut problems: Vec<Problem> = check_server(key, self.server.as_deref()).into_iter().collect();
        match (&self.service, &self.server) {
            (None, None) => problems.push(
                Problem::new(key, "it is not said who is to be told")
                    .hint("write `service = \"he\"`, or the address up to the `?`: `server = \"https://dyn.example.org/nic/update\"`"),
            ),
            (Some(service), _) if service == NO_IP.word || service == "noip" => problems.push(
                Problem::new(format!("{key}.service"), "No-IP has a table of its own").hint("write `[provider.noip]`"),
            ),
            (Some(service), _) if self.known().is_none() => {
                let hint = suggest(service, &words, "the services are");
                let hint = format!("{hint}\nany other is told by its address: `server = \"https://…/nic/update\"`");
                problems.push(Problem::new(format!("{key}.service"), format!("`{service}` is not known here")).hint(hint));
            }
            _ => {}
        }
        let host_is_user = self.known().is_some_and(|service| service.host_is_user);
        if self.user.is_none() && !host_is_user {
            problems
                .push(Problem::new(key, "the key `user` is missing").hint("it is the name that you log in with there"));
        }
        if self.user.as_ref().is_some_and(|user| user.contains(':')) {
            problems.push(Problem::new(format!("{key}.user"), "a user's name has no `:`"));
        }
        problems.extend(check_contact(key, self.contact.as_deref()));
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        vec![self.password.clone()]
    }

    fn refresh(&self) -> Refresh {
        Refresh { usual: Duration::from_secs(28 * 86_400), most: None }
    }

    async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer> {
        let account = Account {
            name: &self.name(),
            server: self.server.as_deref().or(self.known().map(|service| service.server)).unwrap_or_default(),
            user: self.user.as_deref(),
            password: &self.password,
            families: self.families.or(self.known().map(|service| service.families)).unwrap_or(Families::Separate),
            several: self.known().is_some_and(|service| service.several),
            contact: self.contact.as_deref(),
        };
        account.tell(line, hosts).await
    }
}

impl DynDns2 {
    fn known(&self) -> Option<&'static Service> {
        let word = self.service.as_deref()?;
        SERVICES.iter().find(|service| service.word == word)
    }
}

pub(super) fn check_contact(key: &str, contact: Option<&str>) -> Option<Problem> {
    let contact = contact?;
    let is_one = contact.contains('@') && contact.chars().all(|letter| letter.is_ascii_graphic());
    (!is_one).then(|| {
        Problem::new(format!("{key}.contact"), format!("`{contact}` is no mail address"))
            .hint("the service writes there when something is wrong, such as `me@example.org`")
    })
}

/// All that is needed to speak with one of them.
pub(super) struct Account<'a> {
    pub(super) name: &'a str,
    pub(super) server: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) password: &'a SecretSource,
    pub(super) families: Families,
    pub(super) several: bool,
    pub(super) contact: Option<&'a str>,
}

/// The account at No-IP.
pub(super) fn no_ip<'a>(
    server: Option<&'a str>,
    user: &'a str,
    password: &'a SecretSource,
    contact: &'a str,
) -> Account<'a> {
    Account {
        name: NO_IP.name,
        server: server.unwrap_or(NO_IP.server),
        user: Some(user),
        password,
        families: NO_IP.families,
        several: NO_IP.several,
        contact: Some(contact),
    }
}

impl Account<'_> {
    /// Tells of all hosts; of several in one request where the service takes that and they have the same addresses.
    pub(super) async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer> {
        let mut answers = each(hosts, &End::NotSent { why: "there is no address to tell".to_owned() });
        let mut open: Vec<usize> = (0..hosts.len()).collect();
        while let Some(first) = open.first().copied() {
            let alike = |index: &usize| {
                *index == first
                    || (self.several
                        && hosts[*index].addresses == hosts[first].addresses
                        && hosts[*index].due == hosts[first].due)
            };
            let batch: Vec<usize> = open.iter().copied().filter(alike).take(AT_ONCE).collect();
            open.retain(|index| !batch.contains(index));
            let names: Vec<&str> = batch.iter().map(|index| hosts[*index].host.as_str()).collect();
            for (index, answer) in batch.iter().zip(self.tell_alike(line, &names, &hosts[first]).await) {
                answers[*index] = answer;
            }
            // What stops all must not be tried with the next.
            if let End::Stop { all: true, .. } | End::Later { .. } = &answers[first].end {
                let end = answers[first].end.clone();
                open.drain(..).for_each(|index| answers[index] = Answer::end(end.clone()));
            }
        }
        answers
    }

    async fn tell_alike(&self, line: &Line<'_>, names: &[&str], wanted: &Wanted) -> Vec<Answer> {
        let requests: Vec<Addresses> = match self.families {
            Families::Separate => wanted.due.each().map(|address| [address].into_iter().collect()).collect(),
            _ => vec![wanted.addresses],
        };
        let mut parts: Vec<Vec<Answer>> = names.iter().map(|_| Vec::new()).collect();
        for addresses in requests {
            let ends = match self.send(line, names, addresses).await {
                Ok(ends) => ends,
                Err(end) => names.iter().map(|_| end.clone()).collect(),
            };
            for (part, end) in parts.iter_mut().zip(ends) {
                let taken = if matches!(end, End::Taken { .. }) { addresses } else { Addresses::default() };
                part.push(Answer { taken, end });
            }
            // A second request would be one too many.
            if parts.iter().flatten().any(|part| !matches!(part.end, End::Taken { .. })) {
                break;
            }
        }
        parts.into_iter().map(Answer::together).collect()
    }

    async fn send(&self, line: &Line<'_>, names: &[&str], addresses: Addresses) -> Result<Vec<End>, End> {
        let mut url = ask::address(self.server).map_err(|why| End::NotSent { why })?;
        let list = |all: &mut dyn Iterator<Item = IpAddr>| all.map(|one| one.to_string()).collect::<Vec<_>>().join(",");
        let mut query = format!("hostname={}", names.join(","));
        match self.families {
            Families::Myipv6 => {
                for (key, family) in [("myip", Family::Ipv4), ("myipv6", Family::Ipv6)] {
                    if let Some(address) = addresses.get(family) {
                        query.push_str(&format!("&{key}={address}"));
                    }
                }
            }
            _ => query.push_str(&format!("&myip={}", list(&mut addresses.each()))),
        }
        url.set_query(Some(&query));
        let password = line.read(self.password).await?;
        let user = self.user.unwrap_or(names.first().copied().unwrap_or_default());
        let basic = BASE64_STANDARD.encode(format!("{user}:{}", password.reveal()));
        let mut request = Request::new(Method::GET, url);
        authorisation(&mut request, &format!("Basic {basic}"))?;
        if let Some(contact) = self.contact {
            header(&mut request, USER_AGENT, &format!("Rusuban rusuban/{} {contact}", env!("CARGO_PKG_VERSION")))?;
        }
        let reply = line.ask(None, request).await?;
        let clean = |text: &str| said(text, [Secret::new(basic.as_str()), password.clone()]);
        match reply.status.as_u16() {
            200..=299 => Ok(codes(self.name, &reply.body, addresses, names.len(), &clean)),
            // Some say it with the status, some with the word as well.
            401 => Err(end_of(self.name, "badauth", addresses, &clean)),
            _ => match reply.body.split_whitespace().next() {
                Some(word) if DUTIES.iter().any(|duty| duty.code == word) => {
                    Err(end_of(self.name, &reply.body, addresses, &clean))
                }
                _ => Err(End::Unknown {
                    why: format!("{} answered {}: {}", self.name, reply.status, clean(&reply.body)),
                }),
            },
        }
    }
}

/// What must be done when a word is answered.
enum Duty {
    Stop { all: bool, mend: &'static str },
    Wait,
}

struct Code {
    code: &'static str,
    means: &'static str,
    duty: Duty,
}

const DUTIES: [Code; 11] = [
    stop("badauth", "user and password do not fit", true, "look at `user` and `password`"),
    stop("!donator", "the account has not paid for this", true, "take a paid account, or ask for less"),
    stop("!active", "the account or the host is not active", true, "log in there and activate it"),
    stop(
        "notfqdn",
        "this is no full name of a host",
        false,
        "write the name with its domain, such as `home.example.org`",
    ),
    stop("nohost", "the account has no such host", false, "add the host there, or mend its name here"),
    stop("!yours", "the host belongs to another account", false, "mend the name, or log in with the other account"),
    stop("numhost", "too many hosts at once", false, "name fewer hosts in the job"),
    stop("abuse", "the host or the account is blocked for abuse", true, "ask the service to lift the block"),
    stop("badagent", "the service does not want this program", true, "write to the service, and give `contact`"),
    Code { code: "dnserr", means: "the service cannot reach its own name servers", duty: Duty::Wait },
    Code { code: "911", means: "the service is in trouble", duty: Duty::Wait },
];

const fn stop(code: &'static str, means: &'static str, all: bool, mend: &'static str) -> Code {
    Code { code, means, duty: Duty::Stop { all, mend } }
}

/// An end for each of `hosts` hosts, from a line each; `clean` makes what was said fit to be shown.
pub fn codes(name: &str, body: &str, sent: Addresses, hosts: usize, clean: &dyn Fn(&str) -> String) -> Vec<End> {
    let lines: Vec<&str> = body.lines().map(str::trim).filter(|line| !line.is_empty()).take(hosts + 1).collect();
    let ends: Vec<End> = lines.iter().map(|line| end_of(name, line, sent, clean)).collect();
    match ends.as_slice() {
        [] => vec![End::Unknown { why: format!("{name} answered nothing") }; hosts],
        // One word for all of them: fine for what concerns all.
        [end] if hosts > 1 && !matches!(end, End::Taken { .. } | End::Stop { all: false, .. }) => {
            vec![end.clone(); hosts]
        }
        _ => (0..hosts)
            .map(|index| {
                let missing = || End::Unknown { why: format!("{name} said nothing of this host: {}", clean(body)) };
                ends.get(index).cloned().unwrap_or_else(missing)
            })
            .collect(),
    }
}

fn end_of(name: &str, line: &str, sent: Addresses, clean: &dyn Fn(&str) -> String) -> End {
    let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let code = words.next().unwrap_or_default();
    let named: Vec<IpAddr> = words.filter_map(|word| word.parse().ok()).collect();
    let refused = || End::Stop {
        all: true,
        why: format!("{name} answered {}: it does not want this program", clean(line)),
        mend: "write to the service, and give `contact`".to_owned(),
    };
    match code {
        // An address that means "go away".
        "good" if named.iter().any(IpAddr::is_loopback) && !sent.each().any(|address| address.is_loopback()) => {
            refused()
        }
        "good" | "nochg" if named.iter().all(|address| sent.each().any(|known| known == *address)) => {
            End::Taken { had_it: code == "nochg", proven: false }
        }
        "good" | "nochg" => End::Unknown { why: format!("{name} was told {sent} and answered {}", clean(line)) },
        _ => match DUTIES.iter().find(|duty| duty.code == code) {
            Some(Code { code, means, duty: Duty::Stop { all, mend } }) => {
                End::Stop { all: *all, why: format!("{name} answered {code}: {means}"), mend: (*mend).to_owned() }
            }
            Some(Code { code, means, duty: Duty::Wait }) => {
                End::Later { why: format!("{name} answered {code}: {means}"), wait: WAIT[0] }
            }
            None => End::Unknown { why: format!("{name} answered {}, which is no word that is known", clean(line)) },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(body: &str, hosts: usize) -> Vec<String> {
        let sent: Addresses = ["93.184.216.34".parse().unwrap()].into_iter().collect();
        codes("it", body, sent, hosts, &ask::said)
            .into_iter()
            .map(|end| match end {
                End::Taken { had_it, .. } => format!("taken {had_it}"),
                End::Stop { all, .. } => format!("stop {all}"),
                End::Later { wait, .. } => format!("later {}", wait.as_secs()),
                End::Unknown { .. } => "unknown".to_owned(),
                End::NotSent { .. } => "not sent".to_owned(),
            })
            .collect()
    }

    #[test]
    fn every_word_has_its_duty() {
        for (body, end) in [
            ("good 93.184.216.34", "taken false"),
            ("good", "taken false"),
            ("nochg 93.184.216.34", "taken true"),
            ("nochg", "taken true"),
            ("good 127.0.0.1", "stop true"),
            ("good 93.184.216.99", "unknown"),
            ("badauth", "stop true"),
            ("!donator", "stop true"),
            ("notfqdn", "stop false"),
            ("nohost", "stop false"),
            ("!yours", "stop false"),
            ("numhost", "stop false"),
            ("abuse", "stop true"),
            ("badagent", "stop true"),
            ("dnserr", "later 1800"),
            ("911", "later 1800"),
            ("goodness", "unknown"),
            ("GOOD 93.184.216.34", "unknown"),
            ("<html>", "unknown"),
            ("", "unknown"),
        ] {
            assert_eq!(ends(body, 1), [end], "{body}");
        }
        assert_eq!(
            ends("good 93.184.216.34\r\nnohost\r\nnochg 93.184.216.34\r\n", 3),
            ["taken false", "stop false", "taken true"]
        );
        assert_eq!(ends("badauth", 3), ["stop true"; 3]);
        assert_eq!(ends("good 93.184.216.34", 2), ["taken false", "unknown"]);
    }
}
