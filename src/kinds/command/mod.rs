//! `command`: a program or a line for the shell, its output captured, its whole tree ended when it must stop: here, in a
//! container that runs, or in one that is made for it.
mod check;
mod container;
mod guest;
mod here;
mod image;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Kind, KindEntry, Site, Summary};
use crate::{
    config::{
        mistake::Problem,
        secret::{SecretSource, TextOrSecret},
        units::{Size, Span},
    },
    docker::Access,
    model::Level,
    policy::MissedPolicy,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "command",
    summary: "Runs a command of yours and keeps what it prints",
    example: include_str!("../../../jobs/command.toml"),
    parse: |keys| Ok(Arc::new(Command::deserialize(keys)?)),
    schema: Command::json_schema,
    missed: MissedPolicy::Latest,
    class: "command",
    timeout: Some(Span::hours(24)),
};

/// A command of the owner's.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments; no shell reads them.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// A line for `/bin/sh -c`, instead of `command`.
    #[serde(default)]
    pub shell: Option<String>,
    /// The running container in which it runs, by its name.
    #[serde(default)]
    pub container: Option<String>,
    /// The image of which a container is made for it, and removed afterwards. Without `command` and `shell` it does what the
    /// image does by itself.
    #[serde(default)]
    pub image: Option<String>,
    /// With `image`, what the container sees: `volume:/path` or `/folder:/path`, with `:ro` not to be written to.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// With `image`, the container's network: a name, `none` or `host`.
    #[serde(default)]
    pub network: Option<String>,
    /// Where it runs; relative to the home folder, which is also the default. In a container, an absolute path of its own.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// Added to its environment: texts, or secrets such as `{ file = "secrets/token" }`.
    #[serde(default)]
    pub env: BTreeMap<String, TextOrSecret>,
    /// As whom: a name in `/etc/passwd`. Another user than Rusuban's own needs root, and gets a fresh environment.
    /// In a container, a user that the container knows: `name`, `number` or `user:group`.
    #[serde(default)]
    pub user: Option<String>,
    /// The exit codes that mean success.
    #[serde(default = "zero")]
    pub expect_exit: Vec<u8>,
    /// What each of its processes may use.
    #[serde(default)]
    pub limits: Limits,
}

/// What each process of the command may use. Of a container that is made for it, `memory` alone, of all its processes together.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Address space; asking for more fails. With `image`, memory; using more ends it.
    pub memory: Option<Size>,
    /// Processor time, in whole seconds; a process that has used it up is ended.
    pub processor_time: Option<Span>,
    /// How much it stands back for others, from 0 to 19.
    pub niceness: Option<u8>,
}

fn zero() -> Vec<u8> {
    vec![0]
}

/// How a command ended, wherever it ran.
struct End {
    /// Its exit code; none when a signal ended it.
    code: Option<i32>,
    /// The same in words.
    exit: String,
    /// It was asked to stop before.
    stopped: bool,
    /// Something that it started still holds its output.
    left_behind: bool,
}

/// What it printed.
#[derive(Default)]
struct Heard {
    count: u64,
    /// The last line that says something.
    last: String,
}

impl Heard {
    fn line(&mut self, cx: &Cx, line: &str) {
        self.count += 1;
        if !line.trim().is_empty() {
            line.clone_into(&mut self.last);
        }
        cx.record.line(Level::Output, line);
    }
}

#[async_trait]
impl Kind for Command {
    fn check(&self, _: &Site) -> Vec<Problem> {
        check::problems(self)
    }

    fn secrets(&self) -> Vec<SecretSource> {
        self.env.values().filter_map(TextOrSecret::secret).cloned().collect()
    }

    fn engine(&self) -> Vec<Access> {
        match (&self.container, &self.image) {
            (Some(_), _) => container::engine(),
            (None, Some(_)) => image::engine(),
            (None, None) => Vec::new(),
        }
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let mut heard = Heard::default();
        let end = match (&self.container, &self.image) {
            (Some(container), _) => container::run(self, container, cx, &mut heard).await?,
            (None, Some(image)) => image::run(self, image, cx, &mut heard).await?,
            (None, None) => here::run(self, cx, &mut heard).await?,
        };
        self.judge(cx, &end, &heard)
    }
}

