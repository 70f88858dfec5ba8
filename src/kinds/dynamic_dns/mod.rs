//! `dynamic-dns`: records that follow this host's address. A run looks what the address is; somebody is told only when it must be.
//!
//! What is remembered between runs, and in which form, is in [`memory`].
mod keys;
pub mod memory;
mod seal;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use schemars::JsonSchema;

use self::memory::{KEY, LIFTED, Memory, OfHost, Stopped, Todo};
pub use self::{keys::DynamicDns, memory::Told};
use super::{Cx, Kind, KindEntry, Site, Summary};
use crate::{
    config::{mistake::Problem, secret::SecretSource, units::Span},
    dyndns::{
        Addresses, Answer, End, Family, Line, Lines, Wanted,
        address::with_suffix,
        own::Around,
        record::{self, Look},
    },
    model::news::{Event, Severity},
    policy::MissedPolicy,
    process::Tree,
    text,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "dynamic-dns",
    summary: "Keeps the names of this host pointing to its address, which changes",
    example: include_str!("../../../jobs/dynamic-dns.toml"),
    parse: super::read::<DynamicDns>,
    schema: DynamicDns::json_schema,
    missed: MissedPolicy::Latest,
    class: "network",
    timeout: Some(Span::seconds(5 * 60)),
};

/// A record that still says something else so long after it was told is a failure.
const SOON: TimeDelta = TimeDelta::hours(1);

/// What a run has found so far.
#[derive(Default)]
struct Tally {
    /// Lines about what is well.
    done: Vec<String>,
    /// A line for each thing that is not.
    failures: Vec<String>,
}

#[async_trait]
impl Kind for DynamicDns {
    fn check(&self, _: &Site) -> Vec<Problem> {
        self.problems()
    }

    fn locks(&self) -> Vec<String> {
        self.host.iter().map(|host| format!("dns:{}", host.name.to_lowercase())).collect()
    }

    fn secrets(&self) -> Vec<SecretSource> {
        self.provider.provider().secrets()
    }

    fn dns_hosts(&self) -> Vec<String> {
        self.host.iter().map(|host| host.name.clone()).collect()
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let mut memory = recall(cx).await?;
        self.lift(cx, &mut memory).await?;
        self.provider.provider().name().clone_into(&mut memory.provider);
        let [known, salt] = &memory.settings;
        if known.is_empty() || *known != seal::quick(&self.provider, salt) {
            memory.begin_anew();
            let salt = seal::salt()?;
            memory.settings = [seal::quick(&self.provider, &salt), salt];
        }
        let names = self.dns_hosts();
        memory.hosts.retain(|name, _| names.contains(name));
        let lines = Lines::new(cx.services.http.clone(), self.patience.0);
        let mut tally = Tally::default();

        let own = self.look(cx, &lines, &mut tally).await?;
        if let Some(before) = memory.found(own, cx.clock.now()) {
            cx.info(format!("this host's address is {} now; it was {before}", memory.own));
            // One that was not told yet has no older one that anybody knows.
            memory.untold.get_or_insert(before);
        }
        self.settle_cut_off(cx, &mut memory).await?;
        let told = self.tell(cx, &lines, &mut memory, own, &mut tally).await?;
        self.verify(cx, &mut memory, &mut tally).await?;
        if tally.failures.is_empty()
            && let Some(before) = memory.untold.take()
        {
            tell_of_change(cx, before, &memory);
        }
        cx.record.remember(KEY, serde_json::to_value(&memory)?).await?;

        if !tally.failures.is_empty() {
            let bad = tally.failures.len();
            let head = if bad > 1 { format!("{}: ", text::count(bad, "failure")) } else { String::new() };
            bail!("{head}{}", tally.failures.join("; "));
        }
        if told == 0 && tally.done.is_empty() {
            let since = memory.hosts.values().flat_map(OfHost::each).map(|told| told.since).max();
            let since = since.map_or_else(String::new, |since| format!(", since {}", text::ago(since, cx.clock.now())));
            return Ok(format!("{} as before{since}; nobody was told", memory.own));
        }
        Ok(tally.done.join("; "))
    }
}

