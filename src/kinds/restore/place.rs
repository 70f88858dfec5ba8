//! Volumes come back into new ones, which take the place of those that containers use: all containers of a volume are one group, made
//! anew with the new volume at the same place, and taken back together when one of them does not become well. Docker cannot rename
//! volumes, so the old one keeps its name, and a label of the containers tells what the new one stands in for.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{Part, Restore, volume};
use crate::{
    docker::{Container, Defaults, Engine, EngineError, Listed, Spec, dependents_first, swap::refuse},
    kinds::{
        Cx, Summary,
        container_snapshot::{room::Room, take::Taking},
        quiet::Claim,
        swap::{self, Replacement},
    },
    model::Old,
    text,
};

/// The beginning of a label: `rusuban.stands-in.data-back-1` is `data` on containers in which the volume `data-back-1` has the place of
/// `data`.
const STANDS_IN: &str = "rusuban.stands-in.";
/// A container that has written more than this outside of its volumes is made anew from a snapshot of it, taken just before.
const LITTLE: u64 = 1 << 20;

/// Restores volumes, and puts them in place.
pub(super) async fn restore(
    cx: &Cx,
    engine: &Engine,
    asked: &Restore,
    parts: &[Part],
    wait: Option<Duration>,
) -> anyhow::Result<Summary> {
    let all = inspected(engine).await?;
    let mut meant = Vec::new();
    for part in parts {
        let now = stand_in(&all, &part.old);
        meant.push(Part { old: now.clone(), new: free_name(engine, &now).await?, path: part.path.clone() });
    }
    // Nobody waits for a restore that then has no place.
    let group = group(engine, &all, &olds(&meant)).await?;
    if group.is_empty() {
        let names = meant.iter().map(|part| part.old.as_str()).collect::<Vec<_>>().join(", ");
        bail!(
            "no container uses {names}, so there is no place to put it in: `--to-volume NEW` brings it back into a new volume"
        );
    }
    let opened = asked.open(cx).await?;
    for part in &meant {
        cx.step(&part.new, volume::fill(cx, engine, &opened, part, false)).await?;
    }
    let volumes: BTreeMap<String, String> = meant.iter().map(|part| (part.old.clone(), part.new.clone())).collect();
    let names = match put(cx, engine, &volumes, wait, Marks::Set).await {
        Ok(names) => names,
        Err(error) => {
            let kept: Vec<&str> = volumes.values().map(String::as_str).collect();
            return Err(error.context(format!(
                "what was restored is in the volume {0}, and nothing uses it: look into it, then `docker volume rm {0}`",
                kept.join(" ")
            )));
        }
    };
    tell(cx, &names, &volumes);
    let olds = volumes.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
    cx.info(format!(
        "the old is kept: `docker volume rm {olds}` removes it, `rusuban restore {} --undo` takes it back",
        asked.job
    ));
    cx.warn(
        "who makes these containers anew, a compose file for instance, still names the old volume, and so may the job that keeps it: write the \
         new name there",
    );
    Ok(in_words(&names, &volumes))
}

/// Puts the volumes back that were in place before.
pub(super) async fn undo(
    cx: &Cx,
    engine: &Engine,
    asked: &[String],
    wait: Option<Duration>,
) -> anyhow::Result<Summary> {
    let all = inspected(engine).await?;
    let mut volumes = BTreeMap::new();
    for old in asked {
        let now = stand_in(&all, old);
        if let Some(before) = before(&all, &now) {
            match engine.volume(&before).await {
                Ok(_) => {}
                Err(EngineError::NotFound(_)) => {
                    bail!("the volume `{before}` is not there any more, so it cannot be taken back")
                }
                Err(error) => return Err(error).with_context(|| format!("look at the volume `{before}`")),
            }
            volumes.insert(now, before);
        }
    }
    if volumes.is_empty() {
        bail!("no container runs on a volume that stands in for {}; there is nothing to undo", asked.join(", "));
    }
    let names = put(cx, engine, &volumes, wait, Marks::Taken).await?;
    tell(cx, &names, &volumes);
    let left = volumes.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
    cx.info(format!("what was restored is kept: `docker volume rm {left}` removes it"));
    Ok(in_words(&names, &volumes))
}

fn tell(cx: &Cx, names: &[String], volumes: &BTreeMap<String, String>) {
    for (old, new) in volumes {
        cx.record.told(json!({ "in_place": new, "of": old, "containers": names }));
    }
}

fn in_words(names: &[String], volumes: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = volumes.iter().map(|(old, new)| format!("{new} is in the place of {old}")).collect();
    format!("{} in {}", pairs.join(", "), names.join(", "))
}

