//! `rusuban backups`, `restore` and `verify`: what is there, bringing it back, reading it again. They need a bucket and, where
//! backups are encrypted, a key; no ledger, and no job file.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use indicatif::ProgressBar;
use serde_json::json;

use super::{
    Context, Exit, Told, paint, progress,
    snapshots::{self, Listed},
    volumes, when,
};
use crate::{
    bucket::Bucket,
    config::{Config, settings::LOCAL, units::Span},
    model::JobName,
    plain::{self, Manifest, Reading, age::Identity},
    text,
};

/// Which backups.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The job's name; its file need not be there. Or the name of a backup in a repository
    pub(super) job: String,
    /// The newest backup at that time: a backup's name, `2026-11-21`, "2026-11-21 03:15", `3d` ago [default: the newest]
    #[arg(long, value_name = "WHEN")]
    pub(super) at: Option<String>,
    /// The bucket [default: the job's; else the one that has backups of it]
    #[arg(long, value_name = "NAME")]
    pub(super) bucket: Option<String>,
    /// The repository [default: the job's]
    #[arg(long, value_name = "NAME", conflicts_with = "bucket")]
    pub(super) repository: Option<String>,
    /// A file of age keys (AGE-SECRET-KEY-…), for backups that are encrypted
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl Which {
    /// The keys that were given.
    pub(super) fn identities(&self) -> anyhow::Result<Vec<Identity>> {
        Ok(self.identity.as_deref().map(read_keys).transpose()?.unwrap_or_default())
    }

    /// The file of the keys, as another process finds it.
    pub(super) fn key_file(&self) -> anyhow::Result<Option<PathBuf>> {
        // A wrong one is told here, where it was typed.
        self.identities()?;
        Ok(self.identity.as_deref().map(std::path::absolute).transpose()?)
    }
}

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    #[command(flatten)]
    pub(super) which: Which,
    /// Only this source
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// The folder to put sources into, each under its own name [default: where each was read]
    #[arg(long, value_name = "DIR")]
    pub(super) to: Option<PathBuf>,
    /// A new Docker volume to put a volume into; of a container's source `OLD=NEW`, once for each volume
    #[arg(long, value_name = "[OLD=]NEW", conflicts_with_all = ["to", "only", "dry_run"])]
    pub(super) to_volume: Vec<String>,
    /// Put a volume or folder back in its place: restored into a new one, with which the containers that use the old one are made anew.
    /// They are taken back when one does not become well; the old one is kept
    #[arg(long, visible_alias = "swap", conflicts_with_all = ["to", "to_volume", "only", "dry_run", "replace", "beside"])]
    pub(super) in_place: bool,
    /// After --in-place: take the old volume or folder back
    #[arg(long, conflicts_with_all = ["to", "to_volume", "in_place", "only", "dry_run", "replace", "beside", "at"])]
    pub(super) undo: bool,
    /// With --in-place and --undo: how long a container has to become well [default: as long as its health check may take]
    #[arg(long, value_name = "TIME")]
    pub(super) wait: Option<Span>,
    /// Replace what is there; it is kept aside until the new is whole
    #[arg(long)]
    pub(super) replace: bool,
    /// Of a container: make a copy of that name, for a look: without published ports, and it only reads what is mounted in it
    #[arg(long = "as", value_name = "NAME", conflicts_with_all = ["to", "replace"])]
    pub(super) beside: Option<String>,
    /// The copy's network instead of the container's; `none` for none
    #[arg(long, value_name = "NETWORK", requires = "beside")]
    pub(super) network: Option<String>,
    /// Only files and folders that fit this pattern; from a repository
    #[arg(long, value_name = "PATTERN")]
    pub(super) only: Vec<String>,
    /// Only say what would change; from a repository
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Lists the backups of a job, or of all jobs in all buckets and repositories. A place that cannot be looked into is told,
/// and does not hide the others.
pub(super) async fn list(
    context: &mut Context<'_>,
    job: Option<&str>,
    bucket: Option<&str>,
    repository: Option<&str>,
) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let job: Option<JobName> = job.map(str::parse).transpose().map_err(anyhow::Error::msg)?;
    let (mut found, mut damaged, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    // What is asked of one place is not looked for elsewhere.
    if repository.is_none() {
        for name in buckets(&config, bucket)? {
            let listing = async {
                let bucket = open_bucket(context, &config, name).await?;
                list_bucket(name, &bucket, job.as_ref(), &mut found, &mut damaged).await
            };
            if let Err(error) = listing.await {
                unseen.push(format!("{error:#}"));
            }
        }
    }
    if bucket.is_none() {
        let listed = snapshots::list(context, &config, job.as_ref(), repository).await?;
        found.extend(listed.found.into_iter().map(Line::of_snapshot));
        damaged.extend(listed.damaged);
        unseen.extend(listed.unseen);
    }
    found.sort_by(|one, other| (&one.job, other.at).cmp(&(&other.job, one.at)));
    if context.json {
        let backups: Vec<_> = found.iter().map(|line| &line.json).collect();
        writeln!(
            context.out,
            "{}",
            serde_json::to_string_pretty(&json!({ "backups": backups, "damaged": damaged, "not_looked_at": unseen }))?
        )?;
    } else if !found.is_empty() {
        show(context, &found)?;
    } else if unseen.is_empty() {
        let what = job
            .as_ref()
            .map_or_else(|| "there are no backups".to_owned(), |job| format!("there is no backup of `{job}`"));
        writeln!(context.out, "{what} in {}", places(&config, bucket, repository))?;
    }
    for what in &damaged {
        writeln!(context.errors, "{} {what}", paint::bad("damaged:"))?;
    }
    for what in &unseen {
        writeln!(context.errors, "{} {what}", paint::bad("not looked at:"))?;
    }
    Ok(match (&job, found.is_empty(), damaged.is_empty() && unseen.is_empty()) {
        (_, _, false) => Exit::Failed,
        (Some(_), true, _) => Exit::Missing,
        _ => Exit::Fine,
    })
}

