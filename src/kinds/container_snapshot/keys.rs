//! The keys of a `container-snapshot` job, and what can be wrong with them.
use std::num::NonZeroU32;

use chrono::TimeZone as _;
use schemars::JsonSchema;
use serde::Deserialize;

use super::names::{self, PLACES};
use crate::{
    config::mistake::Problem,
    docker::Choice,
    kinds::Site,
    retention::{Keep, Rotation, Rule},
};

/// Containers, kept as images on their host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerSnapshot {
    /// Names of containers, and patterns of names: `wiki-*`.
    pub containers: Vec<String>,
    /// All containers that run.
    pub all: bool,
    /// All containers of these compose projects.
    pub compose: Vec<String>,
    /// All containers with one of these labels: `name` or `name=value`.
    pub label: Vec<String>,
    /// Names and patterns of containers that are left out, whatever chose them.
    pub exclude: Vec<String>,
    /// The images' name [default: that of the container's own image]; `{container}` stands for the container's name.
    pub image: Option<String>,
    /// The images' tags [default: weekday-month].
    pub rotation: Option<SnapshotRotation>,
    /// Instead of `rotation`: patterns of tags, with `{weekday}`, `{month}`, `{month-on-first}`, `{date}`, `{time}`, `{year}`, `{week}` and `{run}`.
    pub tags: Vec<String>,
    /// Also stored in this repository of rusuban.toml: image, layers and the container's description, off the host.
    pub repository: Option<String>,
    /// How many snapshots stay: `local` on the host [default: what has a tag], the others in the repository [default: as `rotation` says].
    pub keep: Option<KeepSnapshots>,
    /// Containers stand still while they are copied, so that their files are of one moment.
    pub pause: bool,
    /// Names and patterns of containers that must never stand still.
    pub never_pause: Vec<String>,
    /// How many containers are copied at once [default: one for each two cores, at most 4].
    pub at_once: Option<NonZeroU32>,
}

/// Tags that come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotRotation {
    /// `Mon` to `Sun`, and on the first of a month also `Jan` to `Dec`: seven days and twelve months.
    #[default]
    WeekdayMonth,
    /// `2026-11-21`: one a day; `keep` says how many stay.
    Dated,
}

/// How many snapshots stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeepSnapshots {
    /// Of each container on its host, the newest so many.
    pub local: Option<NonZeroU32>,
    /// In the repository: the newest ones, whatever their age.
    pub last: u32,
    /// Of the last hours that have one.
    pub hourly: u32,
    /// Of the last days.
    pub daily: u32,
    /// Of the last weeks; a week begins on Monday.
    pub weekly: u32,
    /// Of the last months.
    pub monthly: u32,
    /// Of the last years.
    pub yearly: u32,
}

impl KeepSnapshots {
    /// What it says of the repository.
    fn stored(self) -> Keep {
        let Self { local: _, last, hourly, daily, weekly, monthly, yearly } = self;
        Keep { last, hourly, daily, weekly, monthly, yearly }
    }
}

impl Default for ContainerSnapshot {
    fn default() -> Self {
        Self {
            containers: Vec::new(),
            all: false,
            compose: Vec::new(),
            label: Vec::new(),
            exclude: Vec::new(),
            image: None,
            rotation: None,
            tags: Vec::new(),
            repository: None,
            keep: None,
            pause: true,
            never_pause: Vec::new(),
            at_once: None,
        }
    }
}

impl ContainerSnapshot {
    /// Which containers.
    pub(super) fn choice(&self) -> Choice {
        Choice {
            containers: self.containers.clone(),
            all: self.all,
            compose: self.compose.clone(),
            label: self.label.clone(),
            exclude: self.exclude.clone(),
        }
    }

    /// Which of them must not stand still.
    pub(super) fn never_paused(&self) -> Choice {
        Choice { containers: self.never_pause.clone(), ..Choice::default() }
    }

    /// The patterns of their tags.
    pub(super) fn patterns(&self) -> Vec<String> {
        let of = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        match (&self.tags[..], self.rotation.unwrap_or_default()) {
            ([], SnapshotRotation::WeekdayMonth) => of(&["{weekday}", "{month-on-first}"]),
            ([], SnapshotRotation::Dated) => of(&["{date}"]),
            (patterns, _) => patterns.to_vec(),
        }
    }

    /// What stays in the repository.
    pub(super) fn rule(&self) -> Rule {
        let keep = self.keep.map(KeepSnapshots::stored).filter(|keep| *keep != Keep::default());
        let rotates = self.tags.is_empty() && self.rotation.unwrap_or_default() == SnapshotRotation::WeekdayMonth;
        match keep {
            Some(keep) => Rule::Keep(keep),
            None if rotates => Rule::Rotate(Rotation::WeekdayMonth),
            None => Rule::Everything,
        }
    }

