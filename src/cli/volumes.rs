//! `rusuban restore --to-volume`: what was in a Docker volume comes back into a new one.
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::{
    Context, Exit, Told,
    backups::{self, Restore, Which},
    paint, snapshots, volumes_afar,
};
use crate::{
    bucket::Bucket,
    config::Config,
    docker::{Engine, Seat, Vessel},
    kinds::DockerSource,
    model::JobName,
    plain::{self, Manifest, SourceKind},
    repository::{Index, Node, Repository, Wish, settings::Shelf},
    text,
    tree::{self, Listener},
};

/// The folder in a volume in which it is written until it is whole.
pub(super) const UNFINISHED: &str = ".rusuban-restore";

/// A volume to be filled.
pub(super) struct Part {
    old: String,
    new: String,
    from: Stored,
}

/// Where its files are kept.
enum Stored {
    Repository { node: Box<Node>, id: String },
    Plain,
}

/// What came back.
pub(super) struct Filled {
    /// As many as there must be, the top among them.
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) warnings: Vec<String>,
}

/// A store that was opened.
pub(super) enum Store {
    Repository(Repository, Arc<Index>, snapshots::Watch),
    Plain(Arc<dyn Bucket>, Box<Manifest>, String, backups::Watch),
}

/// Refuses to write where a volume has its files when nobody said where to: a container may be at work on them.
///
/// # Errors
/// Then; it says what to do.
pub(super) fn refuse_live(config: &Config, which: &Which, source: &str, place: Option<&Path>) -> anyhow::Result<()> {
    let job = &which.job;
    let begin = format!("rusuban restore {job} --source {source}");
    match (of_docker(config, which, source), place.and_then(volume_at)) {
        (Some(DockerSource::Container(_)), _) => Err(Told::usage(format!(
            "{source} are the volumes of a container, which may be at work on them: `{begin} --to-volume VOLUME=NEW` brings one back into a \
             new volume, `{begin} --to FOLDER` all of them into a folder"
        ))),
        (Some(DockerSource::Volume(_)), _) | (None, Some(_)) => Err(Told::usage(format!(
            "{source} is a Docker volume, and a container may be at work on it: `{begin} --to-volume NEW` brings it back into a new volume, \
             `{begin} --to FOLDER` into a folder"
        ))),
        (None, None) => Ok(()),
    }
}

fn of_docker(config: &Config, which: &Which, source: &str) -> Option<DockerSource> {
    let job: JobName = which.job.parse().ok()?;
    config.jobs.get(&job)?.kind.docker_sources().remove(source)
}

/// The volume whose files lie at this place of Docker's.
fn volume_at(place: &Path) -> Option<&str> {
    let volume = place.parent().filter(|_| place.ends_with("_data"))?;
    let is_dockers = volume.parent().is_some_and(|above| above.ends_with("volumes"));
    is_dockers.then(|| volume.file_name()?.to_str()).flatten()
}

/// Brings volumes back.
pub(super) async fn restore(context: &mut Context<'_>, config: &Config, arguments: Restore) -> anyhow::Result<Exit> {
    let engine = config.settings.docker.connect().await?;
    let wishes: Vec<(Option<&str>, &str)> = (arguments.to_volume.iter())
        .map(|wish| wish.split_once('=').map_or((None, wish.as_str()), |(old, new)| (Some(old), new)))
        .collect();
    if wishes.len() > 1 && wishes.iter().any(|(old, _)| old.is_none()) {
        return Err(Told::usage("of several volumes say which is which: `--to-volume OLD=NEW` for each".into()));
    }
    let (store, parts) = match snapshots::chosen(context, config, &arguments.which).await? {
        Some(shelf) => in_repository(context, config, &shelf, &arguments, &wishes).await?,
        None => in_bucket(context, config, &arguments, &wishes).await?,
    };
    let mut exit = Exit::Fine;
    let spool = config.settings.data.join("spool");
    for part in parts {
        let result = fill(&engine, &store, &part, arguments.replace, &spool).await;
        exit = match (&result, store.is_cancelled()) {
            (Ok(_), _) => exit,
            (Err(_), true) => Exit::Interrupted,
            (Err(_), false) => Exit::Failed,
        };
        tell(context, &part, result)?;
        if exit != Exit::Fine {
            break;
        }
    }
    store.end();
    Ok(exit)
}

fn tell(context: &mut Context<'_>, part: &Part, result: anyhow::Result<Filled>) -> anyhow::Result<()> {
    let Part { old, new, .. } = part;
    match result {
        Ok(done) if context.json => {
            let told = json!({
                "restored": old, "volume": new, "entries": done.entries, "bytes": done.bytes, "warnings": done.warnings,
            });
            writeln!(context.out, "{told}")?;
        }
        Ok(done) => {
            let (entries, size) = (done.entries, text::size(done.bytes));
            writeln!(context.out, "{} {old} → the volume {new} ({entries} entries, {size})", paint::good("restored"))?;
            for warning in &done.warnings {
                writeln!(context.out, "  {} {warning}", paint::warning("warning:"))?;
            }
        }
        Err(error) => {
            if context.json {
                writeln!(context.out, "{}", json!({ "failed": old, "volume": new, "error": format!("{error:#}") }))?;
            }
            writeln!(context.errors, "{} {error:#}", paint::bad("error:"))?;
        }
    }
    Ok(())
}

