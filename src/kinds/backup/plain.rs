//! A backup in the plain layout: one object per source and a manifest.
use std::{path::Path, sync::Arc};

use anyhow::Context;

use super::{
    Backup, copy_database, docker,
    keys::{From, Source},
    own, sources_tree,
};
use crate::{
    bucket::Bucket,
    kinds::{Cx, Summary, generations, listening::Listening},
    plain::{FileFacts, Manifest, Setting, Single, SourceKind, Watcher, Writer},
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
    let thinning = generations::thin_bucket(cx, &bucket, &cx.job, &manifest, backup.rule());
    let thinned = cx.step("old generations", async { Ok(thinning.await) });
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
    if let Err(error) = write_sources(backup, cx, bucket, &mut writer, &watching, spool).await {
        writer.abandon().await;
        return Err(error);
    }
    cx.step("read back", writer.finish(crate::model::host_name(), &cx.clock)).await
}

async fn write_sources(
    backup: &Backup,
    cx: &Cx,
    bucket: &Arc<dyn Bucket>,
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
                Some(From::Volume(_) | From::Container(_)) => write_docker(cx, bucket, writer, &name, source).await,
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

async fn write_docker(
    cx: &Cx,
    bucket: &Arc<dyn Bucket>,
    writer: &mut Writer,
    name: &str,
    source: &Source,
) -> anyhow::Result<()> {
    let located = docker::locate(cx, source, bucket.server().into_iter().collect()).await?;
    let written = write_located(cx, bucket, writer, name, source, &located).await;
    located.leave(cx).await;
    written
}

async fn write_located(
    cx: &Cx,
    bucket: &Arc<dyn Bucket>,
    writer: &mut Writer,
    name: &str,
    source: &Source,
    located: &docker::Located,
) -> anyhow::Result<()> {
    let tree = sources_tree(cx, source, located.tree.clone())?;
    let report = if source.consistency().is_quiet() && !is_beside(bucket, &cx.services.spool) {
        // The containers wait for this disk, and not for another or a line.
        let reading = async {
            let spooled = writer.spool(name, tree).await?;
            docker::must_not_have_changed(spooled.report())?;
            Ok(spooled)
        };
        let spooled = located.while_quiet(cx, source, reading).await?;
        writer.put_spooled(spooled).await?
    } else {
        let reading = async {
            let report = writer.tree(name, tree).await?;
            if source.consistency().is_quiet() {
                docker::must_not_have_changed(&report)?;
            }
            Ok(report)
        };
        located.while_quiet(cx, source, reading).await?
    };
    cx.info(format!("{name}: {} entries", report.entries));
    Ok(())
}

/// Whether a bucket is a folder on the same file system, which takes what it gets as fast as the spool does.
fn is_beside(bucket: &Arc<dyn Bucket>, spool: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| path.ancestors().find_map(|path| Some(path.metadata().ok()?.dev()));
    bucket.local_folder().is_some_and(|folder| device(folder) == device(spool))
}
