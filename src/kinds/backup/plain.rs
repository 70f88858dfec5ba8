//! A backup in the plain layout: one object per source and a manifest.
use std::{path::Path, sync::Arc};

use anyhow::Context;
use async_trait::async_trait;

use super::{
    Backup, copy_database,
    keys::{From, Source},
    own, sources_tree,
    thin::{self, Kept, LEFTOVER_AGE, Part},
};
use crate::{
    bucket::Bucket,
    kinds::{Cx, Summary, listening::Listening},
    plain::{self, FileFacts, Manifest, Setting, Single, SourceKind, Watcher, Writer},
    text,
    tree::Tree,
};

pub(super) async fn run(backup: &Backup, cx: &Cx, spool: &Path) -> anyhow::Result<Summary> {
    let bucket = cx.bucket(&backup.bucket)?;
    let manifest = write(backup, cx, &bucket, spool).await?;
    let sizes = format!("{} → {}", text::size(manifest.plain_bytes()), text::size(manifest.stored_bytes()));
    let count = text::count(manifest.sources.len(), "source");
    cx.info(format!("kept as {}/{} in {}", manifest.job, manifest.id, bucket.describe()));
    cx.info(format!("bring it back with: rusuban restore {} --at {} --to FOLDER", manifest.job, manifest.id));
    let stored = format!("{count}, {sizes}, read back");
    let thinned = cx.step("old generations", async { Ok(thin_out(backup, cx, &bucket, &manifest).await) });
    Ok(format!("{stored}; {}", thinned.await?))
}

async fn write(backup: &Backup, cx: &Cx, bucket: &Arc<dyn Bucket>, spool: &Path) -> anyhow::Result<Manifest> {
    let watching = Listening::new(cx, &backup.bucket);
    let mut writer = Writer::begin(Setting {
        bucket: Arc::clone(bucket),
        job: cx.job.clone(),
        at: cx.clock.now(),
        options: backup.options()?,
        spool: spool.to_owned(),
        watcher: Arc::clone(&watching) as Arc<dyn Watcher>,
        cancelled: cx.cancelled.clone(),
    })
    .await?;
    if let Err(error) = write_sources(backup, cx, &mut writer, &watching, spool).await {
        writer.abandon().await;
        return Err(error);
    }
    cx.step("read back", writer.finish(crate::model::host_name(), &cx.clock)).await
}

async fn write_sources(
    backup: &Backup,
    cx: &Cx,
    writer: &mut Writer,
    watching: &Listening,
    spool: &Path,
) -> anyhow::Result<()> {
    for source in &backup.source {
        let name = source.name();
        watching.begin(&name);
        let writing = async {
            match source.from() {
                Some(From::Sqlite(path)) => {
                    let path = cx.services.home.join(path);
                    let copied = copy_database(cx, &watching.step(), &name, &path, spool).await?;
                    let facts = Single {
                        kind: SourceKind::Sqlite,
                        path: Some(path.display().to_string()),
                        rows: copied.rows.clone(),
                        file: Some(FileFacts::of(&path)?),
                        bytes: None,
                    };
                    writer.file(&name, facts, &copied.file).await?;
                    copied.remove().await
                }
                Some(From::Path(path)) => {
                    let tree = Tree::at(&cx.services.home.join(path));
                    write_tree(cx, writer, &name, source, tree).await
                }
                Some(From::Own) => write_tree(cx, writer, &name, source, own(cx)).await,
                None => anyhow::bail!("source `{name}` does not say what it is"),
            }
        };
        cx.step(&name, writing).await.with_context(|| format!("back up {name}"))?;
    }
    Ok(())
}

async fn write_tree(cx: &Cx, writer: &mut Writer, name: &str, source: &Source, tree: Tree) -> anyhow::Result<()> {
    let report = writer.tree(name, sources_tree(cx, source, tree)?).await?;
    cx.info(format!("{name}: {} entries", report.entries));
    Ok(())
}

async fn thin_out(backup: &Backup, cx: &Cx, bucket: &Arc<dyn Bucket>, newest: &Manifest) -> String {
    let listing = match plain::list(bucket, &cx.job).await {
        Ok(listing) => listing,
        Err(error) => {
            cx.warn(format!("old generations were not looked at: {error:#}"));
            return "older ones not looked at".to_owned();
        }
    };
    for damaged in &listing.damaged {
        cx.warn(format!("a backup cannot be read and is left alone: {damaged}"));
    }
    remove_leftovers(cx, bucket).await;
    let kept: Vec<Kept> = listing.backups.iter().map(kept).collect();
    thin::thin(cx, &kept, &newest.id, backup.rule(), &Listed { bucket, backups: &listing.backups }).await
}

struct Listed<'a> {
    bucket: &'a Arc<dyn Bucket>,
    backups: &'a [Manifest],
}

#[async_trait]
impl thin::Stored for Listed<'_> {
    async fn remove(&self, id: &str) -> anyhow::Result<()> {
        match self.backups.iter().find(|backup| backup.id == id) {
            Some(backup) => plain::delete(self.bucket, backup).await,
            None => Ok(()),
        }
    }
}

fn kept(backup: &Manifest) -> Kept {
    let parts = backup.sources.iter().map(|source| Part {
        name: source.name.clone(),
        is_tree: source.kind == SourceKind::Tree,
        bytes: source.plain.bytes,
    });
    Kept { id: backup.id.clone(), at: backup.at, host: backup.host.clone(), parts: parts.collect(), good: true }
}

async fn remove_leftovers(cx: &Cx, bucket: &Arc<dyn Bucket>) {
    let leftovers = match plain::leftovers(bucket, &cx.job, cx.clock.now() - LEFTOVER_AGE).await {
        Ok(leftovers) => leftovers,
        Err(error) => return cx.warn(format!("leftovers were not looked for: {error:#}")),
    };
    for leftover in leftovers {
        match plain::remove_leftover(bucket, &leftover).await {
            Ok(()) => cx.info(format!(
                "removed {} left by a backup that was cut off, {}",
                text::size(leftover.bytes),
                leftover.id
            )),
            Err(error) => cx.warn(format!("{error:#}")),
        }
    }
}
