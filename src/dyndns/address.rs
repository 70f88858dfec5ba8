//! Addresses: which of them others can reach, and whether several sources mean the same one. Pure.
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

/// One of the two kinds of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "these are their names")]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// The type of the record that holds such addresses.
    #[must_use]
    pub fn record(self) -> &'static str {
        match self {
            Self::Ipv4 => "A",
            Self::Ipv6 => "AAAA",
        }
    }

    /// Its key in a job file.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// At most one address of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Addresses {
    /// The one for A records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The one for AAAA records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
}

impl Addresses {
    /// That of a family.
    #[must_use]
    pub fn get(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.ipv4.map(IpAddr::V4),
            Family::Ipv6 => self.ipv6.map(IpAddr::V6),
        }
    }

    /// Puts an address in its family's place.
    pub fn set(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.ipv4 = Some(address),
            IpAddr::V6(address) => self.ipv6 = Some(address),
        }
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = IpAddr> {
        Family::ALL.into_iter().filter_map(|family| self.get(family))
    }

    /// Those of these families.
    #[must_use]
    pub fn only(&self, families: &[Family]) -> Self {
        self.each().filter(|address| families.contains(&Family::of(*address))).collect()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(all: T) -> Self {
        let mut addresses = Self::default();
        all.into_iter().for_each(|address| addresses.set(address));
        addresses
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.each().map(|address| address.to_string()).collect();
        f.pad(&all.join(" and "))
    }
}

/// Why nobody outside can reach this address; nothing, if it is one of the public ones.
#[must_use]
pub fn unreachable(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => unreachable_v4(address),
        IpAddr::V6(address) => unreachable_v6(address),
    }
}

/// An address that a provider gives to many customers at once (RFC 6598).
#[must_use]
pub fn is_shared(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if matches!(address.octets(), [100, 64..=127, ..]))
}

fn unreachable_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "no address of a host",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address, of a network at home",
        [100, 64..=127, ..] => "an address that a provider shares among its customers",
        [127, ..] => "this machine's address for itself",
        [169, 254, ..] => "an address that is given when nobody gives one",
        [192, 0, 0, _] => "an address that is kept for protocols",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "an address that is kept for documentation",
        [198, 18..=19, ..] => "an address that is kept for measurements",
        [224..=239, ..] => "an address of many hosts at once",
        [240..=255, ..] => "an address that nobody has",
        _ => return None,
    })
}

fn unreachable_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_loopback() {
        return Some("this machine's address for itself");
    }
    Some(match address.segments() {
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "an address that is kept for documentation",
        [0x2001, 0, ..] => "the address of a tunnel (Teredo)",
        [0x2001, 0x2, 0, ..] => "an address that is kept for measurements",
        [0x2001, 0x10..=0x2f, ..] => "an address that names no place",
        [0x2002, ..] => "the address of a tunnel (6to4)",
        [0x2000..=0x3fff, ..] => return None,
        [0xfc00..=0xfdff, ..] => "a private address, of a network at home",
        [0xfe80..=0xfeff, ..] => "an address for the nearest network alone",
        [0xff00..=0xffff, ..] => "an address of many hosts at once",
        _ => "no address that others can reach",
    })
}

/// The network's half of `network` and the host's half of `host`.
#[must_use]
pub fn with_suffix(network: Ipv6Addr, host: Ipv6Addr) -> Ipv6Addr {
    let half = (1 << 64) - 1;
    Ipv6Addr::from((u128::from(network) & !half) | (u128::from(host) & half))
}

/// Whether a suffix is one: it has nothing in the network's half, and something in the host's.
#[must_use]
pub fn is_suffix(suffix: Ipv6Addr) -> bool {
    u128::from(suffix) >> 64 == 0 && u128::from(suffix) != 0
}

/// What a source said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Which, for people: `web api.ipify.org`.
    pub who: String,
    /// Where it stands.
    pub from: Stands,
    /// Its answer, or why there is none.
    pub what: Result<IpAddr, String>,
}

/// Where a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// Outside, and it says who called.
    Outside,
    /// The router says what it is called by its provider.
    Router,
    /// This host says what it is called, or its owner's command does.
    Host,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Ok(address) => write!(f, "{} says {address}", self.who),
            Err(why) => write!(f, "{}: {why}", self.who),
        }
    }
}

