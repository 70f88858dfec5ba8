//! A folder of the host comes back in its place: restored beside it, and exchanged with it in one step while the containers that have it
//! bound are stopped. They are started on the new one and waited for; when one is not well, the folders are exchanged again.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};
use serde_json::json;
use tokio::time::Instant;

use super::{Part, Restore};
use crate::{
    config::units::Span,
    docker::{
        Engine,
        swap::{self, Verdict},
    },
    kinds::{
        Cx, Summary,
        quiet::{self, Touched, Way},
    },
    text,
};

/// How often a container is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Restores a folder, and puts it in its place.
pub(super) async fn restore(
    cx: &Cx,
    engine: &Engine,
    asked: &Restore,
    at: &Path,
    path: &Path,
    wait: Option<Duration>,
) -> anyhow::Result<Summary> {
    refuse_from_within(engine).await?;
    let beside = free_name(at)?;
    let opened = asked.open(cx).await?;
    let new = beside.display().to_string();
    let part = Part { old: asked.source.clone(), new: new.clone(), path: path.to_owned() };
    let done = cx.step("restore", opened.read(cx, &part, &beside)).await;
    let done = done.with_context(|| format!("restore {} to {new}", asked.source))?;
    cx.info(format!("restored {} → {new} ({} entries, {})", asked.source, done.entries, text::size(done.bytes)));
    done.warnings.iter().for_each(|warning| cx.warn(warning));
    let names = put(cx, engine, at, &beside, wait).await.with_context(|| format!("what was restored is in {new}"))?;
    cx.record.told(json!({ "in_place": at, "old": beside, "containers": names }));
    cx.info(format!(
        "the old is kept as {new}: `rm -r {new}` removes it, `rusuban restore {} --source {} --undo` takes it back",
        asked.job, asked.source
    ));
    Ok(in_words(at, &names))
}

/// Exchanges it again with what was there before.
pub(super) async fn undo(cx: &Cx, engine: &Engine, at: &Path, wait: Option<Duration>) -> anyhow::Result<Summary> {
    refuse_from_within(engine).await?;
    let Some(before) = newest(at)? else {
        bail!("there is no {}-back-1 beside {}, so there is nothing to undo", at.display(), at.display());
    };
    let names = put(cx, engine, at, &before, wait).await?;
    cx.record.told(json!({ "in_place": at, "old": before, "containers": names }));
    cx.info(format!("what was restored is kept as {0}: `rm -r {0}` removes it", before.display()));
    Ok(in_words(at, &names))
}

fn in_words(at: &Path, names: &[String]) -> String {
    let used =
        if names.is_empty() { "no container has it bound".to_owned() } else { format!("in {}", names.join(", ")) };
    format!("{} is in its place, {used}", at.display())
}

async fn refuse_from_within(engine: &Engine) -> anyhow::Result<()> {
    if engine.own_container().await?.is_some() {
        bail!(
            "Rusuban runs in a container, where a folder of the host cannot be exchanged: restore it with `--to` beside it, stop its \
             containers, and rename it"
        );
    }
    if engine.is_elsewhere(None) {
        bail!(
            "the engine at {} is on another machine, where no container uses this folder: restore it with `--to` beside it, and rename it",
            engine.address()
        );
    }
    Ok(())
}

fn numbered(at: &Path, number: u32) -> anyhow::Result<PathBuf> {
    let name = at.file_name().with_context(|| format!("{} cannot be exchanged: name a folder in it", at.display()))?;
    Ok(at.with_file_name(format!("{}-back-{number}", name.to_string_lossy())))
}

fn free_name(at: &Path) -> anyhow::Result<PathBuf> {
    for number in 1..1000 {
        let path = numbered(at, number)?;
        if path.symlink_metadata().is_err() {
            return Ok(path);
        }
    }
    bail!("there are a thousand {}-back-…: remove those that nobody needs", at.display())
}

/// What was exchanged last.
fn newest(at: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut newest = None;
    for number in 1..1000 {
        let path = numbered(at, number)?;
        if path.symlink_metadata().is_ok() {
            newest = Some(path);
        }
    }
    Ok(newest)
}

