//! A backup in a repository: deduplicated and encrypted, in the restic format.
use std::path::Path;

use anyhow::Context;

use super::{
    Backup, copy_database, docker,
    keys::{From, Source},
    own, sources_tree,
};
use crate::{
    kinds::{Cx, Summary, generations, listening::Listening},
    repository::{self, Ahead, Id, Repository, Single, Snapshot},
    text,
    tree::Tree,
};

pub(super) async fn run(backup: &Backup, cx: &Cx, name: &str, spool: &Path) -> anyhow::Result<Summary> {
    let shelf = cx.repository(name)?;
    let repository = shelf.open().await?;
    let server = cx.services.buckets.get(&shelf.settings().bucket).and_then(|bucket| bucket.server());
    let (id, snapshot) = write(backup, cx, &repository, spool, server).await?;
    let summary = snapshot.summary.clone().unwrap_or_default();
    cx.info(format!("kept as snapshot {} in {}", id.short(), shelf.describe()));
    cx.info(format!("bring it back with: rusuban restore {} --at {} --to FOLDER", cx.job, id.short()));
    let stored = format!(
        "{}, {} in {}, {} new → {}, read back",
        text::count(snapshot.rusuban.as_ref().map_or(0, |facts| facts.sources.len()), "source"),
        text::size(summary.total_bytes_processed),
        text::count(usize::try_from(summary.total_files_processed).unwrap_or(usize::MAX), "file"),
        text::size(summary.data_added),
        text::size(summary.data_added_packed),
    );
    let thinning = generations::thin_repository(cx, &repository, &cx.job, &id, backup.rule());
    let thinned = cx.step("old generations", async { Ok(thinning.await) });
    Ok(format!("{stored}; {}", thinned.await?))
}

async fn write(
    backup: &Backup,
    cx: &Cx,
    repository: &Repository,
    spool: &Path,
    server: Option<String>,
) -> anyhow::Result<(Id, Snapshot)> {
    let listening = Listening::new(cx, "");
    let mut writer = listening.begin_backup(repository, spool).await?;
    if let Err(error) = write_sources(backup, cx, &mut writer, &listening, spool, server).await {
        writer.abandon().await;
        return Err(error);
    }
    cx.step("store", writer.finish(&cx.clock)).await
}

async fn write_sources(
    backup: &Backup,
    cx: &Cx,
    writer: &mut repository::Backup,
    listening: &Listening,
    spool: &Path,
    server: Option<String>,
) -> anyhow::Result<()> {
    for source in &backup.source {
        let name = source.name();
        listening.begin(&name);
        let writing = async {
            let tree = match source.from() {
                Some(From::Sqlite(path)) => {
                    let path = cx.services.home.join(path);
                    let copied = copy_database(cx, &listening.step(), &name, &path, spool).await?;
                    let copy = copied.file.clone();
                    let open = move || std::fs::File::open(&copy).with_context(|| format!("open {}", copy.display()));
                    let file = tokio::task::spawn_blocking(open).await.context("a thread died")??;
                    let single = Single { kind: "sqlite".into(), path: Some(path), rows: copied.rows.clone() };
                    writer.stream(&name, single, file).await?;
                    return copied.remove().await;
                }
                Some(From::Path(path)) => Tree::at(&cx.services.home.join(path)),
                Some(From::Volume(_) | From::Container(_)) => {
                    return write_docker(cx, writer, &name, source, server.clone()).await;
                }
                Some(From::Own) => own(cx),
                None => anyhow::bail!("source `{name}` does not say what it is"),
            };
            write_tree(cx, writer, &name, source, tree).await
        };
        cx.step(&name, writing).await.with_context(|| format!("back up {name}"))?;
    }
    Ok(())
}

async fn write_tree(
    cx: &Cx,
    writer: &mut repository::Backup,
    name: &str,
    source: &Source,
    tree: Tree,
) -> anyhow::Result<()> {
    writer.note_excludes(&source.exclude);
    let report = writer.tree(name, sources_tree(cx, source, tree)?).await?;
    cx.info(format!("{name}: {} entries, {}", report.entries, text::size(report.bytes)));
    Ok(())
}

async fn write_docker(
    cx: &Cx,
    writer: &mut repository::Backup,
    name: &str,
    source: &Source,
    server: Option<String>,
) -> anyhow::Result<()> {
    let located = docker::locate(cx, source, server.into_iter().collect()).await?;
    let written = write_located(cx, writer, name, source, &located).await;
    located.leave(cx).await;
    written
}

async fn write_located(
    cx: &Cx,
    writer: &mut repository::Backup,
    name: &str,
    source: &Source,
    located: &docker::Located,
) -> anyhow::Result<()> {
    let tree = || sources_tree(cx, source, located.tree.clone());
    writer.note_excludes(&source.exclude);
    let (is_quiet, has_a_moment) = (source.consistency().is_quiet(), source.consistency().has_a_moment());
    // All is read while everybody writes to it, and at the moment that counts only what has changed since.
    let ahead = match has_a_moment {
        true => writer.look_ahead(name, tree()?.as_it_is(true), &cx.clock).await?,
        false => Ahead::default(),
    };
    let reading = async {
        let report = writer.tree_after(name, tree()?, ahead).await?;
        if is_quiet {
            docker::must_not_have_changed(&report)?;
        }
        Ok(report)
    };
    let report = located.while_quiet(cx, source, reading).await?;
    let size = text::size(report.bytes);
    match has_a_moment {
        true => {
            cx.info(format!(
                "{name}: {} entries, {size}, of which {} had to be read in that time",
                report.entries,
                text::size(report.anew)
            ));
        }
        false => cx.info(format!("{name}: {} entries, {size}", report.entries)),
    }
    Ok(())
}
