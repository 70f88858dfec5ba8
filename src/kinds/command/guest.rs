//! A command in a container, whether the container was there or is made for it: heard line by line, and ended when asked to.
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::{task::JoinHandle, time::Instant};

use super::{Command, End, Heard};
use crate::{
    docker::{Channel, ExecError, Piece},
    kinds::Cx,
    process::Lines,
};

/// What was ended is heard of for this long.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A command in a container.
#[async_trait]
pub(super) trait Guest: Send {
    /// What it does next. Dropped half way, nothing is lost.
    async fn next(&mut self) -> Result<Said, ExecError>;

    /// Ends it and all that came of it, within the grace period or by force.
    fn end(&self, grace: Duration) -> BoxFuture<'static, anyhow::Result<()>>;
}

/// What a guest does.
pub(super) enum Said {
    /// It prints.
    Piece(Piece),
    /// It ended with this exit code.
    End { code: i32, out_of_memory: bool, left_behind: bool },
}

/// Listens to it until it has ended.
pub(super) async fn hear(cx: &Cx, guest: &mut dyn Guest, heard: &mut Heard) -> anyhow::Result<End> {
    // A line that one channel has begun is not broken by what comes on the other.
    let (mut output, mut errors) = (Lines::default(), Lines::default());
    let mut on_line = |line: &str| heard.line(cx, line);
    let mut ending: Option<JoinHandle<anyhow::Result<()>>> = None;
    let (mut stopped, mut give_up_at) = (false, None);
    let end = loop {
        tokio::select! {
            said = guest.next() => match said {
                Ok(Said::Piece(Piece { channel: Channel::Output, bytes })) => output.push(&bytes, &mut on_line),
                Ok(Said::Piece(Piece { channel: Channel::Errors, bytes })) => errors.push(&bytes, &mut on_line),
                Ok(Said::End { code, out_of_memory, left_behind }) => {
                    break Ok(End { code: Some(code), exit: in_words(code, out_of_memory), stopped, left_behind });
                }
                Err(error) => break Err(error.into()),
            },
            () = cx.cancelled.cancelled(), if !stopped => {
                stopped = true;
                ending = Some(tokio::spawn(guest.end(cx.grace)));
            }
            ended = joined(&mut ending) => {
                ending = None;
                match ended {
                    Ok(()) => give_up_at = Some(Instant::now() + LAST_WORDS),
                    Err(error) => break Err(error),
                }
            }
            () = until(give_up_at) => break Err(anyhow!("it was ended, but Docker does not say that it has")),
        }
    };
    output.finish(&mut on_line);
    errors.finish(&mut on_line);
    // It has ended, and its children may not have.
    if ending.is_some()
        && let Err(error) = joined(&mut ending).await
    {
        cx.warn(format!("{error:#}"));
    }
    end
}

async fn joined(task: &mut Option<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    match task {
        Some(task) => task.await?,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// An exit code of a container, where 128 and more stand for signals.
fn in_words(code: i32, out_of_memory: bool) -> String {
    match code {
        _ if out_of_memory => format!("exit code {code}, out of memory: the kernel killed what used it up"),
        137 => "exit code 137 (SIGKILL; perhaps out of memory)".to_owned(),
        143 => "exit code 143 (SIGTERM)".to_owned(),
        _ => format!("exit code {code}"),
    }
}

/// What a command in a container finds in its environment. Not the home folder: it is none of the container's, and by it and the
/// run another Rusuban, on the engine's host, could take the command for one of its own.
pub(super) async fn environment(command: &Command, cx: &Cx) -> anyhow::Result<Vec<(String, String)>> {
    let mut environment = command.environment(cx).await?;
    environment.push(("RUSUBAN_RUN".to_owned(), cx.run.to_string()));
    Ok(environment)
}

pub(super) fn folder(command: &Command) -> Option<String> {
    command.folder.as_ref().map(|folder| folder.to_string_lossy().into_owned())
}
