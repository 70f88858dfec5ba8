//! Backups in repositories: listed, brought back, read again, looked into.
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, bail};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use indicatif::ProgressBar;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Context, Exit, Told,
    backups::{Restore, Which},
    containers, paint, progress, volumes, when,
};
use crate::{
    config::Config,
    model::JobName,
    repository::{Absent, Findings, Id, Look, Repository, Snapshot, SourceFacts, Wish, settings::Shelf},
    text,
    tree::Listener,
};

/// A snapshot, and the repository it is in.
pub(super) struct Listed {
    pub(super) repository: String,
    pub(super) id: Id,
    pub(super) snapshot: Snapshot,
}

/// Repositories of the settings, not opened yet.
pub(super) async fn shelves(context: &Context<'_>, config: &Config) -> anyhow::Result<Vec<Arc<Shelf>>> {
    let services = config.services(&context.clock).await?;
    Ok(services.repositories.values().cloned().collect())
}

/// The repository of that name.
pub(super) async fn shelf(context: &Context<'_>, config: &Config, name: &str) -> anyhow::Result<Arc<Shelf>> {
    let shelves = shelves(context, config).await?;
    let known: Vec<String> = shelves.iter().map(|shelf| shelf.name().to_owned()).collect();
    shelves.into_iter().find(|shelf| shelf.name() == name).ok_or_else(|| {
        Told::missing(match known.as_slice() {
            [] => format!("rusuban.toml has no repository: write `[repository.{name}]` there, with a `password`"),
            known => format!("rusuban.toml has no repository `{name}`; it has {}", known.join(", ")),
        })
    })
}

/// What repositories hold, and what could not be read of them.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) found: Vec<Listed>,
    pub(super) damaged: Vec<String>,
    /// Repositories that did not open, and why.
    pub(super) unseen: Vec<String>,
}

/// Backups of a job, or all. A repository that does not open is told, and does not hide the others.
pub(super) async fn list(
    context: &mut Context<'_>,
    config: &Config,
    job: Option<&JobName>,
    only: Option<&str>,
) -> anyhow::Result<Listing> {
    let mut listed = Listing::default();
    let looked_at = match only {
        Some(name) => vec![shelf(context, config, name).await?],
        None => shelves(context, config).await?,
    };
    for shelf in looked_at {
        let listing = async { shelf.open().await?.snapshots().await };
        match listing.await {
            Ok((snapshots, wrong)) => {
                listed.damaged.extend(wrong.iter().map(|wrong| format!("{}: {wrong}", shelf.name())));
                for (id, snapshot) in snapshots {
                    if job.is_none_or(|job| snapshot.job().as_ref() == Some(job)) {
                        listed.found.push(Listed { repository: shelf.name().to_owned(), id, snapshot });
                    }
                }
            }
            // It is in rusuban.toml, and was not made yet.
            Err(error) if error.is::<Absent>() && only.is_none() => {}
            Err(error) => listed.unseen.push(format!("{error:#}")),
        }
    }
    Ok(listed)
}

/// What a snapshot holds: its sources, or, if another program made it, what is at its top.
pub(super) async fn sources(repository: &Repository, snapshot: &Snapshot) -> anyhow::Result<Vec<SourceFacts>> {
    if let Some(facts) = &snapshot.rusuban {
        return Ok(facts.sources.clone());
    }
    let index = repository.index().await?;
    let top = repository.tree(&index, &snapshot.tree).await?;
    let source = |node: &crate::repository::Node| {
        let name = node.os_name().to_string_lossy().into_owned();
        let path = format!("/{name}");
        SourceFacts { name, kind: "path".into(), path, entries: 0, bytes: 0, rows: Default::default() }
    };
    Ok(top.nodes.iter().map(source).collect())
}

