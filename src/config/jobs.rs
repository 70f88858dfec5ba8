//! `jobs/*.toml`: the keys that all jobs share, and the kind's own, which the kind reads.
use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    mistake::Problem,
    read::{self, Found, Table, suggest},
    settings::{self, Settings},
    units::Span,
};
use crate::{
    job::Job,
    kinds::{self, KINDS, KindEntry, Site},
    model::JobName,
    policy::{History, Hooks, MissedPolicy, OnCrash, Overlap, Policies, Retry},
    schedule::Schedule,
};

/// The keys that all jobs share.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct JobKeys {
    /// What the job does.
    pub kind: Option<String>,
    /// What its owner says of it.
    pub description: Option<String>,
    /// A job that is not enabled has no slots; it can be run by hand [default: true].
    pub enabled: Option<bool>,
    /// When it is due: `15 3 * * *`, `@daily`, `@every 6h`, `@reboot`; by hand only when absent.
    pub schedule: Option<String>,
    /// The schedule's time zone [default: the settings'].
    pub time_zone: Option<String>,
    /// It runs when all of these jobs have succeeded since it last ran.
    pub after: Vec<JobName>,
    /// Each start is put off by a random time up to this [default: 0s].
    pub jitter: Option<Span>,
    /// What becomes of slots that went by unseen [default: the kind's].
    pub missed: Option<MissedPolicy>,
    /// Slots older than this are never made up for [default: 7d].
    pub missed_window: Option<Span>,
    /// What becomes of a slot that comes while an earlier run goes on [default: skip].
    pub overlap: Option<Overlap>,
    /// A failed run is tried again [default: once].
    pub retry: Option<Retry>,
    /// Asked to stop after this long [default: the kind's].
    pub timeout: Option<Span>,
    /// Killed when it has not stopped this long after it was asked to [default: 30s].
    pub grace: Option<Span>,
    /// What becomes of a run that a crash cut off [default: fail].
    pub on_crash: Option<OnCrash>,
    /// Names of things that no two runs touch at once.
    pub locks: Vec<String>,
    /// The class whose limit it counts against [default: the kind's].
    pub class: Option<String>,
    /// Commands before and after.
    pub hooks: Hooks,
    /// How much history is kept [default: 1000 runs, 400 days].
    pub history: Option<History>,
}

/// Their names.
pub(super) const KEYS: [&str; 18] = [
    "kind",
    "description",
    "enabled",
    "schedule",
    "time_zone",
    "after",
    "jitter",
    "missed",
    "missed_window",
    "overlap",
    "retry",
    "timeout",
    "grace",
    "on_crash",
    "locks",
    "class",
    "hooks",
    "history",
];

/// Reads one job file.
pub(super) fn read(
    name: &JobName,
    text: &str,
    table: &Table<'_>,
    settings: &Settings,
    found: &mut Vec<Found>,
) -> Option<Job> {
    let mut common = table.clone();
    let mut own = table.clone();
    for key in table.get_ref().keys() {
        let other = if KEYS.contains(&&**key.get_ref()) { &mut own } else { &mut common };
        other.get_mut().remove(key);
    }

    let before = found.len();
    let keys = read::read(common, |keys| JobKeys::deserialize(keys), &[], found);
    // The kind is wanted even where another key is wrong, so that its own keys are looked at too.
    let kind_name =
        table.get_ref().iter().find(|(key, _)| key.get_ref() == "kind").and_then(|(_, value)| value.get_ref().as_str());
    let mut problems = Vec::new();
    let entry = match kind_name {
        Some(kind) => kinds::find(kind).or_else(|| {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            problems.push(Problem::new("kind", format!("there is no kind `{kind}`")).hint(suggest(
                kind,
                &known,
                "the kinds are",
            )));
            None
        }),
        None => {
            if keys.is_some() {
                problems.push(
                    Problem::new("", "the key `kind` is missing").hint("`rusuban kinds` lists what a job can do"),
                );
            }
            None
        }
    };
    let kind = entry.and_then(|entry| read::read(own, entry.parse, &KEYS, found));
    let keys = keys.unwrap_or_default();
    let schedule = schedule(name, &keys, settings, &mut problems);
    if let Some(kind) = &kind {
        let site = Site { job: Some(name.clone()), buckets: settings.buckets.keys().cloned().collect() };
        problems.extend(kind.check(&site));
    }
    if !keys.after.is_empty() && keys.schedule.is_some() {
        problems.push(
            Problem::new("after", "a job has a schedule or waits for other jobs, not both")
                .hint("remove `schedule` or `after`"),
        );
    }
    found.extend(problems.into_iter().map(|problem| Found { at: read::place(table, &problem.key), problem }));
    if found.len() > before {
        return None;
    }
    let (entry, kind) = (entry?, kind?);
    Some(Job {
        name: name.clone(),
        kind_name: entry.name,
        kind,
        description: keys.description.clone(),
        enabled: keys.enabled.unwrap_or(true),
        schedule,
        after: keys.after.clone(),
        policies: policies(keys, entry, settings),
        source: text.into(),
    })
}

