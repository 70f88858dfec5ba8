//! `repository-care`: a repository looked through for damage, and rid of what no backup needs.
use std::{sync::Arc, time::Duration};

use anyhow::bail;
use async_trait::async_trait;
use chrono::Datelike as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cx, Kind, KindEntry, Site, Summary, listening::Listening};
use crate::{
    config::{
        mistake::Problem,
        units::{Percent, Span},
    },
    policy::MissedPolicy,
    repository::{Look, PruneOptions, Repository},
    text,
    tree::Listener,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "repository-care",
    summary: "Looks through a repository for damage, and removes what no backup needs",
    example: include_str!("../../jobs/repository-care.toml"),
    parse: super::read::<RepositoryCare>,
    schema: RepositoryCare::json_schema,
    missed: MissedPolicy::Latest,
    class: "disk",
    timeout: Some(Span::hours(48)),
};

/// A backup that goes on is waited for so long before what nobody needs is removed.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// A repository, looked after.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositoryCare {
    /// Which repository of rusuban.toml.
    pub repository: String,
    /// How much of the stored data is read each time, another part each day; 0%: only what is stored of it is looked at
    /// [default: 5%].
    #[serde(default = "twentieth")]
    pub read_data: Percent,
    /// Whether what no backup needs is removed, in two steps, a day apart [default: true].
    #[serde(default = "yes")]
    pub prune: bool,
}

fn twentieth() -> Percent {
    Percent(5.0)
}

fn yes() -> bool {
    true
}

#[async_trait]
impl Kind for RepositoryCare {
    fn check(&self, site: &Site) -> Vec<Problem> {
        site.knows_repository("repository", &self.repository).into_iter().collect()
    }

    fn locks(&self) -> Vec<String> {
        vec![format!("repository-care:{}", self.repository)]
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let repository = cx.repository(&self.repository)?.open().await?;
        let looked = cx.step("look for damage", self.look(cx, &repository)).await?;
        if !self.prune {
            return Ok(looked);
        }
        let pruned = cx.step("remove what is not needed", self.prune(cx, &repository)).await?;
        Ok(format!("{looked}; {pruned}"))
    }
}

impl RepositoryCare {
    async fn look(&self, cx: &Cx, repository: &Repository) -> anyhow::Result<String> {
        let listening = Listening::new(cx, "");
        listening.begin("look for damage");
        // Another day looks at another part.
        let part = u64::from(cx.clock.now().num_days_from_ce().unsigned_abs());
        let look = Look { snapshots: None, data: self.read_data.0 / 100.0, part };
        let listener = Arc::clone(&listening) as Arc<dyn Listener>;
        let found = repository.check(&look, &listener, &cx.cancelled).await?;
        for note in &found.notes {
            cx.info(note);
        }
        for error in &found.errors {
            cx.warn(error);
        }
        for touched in &found.touched {
            let files: Vec<_> = touched.files.iter().map(|file| text::path(file)).collect();
            let (id, count) = (touched.snapshot.short(), touched.count);
            cx.warn(format!("of backup {id}, {count} things cannot be restored: {}", files.join(", ")));
        }
        if !found.is_whole() {
            bail!(
                "the repository is damaged: {} of {} are not whole. Keep it as it is, and see \
                 `rusuban repository check {} --read-data`; the next backup stores again what it can",
                found.touched.len(),
                text::count(found.snapshots, "backup"),
                self.repository
            );
        }
        Ok(format!("{} whole, {} of data read", text::count(found.snapshots, "backup"), text::size(found.read)))
    }

    async fn prune(&self, cx: &Cx, repository: &Repository) -> anyhow::Result<String> {
        let options = PruneOptions { patience: PATIENCE, ..PruneOptions::default() };
        let listening = Listening::new(cx, "");
        let pruned = repository.prune(&options, &crate::model::host_name(), &*listening, &cx.clock).await?;
        let waiting = if pruned.waiting > 0 { format!(", {} wait", pruned.waiting) } else { String::new() };
        Ok(format!(
            "{} needed, {} removed ({}){waiting}",
            text::size(pruned.needed),
            text::count(pruned.removed, "pack"),
            text::size(pruned.removed_bytes)
        ))
    }
}