async fn list_bucket(
    name: &str,
    bucket: &Arc<dyn Bucket>,
    job: Option<&JobName>,
    found: &mut Vec<Line>,
    damaged: &mut Vec<String>,
) -> anyhow::Result<()> {
    let what = || format!("look into the bucket `{name}`");
    let jobs = match job {
        Some(job) => vec![job.clone()],
        None => {
            let folders = bucket.folders("").await.with_context(what)?;
            folders.iter().filter_map(|folder| folder.trim_end_matches('/').parse().ok()).collect()
        }
    };
    for job in jobs {
        let listing = plain::list(bucket, &job).await.with_context(what)?;
        found.extend(listing.backups.iter().map(|backup| Line::of_manifest(name, backup)));
        damaged.extend(listing.damaged.into_iter().map(|what| format!("{name}: {what}")));
    }
    Ok(())
}

/// A backup in a list, wherever it is.
struct Line {
    job: String,
    at: DateTime<Utc>,
    cells: [String; 5],
    json: serde_json::Value,
}

impl Line {
    fn of_manifest(bucket: &str, backup: &Manifest) -> Self {
        let sources: Vec<_> = backup.sources.iter().map(|source| source.name.as_str()).collect();
        Self {
            job: backup.job.to_string(),
            at: backup.at,
            cells: [
                backup.id.clone(),
                sources.join(", "),
                text::size(backup.plain_bytes()),
                text::size(backup.stored_bytes()),
                bucket.to_owned(),
            ],
            json: json!({ "bucket": bucket, "backup": backup }),
        }
    }

    fn of_snapshot(listed: Listed) -> Self {
        let Listed { repository, id, snapshot } = listed;
        let sources: Vec<_> = match &snapshot.rusuban {
            Some(facts) => facts.sources.iter().map(|source| source.name.clone()).collect(),
            None => snapshot.paths.clone(),
        };
        let (size, added) = match &snapshot.summary {
            Some(summary) => {
                (text::size(summary.total_bytes_processed), format!("+{}", text::size(summary.data_added_packed)))
            }
            None => Default::default(),
        };
        Self {
            job: snapshot.job().map_or_else(|| format!("({})", snapshot.hostname), |job| job.to_string()),
            at: snapshot.time.to_utc(),
            cells: [id.short(), sources.join(", "), size, added, repository.clone()],
            json: json!({ "repository": repository, "id": id, "snapshot": snapshot }),
        }
    }
}

/// Where was looked, and whose settings said so: somebody may stand in the wrong folder.
fn places(config: &Config, bucket: Option<&str>, repository: Option<&str>) -> String {
    let buckets = config.settings.buckets.keys().filter(|_| bucket.is_none() && repository.is_none());
    let repositories = config.settings.repositories.keys().filter(|_| bucket.is_none() && repository.is_none());
    let names: Vec<String> = bucket
        .into_iter()
        .chain(buckets.map(String::as_str))
        .map(|name| format!("the bucket `{name}`"))
        .chain(
            repository
                .into_iter()
                .chain(repositories.map(String::as_str))
                .map(|name| format!("the repository `{name}`")),
        )
        .collect();
    format!("{} of the home folder {}", names.join(", "), config.home.path().display())
}

