//! After a backup: which generations go.
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    kinds::Cx,
    retention::{Generation, Rule, decide, suspicion},
};

/// Data without a manifest that is younger may belong to a backup that is being written elsewhere.
pub(super) const LEFTOVER_AGE: TimeDelta = TimeDelta::days(2);
/// Trees smaller than this grow and shrink by large factors all the time.
const SMALL_TREE: u64 = 1 << 20;

/// A generation that is there, wherever it is stored.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its name, for people and for whoever removes it.
    pub(super) id: String,
    pub(super) at: DateTime<Utc>,
    pub(super) host: String,
    pub(super) parts: Vec<Part>,
    /// It is whole.
    pub(super) good: bool,
}

/// A source of it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) is_tree: bool,
    pub(super) bytes: u64,
}

/// Where generations are stored.
#[async_trait]
pub(super) trait Stored: Sync {
    /// Removes the one of that name.
    async fn remove(&self, id: &str) -> anyhow::Result<()>;
}

/// Removes what the rule does not keep, through `stored`. The backup is done and whole: what goes wrong here is told, and
/// does not fail it. Returns what became of the generations, in words. `kept` is in order of time.
pub(super) async fn thin(cx: &Cx, kept: &[Kept], newest: &str, rule: Rule, stored: &dyn Stored) -> String {
    let Some(newest) = kept.iter().find(|kept| kept.id == newest) else {
        cx.warn("the new backup is not among those that are listed: nothing is removed");
        return "none removed: look at its log".to_owned();
    };
    if let Some(other) = taking_turns(kept, &newest.host) {
        cx.warn(format!(
            "the hosts `{other}` and `{}` take turns in storing backups of this job: give each its own bucket or prefix, \
             or their generations push each other out",
            newest.host
        ));
    }
    let generations: Vec<Generation> = kept.iter().map(|kept| generation(kept, kept.bytes())).collect();
    let decision = decide(&generations, rule, cx.services.time_zone, cx.clock.now());
    let refused = decision.refused.or_else(|| suspicious_source(cx, kept, newest));
    if let Some(why) = refused {
        cx.warn(format!("{why}. Nothing is removed"));
        return format!("{} kept, none removed: look at its log", generations.len());
    }
    let mut removed = 0;
    for id in &decision.remove {
        if cx.cancelled.is_cancelled() {
            break;
        }
        match stored.remove(id).await {
            Ok(()) => {
                cx.info(format!("removed {id}"));
                removed += 1;
            }
            Err(error) => {
                // A key that may not delete is a fine protection; one line says so, not fifty.
                cx.warn(format!("{error:#}"));
                break;
            }
        }
    }
    match (generations.len() - removed, removed) {
        (kept, 0) => format!("{kept} kept"),
        (kept, removed) => format!("{kept} kept, {removed} removed"),
    }
}

impl Kept {
    fn bytes(&self) -> u64 {
        crate::text::total(self.parts.iter().map(|part| part.bytes))
    }
}

fn generation(kept: &Kept, bytes: u64) -> Generation {
    Generation { id: kept.id.clone(), at: kept.at, bytes, good: kept.good }
}

/// Another host that stored backups between two of ours. A host that was renamed once does not count.
fn taking_turns<'a>(kept: &'a [Kept], ours: &str) -> Option<&'a str> {
    let mut before = kept.iter().rev().skip_while(|backup| backup.host == ours);
    let other = before.next()?.host.as_str();
    before.take(10).any(|backup| backup.host == ours).then_some(other)
}

/// One small database that lost its rows does not show in the size of the whole.
fn suspicious_source(cx: &Cx, kept: &[Kept], newest: &Kept) -> Option<String> {
    newest.parts.iter().find_map(|part| {
        let history: Vec<Generation> = kept
            .iter()
            .rev()
            .filter_map(|backup| {
                let same = backup.parts.iter().find(|same| same.name == part.name && same.is_tree == part.is_tree)?;
                let small = part.is_tree && same.bytes < SMALL_TREE;
                (backup.id == newest.id || !small).then(|| generation(backup, same.bytes))
            })
            .collect();
        let newest_first: Vec<&Generation> = history.iter().collect();
        if newest_first.first()?.id != newest.id {
            return None;
        }
        suspicion(&newest_first, cx.clock.now()).map(|why| format!("source {}: {why}", part.name))
    })
}
