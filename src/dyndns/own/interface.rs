//! A network interface of this host.
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::net::UdpSocket;

use crate::dyndns::{Family, address::unreachable};

/// The address with which this interface goes out.
pub(super) async fn ask(name: &str, family: Family) -> Result<IpAddr, String> {
    match family {
        Family::Ipv4 => {
            let address = outward(name).await.map_err(|error| match error.kind() {
                io::ErrorKind::NetworkUnreachable => "it has no way out over IPv4".to_owned(),
                io::ErrorKind::NotFound => "there is no such interface".to_owned(),
                _ => match error.raw_os_error() {
                    Some(19) => "there is no such interface".to_owned(),
                    _ => error.to_string(),
                },
            })?;
            Ok(IpAddr::V4(address))
        }
        Family::Ipv6 => {
            let table = tokio::fs::read_to_string("/proc/net/if_inet6").await;
            let table = table.map_err(|error| format!("this machine speaks no IPv6: {error}"))?;
            lasting(&table, name).map(IpAddr::V6).ok_or_else(|| "it has no lasting global IPv6 address".to_owned())
        }
    }
}

/// Nothing is sent: the system is asked which address it would send from.
async fn outward(name: &str) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).await?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Flags of the kernel's table: a privacy address, one that was found twice, one that is on its way out, one that is not sure yet.
const NOT_LASTING: u8 = 0x01 | 0x08 | 0x20 | 0x40;
/// Given by a person, not made from what the router says.
const PERMANENT: u8 = 0x80;

/// The interface's lasting global address in `/proc/net/if_inet6`; one that a person gave comes first.
#[must_use]
pub fn lasting(table: &str, name: &str) -> Option<Ipv6Addr> {
    let mut all: Vec<(bool, Ipv6Addr)> = table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = Ipv6Addr::from(u128::from_str_radix(words.next()?, 16).ok()?);
            let flags = u8::from_str_radix(words.nth(3)?, 16).ok()?;
            let fits = words.next()? == name && flags & NOT_LASTING == 0 && unreachable(address.into()).is_none();
            fits.then_some((flags & PERMANENT == 0, address))
        })
        .collect();
    all.sort_unstable();
    all.first().map(|(_, address)| *address)
}

/// Whether it can be one's name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() < 16 && !name.contains(['/', ' ', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lasting_address_of_an_interface_is_found() {
        let table = "\
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000021122fffe334455 02 40 20 80     eth0
2a0104f8000100020211 02 40 00 00 eth0
2a0104f800010002aaaabbbbccccdddd 02 40 00 01     eth0
2a0104f8000100020211 22fffe334455
2a0104f800010002021122fffe334455 02 40 00 00     eth0
2a0104f80001000200000000000000ff 02 40 00 20     eth0
2a0104f8000100030000000000000001 03 40 00 80     eth1
fd000000000000000000000000000002 04 40 00 82     eth1
";
        let found = |name: &str| lasting(table, name).map(|address| address.to_string());
        assert_eq!(found("eth0").as_deref(), Some("2a01:4f8:1:2:211:22ff:fe33:4455"));
        assert_eq!(found("eth1").as_deref(), Some("2a01:4f8:1:3::1"));
        assert_eq!(found("lo"), None);
        assert_eq!(lasting("\u{0}ß x", "x"), None);
    }
}