fn olds(parts: &[Part]) -> BTreeSet<String> {
    parts.iter().map(|part| part.old.clone()).collect()
}

/// What becomes of the labels that tell which volume stands in for which.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marks {
    Set,
    Taken,
}

/// All containers, whatever they do.
async fn inspected(engine: &Engine) -> anyhow::Result<Vec<(Listed, Container)>> {
    let mut all = Vec::new();
    for listed in engine.containers().await.context("list the containers")? {
        match engine.container(&listed.id).await {
            Ok(container) => all.push((listed, container)),
            Err(EngineError::NotFound(_)) => {}
            Err(error) => return Err(error).with_context(|| format!("look at the container {}", listed.name)),
        }
    }
    Ok(all)
}

fn uses(container: &Container, volume: &str) -> bool {
    container.mounts().iter().any(|mount| mount.volume.as_deref() == Some(volume))
}

/// What a volume stands in for, as the containers say that use it.
fn before(all: &[(Listed, Container)], volume: &str) -> Option<String> {
    let label = format!("{STANDS_IN}{volume}");
    let said = |(_, container): &(Listed, Container)| {
        let old = container.label(&label).filter(|_| uses(container, volume));
        old.filter(|old| !old.is_empty()).map(str::to_owned)
    };
    all.iter().find_map(said)
}

/// The volume that has the place of this one now: itself, unless another stands in for it, or for what stood in for it.
fn stand_in(all: &[(Listed, Container)], volume: &str) -> String {
    for (_, container) in all {
        for used in container.mounts().into_iter().filter_map(|mount| mount.volume) {
            let (mut now, mut known) = (used.clone(), BTreeSet::new());
            while known.insert(now.clone()) {
                match container.label(&format!("{STANDS_IN}{now}")).filter(|old| !old.is_empty()) {
                    Some(old) if old == volume => return used,
                    Some(old) => old.clone_into(&mut now),
                    None => break,
                }
            }
        }
    }
    volume.to_owned()
}

/// A name for the volume that takes another's place.
async fn free_name(engine: &Engine, old: &str) -> anyhow::Result<String> {
    let base = match old.rsplit_once("-back-") {
        Some((base, number)) if number.parse::<u32>().is_ok() => base,
        _ => old,
    };
    for number in 1..1000 {
        let name = format!("{base}-back-{number}");
        match engine.volume(&name).await {
            Ok(_) => {}
            Err(EngineError::NotFound(_)) => return Ok(name),
            Err(error) => return Err(error).with_context(|| format!("look at the volume `{name}`")),
        }
    }
    bail!("a thousand volumes are called `{base}-back-…`: `docker volume rm` those that nobody needs")
}

/// The containers that use these volumes, in the order in which they are stopped.
async fn group(
    engine: &Engine,
    all: &[(Listed, Container)],
    volumes: &BTreeSet<String>,
) -> anyhow::Result<Vec<Container>> {
    let is_meant = |container: &&Container| volumes.iter().any(|volume| uses(container, volume));
    let group: Vec<Container> = all.iter().map(|(_, container)| container).filter(is_meant).cloned().collect();
    for container in &group {
        let name = container.name();
        if engine.own_container().await?.is_some_and(|own| own.id() == container.id()) {
            bail!("{name} is the container that Rusuban itself runs in; it cannot stop itself and go on");
        }
        let lent = container.raw()["HostConfig"]["VolumesFrom"].as_array().is_some_and(|from| !from.is_empty());
        if lent {
            bail!(
                "the container {name} has its volumes from another (`--volumes-from`), which would have other ones then: create it again with \
                 volumes of its own first"
            );
        }
        refuse(engine, container).await?;
    }
    Ok(dependents_first(group))
}

