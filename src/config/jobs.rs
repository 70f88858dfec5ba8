//! `jobs/*.toml`: the keys that all jobs share, and the kind's own, which the kind reads.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    explain::{Known, synonym},
    mistake::{Mistake, Problem, nearest, suggest},
    read::{self, Found, Table},
    schema,
    secret::SecretSource,
    settings::{self, Settings},
    units::Span,
};
use crate::{
    docker::On,
    job::Job,
    kinds::{self, KINDS, KindEntry, Site},
    model::JobName,
    notify::routes::{Notify, Target},
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
    /// It runs when this happens to containers: `container-died`, `container-unhealthy`, `container-oom`, `container-started`, a list
    /// of these, or `{ event = "died", containers = ["blog"] }`.
    pub on: Option<On>,
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
    /// Who is told what: notifiers of rusuban.toml [default: the settings'].
    pub notify: Option<Notify>,
    /// What is expected of it; what is missed is told.
    pub target: Target,
}

/// Their names.
pub(super) const KEYS: [&str; 21] = [
    "kind",
    "description",
    "enabled",
    "schedule",
    "time_zone",
    "after",
    "on",
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
    "notify",
    "target",
];

/// What a job file says.
#[derive(Debug)]
pub(super) struct Read {
    /// The job, unless there are mistakes.
    pub(super) job: Option<Job>,
    /// The jobs it waits for.
    pub(super) after: Vec<JobName>,
    /// The secrets it names.
    pub(super) secrets: Vec<SecretSource>,
}

/// Reads one job file.
pub(super) fn read(name: &JobName, text: &str, table: &Table<'_>, settings: &Settings, found: &mut Vec<Found>) -> Read {
    let mut common = table.clone();
    let mut own = table.clone();
    for key in table.get_ref().keys() {
        let other = if KEYS.contains(&&**key.get_ref()) { &mut own } else { &mut common };
        other.get_mut().remove(key);
    }

    let before = found.len();
    let mut common = read::read(
        common,
        |keys| JobKeys::deserialize(keys),
        &Known { also: &[], whose: "", top: &Vec::new, help: "" },
        found,
    );
    let keys = common.value.take().unwrap_or_default();
    let mut problems = check(&keys);
    if !keys.after.is_empty() && keys.schedule.is_some() {
        problems.push(
            Problem::new("after", "a job has a schedule or waits for other jobs, not both")
                .hint("remove `schedule` or `after`"),
        );
    }
    if let Some(notify) = &keys.notify {
        let is_list = table.get_ref().get("notify").is_some_and(|value| value.get_ref().as_array().is_some());
        problems.extend(check_notify("notify", notify, is_list, settings));
    }
    let schedule = schedule(name, &keys, settings, &mut problems);
    let entry = keys.kind.as_deref().and_then(kinds::find);
    if let (None, Some(kind)) = (entry, &keys.kind) {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        let hint = suggest(kind, &known, "the kinds are");
        let message =
            if kind.is_empty() { "the kind is empty".to_owned() } else { format!("there is no kind `{kind}`") };
        problems.push(Problem::new("kind", message).hint(hint));
    }
    if keys.kind.is_none() && !common.was_wrong("kind") {
        found.push(kind_is_missing(&own));
    }
    found.extend(common.place(problems));

    let mut secrets = Vec::new();
    let kind = entry.and_then(|entry| {
        let top = || schema::top_keys(&schema::of_kind(entry));
        let help = format!("`rusuban kinds {}` shows an example", entry.name);
        let mut own = read::read(own, entry.parse, &Known { also: &KEYS, whose: "job", top: &top, help: &help }, found);
        let kind = own.value.take()?;
        let site = Site {
            job: Some(name.clone()),
            buckets: settings.buckets.keys().cloned().collect(),
            repositories: settings.repositories.keys().cloned().collect(),
            is_draft: keys.enabled == Some(false),
        };
        found.extend(own.place(kind.check(&site)));
        // Those of a draft, as an example is, may still have to be written down.
        secrets = if site.is_draft { Vec::new() } else { kind.secrets() };
        Some(kind)
    });
    let after = keys.after.clone();
    let job = entry.zip(kind).filter(|_| found.len() == before).map(|(entry, kind)| Job {
        name: name.clone(),
        kind_name: entry.name,
        kind,
        description: keys.description.clone(),
        enabled: keys.enabled.unwrap_or(true),
        schedule,
        after: keys.after.clone(),
        notify: keys.notify.clone().unwrap_or_default().or(settings.defaults.notify.as_ref()),
        target: keys.target,
        on: keys.on.clone(),
        policies: policies(keys, entry, settings),
        source: text.into(),
    });
    Read { job, after, secrets }
}

/// Without a kind nobody knows the other keys, but one of them may be the kind, misspelt.
fn kind_is_missing(own: &Table<'_>) -> Found {
    let misspelt = own
        .get_ref()
        .keys()
        .find(|key| nearest(key.get_ref(), &["kind"]).or_else(|| synonym(key.get_ref())) == Some("kind"));
    match misspelt {
        Some(key) => Found {
            at: key.span(),
            problem: Problem::new("", format!("unknown key `{}`", key.get_ref())).hint("did you mean `kind`?"),
        },
        None => {
            let kinds: Vec<String> = KINDS.iter().map(|kind| format!("`{}`", kind.name)).collect();
            let hint = format!("say what the job does: `kind` is one of {}", kinds.join(", "));
            Found { at: 0..0, problem: Problem::new("", "the key `kind` is missing").hint(hint) }
        }
    }
}

