//! After a backup: which generations go, and what others that were cut off have left.
use std::sync::Arc;

use chrono::TimeDelta;

use crate::{
    bucket::Bucket,
    kinds::Cx,
    plain::{self, Listing, Manifest, SourceKind},
    retention::{Generation, Rule, decide, suspicion},
};

/// Data without a manifest that is younger may belong to a backup that is being written elsewhere.
const LEFTOVER_AGE: TimeDelta = TimeDelta::days(2);
/// Trees smaller than this grow and shrink by large factors all the time.
const SMALL_TREE: u64 = 1 << 20;

/// Removes what the rule does not keep, and leftovers. The backup is done and whole: what goes wrong here is told, and
/// does not fail it. Returns what became of the generations, in words.
pub(super) async fn thin(cx: &Cx, bucket: &Arc<dyn Bucket>, newest: &Manifest, rule: Rule) -> String {
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
    if let Some(other) = taking_turns(&listing, &newest.host) {
        cx.warn(format!(
            "the hosts `{other}` and `{}` take turns in storing backups of this job: give each its own bucket or prefix, \
             or their generations push each other out",
            newest.host
        ));
    }
    remove(cx, bucket, &listing, newest, rule).await
}

/// Another host that stored backups between two of ours. A host that was renamed once does not count.
fn taking_turns<'a>(listing: &'a Listing, ours: &str) -> Option<&'a str> {
    let mut before = listing.backups.iter().rev().skip_while(|backup| backup.host == ours);
    let other = before.next()?.host.as_str();
    before.take(10).any(|backup| backup.host == ours).then_some(other)
}

async fn remove(cx: &Cx, bucket: &Arc<dyn Bucket>, listing: &Listing, newest: &Manifest, rule: Rule) -> String {
    let generations: Vec<Generation> =
        listing.backups.iter().map(|backup| generation(backup, backup.plain_bytes())).collect();
    let decision = decide(&generations, rule, cx.services.time_zone, cx.clock.now());
    let refused = decision.refused.or_else(|| suspicious_source(cx, listing, newest));
    if let Some(why) = refused {
        cx.warn(format!("{why}. Nothing is removed"));
        return format!("{} kept, none removed: look at its log", generations.len());
    }
    let mut removed = 0;
    for id in &decision.remove {
        if cx.cancelled.is_cancelled() {
            break;
        }
        let Some(backup) = listing.backups.iter().find(|backup| backup.id == *id) else { continue };
        match plain::delete(bucket, backup).await {
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

fn generation(backup: &Manifest, bytes: u64) -> Generation {
    Generation { id: backup.id.clone(), at: backup.at, bytes, good: true }
}

/// One small database that lost its rows does not show in the size of the whole.
fn suspicious_source(cx: &Cx, listing: &Listing, newest: &Manifest) -> Option<String> {
    newest.sources.iter().find_map(|source| {
        let history: Vec<Generation> = listing
            .backups
            .iter()
            .rev()
            .filter_map(|backup| {
                let same = backup.sources.iter().find(|same| same.name == source.name && same.kind == source.kind)?;
                let small = source.kind == SourceKind::Tree && same.plain.bytes < SMALL_TREE;
                (backup.id == newest.id || !small).then(|| generation(backup, same.plain.bytes))
            })
            .collect();
        let newest_first: Vec<&Generation> = history.iter().collect();
        if newest_first.first()?.id != newest.id {
            return None;
        }
        suspicion(&newest_first, cx.clock.now()).map(|why| format!("source {}: {why}", source.name))
    })
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
                crate::text::size(leftover.bytes),
                leftover.id
            )),
            Err(error) => cx.warn(format!("{error:#}")),
        }
    }
}
