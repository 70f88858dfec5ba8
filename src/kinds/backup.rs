//! `backup`: files, folders and SQLite databases into a bucket, read back, and old generations removed.
mod keys;
mod thin;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use async_trait::async_trait;
use schemars::JsonSchema;

pub use keys::Backup;
use keys::{From, Source};

use super::{Cx, Kind, KindEntry, Progress, Site, Summary};
use crate::{
    bucket::Bucket,
    config::{mistake::Problem, units::Span},
    database::sqlite,
    model::{Debt, DebtId},
    plain::{FileFacts, Manifest, Setting, Single, SourceKind, Watcher, Writer},
    policy::MissedPolicy,
    text,
    tree::{Listener, Tree},
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "backup",
    summary: "Keeps files, folders and SQLite databases in a bucket, and removes old generations",
    example: include_str!("../../jobs/backup.toml"),
    parse: super::read::<Backup>,
    schema: Backup::json_schema,
    missed: MissedPolicy::Latest,
    class: "disk",
    timeout: Some(Span::hours(24)),
};

#[async_trait]
impl Kind for Backup {
    fn check(&self, site: &Site) -> Vec<Problem> {
        self.problems(site)
    }

    fn locks(&self) -> Vec<String> {
        // `/srv/photos/` is `/srv/photos`.
        let path = |source: &Source| Some(format!("path:{}", source.path()?.components().as_path().display()));
        self.source.iter().filter_map(path).collect()
    }

    fn bucket(&self) -> Option<&str> {
        Some(&self.bucket)
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let bucket = cx.bucket(&self.bucket)?;
        let spool = cx.services.spool.join(format!("backup-{}", cx.run));
        let debt = cx.record.owe(Debt::Remove { path: spool.clone() }).await?;
        let written = self.write(cx, &bucket, &spool).await;
        match remove(spool).await {
            Ok(()) => cx.record.paid(debt).await?,
            // It is still owed, and removed at the next start.
            Err(error) => cx.warn(format!("{error:#}")),
        }
        let manifest = written?;
        let sizes = format!("{} → {}", text::size(manifest.plain_bytes()), text::size(manifest.stored_bytes()));
        let count = match manifest.sources.len() {
            1 => "1 source".to_owned(),
            count => format!("{count} sources"),
        };
        cx.info(format!("kept as {}/{} in {}", manifest.job, manifest.id, bucket.describe()));
        cx.info(format!("bring it back with: rusuban restore {} --at {} --to FOLDER", manifest.job, manifest.id));
        let stored = format!("{count}, {sizes}, read back");
        let thinned = cx.step("old generations", async { Ok(thin::thin(cx, &bucket, &manifest, self.rule()).await) });
        Ok(format!("{stored}; {}", thinned.await?))
    }
}

