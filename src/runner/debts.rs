//! Paying debts: undoing what a kind began and did not end.
use std::{io::ErrorKind, path::Path, time::Duration};

use anyhow::{Context, bail};

use crate::{
    clock::Clock,
    docker::{Ender, EngineError, Place, swap},
    kinds::{Services, quiet},
    model::{Debt, Swap},
};

/// A server that does not answer is asked again at the next start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Processes in containers that outlived us have this long to end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// What containers may take to stop and start.
const LONGEST_STOP: Duration = Duration::from_secs(600);

/// Pays a debt of a kind; returns what a person should know of it. Paying it twice is fine. A Docker engine that is away is waited
/// for as long as `patience`.
///
/// # Errors
/// When it could not be paid; it is still owed then.
pub(super) async fn pay(
    debt: &Debt,
    services: &Services,
    clock: &Clock,
    patience: Duration,
) -> anyhow::Result<Option<String>> {
    let paid = match debt {
        Debt::Start { container, .. } | Debt::Thaw { container } | Debt::Tell { container, .. } => {
            return Ok(match quiet::pay_for_another(debt, &services.docker, clock, patience).await? {
                quiet::Paid::AsPromised => None,
                quiet::Paid::Otherwise(why) => Some(format!("the container `{}`: {why}", container.name)),
            });
        }
        Debt::Remove { path } => {
            let owned = path.clone();
            tokio::task::spawn_blocking(move || remove(&owned))
                .await?
                .with_context(|| format!("remove {}", path.display()))
        }
        Debt::Upload { bucket, key, upload } => {
            let what = || format!("end the unfinished upload of {key} to bucket `{bucket}`");
            let Some(bucket) = services.buckets.get(bucket) else {
                return Err(anyhow::anyhow!("the settings no longer have this bucket")).with_context(what);
            };
            in_time(async { Ok(bucket.abort_upload(key, upload).await?) }).await.with_context(what)
        }
        Debt::Container { name, mark } => {
            let removing = async {
                services.docker.connect().await?.remove_once(name, mark).await?;
                Ok(())
            };
            in_time(removing).await.with_context(|| format!("remove container {name}"))
        }
        Debt::Process { name, container, process, mark, user } => {
            let place = Place {
                container: container.clone(),
                process: process.clone(),
                mark: mark.clone(),
                user: user.clone(),
            };
            let ending = async {
                let engine = services.docker.connect().await?;
                if matches!(engine.container(container).await, Err(EngineError::NotFound(_))) {
                    return Ok(());
                }
                Ender::new(engine, name, place).end(GRACE).await?;
                Ok(())
            };
            in_time(ending).await.with_context(|| format!("end what was started in container {name}"))
        }
        Debt::Swap(swap) => settle(services, std::slice::from_ref(swap)).await,
        Debt::Swaps { all } => settle(services, all).await,
        Debt::Volume { name } => {
            let removing = async { services.docker.connect().await?.remove_unfilled(name).await };
            in_time(removing).await
        }
        Debt::Unstarted { container, label: (label, value) } => {
            let what = || format!("remove the container {container}, which was not started");
            let engine = services.docker.connect().await.with_context(what)?;
            swap::remove_unstarted(&engine, container, (label, value)).await.with_context(what)
        }
        Debt::AfterHook { .. } => bail!("a hook is run, not paid"),
    };
    paid.map(|()| None)
}

async fn settle(services: &Services, swaps: &[Swap]) -> anyhow::Result<()> {
    let what = || format!("end what was begun with {}", named(swaps));
    let engine = services.docker.connect().await.with_context(what)?;
    // A container may take its time to stop. What is not done then is done at the next start.
    let settled = tokio::time::timeout(LONGEST_STOP, swap::settle(&engine, swaps)).await;
    settled.context("it has taken longer than ten minutes").and_then(|done| done).with_context(what).map(drop)
}

fn named(swaps: &[Swap]) -> String {
    let names: Vec<&str> = swaps.iter().map(|swap| swap.name.as_str()).collect();
    format!("the container{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// Whether somebody misses it until it is paid, so that it cannot wait for the next start.
pub(super) fn is_urgent(debt: &Debt) -> bool {
    matches!(debt, Debt::Start { .. } | Debt::Thaw { .. } | Debt::Tell { .. } | Debt::Swap(_) | Debt::Swaps { .. })
}

async fn in_time(paying: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::time::timeout(PATIENCE, paying).await.context("no answer within a minute")?
}

fn remove(path: &Path) -> anyhow::Result<()> {
    // What a damaged ledger might say must never become this.
    if !path.is_absolute() || path.components().count() < 3 {
        bail!("this is no temporary file of ours");
    }
    let gone = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// What is owed, in words.
pub(super) fn in_words(debt: &Debt) -> String {
    match debt {
        Debt::AfterHook { command } => format!("its `after` hook `{}`", command.join(" ")),
        Debt::Remove { path } => format!("removing {}", path.display()),
        Debt::Container { name, .. } => format!("removing container {name}"),
        Debt::Process { name, .. } => format!("ending what was started in container {name}"),
        Debt::Swap(swap) if swap.well.is_some() => format!("leaving the new container {} in its place", swap.name),
        Debt::Swap(swap) => format!("bringing back the container {}", swap.name),
        Debt::Swaps { all } if all.iter().all(|swap| swap.well.is_some()) => {
            format!("leaving the new ones in the places of {}", named(all))
        }
        Debt::Swaps { all } => format!("bringing back {}", named(all)),
        Debt::Volume { name } => format!("removing the volume {name} if it is not whole"),
        Debt::Unstarted { container, .. } => format!("removing the container {container} if it was not started"),
        Debt::Upload { bucket, key, .. } => format!("ending the upload of {key} to bucket `{bucket}`"),
        Debt::Start { container, .. } => format!("starting the container `{}` again", container.name),
        Debt::Tell { container, command } => {
            format!("running `{}` in the container `{}`", command.join(" "), container.name)
        }
        Debt::Thaw { container } => format!("thawing the container `{}`", container.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_a_file_and_nothing_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("spool");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("part"), "x").unwrap();
        for _ in 0..2 {
            remove(&below).unwrap();
            assert!(!below.exists());
        }
        for never in ["/", "/etc", "relative/path"] {
            remove(Path::new(never)).unwrap_err();
        }
    }
}
