//! The keys of a `backup` job, and what can be wrong with them.
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::consistency::Consistency;
use crate::{
    config::mistake::Problem,
    docker,
    kinds::{
        Site, generations,
        keeping::{How, Keeping, Kept},
    },
    plain::{
        Options,
        age::{AgeError, Recipient},
        is_plain_name,
    },
    retention::{Keep, Rotation, Rule},
    tree::Excludes,
};

/// More threads than this read more memory than they save time.
const MOST_THREADS: usize = 4;

/// Files, folders, Docker volumes and SQLite databases, kept in a bucket.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Where to: a bucket of rusuban.toml [default: local, a folder in the data folder].
    #[serde(default = "local")]
    pub bucket: String,
    /// Instead of a bucket: a repository of rusuban.toml, deduplicated and encrypted.
    #[serde(default)]
    pub repository: Option<String>,
    /// How many generations of each age stay [default: all of them, for ever].
    #[serde(default)]
    pub keep: Option<Keep>,
    /// Instead of `keep`: slots that are written again and again.
    #[serde(default)]
    pub rotation: Option<Rotation>,
    /// Encryption [default: none].
    #[serde(default)]
    pub encrypt: Option<Encrypt>,
    /// Compression.
    #[serde(default)]
    pub compression: Compression,
    /// What is kept. Several sources are one backup: all of them are in it, or there is none.
    #[serde(default)]
    pub source: Vec<Source>,
}

/// Encryption with age, to public keys: this host cannot read what it wrote unless it has a secret key as well.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Encrypt {
    /// Public keys, `age1…`, as `age-keygen` prints them. Each of them opens it alone.
    pub recipients: Vec<String>,
}

/// Compression with zstd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Compression {
    /// From 1, fast, to 19, small [default: 3].
    pub level: i32,
    /// Threads; 0: as many as the machine has cores, but at most 4 [default: 0].
    pub threads: u32,
}

impl Default for Compression {
    fn default() -> Self {
        Self { level: 3, threads: 0 }
    }
}

/// One thing to keep: exactly one of `path`, `sqlite`, `volume`, `container` and `self`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Its name in the backup [default: that of the file or folder].
    pub name: Option<String>,
    /// A file or folder.
    pub path: Option<PathBuf>,
    /// A SQLite database, which may be in use.
    pub sqlite: Option<PathBuf>,
    /// A Docker volume.
    pub volume: Option<String>,
    /// A container: all its volumes, each a folder below the source.
    pub container: Option<String>,
    /// With `container`: what is bound into it from the host as well.
    pub binds: bool,
    /// With `volume` and `container`: what becomes of the containers that write to it while it is read [default: pause].
    pub consistency: Option<Consistency>,
    /// Rusuban's own ledger, settings and job files.
    #[serde(rename = "self")]
    pub own: bool,
    /// Patterns of files and folders to leave out. Without `/` they fit a name anywhere; with `/` they begin at the
    /// source's top; with `/` at the end they fit folders only. `*` stays within a folder, `**` does not.
    pub exclude: Vec<String>,
    /// File systems mounted below are left out.
    pub one_file_system: bool,
    /// A folder without a single file is not an error.
    pub allow_empty: bool,
}

