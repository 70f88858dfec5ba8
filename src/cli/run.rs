//! `rusuban run`: runs a job now and follows it; through the server where one runs, else alone.
use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::{Context, Exit, paint};
use crate::{
    app::{
        App, Opened, Refusal,
        control::{self, Reply, Request},
    },
    config::Config,
    model::{Level, Outcome, Run},
    runner::Event,
    text,
};

/// How often to look whether another process has given the home back.
const LOOK: Duration = Duration::from_millis(500);
/// Without a server, telling people of a run may take so long.
const TELL: Duration = Duration::from_secs(20);

/// Runs the job and follows it to its end.
pub(super) async fn run(context: &mut Context<'_>, job: &str, quiet: bool) -> anyhow::Result<Exit> {
    let Some(config) = context.load()? else { return Ok(Exit::Configuration) };
    let Some(job) = context.job(&config, job)? else { return Ok(Exit::Missing) };
    let name = job.name.clone();
    begin(context, &config, &format!("run {name}"), Request::Run { job: name.clone() }, quiet).await
}

/// Has the server do it, where one runs, else does it alone once the home is free; and follows the run.
pub(super) async fn begin(
    context: &mut Context<'_>,
    config: &Config,
    doing: &str,
    request: Request,
    quiet: bool,
) -> anyhow::Result<Exit> {
    let mut told = false;
    // A restore tells a program what came back, and not how.
    let only_told = matches!(request, Request::Restore(_));
    loop {
        if let Some(mut replies) = control::ask(&config.settings.data, &request).await? {
            return through_server(context, &mut replies, quiet, only_told).await;
        }
        match App::open(config.home.clone(), config.clone(), context.clock.clone(), doing).await? {
            Opened::Ours(app) => return alone(context, &app, config, request, quiet).await,
            Opened::Taken(holder) => {
                if !told {
                    writeln!(context.errors, "waiting for {holder}, which runs on this home")?;
                    told = true;
                }
                tokio::select! {
                    () = context.clock.sleep(LOOK) => {}
                    _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
                }
            }
        }
    }
}

async fn alone(
    context: &mut Context<'_>,
    app: &App,
    config: &Config,
    request: Request,
    quiet: bool,
) -> anyhow::Result<Exit> {
    let only_told = matches!(request, Request::Restore(_));
    let begun = match request {
        Request::Run { job } => app.run_now(&job).await,
        Request::Rollback(rollback) => app.rollback(rollback).await,
        Request::Restore(restore) => app.restore(restore).await,
        other => anyhow::bail!("{other:?} begins no run"),
    };
    let (run, mut events) = match begun {
        Ok(begun) => begun,
        Err(Refusal::Missing(text)) => return context.missing(&text),
        Err(Refusal::Other(error)) => return Err(error),
    };
    let mut view = View::begin(context, &run, quiet, only_told)?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let outcome = loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => if let Some(outcome) = view.show(context, &event)? { break Some(outcome) },
                None => break None,
            },
            _ = tokio::signal::ctrl_c() => { app.cancel(run.id).await.ok(); }
            _ = terminate.recv() => { app.cancel(run.id).await.ok(); }
        }
    };
    app.shut_down().await;
    tell(context, app).await?;
    if outcome == Some(Outcome::Succeeded) && !quiet && !context.json {
        let shown = config.home.path().display();
        writeln!(
            context.out,
            "{}",
            paint::faint(&format!("`rusuban --home {shown} log {}` shows this log again", run.id))
        )?;
    }
    Ok(exit(outcome))
}

/// Without a server, whoever is to hear of the run is told now.
async fn tell(context: &mut Context<'_>, app: &App) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let delivery = app.delivery();
    tokio::select! {
        told = delivery.deliver_now(true, &stop) => told?,
        () = context.clock.sleep(TELL) => stop.cancel(),
    }
    let left: u64 = app.store().queues().await?.values().sum();
    if left > 0 {
        writeln!(
            context.errors,
            "{} {left} of what is to be told could not be told now and waits for a server, or for the next run; `rusuban notify` shows why",
            paint::warning("warning:")
        )?;
    }
    Ok(())
}