impl Command {
    /// What runs: the list, or the shell with its line.
    fn arguments(&self) -> anyhow::Result<Vec<String>> {
        match (&self.command, &self.shell) {
            (Some(list), _) => Ok(list.clone()),
            (None, Some(line)) => Ok(vec!["/bin/sh".into(), "-c".into(), line.clone()]),
            (None, None) => bail!("there is nothing to run"),
        }
    }

    async fn environment(&self, cx: &Cx) -> anyhow::Result<Vec<(String, String)>> {
        let mut environment = vec![("RUSUBAN_JOB".to_owned(), cx.job.to_string())];
        environment.extend(cx.trigger.environment());
        for (name, value) in &self.env {
            let text = value.read(&cx.services.secrets).await.with_context(|| format!("set `env.{name}`"))?;
            environment.push((name.clone(), text.reveal().to_owned()));
        }
        Ok(environment)
    }

    fn judge(&self, cx: &Cx, end: &End, Heard { count, last }: &Heard) -> anyhow::Result<Summary> {
        let exit = &end.exit;
        if end.left_behind {
            cx.warn("the command has ended, but something it started still holds its output: it goes on, and is no longer heard");
        }
        let is_expected = self.expect_exit.iter().any(|expected| Some(i32::from(*expected)) == end.code);
        if end.stopped {
            bail!("the command was asked to stop: {exit}");
        } else if is_expected {
            let lines = if *count == 1 { "line" } else { "lines" };
            Ok(format!("{exit}, {count} {lines} of output"))
        } else if last.is_empty() {
            bail!("{exit}, without a word")
        } else {
            bail!("{exit}: {}", last.trim())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Arc<dyn Kind>, toml::de::Error> {
        (ENTRY.parse)(toml::Deserializer::parse(toml)?)
    }

    fn problems(toml: &str) -> Vec<String> {
        let kind = read(toml).unwrap();
        kind.check(&Site::default())
            .into_iter()
            .map(|problem| format!("{}: {}", problem.key, problem.message))
            .collect()
    }

    #[test]
    fn commands_that_cannot_work_are_found_before_they_run() {
        for (toml, expected) in [
            ("", ": there is nothing to run"),
            ("command = ['true']\nshell = 'true'", "shell: `command` and `shell` are both given"),
            ("command = []", "command: the command is empty"),
            ("shell = ' '", "shell: the command is empty"),
            ("command = ['ls -l']", "command: `ls -l` would be the name of one program"),
            ("shell = 'true'\nenv = { RUSUBAN_RUN = '1' }", "env.RUSUBAN_RUN: `RUSUBAN_RUN` is not yours to set"),
            ("shell = 'true'\nexpect_exit = []", "expect_exit: no exit code would mean success"),
            ("shell = 'true'\nlimits = { niceness = 20 }", "limits.niceness: this goes from 0 to 19"),
        ] {
            assert_eq!(problems(toml), [expected], "{toml}");
        }
        for fine in [
            "image = 'restic'",
            "container = 'blog'\nshell = 'ls'\nfolder = '/srv'\nuser = '33:33'",
            "image = 'a/b:1'\ncommand = ['x']\nvolumes = ['data:/data:ro']\nnetwork = 'none'\nlimits = { memory = '1 GiB' }",
        ] {
            assert!(problems(fine).is_empty(), "{fine}");
        }
        assert!(
            problems("command = ['ls', '-l']\nfolder = 'x'\nuser = 'root'\nlimits = { memory = '1 GiB' }").is_empty()
        );
    }

    #[test]
    fn wrong_keys_and_types_are_refused() {
        for toml in [
            "comand = ['ls']",
            "command = 'ls'",
            "shell = 'a'\nexpect_exit = [256]",
            "env = { A = 1 }",
            "env = { A = { vault = 'x' } }",
        ] {
            assert!(read(toml).is_err(), "{toml}");
        }
        let wrong = read("env = { A = 1 }").unwrap_err().to_string();
        assert!(wrong.contains("a text in quotes, or a secret"), "{wrong}");
    }

    #[test]
    fn secrets_of_the_environment_are_named_for_removal() {
        let kind = read("shell = 'true'\nenv = { A = 'x', B = { env = 'TOKEN' } }").unwrap();
        assert_eq!(kind.secrets(), [SecretSource::Env("TOKEN".into())]);
    }
}
