//! The commands before and after the work.
use std::{path::Path, time::Duration};

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use crate::{
    model::{JobName, Outcome, RunId, Trigger},
    process::{self, Command, Exit, Tree},
};

/// A hook of a job without a `timeout` is stopped after this long.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// Which hook, of which run.
pub(super) struct Hook<'a> {
    pub(super) job: &'a JobName,
    pub(super) run: RunId,
    /// What started the run.
    pub(super) trigger: &'a Trigger,
    pub(super) home: &'a Path,
    pub(super) command: &'a [String],
    /// What came of the run, for the hook after it.
    pub(super) end: Option<(Outcome, &'a str)>,
    /// It is stopped after this long.
    pub(super) limit: Duration,
    /// And killed this long after that.
    pub(super) grace: Duration,
}

impl Hook<'_> {
    /// Runs it. Set `cancelled` and it is asked to stop.
    ///
    /// # Errors
    /// When it does not end with exit code 0.
    pub(super) async fn run(
        &self,
        cancelled: &CancellationToken,
        on_line: impl FnMut(&str) + Send,
    ) -> anyhow::Result<()> {
        let mut environment =
            vec![("RUSUBAN_JOB".to_owned(), self.job.to_string()), ("RUSUBAN_RUN".to_owned(), self.run.to_string())];
        environment.extend(self.trigger.environment());
        if let Some((outcome, message)) = self.end {
            environment.push(("RUSUBAN_OUTCOME".to_owned(), outcome.word().to_owned()));
            // No environment may hold this byte.
            environment.push(("RUSUBAN_MESSAGE".to_owned(), message.replace('\0', "")));
        }
        let command = Command {
            arguments: self.command.to_vec(),
            folder: Some(self.home.to_owned()),
            environment,
            user: None,
            tree: Tree::new(self.home, self.run),
            limits: process::Limits::default(),
            grace: Some(self.grace),
        };
        let stop = cancelled.child_token();
        let running = process::run(&command, &stop, on_line);
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => ended?,
            () = tokio::time::sleep(self.limit) => {
                stop.cancel();
                running.await?;
                bail!("stopped after {}", crate::config::units::Span(self.limit));
            }
        };
        match ended.exit {
            _ if ended.stopped => bail!("it was stopped"),
            Exit::Code(0) => Ok(()),
            exit => bail!("{exit}"),
        }
    }
}
