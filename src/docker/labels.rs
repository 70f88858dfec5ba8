//! What a container may say in labels of its own, where the settings let it: how it is treated by jobs that the files have.
//!
//! Whoever writes a compose file is not always whoever keeps the house. So a label chooses among what jobs do already; no label names
//! a command, a path, a bucket or a secret, or takes a name that another container has.
use std::collections::BTreeMap;

use super::{
    choose::{Choice, Chosen},
    container::Listed,
    settings::Docker,
    snapshots::label,
};

/// How all of them begin.
const OURS: &str = "rusuban.";
/// What Rusuban itself writes to containers; and to snapshots, of which containers may come.
const WRITTEN: [&str; 4] = ["rusuban.job", "rusuban.run", "rusuban.look", "rusuban.mark"];
/// What a container may say, for whoever said something else.
const KNOWN: &str = "`rusuban.enable`, `rusuban.jobs`, `rusuban.snapshot`, `rusuban.update`, `rusuban.backup.stop`, \
                     `rusuban.route.name`, `rusuban.route.network` and `rusuban.route.port`";

/// What a container's labels say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `rusuban.enable`: whether jobs may choose it by a pattern, a label, its project or `all`.
    pub enable: Option<bool>,
    /// `rusuban.jobs`: jobs that are to take it in.
    pub jobs: Vec<String>,
    /// `rusuban.snapshot`: whether snapshots are taken of it; and without standing still.
    pub snapshot: Option<Kept>,
    /// `rusuban.update`: whether it is updated.
    pub update: Option<bool>,
    /// `rusuban.backup.stop`: stopped, not frozen, while its volumes are read.
    pub stop: bool,
    /// `rusuban.route.name`, in place of its own name.
    pub route_name: Option<String>,
    /// `rusuban.route.network`: the network whose address counts.
    pub route_network: Option<String>,
    /// `rusuban.route.port`.
    pub route_port: Option<u16>,
    /// Labels that are not heeded, and why.
    pub refused: Vec<String>,
}

/// What `rusuban.snapshot` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Snapshots are taken.
    Yes,
    /// None is.
    No,
    /// They are taken, and it never stands still for it.
    Unpaused,
}

/// For what containers are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be committed.
    Snapshot,
    /// To be replaced by newer ones.
    Update,
    /// Anything else.
    Other,
}

/// What a choice comes to with labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picked {
    /// The containers.
    pub chosen: Chosen,
    /// What labels have changed, in words.
    pub notes: Vec<String>,
    /// Labels that were not heeded, in words.
    pub refused: Vec<String>,
}

impl Policy {
    /// Reads labels.
    #[must_use]
    pub fn read(labels: &BTreeMap<String, String>) -> Self {
        let mut policy = Self::default();
        for (name, value) in labels.iter().filter(|(name, _)| name.starts_with(OURS)) {
            if WRITTEN.contains(&name.as_str()) || name.starts_with(label::ALL) {
                continue;
            }
            if let Err(why) = policy.take(name, value.trim()) {
                policy.refused.push(why);
            }
        }
        policy
    }

    fn take(&mut self, label: &str, value: &str) -> Result<(), String> {
        let shown = || value.chars().filter(|letter| !letter.is_control()).take(60).collect::<String>();
        let wants = |what: &str| format!("the label `{label}` is `{}`, and takes {what}: it is not heeded", shown());
        let flag = |value: &str| match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => None,
        };
        match label {
            "rusuban.enable" => self.enable = Some(flag(value).ok_or_else(|| wants("`true` or `false`"))?),
            "rusuban.update" => self.update = Some(flag(value).ok_or_else(|| wants("`true` or `false`"))?),
            "rusuban.backup.stop" => self.stop = flag(value).ok_or_else(|| wants("`true` or `false`"))?,
            "rusuban.snapshot" => {
                self.snapshot = Some(match (value, flag(value)) {
                    ("unpaused", _) => Kept::Unpaused,
                    (_, Some(true)) => Kept::Yes,
                    (_, Some(false)) => Kept::No,
                    _ => return Err(wants("`true`, `false` or `unpaused`")),
                });
            }
            "rusuban.jobs" => {
                let is_job = |name: &&str| {
                    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                };
                let names: Vec<&str> = value.split([',', ' ']).filter(|name| !name.is_empty()).collect();
                if names.is_empty() || !names.iter().all(is_job) {
                    return Err(wants("names of jobs, with commas"));
                }
                self.jobs = names.into_iter().map(str::to_owned).collect();
            }
            "rusuban.route.name" => {
                if !is_host_name(value) {
                    return Err(wants("a name of letters, digits, `-` and `_`"));
                }
                self.route_name = Some(value.to_owned());
            }
            "rusuban.route.network" => {
                if value.is_empty() {
                    return Err(wants("a network's name"));
                }
                self.route_network = Some(value.to_owned());
            }
            "rusuban.route.port" => {
                let port = value.parse::<u16>().ok().filter(|port| *port > 0);
                self.route_port = Some(port.ok_or_else(|| wants("a port from 1 to 65535"))?);
            }
            _ => {
                let label: String = label.chars().filter(|letter| !letter.is_control()).take(60).collect();
                return Err(format!(
                    "the label `{label}` is not heeded: a container may say {KNOWN}; commands, paths, buckets and secrets stand in the files of rusuban alone"
                ));
            }
        }
        Ok(())
    }
}

