//! In a container that is made for it and removed afterwards.
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{
    Command, End, Heard,
    guest::{self, Guest, Said},
};
use crate::{
    docker::{self, Access, Engine, ExecError, Once, VolumeMount, Working, access},
    kinds::Cx,
    model::Debt,
};

/// What [`run`] asks of the engine.
pub(super) fn engine() -> Vec<Access> {
    vec![
        access::VERSION,
        access::CREATE,
        access::ATTACH,
        access::START,
        access::WAIT,
        access::CONTAINER,
        access::STOP,
        access::REMOVE,
    ]
}

pub(super) async fn run(command: &Command, image: &str, cx: &Cx, heard: &mut Heard) -> anyhow::Result<End> {
    let engine = cx.engine().await?;
    let (name, mark) = (format!("rusuban-{}-{}", cx.job, cx.run), docker::mark()?);
    let volumes: Result<Vec<VolumeMount>, String> =
        command.volumes.iter().map(|text| VolumeMount::read(text)).collect();
    let once = Once {
        name: name.clone(),
        mark: mark.clone(),
        image: image.to_owned(),
        // A line for the shell is no arguments for whatever else the image would begin.
        entrypoint: command.shell.is_some().then(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]),
        arguments: command.shell.clone().map(|line| vec![line]).or_else(|| command.command.clone()),
        environment: guest::environment(command, cx).await?,
        user: command.user.clone(),
        folder: guest::folder(command),
        volumes: volumes.map_err(anyhow::Error::msg)?,
        network: command.network.clone(),
        memory: command.limits.memory.map(|size| size.0),
        labels: vec![("rusuban.job".to_owned(), cx.job.to_string()), ("rusuban.run".to_owned(), cx.run.to_string())],
        ..Once::default()
    };
    let debt = cx.record.owe(Debt::Container { name: name.clone(), mark: mark.clone() }).await?;
    let end = work(&engine, &once, cx, heard).await;
    let removed = engine.remove_once(&name, &mark).await.with_context(|| format!("remove container {name}"));
    match (end, removed) {
        (end, Ok(())) => {
            cx.record.paid(debt).await?;
            end
        }
        // The debt is left: it is tried again when the run ends, and at the next start.
        (Ok(end), Err(error)) => {
            cx.warn(format!("{error:#}"));
            Ok(end)
        }
        (Err(error), Err(_)) => Err(error),
    }
}

async fn work(engine: &Engine, once: &Once, cx: &Cx, heard: &mut Heard) -> anyhow::Result<End> {
    let mut working = engine.create_once(once).await?;
    working.start().await?;
    let mut hired = Hired { engine: engine.clone(), working, is_open: true };
    guest::hear(cx, &mut hired, heard).await
}

/// A container of ours.
struct Hired {
    engine: Engine,
    working: Working,
    is_open: bool,
}

#[async_trait]
impl Guest for Hired {
    async fn next(&mut self) -> Result<Said, ExecError> {
        if self.is_open {
            match self.working.next().await? {
                Some(piece) => return Ok(Said::Piece(piece)),
                None => self.is_open = false,
            }
        }
        let ended = self.working.ended().await?;
        Ok(Said::End { code: ended.code, out_of_memory: ended.out_of_memory, left_behind: false })
    }

    /// Its processes end with its first one. Docker counts whole seconds.
    fn end(&self, grace: Duration) -> BoxFuture<'static, anyhow::Result<()>> {
        let (engine, id) = (self.engine.clone(), self.working.id().to_owned());
        let grace = Duration::from_secs(grace.as_secs() + u64::from(grace.subsec_nanos() > 0));
        Box::pin(async move { engine.stop(&id, Some(grace)).await.context("stop the container") })
    }
}