/// The snapshot that is meant: by its own name, or the newest of a job at a time.
pub(super) async fn find(
    context: &Context<'_>,
    config: &Config,
    repository: &Repository,
    which: &Which,
) -> anyhow::Result<Option<(Id, Snapshot)>> {
    let (snapshots, _) = repository.snapshots().await?;
    let named = |text: &str| {
        let is_name = text.len() >= 4 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let mut fitting = snapshots.iter().filter(|(id, _)| is_name && id.to_string().starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(found), None) => Some(found.clone()),
            _ => None,
        }
    };
    if let Some(found) = which.at.as_deref().and_then(named) {
        return Ok(Some(found));
    }
    let of_job = |snapshot: &Snapshot| snapshot.job().is_some_and(|job| job.as_str() == which.job);
    if !snapshots.iter().any(|(_, snapshot)| of_job(snapshot)) {
        return Ok(named(&which.job));
    }
    let at =
        which.at.as_deref().map(|at| when::parse(at, config.settings.time_zone, context.clock.now())).transpose()?;
    Ok(snapshots
        .into_iter()
        .rev()
        .find(|(_, snapshot)| of_job(snapshot) && at.is_none_or(|at| snapshot.time.to_utc() <= at)))
}

/// Brings sources of a snapshot back.
pub(super) async fn restore(
    context: &mut Context<'_>,
    config: &Config,
    shelf: &Shelf,
    arguments: Restore,
) -> anyhow::Result<Exit> {
    let repository = shelf.open().await?;
    let (found, index) = tokio::join!(find(context, config, &repository, &arguments.which), repository.index());
    let Some((id, snapshot)) = found? else {
        let what = format!("there is no such backup of `{}` in {}", arguments.which.job, shelf.name());
        return context.missing(&format!("{what}; `rusuban backups` lists what is there"));
    };
    let all = sources(&repository, &snapshot).await?;
    let names: Vec<String> = all.iter().map(|source| source.name.clone()).collect();
    let wanted: Vec<SourceFacts> =
        all.into_iter().filter(|source| arguments.source.as_ref().is_none_or(|name| *name == source.name)).collect();
    if wanted.is_empty() {
        let asked = arguments.source.unwrap_or_default();
        return context.missing(&format!("this backup has no source `{asked}`; its sources are {}", names.join(", ")));
    }
    let only = patterns(&arguments.only)?;
    if !context.json {
        let now = context.clock.now();
        let job = &arguments.which.job;
        writeln!(context.out, "backup {} of {job}, {}", id.short(), text::ago(snapshot.time.to_utc(), now))?;
    }
    if arguments.to.is_none() && wanted.iter().any(|source| source.kind == containers::KIND) {
        let [source] = wanted.as_slice() else {
            let names = wanted.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ");
            bail!("say which container comes back, with `--source`: {names}; `--to DIR` brings the files of all");
        };
        return containers::bring_back(context, config, (shelf.name(), id), source, &arguments).await;
    }
    let index = Arc::new(index?);
    let mut nodes = Vec::new();
    for source in &wanted {
        if arguments.to.is_none() && !arguments.dry_run {
            let place = Some(Path::new(&source.path));
            volumes::refuse_live(config, &arguments.which, &source.name, place, &source.kind)?;
        }
        let node = repository.at(&index, &snapshot, Path::new(&source.path)).await?;
        nodes.push(node.with_context(|| format!("the backup does not have {}, which it says it has", source.path))?);
    }
    let watch = Watch::new(context, text::total(wanted.iter().map(|source| source.bytes)));
    let mut exit = Exit::Fine;
    for (source, node) in wanted.iter().zip(nodes) {
        let to = match &arguments.to {
            Some(folder) => {
                std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
                folder.join(&source.name)
            }
            None => PathBuf::from(&source.path),
        };
        let wish = Wish {
            to: to.clone(),
            replace: arguments.replace,
            dry_run: arguments.dry_run,
            only: only.clone(),
            id: id.short(),
            is_database: source.kind == "sqlite",
        };
        let listener = Arc::clone(&watch.listener) as Arc<dyn Listener>;
        let result = repository.restore(&index, node, wish, listener, watch.cancelled.clone()).await;
        watch.listener.next();
        match result {
            Ok(done) if context.json => {
                let told = json!({
                    "restored": source.name, "to": to, "entries": done.entries, "bytes": done.bytes, "equal": done.equal,
                    "failed": done.failed, "failures": done.failures, "warnings": done.warnings, "changes": done.changes,
                });
                writeln!(context.out, "{told}")?;
                exit = if done.failed > 0 { Exit::Failed } else { exit };
            }
            Ok(done) => {
                if arguments.dry_run {
                    for (how, path) in &done.changes {
                        writeln!(context.out, "  would be {how}: {}", path.display())?;
                    }
                    writeln!(context.out, "{}: files as in the backup already: {}", source.name, done.equal)?;
                } else {
                    let equal =
                        if done.equal > 0 { format!(", {} were so already", done.equal) } else { String::new() };
                    writeln!(
                        context.out,
                        "{} {} → {} ({} entries, {}{equal})",
                        paint::good("restored"),
                        source.name,
                        to.display(),
                        done.entries,
                        text::size(done.bytes),
                    )?;
                }
                for warning in &done.warnings {
                    writeln!(context.out, "  {} {warning}", paint::warning("warning:"))?;
                }
                for failure in &done.failures {
                    writeln!(context.errors, "  {} {failure}", paint::bad("not restored:"))?;
                    exit = Exit::Failed;
                }
            }
            Err(error) => {
                writeln!(context.errors, "{} {error:#}", paint::bad("error:"))?;
                exit = Exit::Failed;
            }
        }
        if watch.cancelled.is_cancelled() {
            writeln!(context.errors, "the same command again goes on where this one stopped")?;
            exit = Exit::Interrupted;
            break;
        }
    }
    watch.end();
    Ok(exit)
}

