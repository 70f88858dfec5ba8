//! The keys of a `dynamic-dns` job, and what can be wrong with them.
use std::{borrow::Cow, collections::HashSet, fmt, net::Ipv6Addr, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    config::{mistake::Problem, units::Span},
    dyndns::{Family, Setting, address, own::Sources, record},
};

/// More hosts than this are no home's.
const MOST_HOSTS: usize = 100;

/// Records that follow this host's address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DynamicDns {
    /// Who keeps the records.
    pub provider: Setting,
    /// The hosts.
    #[serde(default)]
    pub host: Vec<Host>,
    /// Keep the A records true [default: true].
    #[serde(default = "yes")]
    pub ipv4: bool,
    /// Keep the AAAA records true [default: false].
    #[serde(default)]
    pub ipv6: bool,
    /// Where to ask what this host's address is.
    #[serde(default)]
    pub address: Sources,
    /// Tell the provider after this long though nothing has changed [default: as the provider wants it].
    #[serde(default)]
    pub refresh: Option<Span>,
    /// Ask the name servers whether the record says what was told [default: true].
    #[serde(default = "yes")]
    pub verify: bool,
    /// The name server to ask, such as `1.1.1.1` [default: those of the host's own zone].
    #[serde(default)]
    pub resolver: Option<String>,
    /// Look for so long whether the record has changed, right after it was told [default: 20s].
    #[serde(default = "twenty_seconds")]
    pub verify_within: Span,
    /// Each request over the web has this long [default: 20s].
    #[serde(default = "twenty_seconds")]
    pub patience: Span,
}

/// A host whose record is kept true.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its full name: `home.example.org`.
    pub name: String,
    /// The half of its IPv6 address that stays, such as `::1:2:3:4`, when it is another machine than this one: the network's half is this host's.
    #[serde(default)]
    pub suffix: Option<Suffix>,
}

/// The host's half of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suffix(pub Ipv6Addr);

fn yes() -> bool {
    true
}

fn twenty_seconds() -> Span {
    Span::seconds(20)
}

impl DynamicDns {
    /// The families that are kept true.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        [(self.ipv4, Family::Ipv4), (self.ipv6, Family::Ipv6)]
            .into_iter()
            .filter_map(|(is_on, family)| is_on.then_some(family))
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let provider = self.provider.provider();
        let key = format!("provider.{}", self.provider.key());
        let mut problems = provider.check(&key);
        problems.extend(self.address.check("address"));
        if self.families().next().is_none() {
            let hint = "keep `ipv4 = true`, or `ipv6 = true`, or both";
            problems.push(Problem::new("ipv4", "neither IPv4 nor IPv6 is to be kept true").hint(hint));
        }
        if self.host.is_empty() {
            problems.push(
                Problem::new("", "there is no host whose record is to be kept true")
                    .hint("write `[[host]]`, and `name = \"home.example.org\"` below it"),
            );
        } else if self.host.len() > MOST_HOSTS {
            let hint = format!("more than {MOST_HOSTS} are not told in one job");
            problems.push(Problem::new("host", format!("these are {} hosts", self.host.len())).hint(hint));
        }
        let mut seen = HashSet::new();
        for (index, host) in self.host.iter().enumerate() {
            problems.extend(self.of_host(&format!("host[{index}]"), host));
            if !seen.insert(host.name.to_lowercase()) {
                problems.push(Problem::new(format!("host[{index}].name"), format!("`{}` is named twice", host.name)));
            }
        }
        if let Some(refresh) = self.refresh {
            let limits = provider.refresh();
            if refresh.0 < HOUR {
                let hint =
                    "services block hosts that tell them the same again and again; changes are told at once anyway";
                let message = format!("{refresh} is too often for what has not changed");
                problems.push(Problem::new("refresh", message).hint(hint));
            } else if let Some(most) = limits.most.filter(|most| refresh.0 > *most) {
                let hint = format!("at most {} are safe; when absent it is {}", Span(most), Span(limits.usual));
                let message =
                    format!("{} forgets hosts that it does not hear of, and {refresh} is too long", provider.name());
                problems.push(Problem::new("refresh", message).hint(hint));
            }
        }
        if let Some(resolver) = &self.resolver {
            if record::resolver(resolver).is_none() {
                let message = format!("`{resolver}` is no address of a name server");
                problems.push(
                    Problem::new("resolver", message).hint("write its number, such as `1.1.1.1` or `192.168.1.1:53`"),
                );
            } else if !self.verify {
                problems
                    .push(Problem::new("resolver", "nobody is asked: `verify` is false").hint("remove one of the two"));
            }
        }
        for (key, span) in [("verify_within", self.verify_within), ("patience", self.patience)] {
            if span.0 > HOUR / 12 || (key == "patience" && span.0 < std::time::Duration::from_millis(100)) {
                problems.push(
                    Problem::new(key, format!("{span} does not fit here"))
                        .hint("write a time up to `5m`, such as `20s`"),
                );
            }
        }
        problems
    }

    fn of_host(&self, key: &str, host: &Host) -> Vec<Problem> {
        let mut problems = Vec::new();
        let provider = self.provider.provider();
        let at = format!("{key}.name");
        if let Some(why) = not_a_name(&host.name) {
            problems.push(
                Problem::new(&at, format!("`{}` is no full name of a host: {why}", host.name))
                    .hint("write the name with its domain, such as `home.example.org`"),
            );
        } else if let Some(why) = provider.check_host(&host.name) {
            problems.push(match why.split_once(": write ") {
                Some((wrong, how)) => Problem::new(&at, wrong).hint(format!("write {how}")),
                None => Problem::new(&at, why),
            });
        }
        if host.suffix.is_some() {
            let at = format!("{key}.suffix");
            if !self.ipv6 {
                problems.push(Problem::new(at, "only IPv6 addresses have a suffix").hint("add `ipv6 = true`"));
            } else if !provider.takes_any() {
                let message =
                    format!("{} takes the address that it sees, and not one that it is told", provider.name());
                problems.push(Problem::new(at, message).hint("run this job on the host itself, without a suffix"));
            }
        }
        problems
    }
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

/// Why this is no host's name.
fn not_a_name(name: &str) -> Option<&'static str> {
    let label = |label: &str| {
        let good = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(good)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let wildcard = name.strip_prefix("*.").unwrap_or(name);
    if name.contains("://") || name.contains('/') {
        Some("this is an address of the web")
    } else if name.parse::<std::net::IpAddr>().is_ok() {
        Some("this is an address already")
    } else if name.len() > 253 {
        Some("it is too long")
    } else if !name.is_ascii() {
        Some("other letters than a to z are written as `xn--…`")
    } else if name.ends_with('.') {
        Some("it has a dot at its end")
    } else if !wildcard.split('.').all(label) {
        Some("it has letters that no name has, or an empty part")
    } else if !name.contains('.') {
        Some("it has no domain")
    } else {
        None
    }
}

impl FromStr for Suffix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let suffix = text.parse().ok().filter(|suffix| address::is_suffix(*suffix));
        suffix.map(Self).ok_or_else(|| {
            format!("`{text}` is no host's half of an IPv6 address: write its last four groups, such as `::1:2:3:4`")
        })
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Suffix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Suffix {
    fn schema_name() -> Cow<'static, str> {
        "Suffix".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