fn show(context: &mut Context<'_>, found: &[Line]) -> anyhow::Result<()> {
    let now = context.clock.now();
    let mut table = text::Table::new(["job", "backup", "", "sources", "size", "stored", "where"]);
    for line in found {
        let [id, sources, size, stored, place] = line.cells.clone();
        table.row([line.job.clone(), id, text::ago(line.at, now), sources, size, stored, place]);
    }
    write!(context.out, "{table}")?;
    Ok(())
}

/// Brings the sources of a backup back.
pub(super) async fn restore(context: &mut Context<'_>, arguments: Restore) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    if !arguments.to_volume.is_empty() || arguments.in_place || arguments.undo {
        return volumes::restore(context, &config, arguments).await;
    }
    if let Some(shelf) = snapshots::chosen(context, &config, &arguments.which).await? {
        return snapshots::restore(context, &config, &shelf, arguments).await;
    }
    if arguments.dry_run || !arguments.only.is_empty() {
        bail!("--only and --dry-run are for backups in a repository");
    }
    let Some((_, bucket, manifest)) = find(context, &config, &arguments.which).await? else { return Ok(Exit::Missing) };
    let names: Vec<String> = manifest.sources.iter().map(|source| source.name.clone()).collect();
    if let Some(source) = &arguments.source
        && !names.contains(source)
    {
        return context.missing(&format!("this backup has no source `{source}`; its sources are {}", names.join(", ")));
    }
    let wanted: Vec<_> = manifest
        .sources
        .iter()
        .filter(|source| arguments.source.as_ref().is_none_or(|name| *name == source.name))
        .collect();
    if let Some(folder) = &arguments.to {
        fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    }
    let mut places = Vec::new();
    for source in &wanted {
        places.push(match &arguments.to {
            Some(folder) => folder.join(plain::file_name(source)),
            None => {
                let place = plain::original_place(source);
                volumes::refuse_live(&config, &arguments.which, &source.name, place.as_deref(), "")?;
                place.with_context(|| {
                    format!("{} was gathered from several places; say with --to where it shall go", source.name)
                })?
            }
        });
    }
    if !context.json {
        let now = context.clock.now();
        writeln!(context.out, "backup {} of {}, {}", manifest.id, manifest.job, text::ago(manifest.at, now))?;
    }
    let watch = Watch::new(context, text::total(wanted.iter().map(|source| source.stored.bytes)), &arguments.which)?;
    let mut exit = Exit::Fine;
    for (source, place) in wanted.iter().zip(places) {
        let name = Some(source.name.as_str());
        let result = plain::restore(&bucket, &manifest, name, &place, arguments.replace, &watch.reading).await;
        if context.json {
            let told = match &result {
                Ok(done) => {
                    json!({ "restored": source.name, "to": done.to, "bytes": done.bytes, "warnings": done.warnings })
                }
                Err(error) => json!({ "failed": source.name, "error": format!("{error:#}") }),
            };
            writeln!(context.out, "{told}")?;
        }
        match result {
            Ok(done) => {
                if !context.json {
                    let size = text::size(done.bytes);
                    writeln!(
                        context.out,
                        "{} {} → {} ({size})",
                        paint::good("restored"),
                        source.name,
                        done.to.display()
                    )?;
                    for warning in &done.warnings {
                        writeln!(context.out, "  {} {warning}", paint::warning("warning:"))?;
                    }
                }
            }
            Err(error) => {
                writeln!(context.errors, "{} {error:#}", paint::bad("error:"))?;
                exit = Exit::Failed;
            }
        }
        if watch.reading.cancelled.is_cancelled() {
            exit = Exit::Interrupted;
            break;
        }
    }
    watch.end();
    Ok(exit)
}

/// Reads all of a backup again.
pub(super) async fn verify(context: &mut Context<'_>, which: Which) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    if let Some(shelf) = snapshots::chosen(context, &config, &which).await? {
        return snapshots::verify(context, &config, &shelf, &which).await;
    }
    let Some((_, bucket, manifest)) = find(context, &config, &which).await? else { return Ok(Exit::Missing) };
    let watch = Watch::new(context, manifest.stored_bytes(), &which)?;
    let began = Instant::now();
    let result = plain::verify(&bucket, &manifest, &watch.reading).await;
    let interrupted = watch.reading.cancelled.is_cancelled();
    watch.end();
    let verified = match result {
        Ok(verified) => verified,
        Err(error) => {
            writeln!(context.errors, "{} {error:#}", paint::bad("not whole:"))?;
            return Ok(if interrupted { Exit::Interrupted } else { Exit::Failed });
        }
    };
    if context.json {
        let told = json!({
            "job": manifest.job, "backup": manifest.id, "objects": verified.objects, "stored": verified.stored,
            "plain": verified.plain, "sealed": verified.sealed,
        });
        writeln!(context.out, "{told}")?;
        return Ok(Exit::Fine);
    }
    let objects = text::count(verified.objects, "object");
    let (size, rate) = (text::size(verified.stored), text::rate(verified.stored, began.elapsed()));
    writeln!(
        context.out,
        "{}: backup {} of {}, {objects}, {size} at {rate}",
        paint::good("whole"),
        manifest.id,
        manifest.job
    )?;
    if !verified.sealed.is_empty() {
        let sealed = verified.sealed.join(", ");
        writeln!(
            context.out,
            "{} the contents of {sealed} are encrypted; give the key with --identity",
            paint::warning("not looked at:")
        )?;
    }
    Ok(Exit::Fine)
}

