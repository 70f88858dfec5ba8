//! Where a look may lead. What stands in a job file may be in this house; what a server points to must be public, unless the look
//! began in this house; and where a cloud keeps the keys of its machines nothing leads unless it is allowed by name.
//!
//! Addresses are compared when they are about to be connected to, not when a name was read: names change in between.
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Where clouds keep the keys of their machines.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Addresses with the same beginning: `10.0.0.0/8`, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address: write it as in `192.168.1.10` or `10.0.0.0/8`");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.trim().parse().map_err(|_| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = u32::from(own) ^ u32::from(other);
                differing.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = u128::from(own) ^ u128::from(other);
                differing.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Why an address is not connected to; nothing when it may be.
#[must_use]
pub fn refusal(address: IpAddr, allow: &[Network], only_public: bool) -> Option<String> {
    let meant = meant(address);
    if allow.iter().any(|network| network.has(address) || network.has(meant)) {
        return None;
    }
    if METADATA.contains(&meant) {
        return Some(format!(
            "{address} is where clouds keep the keys of their machines; `allow = [\"{address}\"]` lets it be asked"
        ));
    }
    (only_public && !is_public(address)).then(|| {
        format!("a redirect leads to {address}, which is not public; `allow = [\"{address}\"]` lets it be followed")
    })
}

/// The IPv4 address that an IPv6 address stands for, where it does.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [first, second, third, fourth, fifth, sixth, seventh, eighth] = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match (first, second, third, fourth, fifth, sixth) {
        // Mapped, translated, and the old compatible form, but for `::` and `::1`.
        (0, 0, 0, 0, 0, 0xffff) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => v4(seventh, eighth),
        (0, 0, 0, 0, 0, 0) if seventh != 0 => v4(seventh, eighth),
        // 6to4.
        (0x2002, ..) => v4(second, third),
        _ => address,
    }
}

/// Whether it is an address of the whole net, as far as that can be known.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match meant(address) {
        IpAddr::V4(v4) => {
            let [first, second, third, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || first == 0
                // Behind a provider's own translation.
                || (first == 100 && (64..128).contains(&second))
                || (first, second, third) == (192, 0, 0)
                || (first == 198 && (18..20).contains(&second))
                || first >= 240)
        }
        // Only what is given out to the world begins with 001, and not all of that.
        IpAddr::V6(v6) => (v6.segments()[0] & 0xe000) == 0x2000 && !matches!(v6.segments(), [0x2001, 0xdb8, ..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_keys_of_clouds_are_not_asked_for_in_any_spelling() {
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fd00:ec2::254",
            "100.100.100.200",
        ] {
            assert!(refusal(at(address), &[], false).unwrap().contains("keys"), "{address}");
            let allow = [address.parse().unwrap()];
            assert_eq!(refusal(at(address), &allow, true), None, "{address}");
        }
        assert_eq!(refusal(at("::ffff:169.254.169.254"), &["169.254.0.0/16".parse().unwrap()], true), None);
    }

    #[test]
    fn only_public_addresses_are_public() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(at(address)), "{address}");
            assert!(
                refusal(at(address), &[], true).is_some() && refusal(at(address), &[], false).is_none(),
                "{address}"
            );
        }
        for address in ["1.1.1.1", "100.63.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(at(address)), "{address}");
        }
    }

    #[test]
    fn networks_have_what_begins_as_they_do() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.168.1.10", "192.168.1.10", "192.168.1.11"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "2001::1", "1.1.1.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.has(at(inside)) && !network.has(at(outside)), "{network:?}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "a", "::/129", "10.0.0.0/-1"] {
            wrong.parse::<Network>().unwrap_err();
        }
    }
}