impl Backup {
    async fn write(&self, cx: &Cx, bucket: &Arc<dyn Bucket>, spool: &Path) -> anyhow::Result<Manifest> {
        make_private(spool.to_owned()).await?;
        let watching = Arc::new(Watching { cx: cx.clone(), bucket: self.bucket.clone(), step: Mutex::default() });
        let mut writer = Writer::begin(Setting {
            bucket: Arc::clone(bucket),
            job: cx.job.clone(),
            at: cx.clock.now(),
            options: self.options()?,
            spool: spool.to_owned(),
            watcher: Arc::clone(&watching) as Arc<dyn Watcher>,
            cancelled: cx.cancelled.clone(),
        })
        .await?;
        if let Err(error) = self.write_sources(cx, &mut writer, &watching, spool).await {
            writer.abandon().await;
            return Err(error);
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        cx.step("read back", writer.finish(host, &cx.clock)).await
    }

    async fn write_sources(
        &self,
        cx: &Cx,
        writer: &mut Writer,
        watching: &Watching,
        spool: &Path,
    ) -> anyhow::Result<()> {
        for source in &self.source {
            let name = source.name();
            watching.begin(&name);
            let writing = async {
                match source.from() {
                    Some(From::Sqlite(path)) => {
                        write_database(cx, writer, watching, &name, &cx.services.home.join(path), spool).await
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
}

async fn write_tree(cx: &Cx, writer: &mut Writer, name: &str, source: &Source, tree: Tree) -> anyhow::Result<()> {
    let mut own_folders: Vec<PathBuf> =
        cx.services.buckets.values().filter_map(|bucket| bucket.local_folder().map(PathBuf::from)).collect();
    own_folders.push(cx.services.spool.clone());
    own_folders.extend(cx.services.store.parent().map(PathBuf::from));
    let tree = tree
        .without(source.excludes()?)
        .on_one_file_system(source.one_file_system)
        .even_if_empty(source.allow_empty)
        .skipping(own_folders)
        .with_databases_open_here(vec![cx.services.store.clone()]);
    let report = writer.tree(name, tree).await?;
    cx.info(format!("{name}: {} entries", report.entries));
    Ok(())
}

async fn write_database(
    cx: &Cx,
    writer: &mut Writer,
    watching: &Watching,
    name: &str,
    path: &Path,
    spool: &Path,
) -> anyhow::Result<()> {
    let copy = spool.join("source.sqlite");
    let (from, to, cancelled) = (path.to_owned(), copy.clone(), cx.cancelled.clone());
    let (record, step) = (Arc::clone(&cx.record), watching.step());
    let copying = tokio::task::spawn_blocking(move || {
        let bytes = from.metadata().map_or(0, |found| found.len());
        let report = sqlite::backup(&from, &to, |done, total| {
            // It counts pages; what is shown is bytes.
            let done = bytes / total.max(1) * done;
            record.progress(Progress { step: step.clone(), done, total: Some(bytes) });
            !cancelled.is_cancelled()
        })?;
        anyhow::Ok((report, FileFacts::of(&from)?))
    });
    let (report, facts) = copying.await.context("the thread that copies died")??;
    if report.restarts > 0 {
        cx.info(format!("{name}: begun anew {} times while others wrote to it", report.restarts));
    }
    let rows: u64 = report.rows.values().sum();
    cx.info(format!("{name}: {} in {} tables with {rows} rows, whole", text::size(report.bytes), report.rows.len()));
    let facts = Single {
        kind: SourceKind::Sqlite,
        path: Some(path.display().to_string()),
        rows: report.rows,
        file: Some(facts),
        bytes: None,
    };
    writer.file(name, facts, &copy).await?;
    tokio::fs::remove_file(&copy).await.with_context(|| format!("remove {}", copy.display()))
}

/// What recovery needs of Rusuban itself: settings, job files and the ledger, so that restored into an empty folder
/// they are a home folder again.
fn own(cx: &Cx) -> Tree {
    let (home, store) = (&cx.services.home, &cx.services.store);
    let mut roots: Vec<(PathBuf, PathBuf)> = ["rusuban.toml", "jobs"]
        .into_iter()
        .map(|name| (PathBuf::from(name), home.join(name)))
        .filter(|(_, path)| path.exists())
        .collect();
    let within = match store.strip_prefix(home) {
        Ok(within) => within.to_owned(),
        Err(_) => Path::new("data").join(store.file_name().unwrap_or_default()),
    };
    roots.push((within, store.clone()));
    Tree::gathered("rusuban", roots)
}

/// Only we may read copies of databases.
async fn make_private(folder: PathBuf) -> anyhow::Result<()> {
    let making = tokio::task::spawn_blocking(move || {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("make the folder {}", folder.display()))
    });
    making.await.context("a thread died")?
}

async fn remove(folder: PathBuf) -> anyhow::Result<()> {
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Carries what the writer says to the run's record.
struct Watching {
    cx: Cx,
    bucket: String,
    step: Mutex<String>,
}

impl Watching {
    fn begin(&self, step: &str) {
        step.clone_into(&mut self.step.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn step(&self) -> String {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Listener for Watching {
    fn info(&self, text: &str) {
        self.cx.info(text);
    }

    fn warn(&self, text: &str) {
        self.cx.warn(text);
    }

    fn progress(&self, done: u64, total: Option<u64>) {
        self.cx.record.progress(Progress { step: self.step(), done, total });
    }
}

#[async_trait]
impl Watcher for Watching {
    async fn upload_begun(&self, key: &str, upload: &str) -> anyhow::Result<DebtId> {
        let (bucket, key, upload) = (self.bucket.clone(), key.to_owned(), upload.to_owned());
        self.cx.record.owe(Debt::Upload { bucket, key, upload }).await
    }

    async fn upload_ended(&self, debt: DebtId) -> anyhow::Result<()> {
        self.cx.record.paid(debt).await
    }
}
