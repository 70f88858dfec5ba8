//! `site-check`: looks at sites and services, each for itself, and hands on what it found.
//!
//! A run that could look has succeeded, whatever it saw: what it saw are the sites' states, not the job's.
mod demands;
mod keys;
mod making;
mod parents;
mod plan;
mod wanted;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use schemars::JsonSchema as _;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use self::{
    keys::SiteKeys,
    plan::{Plan, Planned},
};
use super::{Cx, Kind, KindEntry, Site, Summary};
use crate::{
    check::{Looking, Past, Tls},
    config::{mistake::Problem, secret::SecretSource, units::Span},
    docker::{Access, access},
    model::{
        Level,
        watch::{Checked, Rules, State, Verdict},
    },
    policy::MissedPolicy,
    text,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "site-check",
    summary: "Looks whether sites, ports, names, certificates and containers are as they should be",
    example: include_str!("../../jobs/site-check.toml"),
    parse: super::read::<SiteCheck>,
    schema: SiteKeys::json_schema,
    // Nobody can look into the past.
    missed: MissedPolicy::Skip,
    class: "watch",
    timeout: Some(Span::seconds(15 * 60)),
};

/// So many looks are under way at once.
const AT_ONCE: usize = 500;
/// Without a word looks begin so far apart, so that many of them are no burst.
const APART: Duration = Duration::from_millis(5);
/// What was found is handed on after so long, so that the last site's slowness does not delay what is known of the first.
const HAND_ON: Duration = Duration::from_secs(1);
/// Jobs of few sites tell of each in the log.
const FEW: usize = 10;
/// More changes than these are not told one by one.
const MOST_LINES: usize = 200;
/// Looks that begin so late are worth a word.
const LATE: Duration = Duration::from_secs(10);
/// The key of what earlier looks saw.
const PAST: &str = "looks";

/// The sites of a job.
#[derive(Debug)]
pub struct SiteCheck {
    sites: Arc<[Planned]>,
    spread: Duration,
    secrets: Vec<SecretSource>,
    problems: Vec<Problem>,
    tls: OnceLock<Arc<Tls>>,
}

impl<'de> serde::Deserialize<'de> for SiteCheck {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = SiteKeys::deserialize(deserializer)?;
        let spread = keys.spread.map(|spread| spread.0);
        let Plan { sites, secrets, problems } = Plan::of(keys);
        let most = APART.saturating_mul(u32::try_from(sites.len()).unwrap_or(u32::MAX));
        Ok(Self { sites: sites.into(), spread: spread.unwrap_or(most), secrets, problems, tls: OnceLock::new() })
    }
}

#[async_trait]
impl Kind for SiteCheck {
    fn check(&self, _: &Site) -> Vec<Problem> {
        self.problems.clone()
    }

    fn secrets(&self) -> Vec<SecretSource> {
        self.secrets.clone()
    }

    fn engine(&self) -> Vec<Access> {
        if self.asks_docker() { vec![access::VERSION, access::CONTAINER] } else { Vec::new() }
    }

    fn watches(&self) -> Vec<(String, Rules)> {
        self.sites.iter().map(|site| (site.label.clone(), site.rules.clone())).collect()
    }

    async fn look(&self, cx: &Cx, checks: &[String]) -> anyhow::Result<Vec<Checked>> {
        let looking = self.looking(cx).await?;
        let mut found = Vec::new();
        for (index, site) in self.sites.iter().enumerate().filter(|(_, site)| checks.contains(&site.label)) {
            let at = cx.clock.now();
            let verdict = site.check.look(&looking).await;
            found.push(self.checked(cx, index, at, verdict));
        }
        Ok(found)
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let looking = Arc::new(self.looking(cx).await?);
        let before = looking.past().clone();
        let mut tally = Tally::default();
        let done = self.look_at_all(cx, &looking, &mut tally).await;
        // What was learnt is kept even when we were asked to stop.
        let after = looking.past().clone();
        if after != before {
            cx.record.remember(PAST, serde_json::to_value(after)?).await?;
        }
        done?;
        if tally.latest > LATE {
            cx.warn(format!(
                "the last look began {} later than planned: no more than {AT_ONCE} are under way at once",
                text::duration(tally.latest)
            ));
        }
        Ok(tally.summary(&self.sites))
    }
}

impl SiteCheck {
    fn asks_docker(&self) -> bool {
        self.sites.iter().any(|site| matches!(site.check, crate::check::Check::Container(_)))
    }

    async fn looking(&self, cx: &Cx) -> anyhow::Result<Looking> {
        let tls = match self.tls.get() {
            Some(tls) => Arc::clone(tls),
            None => {
                let tls = Tls::ready().context("set up TLS")?;
                Arc::clone(self.tls.get_or_init(|| tls))
            }
        };
        let docker =
            if self.asks_docker() { Some(cx.engine().await.map_err(|error| format!("{error:#}"))) } else { None };
        let past = match cx.record.fact(PAST).await?.map(serde_json::from_value::<Past>) {
            None => Past::default(),
            Some(Ok(past)) => past,
            Some(Err(error)) => {
                cx.warn(format!("what earlier looks saw cannot be read, and is forgotten: {error}"));
                Past::default()
            }
        };
        Ok(Looking::new(cx.clock.clone(), cx.services.secrets.clone(), cx.services.home.clone(), docker, tls, past))
    }

