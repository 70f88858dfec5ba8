//! The keys of a `container-update` job, and what can be wrong with them.
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    config::{mistake::Problem, units::Span},
    docker::Choice,
};

/// Containers, made anew when there is a newer image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerUpdate {
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
    /// The registry is asked for what the image's name means today; else what the name means on the host counts.
    pub pull: bool,
    /// Only tells which containers have a newer image. Nothing is fetched or changed.
    pub report: bool,
    /// A snapshot of a container is taken before it is replaced.
    pub snapshot: bool,
    /// How long a new container has to become well [default: as long as its health check may take, and a minute at least].
    pub wait: Option<Span>,
    /// How long it must stay well then.
    pub watch: Span,
    /// A command in the new container that must succeed before it counts as well, and once more when it has been watched: a program and its arguments.
    pub check: Option<Vec<String>>,
    /// A port on which the new container must answer.
    pub port: Option<u16>,
    /// An image with which a container went back is tried again each time, and not only when there is yet another.
    pub again: bool,
}

impl Default for ContainerUpdate {
    fn default() -> Self {
        Self {
            containers: Vec::new(),
            all: false,
            compose: Vec::new(),
            label: Vec::new(),
            exclude: Vec::new(),
            pull: true,
            report: false,
            snapshot: true,
            wait: None,
            watch: Span::seconds(60),
            check: None,
            port: None,
            again: false,
        }
    }
}

impl ContainerUpdate {
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

    /// Whether it can only be one container.
    fn is_of_one(&self) -> bool {
        let others = self.all || !self.compose.is_empty() || !self.label.is_empty();
        !others && self.containers.len() == 1 && self.choice().exact_names().count() == 1
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.choice().check();
        if self.check.as_ref().is_some_and(|check| check.first().is_none_or(String::is_empty)) {
            problems.push(
                Problem::new("check", "it names no program")
                    .hint("such as `check = [\"curl\", \"-f\", \"http://localhost/\"]`"),
            );
        }
        for (key, is_given) in [("check", self.check.is_some()), ("port", self.port.is_some())] {
            if is_given && !self.is_of_one() && !self.choice().is_empty() {
                problems.push(
                    Problem::new(key, format!("`{key}` is for one container, and the job may mean several"))
                        .hint("write a job of its own for that container: `containers = [\"blog\"]`"),
                );
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_is_told_at_its_key() {
        let problems = |toml: &str| -> Vec<String> {
            let keys: ContainerUpdate = toml::from_str(toml).unwrap();
            keys.problems().into_iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
        };
        for fine in ["all = true", "containers = ['blog']\ncheck = ['true']\nport = 80\nwatch = '5m'"] {
            assert_eq!(problems(fine), Vec::<String>::new(), "{fine}");
        }
        for (toml, key) in [
            ("", ": no container"),
            ("port = 80", ": no container"),
            ("containers = ['blog']\ncheck = []", "check: it names no"),
            ("containers = ['blog-*']\ncheck = ['true']", "check: `check` is for one"),
            ("containers = ['blog']\nall = true\nport = 80", "port: `port` is for one"),
        ] {
            let found = problems(toml);
            assert!(found.len() == 1 && found[0].starts_with(key), "{toml}\n{found:?}");
        }
    }
}
