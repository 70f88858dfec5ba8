//! What this host's address is: several sources are asked, and believed only when they agree.
mod command;
mod interface;
mod name_server;
mod router;
mod web;

use std::{net::IpAddr, path::PathBuf};

use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

pub use interface::lasting;
pub use name_server::Question;
pub use router::{control, external};
pub use web::read as read_echo;

use super::{
    Family, Lines,
    address::{Said, Stands, agreed, unreachable},
};
use crate::{config::mistake::Problem, process::Tree};

/// Where to ask what this host's address is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Web services that answer with the caller's address and nothing else [default: four of them].
    pub web: Option<Vec<String>>,
    /// Name servers that do: `cloudflare`, `opendns`, `google`, or a question such as `whoami.cloudflare CH TXT @1.1.1.1` [default: these three].
    pub dns: Option<Vec<Question>>,
    /// The router, by UPnP: `find`, or the address of its description, `http://192.168.1.1:5000/rootDesc.xml`. Of IPv4 only.
    pub router: Option<String>,
    /// A network interface of this host, such as `eth0`.
    pub interface: Option<String>,
    /// A command that prints the address; `RUSUBAN_FAMILY` says which, `ipv4` or `ipv6`.
    pub command: Option<Vec<String>>,
    /// So many sources must agree [default: 2].
    pub agree: Option<u8>,
}

/// What a command needs.
#[derive(Clone, Debug)]
pub struct Around {
    /// Where it runs.
    pub folder: PathBuf,
    /// Marks it as the run's.
    pub tree: Tree,
    /// Set when the run is asked to stop.
    pub cancelled: CancellationToken,
}

/// A source outside.
enum Outside<'a> {
    Web(&'a str),
    Dns(&'a Question),
}

impl Sources {
    /// What only shows when the values are looked at. `key` is where the table is.
    #[must_use]
    pub fn check(&self, key: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, url) in self.web.iter().flatten().enumerate() {
            if let Err(why) = super::ask::address(url) {
                problems.push(problem(format!("{key}.web[{index}]"), &why));
            }
        }
        if let Some(router) = self.router.as_deref().filter(|router| *router != "find")
            && let Err(why) = router::place(router)
        {
            problems.push(problem(format!("{key}.router"), &why));
        }
        if let Some(name) = &self.interface
            && !interface::is_name(name)
        {
            problems.push(
                Problem::new(format!("{key}.interface"), format!("`{name}` cannot be the name of an interface"))
                    .hint("`ip address` lists them, such as `eth0`"),
            );
        }
        if self.command.as_ref().is_some_and(|command| command.first().is_none_or(String::is_empty)) {
            problems.push(Problem::new(format!("{key}.command"), "the command is empty"));
        }
        let inside = usize::from(self.router.is_some())
            + usize::from(self.interface.is_some())
            + usize::from(self.command.is_some());
        let there = inside + self.outside().count();
        if self.agree == Some(0) {
            problems.push(
                Problem::new(format!("{key}.agree"), "an address that no source says is none")
                    .hint("2 is a good number; 1 believes a source alone"),
            );
        } else if there < self.needed() {
            let what = format!("{} must agree, and {there} can be asked", self.needed());
            problems.push(Problem::new(if self.agree.is_some() { format!("{key}.agree") } else { key.to_owned() }, what).hint(
                "name more sources: `web`, `dns`, `router`, `interface`, `command`; or believe one alone: `agree = 1`",
            ));
        }
        problems
    }

    fn needed(&self) -> usize {
        usize::from(self.agree.unwrap_or(2))
    }

    /// Web and name servers in turn: two that are asked are of two kinds.
    fn outside(&self) -> impl Iterator<Item = Outside<'_>> {
        let mut web: Box<dyn Iterator<Item = &str> + Send> = match &self.web {
            Some(web) => Box::new(web.iter().map(String::as_str)),
            None => Box::new(web::DEFAULT.into_iter()),
        };
        let dns: &[Question] = self.dns.as_deref().unwrap_or(name_server::DEFAULT);
        let mut dns = dns.iter();
        std::iter::from_fn(move || Some([web.next().map(Outside::Web), dns.next().map(Outside::Dns)]))
            .take_while(|pair| pair.iter().any(Option::is_some))
            .flatten()
            .flatten()
    }

    /// The address of this family; else why it is not known, in words for a person.
    ///
    /// # Errors
    /// When the sources disagree, are silent, or name an address that nobody outside can reach.
    pub async fn find(
        &self,
        family: Family,
        lines: &Lines,
        around: &Around,
        network_only: bool,
    ) -> Result<IpAddr, String> {
        let router = async {
            match &self.router {
                Some(place) if family == Family::Ipv4 => Some(router::ask(place, lines).await),
                _ => None,
            }
        };
        let interface = async {
            match &self.interface {
                Some(name) => Some(interface::ask(name, family).await),
                None => None,
            }
        };
        let command = async {
            match &self.command {
                Some(command) => Some(command::ask(command, family, around).await),
                None => None,
            }
        };
        let (router, interface, command) = tokio::join!(router, interface, command);
        let inside = [
            ("router", Stands::Router, router),
            ("interface", Stands::Host, interface),
            ("command", Stands::Host, command),
        ];
        let mut all: Vec<Said> = inside
            .into_iter()
            .filter_map(|(word, from, what)| {
                let who = match (word, &self.interface) {
                    ("interface", Some(name)) => format!("interface {name}"),
                    _ => word.to_owned(),
                };
                Some(Said { who, from, what: what? })
            })
            .collect();
        // As many as are needed at once; where some are silent, the next ones. One at least, to see what the others see.
        let mut outside = self.outside();
        loop {
            // An interface with a private address, behind a router, says nothing of how others see it.
            let good = |said: &&Said| said.what.as_ref().is_ok_and(|address| unreachable(*address).is_none());
            let answered = all.iter().filter(good).count();
            let seen = all.iter().filter(good).any(|said| said.from == Stands::Outside);
            let missing = self.needed().saturating_sub(answered).max(usize::from(!seen && self.needed() > 1));
            let next: Vec<Outside<'_>> = outside.by_ref().take(missing).collect();
            if next.is_empty() {
                break;
            }
            all.extend(join_all(next.into_iter().map(|one| one.ask(family, lines))).await);
        }
        agreed(&all, self.needed(), network_only)
    }
}

impl Outside<'_> {
    async fn ask(self, family: Family, lines: &Lines) -> Said {
        let (who, what) = match self {
            Self::Web(url) => (web::name(url), web::ask(url, family, lines).await),
            Self::Dns(question) => (question.to_string(), question.ask(family).await),
        };
        let right = what.and_then(|address: IpAddr| {
            let is_right = Family::of(address) == family;
            is_right.then_some(address).ok_or_else(|| format!("it answered {address}, which is no {family} address"))
        });
        Said { who, from: Stands::Outside, what: right }
    }
}

/// A sentence `what: use how` as a problem with its hint.
pub(super) fn problem(key: String, why: &str) -> Problem {
    match why.split_once(": use ") {
        Some((wrong, how)) => Problem::new(key, wrong).hint(format!("use {how}")),
        None => Problem::new(key, why),
    }
}
