//! `rusuban init`: a commented `rusuban.toml` and first jobs; where Docker runs, jobs for what is on its host.
use std::{collections::BTreeSet, fs, io::Write as _, path::PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::{Context, Exit, engine, paint};
use crate::{
    app::coverage::{compare, look},
    config::{Config, settings::LOCAL},
    coverage::propose::{Proposal, Room, Shelf, propose},
    kinds::KINDS,
};

const SETTINGS: &str = include_str!("rusuban.toml");
const SELF_BACKUP: &str = include_str!("../../jobs/self-backup.toml");

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
}

/// Writes the files; none that is there is touched.
pub(super) async fn init(context: &mut Context<'_>, arguments: &Arguments) -> anyhow::Result<Exit> {
    let jobs = context.home.jobs();
    let is_new = !context.home.settings().exists() && job_files(&jobs)?.is_empty();
    let proposal = propose_jobs(context, is_new).await?;
    let mut files = Vec::new();
    if is_new || proposal.is_none() {
        files.extend([
            (context.home.settings(), SETTINGS.to_owned()),
            (jobs.join("self-backup.toml"), SELF_BACKUP.to_owned()),
        ]);
        // An example stands where nothing of its kind is proposed.
        let proposed = |kind: &str| {
            let line = format!("= \"{kind}\"\n");
            proposal.iter().flat_map(|proposal| &proposal.files).any(|(_, text)| text.contains(&line))
        };
        let examples = KINDS.iter().filter(|kind| !proposed(kind.name));
        files.extend(examples.map(|kind| (jobs.join(format!("{}.toml", kind.name)), kind.example.to_owned())));
    }
    let proposal = proposal.unwrap_or_default();
    files.extend(proposal.files.iter().map(|(name, text)| (jobs.join(format!("{name}.toml")), text.clone())));
    let there: Vec<String> =
        files.iter().filter(|(path, _)| path.exists()).map(|(path, _)| path.display().to_string()).collect();
    if !there.is_empty() {
        writeln!(
            context.errors,
            "{} nothing was written, because this is there already:\n  {}",
            paint::bad("error:"),
            there.join("\n  ")
        )?;
        return Ok(Exit::Failed);
    }
    if !arguments.dry_run {
        fs::create_dir_all(&jobs).with_context(|| format!("make the folder {}", jobs.display()))?;
        for (path, text) in &files {
            write_new(path, text)?;
        }
    }
    if context.json {
        let files: Vec<_> = files.iter().map(|(path, text)| json!({ "file": path, "text": text })).collect();
        let told = json!({ "written": !arguments.dry_run, "files": files, "not_proposed": proposal.not });
        writeln!(context.out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(Exit::Fine);
    }
    for (path, text) in &files {
        if arguments.dry_run {
            writeln!(context.out, "{} {}\n\n{text}", paint::warning("would write"), path.display())?;
        } else {
            writeln!(context.out, "wrote {}", path.display())?;
        }
    }
    if files.is_empty() {
        writeln!(context.out, "there is nothing to propose: jobs name all that is here and would be missed")?;
    }
    if !proposal.not.is_empty() {
        writeln!(context.out, "\nnot proposed:")?;
        for what in &proposal.not {
            writeln!(context.out, "  {what}")?;
        }
    }
    if !files.is_empty() && !arguments.dry_run {
        let kept = if proposal.files.is_empty() { "" } else { ", `rusuban coverage` what is kept" };
        let first = if is_new { ", `rusuban run self-backup` makes the first backup" } else { "" };
        writeln!(context.out, "\n`rusuban check` shows when each job runs{kept}{first}")?;
    }
    Ok(Exit::Fine)
}

/// What Docker's host needs; nothing where no engine answers.
async fn propose_jobs(context: &mut Context<'_>, is_new: bool) -> anyhow::Result<Option<Proposal>> {
    let Some(config) = context.load_to_look()? else {
        anyhow::bail!("what is there must be right before more is written: mend that first");
    };
    let connected = match config.settings.docker.connect().await {
        Ok(engine) => engine,
        Err(error) => {
            // Who has no Docker need not hear of it.
            if let Some(why) = engine::worth_telling(&error) {
                writeln!(context.errors, "{} {why}", paint::warning("Docker was not looked at:"))?;
            }
            return Ok(None);
        }
    };
    let host = look(&config, &context.clock).await?;
    let ledger = context.ledger(&config).await?;
    let now = context.clock.now();
    let coverage = compare(&config, &host, ledger.as_ref(), now).await?;
    let mut taken: BTreeSet<String> = job_files(&context.home.jobs())?;
    taken.extend(KINDS.iter().map(|kind| kind.name.to_owned()).chain(["self-backup".to_owned()]));
    let room = Room {
        jobs: &config.jobs,
        taken,
        store: store(&config),
        repositories: config.settings.repositories.keys().cloned().collect(),
        engine: connected.address(),
        day: now.with_timezone(&config.settings.time_zone).format("%Y-%m-%d").to_string(),
    };
    let mut proposal = propose(&host, &coverage, room);
    let has_report = config.jobs.values().any(|job| job.enabled && job.kind_name == "disk-report");
    if let Some(report) = KINDS.iter().find(|kind| kind.name == "disk-report" && !is_new && !has_report) {
        let is_free = !context.home.jobs().join("disk-report.toml").exists();
        proposal.files.extend(is_free.then(|| (report.name.to_owned(), report.example.to_owned())));
    }
    Ok(Some(proposal))
}

/// The only repository, else the only bucket that was named, else the one that is always there.
fn store(config: &Config) -> Shelf {
    let repositories: Vec<&String> = config.settings.repositories.keys().collect();
    let buckets: Vec<&String> = config.settings.buckets.keys().filter(|name| *name != LOCAL).collect();
    match (repositories.as_slice(), buckets.as_slice()) {
        ([repository, ..], _) => Shelf::Repository((*repository).clone()),
        ([], [bucket, ..]) => Shelf::Bucket((*bucket).clone()),
        ([], []) => Shelf::Local,
    }
}

/// The names of the job files that are there, right or wrong.
fn job_files(folder: &std::path::Path) -> anyhow::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).with_context(|| format!("look into {}", folder.display())),
    };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    Ok(files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect())
}

fn write_new(path: &PathBuf, text: &str) -> anyhow::Result<()> {
    let what = || format!("write {}", path.display());
    let mut file = fs::File::create_new(path).with_context(what)?;
    file.write_all(text.as_bytes()).with_context(what)
}