/// Exchanges the two; the containers that have the folder bound run on what has its name then.
async fn put(
    cx: &Cx,
    engine: &Engine,
    at: &Path,
    beside: &Path,
    wait: Option<Duration>,
) -> anyhow::Result<Vec<String>> {
    let real = at.canonicalize().unwrap_or_else(|_| at.to_owned());
    let touched = Touched { folders: vec![real.clone()], readers: true, ..Touched::default() };
    let names = quiet::writers(engine, &touched).await?;
    let exchanging = || exchange(&real, beside);
    quiet::with_quiet(cx, engine, &touched, Way::Stop, async { exchanging() }).await?;
    let Err(why) = all_well(cx, engine, &names, wait).await else { return Ok(names) };
    // Asked to stop or not: what was there is to be there again.
    let undoing = crate::kinds::Cx { cancelled: tokio_util::sync::CancellationToken::new(), ..cx.clone() };
    match quiet::with_quiet(&undoing, engine, &touched, Way::Stop, async { exchanging() }).await {
        Ok(()) => Err(why.context(format!("{} is as it was before", at.display()))),
        Err(left) => Err(why.context(format!("{} could not be taken back ({left:#})", at.display()))),
    }
}

/// In one step: at no moment is there nothing under the name.
fn exchange(at: &Path, beside: &Path) -> anyhow::Result<()> {
    let what = || format!("exchange {} and {}", at.display(), beside.display());
    let done = match at.symlink_metadata() {
        Ok(_) => rustix::fs::renameat_with(CWD, at, CWD, beside, RenameFlags::EXCHANGE),
        Err(_) => rustix::fs::rename(beside, at),
    };
    match done {
        Err(Errno::BUSY | Errno::XDEV) => {
            bail!(
                "{}: one of them is a mount of its own; restore it with `--replace`, while its containers are stopped",
                what()
            )
        }
        Err(Errno::INVAL | Errno::NOSYS) => {
            bail!(
                "{}: this file system cannot do that in one step; restore it with `--replace`, while its containers are stopped",
                what()
            )
        }
        done => done.with_context(what)?,
    }
    let folder = std::fs::File::open(at.parent().unwrap_or(at)).with_context(what)?;
    folder.sync_all().with_context(what)
}

async fn all_well(cx: &Cx, engine: &Engine, names: &[String], wait: Option<Duration>) -> anyhow::Result<()> {
    for name in names {
        cx.step("wait until it is well", until_well(cx, engine, name, wait)).await?;
    }
    Ok(())
}

async fn until_well(cx: &Cx, engine: &Engine, name: &str, wait: Option<Duration>) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        if cx.cancelled.is_cancelled() {
            bail!("it was asked to stop");
        }
        let container = engine.container(name).await.with_context(|| format!("look at the container {name}"))?;
        let wait = wait.unwrap_or_else(|| swap::patience(&container));
        match swap::judge(&container, began.elapsed(), swap::LONG_ENOUGH.min(wait)) {
            Verdict::Well => return Ok(()),
            Verdict::Hopeless(why) => bail!("{name} is not well on it: {why}"),
            Verdict::NotYet(why) if began.elapsed() >= wait => {
                bail!("{name} is not well on it after {}: {why}", Span(wait))
            }
            Verdict::NotYet(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_folders_change_places_and_the_next_name_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("files");
        for (path, text) in [(&at, "old"), (&numbered(&at, 1).unwrap(), "new")] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("state"), text).unwrap();
        }
        assert_eq!(free_name(&at).unwrap(), folder.path().join("files-back-2"));
        let before = newest(&at).unwrap().unwrap();
        exchange(&at, &before).unwrap();
        assert_eq!(std::fs::read_to_string(at.join("state")).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(before.join("state")).unwrap(), "old");
        // It was gone.
        std::fs::remove_dir_all(&at).unwrap();
        exchange(&at, &before).unwrap();
        assert_eq!(std::fs::read_to_string(at.join("state")).unwrap(), "old");
        numbered(Path::new("/"), 1).unwrap_err();
    }
}