async fn through_server(
    context: &mut Context<'_>,
    replies: &mut control::Replies,
    quiet: bool,
    only_told: bool,
) -> anyhow::Result<Exit> {
    let mut view: Option<View> = None;
    loop {
        let reply = tokio::select! {
            reply = replies.next() => reply?,
            _ = tokio::signal::ctrl_c() => {
                let id = view.as_ref().map(|view| view.run.id.to_string()).unwrap_or_default();
                writeln!(context.errors, "the server goes on with run {id}; `rusuban cancel {id}` stops it")?;
                return Ok(Exit::Interrupted);
            }
        };
        match (reply, &mut view) {
            (Some(Reply::Queued(run)), _) => view = Some(View::begin(context, &run, quiet, only_told)?),
            (Some(Reply::Event(event)), Some(view)) => {
                if let Some(outcome) = view.show(context, &event)? {
                    return Ok(exit(Some(outcome)));
                }
            }
            (Some(Reply::Missing(text)), _) => return context.missing(&text),
            (Some(Reply::Refused(text)), _) => anyhow::bail!("the server refused: {text}"),
            (None, Some(view)) => {
                anyhow::bail!("the server went away; `rusuban log {}` shows what became of the run", view.run.id)
            }
            (other, _) => anyhow::bail!("the server gave an answer that does not fit: {other:?}"),
        }
    }
}

fn exit(outcome: Option<Outcome>) -> Exit {
    match outcome {
        Some(Outcome::Succeeded) => Exit::Fine,
        Some(Outcome::Cancelled | Outcome::Interrupted) => Exit::Interrupted,
        Some(Outcome::Failed | Outcome::TimedOut) | None => Exit::Failed,
    }
}

/// A run as it is shown: lines as they come, and on a terminal a bar below them.
struct View {
    run: Run,
    quiet: bool,
    /// Of a run in JSON, only what it has for programs.
    only_told: bool,
    bar: ProgressBar,
}

impl View {
    fn begin(context: &mut Context<'_>, run: &Run, quiet: bool, only_told: bool) -> anyhow::Result<Self> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if context.json || quiet || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if context.json && !only_told {
            writeln!(context.out, "{}", serde_json::json!({ "queued": run }))?;
        } else if context.json {
            // What came back is told at its end.
        } else if !quiet {
            writeln!(context.out, "{}", paint::faint(&format!("run {} of {}", run.id, run.job)))?;
        }
        Ok(Self { run: run.clone(), quiet, only_told, bar })
    }

    /// Shows an event; the outcome when it was the last.
    fn show(&mut self, context: &mut Context<'_>, event: &Event) -> anyhow::Result<Option<Outcome>> {
        if context.json {
            match event {
                Event::Told(told) if self.only_told => writeln!(context.out, "{told}")?,
                Event::Finished(outcome, message) if self.only_told && *outcome != Outcome::Succeeded => {
                    writeln!(context.errors, "{} {message}", paint::bad("error:"))?;
                }
                _ if self.only_told => {}
                event => writeln!(context.out, "{}", serde_json::to_string(event)?)?,
            }
            return Ok(if let Event::Finished(outcome, _) = event { Some(*outcome) } else { None });
        }
        match event {
            Event::Line(line) if !self.quiet || line.level >= Level::Warning => {
                let at = line.at.format("%H:%M:%S").to_string();
                let text = format!("{} {}", paint::faint(&at), paint::line(line.level, &line.text));
                self.bar.suspend(|| writeln!(context.out, "{text}"))?;
            }
            Event::Progress(progress) => {
                let template = match progress.total {
                    Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
                    None => "{msg} {bytes} {bytes_per_sec}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    self.bar.set_style(style);
                }
                if let Some(total) = progress.total {
                    self.bar.set_length(total);
                }
                let added = progress.added.map(|added| format!(" ({} new)", text::size(added)));
                self.bar.set_message(format!("{}{}", progress.step, added.unwrap_or_default()));
                self.bar.set_position(progress.done);
            }
            Event::StepBegan(_) | Event::StepEnded { .. } => self.bar.reset(),
            Event::Finished(outcome, message) => {
                self.bar.finish_and_clear();
                if !self.quiet || *outcome != Outcome::Succeeded {
                    writeln!(context.out, "{}: {message}", paint::outcome(*outcome))?;
                }
                return Ok(Some(*outcome));
            }
            Event::Line(_) | Event::Attempt(_) | Event::Told(_) => {}
        }
        Ok(None)
    }
}
