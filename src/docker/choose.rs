//! Which containers are meant.
use std::collections::BTreeMap;

use globset::{Glob, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::container::Listed;
use crate::config::mistake::Problem;

/// The label that compose gives a container.
const PROJECT: &str = "com.docker.compose.project";

/// Patterns of containers; a container that fits any of them is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Choice {
    /// Names, and patterns of names with `*`, `?` and `[a-z]`.
    pub containers: Vec<String>,
    /// All that run.
    pub all: bool,
    /// Compose projects.
    pub compose: Vec<String>,
    /// Labels, `name` or `name=value`.
    pub label: Vec<String>,
    /// Names and patterns of names that are left out whatever else fits them.
    pub exclude: Vec<String>,
}

/// What a choice comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The containers, ordered by name.
    pub containers: Vec<Listed>,
    /// What was asked for by name and is not there, in words.
    pub missing: Vec<String>,
    /// Patterns and labels that fit none, in words: perhaps there is nothing to fit them now.
    pub unmatched: Vec<String>,
}

impl Choice {
    /// Whether nothing is chosen, whatever there is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && !self.all && self.compose.is_empty() && self.label.is_empty()
    }

    /// The names without a pattern in them.
    pub fn exact_names(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().map(String::as_str).filter(|name| !is_pattern(name))
    }

    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.is_empty() {
            problems.push(Problem::new("", "no container is chosen").hint(
                "add `containers = [\"blog\", \"wiki-*\"]`, `compose = [\"mastodon\"]`, `label = [\"…\"]` or `all = true`",
            ));
        }
        for (key, names) in [("containers", &self.containers), ("exclude", &self.exclude)] {
            for (number, name) in names.iter().enumerate() {
                let key = format!("{key}[{number}]");
                match Glob::new(name) {
                    Err(error) => problems.push(Problem::new(key, format!("`{name}` is no pattern: {}", error.kind()))),
                    Ok(_) if !is_pattern(name) && !is_name(name) => {
                        problems.push(Problem::new(key, format!("`{name}` cannot be a container's name")).hint(
                            "names have letters, digits, `_`, `.` and `-`; `docker ps` shows them in its last column",
                        ))
                    }
                    Ok(_) => {}
                }
            }
        }
        for (key, values) in [("compose", &self.compose), ("label", &self.label)] {
            for (number, value) in values.iter().enumerate() {
                if value.is_empty() || value.starts_with('=') {
                    problems.push(Problem::new(format!("{key}[{number}]"), "the name is empty"));
                }
            }
        }
        problems
    }

    /// Whether a container of this name and with these labels is meant, whatever it does.
    #[must_use]
    pub fn is_meant(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let fits = |patterns: &[String]| {
            patterns.iter().any(|one| Glob::new(one).is_ok_and(|glob| glob.compile_matcher().is_match(name)))
        };
        let is_chosen = self.all
            || fits(&self.containers)
            || labels.get(PROJECT).is_some_and(|project| self.compose.contains(project))
            || self.label.iter().any(|label| has_label(labels, label));
        is_chosen && !fits(&self.exclude)
    }

    /// Whether it names a container itself, and not only a pattern that fits.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.exact_names().any(|exact| exact == name)
    }

    /// The containers among `all` that are meant. Those that have ended are meant when they are named, by pattern, label or
    /// project; by `all` only those that are up.
    #[must_use]
    pub fn pick(&self, all: &[Listed]) -> Chosen {
        let matchers = |names: &[String]| -> Vec<(String, GlobMatcher)> {
            // What is no pattern was refused by `check`.
            names.iter().filter_map(|name| Some((name.clone(), Glob::new(name).ok()?.compile_matcher()))).collect()
        };
        let (named, excluded) = (matchers(&self.containers), matchers(&self.exclude));
        let is_in = |list: &[(String, GlobMatcher)], name: &str| list.iter().any(|(_, matcher)| matcher.is_match(name));
        let is_meant = |container: &Listed| {
            let project = container.labels.get(PROJECT);
            is_in(&named, &container.name)
                || (self.all && container.state.is_up())
                || project.is_some_and(|project| self.compose.contains(project))
                || self.label.iter().any(|label| has_label(&container.labels, label))
        };
        let fits = |container: &&Listed| is_meant(container) && !is_in(&excluded, &container.name);
        let none_named = |(_, matcher): &&(String, GlobMatcher)| !all.iter().any(|one| matcher.is_match(&one.name));
        let (patterns, names): (Vec<_>, Vec<_>) =
            named.iter().filter(none_named).partition(|(name, _)| is_pattern(name));
        let none_of = |fits: &dyn Fn(&Listed) -> bool| !all.iter().any(fits);
        let projects = self.compose.iter().filter(|project| none_of(&|one| one.labels.get(PROJECT) == Some(project)));
        let labels = self.label.iter().filter(|label| none_of(&|one| has_label(&one.labels, label)));
        Chosen {
            containers: all.iter().filter(fits).cloned().collect(),
            missing: (names.into_iter().map(|(name, _)| format!("no container `{name}`")))
                .chain(projects.map(|project| format!("no container of the compose project `{project}`")))
                .collect(),
            unmatched: (patterns.into_iter().map(|(pattern, _)| format!("no container fits `{pattern}`")))
                .chain(labels.map(|label| format!("no container has the label `{label}`")))
                .collect(),
        }
    }
}