    pub(super) fn problems(&self, site: &Site) -> Vec<Problem> {
        let mut problems = self.choice().check();
        problems.extend(self.repository.iter().filter_map(|name| site.knows_repository("repository", name)));
        problems.extend(self.problems_of_keep());
        if !self.never_pause.is_empty() {
            problems.extend(
                self.never_paused()
                    .check()
                    .into_iter()
                    .map(|problem| Problem { key: problem.key.replace("containers", "never_pause"), ..problem }),
            );
        }
        if self.rotation.is_some() && !self.tags.is_empty() {
            problems.push(
                Problem::new("tags", "`tags` and `rotation` are both given: each says what the tags are")
                    .hint("keep one of the two"),
            );
        }
        for (number, pattern) in self.tags.iter().enumerate() {
            problems.extend(check_tag(&format!("tags[{number}]"), pattern));
        }
        let pass =
            |pattern: &String| ["{date}", "{year}", "{run}", "{week}"].iter().any(|place| pattern.contains(place));
        if self.keep.is_none_or(|keep| keep.local.is_none()) && self.patterns().iter().any(pass) {
            let key = if self.tags.is_empty() { "rotation" } else { "tags" };
            problems.push(
                Problem::new(key, "these tags never come again, so the snapshots would fill the disk")
                    .hint("say how many stay: `keep = { local = 7 }`"),
            );
        }
        if let Some(image) = &self.image {
            let sample = names::repository(image, "blog");
            if image.contains(['{', '}']) && (sample == *image || sample.contains(['{', '}'])) {
                problems.push(
                    Problem::new("image", format!("`{image}` has an unknown place"))
                        .hint("`{container}` stands for the container's name: `image = \"snapshots/{container}\"`"),
                );
            } else if !names::is_repository(&sample) {
                problems.push(Problem::new("image", format!("`{image}` cannot be an image's name")).hint(
                    "small letters, digits, `.`, `_`, `-` and `/`, without a tag: `image = \"snapshots/{container}\"`",
                ));
            }
        }
        problems
    }
}

impl ContainerSnapshot {
    fn problems_of_keep(&self) -> Option<Problem> {
        let keep = self.keep?;
        if keep == KeepSnapshots::default() {
            let hint = "such as `keep = { local = 7 }`; leave it out to keep what has a tag";
            Some(Problem::new("keep", "it does not say how many stay").hint(hint))
        } else if keep.stored() != Keep::default() && self.repository.is_none() {
            let hint = "on the host `local` counts; the others are for a `repository`";
            Some(Problem::new("keep", "these say what stays in a repository, and there is none").hint(hint))
        } else {
            None
        }
    }
}

fn check_tag(key: &str, pattern: &str) -> Option<Problem> {
    // Two days on which all that can be left out is left out, and is not.
    let day = |day| chrono_tz::UTC.with_ymd_and_hms(2026, 12, day, 3, 0, 0).single();
    let samples = [day(1), day(2)].into_iter().flatten().flat_map(|at| names::tags(&[pattern.to_owned()], at, 1));
    let samples: Vec<String> = samples.collect();
    let hint = || format!("what can stand in a tag: {}", PLACES.map(|place| format!("`{place}`")).join(", "));
    if samples.iter().any(|tag| tag.contains(['{', '}'])) {
        Some(Problem::new(key, format!("`{pattern}` has an unknown place")).hint(hint()))
    } else if !samples.iter().all(|tag| names::is_tag(tag)) {
        let hint = "letters, digits, `_`, `.` and `-`, and no `.` or `-` in front";
        Some(Problem::new(key, format!("`{pattern}` cannot be a tag")).hint(hint))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_is_told_at_its_key() {
        let problems = |toml: &str| -> Vec<String> {
            let keys: ContainerSnapshot = toml::from_str(toml).unwrap();
            keys.problems(&Site::default())
                .into_iter()
                .map(|problem| format!("{}: {}", problem.key, problem.message))
                .collect()
        };
        for fine in [
            "all = true",
            "containers = ['blog']\nrotation = 'dated'\nkeep = { local = 7 }",
            "compose = ['a']\ntags = ['{weekday}', 'first-{month-on-first}']\nimage = 'localhost:5000/{container}'",
        ] {
            assert_eq!(problems(fine), Vec::<String>::new(), "{fine}");
        }
        for (toml, key) in [
            ("", ": no container"),
            ("all = true\nnever_pause = ['[']", "never_pause[0]: "),
            ("all = true\nrotation = 'dated'\ntags = ['{weekday}']", "tags: `tags` and"),
            ("all = true\nrotation = 'dated'", "rotation: these tags never"),
            ("all = true\ntags = ['{run}']", "tags: these tags never"),
            ("all = true\ntags = ['{weekday}', '{day}']", "tags[1]: `{day}` has an unknown"),
            ("all = true\ntags = ['a b']", "tags[0]: `a b` cannot"),
            ("all = true\nkeep = {}", "keep: it does not say"),
            ("all = true\nkeep = { daily = 7 }", "keep: these say"),
            ("all = true\nrotation = 'dated'\nkeep = { local = 7, daily = 7 }", "keep: these say"),
            ("all = true\nimage = 'snapshots/{name}'", "image: `snapshots/{name}` has"),
            ("all = true\nimage = 'blog:Mon'", "image: `blog:Mon` cannot"),
            ("all = true\nimage = 'Blog'", "image: `Blog` cannot"),
        ] {
            let found = problems(toml);
            assert!(found.len() == 1 && found[0].starts_with(key), "{toml}\n{found:?}");
        }
    }
}
