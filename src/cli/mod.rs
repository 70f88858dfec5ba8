//! The command line: one file per command. Every command but the long-running ones has `--json`; every exit code is in
//! [`Exit`].
use std::{io::Write, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    app::control::Request,
    clock::Clock,
    config::{self, Config, Environment, Home, mistake::Mistake},
    model::RunId,
    text,
};

mod backups;
mod bucket;
mod check;
mod containers;
mod control;
mod coverage;
mod dns;
mod docker_acl;
mod engine;
mod init;
mod jobs;
mod kit;
mod look;
mod manual;
mod notify;
mod paint;
mod progress;
mod repository;
mod rollback;
mod run;
mod runs;
mod serve;
mod sites;
mod snapshots;
mod volume_helper;
mod volumes;
mod when;

const EXIT_STATUS: &str = "\
Exit status:
  0    all is well
  1    the job, the restore or the check failed
  2    the command line is wrong
  3    rusuban.toml or a job file is wrong
  4    there is no such job, run, site, backup, bucket, repository, kind, notifier, container or image
  130  interrupted, or the run was cancelled";

/// How a command ended; the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// The job, the restore or the check failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// `rusuban.toml` or a job file is wrong.
    Configuration = 3,
    /// There is no such job, run, backup, bucket, repository, kind, notifier, container or image.
    Missing = 4,
    /// Interrupted, or the run was cancelled.
    Interrupted = 130,
}

/// An error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Told {
    exit: Exit,
    text: String,
}

impl Told {
    fn missing(text: String) -> anyhow::Error {
        Self { exit: Exit::Missing, text }.into()
    }

    fn usage(text: String) -> anyhow::Error {
        Self { exit: Exit::Usage, text }.into()
    }
}

