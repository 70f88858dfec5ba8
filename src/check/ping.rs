//! A host that answers an echo request. Without any right where the kernel lets everybody (`net.ipv4.ping_group_range`), else with
//! the right to send raw packets.
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{
    Looking,
    condition::{Condition, Found, Subject},
    reach::{self, Fail, Phase, Way},
    verdict,
};
use crate::{
    model::watch::{Trouble, Verdict},
    text,
};

/// So many requests are sent before it is said that nobody answers: packets get lost.
const TRIES: u16 = 3;

/// What a condition about an echo can ask.
pub const SUBJECT: Subject = Subject { name: "a ping", words: &["time", "address"] };

/// A host that is to answer.
#[derive(Clone, Debug)]
pub struct Ping {
    /// The host.
    pub host: String,
    /// How to get there.
    pub way: Way,
    /// How long all of it may take.
    pub patience: Duration,
    /// What must be so.
    pub condition: Condition,
}

impl Ping {
    /// Looks once, over the family that its way names.
    pub async fn look(&self, looking: &Looking) -> Verdict {
        let phase = Phase::default();
        let work = async {
            let addresses = reach::addresses(looking, self.way.host(&self.host), 0, &self.way, false).await?;
            let Some(address) = addresses.first() else { return Err(Fail::new(Trouble::Name, "it has no address")) };
            phase.set(Phase::KNOCK);
            Ok((address.ip(), echo(address.ip(), self.patience / u32::from(TRIES)).await?))
        };
        let (address, took) = match tokio::time::timeout(self.patience + Duration::from_millis(50), work).await {
            Ok(Ok(found)) => found,
            Ok(Err(fail)) => return verdict::failed(fail),
            Err(_) => return verdict::failed(phase.late(self.patience)),
        };
        let Some(took) = took else {
            let told = format!("no answer to {TRIES} pings within {}", crate::config::units::Span(self.patience));
            return Verdict { address: Some(address), ..verdict::failed(Fail::new(Trouble::Unreachable, told)) };
        };
        let failing = self.condition.failing(&Found { time: took, address: Some(address), ..Found::default() });
        let short = format!("answers in {}", precise(took));
        let verdict = verdict::of(failing, &short, None, Some(took), None, false);
        Verdict { address: Some(address), ..verdict }
    }
}

/// Most hosts answer within few milliseconds.
fn precise(took: Duration) -> String {
    if took < Duration::from_millis(20) {
        format!("{:.1} ms", took.as_secs_f64() * 1000.0)
    } else {
        text::duration(took)
    }
}

/// The time until the echo came; none when it did not.
async fn echo(address: IpAddr, each: Duration) -> Result<Option<Duration>, Fail> {
    let (socket, is_raw) = open(address).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Fail::new(
            Trouble::NotAllowed,
            "this user may not ping: set `sysctl net.ipv4.ping_group_range=\"0 2147483647\"`, or give CAP_NET_RAW",
        ),
        _ => reach::unreachable(&error),
    })?;
    socket.connect(SocketAddr::new(address, 0)).await.map_err(|error| reach::unreachable(&error))?;
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(|error| Fail::new(Trouble::NotAllowed, format!("no random bytes: {error}")))?;
    let mut room = [0; 1500];
    for number in 1..=TRIES {
        let begun = Instant::now();
        let until = tokio::time::Instant::now() + each;
        match socket.send(&request(address, number, &token)).await {
            Ok(_) => {}
            // A former packet was answered by "not reachable".
            Err(error) if number < TRIES && error.kind() == io::ErrorKind::HostUnreachable => continue,
            Err(error) => return Err(reach::unreachable(&error)),
        }
        loop {
            match tokio::time::timeout_at(until, socket.recv(&mut room)).await {
                Err(_) => break,
                Ok(Err(error)) => return Err(reach::unreachable(&error)),
                Ok(Ok(count)) => {
                    let packet = &room[..count];
                    // A raw socket hears the IP header too.
                    let skipped = if is_raw && address.is_ipv4() {
                        usize::from(packet.first().unwrap_or(&0) & 15) * 4
                    } else {
                        0
                    };
                    if is_answer(address, packet.get(skipped..).unwrap_or_default(), number, &token) {
                        return Ok(Some(begun.elapsed()));
                    }
                }
            }
        }
    }
    Ok(None)
}

/// A socket for echoes, and whether it is a raw one.
fn open(address: IpAddr) -> io::Result<(UdpSocket, bool)> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let (socket, is_raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            (Socket::new(domain, Type::RAW, Some(protocol))?, true)
        }
        Err(error) => return Err(error),
    };
    socket.set_nonblocking(true)?;
    // It only sends and receives, whatever its protocol is.
    Ok((UdpSocket::from_std(socket.into())?, is_raw))
}

fn request(address: IpAddr, number: u16, token: &[u8; 16]) -> Vec<u8> {
    let kind = if address.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0, token[0], token[1], 0, 0];
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    packet.extend_from_slice(token);
    if address.is_ipv4() {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn is_answer(address: IpAddr, packet: &[u8], number: u16, token: &[u8; 16]) -> bool {
    let kind = if address.is_ipv4() { 0 } else { 129 };
    packet.len() >= 24 && packet[0] == kind && packet[6..8] == number.to_be_bytes() && packet[8..24] == token[..]
}

fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.fold(0u32, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_packet_with_its_own_is_nothing() {
        let packet = request("127.0.0.1".parse().unwrap(), 7, &[9; 16]);
        assert_eq!(checksum(&packet), 0);
        let mut answer = packet;
        answer[0] = 0;
        assert!(is_answer("127.0.0.1".parse().unwrap(), &answer, 7, &[9; 16]));
        assert!(!is_answer("127.0.0.1".parse().unwrap(), &answer, 8, &[9; 16]));
        assert!(!is_answer("127.0.0.1".parse().unwrap(), &answer[..20], 7, &[9; 16]));
    }
}
