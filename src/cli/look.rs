//! `rusuban ls`, `find` and `diff`: what backups hold, which of them have something, what changed between two.
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::json;

use super::{
    Context, Exit,
    backups::{self, Which},
    kit::shell,
    paint, snapshots,
};
use crate::{
    bucket::Bucket,
    model::JobName,
    plain::{self, Manifest, Reading, SourceKind},
    repository::{Absent, Change, Difference, Found, How, Id, Moment, Node, NodeKind, Repository, Snapshot},
    text,
};

/// Lists what a backup holds.
pub(super) async fn ls(
    context: &mut Context<'_>,
    which: Which,
    path: Option<PathBuf>,
    recursive: bool,
) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    if snapshots::chosen(context, &config, &which).await?.is_none() {
        let Some((_, bucket, manifest)) = backups::find(context, &config, &which).await? else {
            return Ok(Exit::Missing);
        };
        let zone = config.settings.time_zone;
        return plain(context, (&bucket, &manifest), &which, path.as_deref(), recursive, zone).await;
    }
    let Some((repository, id, snapshot)) = snapshots::open(context, &config, &which).await? else {
        return Ok(Exit::Missing);
    };
    let zone = config.settings.time_zone;
    let index = repository.index().await?;
    if !context.json {
        let when = text::moment(snapshot.time.to_utc(), zone);
        writeln!(context.out, "{}", paint::faint(&format!("backup {} of {}, {when}", id.short(), which.job)))?;
    }
    let sources: Vec<PathBuf> =
        snapshots::sources(&repository, &snapshot).await?.into_iter().map(|source| source.path.into()).collect();
    let tops = match (path, sources.as_slice()) {
        // What is no place is looked for in the one source.
        (Some(path), [source]) => vec![source.join(path)],
        (Some(path), _) => vec![Path::new("/").join(path)],
        (None, _) => sources,
    };
    let asked_for_one = tops.len() == 1;
    for top in tops {
        let is_all = top == Path::new("/");
        let node = repository.at(&index, &snapshot, &top).await?;
        let subtree = if is_all { Some(snapshot.tree) } else { node.as_ref().and_then(|node| node.subtree) };
        if let (None, false) = (&node, is_all) {
            let what = text::path(&top);
            return context
                .missing(&format!("backup {} has no {what}; without a path, its sources are listed", id.short()));
        }
        // A folder that was asked for is opened; one among several sources is named.
        if let Some(node) = &node
            && (subtree.is_none() || !asked_for_one)
        {
            line(context, &top, node, zone)?;
        }
        if let Some(subtree) = subtree
            && (asked_for_one || recursive)
        {
            let mut below = repository.below(&index, subtree, &top);
            while let Some((path, node)) = below.next().await? {
                line(context, &path, &node, zone)?;
                if !recursive {
                    below.pass();
                }
            }
        }
    }
    Ok(Exit::Fine)
}

/// A plain backup: its sources; what is in them takes reading them.
async fn plain(
    context: &mut Context<'_>,
    (bucket, manifest): (&Arc<dyn Bucket>, &Manifest),
    which: &Which,
    path: Option<&Path>,
    recursive: bool,
    zone: chrono_tz::Tz,
) -> anyhow::Result<Exit> {
    if path.is_none() && !recursive {
        for source in &manifest.sources {
            let (bytes, name) = (source.plain.bytes, &source.name);
            if context.json {
                let told = json!({ "name": name, "kind": source.kind, "size": bytes, "entries": source.entries, "key": source.key });
                writeln!(context.out, "{told}")?;
            } else {
                writeln!(
                    context.out,
                    "{:>10}  {name}  ({} entries; {})",
                    text::size(bytes),
                    source.entries,
                    source.key
                )?;
            }
        }
        return Ok(Exit::Fine);
    }
    let mut any = false;
    for source in manifest.sources.iter().filter(|source| source.kind == SourceKind::Tree) {
        let origin = Path::new(source.path.as_deref().unwrap_or("/"));
        let asked = path.map(|path| origin.join(path));
        let reading = Reading { identities: which.identities()?, ..Reading::default() };
        let (sender, mut entries) = tokio::sync::mpsc::channel(1024);
        let listing = plain::entries(bucket, source, &reading, move |entry| sender.blocking_send(entry).is_ok());
        let printing = async {
            while let Some(entry) = entries.recv().await {
                // An archive begins with the name of what was read.
                let place = origin.parent().unwrap_or(origin).join(&entry.path);
                let is_asked = match &asked {
                    None => true,
                    Some(asked) if recursive => place.starts_with(asked),
                    Some(asked) => place == *asked || place.parent() == Some(asked),
                };
                if is_asked {
                    any = true;
                    line(context, &place, &node(entry), zone)?;
                }
            }
            anyhow::Ok(())
        };
        let (listed, printed) = tokio::join!(listing, printing);
        printed?;
        listed?;
    }
    match path {
        Some(path) if !any => {
            let what = text::path(path);
            context.missing(&format!("backup {} has no {what}; without a path, its sources are listed", manifest.id))
        }
        _ => Ok(Exit::Fine),
    }
}

