//! `rusuban repository`.
use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use chrono::{Datelike as _, TimeDelta};
use serde_json::json;

use super::{
    Context, Exit, Told, paint,
    snapshots::{self, Watch},
};
use crate::{
    config::{Config, secret::SecretSource},
    model::host_name,
    repository::{GRACE, Look, PruneOptions, RepairOptions, Repository, Unlocked, settings::Shelf},
    text,
    tree::Listener,
};

/// What can be done with a repository.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a new one where rusuban.toml says
    Init {
        /// The repository's name in rusuban.toml
        name: String,
    },
    /// List the repositories
    List,
    /// Look for damage, and name the backups and files that it touches
    Check {
        /// The repository's name in rusuban.toml
        name: String,
        /// Also read the data itself, all of it or a share: `--read-data=5%`
        #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = "100%")]
        read_data: Option<String>,
    },
    /// Show what it holds, and how much of it is needed
    Stats {
        /// The repository's name in rusuban.toml
        name: String,
    },
    /// List its passwords' keys; add or remove one
    Keys {
        /// The repository's name in rusuban.toml
        name: String,
        /// Add the password in this file
        #[arg(long, value_name = "FILE")]
        add: Option<std::path::PathBuf>,
        /// Remove the key of that name
        #[arg(long, value_name = "KEY")]
        remove: Option<String>,
        /// Print the repository's own key, for `key = …` in rusuban.toml: whoever has it can read everything
        #[arg(long)]
        own: bool,
    },
    /// Rescue what is whole of a damaged one: backups are written again without what is lost
    Repair {
        /// The repository's name in rusuban.toml
        name: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove what no backup needs any more
    Prune {
        /// The repository's name in rusuban.toml
        name: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Remove at once, instead of a day after it was found to be of no use: only when no other program writes to it
        #[arg(long)]
        now: bool,
    },
    /// Remove locks that processes left behind
    Unlock {
        /// The repository's name in rusuban.toml
        name: String,
        /// Those of others that may be at work too: only when you know that nobody is
        #[arg(long)]
        all: bool,
    },
}

/// Does it.
pub(super) async fn run(context: &mut Context<'_>, command: Command) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    match command {
        Command::List => list(context, &config).await,
        Command::Init { name } => init(context, &config, &name).await,
        Command::Check { name, read_data } => {
            let share = read_data.as_deref().map_or(Ok(0.0), share)?;
            let repository = open(context, &config, &name).await?;
            check(context, &repository, &name, share).await
        }
        Command::Stats { name } => {
            let repository = open(context, &config, &name).await?;
            stats(context, &repository).await
        }
        Command::Keys { name, add, remove, own } => {
            let repository = open(context, &config, &name).await?;
            let exit = keys(context, &config, &repository, add, remove.clone(), own).await?;
            if remove.is_some() && exit == Exit::Fine && open(context, &config, &name).await.is_err() {
                writeln!(
                    context.errors,
                    "{} what rusuban.toml has for `{name}` opens it no more: name the password of a key that is left, and print the recovery kit again",
                    paint::warning("mind:")
                )?;
            }
            Ok(exit)
        }
        Command::Repair { name, dry_run } => {
            let repository = open(context, &config, &name).await?;
            repair(context, &repository, dry_run).await
        }
        Command::Prune { name, dry_run, now } => {
            let repository = open(context, &config, &name).await?;
            prune(context, &repository, dry_run, now).await
        }
        Command::Unlock { name, all } => {
            let repository = open(context, &config, &name).await?;
            let Unlocked { removed, unreadable, left } = repository.unlock(all, &host_name(), &context.clock).await?;
            if context.json {
                writeln!(context.out, "{}", json!({ "removed": removed, "unreadable": unreadable, "left": left }))?;
            } else {
                for lock in &removed {
                    writeln!(
                        context.out,
                        "removed the lock of process {} on {}, {}",
                        lock.pid, lock.hostname, lock.time
                    )?;
                }
                for id in &unreadable {
                    writeln!(context.out, "removed the lock {}, which could not be read", id.short())?;
                }
                let count = removed.len() + unreadable.len();
                writeln!(context.out, "{} removed, {left} left", text::count(count, "lock"))?;
            }
            Ok(Exit::Fine)
        }
    }
}

