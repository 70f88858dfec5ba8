//! `mirror`: the backups of a repository or of a bucket, copied to a second place, with its own generations.
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Cx, Kind, KindEntry, LOCK_PATIENCE, Site, Summary,
    generations::{self, Kept},
    listening::Listening,
};
use crate::{
    bucket::Bucket,
    config::{mistake::Problem, units::Span},
    model::JobName,
    plain::{self, Manifest, Writer},
    policy::MissedPolicy,
    repository::{CopySetting, Id, Snapshot},
    retention::{Keep, Rotation, Rule, decide},
    text,
    tree::Listener,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "mirror",
    summary: "Copies backups to a second bucket or repository, outside the house for example",
    example: include_str!("../../jobs/mirror.toml"),
    parse: super::read::<Mirror>,
    schema: Mirror::json_schema,
    missed: MissedPolicy::Latest,
    class: "network",
    timeout: Some(Span::hours(48)),
};

/// Backups, copied to a second place.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Where the backups are.
    pub from: Place,
    /// Where to: a repository if `from` is one, a bucket if `from` is one.
    pub to: Place,
    /// Only backups of these jobs [default: all].
    #[serde(default)]
    pub jobs: Vec<JobName>,
    /// How many generations of each age stay there, of each job; what would not stay is not copied [default: all of them].
    #[serde(default)]
    pub keep: Option<Keep>,
    /// Instead of `keep`: slots that are written again and again.
    #[serde(default)]
    pub rotation: Option<Rotation>,
}

/// Where backups are: exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A bucket of rusuban.toml, with backups in the plain layout.
    Bucket(String),
    /// A repository of rusuban.toml.
    Repository(String),
}

/// What became of it.
#[derive(Default)]
struct Told {
    copied: usize,
    there: usize,
    bytes: u64,
    /// Backups that could not be copied.
    failed: usize,
    /// Jobs that the source has something of.
    jobs: HashSet<JobName>,
    generations: Vec<String>,
}

#[async_trait]
impl Kind for Mirror {
    fn check(&self, site: &Site) -> Vec<Problem> {
        let mut problems = generations::problems(self.keep, self.rotation);
        for (key, place) in [("from", &self.from), ("to", &self.to)] {
            problems.extend(match place {
                Place::Bucket(name) => site.knows_bucket(&format!("{key}.bucket"), name),
                Place::Repository(name) => site.knows_repository(&format!("{key}.repository"), name),
            });
        }
        if self.from == self.to {
            problems.push(Problem::new("to", "this is where the backups are already").hint("name another place"));
        }
        if let (Place::Bucket(_), Place::Repository(_)) | (Place::Repository(_), Place::Bucket(_)) =
            (&self.from, &self.to)
        {
            problems.push(
                Problem::new("to", "a mirror copies from bucket to bucket, or from repository to repository")
                    .hint("each keeps backups in its own way; to have them in both, write a second `backup` job"),
            );
        }
        problems
    }

    fn bucket(&self) -> Option<&str> {
        match &self.to {
            Place::Bucket(name) => Some(name),
            Place::Repository(_) => None,
        }
    }

    fn locks(&self) -> Vec<String> {
        let (Place::Bucket(to) | Place::Repository(to)) = &self.to;
        vec![format!("mirror:{to}")]
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let mut told = Told::default();
        match (&self.from, &self.to) {
            (Place::Repository(from), Place::Repository(to)) => self.repositories(cx, from, to, &mut told).await?,
            (Place::Bucket(from), Place::Bucket(to)) => self.buckets(cx, from, to, &mut told).await?,
            _ => bail!("a mirror copies from bucket to bucket, or from repository to repository"),
        }
        let summary = format!(
            "{} copied, {}, read back; {} there already",
            text::count(told.copied, "backup"),
            text::size(told.bytes),
            told.there
        );
        if told.failed > 0 {
            bail!("{} could not be copied: look at the log; {summary}", text::count(told.failed, "backup"));
        }
        if told.copied + told.there == 0 {
            bail!("there is no backup to copy: {}", self.wanted());
        }
        for job in self.jobs.iter().filter(|job| !told.jobs.contains(*job)) {
            cx.warn(format!("the source has no backup of {job}: nothing of it is copied"));
        }
        Ok([vec![summary], told.generations].concat().join("; "))
    }
}