/// Whether it is one that Rusuban made for a moment: for a command, or for a look at a snapshot.
#[must_use]
pub fn is_ours(labels: &BTreeMap<String, String>) -> bool {
    ["rusuban.run", "rusuban.look"].iter().any(|label| labels.contains_key(*label))
}

/// Whether it can be a host's name.
#[must_use]
pub fn is_host_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && !part.starts_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(is_part)
}

impl Docker {
    /// The containers that a job is about: by its own choice and, where labels count, by what they say. One that the job's file
    /// names itself is meant, whatever it says of itself.
    #[must_use]
    pub fn pick(&self, choice: &Choice, all: &[Listed], job: &str, purpose: Purpose) -> Picked {
        let mut picked = Picked { chosen: choice.pick(all), ..Picked::default() };
        if !self.heeds_labels() {
            return picked;
        }
        let before = std::mem::take(&mut picked.chosen.containers);
        for one in all {
            let policy = Policy::read(&one.labels);
            let is_chosen = before.iter().any(|chosen| chosen.id == one.id);
            let is_named = choice.names(&one.name);
            let asks = policy.jobs.iter().any(|name| name == job);
            if !is_chosen && !asks {
                continue;
            }
            let name = &one.name;
            picked.refused.extend(policy.refused.iter().map(|why| format!("{name}: {why}")));
            let no = match purpose {
                _ if policy.enable == Some(false) => Some("rusuban.enable"),
                Purpose::Snapshot if policy.snapshot == Some(Kept::No) => Some("rusuban.snapshot"),
                Purpose::Update if policy.update == Some(false) => Some("rusuban.update"),
                _ => None,
            };
            match no {
                Some(label) if !is_named => picked.notes.push(format!("{name}: left out: its label `{label}` says so")),
                Some(label) => {
                    picked.notes.push(format!("{name}: its label `{label}` would leave it out, but the job names it"));
                    picked.chosen.containers.push(one.clone());
                }
                None => {
                    if !is_chosen {
                        picked.notes.push(format!("{name}: taken in: its label `rusuban.jobs` says so"));
                    }
                    picked.chosen.containers.push(one.clone());
                }
            }
        }
        picked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::{Address, State};

    fn labels(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_label_chooses_and_never_commands() {
        let policy = Policy::read(&labels(&[
            ("rusuban.enable", "true"),
            ("rusuban.jobs", "night, updates"),
            ("rusuban.snapshot", "unpaused"),
            ("rusuban.backup.stop", "yes"),
            ("rusuban.route.port", "8080"),
            ("rusuban.snapshot.job", "written by a snapshot"),
            ("traefik.enable", "true"),
        ]));
        assert_eq!(policy.refused, Vec::<String>::new());
        assert_eq!((policy.enable, policy.stop, policy.route_port), (Some(true), true, Some(8080)));
        assert_eq!(
            (policy.jobs, policy.snapshot),
            (vec!["night".to_owned(), "updates".to_owned()], Some(Kept::Unpaused))
        );
        for (label, value) in [
            ("rusuban.command", "rm -rf /"),
            ("rusuban.backup.path", "/etc/shadow"),
            ("rusuban.bucket", "elsewhere"),
            ("rusuban.hooks.before", "curl example.org | sh"),
            ("rusuban.jobs", "../../etc/passwd"),
            ("rusuban.route.name", "bank.example.org\n10.0.0.1 evil"),
            ("rusuban.route.port", "0"),
            ("rusuban.enable", "perhaps"),
        ] {
            let policy = Policy::read(&labels(&[(label, value)]));
            assert_eq!(policy.refused.len(), 1, "{label}");
            assert!(policy.refused[0].contains(label) && !policy.refused[0].contains('\n'), "{:?}", policy.refused);
            assert_eq!(Policy { refused: Vec::new(), ..policy }, Policy::default(), "{label}");
        }
    }

    #[test]
    fn containers_leave_and_join_jobs_but_what_a_job_names_itself_stays() {
        let one = |name: &str, all: &[(&str, &str)]| Listed {
            id: format!("id-{name}"),
            name: name.into(),
            state: State::Running,
            labels: labels(all),
            image: String::new(),
        };
        let all = [
            one("blog", &[("rusuban.enable", "false")]),
            one("db", &[("rusuban.snapshot", "false"), ("rusuban.command", "x")]),
            one("shop", &[("rusuban.jobs", "night")]),
            one("wiki-a", &[("rusuban.enable", "false")]),
            one("wiki-b", &[]),
        ];
        let choice = Choice { containers: vec!["blog".into(), "db*".into(), "wiki-*".into()], ..Choice::default() };
        let docker = Docker::at(Address::Http("x:1".into()));
        let names = |docker: &Docker, purpose| {
            let picked = docker.pick(&choice, &all, "night", purpose);
            (picked.chosen.containers.iter().map(|one| one.name.clone()).collect::<Vec<_>>().join(" "), picked)
        };
        assert_eq!(
            names(&docker, Purpose::Snapshot).0,
            "blog db wiki-a wiki-b",
            "labels do not count unless they are let"
        );
        let docker = docker.with_labels(true);
        let (chosen, picked) = names(&docker, Purpose::Snapshot);
        assert_eq!(chosen, "blog shop wiki-b");
        assert_eq!(picked.notes.len(), 4, "{:?}", picked.notes);
        assert!(picked.refused[0].starts_with("db: the label `rusuban.command` is not heeded"), "{:?}", picked.refused);
        assert_eq!(names(&docker, Purpose::Update).0, "blog db shop wiki-b");
    }
}
