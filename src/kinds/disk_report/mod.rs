//! `disk-report`: how full the filesystems are, what was added since yesterday, and when they will be full at this pace.
mod history;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use globset::{Glob, GlobBuilder, GlobSet};
use schemars::JsonSchema;
use serde::Deserialize;

use self::history::{Full, Growth, History};
use super::{
    Cx, Kind, KindEntry, Site, Summary,
    mounts::{self, Room},
};
use crate::{
    config::{
        mistake::Problem,
        units::{Percent, Span},
    },
    model::Level,
    policy::MissedPolicy,
    text::{self, Table},
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "disk-report",
    summary: "Tells how full the disks are, how fast they fill, and when they will be full",
    example: include_str!("../../../jobs/disk-report.toml"),
    parse: super::read::<DiskReport>,
    schema: DiskReport::json_schema,
    missed: MissedPolicy::Latest,
    // Not `disk`: it reads nothing, and need not wait for what does.
    class: "report",
    timeout: Some(Span::seconds(5 * 60)),
};

/// The key of what earlier runs saw.
const HISTORY: &str = "history";

/// A report.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiskReport {
    /// The filesystems that hold these paths, and no others; all that keep things when absent.
    pub paths: Vec<PathBuf>,
    /// Mount points that are left out, as patterns: `/boot`, `/mnt/*`, `/media/**`.
    pub exclude: Vec<String>,
    /// A filesystem that is so full, in bytes or inodes, gets a warning.
    pub warn_at: Percent,
    /// One that is so full makes the run fail.
    pub fail_at: Option<Percent>,
    /// One that will be full within this time at its pace gets a warning.
    pub warn_before: Span,
}

impl Default for DiskReport {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            exclude: Vec::new(),
            warn_at: Percent(80.0),
            fail_at: None,
            warn_before: Span::hours(7 * 24),
        }
    }
}

/// A filesystem that was looked at.
#[derive(Debug)]
struct Seen {
    point: String,
    room: Room,
    growth: Option<Growth>,
}

#[async_trait]
impl Kind for DiskReport {
    fn check(&self, _: &Site) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, pattern) in self.exclude.iter().enumerate() {
            if let Err(error) = glob(pattern) {
                let key = format!("exclude[{index}]");
                problems.push(Problem::new(key, format!("this is no pattern: {}", error.kind())));
            }
        }
        if !self.paths.is_empty() && !self.exclude.is_empty() {
            let hint = "keep `paths` to name what is reported, or `exclude` to name what is not";
            problems.push(Problem::new("exclude", "only the filesystems of `paths` are reported").hint(hint));
        }
        if let Some(fail_at) = self.fail_at
            && fail_at < self.warn_at
        {
            let message = format!("it would fail at {fail_at} before it warns at {}", self.warn_at);
            problems.push(Problem::new("fail_at", message).hint("make `fail_at` the larger of the two"));
        }
        problems
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let now = cx.clock.now();
        let mut history = match cx.record.fact(HISTORY).await?.map(serde_json::from_value::<History>) {
            None => History::default(),
            Some(Ok(history)) => history.tidied(now),
            Some(Err(error)) => {
                cx.warn(format!("what earlier runs saw cannot be read, so growth is counted from today: {error}"));
                History::default()
            }
        };
        let (mut seen, unseen) = self.look(cx).await?;
        for found in &mut seen {
            found.growth = history.growth(&found.point, &found.room, now);
            history.add(&found.point, &found.room, now);
        }
        // Before anything is found wrong: tomorrow's report needs it either way.
        cx.record.remember(HISTORY, serde_json::to_value(&history)?).await?;

        if seen.is_empty() && unseen.is_empty() {
            bail!("no filesystem was found that keeps things; name one: `paths = [\"/\"]`");
        }
        cx.record.line(Level::Info, table(&seen, cx.services.time_zone, now).to_string().trim_end());
        if seen.iter().all(|found| found.growth.is_none()) {
            cx.info("growth, and the day when a disk will be full, are told from the second day on");
        }
        let (mut warnings, mut failures) = (0, unseen);
        // What is mounted to be read only can stay full.
        for found in seen.iter().filter(|found| !found.room.read_only) {
            match self.too_full(found, self.fail_at) {
                Some(why) => failures.push(why),
                None => {
                    let worries = [self.too_full(found, Some(self.warn_at)), self.full_soon(found, cx)];
                    for worry in worries.into_iter().flatten() {
                        warnings += 1;
                        cx.warn(worry);
                    }
                }
            }
        }
        if !failures.is_empty() {
            bail!(failures.join("; "));
        }
        let fullest = seen.iter().max_by(|one, other| one.room.share().total_cmp(&other.room.share()));
        let fullest =
            fullest.map_or_else(String::new, |found| format!(", {} is {:.0}% full", found.point, found.room.share()));
        let warned = if warnings == 0 { String::new() } else { format!("; {}", text::count(warnings, "warning")) };
        Ok(format!("{}{fullest}{warned}", text::count(seen.len(), "filesystem")))
    }
}