/// Looks for damage, and shows how far it has come; nothing when it was interrupted.
pub(super) async fn look_through(
    context: &Context<'_>,
    repository: &Repository,
    look: &Look,
) -> anyhow::Result<Option<Findings>> {
    let watch = Watch::new(context, 0);
    let listener = Arc::clone(&watch.listener) as Arc<dyn Listener>;
    let found = repository.check(look, &listener, &watch.cancelled).await;
    watch.end();
    if watch.cancelled.is_cancelled() { Ok(None) } else { found.map(Some) }
}

/// Reads all of a snapshot again.
pub(super) async fn verify(
    context: &mut Context<'_>,
    config: &Config,
    shelf: &Shelf,
    which: &Which,
) -> anyhow::Result<Exit> {
    let repository = shelf.open().await?;
    let Some((id, snapshot)) = find(context, config, &repository, which).await? else {
        return context.missing(&format!("there is no such backup of `{}` in {}", which.job, shelf.name()));
    };
    let began = Instant::now();
    let look = Look { snapshots: Some(vec![id]), data: 1.0, part: 0 };
    let Some(found) = look_through(context, &repository, &look).await? else { return Ok(Exit::Interrupted) };
    if context.json {
        let files: Vec<_> = found.touched.iter().flat_map(|touched| &touched.files).collect();
        let told = json!({
            "job": which.job, "backup": id, "whole": found.touched.is_empty(), "errors": found.errors,
            "files": files, "packs": found.packs, "stored": found.read,
        });
        writeln!(context.out, "{told}")?;
    } else {
        for touched in &found.touched {
            tell_touched(context, touched.count, &touched.files)?;
        }
        for error in &found.errors {
            writeln!(context.errors, "  {error}")?;
        }
        if found.is_whole() {
            let (size, rate) = (text::size(found.read), text::rate(found.read, began.elapsed()));
            let sources = snapshot.rusuban.iter().flat_map(|facts| &facts.sources);
            writeln!(
                context.out,
                "{}: backup {} of {}, {} from {}, {size} at {rate}",
                paint::good("whole"),
                id.short(),
                which.job,
                text::size(text::total(sources.map(|source| source.bytes))),
                text::count(found.packs, "pack"),
            )?;
        } else {
            writeln!(context.errors, "{} backup {} of {}", paint::bad("not whole:"), id.short(), which.job)?;
        }
    }
    Ok(if found.is_whole() { Exit::Fine } else { Exit::Failed })
}

/// Says which files of a backup cannot be restored.
pub(super) fn tell_touched(context: &mut Context<'_>, count: u64, files: &[PathBuf]) -> anyhow::Result<()> {
    for file in files {
        writeln!(context.errors, "  {} {}", paint::bad("cannot be restored:"), file.display())?;
    }
    let more = count - files.len() as u64;
    if more > 0 {
        writeln!(context.errors, "  and {more} more")?;
    }
    Ok(())
}

/// Patterns as people write them for `--only`.
fn patterns(only: &[String]) -> anyhow::Result<Option<GlobSet>> {
    if only.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in only {
        let bare = pattern.trim_matches('/');
        let from_top =
            if bare.contains('/') || pattern.starts_with('/') { bare.to_owned() } else { format!("**/{bare}") };
        let glob = GlobBuilder::new(&from_top).literal_separator(true).backslash_escape(true).build();
        set.add(glob.with_context(|| format!("`{pattern}` is no pattern"))?);
    }
    Ok(Some(set.build()?))
}

