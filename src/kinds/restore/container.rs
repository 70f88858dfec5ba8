//! A container out of a repository, into an engine: what `container-snapshot` has stored.
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::opened::Stored;
use crate::{
    docker::{Creation, Defaults, Engine, EngineError, Image, Spec, digest, label, repository_of, short_id},
    kinds::{
        Cx, Summary,
        beside::{self, Beside},
        quiet::Claim,
        swap::{self, Replacement},
    },
    model::{Debt, Old},
};

/// Gives its image back to the engine, and makes the container of it: anew when it is gone, beside the one that is there, or in its
/// place.
pub(super) async fn bring_back(
    cx: &Cx,
    engine: &Engine,
    stored: &Stored<'_>,
    replace: bool,
    beside: Option<&Beside>,
) -> anyhow::Result<Summary> {
    let name = &stored.source.name;
    let there = match engine.container(name).await {
        Ok(container) => Some(container.id().to_owned()),
        Err(EngineError::NotFound(_)) => None,
        Err(error) => return Err(error).with_context(|| format!("look at the container {name}")),
    };
    if there.is_some() && beside.is_none() && !replace {
        bail!(in_the_way(name));
    }
    let configuration = stored.file("image.json").await?;
    let specification = stored.file("specification.json").await;
    let image = cx.step("image", give_back(cx, engine, stored, configuration)).await?;
    let Some(id) = there else {
        let spec: Spec =
            serde_json::from_slice(&specification?).context("read what the backup says of the container")?;
        return create(cx, engine, &spec, &image, beside).await;
    };
    // A backup may have stopped it for a moment: it would be taken for one that does not run.
    let _claim = tokio::select! {
        claim = Claim::take([id].into()) => claim,
        () = cx.cancelled.cancelled() => bail!("it was asked to stop"),
    };
    let spec = Spec::of(engine, name).await.with_context(|| format!("look at the container {name}"))?;
    if let Some(beside) = beside {
        return beside::look(cx, engine, &spec, &image, beside).await;
    }
    let replacement = Replacement {
        spec: &spec,
        image: &image,
        defaults: Defaults::Kept,
        wait: None,
        port: None,
        check: None,
        watch: Duration::ZERO,
        labels: Vec::new(),
        volumes: BTreeMap::new(),
        old: Old::Kept,
        start: false,
    };
    swap::replace(cx, engine, &replacement).await.with_context(|| format!("roll {name} back to {image}"))?;
    Ok(format!("{name} is back at {image}, from {}", spec.image.name))
}

/// What is said of a container that is there, when nobody said what should become of it.
#[must_use]
pub fn in_the_way(name: &str) -> String {
    format!(
        "there is a container `{name}` already: `--replace` puts the one of the backup in its place, and undoes that when it does not \
         become well; `--as NAME` makes a copy beside it, for a look"
    )
}

/// Makes a container that is gone. With volumes that had to be made, and are empty, it is not started: what it would write into
/// them would be in the way of what belongs there.
async fn create(
    cx: &Cx,
    engine: &Engine,
    spec: &Spec,
    image: &str,
    beside: Option<&Beside>,
) -> anyhow::Result<Summary> {
    let name = beside.map_or(&spec.name, |beside| &beside.name);
    let mut empty = Vec::new();
    for volume in spec.volumes.iter().filter_map(|volume| volume.get("Name")?.as_str()) {
        match engine.volume(volume).await {
            Ok(_) => {}
            Err(EngineError::NotFound(_)) => empty.push(volume.to_owned()),
            Err(error) => return Err(error).with_context(|| format!("look at the volume {volume}")),
        }
    }
    let creation = Creation {
        make_missing: true,
        network: beside.and_then(|beside| beside.network.clone()),
        beside: beside.is_some(),
        read_only_mounts: beside.is_some(),
        ..Creation::default()
    };
    let created = cx.step("create", spec.create(engine, name, image, &creation)).await?;
    let is_started = empty.is_empty() || beside.is_some();
    if is_started {
        engine.start(&created.id).await.with_context(|| format!("start {name}"))?;
    }
    cx.record.told(json!({
        "restored": spec.name, "container": name, "id": created.id, "image": image, "started": is_started,
        "empty_volumes": empty, "warnings": created.warnings,
    }));
    created.warnings.iter().for_each(|warning| cx.warn(format!("Docker remarks: {warning}")));
    if !is_started {
        cx.warn(format!("not started, for these volumes are new and empty: {}", empty.join(", ")));
        cx.info(format!("bring back what belongs into them, then: docker start {name}"));
    }
    Ok(format!("restored {name} from {image}"))
}

/// Gives the image back to the engine, unless it has it. Returns a name of it.
async fn give_back(cx: &Cx, engine: &Engine, stored: &Stored<'_>, configuration: Vec<u8>) -> anyhow::Result<String> {
    let said: Value = serde_json::from_slice(&configuration).context("read the image's configuration")?;
    let id = digest(&Sha256::digest(&configuration));
    let given = said["config"]["Labels"][label::NAMES].as_str().unwrap_or_default();
    let name = free_name(engine, given, &id).await?;
    if engine.image(&id).await.is_ok() {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, "latest"));
        engine.tag(&id, repository, tag).await.with_context(|| format!("name the image {name}"))?;
        return Ok(name);
    }
    let digests = said["rootfs"]["diff_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let spool = cx.services.spool.join(format!("restore-{}", cx.run));
    let folder = spool.join(&stored.source.name);
    let layers: Vec<PathBuf> =
        digests.map(|digest| folder.join(format!("layers/{}.tar", digest.trim_start_matches("sha256:")))).collect();
    let debt = cx.record.owe(Debt::Remove { path: spool.clone() }).await?;
    let given_back = async {
        tokio::fs::create_dir_all(&spool).await.with_context(|| format!("make the folder {}", spool.display()))?;
        stored.fetch(cx, &folder).await?;
        let loading = engine.load_layers(configuration, &layers, Some(&name)).await;
        loading.with_context(|| format!("give Docker the image {name}"))
    };
    let given_back: anyhow::Result<Image> = given_back.await;
    match tokio::fs::remove_dir_all(&spool).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            // It is still owed, and removed at the next start.
            cx.warn(format!("remove {}: {error}", spool.display()));
        }
        _ => cx.record.paid(debt).await?,
    }
    given_back.map(|_| name)
}

/// A name that the image had and that nobody else's has now; else one of its own.
async fn free_name(engine: &Engine, given: &str, id: &str) -> anyhow::Result<String> {
    for name in given.split(' ').filter(|name| !name.is_empty()) {
        match engine.image(name).await {
            Ok(image) if image.id() == id => return Ok(name.to_owned()),
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(name.to_owned()),
            Err(error) => return Err(error).with_context(|| format!("look at the image {name}")),
        }
    }
    let repository = given.split(' ').find_map(repository_of).unwrap_or("restored");
    Ok(format!("{repository}:restored-{}", short_id(id)))
}