fn schedule(name: &JobName, keys: &JobKeys, settings: &Settings, problems: &mut Vec<Problem>) -> Option<Schedule> {
    let zone = match keys.time_zone.as_deref().map(settings::zone) {
        None => settings.time_zone,
        Some(Ok(zone)) => zone,
        Some(Err(problem)) => {
            problems.push(problem);
            return None;
        }
    };
    match Schedule::parse(keys.schedule.as_deref()?, zone, name) {
        Ok(schedule) => Some(schedule),
        Err(wrong) => {
            problems.push(Problem { key: "schedule".to_owned(), message: wrong.message, hint: wrong.hint });
            None
        }
    }
}

/// The job's own words, else the settings', else the kind's, else the house's.
fn policies(keys: JobKeys, kind: &KindEntry, settings: &Settings) -> Policies {
    let defaults = &settings.defaults;
    Policies {
        jitter: keys.jitter.unwrap_or(Span::seconds(0)),
        missed: keys.missed.or(defaults.missed).unwrap_or(kind.missed),
        missed_window: keys.missed_window.or(defaults.missed_window).unwrap_or(Span::hours(7 * 24)),
        overlap: keys.overlap.or(defaults.overlap).unwrap_or(Overlap::Skip),
        retry: keys.retry.or(defaults.retry).unwrap_or_default(),
        timeout: keys.timeout.or(defaults.timeout).or(kind.timeout),
        grace: keys.grace.or(defaults.grace).unwrap_or(Span::seconds(30)),
        on_crash: keys.on_crash.or(defaults.on_crash).unwrap_or(OnCrash::Fail),
        locks: keys.locks,
        class: keys.class.unwrap_or_else(|| kind.class.to_owned()),
        hooks: keys.hooks,
        history: keys.history.or(defaults.history).unwrap_or_default(),
    }
}

/// What is wrong between jobs: one waits for a job that is not there, or for itself.
pub(super) fn check_chains(jobs: &BTreeMap<JobName, Arc<Job>>, wrong_files: &[JobName]) -> Vec<(JobName, Problem)> {
    let mut problems = Vec::new();
    for job in jobs.values() {
        for (index, other) in job.after.iter().enumerate() {
            let key = format!("after[{index}]");
            if !jobs.contains_key(other) && !wrong_files.contains(other) {
                let known: Vec<&str> = jobs.keys().map(JobName::as_str).collect();
                let problem = Problem::new(key, format!("there is no job `{other}`"));
                problems.push((job.name.clone(), problem.hint(suggest(other.as_str(), &known, "the jobs are"))));
            } else if waits_for(jobs, other, &job.name) {
                let problem =
                    Problem::new(key, format!("`{other}` waits for `{}` in turn, so neither would ever run", job.name));
                problems.push((job.name.clone(), problem.hint("give one of them a schedule")));
            }
        }
    }
    problems
}

/// Whether `job` is `target` or waits for it, however indirectly.
fn waits_for(jobs: &BTreeMap<JobName, Arc<Job>>, job: &JobName, target: &JobName) -> bool {
    let (mut seen, mut open) = (Vec::new(), vec![job]);
    while let Some(name) = open.pop() {
        if name == target {
            return true;
        }
        if !seen.contains(&name) {
            seen.push(name);
            open.extend(jobs.get(name).into_iter().flat_map(|job| &job.after));
        }
    }
    false
}
