//! Why a check fails, as far as can be known within seconds: each cause with what was seen, the certain ones first, and with what a
//! person can do. Looked for only when an incident is told.
use std::{net::IpAddr, path::Path, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Report, container, holds::Held, line, words::clock};
use crate::{
    clock::Clock,
    docker::{Container, swap},
    model::{
        news::{Cause, Offer},
        watch::{Checked, State, Trouble},
    },
    store::Store,
    text,
    watch::{Known, Step},
};

/// All of it has no longer than this.
const LONGEST: Duration = Duration::from_secs(5);
/// What happened so long before the first failing look may be its cause.
pub(super) const BEFORE: TimeDelta = TimeDelta::minutes(10);
/// A disk with less than this is full: in a thousand, and in bytes.
const FULL: (u64, u64) = (5, 100 << 20);
/// Causes and offers that are told.
const MOST: usize = 5;

/// What is known when an incident is to be told.
pub(super) struct Scene<'a> {
    pub(super) from: &'a Report<'a>,
    pub(super) checked: &'a Checked,
    pub(super) before: Option<&'a Known>,
    pub(super) step: &'a Step,
    pub(super) holds: &'a [Held],
    pub(super) store: &'a Store,
    pub(super) clock: &'a Clock,
}

/// What was found out.
#[derive(Debug, Default)]
pub(super) struct Finding {
    pub(super) causes: Vec<Cause>,
    pub(super) offers: Vec<Offer>,
}

impl Finding {
    pub(super) fn certain(&mut self, what: impl Into<String>, evidence: Vec<String>) {
        self.causes.push(Cause { what: what.into(), is_certain: true, evidence });
    }

    pub(super) fn likely(&mut self, what: impl Into<String>, evidence: Vec<String>) {
        self.causes.push(Cause { what: what.into(), is_certain: false, evidence });
    }

    pub(super) fn offer(&mut self, what: impl Into<String>, command: impl Into<String>) {
        self.offers.push(Offer { what: what.into(), command: command.into() });
    }
}

impl Scene<'_> {
    /// When it began to fail.
    pub(super) fn began(&self) -> DateTime<Utc> {
        self.step.known.incident.map_or(self.checked.at, |open| open.began)
    }

    /// Why it fails, and what can be done. What cannot be found out in time is left out.
    pub(super) async fn causes(&self) -> (Vec<Cause>, Vec<Offer>) {
        let services = self.from.services;
        let container = async {
            let Some(name) = &self.checked.rules.container else { return Finding::default() };
            container::look(self, &services.docker, name).await
        };
        let asking = async {
            // The one that others want is asked first, and each has its own limit: a dead engine must not hide a full disk.
            tokio::join!(in_time(container), in_time(self.disks()), in_time(self.name()))
        };
        let (container, disks, name) = asking.await;
        let mut all = Finding::default();
        // In the order of how much they explain: what we did, what died, what is full, what points elsewhere.
        for found in [self.ours(), self.certificate(), container, disks, name] {
            all.causes.extend(found.causes);
            all.offers.extend(found.offers);
        }
        all.causes.sort_by_key(|cause| !cause.is_certain);
        all.causes.truncate(MOST);
        let mut offers: Vec<Offer> = Vec::new();
        for offer in all.offers {
            if !offers.iter().any(|known| known.command == offer.command) && offers.len() < MOST {
                offers.push(offer);
            }
        }
        (all.causes, offers)
    }

    /// A job of ours held its container shortly before.
    fn ours(&self) -> Finding {
        let mut found = Finding::default();
        let Some(container) = &self.checked.rules.container else { return found };
        let began = self.began();
        let near = |held: &&Held| {
            held.container == *container
                && held.since <= self.clock.now()
                && held.until.is_none_or(|until| until >= began - BEFORE)
        };
        if let Some(held) = self.holds.iter().rev().find(near) {
            let evidence = match held.until {
                Some(until) => format!(
                    "run {} of {} had {} {container} from {} to {}, and it has not been well since",
                    held.run,
                    held.job,
                    held.how,
                    clock(held.since),
                    clock(until)
                ),
                None => format!("run {} of {} has {} it since {}", held.run, held.job, held.how, clock(held.since)),
            };
            found.likely(format!("our own job {} {} it, and it did not come back", held.job, held.how), vec![evidence]);
            found.offer(format!("see what {} did", held.job), format!("rusuban log {}", held.run));
        }
        found
    }

    fn certificate(&self) -> Finding {
        let mut found = Finding::default();
        let verdict = &self.checked.verdict;
        if verdict.state == State::CertificateBad || verdict.trouble == Some(Trouble::Certificate) {
            let mut evidence = vec![verdict.what.clone()];
            if let Some(certificate) = &verdict.certificate {
                let (ends, now) = (certificate.ends, self.clock.now());
                let word = if ends < now { "ended" } else { "ends" };
                evidence.push(format!("it {word} at {} ({})", ends.format("%Y-%m-%d %H:%M:%SZ"), text::ago(ends, now)));
                evidence.extend(certificate.distrust.clone());
            }
            let expired = verdict.certificate.as_ref().is_some_and(|one| one.ends < self.clock.now());
            found
                .certain(if expired { "its certificate has expired" } else { "its certificate is not good" }, evidence);
        }
        found
    }

    /// What a dynamic-dns job changed shortly before.
    async fn dns_change(&self, host: &str) -> Option<String> {
        let facts = self.store.facts(DNS).await.ok()?;
        let lately = self.began() - TimeDelta::hours(1);
        let changes = facts.into_iter().filter_map(|(job, memory)| Some((job, changed_in(&memory, host)?)));
        let (job, (at, to)) = changes.filter(|(_, (at, _))| *at >= lately).max_by_key(|(_, (at, _))| *at)?;
        Some(format!("the job {job} made {to} its address at {}", clock(at)))
    }

    /// A disk that is full: our own, and the engine's.
    async fn disks(&self) -> Finding {
        let services = self.from.services;
        let mut places = vec![("Rusuban's data", services.store.parent().unwrap_or(Path::new("/")).to_owned())];
        if self.checked.rules.container.is_some()
            && let Ok(engine) = services.docker.connect().await
            && engine.is_local()
            && let Ok(info) = engine.info().await
            && let Some(root) = info["DockerRootDir"].as_str()
        {
            places.push(("Docker's images and containers", root.into()));
        }
        let looked = tokio::task::spawn_blocking(move || {
            places.into_iter().filter_map(|(what, place)| Some((what, full(&place)?, place))).collect::<Vec<_>>()
        });
        let mut found = Finding::default();
        for (what, evidence, place) in looked.await.unwrap_or_default() {
            found.likely(format!("the disk of {what} is full"), vec![format!("{}: {evidence}", place.display())]);
            found
                .offer("see what takes the room", format!("du -xh --max-depth=2 {} | sort -h | tail", place.display()));
        }
        found
    }

    /// Where the name points, and where it pointed when it was well; what dynamic DNS did to it.
    async fn name(&self) -> Finding {
        let mut found = Finding::default();
        let Some(host) = &self.checked.rules.host else { return found };
        let is_silent = matches!(
            self.checked.verdict.trouble,
            Some(
                Trouble::Name
                    | Trouble::Refused
                    | Trouble::Unreachable
                    | Trouble::TimedOut
                    | Trouble::Broken
                    | Trouble::Tls
                    | Trouble::Certificate
                    | Trouble::Content
                    | Trouble::Status(_)
            )
        );
        if !is_silent || host.parse::<IpAddr>().is_ok() {
            return found;
        }
        let changed = self.dns_change(host).await;
        let known = self.before.and_then(|before| before.address);
        let now: Result<Vec<IpAddr>, String> = match tokio::net::lookup_host((host.as_str(), 0)).await {
            Ok(all) => Ok(all.map(|address| address.ip()).collect()),
            Err(error) => Err(error.to_string()),
        };
        match (now, known) {
            (Err(why), _) => {
                let mut evidence = vec![format!("asked just now: {why}")];
                evidence.extend(known.map(|known| format!("when it was well it was {known}")));
                evidence.extend(changed);
                found.certain(format!("the name {host} has no address"), evidence);
            }
            (Ok(all), Some(known)) if !all.is_empty() && !all.contains(&known) => {
                let addresses: Vec<String> = all.iter().map(ToString::to_string).collect();
                let mut evidence = vec![format!("it points to {} now, and was well at {known}", addresses.join(", "))];
                evidence.extend(changed);
                found.likely(format!("the name {host} points elsewhere than when it was well"), evidence);
            }
            (Ok(_), _) => {
                if let Some(changed) = changed {
                    found.likely(
                        format!("the address of {host} has just changed, and not everybody knows it yet"),
                        vec![changed],
                    );
                }
            }
        }
        found
    }
}