impl Mirror {
    fn rule(&self) -> Rule {
        generations::rule(self.keep, self.rotation)
    }

    fn wanted(&self) -> String {
        match self.jobs.as_slice() {
            [] => "the source is empty".to_owned(),
            jobs => {
                format!("the source has none of {}", jobs.iter().map(JobName::as_str).collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn wants(&self, job: Option<&JobName>) -> bool {
        self.jobs.is_empty() || job.is_some_and(|job| self.jobs.contains(job))
    }

    /// Which of those that are at the source only would stay at the destination; the others would be copied only to be
    /// removed, night after night.
    fn worth_copying(&self, cx: &Cx, there: &[Kept], missing: &[Kept]) -> HashSet<String> {
        let mut all: Vec<_> = there.iter().chain(missing).map(Kept::generation).collect();
        all.sort_by_key(|generation| generation.at);
        let decision = decide(&all, self.rule(), cx.services.time_zone, cx.clock.now());
        let mut worth: HashSet<String> = missing.iter().map(|kept| kept.id.clone()).collect();
        if decision.refused.is_none() {
            decision.remove.iter().for_each(|id| {
                worth.remove(id);
            });
        }
        worth
    }

    async fn repositories(&self, cx: &Cx, from: &str, to: &str, told: &mut Told) -> anyhow::Result<()> {
        let from = cx.repository(from)?.open().await?;
        let to = cx.repository(to)?.open().await?;
        let (snapshots, damaged) = from.snapshots().await?;
        for damaged in &damaged {
            cx.warn(format!("a backup cannot be read: {damaged}"));
        }
        told.failed += damaged.len();
        let (there, _) = to.snapshots().await?;
        let mut jobs: BTreeMap<Option<JobName>, Vec<(Id, Snapshot)>> = BTreeMap::new();
        for (id, snapshot) in snapshots {
            if self.wants(snapshot.job().as_ref()) {
                jobs.entry(snapshot.job()).or_default().push((id, snapshot));
            }
        }
        let listening = Listening::new(cx, "");
        let setting = CopySetting {
            host: crate::model::host_name(),
            patience: LOCK_PATIENCE,
            listener: Arc::clone(&listening) as Arc<dyn Listener>,
            cancelled: cx.cancelled.clone(),
        };
        told.jobs = jobs.keys().flatten().cloned().collect();
        for (job, backups) in jobs {
            let name = job.as_ref().map_or("backups of other programs", JobName::as_str);
            listening.begin(name);
            let of_job: Vec<_> = there.iter().filter(|(_, snapshot)| snapshot.job() == job).collect();
            let (known, missing): (Vec<_>, Vec<_>) = backups
                .into_iter()
                .partition(|(_, snapshot)| of_job.iter().any(|(_, other)| snapshot.is_same_as(other)));
            told.there += known.len();
            let mut there: Vec<Kept> = of_job.iter().map(|(id, snapshot)| Kept::of_snapshot(id, snapshot)).collect();
            let copying = async {
                let mut left = missing;
                loop {
                    let kept: Vec<Kept> = left.iter().map(|(id, snapshot)| Kept::of_snapshot(id, snapshot)).collect();
                    // Without a job there are no generations: all of them are wanted.
                    let worth = job.as_ref().map(|_| self.worth_copying(cx, &there, &kept));
                    let is_wanted = |id: &str| worth.as_ref().is_none_or(|worth| worth.contains(id));
                    let (wanted, rest) = left.into_iter().partition(|(id, _)| is_wanted(&id.to_string()));
                    let copied = from.copy_to(&to, wanted, &setting, &cx.clock).await?;
                    told.copied += copied.backups.len();
                    told.bytes += copied.stored.stored;
                    told.failed += copied.damaged.len();
                    for (id, why) in &copied.damaged {
                        cx.warn(format!("backup {} of {name} is damaged and was not copied: {why}", id.short()));
                    }
                    if copied.damaged.is_empty() {
                        return anyhow::Ok(());
                    }
                    // What they would have pushed out stays, and is wanted now.
                    let is_there = |kept: &Kept| copied.backups.iter().any(|(id, _)| id.to_string() == kept.id);
                    there.extend(kept.into_iter().filter(is_there));
                    left = rest;
                }
            };
            cx.step(name, copying).await.with_context(|| format!("copy {name}"))?;
            if let Some(job) = job {
                let (now_there, _) = to.snapshots().await?;
                let newest = now_there.iter().rev().find(|(_, snapshot)| snapshot.job().as_ref() == Some(&job));
                if let Some((newest, _)) = newest {
                    let thinned = generations::thin_repository(cx, &to, &job, newest, self.rule()).await;
                    told.generations.push(format!("{job}: {thinned}"));
                }
            }
        }
        Ok(())
    }

    async fn buckets(&self, cx: &Cx, from_name: &str, to_name: &str, told: &mut Told) -> anyhow::Result<()> {
        let (from, to) = (cx.bucket(from_name)?, cx.bucket(to_name)?);
        let folders = from.folders("").await.with_context(|| format!("look into the bucket `{from_name}`"))?;
        let listening = Listening::new(cx, to_name);
        for job in folders.iter().filter_map(|folder| folder.trim_end_matches('/').parse::<JobName>().ok()) {
            if !self.wants(Some(&job)) {
                continue;
            }
            let listing = plain::list(&from, &job).await?;
            for damaged in &listing.damaged {
                cx.warn(format!("a backup cannot be read: {damaged}"));
            }
            told.failed += listing.damaged.len();
            if !listing.backups.is_empty() {
                told.jobs.insert(job.clone());
            }
            let there = plain::list(&to, &job).await?.backups;
            let (known, missing): (Vec<_>, Vec<_>) =
                listing.backups.into_iter().partition(|backup| there.iter().any(|other| other.id == backup.id));
            let kept = |backups: &[Manifest]| backups.iter().map(Kept::of_manifest).collect::<Vec<_>>();
            let worth = self.worth_copying(cx, &kept(&there), &kept(&missing));
            told.there += known.len();
            listening.begin(job.as_str());
            let copying = async {
                for backup in missing.iter().filter(|backup| worth.contains(&backup.id)) {
                    self.copy(cx, &from, &to, backup, &listening, told).await?;
                }
                Ok(())
            };
            cx.step(job.as_str(), copying).await.with_context(|| format!("copy {job}"))?;
            if let Some(newest) = plain::list(&to, &job).await?.backups.last() {
                let thinned = generations::thin_bucket(cx, &to, &job, newest, self.rule()).await;
                told.generations.push(format!("{job}: {thinned}"));
            }
        }
        Ok(())
    }

    async fn copy(
        &self,
        cx: &Cx,
        from: &Arc<dyn Bucket>,
        to: &Arc<dyn Bucket>,
        backup: &Manifest,
        listening: &Arc<Listening>,
        told: &mut Told,
    ) -> anyhow::Result<()> {
        let setting = plain::Setting {
            bucket: Arc::clone(to),
            job: backup.job.clone(),
            at: backup.at,
            options: plain::Options::default(),
            spool: cx.services.spool.clone(),
            watcher: Arc::clone(listening) as Arc<dyn plain::Watcher>,
            cancelled: cx.cancelled.clone(),
        };
        match Writer::copy(from, backup, setting).await {
            Ok(()) => {
                cx.info(format!("copied {}/{}, {}", backup.job, backup.id, text::size(backup.stored_bytes())));
                told.copied += 1;
                told.bytes += backup.stored_bytes();
                Ok(())
            }
            Err(error) if cx.cancelled.is_cancelled() => Err(error),
            Err(error) => {
                // Its own retention may have removed it meanwhile.
                if matches!(from.head(&backup.key()).await, Err(crate::bucket::BucketError::NotFound(_))) {
                    cx.info(format!("{}/{} was removed meanwhile", backup.job, backup.id));
                    return Ok(());
                }
                cx.warn(format!("{}/{} was not copied: {error:#}", backup.job, backup.id));
                told.failed += 1;
                Ok(())
            }
        }
    }
}