async fn open(context: &Context<'_>, config: &Config, name: &str) -> anyhow::Result<Repository> {
    snapshots::shelf(context, config, name).await?.open().await
}

async fn list(context: &mut Context<'_>, config: &Config) -> anyhow::Result<Exit> {
    let shelves = snapshots::shelves(context, config).await?;
    let mut table = text::Table::new(["repository", "where", "bucket"]);
    for shelf in &shelves {
        table.row([shelf.name().to_owned(), shelf.describe(), shelf.settings().bucket.clone()]);
    }
    if context.json {
        let all: Vec<_> =
            shelves.iter().map(|shelf| json!({ "name": shelf.name(), "where": shelf.describe() })).collect();
        writeln!(context.out, "{}", json!(all))?;
    } else if shelves.is_empty() {
        writeln!(
            context.out,
            "rusuban.toml has no repository yet: write `[repository.home]` there, with a `password`, then `rusuban repository init home`"
        )?;
    } else {
        write!(context.out, "{table}")?;
    }
    Ok(Exit::Fine)
}

async fn init(context: &mut Context<'_>, config: &Config, name: &str) -> anyhow::Result<Exit> {
    let shelf: Arc<Shelf> = snapshots::shelf(context, config, name).await?;
    let databases = config.jobs.values().any(|job| job.kind.repository() == Some(name) && job.kind.keeps_databases());
    let repository = shelf.create(databases, &host_name(), &context.clock).await?;
    let chunking = repository.chunking();
    if context.json {
        writeln!(context.out, "{}", json!({ "id": repository.id(), "where": shelf.describe(), "chunking": chunking }))?;
        return Ok(Exit::Fine);
    }
    writeln!(context.out, "{} the repository `{name}`: {}", paint::good("made"), shelf.describe())?;
    let why = if databases { ", for a job keeps a database in it" } else { "" };
    writeln!(context.out, "chunks have {} on average{why}", text::size(chunking.average))?;
    writeln!(
        context.out,
        "{} without its password nobody can ever read it: `rusuban recovery-kit {name}` prints what to keep outside of this house",
        paint::warning("mind:")
    )?;
    Ok(Exit::Fine)
}

fn share(text: &str) -> anyhow::Result<f64> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(Told::usage(format!("`{text}` is no share: write `--read-data` for all, or `--read-data=5%`"))),
    }
}