/// What an archive tells, as a repository would.
fn node(entry: plain::Entry) -> Node {
    let kind = match entry.kind {
        tar::EntryType::Directory => NodeKind::Dir,
        tar::EntryType::Symlink => NodeKind::Symlink,
        tar::EntryType::Block => NodeKind::Dev,
        tar::EntryType::Char => NodeKind::CharDev,
        tar::EntryType::Fifo => NodeKind::Fifo,
        _ => NodeKind::File,
    };
    let mut node = Node::new(Vec::new(), kind);
    node.set_mode(entry.mode);
    (node.size, node.uid, node.gid) = (entry.size, entry.uid, entry.gid);
    node.mtime = Moment { seconds: entry.mtime.0, nanoseconds: entry.mtime.1 };
    node.set_target(entry.target);
    node
}

fn line(context: &mut Context<'_>, path: &Path, node: &Node, zone: chrono_tz::Tz) -> anyhow::Result<()> {
    if context.json {
        writeln!(context.out, "{}", facts(path, node))?;
        return Ok(());
    }
    let size = if node.kind == NodeKind::File { text::size(node.size) } else { String::new() };
    let to = match node.kind {
        NodeKind::Symlink => format!(" → {}", text::path(Path::new(&*String::from_utf8_lossy(node.target())))),
        NodeKind::Dir => "/".to_owned(),
        _ => String::new(),
    };
    let owner = |name: &str, number: u32| if name.is_empty() { number.to_string() } else { name.to_owned() };
    writeln!(
        context.out,
        "{}  {:<17} {size:>10}  {}  {}{to}",
        rights(node),
        format!("{}:{}", owner(&node.user, node.uid), owner(&node.group, node.gid)),
        text::moment(time(node.mtime), zone),
        text::path(path),
    )?;
    Ok(())
}

fn facts(path: &Path, node: &Node) -> serde_json::Value {
    json!({
        "path": path.to_string_lossy(), "kind": node.kind, "size": node.size, "mode": format!("{:04o}", node.mode()),
        "uid": node.uid, "gid": node.gid, "user": node.user, "group": node.group, "mtime": node.mtime,
        "target": (node.kind == NodeKind::Symlink).then(|| String::from_utf8_lossy(node.target()).into_owned()),
    })
}