/// Makes all containers that use the volumes anew, with others in their places.
async fn put(
    cx: &Cx,
    engine: &Engine,
    volumes: &BTreeMap<String, String>,
    wait: Option<Duration>,
    marks: Marks,
) -> anyhow::Result<Vec<String>> {
    let olds: BTreeSet<String> = volumes.keys().cloned().collect();
    let ids = |group: &[Container]| group.iter().map(|one| one.id().to_owned()).collect::<BTreeSet<_>>();
    let (_claim, group) = loop {
        let group_now = group(engine, &inspected(engine).await?, &olds).await?;
        let claim = tokio::select! {
            claim = Claim::take(ids(&group_now)) => claim,
            () = cx.cancelled.cancelled() => bail!("it was asked to stop"),
        };
        // While we waited, some may have been made anew.
        let again = group(engine, &inspected(engine).await?, &olds).await?;
        if ids(&again) == ids(&group_now) {
            break (claim, again);
        }
    };
    let mut specs = Vec::new();
    for container in &group {
        let name = container.name();
        let mut spec = Spec::of(engine, name).await.with_context(|| format!("look at the container {name}"))?;
        let image = match written(engine, name).await? {
            ..=LITTLE => spec.image_name(engine).await?.to_owned(),
            bytes => snapshot(cx, engine, container, bytes).await?,
        };
        let labels = match marks {
            Marks::Set => {
                let of = volumes.iter().filter(|(old, _)| uses(container, old));
                of.map(|(old, new)| (format!("{STANDS_IN}{new}"), old.clone())).collect()
            }
            Marks::Taken => {
                if let Some(labels) = spec.config.get_mut("Labels").and_then(serde_json::Value::as_object_mut) {
                    labels.retain(|label, _| {
                        !volumes.keys().any(|volume| label.strip_prefix(STANDS_IN) == Some(volume.as_str()))
                    });
                }
                Vec::new()
            }
        };
        specs.push((spec, image, labels));
    }
    let replacements: Vec<Replacement<'_>> = specs
        .iter()
        .map(|(spec, image, labels)| Replacement {
            spec,
            image,
            defaults: Defaults::Kept,
            wait,
            port: None,
            check: None,
            watch: Duration::ZERO,
            labels: labels.clone(),
            volumes: volumes.clone(),
            old: Old::Removed,
            start: false,
        })
        .collect();
    swap::replace_all(cx, engine, &replacements).await.with_context(|| {
        let pairs: Vec<String> = volumes.iter().map(|(old, new)| format!("{new} in the place of {old}")).collect();
        format!("put {}", pairs.join(", "))
    })?;
    Ok(group.iter().map(|container| container.name().to_owned()).collect())
}

async fn written(engine: &Engine, name: &str) -> anyhow::Result<u64> {
    let container = engine.container_with_size(name).await.with_context(|| format!("look at the container {name}"))?;
    Ok(container.written().unwrap_or_default())
}

/// What it has written outside of its volumes is not lost: it is made anew from an image of it.
async fn snapshot(cx: &Cx, engine: &Engine, container: &Container, bytes: u64) -> anyhow::Result<String> {
    let name = container.name();
    cx.info(format!(
        "{name} has written {} outside of its volumes, so it is made anew from a snapshot",
        text::size(bytes)
    ));
    let listed = engine.containers().await?.into_iter().find(|listed| listed.id == container.id());
    let listed = listed.with_context(|| format!("the container {name} is gone"))?;
    let (room, tags) = (Room::of(engine).await?, ["before-restore".to_owned()]);
    let repository = format!("snapshots/{}", name.to_lowercase());
    let taking =
        Taking { cx, engine, room: &room, container: listed, repository: repository.clone(), tags: &tags, pause: true };
    taking.take().await.with_context(|| format!("take a snapshot of {name}"))?;
    Ok(format!("{repository}:{}", tags[0]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::docker::State;

    fn container(name: &str, volume: &str, stands_in: &[(&str, &str)]) -> (Listed, Container) {
        let labels: serde_json::Map<_, _> =
            stands_in.iter().map(|(new, old)| (format!("{STANDS_IN}{new}"), json!(old))).collect();
        let said = json!({
            "Id": name, "Name": name, "Config": { "Labels": labels }, "Mounts": [{ "Type": "volume", "Name": volume }],
        });
        let listed = Listed {
            id: name.into(),
            name: name.into(),
            state: State::Running,
            labels: Default::default(),
            image: String::new(),
        };
        (listed, Container::of(said))
    }

    #[test]
    fn what_stands_in_for_a_volume_is_found_however_often_it_was_replaced() {
        let all = [
            container("a", "data-back-2", &[("data-back-1", "data"), ("data-back-2", "data-back-1")]),
            container("b", "other", &[("data-back-1", "other")]),
        ];
        assert_eq!(stand_in(&all, "other"), "other");
        assert_eq!(["data", "data-back-1", "data-back-2"].map(|name| stand_in(&all, name)), ["data-back-2"; 3]);
        assert_eq!(before(&all, "data-back-2").as_deref(), Some("data-back-1"));
        assert_eq!(before(&all, "data-back-1"), None);
        let in_a_circle = [container("a", "y", &[("y", "x")]), container("b", "x", &[("x", "y")])];
        stand_in(&in_a_circle, "x");
    }
}