/// What `dynamic-dns` remembers under this key: its hosts by name, and of each when its address became another.
const DNS: &str = "address";

/// When and to what a host's address was changed, by what a `dynamic-dns` job remembers.
fn changed_in(memory: &serde_json::Value, host: &str) -> Option<(DateTime<Utc>, String)> {
    let of_host = memory["hosts"].as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(host))?.1;
    let each = [&of_host["ipv4"], &of_host["ipv6"]].into_iter();
    let read =
        |told: &serde_json::Value| Some((told["since"].as_str()?.parse().ok()?, told["address"].as_str()?.to_owned()));
    each.filter_map(read).max_by_key(|(since, _)| *since)
}

async fn in_time(finding: impl Future<Output = Finding>) -> Finding {
    tokio::time::timeout(LONGEST, finding).await.unwrap_or_default()
}

/// How full a disk is, if it is.
fn full(place: &Path) -> Option<String> {
    let disk = rustix::fs::statvfs(place).ok()?;
    let (free, all) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
    let is_full = all > 0 && (free < all / 1000 * FULL.0 || free < FULL.1.min(all / 20));
    if is_full {
        return Some(format!("{} free of {}", text::size(free), text::size(all)));
    }
    // File systems without a fixed number of them say 0.
    (disk.f_files > 0 && disk.f_favail == 0).then(|| format!("no inode is free of {}", disk.f_files))
}

/// Where the container answers within the house, if it does.
pub(super) async fn inside(container: &Container) -> Option<String> {
    let ports = container.raw()["Config"]["ExposedPorts"].as_object()?;
    for port in ports.keys().filter_map(|port| port.strip_suffix("/tcp")).take(5) {
        for address in swap::addresses(container).iter().take(3) {
            let at = format!("{address}:{port}");
            let knock = tokio::time::timeout(Duration::from_secs(1), tokio::net::TcpStream::connect(&at));
            if matches!(knock.await, Ok(Ok(_))) {
                return Some(at);
            }
        }
    }
    None
}

/// Whether what was looked at is far away.
pub(super) fn is_far(checked: &Checked) -> bool {
    line::may_be_ours(&checked.verdict) && checked.rules.host.is_some()
}