/// What only shows when the values are looked at.
fn check(keys: &JobKeys) -> Vec<Problem> {
    let mut problems = check_policies("", keys.timeout, keys.retry);
    problems.extend(keys.on.iter().flat_map(On::check));
    for (index, lock) in keys.locks.iter().enumerate() {
        if lock.trim().is_empty() {
            problems.push(Problem::new(format!("locks[{index}]"), "a lock needs a name"));
        }
    }
    if keys.class.as_ref().is_some_and(|class| class.trim().is_empty()) {
        problems.push(Problem::new("class", "a class needs a name").hint("such as `disk` or `network`"));
    }
    problems
}

/// The same of a job's keys and of the settings' defaults, whose keys begin with `prefix`.
pub(super) fn check_policies(prefix: &str, timeout: Option<Span>, retry: Option<Retry>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if timeout == Some(Span::seconds(0)) {
        problems.push(
            Problem::new(format!("{prefix}timeout"), "no run would ever end in no time")
                .hint("write the time that a run may take, such as `2h`"),
        );
    }
    if let Some(retry) = retry
        && retry.delay > retry.max_delay
    {
        problems.push(
            Problem::new(
                format!("{prefix}retry"),
                format!("the first wait, {}, is longer than the longest, {}", retry.delay, retry.max_delay),
            )
            .hint("give a greater `max_delay`; it is 15m when absent"),
        );
    }
    problems
}

/// Notifiers that rusuban.toml does not have, in a job's `notify` or the settings' default for it.
pub(super) fn check_notify(key: &str, notify: &Notify, is_list: bool, settings: &Settings) -> Vec<Problem> {
    let known: Vec<&str> = settings.notifiers.keys().map(String::as_str).collect();
    let unknown = |(place, name): (String, &str)| {
        let place = if is_list { place.trim_start_matches(".to") } else { &place };
        let hint = if known.is_empty() {
            format!("write `[notifier.{name}]` there, with a `kind`")
        } else {
            suggest(name, &known, "the notifiers are")
        };
        let problem =
            || Problem::new(format!("{key}{place}"), format!("rusuban.toml has no notifier `{name}`")).hint(hint);
        (!known.contains(&name)).then(problem)
    };
    notify.names().filter_map(unknown).collect()
}

fn schedule(name: &JobName, keys: &JobKeys, settings: &Settings, problems: &mut Vec<Problem>) -> Option<Schedule> {
    let zone = match keys.time_zone.as_deref().map(settings::zone) {
        None => settings.time_zone,
        Some(Ok(zone)) => zone,
        Some(Err(problem)) => {
            problems.push(problem);
            // The line can be looked at all the same.
            settings.time_zone
        }
    };
    match Schedule::parse(keys.schedule.as_deref()?, zone, name) {
        Ok(schedule) => Some(schedule),
        Err(wrong) => {
            problems.push(Problem { hint: wrong.hint, ..Problem::new("schedule", wrong.message) });
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

/// A job waits for another.
#[derive(Debug)]
pub(super) struct Link {
    /// The one that waits.
    pub(super) job: JobName,
    /// The one it waits for.
    pub(super) after: JobName,
    /// Where it says so; what is wrong is filled in here.
    pub(super) place: Mistake,
}

/// What is wrong between jobs: one waits for a job that is not there, or for itself.
pub(super) fn check_chains(links: &[Link], jobs: &[JobName]) -> Vec<Mistake> {
    let wrong = |link: &Link| {
        let Link { job, after, .. } = link;
        if after == job {
            return Some(("a job cannot wait for itself".to_owned(), "remove it, or name another job".to_owned()));
        }
        if !jobs.contains(after) {
            let known: Vec<&str> = jobs.iter().filter(|other| *other != job).map(JobName::as_str).collect();
            let hint = if known.is_empty() {
                "it is the only one".to_owned()
            } else {
                suggest(after.as_str(), &known, "the jobs are")
            };
            return Some((format!("there is no job `{after}`"), hint));
        }
        waits_for(links, after, job).then(|| {
            let message = format!("`{after}` waits for `{job}` in turn, so neither would ever run");
            (message, "give one of them a schedule instead".to_owned())
        })
    };
    links
        .iter()
        .filter_map(|link| {
            let (message, hint) = wrong(link)?;
            Some(Mistake { message, hint: Some(hint), ..link.place.clone() })
        })
        .collect()
}

/// Whether `job` is `target` or waits for it, however indirectly.
fn waits_for(links: &[Link], job: &JobName, target: &JobName) -> bool {
    let (mut seen, mut open) = (Vec::new(), vec![job]);
    while let Some(name) = open.pop() {
        if name == target {
            return true;
        }
        if !seen.contains(&name) {
            seen.push(name);
            open.extend(links.iter().filter(|link| link.job == *name).map(|link| &link.after));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_keys_are_those_of_the_struct_that_reads_them() {
        let mut generator = schemars::SchemaGenerator::default();
        let schema = JobKeys::json_schema(&mut generator).to_value();
        assert_eq!(schema::top_keys(&schema), KEYS);
    }

    #[test]
    fn no_kind_has_a_key_that_all_jobs_share() {
        for kind in KINDS {
            let own = schema::top_keys(&schema::of_kind(kind));
            assert!(own.iter().all(|key| !KEYS.contains(&key.as_str())), "{}: {own:?}", kind.name);
        }
    }
}
