//! In a container that runs already.
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{
    Command, End, Heard,
    guest::{self, Guest, Said},
};
use crate::{
    docker::{Access, Exec, ExecError, Process, access},
    kinds::Cx,
    model::Debt,
};

/// How long the output is still read after the command itself has ended, while something that it left behind keeps it open.
const LINGER: Duration = Duration::from_secs(2);

/// What [`run`] asks of the engine.
pub(super) fn engine() -> Vec<Access> {
    vec![access::VERSION, access::CONTAINER, access::EXEC, access::EXEC_START, access::EXEC_LOOK]
}

pub(super) async fn run(command: &Command, container: &str, cx: &Cx, heard: &mut Heard) -> anyhow::Result<End> {
    let engine = cx.engine().await?;
    let exec = Exec {
        arguments: command.arguments()?,
        environment: guest::environment(command, cx).await?,
        user: command.user.clone(),
        folder: guest::folder(command),
        input: false,
    };
    let prepared = engine.prepare(container, &exec).await?;
    let place = prepared.place().clone();
    let debt = cx.record.owe(Debt::Process {
        name: container.to_owned(),
        container: place.container,
        process: place.process,
        mark: place.mark,
        user: place.user,
    });
    let debt = debt.await?;
    let process = prepared.start().await?;
    let now = Instant::now();
    let mut visitor =
        Visitor { process, is_open: true, began: now, look_at: now + Duration::from_secs(1), ended: None };
    // After an error it may still be at work: then the debt is left to be paid.
    let end = guest::hear(cx, &mut visitor, heard).await?;
    cx.record.paid(debt).await?;
    Ok(end)
}

/// A process in a container that is not ours.
struct Visitor {
    process: Process,
    is_open: bool,
    began: Instant,
    /// When it is looked whether it has ended without closing its output.
    look_at: Instant,
    /// It was seen to have ended.
    ended: Option<Instant>,
}

#[async_trait]
impl Guest for Visitor {
    async fn next(&mut self) -> Result<Said, ExecError> {
        while self.is_open {
            let look_at = self.ended.map_or(self.look_at, |ended| ended + LINGER);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(look_at) => {
                    if self.ended.is_some() {
                        let code = self.process.exit().await?;
                        return Ok(Said::End { code, out_of_memory: false, left_behind: true });
                    }
                    if self.process.ended().await?.is_some() {
                        self.ended = Some(Instant::now());
                    }
                    // The longer it has been at work, the more rarely.
                    let pause = (self.began.elapsed() / 10).clamp(Duration::from_secs(1), Duration::from_secs(30));
                    self.look_at = Instant::now() + pause;
                }
                piece = self.process.next() => match piece? {
                    Some(piece) => return Ok(Said::Piece(piece)),
                    None => self.is_open = false,
                },
            }
        }
        Ok(Said::End { code: self.process.exit().await?, out_of_memory: false, left_behind: false })
    }

    fn end(&self, grace: Duration) -> BoxFuture<'static, anyhow::Result<()>> {
        let ender = self.process.ender();
        Box::pin(async move {
            ender.end(grace).await?;
            Ok(())
        })
    }
}