/// What earlier runs remembered.
async fn recall(cx: &Cx) -> anyhow::Result<Memory> {
    let Some(value) = cx.record.fact(KEY).await? else { return Ok(Memory::default()) };
    match serde_json::from_value::<Memory>(value) {
        Ok(memory) => Ok(memory.tidied(cx.clock.now())),
        // To begin anew would forget that somebody may not be told.
        Err(error) => bail!(
            "what earlier runs remembered cannot be read ({error}), and nobody is told of anything without it: `rusuban dns \
             unblock {} --forget` begins anew",
            cx.job
        ),
    }
}

/// This host's address is another, which is news once the run has ended well: a run that has not is told of as a failure.
fn tell_of_change(cx: &Cx, before: Addresses, memory: &Memory) {
    let now = memory.own;
    let lines = memory.hosts.iter().map(|(name, host)| {
        let has: Addresses = host.each().map(|told| told.address).collect();
        format!("{name}: {} has {has}", memory.provider)
    });
    cx.record.tell(super::Told {
        event: Event::Changed,
        severity: Severity::Info,
        what: format!("this host's address is {now} now; it was {before}"),
        lines: lines.collect(),
    });
}

impl DynamicDns {
    /// This host's own addresses. What cannot be found out is a failure of the run, and keeps nobody from the other family.
    async fn look(&self, cx: &Cx, lines: &Lines, tally: &mut Tally) -> anyhow::Result<Addresses> {
        let around = Around {
            folder: cx.services.home.clone(),
            tree: Tree::new(&cx.services.home, cx.run),
            cancelled: cx.cancelled.clone(),
        };
        let all_have_suffixes = self.host.iter().all(|host| host.suffix.is_some());
        let looks = self.families().map(|family| {
            let around = &around;
            async move {
                let network_only = family == Family::Ipv6 && all_have_suffixes;
                (family, self.address.find(family, lines, around, network_only).await)
            }
        });
        let found = cx
            .step("look for the address", async {
                tokio::select! {
                    found = join_all(looks) => Ok(found),
                    () = cx.cancelled.cancelled() => bail!("asked to stop before the address was known"),
                }
            })
            .await?;
        let mut own = Addresses::default();
        for (family, address) in found {
            match address {
                Ok(address) => own.set(address),
                Err(why) => tally.failures.push(format!("{family}: {why}")),
            }
        }
        Ok(own)
    }

    /// What a host should have.
    fn wanted(&self, own: Addresses, name: &str) -> Addresses {
        let suffix = self.host.iter().find(|host| host.name == name).and_then(|host| host.suffix);
        own.each()
            .map(|address| match (address, suffix) {
                (IpAddr::V6(network), Some(suffix)) => IpAddr::V6(with_suffix(network, suffix.0)),
                (address, _) => address,
            })
            .collect()
    }

    /// Stops that a person has lifted, or whose settings are no longer the same, are over.
    async fn lift(&self, cx: &Cx, memory: &mut Memory) -> anyhow::Result<()> {
        let lifted: Vec<String> = match cx.record.fact(LIFTED).await? {
            Some(value) => serde_json::from_value(value).context("read which stops were lifted")?,
            None => Vec::new(),
        };
        let Memory { stopped, hosts, .. } = memory;
        let mut places: Vec<(String, &mut Option<Stopped>)> = vec![("all hosts".to_owned(), stopped)];
        places.extend(hosts.iter_mut().map(|(name, host)| (name.clone(), &mut host.stopped)));
        for (who, place) in places {
            let Some(stop) = place else { continue };
            if lifted.contains(&stop.id) {
                cx.info(format!("{who}: the stop was lifted by hand ({})", stop.why));
                *place = None;
                continue;
            }
            match seal::digest(&self.provider, &stop.id, &cx.services.secrets).await {
                Ok(digest) if digest != stop.settings => {
                    cx.info(format!("{who}: the settings have changed since the stop, so it is over ({})", stop.why));
                    *place = None;
                }
                Ok(_) => {}
                Err(error) => cx.warn(format!("{who}: whether the settings have changed is not known: {error:#}")),
            }
        }
        Ok(())
    }