    /// Begins a look at each site at its place in the spread, and hands on what they find.
    async fn look_at_all(&self, cx: &Cx, looking: &Arc<Looking>, tally: &mut Tally) -> anyhow::Result<()> {
        let (begun, room) = (Instant::now(), Arc::new(Semaphore::new(AT_ONCE)));
        let count = u32::try_from(self.sites.len()).unwrap_or(u32::MAX).max(1);
        let mut looks = JoinSet::new();
        let mut found: Vec<Checked> = Vec::new();
        let mut handed_on = begun;
        let mut next = 0;
        while next < self.sites.len() || !looks.is_empty() {
            // Each site has its own place, the same in each run: so the time between its looks stays even.
            let place = self.spread.as_secs_f64() * next as f64 / f64::from(count);
            let due = begun + Duration::from_secs_f64(place);
            tokio::select! {
                () = cx.cancelled.cancelled() => {
                    looks.abort_all();
                    self.hand_on(cx, &mut found, tally).await?;
                    bail!("asked to stop after {} of {}", tally.looked, text::count(self.sites.len(), "look"));
                }
                Some(look) = looks.join_next(), if !looks.is_empty() => {
                    let (index, at, verdict) = look.context("a look ended before its time")?;
                    found.push(self.checked(cx, index, at, verdict));
                }
                turn = wait_for_turn(due, &room), if next < self.sites.len() => {
                    let Some(turn) = turn else { continue };
                    tally.latest = tally.latest.max(Instant::now().saturating_duration_since(due));
                    let (sites, looking, index, at) = (Arc::clone(&self.sites), Arc::clone(looking), next, cx.clock.now());
                    looks.spawn(async move {
                        let verdict = sites[index].check.look(&looking).await;
                        drop(turn);
                        (index, at, verdict)
                    });
                    next += 1;
                }
            }
            if handed_on.elapsed() >= HAND_ON && !found.is_empty() {
                self.hand_on(cx, &mut found, tally).await?;
                handed_on = Instant::now();
            }
        }
        self.hand_on(cx, &mut found, tally).await
    }

    fn checked(&self, cx: &Cx, index: usize, at: chrono::DateTime<chrono::Utc>, mut verdict: Verdict) -> Checked {
        let site = &self.sites[index];
        verdict.what = cx.services.redactor.clean(&verdict.what);
        Checked { check: site.label.clone(), at, verdict, rules: site.rules.clone() }
    }

    async fn hand_on(&self, cx: &Cx, found: &mut Vec<Checked>, tally: &mut Tally) -> anyhow::Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        for one in found.iter() {
            if self.sites.len() <= FEW && one.verdict.state == State::Up {
                cx.record.line(Level::Output, &format!("{}: {}", one.check, one.verdict.what));
            }
            tally.add(one);
        }
        let changes = cx.record.checked(std::mem::take(found)).await.context("hand on what was found")?;
        for line in changes {
            tally.changes += 1;
            if tally.changes <= MOST_LINES {
                cx.info(line);
            } else if tally.changes == MOST_LINES + 1 {
                cx.info("… and more changes, which are not told one by one");
            }
        }
        Ok(())
    }
}

/// A turn once it is due and there is room.
async fn wait_for_turn(due: Instant, room: &Arc<Semaphore>) -> Option<tokio::sync::OwnedSemaphorePermit> {
    if due > Instant::now() {
        sleep_until(due).await;
    }
    Arc::clone(room).acquire_owned().await.ok()
}

/// What a run saw.
#[derive(Debug, Default)]
struct Tally {
    looked: usize,
    changes: usize,
    latest: Duration,
    /// The last verdict, for jobs of one site.
    what: String,
    /// Labels by state, a few of each.
    other: BTreeMap<&'static str, (usize, Vec<String>)>,
}

impl Tally {
    fn add(&mut self, found: &Checked) {
        self.looked += 1;
        self.what.clone_from(&found.verdict.what);
        if found.verdict.state == State::Up {
            return;
        }
        let (count, labels) = self.other.entry(found.verdict.state.word()).or_default();
        *count += 1;
        if labels.len() < 5 {
            labels.push(found.check.clone());
        }
    }

    fn summary(&self, sites: &[Planned]) -> String {
        if let [only] = sites {
            let state = self.other.keys().next().map_or("up", |word| word).replace('_', " ");
            return format!("{} is {state}: {}", only.label, self.what);
        }
        let wrong: usize = self.other.values().map(|(count, _)| count).sum();
        if wrong == 0 {
            return format!("{} are up", text::count(self.looked, "site"));
        }
        let all = self.other.iter().map(|(word, (count, labels))| {
            let more =
                if *count > labels.len() { format!(" and {} more", count - labels.len()) } else { String::new() };
            format!("{count} {}: {}{more}", word.replace('_', " "), labels.join(", "))
        });
        format!("{}; {} of {} are up", all.collect::<Vec<_>>().join("; "), self.looked - wrong, self.looked)
    }
}
