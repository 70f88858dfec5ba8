//! `rusuban cancel`, `pause`, `resume`, `reload`: asked of the server; where none runs, done in the ledger if that can be.

use super::{Context, Exit, paint};
use crate::{
    app::{
        control::{self, Reply, Request},
        no_such_job,
    },
    config::Config,
    model::JobName,
};

/// Asks the server and shows its answer; `None` when no server runs.
pub(super) async fn ask(context: &mut Context<'_>, config: &Config, request: &Request) -> anyhow::Result<Option<Exit>> {
    let Some(mut replies) = control::ask(&config.settings.data, request).await? else { return Ok(None) };
    let exit = match replies.next().await? {
        Some(Reply::Done(text)) => {
            if context.json {
                writeln!(context.out, "{}", serde_json::json!({ "done": text }))?;
            } else {
                writeln!(context.out, "{text}")?;
            }
            Exit::Fine
        }
        Some(Reply::Missing(text)) => context.missing(&text)?,
        Some(Reply::Refused(text)) => {
            writeln!(context.errors, "{} {text}", paint::bad("refused:"))?;
            Exit::Failed
        }
        other => anyhow::bail!("the server gave an answer that does not fit: {other:?}"),
    };
    Ok(Some(exit))
}

/// Cancels a run, or reloads: both need the server.
pub(super) async fn needs_server(context: &mut Context<'_>, request: &Request) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    if let Some(exit) = ask(context, &config, request).await? {
        return Ok(exit);
    }
    writeln!(context.errors, "no server runs on this home, so there is nothing to do; `rusuban serve` starts one")?;
    Ok(Exit::Failed)
}

/// Pauses a job or resumes it, with or without a server.
pub(super) async fn pause(context: &mut Context<'_>, job: &str, paused: bool) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let Some(job) = context.job(&config, job)? else { return Ok(Exit::Missing) };
    let name = job.name.clone();
    let request = if paused { Request::Pause { job: name.clone() } } else { Request::Resume { job: name.clone() } };
    if let Some(exit) = ask(context, &config, &request).await? {
        return Ok(exit);
    }
    std::fs::create_dir_all(&config.settings.data)?;
    let store = crate::store::Store::open(&crate::app::ledger(&config.settings.data), context.clock.clone()).await?;
    store.pause(&name, paused).await?;
    let state = if paused { "paused" } else { "resumed" };
    let done = format!("{name} is {state}, which counts once a server runs");
    if context.json {
        writeln!(context.out, "{}", serde_json::json!({ "done": done }))?;
    } else {
        writeln!(context.out, "{done}")?;
    }
    Ok(Exit::Fine)
}

impl Context<'_> {
    /// Says that something is not there.
    pub(super) fn missing(&mut self, text: &str) -> anyhow::Result<Exit> {
        writeln!(self.errors, "{} {text}", paint::bad("error:"))?;
        Ok(Exit::Missing)
    }

    /// The job of that name; says so when there is none.
    pub(super) fn job(
        &mut self,
        config: &Config,
        name: &str,
    ) -> anyhow::Result<Option<std::sync::Arc<crate::job::Job>>> {
        let parsed: Result<JobName, String> = name.parse();
        let found = parsed.as_ref().ok().and_then(|name| config.jobs.get(name)).cloned();
        if found.is_none() {
            let text = match parsed {
                Ok(name) => match no_such_job(&name, &config.jobs) {
                    crate::app::Refusal::Missing(text) => text,
                    crate::app::Refusal::Other(error) => error.to_string(),
                },
                Err(error) => error,
            };
            self.missing(&text)?;
        }
        Ok(found)
    }
}