/// Writes one file of a backup to standard output.
pub(super) async fn dump(context: &mut Context<'_>, which: Which, path: &Path) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let Some((repository, _, snapshot)) = open(context, &config, &which).await? else { return Ok(Exit::Missing) };
    let index = repository.index().await?;
    let Some(node) = repository.at(&index, &snapshot, path).await? else {
        return context.missing(&format!(
            "the backup has no {}; `rusuban ls {} -r` lists the places of all that it has",
            path.display(),
            which.job
        ));
    };
    let Some(content) = node.content else {
        bail!(
            "{} is no file; `rusuban restore {} --only PATTERN --to DIR` brings folders back",
            path.display(),
            which.job
        )
    };
    for id in content {
        let piece = repository.blob(&index, crate::repository::BlobKind::Data, &id).await?;
        context.out.write_all(&piece)?;
    }
    context.out.flush()?;
    Ok(Exit::Fine)
}

/// The repository and snapshot that are meant.
pub(super) async fn open(
    context: &mut Context<'_>,
    config: &Config,
    which: &Which,
) -> anyhow::Result<Option<(Repository, Id, Snapshot)>> {
    let Some(shelf) = chosen(context, config, which).await? else {
        context
            .missing(&format!(
                "no repository has backups of `{}`, and plain backups are not looked into; `rusuban backups` lists what is there",
                which.job
            ))?;
        return Ok(None);
    };
    let repository = shelf.open().await?;
    match find(context, config, &repository, which).await? {
        Some((id, snapshot)) => Ok(Some((repository, id, snapshot))),
        None => {
            context.missing(&format!("there is no such backup of `{}` in {}", which.job, shelf.name()))?;
            Ok(None)
        }
    }
}

/// The repository that was asked for, or the job's.
pub(super) async fn chosen(
    context: &mut Context<'_>,
    config: &Config,
    which: &Which,
) -> anyhow::Result<Option<Arc<Shelf>>> {
    if let Some(name) = &which.repository {
        return shelf(context, config, name).await.map(Some);
    }
    if which.bucket.is_some() {
        return Ok(None);
    }
    let job = which.job.parse::<JobName>().ok().and_then(|job| config.jobs.get(&job));
    match job {
        Some(job) => match job.kind.repository() {
            Some(name) => shelf(context, config, name).await.map(Some),
            None => Ok(None),
        },
        // Its file is gone: whoever has backups of it.
        None => {
            for shelf in shelves(context, config).await? {
                match shelf.open().await {
                    Ok(repository) if find(context, config, &repository, which).await?.is_some() => {
                        return Ok(Some(shelf));
                    }
                    Ok(_) => {}
                    Err(error) if error.is::<Absent>() => {}
                    Err(error) => writeln!(context.errors, "{} {error:#}", paint::warning("not looked at:"))?,
                }
            }
            Ok(None)
        }
    }
}

/// Shows how far it has come, on a terminal; and Ctrl-C.
pub(super) struct Watch {
    pub(super) listener: Arc<Bar>,
    pub(super) cancelled: CancellationToken,
}

/// A bar for several pieces of work.
pub(super) struct Bar {
    bar: ProgressBar,
    before: AtomicU64,
    last: AtomicU64,
    lines: Mutex<Vec<String>>,
}

impl Watch {
    pub(super) fn new(context: &Context<'_>, total: u64) -> Self {
        let (bar, cancelled) = (progress::bar(context, total), progress::interrupted());
        let (before, last) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { listener: Arc::new(Bar { bar, before, last, lines: Mutex::default() }), cancelled }
    }

    pub(super) fn end(&self) {
        self.listener.bar.finish_and_clear();
    }
}

impl Bar {
    /// The next piece of work begins to count at nothing.
    fn next(&self) {
        self.before.fetch_add(self.last.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// What was said meanwhile.
    pub(super) fn said(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Listener for Bar {
    fn info(&self, text: &str) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    }

    fn warn(&self, text: &str) {
        self.info(text);
    }

    fn progress(&self, done: u64, total: Option<u64>) {
        self.last.store(done, Ordering::Relaxed);
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(self.before.load(Ordering::Relaxed) + done);
    }
}
