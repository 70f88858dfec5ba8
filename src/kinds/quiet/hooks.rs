//! Commands in a container around the reading of its files: what it must be told before, and after that again. The second one is owed
//! before the first one is run.
use std::{future::Future, time::Duration};

use anyhow::{Context, bail, ensure};
use tokio_util::sync::CancellationToken;

use super::{Touched, choose::Users, claim::Claim, held_container, pay::Paid};
use crate::{
    docker::{Container, Docker, Engine, Exec},
    kinds::Cx,
    model::{Debt, HeldContainer, Level},
    process::Lines,
};

/// A command after the reading has no longer than this.
const LONGEST: Duration = Duration::from_secs(600);
/// What a command that must stop gets to do so.
const GRACE: Duration = Duration::from_secs(10);

/// Commands for a container.
#[derive(Clone, Copy, Debug)]
pub(in crate::kinds) struct Hooks<'a> {
    /// Which one, if it is said: else the only one that writes.
    pub(in crate::kinds) container: Option<&'a str>,
    /// Run before.
    pub(in crate::kinds) before: Option<&'a [String]>,
    /// Run afterwards, whatever happened.
    pub(in crate::kinds) after: Option<&'a [String]>,
}

/// Does `work` between the commands. In a container that does not run they are not run: nothing writes there.
///
/// # Errors
/// Those of `work`; when a command fails.
pub(in crate::kinds) async fn with_hooks<T>(
    cx: &Cx,
    engine: &Engine,
    touched: &Touched,
    hooks: Hooks<'_>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let Some(container) = find(engine, touched, hooks.container).await? else {
        cx.info("no container that writes to it runs, so there is none to be told");
        return work.await;
    };
    let name = container.name();
    let claim = tokio::select! {
        claim = Claim::take([container.id().to_owned()].into()) => claim,
        () = cx.cancelled.cancelled() => bail!("cancelled"),
    };
    let debt = match hooks.after {
        Some(command) => {
            let debt = Debt::Tell { container: held_container(cx, &container), command: command.to_vec() };
            Some((cx.record.owe(debt).await?, command))
        }
        None => None,
    };
    let before = async {
        let Some(command) = hooks.before else { return Ok(()) };
        let code = tell(engine, &container, command, &cx.cancelled, |line| cx.record.line(Level::Output, line)).await?;
        ensure!(code == 0, "exit code {code}");
        anyhow::Ok(())
    };
    let result = match before.await.with_context(|| format!("the `before` command in the container `{name}`")) {
        Ok(()) => work.await,
        Err(error) => Err(error),
    };
    let Some((debt, command)) = debt else { return result };
    let never = CancellationToken::new();
    let telling = tell(engine, &container, command, &never, |line| cx.record.line(Level::Output, line));
    let told = tokio::time::timeout(LONGEST, telling).await.context("it did not end within ten minutes").flatten();
    drop(claim);
    let told = match told {
        Ok(code) => {
            // It has run: running it again would help nobody.
            cx.record.paid(debt).await?;
            if code == 0 { Ok(()) } else { Err(anyhow::anyhow!("exit code {code}")) }
        }
        Err(error) => Err(error),
    };
    match (result, told.with_context(|| format!("the `after` command in the container `{name}`"))) {
        (result, Ok(())) => result,
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Err(telling)) => Err(error.context(format!("{telling:#}"))),
    }
}

/// The container that is told, if one is up.
async fn find(engine: &Engine, touched: &Touched, named: Option<&str>) -> anyhow::Result<Option<Container>> {
    if let Some(name) = named {
        let container = match engine.container(name).await {
            Ok(container) => container,
            Err(error) if error.is_not_found() => {
                bail!("there is no container `{name}`; `docker ps -a` shows those that there are")
            }
            Err(error) => return Err(error).with_context(|| format!("look at the container `{name}`")),
        };
        return Ok(Some(container).filter(|container| container.state().is_up()));
    }
    let users = Users::of(engine, touched).await?;
    match &users.writers()[..] {
        [] => Ok(None),
        [only] => Ok(Some((*only).clone())),
        several => {
            let names: Vec<_> = several.iter().map(|one| one.name()).collect();
            bail!(
                "{} write to it: say which one is told, `consistency = {{ container = \"{}\", … }}`",
                names.join(" and "),
                names[0]
            )
        }
    }
}

/// Runs a command in a container; its exit code.
async fn tell(
    engine: &Engine,
    container: &Container,
    command: &[String],
    cancelled: &CancellationToken,
    mut on_line: impl FnMut(&str),
) -> anyhow::Result<i32> {
    let exec = Exec { arguments: command.to_vec(), ..Exec::default() };
    let mut process = engine.exec(container.id(), &exec).await?;
    let mut lines = Lines::default();
    let hearing = async {
        while let Some(piece) = process.next().await? {
            lines.push(&piece.bytes, &mut on_line);
        }
        anyhow::Ok(())
    };
    let heard = tokio::select! {
        heard = hearing => heard,
        () = cancelled.cancelled() => {
            process.ender().end(GRACE).await?;
            bail!("cancelled");
        }
    };
    lines.finish(&mut on_line);
    heard?;
    Ok(process.exit().await?)
}

/// Tells a container what it is still to be told.
///
/// # Errors
/// When it could not be told; it is still owed then.
pub(super) async fn pay(docker: &Docker, held: &HeldContainer, command: &[String]) -> anyhow::Result<Paid> {
    let engine = docker.connect().await?;
    let Some(id) = super::pay::id_of(held, &engine.containers().await?) else {
        return Ok(Paid::Otherwise("it was removed meanwhile".into()));
    };
    let container = engine.container(&id).await?;
    let mut last = String::new();
    let never = CancellationToken::new();
    let telling = tell(&engine, &container, command, &never, |line| line.clone_into(&mut last));
    let code = tokio::time::timeout(LONGEST, telling).await.context("it did not end within ten minutes")??;
    Ok(match code {
        0 => Paid::AsPromised,
        code => Paid::Otherwise(format!("`{}` in it ended with exit code {code}: {last}", command.join(" "))),
    })
}