/// The address that `agree` sources at least agree on and none denies; else why there is none, in words for a person.
///
/// Of IPv6 only the network's half must be the same where a source on this host names the whole address, or where
/// `network_only` says that the host's half does not matter: what others see may be a privacy address of today.
///
/// # Errors
/// When they disagree, are too few, or name an address that nobody outside can reach.
pub fn agreed(all: &[Said], agree: usize, network_only: bool) -> Result<IpAddr, String> {
    let list = |all: &[&Said]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let answers = || all.iter().filter_map(|said| said.what.as_ref().ok().map(|address| (said, *address)));
    let outside = || answers().find(|(said, address)| said.from == Stands::Outside && unreachable(*address).is_none());
    if let (Some((router, inner)), Some((web, outer))) =
        (answers().find(|(said, _)| said.from == Stands::Router), outside())
        && inner != outer
        && inner.is_ipv4()
    {
        let why = match unreachable(inner) {
            Some(_) if is_shared(inner) => format!(
                "you are behind your provider's NAT: nobody outside can reach this host ({router}, an address that a \
                 provider shares among its customers; {web}). Nothing was changed: ask the provider for an address of \
                 your own, or use IPv6"
            ),
            Some(_) => format!(
                "your router is itself behind a NAT, your provider's or that of another router: nobody outside can reach \
                 this host unless that one lets them through ({router}; {web}). Nothing was changed: ask the router \
                 before it, or the provider for an address of your own"
            ),
            None => format!(
                "the router says one thing and the web another, so nothing was changed: what this host sends goes out by \
                 another way than the router's (a VPN, a proxy, a second line), or you are behind your provider's NAT and \
                 nobody outside can reach this host ({router}; {web})"
            ),
        };
        return Err(why);
    }
    let good: Vec<(&Said, IpAddr)> = answers().filter(|(_, address)| unreachable(*address).is_none()).collect();
    let silent: Vec<&Said> = all.iter().filter(|said| !good.iter().any(|(other, _)| other == said)).collect();
    let of_the_rest = || {
        let told: Vec<String> = silent
            .iter()
            .map(|said| match said.what.as_ref().ok().and_then(|address| unreachable(*address)) {
                Some(why) => format!("{said}, {why}"),
                None => said.to_string(),
            })
            .collect();
        told.join("; ")
    };
    let Some((_, first)) = good.first().copied() else {
        return Err(match silent.len() {
            0 => "no source was asked".to_owned(),
            _ => format!("no source knows an address that others can reach: {}", of_the_rest()),
        });
    };
    let host = good.iter().find(|(said, _)| said.from == Stands::Host).map(|(_, address)| *address);
    let network = |address: IpAddr| match address {
        IpAddr::V6(address) if network_only || host.is_some() => {
            IpAddr::V6(with_suffix(address, Ipv6Addr::UNSPECIFIED))
        }
        other => other,
    };
    let who: Vec<&Said> = good.iter().map(|(said, _)| *said).collect();
    if good.iter().any(|(_, address)| network(*address) != network(first)) {
        let near = |address: IpAddr| matches!(address, IpAddr::V6(address) if matches!(first, IpAddr::V6(first) if with_suffix(address, first) == first));
        let privacy = if good.iter().all(|(_, address)| near(*address)) {
            ". They see privacy addresses of this host: write `interface = \"…\"` in [address], or give each host a `suffix`"
        } else {
            ""
        };
        return Err(format!("the sources disagree, so nothing was changed: {}{privacy}", list(&who)));
    }
    // Two that stand on this host know no more than one.
    if good.len() < agree {
        let rest = if silent.is_empty() { String::new() } else { format!("; {}", of_the_rest()) };
        return Err(format!("{} of the {agree} sources that must agree answered: {}{rest}", good.len(), list(&who)));
    }
    Ok(host.unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(from: Stands, text: &str) -> Said {
        Said { who: format!("{from:?}").to_lowercase(), from, what: text.parse().map_err(|_| text.to_owned()) }
    }

    fn outcome(all: &[(Stands, &str)], agree: usize, network_only: bool) -> Result<String, String> {
        let all: Vec<Said> = all.iter().map(|(from, text)| said(*from, text)).collect();
        agreed(&all, agree, network_only).map(|address| address.to_string())
    }

    #[test]
    fn only_addresses_that_others_can_reach_are_believed() {
        for text in [
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "192.0.0.8",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:93.184.216.34",
            "64:ff9b::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "2001::1",
            "2002:5db8:d822::1",
            "2001:2::1",
            "2001:20::1",
            "4000::1",
        ] {
            assert!(unreachable(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in [
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "11.0.0.1",
            "2a01:4f8::1",
            "2606:4700::1111",
            "240f:1::1",
        ] {
            assert_eq!(unreachable(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn two_that_agree_are_believed_and_one_alone_is_not() {
        use Stands::{Host, Outside, Router};
        let good = [(Outside, "93.184.216.34"), (Outside, "93.184.216.34")];
        assert_eq!(outcome(&good, 2, false), Ok("93.184.216.34".into()));
        assert_eq!(
            outcome(&[(Router, "93.184.216.34"), (Outside, "93.184.216.34")], 2, false),
            Ok("93.184.216.34".into())
        );
        assert_eq!(outcome(&[(Host, "93.184.216.34")], 1, false), Ok("93.184.216.34".into()));
        assert_eq!(
            outcome(&[(Outside, "93.184.216.34"), (Outside, "nobody there")], 2, false).unwrap_err(),
            "1 of the 2 sources that must agree answered: outside says 93.184.216.34; outside: nobody there"
        );
        assert_eq!(
            outcome(&[(Outside, "93.184.216.34"), (Outside, "93.184.216.35"), (Outside, "93.184.216.34")], 2, false)
                .unwrap_err(),
            "the sources disagree, so nothing was changed: outside says 93.184.216.34; outside says 93.184.216.35; outside says 93.184.216.34"
        );
        assert_eq!(
            outcome(&[(Outside, "192.168.1.1"), (Outside, "x")], 2, false).unwrap_err(),
            "no source knows an address that others can reach: outside says 192.168.1.1, a private address, of a network at home; outside: x"
        );
    }

    #[test]
    fn a_provider_s_nat_is_told_in_plain_words() {
        use Stands::{Outside, Router};
        for (router, begins) in [
            (
                "100.72.3.4",
                "you are behind your provider's NAT: nobody outside can reach this host (router says 100.72.3.4",
            ),
            ("192.168.0.2", "your router is itself behind a NAT"),
            ("93.184.216.99", "the router says one thing and the web another"),
        ] {
            let all = [(Router, router), (Outside, "93.184.216.34"), (Outside, "93.184.216.34")];
            let why = outcome(&all, 2, false).unwrap_err();
            assert!(why.starts_with(begins) && why.contains("outside says 93.184.216.34"), "{why}");
        }
    }

    #[test]
    fn a_privacy_address_does_not_deny_the_lasting_one() {
        use Stands::{Host, Outside};
        let seen = [(Host, "2a01:4f8:1:2::10"), (Outside, "2a01:4f8:1:2:aaaa:bbbb:cccc:dddd")];
        assert_eq!(outcome(&seen, 2, false), Ok("2a01:4f8:1:2::10".into()));
        assert!(outcome(&[seen[0], (Outside, "2a01:4f8:1:3::1")], 2, false).is_err());
        let others = [(Outside, "2a01:4f8:1:2::a"), (Outside, "2a01:4f8:1:2::b")];
        assert!(outcome(&others, 2, false).unwrap_err().contains("give each host a `suffix`"));
        assert_eq!(outcome(&others, 2, true), Ok("2a01:4f8:1:2::a".into()));
        let suffix = "::1:2:3:4".parse().unwrap();
        assert_eq!(with_suffix("2a01:4f8:1:2::a".parse().unwrap(), suffix).to_string(), "2a01:4f8:1:2:1:2:3:4");
        assert!(is_suffix(suffix) && !is_suffix(Ipv6Addr::UNSPECIFIED) && !is_suffix("1::1".parse().unwrap()));
    }
}
