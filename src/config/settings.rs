//! `rusuban.toml`.
use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, path::PathBuf};

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use toml::de::DeTable;

use super::{
    home::{Environment, Home},
    jobs,
    mistake::{Problem, nearest},
    secrets,
    units::Span,
    watching::{self, Maintenance, WatchKeys, WebKeys},
};
use crate::{
    bucket::settings::BucketSettings,
    coverage::CoverageSettings,
    docker::{Docker, DockerSettings},
    notify::{
        delivery::DeliverySettings,
        plan::{Ear, Rules},
        routes::Notify,
        settings::NotifierSettings,
    },
    policy::{History, MissedPolicy, OnCrash, Overlap, Retry},
    repository::settings::RepositorySettings,
    watch::WatchSettings,
};

/// The bucket that is always there.
pub const LOCAL: &str = "local";

/// `rusuban.toml` as written. All of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SettingsFile {
    /// The time zone of schedules, such as `Asia/Tokyo` [default: the system's].
    pub time_zone: Option<String>,
    /// The folder of the ledger and of temporary files; relative to the home folder [default: data].
    pub data: Option<PathBuf>,
    /// Where backups are kept. A bucket `local`, a folder in the data folder, is there unless it is given here.
    pub bucket: BTreeMap<String, BucketSettings>,
    /// Deduplicated, encrypted repositories in the restic format.
    pub repository: BTreeMap<String, RepositorySettings>,
    /// The Docker engine whose containers jobs look after.
    pub docker: DockerSettings,
    /// What need not be kept.
    pub coverage: CoverageSettings,
    /// What jobs do that do not say otherwise.
    pub defaults: Defaults,
    /// How news reach people, whatever the line does.
    pub notify: DeliverySettings,
    /// How many runs of each class are at work at once [default: disk = 1, network = 4].
    pub limits: BTreeMap<String, NonZeroU32>,
    /// How checks are looked at.
    pub watch: WatchKeys,
    /// When sites are worked on.
    pub maintenance: Vec<Maintenance>,
    /// What others reach through the network.
    pub web: WebKeys,
}

/// What jobs do that do not say otherwise. Each key is one of a job file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
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
    /// How much history is kept [default: 1000 runs, 400 days].
    pub history: Option<History>,
    /// Who is told what [default: nobody].
    pub notify: Option<Notify>,
}

/// The settings, defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The time zone of schedules that name none.
    pub time_zone: Tz,
    /// The data folder.
    pub data: PathBuf,
    /// Buckets by name.
    pub buckets: BTreeMap<String, BucketSettings>,
    /// Repositories by name.
    pub repositories: BTreeMap<String, RepositorySettings>,
    /// Notifiers by name.
    pub notifiers: BTreeMap<String, NotifierSettings>,
    /// The Docker engine.
    pub docker: Docker,
    /// What need not be kept.
    pub coverage: CoverageSettings,
    /// What jobs do that do not say otherwise.
    pub defaults: Defaults,
    /// How news reach people.
    pub notify: DeliverySettings,
    /// Places by class, where the settings say so.
    pub limits: BTreeMap<String, usize>,
    /// What is said of checks as a whole.
    pub watch: WatchSettings,
    /// Where others may call.
    pub listen: Option<SocketAddr>,
}