    /// Requests whose answers were never written down: where the record shows that one was taken, it need not be sent again.
    async fn settle_cut_off(&self, cx: &Cx, memory: &mut Memory) -> anyhow::Result<()> {
        let now = cx.clock.now();
        for (name, host) in &mut memory.hosts {
            let Some(sending) = host.sending.clone() else { continue };
            cx.warn(format!(
                "{name}: a request of {} was cut off before its answer was written down",
                text::ago(sending.at, now)
            ));
            if !self.verify {
                host.is_unsure_of(sending.addresses);
                continue;
            }
            let looks = sending.addresses.each().map(|address| record::look(name, address, self.resolver()));
            let looks = tokio::select! {
                looks = join_all(looks) => looks,
                () = cx.cancelled.cancelled() => bail!("asked to stop while looking at the record of {name}"),
            };
            if !looks.is_empty() && looks.iter().all(|look| matches!(look, Look::Right { .. })) {
                cx.info(format!("{name}: it was taken, the record says {}", sending.addresses));
                sending.addresses.each().for_each(|address| host.has(address, sending.at, true));
                (host.sending, host.tries) = (None, 0);
            } else {
                host.is_unsure_of(sending.addresses);
            }
        }
        Ok(())
    }

    fn resolver(&self) -> Option<std::net::SocketAddr> {
        self.resolver.as_deref().and_then(record::resolver)
    }

    /// Tells the provider what it must be told; how many hosts that were.
    async fn tell(
        &self,
        cx: &Cx,
        lines: &Lines,
        memory: &mut Memory,
        own: Addresses,
        tally: &mut Tally,
    ) -> anyhow::Result<usize> {
        let provider = self.provider.provider();
        let refresh = self.refresh.map_or(provider.refresh().usual, |refresh| refresh.0);
        let now = cx.clock.now();
        let (mut due, mut reasons) = (Vec::new(), Vec::new());
        for host in &self.host {
            let addresses = self.wanted(own, &host.name);
            let kept = memory.hosts.entry(host.name.clone()).or_default();
            let todo = match &memory.stopped {
                Some(Stopped { why, mend, .. }) => Todo::Stopped { why: why.clone(), mend: mend.clone() },
                None => kept.todo(addresses, refresh, now),
            };
            match todo {
                Todo::Nothing => {}
                Todo::Wait { until, why } => tally.failures.push(format!(
                    "{}: {why}; it is told again {}, not before",
                    host.name,
                    text::ago(until, now)
                )),
                Todo::Stopped { why, mend } => tally.failures.push(format!(
                    "{}: {why}; nothing is sent until that is mended: {mend}. It goes on by itself when the job's settings \
                     change, or with `rusuban dns unblock {}`",
                    host.name, cx.job
                )),
                Todo::Tell { due: families, why } => {
                    due.push(Wanted { host: host.name.clone(), addresses, due: families });
                    reasons.push(why);
                }
            }
        }
        if due.is_empty() {
            return Ok(0);
        }
        // Written before it is sent: whatever dies in between, it counts as sent.
        for wanted in &due {
            memory.hosts.entry(wanted.host.clone()).or_default().sends(wanted.due, now);
        }
        cx.record.remember(KEY, serde_json::to_value(&*memory)?).await?;
        let line = Line { lines, secrets: &cx.services.secrets, now };
        let answers = cx
            .step(&format!("tell {}", provider.name()), async {
                tokio::select! {
                    answers = provider.tell(&line, &due) => Ok(answers),
                    () = cx.cancelled.cancelled() => bail!(
                        "asked to stop before {} answered: whether it took {} is not known, and the next run looks",
                        provider.name(),
                        memory.own
                    ),
                }
            })
            .await?;
        let now = cx.clock.now();
        for ((wanted, why), answer) in due.iter().zip(reasons).zip(answers) {
            self.note(cx, memory, wanted, &answer, now).await?;
            let host = memory.hosts.entry(wanted.host.clone()).or_default();
            host.next = host
                .each()
                .map(|told| told.told_at)
                .min()
                .and_then(|oldest| Some(oldest + TimeDelta::from_std(refresh).ok()?));
            let name = &wanted.host;
            match answer.end {
                End::Taken { had_it, .. } => {
                    let known = if had_it { ", and had it already" } else { "" };
                    let line = format!("{name}: {} was told {}{}{known}", provider.name(), wanted.due, why.in_words(now));
                    cx.info(&line);
                    tally.done.push(line);
                }
                End::Stop { why, mend, .. } => tally.failures.push(format!(
                    "{name}: {why}; nothing more is sent until that is mended: {mend}. It goes on by itself when the job's settings \
                     change, or with `rusuban dns unblock {}`",
                    cx.job
                )),
                End::Later { why, .. } | End::Unknown { why } => {
                    let until = host.wait.as_ref().map_or(now, |wait| wait.until);
                    tally.failures.push(format!("{name}: {why}; it is told again {}, not before", text::ago(until, now)));
                }
                End::NotSent { why } => {
                    tally.failures.push(format!("{name}: {why}; nothing was sent, and the next run tries again"));
                }
            }
        }
        cx.record.remember(KEY, serde_json::to_value(&*memory)?).await?;
        Ok(due.len())
    }