/// Kind and rights, as `ls -l` shows them.
fn rights(node: &Node) -> String {
    let kind = match node.kind {
        NodeKind::Dir => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Dev => 'b',
        NodeKind::CharDev => 'c',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::File => '-',
        NodeKind::Irregular => '?',
    };
    let mode = node.mode();
    let mut text = String::from(kind);
    for (shift, special, with, without) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let has = |bit: u32| mode >> shift & bit != 0;
        text.push(if has(4) { 'r' } else { '-' });
        text.push(if has(2) { 'w' } else { '-' });
        text.push(match (mode & special != 0, has(1)) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn time(moment: Moment) -> DateTime<Utc> {
    DateTime::from_timestamp(moment.seconds, moment.nanoseconds).unwrap_or_default()
}

/// Where `find` looks.
#[derive(Debug, clap::Args)]
pub(super) struct Find {
    /// A name such as `report.ods` or `*.ods`, a place such as `/srv/files/*.ods`
    #[arg(required = true)]
    patterns: Vec<String>,
    /// Only in backups of this job
    #[arg(long, value_name = "JOB")]
    job: Option<JobName>,
    /// Only in this repository
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
}

/// Tells which backups have what fits a pattern.
pub(super) async fn find(context: &mut Context<'_>, arguments: Find) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let patterns = patterns(&arguments.patterns)?;
    let shelves = match &arguments.repository {
        Some(name) => vec![snapshots::shelf(context, &config, name).await?],
        None => snapshots::shelves(context, &config).await?,
    };
    if shelves.is_empty() {
        return context.missing(
            "rusuban.toml has no repository, and plain backups are not looked into: `rusuban backups` lists them",
        );
    }
    let (mut any, mut all_seen) = (false, true);
    for shelf in shelves {
        let repository = match shelf.open().await {
            Ok(repository) => repository,
            Err(error) if error.is::<Absent>() => continue,
            // Another one may have it.
            Err(error) => {
                writeln!(context.errors, "{} {error:#}", paint::bad("not looked at:"))?;
                all_seen = false;
                continue;
            }
        };
        let (all, damaged) = repository.snapshots().await?;
        for what in damaged {
            writeln!(context.errors, "{} {}: {what}", paint::bad("damaged:"), shelf.name())?;
        }
        let of_job = |snapshot: &Snapshot| arguments.job.is_none() || snapshot.job() == arguments.job;
        // The newest first: that is what is wanted most often.
        let (names, backups): (Vec<Id>, Vec<Snapshot>) =
            all.into_iter().rev().filter(|(_, snapshot)| of_job(snapshot)).unzip();
        let index = repository.index().await?;
        let fits = |path: &Path, _: &Node| patterns.is_match(path.strip_prefix("/").unwrap_or(path));
        let mut found = repository.find(&index, &backups, &fits).await?;
        found.sort_by(|one, other| (&one.path, &one.backups).cmp(&(&other.path, &other.backups)));
        any |= !found.is_empty();
        show(context, shelf.name(), &found, &names, &backups, config.settings.time_zone)?;
    }
    if !any && !context.json {
        context.missing("no backup that was looked into has anything that fits")?;
    }
    Ok(match (all_seen, any) {
        (false, _) => Exit::Failed,
        (true, true) => Exit::Fine,
        (true, false) => Exit::Missing,
    })
}

fn show(
    context: &mut Context<'_>,
    repository: &str,
    found: &[Found],
    names: &[Id],
    backups: &[Snapshot],
    zone: chrono_tz::Tz,
) -> anyhow::Result<()> {
    let job = |snapshot: &Snapshot| snapshot.job().map_or_else(|| snapshot.hostname.clone(), |job| job.to_string());
    if context.json {
        for one in found {
            let mut told = facts(&one.path, &one.node);
            let of = one
                .backups
                .iter()
                .map(|at| json!({ "id": names[*at], "time": backups[*at].time, "job": job(&backups[*at]) }));
            told["repository"] = json!(repository);
            told["backups"] = json!(of.collect::<Vec<_>>());
            writeln!(context.out, "{told}")?;
        }
        return Ok(());
    }
    let mut last: Option<&Path> = None;
    for one in found {
        if last != Some(&one.path) {
            writeln!(context.out, "{}", text::path(&one.path))?;
            last = Some(&one.path);
        }
        let (Some(newest), Some(oldest)) = (one.backups.first(), one.backups.last()) else { continue };
        let jobs = |one: &Found| {
            let jobs: BTreeSet<String> = one.backups.iter().map(|at| job(&backups[*at])).collect();
            jobs.into_iter().collect::<Vec<_>>().join(", ")
        };
        let named = |at: &usize| format!("{} ({})", names[*at].short(), text::moment(backups[*at].time.to_utc(), zone));
        let span = if newest == oldest { named(newest) } else { format!("{} … {}", named(newest), named(oldest)) };
        let size = if one.node.kind == NodeKind::File { text::size(one.node.size) } else { String::new() };
        writeln!(
            context.out,
            "  {} {size:>10}  {}  {} of {}: {span}",
            rights(&one.node),
            text::moment(time(one.node.mtime), zone),
            text::count(one.backups.len(), "backup"),
            jobs(one),
        )?;
    }
    if let Some((one, newest)) = found.first().and_then(|one| Some((one, *one.backups.first()?))) {
        let (job, id) = (job(&backups[newest]), names[newest].short());
        writeln!(
            context.out,
            "bring one back with `rusuban restore {job} --at {id} --only {} --to DIR`, or write it out with `rusuban dump {job} --at {id} {}`",
            shell(&globset::escape(&one.path.file_name().unwrap_or_default().to_string_lossy())),
            shell(&text::path(&one.path)),
        )?;
    }
    Ok(())
}

/// Patterns as people write them: a name is looked for everywhere, what begins with `/` there.
fn patterns(texts: &[String]) -> anyhow::Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for text in texts {
        let whole = text.strip_prefix('/').map_or_else(|| format!("**/{text}"), str::to_owned);
        let glob = GlobBuilder::new(whole.trim_end_matches('/')).literal_separator(true).backslash_escape(true).build();
        set.add(glob.with_context(|| format!("`{text}` is no pattern"))?);
    }
    Ok(set.build()?)
}

/// Which two backups `diff` compares.
#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    #[command(flatten)]
    which: Which,
    /// The earlier backup: a name, or a time as after --at [default: the one before]
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,
    /// Also show things of which only rights, owners, times or attributes changed
    #[arg(long)]
    metadata: bool,
}