fn has_label(labels: &BTreeMap<String, String>, label: &str) -> bool {
    match label.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
        None => labels.contains_key(label),
    }
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '[', '{'])
}

/// Whether a container or a volume can have this name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::State;

    fn container(name: &str, state: State, labels: &[(&str, &str)]) -> Listed {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Listed { id: format!("id-{name}"), name: name.into(), state, labels, image: "image".into() }
    }

    fn pick(choice: &str) -> (String, Vec<String>) {
        let all = [
            container("blog", State::Running, &[]),
            container("db", State::Running, &[(PROJECT, "mastodon")]),
            container("old", State::Exited, &[("keep", "yes")]),
            container("wiki-a", State::Paused, &[("keep", "no")]),
            container("wiki-b", State::Exited, &[]),
        ];
        let choice: Choice = toml::from_str(choice).unwrap();
        assert_eq!(choice.check(), []);
        let chosen = choice.pick(&all);
        let names = chosen.containers.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(" ");
        (names, [chosen.missing, chosen.unmatched].concat())
    }

    #[test]
    fn names_patterns_projects_and_labels_choose_together() {
        for (choice, expected) in [
            ("containers = ['blog']", "blog"),
            ("containers = ['wiki-*']", "wiki-a wiki-b"),
            ("containers = ['b?og', 'old']", "blog old"),
            ("all = true", "blog db wiki-a"),
            ("all = true\nexclude = ['wiki-*', 'db']", "blog"),
            ("compose = ['mastodon']", "db"),
            ("label = ['keep']", "old wiki-a"),
            ("label = ['keep=yes']\ncompose = ['mastodon']", "db old"),
        ] {
            assert_eq!(pick(choice), (expected.to_owned(), Vec::new()), "{choice}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let (chosen, missing) =
            pick("containers = ['blog', 'shop', 'shop-*']\ncompose = ['x']\nlabel = ['keep=maybe']");
        assert_eq!(chosen, "blog");
        assert_eq!(
            missing,
            [
                "no container `shop`",
                "no container of the compose project `x`",
                "no container fits `shop-*`",
                "no container has the label `keep=maybe`"
            ]
        );
    }

    #[test]
    fn a_choice_of_nothing_or_of_what_cannot_be_is_refused() {
        for (choice, key) in [
            ("", ""),
            ("exclude = ['a*']", ""),
            ("containers = ['[']", "containers[0]"),
            ("containers = ['blog', 'my blog']", "containers[1]"),
            ("all = true\nlabel = ['=x']", "label[0]"),
        ] {
            let problems = toml::from_str::<Choice>(choice).unwrap().check();
            assert_eq!(problems.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), [key], "{choice}");
        }
    }
}