async fn check(context: &mut Context<'_>, repository: &Repository, name: &str, data: f64) -> anyhow::Result<Exit> {
    // Another day looks at another part.
    let part = u64::from(context.clock.now().num_days_from_ce().unsigned_abs());
    let look = Look { snapshots: None, data, part };
    let Some(found) = snapshots::look_through(context, repository, &look).await? else { return Ok(Exit::Interrupted) };
    if context.json {
        let touched: Vec<_> = found
            .touched
            .iter()
            .map(|touched| json!({ "backup": touched.snapshot, "files": touched.files, "count": touched.count }))
            .collect();
        let told = json!({
            "whole": found.is_whole(), "errors": found.errors, "notes": found.notes, "touched": touched,
            "backups": found.snapshots, "blobs": found.blobs, "packs_read": found.packs, "bytes_read": found.read,
        });
        writeln!(context.out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(if found.is_whole() { Exit::Fine } else { Exit::Failed });
    }
    for error in &found.errors {
        writeln!(context.errors, "{} {error}", paint::bad("damaged:"))?;
    }
    for touched in &found.touched {
        writeln!(context.errors, "backup {} is not whole:", touched.snapshot.short())?;
        snapshots::tell_touched(context, touched.count, &touched.files)?;
    }
    for note in &found.notes {
        writeln!(context.out, "{}", paint::faint(note))?;
    }
    let read = format!("{} of {} read", text::size(found.read), text::count(found.packs, "pack"));
    let backups = text::count(found.snapshots, "backup");
    if found.is_whole() {
        writeln!(context.out, "{}: {backups}, {} blobs, {read}", paint::good("whole"), found.blobs)?;
        return Ok(Exit::Fine);
    }
    let whole = found.snapshots - found.touched.len().min(found.snapshots);
    writeln!(context.errors, "{} {whole} of {backups} are whole; {read}", paint::bad("damaged:"))?;
    writeln!(
        context.errors,
        "leave it as it is, and look for a second copy; `rusuban repository repair {name} --dry-run` says what can be rescued"
    )?;
    Ok(Exit::Failed)
}

async fn stats(context: &mut Context<'_>, repository: &Repository) -> anyhow::Result<Exit> {
    let options = PruneOptions { dry_run: true, ..PruneOptions::default() };
    let watch = Watch::new(context, 0);
    let found = repository.prune(&options, &host_name(), &*watch.listener, &context.clock).await?;
    watch.end();
    let (snapshots, _) = repository.snapshots().await?;
    let summaries = snapshots.iter().filter_map(|(_, snapshot)| snapshot.summary.as_ref());
    let restored = text::total(summaries.map(|summary| summary.total_bytes_processed));
    let chunking = repository.chunking();
    if context.json {
        let told = json!({
            "id": repository.id(), "backups": found.snapshots, "packs": found.packs, "needed": found.needed,
            "unneeded": found.unneeded, "restored": restored, "chunking": chunking,
        });
        writeln!(context.out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(Exit::Fine);
    }
    let mut table = text::Table::new(["", ""]);
    table.row(["backups".into(), found.snapshots.to_string()]);
    table.row(["all of them restored".into(), text::size(restored)]);
    table.row(["stored for them".into(), text::size(found.needed)]);
    table.row(["of no use".into(), text::size(found.unneeded)]);
    table.row(["packs".into(), found.packs.to_string()]);
    table.row(["chunks".into(), format!("{}, {} on average", chunking.chunker, text::size(chunking.average))]);
    write!(context.out, "{}", table.to_string().trim_start_matches('\n'))?;
    Ok(Exit::Fine)
}

async fn keys(
    context: &mut Context<'_>,
    config: &Config,
    repository: &Repository,
    add: Option<std::path::PathBuf>,
    remove: Option<String>,
    own: bool,
) -> anyhow::Result<Exit> {
    if own {
        let key = String::from_utf8(repository.objects().key().to_json()).context("the key is no text")?;
        writeln!(context.out, "{key}")?;
        return Ok(Exit::Fine);
    }
    if let Some(file) = add {
        let file = std::path::absolute(file)?;
        let password = (config.secrets.0)(&SecretSource::File(file))?;
        let id = repository.add_password(password.reveal().as_bytes(), &host_name(), &context.clock).await?;
        writeln!(context.out, "{} key {}", paint::good("added"), id.short())?;
    }
    if let Some(name) = remove {
        let keys = repository.keys().await?;
        let fitting: Vec<_> =
            keys.iter().filter(|(id, _)| name.len() >= 4 && id.to_string().starts_with(&name)).collect();
        let [(id, _)] = fitting.as_slice() else {
            return context.missing(&format!("{} keys are called `{name}`: name one of them", fitting.len()));
        };
        if keys.len() == 1 {
            bail!("key {} is the only one: without it nobody could open the repository", id.short());
        }
        repository.objects().remove(crate::repository::Class::Key, id).await?;
        writeln!(context.out, "{} key {}", paint::good("removed"), id.short())?;
    }
    let keys = repository.keys().await?;
    if context.json {
        let told: Vec<_> = keys
            .iter()
            .map(|(id, key)| json!({ "key": id, "host": key.hostname, "user": key.username, "made": key.created }))
            .collect();
        writeln!(context.out, "{}", json!(told))?;
        return Ok(Exit::Fine);
    }
    let now = context.clock.now();
    let mut table = text::Table::new(["key", "made by", "on", "when"]);
    for (id, key) in &keys {
        let made = key.created.map(|created| text::ago(created, now)).unwrap_or_default();
        table.row([id.short(), key.username.clone(), key.hostname.clone(), made]);
    }
    write!(context.out, "{table}")?;
    Ok(Exit::Fine)
}

async fn repair(context: &mut Context<'_>, repository: &Repository, dry_run: bool) -> anyhow::Result<Exit> {
    let watch = Watch::new(context, 0);
    let options = RepairOptions {
        dry_run,
        host: host_name(),
        patience: Duration::from_secs(60),
        listener: Arc::clone(&watch.listener) as Arc<dyn Listener>,
        cancelled: watch.cancelled.clone(),
    };
    let repaired = repository.repair(&options, &context.clock).await;
    watch.end();
    if watch.cancelled.is_cancelled() {
        return Ok(Exit::Interrupted);
    }
    let repaired = repaired?;
    if context.json {
        writeln!(context.out, "{}", serde_json::to_string_pretty(&repaired)?)?;
        return Ok(Exit::Fine);
    }
    for (pack, why) in &repaired.damaged {
        writeln!(context.out, "{} pack {}: {why}", paint::bad("damaged:"), pack.short())?;
    }
    for what in &repaired.unreadable {
        writeln!(context.out, "{} {what}", paint::bad("unreadable:"))?;
    }
    for mended in &repaired.backups {
        let became = match mended.new {
            Some(new) => format!("is {} now, without:", new.short()),
            None if dry_run => "would lose:".to_owned(),
            None => "is lost:".to_owned(),
        };
        writeln!(context.out, "{} backup {} {became}", paint::warning("partial:"), mended.old.short())?;
        for path in &mended.lost {
            writeln!(context.out, "  {}", text::path(path))?;
        }
        if mended.count > mended.lost.len() as u64 {
            writeln!(context.out, "  and {} more", mended.count - mended.lost.len() as u64)?;
        }
    }
    if repaired.is_whole() {
        let packs = text::count(repaired.packs, "pack");
        writeln!(context.out, "{}: {packs} read, and there is nothing to repair", paint::good("whole"))?;
        return Ok(Exit::Fine);
    }
    let word = if dry_run { "would be" } else { "were" };
    writeln!(
        context.out,
        "{} read, {} damaged: {} {word} rescued of it, {} {word} lost; put into the index again: {}; written again: {}",
        text::count(repaired.packs, "pack"),
        repaired.damaged.len(),
        text::count(repaired.rescued, "blob"),
        text::count(repaired.lost, "blob"),
        text::count(repaired.indexed, "pack"),
        text::count(repaired.backups.len(), "backup"),
    )?;
    if dry_run && (!repaired.damaged.is_empty() || !repaired.unreadable.is_empty()) {
        writeln!(
            context.out,
            "nothing was changed; without --dry-run, damaged packs are removed once what is whole of them is stored"
        )?;
    }
    if !dry_run && !repaired.backups.is_empty() {
        writeln!(context.out, "run the jobs now: what is lost here and still on their disks is stored again")?;
    }
    Ok(Exit::Fine)
}

async fn prune(context: &mut Context<'_>, repository: &Repository, dry_run: bool, now: bool) -> anyhow::Result<Exit> {
    let grace = if now { TimeDelta::zero() } else { GRACE };
    let options = PruneOptions { dry_run, grace, patience: Duration::from_secs(60) };
    let watch = Watch::new(context, 0);
    let pruned = repository.prune(&options, &host_name(), &*watch.listener, &context.clock).await;
    watch.end();
    let pruned = pruned?;
    if context.json {
        writeln!(context.out, "{}", json!(pruned))?;
        return Ok(Exit::Fine);
    }
    for line in watch.listener.said() {
        writeln!(context.out, "{line}")?;
    }
    writeln!(
        context.out,
        "{} needed by {}, {} of no use",
        text::size(pruned.needed),
        text::count(pruned.snapshots, "backup"),
        text::size(pruned.unneeded),
    )?;
    let would = if dry_run { "would be " } else { "" };
    writeln!(
        context.out,
        "{} {would}taken out of the index, {} {would}packed anew ({})",
        text::count(pruned.dropped, "pack"),
        pruned.repacked,
        text::size(pruned.repacked_bytes),
    )?;
    if !dry_run {
        let (removed, size) = (text::count(pruned.removed, "pack"), text::size(pruned.removed_bytes));
        writeln!(context.out, "{removed} removed from the bucket ({size})")?;
    }
    if pruned.waiting > 0 {
        let waiting = text::count(pruned.waiting, "pack");
        writeln!(context.out, "still in the bucket: {waiting}; a prune tomorrow removes what waits")?;
    }
    Ok(Exit::Fine)
}
