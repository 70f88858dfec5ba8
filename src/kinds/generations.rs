//! After a backup or a copy: which generations go.
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::{Cx, Told};
use crate::{
    bucket::Bucket,
    config::mistake::Problem,
    model::{
        JobName,
        news::{Event, Severity},
    },
    plain::{self, Manifest, SourceKind},
    repository::{Class, Id, Repository, Snapshot},
    retention::{Generation, Keep, MISSING, Rotation, Rule, decide, suspicion},
    text,
};

/// What is wrong with what a job says of its generations.
pub(super) fn problems(keep: Option<Keep>, rotation: Option<Rotation>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if keep.is_some() && rotation.is_some() {
        problems.push(
            Problem::new("rotation", "`keep` and `rotation` are both given: each says what stays")
                .hint("keep one of the two"),
        );
    }
    if keep == Some(Keep::default()) {
        problems.push(
            Problem::new("keep", "it does not say how many stay")
                .hint("such as `keep = { daily = 7, weekly = 4, monthly = 12 }`; leave it out to keep all"),
        );
    }
    problems
}

/// What it says.
pub(super) fn rule(keep: Option<Keep>, rotation: Option<Rotation>) -> Rule {
    match (keep, rotation) {
        (Some(keep), _) => Rule::Keep(keep),
        (None, Some(rotation)) => Rule::Rotate(rotation),
        (None, None) => Rule::Everything,
    }
}

/// Data without a manifest that is younger may belong to a backup that is being written elsewhere.
const LEFTOVER_AGE: TimeDelta = TimeDelta::days(2);
/// Trees smaller than this grow and shrink by large factors all the time.
const SMALL_TREE: u64 = 1 << 20;

/// A generation that is there, wherever it is stored.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its name, for people and for whoever removes it.
    pub(super) id: String,
    pub(super) at: DateTime<Utc>,
    host: String,
    parts: Vec<Part>,
    /// It is whole.
    good: bool,
}

/// A source of it.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    is_tree: bool,
    bytes: u64,
}

/// Where generations are stored.
#[async_trait]
trait Stored: Sync {
    /// Removes the one of that name.
    async fn remove(&self, id: &str) -> anyhow::Result<()>;

    /// Its name as people read it everywhere else.
    fn shown(&self, id: &str) -> String {
        id.to_owned()
    }
}

/// Removes those generations of a job in a bucket that its rule does not keep, and what backups that were cut off left.
pub(super) async fn thin_bucket(
    cx: &Cx,
    bucket: &Arc<dyn Bucket>,
    job: &JobName,
    newest: &Manifest,
    rule: Rule,
) -> String {
    let listing = match plain::list(bucket, job).await {
        Ok(listing) => listing,
        Err(error) => {
            cx.warn(format!("old generations were not looked at: {error:#}"));
            return "older ones not looked at".to_owned();
        }
    };
    for damaged in &listing.damaged {
        cx.warn(format!("a backup cannot be read and is left alone: {damaged}"));
    }
    remove_leftovers(cx, bucket, job).await;
    let kept: Vec<Kept> = listing.backups.iter().map(Kept::of_manifest).collect();
    let place = format!("{job} in {}", bucket.describe());
    let listed = Listed { bucket, backups: &listing.backups };
    thin(cx, &place, (&kept, &listing.damaged), &newest.id, rule, &listed).await
}

struct Listed<'a> {
    bucket: &'a Arc<dyn Bucket>,
    backups: &'a [Manifest],
}

#[async_trait]
impl Stored for Listed<'_> {
    async fn remove(&self, id: &str) -> anyhow::Result<()> {
        match self.backups.iter().find(|backup| backup.id == id) {
            Some(backup) => plain::delete(self.bucket, backup).await,
            None => Ok(()),
        }
    }
}

