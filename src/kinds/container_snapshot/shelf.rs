//! Which snapshots go: what has lost its name by our rotation, and what `keep` has no place for. Nothing of anybody else's.
use std::collections::BTreeMap;

use anyhow::Context as _;
use chrono::{DateTime, Utc};

use crate::{
    docker::{Engine, EngineError, Snapshot, label},
    kinds::Cx,
    retention::{Generation, Keep, Rule, decide},
    text,
};

/// Removes old snapshots of this job. `local`: so many of each container stay. What was made since the run `began` is left alone.
pub(in crate::kinds) async fn thin(
    cx: &Cx,
    engine: &Engine,
    local: Option<u32>,
    began: DateTime<Utc>,
) -> anyhow::Result<()> {
    let all = engine.snapshots(label::JOB, cx.job.as_str()).await?;
    let (named, nameless): (Vec<Snapshot>, Vec<Snapshot>) = all.into_iter().partition(|one| !one.names.is_empty());
    let (mut removed, mut kept) = (0, 0);
    for snapshot in nameless.iter().filter(|one| one.at < began) {
        match engine.remove_image(&snapshot.id).await {
            Ok(()) => removed += 1,
            Err(error) if error.is_not_found() => {}
            Err(EngineError::Conflict(_)) => kept += 1,
            Err(error) => return Err(error).with_context(|| format!("remove the image {}", snapshot.id)),
        }
    }
    if let Some(local) = local {
        for snapshot in surplus(cx, named, local) {
            for name in &snapshot.own_names {
                match engine.remove_image(name).await {
                    Ok(()) => removed += 1,
                    Err(error) if error.is_not_found() => {}
                    Err(EngineError::Conflict(why)) => cx.info(format!("{name} stays: {why}")),
                    Err(error) => return Err(error).with_context(|| format!("remove {name}")),
                }
            }
        }
    }
    if removed > 0 {
        cx.info(format!("{} removed", text::count(removed, "old snapshot")));
    }
    if kept > 0 {
        let (stay, them) = if kept == 1 { ("stays", "it") } else { ("stay", "them") };
        let kept = text::count(kept, "old snapshot");
        cx.info(format!("{kept} without a name {stay} while a container or an image needs {them}"));
    }
    Ok(())
}

/// Of each container, those beyond the newest `local`.
fn surplus(cx: &Cx, named: Vec<Snapshot>, local: u32) -> Vec<Snapshot> {
    let mut of: BTreeMap<String, Vec<Snapshot>> = BTreeMap::new();
    for snapshot in named {
        of.entry(snapshot.container.clone()).or_default().push(snapshot);
    }
    let mut surplus = Vec::new();
    for (container, snapshots) in of {
        let generation = |one: &Snapshot| Generation { id: one.id.clone(), at: one.at, bytes: one.bytes, good: true };
        let generations: Vec<Generation> = snapshots.iter().map(generation).collect();
        let rule = Rule::Keep(Keep { last: local, ..Keep::default() });
        let decision = decide(&generations, rule, cx.services.time_zone, cx.clock.now());
        if let Some(why) = decision.refused {
            cx.warn(format!("{container}: no old snapshot is removed: {why}"));
        }
        surplus.extend(snapshots.into_iter().filter(|one| decision.remove.contains(&one.id)));
    }
    surplus
}