impl Settings {
    /// Fills in the defaults; tells what is wrong.
    pub(super) fn new(file: SettingsFile, home: &Home, environment: &Environment, problems: &mut Vec<Problem>) -> Self {
        let time_zone = match &file.time_zone {
            Some(name) => zone(name).unwrap_or_else(|problem| {
                problems.push(Problem { key: "time_zone".to_owned(), ..problem });
                Tz::UTC
            }),
            None => system_zone(environment),
        };
        let data = home.path().join(file.data.unwrap_or_else(|| "data".into()));
        problems.extend(jobs::check_policies("defaults.", file.defaults.timeout, file.defaults.retry));
        let mut buckets = file.bucket;
        for (name, bucket) in &buckets {
            let key = format!("bucket.{name}");
            problems.extend(check_name(&key, name, "bucket"));
            problems.extend(bucket.check(&key));
        }
        buckets.entry(LOCAL.to_owned()).or_insert_with(|| BucketSettings::of_folder(data.join("backups")));
        let known: Vec<&str> = buckets.keys().map(String::as_str).collect();
        for (name, repository) in &file.repository {
            let key = format!("repository.{name}");
            problems.extend(check_name(&key, name, "repository"));
            problems.extend(repository.check(&key, &known));
        }
        problems.extend(file.docker.check());
        problems.extend(file.coverage.check());
        let docker =
            file.docker.docker(|name| environment.get(name).map(str::to_owned), &secrets::reader(home, environment));
        let limits = file.limits.into_iter().map(|(class, places)| (class, places.get() as usize)).collect();
        let watch = watching::settings(file.watch, file.maintenance, time_zone, problems);
        let listen = watching::listen(&file.web, problems);
        problems.extend(file.notify.check());
        let (repositories, coverage, defaults, notify) = (file.repository, file.coverage, file.defaults, file.notify);
        let notifiers = BTreeMap::new();
        Self {
            time_zone,
            data,
            buckets,
            repositories,
            notifiers,
            docker,
            coverage,
            defaults,
            notify,
            limits,
            watch,
            listen,
        }
    }

    /// What notifiers are told by.
    pub(super) fn rules(&self) -> Rules {
        let ear = |of: &NotifierSettings| Ear { min_severity: of.common.min_severity, quiet: of.common.quiet };
        Rules {
            ears: self.notifiers.iter().map(|(name, of)| (name.clone(), ear(of))).collect(),
            group: self.notify.group.0,
            time_zone: self.time_zone,
        }
    }

    /// Adds the buckets and repositories that are named and wrong, so that jobs which use them are not called wrong for it.
    pub(super) fn add_names(&mut self, table: &DeTable<'_>) {
        let names = |of: &str| -> Vec<String> {
            let found = table.iter().find(|(key, _)| key.get_ref() == of).and_then(|(_, all)| all.get_ref().as_table());
            found.into_iter().flat_map(|named| named.keys()).map(|name| name.get_ref().to_string()).collect()
        };
        for name in names("bucket") {
            self.buckets.entry(name).or_default();
        }
        for name in names("repository") {
            self.repositories.entry(name).or_default();
        }
    }
}

pub(super) fn check_name(key: &str, name: &str, of: &str) -> Option<Problem> {
    let fine = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (name.is_empty() || !fine).then(|| {
        Problem::new(key, format!("`{name}` cannot be a {of}'s name"))
            .hint("use lower-case letters, digits and hyphens")
    })
}

/// A time zone by its name.
pub(super) fn zone(name: &str) -> Result<Tz, Problem> {
    name.parse().map_err(|_| {
        let known: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
        // A city alone, or with its country.
        let city = name.rsplit('/').next().unwrap_or(name).replace(' ', "_");
        let of_city =
            known.iter().find(|zone| zone.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(&city)));
        let hint = of_city
            .copied()
            .or_else(|| nearest(name, &known))
            .map_or("write a name such as `Europe/Paris` or `UTC`".to_owned(), |near| {
                format!("did you mean `{near}`?")
            });
        Problem::new("time_zone", format!("`{name}` is no time zone")).hint(hint)
    })
}

/// `TZ`, else what `/etc/localtime` points to, else UTC.
fn system_zone(environment: &Environment) -> Tz {
    if let Some(zone) = environment.get("TZ").and_then(|name| name.trim_start_matches(':').parse().ok()) {
        return zone;
    }
    let pointed = std::fs::canonicalize("/etc/localtime").unwrap_or_default();
    let pointed = pointed.to_string_lossy();
    pointed.split_once("zoneinfo/").and_then(|(_, name)| name.parse().ok()).unwrap_or(Tz::UTC)
}
