//! `backup`: files, folders, Docker volumes and SQLite databases into a bucket, read back, and old generations removed.
mod consistency;
mod docker;
mod helper;
mod keys;
mod plain;
mod repository;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use async_trait::async_trait;
use schemars::JsonSchema;

pub use keys::Backup;
use keys::{From, Source};

use super::{Cx, DockerSource, Kind, KindEntry, Progress, Site, Summary, keeping::Keeping};
use crate::{
    config::{mistake::Problem, units::Span},
    database::sqlite,
    docker::Access,
    model::Debt,
    policy::MissedPolicy,
    text,
    tree::Tree,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "backup",
    summary: "Keeps files, folders, Docker volumes and SQLite databases in a bucket, and removes old generations",
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
        let lock = |source: &Source| match source.from()? {
            // `/srv/photos/` is `/srv/photos`.
            From::Path(path) | From::Sqlite(path) => Some(format!("path:{}", path.components().as_path().display())),
            From::Volume(name) => Some(format!("volume:{name}")),
            From::Container(name) => Some(format!("container:{name}")),
            From::Own => None,
        };
        self.source.iter().filter_map(lock).collect()
    }

    fn bucket(&self) -> Option<&str> {
        self.repository.is_none().then_some(&self.bucket)
    }

    fn repository(&self) -> Option<&str> {
        self.repository.as_deref()
    }

    fn docker_sources(&self) -> BTreeMap<String, DockerSource> {
        let read = |source: &Source| match source.from()? {
            From::Volume(name) => Some((source.name(), DockerSource::Volume(name.to_owned()))),
            From::Container(name) => Some((source.name(), DockerSource::Container(name.to_owned()))),
            _ => None,
        };
        self.source.iter().filter_map(read).collect()
    }

    fn keeps(&self) -> Vec<Keeping> {
        self.source.iter().filter_map(Source::keeping).collect()
    }

    fn keeps_databases(&self) -> bool {
        self.source.iter().any(|source| source.sqlite.is_some())
    }

    fn engine(&self) -> Vec<Access> {
        self.source.iter().flat_map(docker::needs).collect()
    }

    fn engine_afar(&self) -> Vec<Access> {
        self.source.iter().flat_map(docker::needs_afar).collect()
    }

    fn engine_by_label(&self) -> Vec<Access> {
        self.source.iter().flat_map(docker::needs_by_label).collect()
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let spool = cx.services.spool.join(format!("backup-{}", cx.run));
        let debt = cx.record.owe(Debt::Remove { path: spool.clone() }).await?;
        make_private(spool.clone()).await?;
        let done = match &self.repository {
            Some(name) => repository::run(self, cx, name, &spool).await,
            None => plain::run(self, cx, &spool).await,
        };
        match remove(spool).await {
            Ok(()) => cx.record.paid(debt).await?,
            // It is still owed, and removed at the next start.
            Err(error) => cx.warn(format!("{error:#}")),
        }
        done
    }
}

/// A tree as the source wants it read.
fn sources_tree(cx: &Cx, source: &Source, tree: Tree) -> anyhow::Result<Tree> {
    let mut own_folders: Vec<PathBuf> =
        cx.services.buckets.values().filter_map(|bucket| bucket.local_folder().map(PathBuf::from)).collect();
    own_folders.push(cx.services.spool.clone());
    own_folders.extend(cx.services.store.parent().map(PathBuf::from));
    Ok(tree
        .without(source.excludes()?)
        .on_one_file_system(source.one_file_system)
        .even_if_empty(source.allow_empty)
        .skipping(own_folders)
        .with_databases_open_here(vec![cx.services.store.clone()]))
}

/// A copy of a database, made while others use it.
struct Copied {
    file: PathBuf,
    rows: BTreeMap<String, u64>,
}

impl Copied {
    async fn remove(self) -> anyhow::Result<()> {
        tokio::fs::remove_file(&self.file).await.with_context(|| format!("remove {}", self.file.display()))
    }
}

async fn copy_database(cx: &Cx, step: &str, name: &str, path: &Path, spool: &Path) -> anyhow::Result<Copied> {
    let file = spool.join("source.sqlite");
    let (from, to, cancelled) = (path.to_owned(), file.clone(), cx.cancelled.clone());
    let (record, step) = (Arc::clone(&cx.record), step.to_owned());
    let copying = tokio::task::spawn_blocking(move || {
        let bytes = from.metadata().map_or(0, |found| found.len());
        sqlite::backup(&from, &to, |done, total| {
            // It counts pages; what is shown is bytes.
            let done = bytes / total.max(1) * done;
            record.progress(Progress { step: step.clone(), done, total: Some(bytes), added: None });
            !cancelled.is_cancelled()
        })
    });
    let report = copying.await.context("the thread that copies died")??;
    if report.restarts > 0 {
        cx.info(format!("{name}: begun anew {} times while others wrote to it", report.restarts));
    }
    let rows: u64 = report.rows.values().sum();
    cx.info(format!("{name}: {} in {} tables with {rows} rows, whole", text::size(report.bytes), report.rows.len()));
    Ok(Copied { file, rows: report.rows })
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