/// Tells what is different between two backups of a job.
pub(super) async fn diff(context: &mut Context<'_>, arguments: Diff) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let Diff { mut which, from, metadata } = arguments;
    let Some((repository, id, after)) = snapshots::open(context, &config, &which).await? else {
        return Ok(Exit::Missing);
    };
    let before = match from {
        Some(from) => {
            which.at = Some(from);
            snapshots::find(context, &config, &repository, &which).await?
        }
        None => previous(&repository, &id, &after).await?,
    };
    let Some((from, before)) = before else {
        return context.missing(&format!("{} has no backup before {}", which.job, id.short()));
    };
    let zone = config.settings.time_zone;
    if !context.json {
        let named =
            |id: &Id, snapshot: &Snapshot| format!("{} ({})", id.short(), text::moment(snapshot.time.to_utc(), zone));
        let line = format!("{}: from {} to {}", which.job, named(&from, &before), named(&id, &after));
        writeln!(context.out, "{}", paint::faint(&line))?;
    }
    let index = repository.index().await?;
    let is_json = context.json;
    let out = &mut context.out;
    let mut tell = |change: Change| -> anyhow::Result<()> {
        if is_json {
            let size = |node: &Option<Node>| node.as_ref().map(|node| node.size);
            let told = json!({
                "path": change.path.to_string_lossy(), "how": change.how,
                "size_before": size(&change.before), "size_after": size(&change.after),
            });
            writeln!(out, "{told}")?;
        } else if metadata || change.how != How::Metadata {
            writeln!(out, "{}", changed(&change))?;
        }
        Ok(())
    };
    let found = repository.diff(&index, (before.tree, after.tree), &mut tell).await?;
    if context.json {
        writeln!(context.out, "{}", json!({ "from": from, "to": id, "difference": found }))?;
    } else {
        writeln!(context.out, "{}", in_all(&found, metadata))?;
    }
    Ok(Exit::Fine)
}

/// The newest backup of the same job that is older.
async fn previous(repository: &Repository, id: &Id, of: &Snapshot) -> anyhow::Result<Option<(Id, Snapshot)>> {
    let (all, _) = repository.snapshots().await?;
    let same = |snapshot: &Snapshot| match of.job() {
        Some(job) => snapshot.job() == Some(job),
        None => (&snapshot.hostname, &snapshot.paths) == (&of.hostname, &of.paths),
    };
    Ok(all.into_iter().rev().find(|(other, snapshot)| other != id && snapshot.time <= of.time && same(snapshot)))
}

fn changed(change: &Change) -> String {
    let size = |node: &Option<Node>| {
        node.as_ref().filter(|node| node.kind == NodeKind::File).map(|node| text::size(node.size))
    };
    let is_folder = change.after.as_ref().or(change.before.as_ref()).is_some_and(|node| node.kind == NodeKind::Dir);
    let path = format!("{}{}", text::path(&change.path), if is_folder { "/" } else { "" });
    let sizes = match (size(&change.before), size(&change.after)) {
        (Some(before), Some(after)) if change.how != How::Metadata => format!("  {before} → {after}"),
        (None, Some(size)) | (Some(size), None) => format!("  {size}"),
        _ => String::new(),
    };
    let sign = match change.how {
        How::Added => paint::good("+"),
        How::Removed => paint::bad("-"),
        How::Changed => paint::warning("M"),
        How::Replaced => paint::warning("T"),
        How::Metadata => paint::faint("U"),
    };
    format!("{sign} {path}{}", paint::faint(&sizes))
}

fn in_all(found: &Difference, metadata: bool) -> String {
    if *found == Difference::default() {
        return "no difference".to_owned();
    }
    let hidden = if metadata { "" } else { " (--metadata shows them)" };
    let parts = [
        (found.added, "added".to_owned()),
        (found.removed, "removed".to_owned()),
        (found.changed, "changed".to_owned()),
        (found.metadata, format!("with other rights or times{hidden}")),
    ];
    let things: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let (came, went) = (text::size(found.bytes_added), text::size(found.bytes_removed));
    format!("{}; {came} of content came, {went} went", things.join(", "))
}