async fn remove_leftovers(cx: &Cx, bucket: &Arc<dyn Bucket>, job: &JobName) {
    let leftovers = match plain::leftovers(bucket, job, cx.clock.now() - LEFTOVER_AGE).await {
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

/// Removes those generations of a job in a repository that its rule does not keep.
pub(super) async fn thin_repository(
    cx: &Cx,
    repository: &Repository,
    job: &JobName,
    newest: &Id,
    rule: Rule,
) -> String {
    let (snapshots, damaged) = match repository.snapshots().await {
        Ok(found) => found,
        Err(error) => {
            cx.warn(format!("old generations were not looked at: {error:#}"));
            return "older ones not looked at".to_owned();
        }
    };
    for damaged in &damaged {
        cx.warn(format!("a backup cannot be read and is left alone: {damaged}"));
    }
    let kept: Vec<Kept> = snapshots
        .iter()
        .filter(|(_, snapshot)| snapshot.job().as_ref() == Some(job))
        .map(|(id, snapshot)| Kept::of_snapshot(id, snapshot))
        .collect();
    let place = format!("{job} in {}", repository.objects().bucket().describe());
    let unreadable = damaged.iter().map(|damaged| damaged.id.to_string());
    // A repair wrote those again under another name.
    let repaired = snapshots.iter().filter_map(|(_, snapshot)| Some(snapshot.original?.to_string()));
    let unreadable: Vec<String> = unreadable.chain(repaired).collect();
    thin(cx, &place, (&kept, &unreadable), &newest.to_string(), rule, repository).await
}

#[async_trait]
impl Stored for Repository {
    async fn remove(&self, id: &str) -> anyhow::Result<()> {
        let id: Id = id.parse().map_err(anyhow::Error::msg)?;
        self.objects().remove(Class::Snapshot, &id).await
    }

    fn shown(&self, id: &str) -> String {
        id.parse::<Id>().map_or_else(|_| id.to_owned(), |id| id.short())
    }
}

/// Removes what the rule does not keep, through `stored`. The backup is done and whole: what goes wrong here is told, and
/// does not fail it. Returns what became of the generations, in words. `kept` is in order of time.
async fn thin(
    cx: &Cx,
    place: &str,
    (kept, unreadable): (&[Kept], &[String]),
    newest: &str,
    rule: Rule,
    stored: &dyn Stored,
) -> String {
    let memory = format!("generations in {place}");
    tell_gone(cx, &memory, place, (kept, unreadable), stored).await;
    let mut left: Vec<&str> = kept.iter().map(|kept| kept.id.as_str()).collect();
    let told = remove(cx, kept, newest, rule, stored, &mut left).await;
    if let Err(error) = cx.record.remember(&memory, serde_json::json!(left)).await {
        cx.warn(format!("what is there now cannot be remembered: {error:#}"));
    }
    told
}

/// Says so when backups that were left here the last time are gone: somebody else removed them, or this is another disk.
async fn tell_gone(cx: &Cx, memory: &str, place: &str, (kept, unreadable): (&[Kept], &[String]), stored: &dyn Stored) {
    let before = cx.record.fact(memory).await.ok().flatten();
    let before: Vec<String> = before.and_then(|before| serde_json::from_value(before).ok()).unwrap_or_default();
    let is_there =
        |id: &str| kept.iter().any(|kept| kept.id == id) || unreadable.iter().any(|unreadable| unreadable.contains(id));
    let gone: Vec<&str> = before.iter().map(String::as_str).filter(|id| !is_there(id)).collect();
    let all = if gone.len() == before.len() { ": all that were there" } else { "" };
    if let (Some(oldest), Some(newest)) = (gone.first(), gone.last()) {
        let (are, names) = match gone.len() {
            1 => ("is", stored.shown(oldest)),
            _ => ("are", format!("{} … {}", stored.shown(oldest), stored.shown(newest))),
        };
        cx.warn(format!(
            "{} of {place}, which the last run left there, {are} gone{all} ({names}). Somebody else removed what is gone, \
             or this is another disk or bucket than it was",
            text::count(gone.len(), "backup"),
        ));
    }
}

async fn remove<'a>(
    cx: &Cx,
    kept: &'a [Kept],
    newest: &str,
    rule: Rule,
    stored: &dyn Stored,
    left: &mut Vec<&'a str>,
) -> String {
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
    let generations: Vec<Generation> = kept.iter().map(Kept::generation).collect();
    let decision = decide(&generations, rule, cx.services.time_zone, cx.clock.now());
    let refused = decision.refused.or_else(|| suspicious_source(cx, kept, newest));
    if let Some(why) = refused {
        let why = kept.iter().fold(why, |why, one| why.replace(&one.id, &stored.shown(&one.id)));
        cx.warn(format!("{why}. Nothing is removed"));
        if why.ends_with(MISSING) {
            let lines = vec!["nothing is removed until it is clear".to_owned()];
            cx.record.tell(Told { event: Event::TooSmall, severity: Severity::Warning, what: why, lines });
        }
        return format!("{} kept, none removed: look at its log", generations.len());
    }
    let mut removed = 0;
    for id in &decision.remove {
        if cx.cancelled.is_cancelled() {
            break;
        }
        match stored.remove(id).await {
            Ok(()) => {
                cx.info(format!("removed the backup {}", stored.shown(id)));
                left.retain(|left| left != id);
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
    pub(super) fn of_manifest(backup: &Manifest) -> Self {
        let parts = backup.sources.iter().map(|source| Part {
            name: source.name.clone(),
            is_tree: source.kind == SourceKind::Tree,
            bytes: source.plain.bytes,
        });
        Self { id: backup.id.clone(), at: backup.at, host: backup.host.clone(), parts: parts.collect(), good: true }
    }

    pub(super) fn of_snapshot(id: &Id, snapshot: &Snapshot) -> Self {
        let sources = snapshot.rusuban.iter().flat_map(|facts| &facts.sources);
        let parts = sources.map(|source| Part {
            name: source.name.clone(),
            is_tree: ["path", "gathered"].contains(&source.kind.as_str()),
            bytes: source.bytes,
        });
        Self {
            id: id.to_string(),
            at: snapshot.time.to_utc(),
            host: snapshot.hostname.clone(),
            parts: parts.collect(),
            good: !snapshot.rusuban.as_ref().is_some_and(|facts| facts.partial),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        generation(self, self.bytes())
    }

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