impl DiskReport {
    /// What there is, and why some of what was asked for by name could not be looked at.
    async fn look(&self, cx: &Cx) -> anyhow::Result<(Vec<Seen>, Vec<String>)> {
        let (mut seen, mut unseen) = (Vec::new(), Vec::new());
        let points: Vec<PathBuf> = if self.paths.is_empty() {
            let mountinfo = tokio::fs::read("/proc/self/mountinfo").await.context("read /proc/self/mountinfo")?;
            let excluded = self.excluded()?;
            let points = mounts::points(&String::from_utf8_lossy(&mountinfo));
            points.into_iter().filter(|point| !excluded.is_match(point)).collect()
        } else {
            self.paths.iter().map(|path| cx.services.home.join(path)).collect()
        };
        let rooms = points.iter().map(|point| mounts::room(point));
        // At once: several that do not answer are waited for together.
        for (point, room) in points.iter().zip(futures_util::future::join_all(rooms).await) {
            let name = point.display().to_string();
            match room {
                Ok(room) if room.size == 0 && self.paths.is_empty() => {}
                Ok(room) => seen.push(Seen { point: name, room, growth: None }),
                Err(error) if !self.paths.is_empty() => unseen.push(format!("look at {name}: {error}")),
                // Some of FUSE are for their owner alone, or went away a moment ago.
                Err(error)
                    if matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound) => {}
                Err(error) => cx.warn(format!("look at {name}: {error}")),
            }
        }
        Ok((seen, unseen))
    }

    fn excluded(&self) -> anyhow::Result<GlobSet> {
        let mut set = GlobSet::builder();
        for pattern in &self.exclude {
            set.add(glob(pattern).context("read `exclude`")?);
        }
        Ok(set.build()?)
    }

    fn too_full(&self, found: &Seen, limit: Option<Percent>) -> Option<String> {
        let limit = limit?;
        let Seen { point, room, .. } = found;
        if room.share() >= limit.0 {
            return Some(format!(
                "{point} is {:.0}% full (the limit is {limit}): {} are free",
                room.share(),
                text::size(room.free)
            ));
        }
        let inodes = room.inode_share().filter(|share| *share >= limit.0)?;
        Some(format!(
            "{point} has used {inodes:.0}% of its inodes (the limit is {limit}): look for folders of very many files"
        ))
    }

    fn full_soon(&self, found: &Seen, cx: &Cx) -> Option<String> {
        let now = cx.clock.now();
        match found.growth?.full {
            Full::At(full) if (full - now).to_std().unwrap_or_default() <= self.warn_before.0 => {
                Some(format!("at this pace {} is full {}", found.point, on(full, cx.services.time_zone, now)))
            }
            _ => None,
        }
    }
}

/// `*` stays within a folder, `**` does not.
fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build()
}

fn table(seen: &[Seen], zone: Tz, now: DateTime<Utc>) -> Table {
    let mut table =
        Table::new(["filesystem", "size", "used", "free", "full", "inodes", "since yesterday", "full at this pace"]);
    for Seen { point, room, growth } in seen {
        let share = |share: f64| format!("{share:.0}%");
        table.row([
            if room.read_only { format!("{point} (read-only)") } else { point.clone() },
            text::size(room.size),
            text::size(room.used),
            text::size(room.free),
            share(room.share()),
            room.inode_share().map_or_else(String::new, share),
            growth.map_or_else(String::new, |growth| signed(growth.in_a_day)),
            growth.map_or_else(String::new, |growth| match growth.full {
                Full::Never => "never".to_owned(),
                Full::NotForYears => "not for years".to_owned(),
                Full::At(full) => on(full, zone, now),
            }),
        ]);
    }
    table
}

/// `on Sat 2026-11-28 (in 7 days)`.
fn on(day: DateTime<Utc>, zone: Tz, now: DateTime<Utc>) -> String {
    format!("on {} ({})", day.with_timezone(&zone).format("%a %Y-%m-%d"), text::ago(day, now))
}

fn signed(bytes: i64) -> String {
    let sign = match bytes {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", text::size(bytes.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn read(toml: &str) -> Result<DiskReport, toml::de::Error> {
        toml::from_str(toml)
    }

    #[test]
    fn limits_and_patterns_that_cannot_work_are_found_early() {
        let problems = |toml: &str| -> Vec<String> {
            let problems = read(toml).unwrap().check(&Site::default());
            problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
        };
        assert!(problems("").is_empty());
        assert!(problems("paths = ['/']\nwarn_at = '90%'\nfail_at = '95%'\nwarn_before = '2d'").is_empty());
        assert_eq!(problems("fail_at = '70%'"), ["fail_at: it would fail at 70% before it warns at 80%"]);
        assert_eq!(
            problems("paths = ['/']\nexclude = ['/a']"),
            ["exclude: only the filesystems of `paths` are reported"]
        );
        assert_eq!(
            problems("exclude = ['/a', '/b[']"),
            ["exclude[1]: this is no pattern: unclosed character class; missing ']'"]
        );
        read("warn_at = '120%'").unwrap_err();
    }

    #[test]
    fn the_report_is_a_table_with_numbers_under_each_other() {
        let now = DateTime::from_timestamp(1_795_219_200, 0).unwrap();
        let seen = |point: &str, used: u64, inodes, growth| Seen {
            point: point.to_owned(),
            room: Room {
                id: 1,
                size: 100 << 30,
                used: used << 30,
                free: (100 - used) << 30,
                inodes,
                read_only: point == "/iso",
            },
            growth,
        };
        let growth = |in_a_day, full| Some(Growth { in_a_day, full });
        let table = table(
            &[
                seen("/", 80, Some((30, 1000)), growth(1_500 << 20, Full::At(now + TimeDelta::days(20)))),
                seen("/home", 5, None, growth(-(900 << 20), Full::Never)),
                seen("/iso", 100, Some((1, 1)), None),
            ],
            Tz::UTC,
            now,
        );
        assert_eq!(
            table.to_string(),
            "\
filesystem           size      used      free  full  inodes  since yesterday  full at this pace
/                 100 GiB  80.0 GiB  20.0 GiB   80%      3%        +1.46 GiB  on Fri 2026-12-11 (in 20 days)
/home             100 GiB  5.00 GiB  95.0 GiB    5%                 -900 MiB  never
/iso (read-only)  100 GiB   100 GiB       0 B  100%    100%
"
        );
    }
}