    /// Takes an answer into what is remembered.
    async fn note(
        &self,
        cx: &Cx,
        memory: &mut Memory,
        wanted: &Wanted,
        answer: &Answer,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        if !answer.taken.is_empty() {
            memory.told_at = Some(now);
        }
        let host = memory.hosts.entry(wanted.host.clone()).or_default();
        host.answered(answer, now);
        let End::Stop { all, why, mend } = &answer.end else { return Ok(()) };
        let id = seal::salt()?;
        // It was read a moment ago. Without it the stop is lifted by hand, or when it can be read again.
        let settings = seal::digest(&self.provider, &id, &cx.services.secrets).await.unwrap_or_default();
        let stop = Stopped { id, at: now, why: why.clone(), mend: mend.clone(), settings };
        if *all {
            memory.stopped.get_or_insert(stop);
        } else {
            host.stopped = Some(stop);
        }
        Ok(())
    }

    /// Asks whether the records say what was told, as long as they have not been seen to.
    async fn verify(&self, cx: &Cx, memory: &mut Memory, tally: &mut Tally) -> anyhow::Result<()> {
        if !self.verify {
            return Ok(());
        }
        let now = cx.clock.now();
        let mut unseen: Vec<(String, IpAddr, DateTime<Utc>)> = Vec::new();
        for (name, host) in &memory.hosts {
            for told in host
                .each()
                .filter(|told| told.seen_at.is_none() && self.families().any(|one| one == Family::of(told.address)))
            {
                unseen.push((name.clone(), told.address, told.since));
            }
        }
        if unseen.is_empty() {
            return Ok(());
        }
        let resolver = self.resolver();
        let looks = unseen.into_iter().map(|(name, address, since)| async move {
            // Right after it was told it may take a moment; later runs only look.
            let patience = if now - since < TimeDelta::minutes(1) { self.verify_within.0 } else { Duration::ZERO };
            let look = record::watch(&name, address, resolver, patience).await;
            (name, address, since, look)
        });
        let found = cx
            .step("look at the records", async {
                tokio::select! {
                    found = join_all(looks) => Ok(found),
                    () = cx.cancelled.cancelled() => bail!("asked to stop while looking at the records"),
                }
            })
            .await;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                cx.record.remember(KEY, serde_json::to_value(&*memory)?).await?;
                return Err(error);
            }
        };
        let now = cx.clock.now();
        for (name, address, since, look) in found {
            match look {
                Look::Right { server } => {
                    let line = format!("{name}: the record says {address} (asked {server})");
                    cx.info(&line);
                    tally.done.push(line);
                    if let Some(told) = memory.hosts.entry(name).or_default().told_mut(Family::of(address)) {
                        told.seen_at = Some(now);
                    }
                }
                Look::Other { why, .. } if now - since >= SOON => {
                    tally.failures.push(format!("{name}: {address} was taken {}, and {why}", text::ago(since, now)))
                }
                Look::Other { why, ttl } => {
                    let ttl = ttl.map_or_else(String::new, |ttl| format!(" (it may be remembered for {ttl} s)"));
                    let line = format!("{name}: {address} was taken, but {why}{ttl}; the next run looks again");
                    cx.warn(&line);
                    tally.done.push(line);
                }
                Look::Unknown { why } => {
                    let line = format!("{name}: {address} was taken, but the record could not be looked at: {why}");
                    cx.warn(&line);
                    tally.done.push(line);
                }
            }
        }
        Ok(())
    }
}

/// The stops among what is remembered: of all hosts (without a name) and of each.
#[must_use]
pub fn stops(memory: &Memory) -> BTreeMap<Option<&str>, &Stopped> {
    let all = memory.stopped.iter().map(|stop| (None, stop));
    let of_hosts = memory.hosts.iter().filter_map(|(name, host)| Some((Some(name.as_str()), host.stopped.as_ref()?)));
    all.chain(of_hosts).collect()
}
