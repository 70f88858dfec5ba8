//! `command`: a program or a line for the shell, its output captured, its whole tree ended when it must stop.
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
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
    model::Level,
    policy::MissedPolicy,
    process::{self, Exit, Tree},
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "command",
    summary: "Runs a command of yours and keeps what it prints",
    example: include_str!("../../jobs/command.toml"),
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
    /// Where it runs; relative to the home folder, which is also the default.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// Added to its environment: texts, or secrets such as `{ file = "secrets/token" }`.
    #[serde(default)]
    pub env: BTreeMap<String, TextOrSecret>,
    /// As whom: a name in `/etc/passwd`. Another user than Rusuban's own needs root, and gets a fresh environment.
    #[serde(default)]
    pub user: Option<String>,
    /// The exit codes that mean success.
    #[serde(default = "zero")]
    pub expect_exit: Vec<u8>,
    /// What each of its processes may use.
    #[serde(default)]
    pub limits: Limits,
}

/// What each process of the command may use.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Address space; asking for more fails.
    pub memory: Option<Size>,
    /// Processor time, in whole seconds; a process that has used it up is ended.
    pub processor_time: Option<Span>,
    /// How much it stands back for others, from 0 to 19.
    pub niceness: Option<u8>,
}

fn zero() -> Vec<u8> {
    vec![0]
}

#[async_trait]
impl Kind for Command {
    fn check(&self, _: &Site) -> Vec<Problem> {
        let mut problems = Vec::new();
        match (&self.command, &self.shell) {
            (None, None) => problems.push(
                Problem::new("", "there is nothing to run")
                    .hint("add `command = [\"program\", \"argument\"]` or `shell = \"a line for sh\"`"),
            ),
            (Some(_), Some(_)) => {
                problems.push(Problem::new("shell", "`command` and `shell` are both given").hint("keep one of the two"))
            }
            (Some(list), None) if list.first().is_none_or(|program| program.trim().is_empty()) => {
                problems.push(Problem::new("command", "the command is empty").hint("name the program first"));
            }
            (Some(list), None) if list.len() == 1 && list[0].contains(char::is_whitespace) => problems.push(
                Problem::new("command", format!("`{}` would be the name of one program", list[0]))
                    .hint("split it into a list, one argument each, or use `shell`"),
            ),
            (None, Some(line)) if line.trim().is_empty() => {
                problems.push(Problem::new("shell", "the command is empty"));
            }
            _ => {}
        }
        for name in self.env.keys() {
            let key = format!("env.{name}");
            if name.is_empty() || name.contains(['=', '\0']) {
                problems.push(Problem::new(key, format!("`{name}` cannot be the name of an environment variable")));
            } else if name.starts_with("RUSUBAN_") {
                let hint = "use another name: those that begin with RUSUBAN_ are set by Rusuban";
                problems.push(Problem::new(key, format!("`{name}` is not yours to set")).hint(hint));
            }
        }
        if self.expect_exit.is_empty() {
            problems.push(
                Problem::new("expect_exit", "no exit code would mean success")
                    .hint("leave it out to expect 0, or list the codes: `[0, 24]`"),
            );
        }
        if self.limits.niceness.is_some_and(|niceness| niceness > 19) {
            problems.push(Problem::new("limits.niceness", "this goes from 0 to 19"));
        }
        if self.limits.processor_time.is_some_and(|time| time.0.as_secs() == 0) {
            problems.push(Problem::new("limits.processor_time", "this is at least `1s`"));
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        self.env.values().filter_map(TextOrSecret::secret).cloned().collect()
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let arguments = match (&self.command, &self.shell) {
            (Some(list), _) => list.clone(),
            (None, Some(line)) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
            (None, None) => bail!("there is nothing to run"),
        };
        let home = &cx.services.home;
        let command = process::Command {
            arguments,
            folder: Some(self.folder.as_ref().map_or_else(|| home.clone(), |folder| home.join(folder))),
            environment: self.environment(cx).await?,
            user: self.user.clone(),
            tree: Tree::new(home, cx.run),
            limits: process::Limits {
                memory: self.limits.memory.map(|size| size.0),
                processor_seconds: self.limits.processor_time.map(|time| time.0.as_secs()),
                niceness: self.limits.niceness,
            },
            grace: None,
        };
        let (mut count, mut last) = (0u64, String::new());
        let ended = process::run(&command, &cx.cancelled, |line| {
            count += 1;
            if !line.trim().is_empty() {
                line.clone_into(&mut last);
            }
            cx.record.line(Level::Output, line);
        })
        .await?;
        if ended.left_behind {
            cx.warn("the command has ended, but something it started still holds its output: it goes on, and is no longer heard");
        }
        match ended.exit {
            exit if ended.stopped => bail!("the command was asked to stop: {exit}"),
            Exit::Code(code) if self.expect_exit.iter().any(|expected| i32::from(*expected) == code) => {
                let lines = if count == 1 { "line" } else { "lines" };
                Ok(format!("exit code {code}, {count} {lines} of output"))
            }
            exit if last.is_empty() => bail!("{exit}, without a word"),
            exit => bail!("{exit}: {}", last.trim()),
        }
    }
}

impl Command {
    async fn environment(&self, cx: &Cx) -> anyhow::Result<Vec<(String, String)>> {
        let mut environment = vec![("RUSUBAN_JOB".to_owned(), cx.job.to_string())];
        for (name, value) in &self.env {
            let text = value.read(&cx.services.secrets).await.with_context(|| format!("set `env.{name}`"))?;
            environment.push((name.clone(), text.reveal().to_owned()));
        }
        Ok(environment)
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
