//! `report`: how the house is, in a line or a letter, to whoever is to hear of it: all checks, the disk, or the week.
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Kind, KindEntry, Site, Summary, Told, mounts};
use crate::{
    config::{mistake::Problem, units::Span},
    model::{
        news::{Event, Severity},
        overview::Overview,
        watch::State,
    },
    notify::words::{
        Language,
        digest::digest,
        reports::{Disk, disk_line, watch_line},
    },
    policy::MissedPolicy,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "report",
    summary: "Tells how the house is: all checks in a line, the disk, or the week",
    example: include_str!("../../jobs/report.toml"),
    parse: super::read::<Report>,
    schema: Report::json_schema,
    missed: MissedPolicy::Latest,
    class: "report",
    timeout: Some(Span::seconds(5 * 60)),
};

/// A report.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What it tells.
    pub report: What,
    /// In which language: `en` or `ja` [default: en].
    #[serde(default)]
    pub language: Language,
    /// Of `digest`: how long it looks back [default: 7d].
    #[serde(default)]
    pub period: Option<Span>,
    /// Of `disk-line`: the filesystems that hold these paths [default: /].
    #[serde(default)]
    pub paths: Vec<PathBuf>,
}

/// What a report tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Every check in one line: `blog is fine, wiki is sick`.
    WatchLine,
    /// The disk in one line, as `df` has it.
    DiskLine,
    /// What was kept, proven and watched, what failed, and what is not protected.
    Digest,
}

#[async_trait]
impl Kind for Report {
    fn check(&self, _: &Site) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.period.is_some() && self.report != What::Digest {
            problems.push(
                Problem::new("period", "only a digest looks back").hint("remove it, or write `report = \"digest\"`"),
            );
        }
        if self.period.is_some_and(|period| period < Span::hours(1)) {
            problems
                .push(Problem::new("period", "in so short a time nothing happens").hint("write a time such as `7d`"));
        }
        if !self.paths.is_empty() && self.report != What::DiskLine {
            let hint = "remove it, or write `report = \"disk-line\"`";
            problems.push(Problem::new("paths", "only a disk line is of paths").hint(hint));
        }
        problems
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let (what, lines, severity) = match self.report {
            What::WatchLine => (self.watch_line(cx).await?, Vec::new(), Severity::Info),
            What::DiskLine => (self.disk_line(cx).await?, Vec::new(), Severity::Info),
            What::Digest => {
                let period = self.period.unwrap_or(Span::hours(7 * 24));
                let since = cx.clock.now() - TimeDelta::from_std(period.0).unwrap_or(TimeDelta::days(7));
                let told = digest(self.language, &cx.record.overview(since).await?, cx.services.time_zone);
                let severity = if told.needs_a_person { Severity::Warning } else { Severity::Info };
                (told.what, told.lines, severity)
            }
        };
        cx.info(&what);
        for line in &lines {
            cx.info(line);
        }
        cx.record.tell(Told { event: Event::Report, severity, what: what.clone(), lines });
        Ok(what)
    }
}

impl Report {
    async fn watch_line(&self, cx: &Cx) -> anyhow::Result<String> {
        let Overview { jobs, checks } = cx.record.overview(cx.clock.now()).await?;
        let sites = if checks.is_empty() {
            // Nothing is watched: then how the jobs are.
            let state = |failing: bool| if failing { State::Down } else { State::Up };
            let of_interest =
                jobs.iter().filter(|job| job.card.job != cx.job && (job.success.is_some() || job.failing.is_some()));
            of_interest.map(|job| (job.card.job.to_string(), state(job.failing.is_some()))).collect()
        } else {
            checks
        };
        if sites.is_empty() {
            bail!("nothing is watched yet, and no job has run: there is nothing to tell");
        }
        Ok(watch_line(self.language, &sites))
    }

    async fn disk_line(&self, cx: &Cx) -> anyhow::Result<String> {
        let root = [PathBuf::from("/")];
        let paths = if self.paths.is_empty() { root.as_slice() } else { self.paths.as_slice() };
        let mut disks = Vec::new();
        for path in paths {
            let path = cx.services.home.join(path);
            let place = path.display().to_string();
            let room = mounts::room(&path).await.with_context(|| format!("look at {place}"))?;
            disks.push(Disk { place, size: room.size, used: room.used, free: room.free });
        }
        Ok(disk_line(self.language, cx.clock.now(), cx.services.time_zone, &disks))
    }
}
