//! Waiting until a new container is well, and watching that it stays so.
use std::time::Duration;

use anyhow::bail;
use tokio::{net::TcpStream, time::Instant};

use super::{Replacement, go_on};
use crate::{
    config::units::Span,
    docker::{
        Container, Engine, Exec, ExecError,
        swap::{self, Verdict},
    },
    kinds::Cx,
};

/// How often a new container is looked at, and how often it is asked by a command.
const LOOK: Duration = Duration::from_millis(250);
const ASK: Duration = Duration::from_secs(1);
/// A command that asks it has no longer than this.
const LONGEST: Duration = Duration::from_secs(30);

/// A new container is not what it should be: it is not the way there that failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::kinds) struct NotWell(String);

/// Waits until it is, by its health check, its port and its command; then watches it.
///
/// # Errors
/// [`NotWell`] when it does not become so or does not stay so; when the run is asked to stop.
pub(super) async fn until_well(
    cx: &Cx,
    engine: &Engine,
    id: &str,
    replacement: &Replacement<'_>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        go_on(cx)?;
        let container = engine.container(id).await?;
        let wait = replacement.wait.unwrap_or_else(|| swap::patience(&container));
        let mut verdict = swap::judge(&container, began.elapsed(), swap::LONG_ENOUGH.min(wait));
        let mut pause = LOOK;
        if verdict == Verdict::Well
            && let Some(why) = complaint(cx, engine, &container, replacement).await?
        {
            verdict = Verdict::NotYet(why);
            pause = ASK;
        }
        match verdict {
            Verdict::Well => break,
            Verdict::Hopeless(why) => bail!(NotWell(format!("the new container is not well: {why}"))),
            Verdict::NotYet(why) if began.elapsed() >= wait => {
                bail!(NotWell(format!("the new container is not well after {}: {why}", Span(wait))))
            }
            Verdict::NotYet(_) => tokio::time::sleep(pause).await,
        }
    }
    if replacement.watch.is_zero() { Ok(()) } else { watch(cx, engine, id, replacement).await }
}

async fn watch(cx: &Cx, engine: &Engine, id: &str, replacement: &Replacement<'_>) -> anyhow::Result<()> {
    cx.info(format!("{} is well; watching it for {}", replacement.spec.name, Span(replacement.watch)));
    let began = Instant::now();
    loop {
        go_on(cx)?;
        let container = engine.container(id).await?;
        let left = replacement.watch.saturating_sub(began.elapsed());
        let why = match swap::judge(&container, began.elapsed(), Duration::ZERO) {
            Verdict::Hopeless(why) => Some(why),
            _ if left.is_zero() => complaint(cx, engine, &container, replacement).await?,
            _ => None,
        };
        if let Some(why) = why {
            bail!(NotWell(format!("the new container was well, and did not stay so: {why}")));
        }
        if left.is_zero() {
            return Ok(());
        }
        tokio::time::sleep(LOOK.min(left)).await;
    }
}

/// What its port and its command have to say against it.
async fn complaint(
    cx: &Cx,
    engine: &Engine,
    container: &Container,
    replacement: &Replacement<'_>,
) -> anyhow::Result<Option<String>> {
    if let Some(port) = replacement.port
        && !answers(&swap::addresses(container), port).await
    {
        return Ok(Some(format!("nobody answers at its port {port}")));
    }
    let Some(check) = replacement.check else { return Ok(None) };
    let exec = Exec { arguments: check.to_vec(), ..Exec::default() };
    let asking = tokio::time::timeout(LONGEST, ask(engine, &replacement.spec.name, &exec));
    tokio::select! {
        answer = asking => Ok(match answer {
            Ok(Ok(complaint)) => complaint,
            Ok(Err(error)) => Some(format!("its check: {error}")),
            Err(_) => Some(format!("its check has not ended within {}", Span(LONGEST))),
        }),
        () = cx.cancelled.cancelled() => go_on(cx).map(|()| None),
    }
}

async fn ask(engine: &Engine, container: &str, exec: &Exec) -> Result<Option<String>, ExecError> {
    let mut process = engine.exec(container, exec).await?;
    let mut last = String::new();
    while let Some(piece) = process.next().await? {
        let text = String::from_utf8_lossy(&piece.bytes);
        if let Some(line) = text.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            last = format!(": {}", line.chars().take(200).collect::<String>());
        }
    }
    let code = process.exit().await?;
    Ok((code != 0).then(|| format!("its check ended with exit code {code}{last}")))
}

async fn answers(addresses: &[String], port: u16) -> bool {
    for address in addresses {
        let knock = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect((address.as_str(), port)));
        if matches!(knock.await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}
