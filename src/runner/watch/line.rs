//! Our own line: whether anything far away could be reached at all. Asked only when something far away fails.
use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::net::TcpStream;

use crate::model::watch::{State, Trouble, Verdict};

/// All of them together have no longer than this.
const LONGEST: Duration = Duration::from_secs(3);
/// What stands for the router that the default route names.
pub const GATEWAY: &str = "gateway";

/// What is known of our own line.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Those that have answered at some time: their silence says something.
    reached: Mutex<BTreeSet<String>>,
}

/// Whether a verdict could be the fault of our own line: what did not answer is not on this host or beside it.
pub(super) fn may_be_ours(verdict: &Verdict) -> bool {
    let silent = matches!(
        verdict.trouble,
        Some(
            Trouble::Name
                | Trouble::Unreachable
                | Trouble::TimedOut
                | Trouble::Broken
                | Trouble::Tls
                | Trouble::Refused
        )
    );
    verdict.state == State::Down && silent && verdict.address.is_none_or(|address| !is_near(address))
}

/// Whether it shows that our own line is well.
pub(super) fn shows_it_well(verdict: &Verdict) -> bool {
    verdict.state == State::Up && verdict.address.is_some_and(|address| !is_near(address))
}

/// Whether it is in this house.
pub(super) fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => four.is_loopback() || four.is_private() || four.is_link_local() || four.is_unspecified(),
        IpAddr::V6(six) => {
            six.is_loopback() || six.is_unspecified() || six.is_unique_local() || six.is_unicast_link_local()
        }
    }
}

impl Line {
    /// Why nothing far away can be reached; none when it can, or when nobody is to be asked. The router in the house may answer
    /// and the line behind it be dead: what lies behind is believed to be dead when it has answered us before.
    pub(super) async fn is_dead(&self, ask: &[String]) -> Option<String> {
        if ask.is_empty() {
            return None;
        }
        let answers = join_all(ask.iter().map(|one| async move { (one, answers(one).await) })).await;
        let (alive, dead): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, alive)| *alive);
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.extend(alive.iter().map(|(one, _)| (*one).clone()));
        let silent: Vec<&str> = dead.iter().map(|(one, _)| one.as_str()).collect();
        let beyond: Vec<&str> = silent.iter().copied().filter(|one| *one != GATEWAY).collect();
        match alive.as_slice() {
            [] => Some(format!("none of {} answers", silent.join(", "))),
            [(only, _)] if *only == GATEWAY && beyond.iter().any(|one| reached.contains(*one)) => {
                Some(format!("the router answers, but nothing behind it: not {}", beyond.join(", not ")))
            }
            _ => None,
        }
    }
}

/// Whether somebody is there: a refusal is an answer.
async fn answers(one: &str) -> bool {
    let asking = async {
        if one != GATEWAY {
            return knock(one).await;
        }
        let Some(gateway) = gateway() else { return false };
        for port in [53, 80, 443] {
            if knock(&format!("{gateway}:{port}")).await {
                return true;
            }
        }
        false
    };
    // A router that drops what it does not know is silent, but the kernel has seen it.
    tokio::time::timeout(LONGEST, asking).await.unwrap_or(false)
        || (one == GATEWAY && gateway().is_some_and(is_beside_us))
}

async fn knock(address: &str) -> bool {
    match tokio::time::timeout(LONGEST.mul_f64(0.4), TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

/// The default route's router.
fn gateway() -> Option<Ipv4Addr> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    routes.lines().skip(1).find_map(gateway_in)
}

fn gateway_in(route: &str) -> Option<Ipv4Addr> {
    let mut fields = route.split_whitespace().skip(1);
    let (destination, gateway) = (fields.next()?, fields.next()?);
    let gateway = u32::from_str_radix(gateway, 16).ok().filter(|gateway| *gateway != 0)?;
    (destination == "00000000").then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
}

/// Whether the kernel knows its hardware address, having asked for it a moment ago.
fn is_beside_us(gateway: Ipv4Addr) -> bool {
    let known = std::fs::read_to_string("/proc/net/arp").unwrap_or_default();
    known.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = fields.get(2).and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
        fields.first() == Some(&gateway.to_string().as_str()) && flags.is_some_and(|flags| flags & 2 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_found_in_the_kernels_table() {
        assert_eq!(
            gateway_in("eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"),
            cfg!(target_endian = "little").then_some(Ipv4Addr::new(192, 168, 1, 1))
        );
        assert_eq!(gateway_in("eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"), None);
    }

    #[tokio::test]
    async fn the_line_is_dead_when_nobody_answers_or_nothing_behind_the_router_that_did_before() {
        let here = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = here.local_addr().unwrap().to_string();
        // Nobody can have this address.
        let dead = "255.255.255.255:53".to_owned();
        let line = Line::default();
        assert_eq!(line.is_dead(&[]).await, None);
        assert_eq!(line.is_dead(&[alive.clone(), dead.clone()]).await, None);
        drop(here);
        // A refusal is an answer.
        assert_eq!(line.is_dead(&[alive]).await, None);
        let begun = std::time::Instant::now();
        let why = line.is_dead(&[dead.clone(), "255.255.255.255:54".into()]).await.unwrap();
        assert_eq!(why, "none of 255.255.255.255:53, 255.255.255.255:54 answers");
        assert!(begun.elapsed() < LONGEST + Duration::from_secs(1));
    }

    #[test]
    fn what_is_in_the_house_is_never_the_lines_fault() {
        for near in
            ["127.0.0.1", "192.168.1.5", "10.0.0.1", "169.254.1.1", "::1", "fd00::1", "fe80::1", "::ffff:10.1.1.1"]
        {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in ["1.1.1.1", "2606:4700::1111", "172.32.0.1"] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }
}