/// Keeps the house while you are away: backups that are proven, schedules that are kept, and the truth about both.
#[derive(Debug, Parser)]
#[command(name = "rusuban", version, after_help = EXIT_STATUS, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    /// The home folder, with `rusuban.toml` and `jobs/` [default: $RUSUBAN_HOME, else the current folder]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,

    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,

    /// Colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,

    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented rusuban.toml and first jobs; where Docker runs, jobs for what is on its host
    Init(init::Arguments),
    /// Look for mistakes in all files, and show when each job will run
    Check(CheckArguments),
    /// Run the jobs on time until stopped
    Serve,
    /// Run a job now and follow it
    Run {
        /// The job's name
        job: String,
        /// Show warnings and errors only
        #[arg(long, short)]
        quiet: bool,
    },
    /// List the jobs: how the last run ended, when the next is due
    Jobs,
    /// Show when jobs are due next
    Next {
        /// Only this job
        job: Option<String>,
        /// How many slots of each
        #[arg(long, short = 'n', default_value_t = 5)]
        count: usize,
    },
    /// List runs, the newest first
    Runs {
        /// Only this job's
        job: Option<String>,
        /// How many
        #[arg(long, short = 'n', default_value_t = 20)]
        count: u32,
        /// Slots that were skipped or missed too
        #[arg(long)]
        slots: bool,
    },
    /// Show the log of a run
    Log {
        /// The run's number, or a job's name for its newest run
        run: String,
        /// Go on until the run ends
        #[arg(long, short)]
        follow: bool,
    },
    /// List sites and services: how they are, since when, how they were; of one, all that is known
    Sites {
        /// Only this site, or those of this job
        site: Option<String>,
    },
    /// List incidents, the newest first: from the first failure to the recovery, with their causes
    Incidents {
        /// Only those that go on
        #[arg(long)]
        open: bool,
        /// How many
        #[arg(long, short = 'n', default_value_t = 20)]
        count: u32,
    },
    /// Say that a site is being worked on, so that its failures are not told and do not count
    Maintenance {
        /// The site, or the name of a job or a container; `all` for all; without it, what is being worked on
        site: Option<String>,
        /// For how long, such as `2h`; or `end`
        time: Option<String>,
    },
    /// Ask a run to stop
    Cancel {
        /// The run's number
        run: RunId,
    },
    /// Let a job's slots go by until it is resumed
    Pause {
        /// The job's name
        job: String,
    },
    /// Take up a paused job's schedule again
    Resume {
        /// The job's name
        job: String,
    },
    /// Read the files again, as the server does by itself when they change
    Reload,
    /// How people are told: list the notifiers, try one out, see what waits
    Notify {
        #[command(subcommand)]
        command: Option<notify::Command>,
    },
    /// List the backups that are there
    Backups {
        /// Only this job's
        job: Option<String>,
        /// Only in this bucket
        #[arg(long, value_name = "NAME")]
        bucket: Option<String>,
        /// Only in this repository
        #[arg(long, value_name = "NAME", conflicts_with = "bucket")]
        repository: Option<String>,
    },
    /// Bring a backup back; nothing that is there is touched without --replace
    Restore(backups::Restore),
    /// Take a container back to a snapshot; what is there comes back by itself when the snapshot is not well
    Rollback(rollback::Arguments),
    /// Read a backup again, all of it, and compare it with its manifest
    Verify(backups::Which),
    /// Try out a bucket, or list them
    #[command(subcommand)]
    Bucket(bucket::Command),
    /// Make, check and prune repositories: deduplicated, encrypted backups in the restic format
    #[command(subcommand)]
    Repository(repository::Command),
    /// List what a backup holds
    Ls {
        #[command(flatten)]
        which: backups::Which,
        /// A folder or file in the backup [default: its sources]
        path: Option<PathBuf>,
        /// All that is below, too
        #[arg(long, short)]
        recursive: bool,
    },
    /// Find which backups in repositories have a file
    Find(look::Find),
    /// Show what changed between two backups in a repository
    Diff(look::Diff),
    /// Write one file of a backup in a repository to standard output
    Dump {
        #[command(flatten)]
        which: backups::Which,
        /// The file, as `rusuban ls` shows it
        path: PathBuf,
    },
    /// List what is on the Docker host, which job keeps it, and what nobody keeps
    Coverage(coverage::Arguments),
    /// Show which addresses dynamic DNS providers have, and lift what keeps them from being told
    #[command(subcommand)]
    Dns(dns::Command),
    /// Print what jobs need of the Docker engine, for a proxy that lets through no more
    DockerAcl(docker_acl::Arguments),
    /// Print what must be kept on paper to bring everything back: places, keys and commands, secrets included
    RecoveryKit(kit::Arguments),
    /// List what jobs can do, or show one kind's example
    Kinds {
        /// The kind
        kind: Option<String>,
    },
    /// Print the JSON schema of rusuban.toml or of job files, for editors
    Schema {
        /// Which file's
        #[arg(value_enum, default_value = "job")]
        file: SchemaOf,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// What Rusuban runs in containers of its own; nothing for people
    #[command(hide = true)]
    VolumeHelper(volume_helper::Arguments),
    /// Write the manual pages into a folder
    Man {
        /// The folder, created if it is not there
        folder: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct CheckArguments {
    /// Also knock at each bucket and at the Docker engine, and read each secret
    #[arg(long)]
    connect: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchemaOf {
    Settings,
    Job,
}

/// What every command is given.
struct Context<'a> {
    home: Home,
    environment: Environment,
    json: bool,
    clock: Clock,
    out: &'a mut (dyn Write + Send),
    errors: &'a mut (dyn Write + Send),
}

impl Cli {
    /// Does what was asked for, printing to `out` and `errors`.
    ///
    /// # Errors
    /// Anything that is not an expected end; `main` prints the chain and exits with [`Exit::Failed`].
    pub async fn run(self, out: &mut (dyn Write + Send), errors: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
        if let Command::VolumeHelper(arguments) = &self.command {
            // There is no home where it runs.
            return volume_helper::help(arguments).map(|()| Exit::Fine);
        }
        let environment = Environment::of_process();
        let home = Home::find(self.home, &environment)?;
        let clock = Clock::system();
        let mut context = Context { home, environment, json: self.json, clock, out, errors };
        let done = Self::carry_out(self.command, &mut context).await;
        match done.as_ref().err().and_then(|error| error.downcast_ref::<Told>()) {
            Some(Told { exit, .. }) => {
                let exit = *exit;
                if let Err(error) = done {
                    writeln!(context.errors, "{} {error:#}", paint::bad("error:"))?;
                }
                Ok(exit)
            }
            None => done,
        }
    }

    async fn carry_out(command: Command, context: &mut Context<'_>) -> anyhow::Result<Exit> {
        match command {
            Command::Init(arguments) => init::init(context, &arguments).await,
            Command::Check(arguments) => check::check(context, arguments.connect).await,
            Command::Serve => serve::serve(context).await,
            Command::Run { job, quiet } => run::run(context, &job, quiet).await,
            Command::Jobs => jobs::list(context).await,
            Command::Next { job, count } => jobs::due(context, job.as_deref(), count).await,
            Command::Runs { job, count, slots } => runs::list(context, job.as_deref(), count, slots).await,
            Command::Log { run, follow } => runs::log(context, &run, follow).await,
            Command::Sites { site } => sites::list(context, site.as_deref()).await,
            Command::Incidents { open, count } => sites::incidents(context, open, count).await,
            Command::Maintenance { site, time } => sites::maintenance(context, site.as_deref(), time.as_deref()).await,
            Command::Cancel { run } => control::needs_server(context, &Request::Cancel { run }).await,
            Command::Pause { job } => control::pause(context, &job, true).await,
            Command::Resume { job } => control::pause(context, &job, false).await,
            Command::Reload => control::needs_server(context, &Request::Reload).await,
            Command::Notify { command } => notify::run(context, command).await,
            Command::Backups { job, bucket, repository } => {
                backups::list(context, job.as_deref(), bucket.as_deref(), repository.as_deref()).await
            }
            Command::Restore(arguments) => backups::restore(context, arguments).await,
            Command::Rollback(arguments) => rollback::rollback(context, arguments).await,
            Command::Verify(which) => backups::verify(context, which).await,
            Command::Bucket(command) => bucket::run(context, command).await,
            Command::Repository(command) => repository::run(context, command).await,
            Command::Ls { which, path, recursive } => look::ls(context, which, path, recursive).await,
            Command::Find(arguments) => look::find(context, arguments).await,
            Command::Diff(arguments) => look::diff(context, arguments).await,
            Command::Dump { which, path } => snapshots::dump(context, which, &path).await,
            Command::Coverage(arguments) => coverage::coverage(context, &arguments).await,
            Command::Dns(command) => dns::run(context, command).await,
            Command::DockerAcl(arguments) => docker_acl::print(context, &arguments),
            Command::RecoveryKit(kit::Arguments { repository, html }) => {
                kit::kit(context, repository.as_deref(), html.as_deref()).await
            }
            Command::Kinds { kind } => manual::kinds(context, kind.as_deref()),
            Command::Schema { file } => manual::schema(context, file),
            Command::Completions { shell } => manual::completions(context, shell),
            Command::Man { folder } => manual::pages(context, &folder),
            Command::VolumeHelper(arguments) => volume_helper::help(&arguments).map(|()| Exit::Fine),
        }
    }

    /// How much the operator's log says on standard error, unless `RUSUBAN_LOG` says otherwise: a server tells what it does,
    /// a command that shows it anyway tells only what is wrong.
    #[must_use]
    pub fn log_level(&self) -> &'static str {
        match self.command {
            Command::Serve => "warn,rusuban=info",
            // It shows the run and how it ended; of runs that a crash cut off it tells.
            Command::Run { .. } | Command::Rollback(_) | Command::Restore(_) => {
                "warn,rusuban::runner=error,rusuban::runner::recover=warn"
            }
            _ => "warn",
        }
    }

    /// Whether colour was asked for or forbidden.
    #[must_use]
    pub fn color(&self) -> anstream::ColorChoice {
        match self.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
    }
}

impl Context<'_> {
    /// Reads all files; tells every mistake when there are any.
    fn load(&mut self) -> anyhow::Result<Option<Config>> {
        match config::load(&self.home, &self.environment) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    writeln!(self.errors, "{} {warning}", paint::warning("warning:"))?;
                }
                Ok(Some(loaded.config))
            }
            Err(mistakes) => self.tell(&mistakes),
        }
    }

    /// Reads what is right, to look at the ledger or at backups: a wrong job file is only mentioned.
    fn load_to_look(&mut self) -> anyhow::Result<Option<Config>> {
        match config::load_what_is_right(&self.home, &self.environment) {
            Ok((loaded, mistakes)) => {
                if !mistakes.is_empty() {
                    let count = text::count(mistakes.len(), "mistake");
                    writeln!(
                        self.errors,
                        "{} {count} in job files; `rusuban check` shows them",
                        paint::warning("warning:")
                    )?;
                }
                Ok(Some(loaded.config))
            }
            Err(mistakes) => self.tell(&mistakes),
        }
    }

    fn tell(&mut self, mistakes: &[Mistake]) -> anyhow::Result<Option<Config>> {
        if self.json {
            writeln!(self.out, "{}", serde_json::to_string_pretty(&serde_json::json!({ "mistakes": mistakes }))?)?;
        } else {
            for mistake in mistakes {
                writeln!(self.errors, "{mistake}")?;
            }
            writeln!(self.errors, "{}", paint::bad(&text::count(mistakes.len(), "mistake")))?;
        }
        Ok(None)
    }
}