/// The one source that is meant.
fn choose(names: &[String], asked: Option<&str>) -> anyhow::Result<usize> {
    let all = names.join(", ");
    match (asked, names) {
        (Some(asked), _) => (names.iter().position(|name| name == asked))
            .ok_or_else(|| Told::missing(format!("this backup has no source `{asked}`; its sources are {all}"))),
        (None, [_]) => Ok(0),
        (None, _) => Err(Told::usage(format!("say with --source which of them: {all}"))),
    }
}

async fn in_repository(
    context: &mut Context<'_>,
    config: &Config,
    shelf: &Shelf,
    arguments: &Restore,
    wishes: &[(Option<&str>, &str)],
) -> anyhow::Result<(Store, Vec<Part>)> {
    let repository = shelf.open().await?;
    let (job, place) = (&arguments.which.job, shelf.name());
    let Some((id, snapshot)) = snapshots::find(context, config, &repository, &arguments.which).await? else {
        return Err(Told::missing(format!("there is no such backup of `{job}` in {place}")));
    };
    let index = Arc::new(repository.index().await?);
    let mut sources = snapshots::sources(&repository, &snapshot).await?;
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    let source = sources.swap_remove(choose(&names, arguments.source.as_deref())?);
    let path = PathBuf::from(&source.path);
    let known = of_docker(config, &arguments.which, &source.name);
    let mut parts = Vec::new();
    for (old, new) in wishes {
        let is_container = matches!(known, Some(DockerSource::Container(_)));
        let volume = volume_of(known.as_ref(), &path, &source.name);
        let (old, path) = match old {
            None if is_container => {
                return Err(Told::usage(format!(
                    "{0} are the volumes of a container: `--to-volume OLD=NEW` for each; `rusuban ls {job}` shows them",
                    source.name
                )));
            }
            None => (volume, path.clone()),
            Some(old) if !is_container && *old == volume => (volume, path.clone()),
            Some(old) => ((*old).to_owned(), path.join(old)),
        };
        let Some(node) = repository.at(&index, &snapshot, &path).await?.filter(|node| node.subtree.is_some()) else {
            let hint = format!("`rusuban ls {job}` shows what it has");
            return Err(Told::missing(format!("{} has no volume `{old}`; {hint}", source.name)));
        };
        let from = Stored::Repository { node: Box::new(node), id: id.short() };
        parts.push(Part { old, new: (*new).to_owned(), from });
    }
    let watch = snapshots::Watch::new(context, source.bytes);
    Ok((Store::Repository(repository, index, watch), parts))
}

async fn in_bucket(
    context: &mut Context<'_>,
    config: &Config,
    arguments: &Restore,
    wishes: &[(Option<&str>, &str)],
) -> anyhow::Result<(Store, Vec<Part>)> {
    let Some((bucket, manifest)) = backups::find(context, config, &arguments.which).await? else {
        return Err(Told::missing("so nothing was restored".into()));
    };
    let names: Vec<String> = manifest.sources.iter().map(|source| source.name.clone()).collect();
    let source = &manifest.sources[choose(&names, arguments.source.as_deref())?];
    let known = of_docker(config, &arguments.which, &source.name);
    let place = plain::original_place(source);
    if source.kind != SourceKind::Tree {
        return Err(Told::usage(format!("{} is no folder, and no volume can be made of it", source.name)));
    }
    let Some(place) = place.filter(|_| !matches!(known, Some(DockerSource::Container(_)))) else {
        return Err(Told::usage(format!(
            "{} was gathered from several places, which are one archive: bring it back with --to FOLDER",
            source.name
        )));
    };
    let volume = volume_of(known.as_ref(), &place, &source.name);
    let new = match wishes {
        [(old, new)] if old.is_none_or(|old| old == volume) => (*new).to_owned(),
        _ => return Err(Told::missing(format!("{} is the volume {volume} and no other", source.name))),
    };
    let part = Part { old: volume, new, from: Stored::Plain };
    let watch = backups::Watch::new(context, source.stored.bytes, &arguments.which)?;
    let name = source.name.clone();
    Ok((Store::Plain(bucket, Box::new(manifest), name, watch), vec![part]))
}

/// The volume that a source was: as the job says, or as it shows in where it was read.
fn volume_of(known: Option<&DockerSource>, path: &Path, source: &str) -> String {
    match known {
        Some(DockerSource::Volume(name)) => name.clone(),
        _ => volume_at(path).unwrap_or(source).to_owned(),
    }
}

