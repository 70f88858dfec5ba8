//! `rusuban restore --to-volume` and `--in-place`: what was in a Docker volume comes back into a new one, which may take its place.
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{
    Context, Exit, Told,
    backups::{self, Restore, Which},
    run, snapshots,
};
use crate::{
    app::control::Request,
    config::Config,
    kinds::{
        DockerSource,
        restore::{self, Backup, Part, What},
    },
    model::JobName,
    plain::{self, SourceKind},
    repository::settings::Shelf,
};

/// The kind of a source that was gathered from several places.
pub(super) const GATHERED: &str = "gathered";

/// A source of a backup, and the volume that it was.
struct Found {
    backup: Backup,
    source: String,
    known: Option<DockerSource>,
    path: PathBuf,
    /// The volume, unless it is of a container.
    volume: String,
    /// It is one archive of several volumes.
    is_archive: bool,
    /// It is a folder of the host, and no volume.
    is_folder: bool,
}

/// Refuses to write where a volume has its files when nobody said where to: a container may be at work on them.
///
/// # Errors
/// Then; it says what to do.
pub(super) fn refuse_live(
    config: &Config,
    which: &Which,
    source: &str,
    place: Option<&Path>,
    kind: &str,
) -> anyhow::Result<()> {
    let job = &which.job;
    let begin = format!("rusuban restore {job} --source {source}");
    match (of_docker(config, which, source), place.and_then(volume_at)) {
        (Some(DockerSource::Container(_)), _) => Err(Told::usage(format!(
            "{source} are the volumes of a container, which may be at work on them: `{begin} --to-volume VOLUME=NEW` brings one back into a \
             new volume, `{begin} --in-place` all of them, in the place of those that it has, `{begin} --to FOLDER` all of them into a folder"
        ))),
        (Some(DockerSource::Volume(_)), _) | (None, Some(_)) => Err(Told::usage(format!(
            "{source} is a Docker volume, and a container may be at work on it: `{begin} --to-volume NEW` brings it back into a new volume, \
             `{begin} --in-place` into one that takes its place, `{begin} --to FOLDER` into a folder"
        ))),
        (None, None) if kind == GATHERED => Err(Told::usage(format!(
            "{source} was gathered from several places; say with --to where it shall go. If it are the volumes of a container, \
             `{begin} --to-volume VOLUME=NEW` brings one back into a new volume"
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

/// Has volumes brought back.
pub(super) async fn restore(context: &mut Context<'_>, config: &Config, arguments: Restore) -> anyhow::Result<Exit> {
    if arguments.undo {
        return undo(context, config, &arguments).await;
    }
    let wishes: Vec<(Option<&str>, &str)> = (arguments.to_volume.iter())
        .map(|wish| wish.split_once('=').map_or((None, wish.as_str()), |(old, new)| (Some(old), new)))
        .collect();
    if wishes.len() > 1 && wishes.iter().any(|(old, _)| old.is_none()) {
        return Err(Told::usage("of several volumes say which is which: `--to-volume OLD=NEW` for each".into()));
    }
    let found = find(context, config, &arguments).await?;
    let what = if arguments.in_place && found.is_folder {
        What::Folder { at: found.path.clone(), path: Some(found.path.clone()), wait: arguments.wait }
    } else if arguments.in_place {
        What::InPlace { parts: found.all(config).await?, wait: arguments.wait }
    } else {
        What::Volumes { parts: found.parts(&arguments.which.job, &wishes)?, replace: arguments.replace }
    };
    let doing = format!("restore {}", arguments.which.job);
    let asked =
        restore::Restore { job: arguments.which.job.clone(), backup: Some(found.backup), source: found.source, what };
    run::begin(context, config, &doing, Request::Restore(asked), false).await
}

/// Has the volumes put back that were in place before; which they are is known by the job, or by its backup.
async fn undo(context: &mut Context<'_>, config: &Config, arguments: &Restore) -> anyhow::Result<Exit> {
    let job = &arguments.which.job;
    let sources =
        job.parse::<JobName>().ok().and_then(|job| config.jobs.get(&job)).map(|job| job.kind.docker_sources());
    let wanted = |name: &String| arguments.source.as_ref().is_none_or(|asked| asked == name);
    let mut volumes = Vec::new();
    for (name, source) in sources.unwrap_or_default() {
        match source {
            DockerSource::Volume(volume) if wanted(&name) => volumes.push(volume),
            DockerSource::Container(container) if wanted(&name) => {
                volumes.extend(volumes_of(config, &container).await?.into_iter().map(|(volume, _)| volume));
            }
            _ => {}
        }
    }
    let source = arguments.source.clone().unwrap_or_default();
    let what = if volumes.is_empty() {
        let found = find(context, config, arguments).await?;
        match found.is_folder {
            true => What::Folder { at: found.path, path: None, wait: arguments.wait },
            false => What::Undo { volumes: vec![found.volume], wait: arguments.wait },
        }
    } else {
        What::Undo { volumes, wait: arguments.wait }
    };
    let asked = restore::Restore { job: job.clone(), backup: None, source, what };
    run::begin(context, config, &format!("restore {job} --undo"), Request::Restore(asked), false).await
}

/// The volumes that a container has now, and what each is called below a source.
async fn volumes_of(config: &Config, container: &str) -> anyhow::Result<Vec<(String, String)>> {
    let engine = config.settings.docker.connect().await?;
    let found = engine.container(container).await.with_context(|| format!("look at the container {container}"))?;
    let volume = |mount: &crate::docker::Mount| Some((mount.volume.clone()?, mount.title()));
    Ok(found.mounts().iter().filter_map(volume).collect())
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

async fn find(context: &mut Context<'_>, config: &Config, arguments: &Restore) -> anyhow::Result<Found> {
    match snapshots::chosen(context, config, &arguments.which).await? {
        Some(shelf) => in_repository(context, config, &shelf, arguments).await,
        None => in_bucket(context, config, arguments).await,
    }
}

async fn in_repository(
    context: &mut Context<'_>,
    config: &Config,
    shelf: &Shelf,
    arguments: &Restore,
) -> anyhow::Result<Found> {
    let repository = shelf.open().await?;
    let (job, place) = (&arguments.which.job, shelf.name());
    let Some((id, snapshot)) = snapshots::find(context, config, &repository, &arguments.which).await? else {
        return Err(Told::missing(format!("there is no such backup of `{job}` in {place}")));
    };
    let mut sources = snapshots::sources(&repository, &snapshot).await?;
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    let source = sources.swap_remove(choose(&names, arguments.source.as_deref())?);
    let path = PathBuf::from(&source.path);
    let known = of_docker(config, &arguments.which, &source.name);
    // The job may be gone; what was gathered is the volumes of a container then, unless it is Rusuban's own.
    let known = known.or_else(|| (source.kind == GATHERED).then(|| DockerSource::Container(source.name.clone())));
    Ok(Found {
        backup: Backup::Repository { name: place.to_owned(), id },
        volume: volume_of(known.as_ref(), &path, &source.name),
        source: source.name,
        is_folder: known.is_none() && source.kind == "path" && volume_at(&path).is_none(),
        known,
        path,
        is_archive: false,
    })
}

async fn in_bucket(context: &mut Context<'_>, config: &Config, arguments: &Restore) -> anyhow::Result<Found> {
    let Some((bucket, _, manifest)) = backups::find(context, config, &arguments.which).await? else {
        return Err(Told::missing("so nothing was restored".into()));
    };
    let names: Vec<String> = manifest.sources.iter().map(|source| source.name.clone()).collect();
    let source = &manifest.sources[choose(&names, arguments.source.as_deref())?];
    let known = of_docker(config, &arguments.which, &source.name);
    if source.kind != SourceKind::Tree {
        return Err(Told::usage(format!("{} is no folder, and no volume can be made of it", source.name)));
    }
    let place = plain::original_place(source);
    let is_archive = place.is_none() || matches!(known, Some(DockerSource::Container(_)));
    let path = place.unwrap_or_default();
    Ok(Found {
        backup: Backup::Bucket {
            name: bucket,
            job: manifest.job.clone(),
            id: manifest.id.clone(),
            identity: arguments.which.key_file()?,
        },
        source: source.name.clone(),
        volume: volume_of(known.as_ref(), &path, &source.name),
        is_folder: known.is_none() && !is_archive && volume_at(&path).is_none(),
        known,
        path,
        is_archive,
    })
}

impl Found {
    /// The volumes that were asked for, each with the one that it is to fill.
    fn parts(&self, job: &str, wishes: &[(Option<&str>, &str)]) -> anyhow::Result<Vec<Part>> {
        self.refuse_archive()?;
        let is_container = matches!(self.known, Some(DockerSource::Container(_)));
        let is_plain = matches!(self.backup, Backup::Bucket { .. });
        let part = |(old, new): &(Option<&str>, &str)| {
            let (old, path) = match old {
                None if is_container => {
                    return Err(Told::usage(format!(
                        "{0} are the volumes of a container: `--to-volume OLD=NEW` for each; `rusuban ls {job}` shows them",
                        self.source
                    )));
                }
                None => (self.volume.clone(), self.path.clone()),
                Some(old) if !is_container && *old == self.volume => (self.volume.clone(), self.path.clone()),
                Some(_) if is_plain => {
                    return Err(Told::missing(format!("{} is the volume {} and no other", self.source, self.volume)));
                }
                Some(old) => ((*old).to_owned(), self.path.join(old)),
            };
            Ok(Part { old, new: (*new).to_owned(), path })
        };
        wishes.iter().map(part).collect()
    }

    /// All volumes of the source.
    async fn all(&self, config: &Config) -> anyhow::Result<Vec<Part>> {
        self.refuse_archive()?;
        let part = |old: String, path: PathBuf| Part { new: old.clone(), old, path };
        match &self.known {
            Some(DockerSource::Container(container)) => {
                let volumes = volumes_of(config, container).await?;
                Ok(volumes.into_iter().map(|(volume, title)| part(volume, self.path.join(title))).collect())
            }
            _ => Ok(vec![part(self.volume.clone(), self.path.clone())]),
        }
    }

    fn refuse_archive(&self) -> anyhow::Result<()> {
        if self.is_archive {
            return Err(Told::usage(format!(
                "{} was gathered from several places, which are one archive: bring it back with --to FOLDER",
                self.source
            )));
        }
        Ok(())
    }
}

/// The volume that a source was: as the job says, or as it shows in where it was read.
fn volume_of(known: Option<&DockerSource>, path: &Path, source: &str) -> String {
    match known {
        Some(DockerSource::Volume(name)) => name.clone(),
        _ => volume_at(path).unwrap_or(source).to_owned(),
    }
}