/// The backup that is meant, and the name of the bucket that has it; says so when there is none.
pub(super) async fn find(
    context: &mut Context<'_>,
    config: &Config,
    which: &Which,
) -> anyhow::Result<Option<(String, Arc<dyn Bucket>, Manifest)>> {
    let job: JobName = which.job.parse().map_err(anyhow::Error::msg)?;
    let at =
        which.at.as_deref().map(|at| when::parse(at, config.settings.time_zone, context.clock.now())).transpose()?;
    let asked = which.bucket.clone().or_else(|| Some(config.jobs.get(&job)?.kind.bucket()?.to_owned()));
    let mut holders = Vec::new();
    for name in buckets(config, asked.as_deref())? {
        let looking = async {
            let bucket = open_bucket(context, config, name).await?;
            let folders = bucket.folders("").await.with_context(|| format!("look into the bucket `{name}`"))?;
            anyhow::Ok((bucket, folders.contains(&format!("{job}/"))))
        };
        match looking.await {
            Ok((bucket, true)) => holders.push((name, bucket)),
            Ok((_, false)) => {}
            Err(error) if asked.is_some() => {
                return Err(error.context(format!("look for backups of `{job}`; --bucket chooses another place")));
            }
            // Another bucket may have them.
            Err(error) => writeln!(context.errors, "{} {error:#}", paint::warning("not looked at:"))?,
        }
    }
    let names: Vec<&str> = holders.iter().map(|(name, _)| *name).collect();
    match holders.pop() {
        None => {
            let place =
                asked.map_or_else(|| "any bucket or repository".to_owned(), |name| format!("the bucket `{name}`"));
            context.missing(&format!(
                "no backup of `{job}` was found in {place}; `rusuban backups` lists what is there"
            ))?;
            Ok(None)
        }
        Some(_) if !holders.is_empty() => {
            bail!("several buckets have backups of `{job}`: {}; choose with --bucket", names.join(", "))
        }
        Some((name, bucket)) => {
            let manifest = plain::find(&bucket, &job, at).await?;
            Ok(Some((name.to_owned(), bucket, manifest)))
        }
    }
}

/// The bucket of that name, or all of them, by name.
fn buckets<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<Vec<&'a str>> {
    let known: Vec<&str> = config.settings.buckets.keys().map(String::as_str).collect();
    let Some(name) = name else { return Ok(known) };
    match known.iter().find(|known| **known == name) {
        Some(found) => Ok(vec![found]),
        None => Err(Told::missing(format!(
            "rusuban.toml has no bucket `{name}`; it has {} (`{LOCAL}` is always there)",
            known.join(", ")
        ))),
    }
}

async fn open_bucket(context: &Context<'_>, config: &Config, name: &str) -> anyhow::Result<Arc<dyn Bucket>> {
    let settings = config.settings.buckets.get(name).context("it is not in rusuban.toml")?;
    settings
        .open(config.home.path(), &config.secrets, &context.clock)
        .await
        .with_context(|| format!("open the bucket `{name}`"))
}

/// How far a reader has come, on a terminal; and Ctrl-C.
pub(super) struct Watch {
    pub(super) reading: Reading,
    bar: ProgressBar,
}

impl Watch {
    pub(super) fn new(context: &Context<'_>, total: u64, which: &Which) -> anyhow::Result<Self> {
        let identities = which.identities()?;
        let (bar, cancelled) = (progress::bar(context, total), progress::interrupted());
        // Each call tells of one reading; the bar is for all.
        let (shown, highest) = (bar.clone(), AtomicU64::new(0));
        let on_bytes = Arc::new(move |bytes| {
            let before = highest.swap(bytes, Ordering::Relaxed);
            shown.inc(bytes.saturating_sub(if bytes < before { 0 } else { before }));
        });
        Ok(Self { reading: Reading { identities, cancelled, on_bytes }, bar })
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn read_keys(file: &Path) -> anyhow::Result<Vec<Identity>> {
    let text = fs::read_to_string(file).with_context(|| format!("read the key file {}", file.display()))?;
    Ok(Identity::parse_file(&text)?)
}