/// Fills one. When it does not succeed, a volume that was made is removed again, and one that was there is as it was.
async fn fill(engine: &Engine, store: &Store, part: &Part, replace: bool, spool: &Path) -> anyhow::Result<Filled> {
    let what = || format!("restore {} into the volume {}", part.old, part.new);
    let vessel = engine.vessel(&part.new, &part.old).await.with_context(what)?;
    let done = match &vessel.seat {
        Seat::Here(folder) => write(engine, store, part, &vessel, folder, replace).await,
        Seat::Hidden(why) => {
            let writing = volumes_afar::write(engine, store, part, &vessel, replace, spool).await;
            writing.with_context(|| format!("{why}, and is written by a container"))
        }
    };
    if done.is_err() && vessel.is_new {
        // If it cannot be removed, it is there, and nothing uses it.
        let _ = engine.remove_volume(&vessel.name).await;
    }
    done.with_context(what)
}

async fn write(
    engine: &Engine,
    store: &Store,
    part: &Part,
    vessel: &Vessel,
    folder: &Path,
    replace: bool,
) -> anyhow::Result<Filled> {
    refuse_full(folder, &vessel.name, replace)?;
    let inner = folder.join(UNFINISHED);
    let done = match store.read(part, &inner).await {
        Ok(done) => done,
        Err(error) => {
            // What cannot be removed is removed by the next try.
            let folder = folder.to_owned();
            let _ = tokio::task::spawn_blocking(move || remove_unfinished(&folder)).await;
            return Err(error);
        }
    };
    engine.refuse_in_use(&vessel.name).await?;
    let there = tokio::task::spawn_blocking(move || tree::unfold(&inner)).await.context("a thread died")??;
    done.must_be(there)?;
    Ok(done)
}

/// What an earlier try left does not count.
///
/// # Errors
/// When there is something in it that is not to be replaced.
pub(super) fn refuse_full(folder: &Path, volume: &str, replace: bool) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))? {
        if !is_unfinished(&entry?.file_name()) && !replace {
            bail!("there is a volume `{volume}` already, and it is not empty: choose another name, or say --replace");
        }
    }
    Ok(())
}

/// Whether a name is one that we, or the restore that we ask, give to what is not whole yet.
fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(UNFINISHED.as_bytes()) || name.starts_with(format!(".{UNFINISHED}.rusuban-").as_bytes())
}

/// Removes what is not whole.
///
/// # Errors
/// When that cannot be done.
pub(super) fn remove_unfinished(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if is_unfinished(&entry.file_name()) {
            let path = entry.path();
            if entry.file_type()?.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
    }
    Ok(())
}

impl Filled {
    /// Fails unless there are as many entries as there must be.
    pub(super) fn must_be(&self, there: u64) -> anyhow::Result<()> {
        ensure!(
            there == self.entries,
            "it has {there} entries instead of {}; something else writes to it",
            self.entries
        );
        Ok(())
    }
}

impl Store {
    /// Restores a part so that it is at `to` itself.
    pub(super) async fn read(&self, part: &Part, to: &Path) -> anyhow::Result<Filled> {
        match (self, &part.from) {
            (Self::Repository(repository, index, watch), Stored::Repository { node, id }) => {
                if to.exists() {
                    let old = to.to_owned();
                    tokio::task::spawn_blocking(move || std::fs::remove_dir_all(old)).await??;
                }
                let (to, id, node) = (to.to_owned(), id.clone(), node.as_ref().clone());
                let wish = Wish { to, replace: false, dry_run: false, only: None, id, is_database: false };
                let listener = Arc::clone(&watch.listener) as Arc<dyn Listener>;
                let done = repository.restore(index, node, wish, listener, watch.cancelled.clone()).await?;
                ensure!(done.failed == 0, "files that could not be restored: {}", done.failures.join("; "));
                Ok(Filled { entries: done.entries, bytes: done.bytes, warnings: done.warnings })
            }
            (Self::Plain(bucket, manifest, name, watch), _) => {
                let done = plain::restore(bucket, manifest, Some(name), to, true, &watch.reading).await?;
                Ok(Filled { entries: done.entries, bytes: done.bytes, warnings: done.warnings })
            }
            (Self::Repository(..), Stored::Plain) => bail!("it is not in the repository"),
        }
    }

    /// Whether it was asked to stop.
    pub(super) fn is_cancelled(&self) -> bool {
        match self {
            Self::Repository(.., watch) => watch.cancelled.is_cancelled(),
            Self::Plain(.., watch) => watch.reading.cancelled.is_cancelled(),
        }
    }

    fn end(&self) {
        match self {
            Self::Repository(.., watch) => watch.end(),
            Self::Plain(.., watch) => watch.end(),
        }
    }
}