/// What a source is read from.
pub(super) enum From<'a> {
    Path(&'a Path),
    Sqlite(&'a Path),
    Volume(&'a str),
    Container(&'a str),
    Own,
}

fn local() -> String {
    "local".to_owned()
}

impl Source {
    pub(super) fn from(&self) -> Option<From<'_>> {
        let mut all = self.all_of_it();
        all.next().filter(|_| all.next().is_none())
    }

    fn all_of_it(&self) -> impl Iterator<Item = From<'_>> {
        let path = self.path.as_deref().map(From::Path);
        let sqlite = self.sqlite.as_deref().map(From::Sqlite);
        let volume = self.volume.as_deref().map(From::Volume);
        let container = self.container.as_deref().map(From::Container);
        let own = self.own.then_some(From::Own);
        [path, sqlite, volume, container, own].into_iter().flatten()
    }

    /// What becomes of those who write to it.
    pub(super) fn consistency(&self) -> Consistency {
        self.consistency.clone().unwrap_or_default()
    }

    /// Whether it is read from a Docker engine.
    pub(super) fn is_of_docker(&self) -> bool {
        self.volume.is_some() || self.container.is_some()
    }

    /// Where it is on the disk; relative to the home folder.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref().or(self.sqlite.as_deref())
    }

    /// Its name in the backup.
    pub(super) fn name(&self) -> String {
        let from_path = || self.path().map(|path| path.file_name().unwrap_or("root".as_ref()).to_string_lossy().into());
        let of_docker = || self.volume.clone().or_else(|| self.container.clone());
        self.name.clone().or_else(from_path).or_else(of_docker).unwrap_or_else(|| "rusuban".to_owned())
    }

    /// What it keeps, and in which step.
    pub(super) fn keeping(&self) -> Option<Keeping> {
        let exclude = || self.exclude.clone();
        let of_docker = || match self.consistency() {
            Consistency::None => How::AsItIs,
            Consistency::Pause | Consistency::Stop => How::AtOneMoment,
            Consistency::Told(_) => How::Told,
        };
        let (what, how) = match self.from()? {
            From::Path(path) => {
                let path = path.to_owned();
                (Kept::Path { path, exclude: exclude(), one_file_system: self.one_file_system }, How::AsItIs)
            }
            From::Sqlite(path) => (Kept::Sqlite(path.to_owned()), How::AtOneMoment),
            From::Volume(name) => (Kept::Volume { name: name.to_owned(), exclude: exclude() }, of_docker()),
            From::Container(name) => {
                (Kept::Container { name: name.to_owned(), binds: self.binds, exclude: exclude() }, of_docker())
            }
            From::Own => (Kept::Own, How::AtOneMoment),
        };
        Some(Keeping { step: Some(self.name()), what, how })
    }

    pub(super) fn excludes(&self) -> anyhow::Result<Excludes> {
        Excludes::new(&self.exclude)
            .map_err(|(number, why)| anyhow::anyhow!("the pattern `{}` cannot be read: {why}", self.exclude[number]))
    }

    fn problems(&self, key: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let one_of = "name exactly one: `path = \"/srv/files\"`, `sqlite = \"/srv/app.db\"`, `volume = \"blog-data\"`, `container = \"blog\"` or `self = true`";
        if self.from().is_none() {
            let none = self.all_of_it().next().is_none();
            let what =
                if none { "this source does not say what it is" } else { "this source is several things at once" };
            problems.push(Problem::new(key, what).hint(one_of));
        }
        for (name, path) in [("path", &self.path), ("sqlite", &self.sqlite)] {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                problems.push(Problem::new(format!("{key}.{name}"), "the path is empty").hint(one_of));
            }
        }
        if let Err((number, why)) = Excludes::new(&self.exclude) {
            let key = format!("{key}.exclude[{number}]");
            let hint = "`*` and `?` stand for what they do in a shell, `[a-z]` for one letter, `**` for any folders";
            problems.push(Problem::new(key, format!("`{}` is no pattern: {why}", self.exclude[number])).hint(hint));
        }
        for (what, name) in [("volume", &self.volume), ("container", &self.container)] {
            let Some(name) = name.as_deref().filter(|name| !docker::is_name(name)) else { continue };
            let is_path = name.contains('/');
            let hint = match what {
                "volume" if is_path => {
                    "a folder of this host is a `path`; `docker volume ls` shows the volumes' names".to_owned()
                }
                "volume" => "`docker volume ls` shows their names".to_owned(),
                _ => "`docker ps` shows their names in its last column".to_owned(),
            };
            problems
                .push(Problem::new(format!("{key}.{what}"), format!("`{name}` cannot be a {what}'s name")).hint(hint));
        }
        let has_name = self.name.is_some() || !self.is_of_docker();
        if has_name && !is_plain_name(&self.name()) {
            let key = format!("{key}.{}", if self.name.is_some() { "name" } else { "path" });
            problems.push(
                Problem::new(key, format!("`{}` cannot be a source's name: it becomes a file's name", self.name()))
                    .hint("give it a `name` without `/`"),
            );
        }
        for (name, set) in [
            ("exclude", !self.exclude.is_empty()),
            ("one_file_system", self.one_file_system),
            ("allow_empty", self.allow_empty),
        ] {
            if set && self.path.is_none() && !self.is_of_docker() {
                let key = format!("{key}.{name}");
                let what = format!("`{name}` is for sources with a `path`, a `volume` or a `container`");
                problems.push(Problem::new(key, what).hint("remove it"));
            }
        }
        if self.consistency.is_some() && !self.is_of_docker() {
            let what = "`consistency` is for sources with a `volume` or a `container`";
            let hint = "around the whole run, commands of this host are `hooks = { before = […], after = […] }`";
            problems.push(Problem::new(format!("{key}.consistency"), what).hint(hint));
        }
        if let Some(Consistency::Told(told)) = &self.consistency {
            let key = format!("{key}.consistency");
            if told.before.is_none() && told.after.is_none() {
                let what = "there is neither a `before` nor an `after`";
                let hint = "`before = [\"program\", \"argument\"]` is run in the container; \"pause\" and \"stop\" need no commands";
                problems.push(Problem::new(&key, what).hint(hint));
            }
            if told.container.as_deref().is_some_and(|name| !docker::is_name(name)) {
                let name = told.container.as_deref().unwrap_or_default();
                let what = format!("`{name}` cannot be a container's name");
                let hint = "`docker ps` shows their names in its last column";
                problems.push(Problem::new(format!("{key}.container"), what).hint(hint));
            }
        }
        if self.binds && self.container.is_none() {
            let what = "`binds` is for sources with a `container`";
            problems.push(Problem::new(format!("{key}.binds"), what).hint("remove it, or write `container = \"…\"`"));
        }
        problems
    }
}

impl Backup {
    pub(super) fn problems(&self, site: &Site) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(site.knows_bucket("bucket", &self.bucket));
        if let Some(repository) = &self.repository {
            problems.extend(site.knows_repository("repository", repository));
            for (key, set, why) in [
                ("bucket", self.bucket != local(), "the repository names its bucket itself"),
                ("encrypt", self.encrypt.is_some(), "a repository is encrypted with its own key"),
                ("compression", self.compression != Compression::default(), "the repository's `compression` counts"),
            ] {
                if set {
                    problems.push(
                        Problem::new(key, format!("`{key}` and `repository` do not go together: {why}"))
                            .hint("remove it"),
                    );
                }
            }
        }
        problems.extend(generations::problems(self.keep, self.rotation));
        if let Some(encrypt) = &self.encrypt {
            if encrypt.recipients.is_empty() {
                problems
                    .push(Problem::new("encrypt.recipients", "nobody could ever read it: no public key is named").hint(
                    "`age-keygen` makes a key and prints its public half, `age1…`; remove `encrypt` for no encryption",
                ));
            }
            for (number, recipient) in encrypt.recipients.iter().enumerate() {
                if let Err(error) = recipient.parse::<Recipient>() {
                    problems.push(Problem::new(format!("encrypt.recipients[{number}]"), error.to_string()));
                }
            }
        }
        if !(1..=19).contains(&self.compression.level) {
            problems.push(Problem::new("compression.level", "this goes from 1 to 19").hint("3 is the default"));
        }
        if self.compression.threads > 64 {
            problems.push(Problem::new("compression.threads", "this goes from 0 to 64").hint("0 is the default"));
        }
        if self.source.is_empty() {
            problems.push(
                Problem::new("", "there is nothing to keep")
                    .hint("add `[[source]]` and below it `path = \"/srv/files\"`"),
            );
        }
        let mut names = HashSet::new();
        for (number, source) in self.source.iter().enumerate() {
            let key = format!("source[{number}]");
            problems.extend(source.problems(&key));
            if !names.insert(source.name()) {
                problems.push(
                    Problem::new(key, format!("a source before it is named `{}` as well", source.name()))
                        .hint("give one of them another: `name = \"…\"`"),
                );
            }
        }
        problems
    }

    pub(super) fn rule(&self) -> Rule {
        generations::rule(self.keep, self.rotation)
    }

    pub(super) fn options(&self) -> Result<Options, AgeError> {
        let recipients = self.encrypt.iter().flat_map(|encrypt| &encrypt.recipients);
        let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let threads = match self.compression.threads {
            0 => u32::try_from(cores()).unwrap_or(1),
            threads => threads,
        };
        let recipients = recipients.map(|recipient| recipient.parse()).collect::<Result<_, _>>()?;
        Ok(Options { level: self.compression.level, threads, recipients })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(toml: &str) -> Vec<String> {
        let backup: Backup = toml::from_str(toml).unwrap();
        let site = Site { buckets: vec!["local".into(), "nas".into()], ..Site::default() };
        backup.problems(&site).into_iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
    }

    #[test]
    fn each_mistake_is_told_at_its_key() {
        assert_eq!(problems("[[source]]\npath = '/srv'"), Vec::<String>::new());
        for (toml, key) in [
            ("", ": there is nothing"),
            ("bucket = 'nsa'\n[[source]]\nself = true", "bucket: "),
            ("keep = { daily = 1 }\nrotation = 'weekday-month'\n[[source]]\nself = true", "rotation: "),
            ("keep = {}\n[[source]]\nself = true", "keep: "),
            ("encrypt = { recipients = [] }\n[[source]]\nself = true", "encrypt.recipients: "),
            ("encrypt = { recipients = ['age1x'] }\n[[source]]\nself = true", "encrypt.recipients[0]: "),
            ("compression = { level = 20 }\n[[source]]\nself = true", "compression.level: "),
            ("[[source]]\n", "source[0]: this source does not"),
            ("[[source]]\npath = '/a'\nsqlite = '/b'", "source[0]: this source is several"),
            ("[[source]]\npath = '/a'\nexclude = ['*.tmp', '[']", "source[0].exclude[1]: "),
            ("[[source]]\nsqlite = '/a'\nexclude = ['*.tmp']", "source[0].exclude: "),
            ("[[source]]\nvolume = 'a/b'", "source[0].volume: "),
            ("[[source]]\ncontainer = ''", "source[0].container: "),
            ("[[source]]\nvolume = 'data'\nbinds = true", "source[0].binds: "),
            ("[[source]]\npath = '/a'\nconsistency = 'stop'", "source[0].consistency: "),
            ("[[source]]\nvolume = 'data'\ncontainer = 'blog'", "source[0]: this source is several"),
            ("[[source]]\npath = '/a/x'\n[[source]]\npath = '/b/x'", "source[1]: a source before"),
            ("[[source]]\npath = '/a'\nname = 'a/b'", "source[0].name: "),
        ] {
            let found = problems(toml);
            assert!(found.len() == 1 && found[0].starts_with(key), "{toml}\n{found:?}");
        }
    }

    #[test]
    fn defaults_written_out_mean_the_same() {
        let short: Backup = toml::from_str("[[source]]\npath = '/srv'").unwrap();
        let long: Backup = toml::from_str(
            "bucket = 'local'\ncompression = { level = 3, threads = 0 }\n[[source]]\npath = '/srv'\nself = false\nexclude = []\none_file_system = false\nallow_empty = false",
        )
        .unwrap();
        assert_eq!(serde_json::to_value(short).unwrap(), serde_json::to_value(long).unwrap());
    }
}
