//! Containers out of a repository, into an engine: `rusuban restore JOB` for what `container-snapshot` has stored.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Context, Exit, backups::Restore, paint, run, snapshots::Watch};
use crate::{
    app::control::Request,
    config::Config,
    docker::{Creation, Engine, EngineError, Image, Spec, digest, label, repository_of, short_id},
    kinds::rollback::{Beside, Rollback},
    model::Old,
    repository::{BlobKind, Index, Node, Repository, SourceFacts, Wish},
    tree::Listener,
};

/// What such a source is called in a backup.
pub(super) const KIND: &str = "container-image";

/// A container as a backup has it.
pub(super) struct Stored<'a> {
    pub(super) repository: &'a Repository,
    pub(super) index: &'a Arc<Index>,
    /// The backup's name, for people.
    pub(super) id: String,
    pub(super) source: &'a SourceFacts,
    /// Its folder.
    pub(super) node: &'a Node,
}

/// Gives its image back to the engine, and makes the container of it: anew when it is gone, beside the one that is there with
/// `--as`, in its place with `--replace`.
pub(super) async fn bring_back(
    context: &mut Context<'_>,
    config: &Config,
    stored: Stored<'_>,
    arguments: &Restore,
) -> anyhow::Result<Exit> {
    let name = &stored.source.name;
    let engine = config.settings.docker.connect().await?;
    let there = match engine.container(name).await {
        Ok(container) => Some(container),
        Err(EngineError::NotFound(_)) => None,
        Err(error) => return Err(error).with_context(|| format!("look at the container {name}")),
    };
    if there.is_some() && arguments.beside.is_none() && !arguments.replace {
        bail!(
            "there is a container `{name}` already: `--replace` puts the one of the backup in its place, and undoes that when it does not \
             become well; `--as NAME` makes a copy beside it, for a look"
        );
    }
    let configuration = stored.file("image.json").await?;
    let specification = stored.file("specification.json").await;
    let (image, image_name) = give_back(context, config, &engine, &stored, configuration).await?;
    if there.is_some() {
        let beside = arguments.beside.clone();
        let beside = beside.map(|name| Beside { name, network: arguments.network.clone(), writes: false });
        let rollback = Rollback {
            container: name.clone(),
            image: image_name,
            id: image.id().to_owned(),
            wait: None,
            port: None,
            old: Old::Kept,
            start: false,
            beside,
        };
        return run::begin(context, config, &format!("restore {name}"), Request::Rollback(rollback), false).await;
    }
    let spec: Spec = serde_json::from_slice(&specification?).context("read what the backup says of the container")?;
    create(context, &engine, &spec, &image_name, arguments).await
}

/// Makes a container that is gone. With volumes that had to be made, and are empty, it is not started: what it would write into
/// them would be in the way of what belongs there.
async fn create(
    context: &mut Context<'_>,
    engine: &Engine,
    spec: &Spec,
    image: &str,
    arguments: &Restore,
) -> anyhow::Result<Exit> {
    let is_look = arguments.beside.is_some();
    let name = arguments.beside.as_ref().unwrap_or(&spec.name);
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
        network: arguments.network.clone(),
        beside: is_look,
        read_only_mounts: is_look,
        ..Creation::default()
    };
    let created = spec.create(engine, name, image, &creation).await?;
    let is_started = empty.is_empty() || is_look;
    if is_started {
        engine.start(&created.id).await.with_context(|| format!("start {name}"))?;
    }
    if context.json {
        let told = json!({
            "restored": spec.name, "container": name, "id": created.id, "image": image, "started": is_started,
            "empty_volumes": empty, "warnings": created.warnings,
        });
        writeln!(context.out, "{told}")?;
        return Ok(Exit::Fine);
    }
    writeln!(context.out, "{} {name} from {image}", paint::good("restored"))?;
    for warning in &created.warnings {
        writeln!(context.out, "  {} {warning}", paint::warning("Docker remarks:"))?;
    }
    if !is_started {
        let volumes = empty.join(", ");
        writeln!(context.out, "  {} {volumes}", paint::warning("not started, for these volumes are new and empty:"))?;
        writeln!(context.out, "  bring back what belongs into them, then: docker start {name}")?;
    }
    Ok(Exit::Fine)
}

/// Gives the image back to the engine, unless it has it. Returns it, and a name of it.
async fn give_back(
    context: &mut Context<'_>,
    config: &Config,
    engine: &Engine,
    stored: &Stored<'_>,
    configuration: Vec<u8>,
) -> anyhow::Result<(Image, String)> {
    let said: Value = serde_json::from_slice(&configuration).context("read the image's configuration")?;
    let id = digest(&Sha256::digest(&configuration));
    let given = said["config"]["Labels"][label::NAMES].as_str().unwrap_or_default();
    let name = free_name(engine, given, &id).await?;
    if let Ok(image) = engine.image(&id).await {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, "latest"));
        engine.tag(&id, repository, tag).await.with_context(|| format!("name the image {name}"))?;
        return Ok((image, name));
    }
    let digests = said["rootfs"]["diff_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let spool = config.settings.data.join("spool").join(format!("restore-{}", std::process::id()));
    let folder = spool.join(&stored.source.name);
    let layers: Vec<PathBuf> =
        digests.map(|digest| folder.join(format!("layers/{}.tar", digest.trim_start_matches("sha256:")))).collect();
    let given_back = async {
        fs::create_dir_all(&spool).with_context(|| format!("make the folder {}", spool.display()))?;
        stored.fetch(context, &folder).await?;
        engine
            .load_layers(configuration, &layers, Some(&name))
            .await
            .with_context(|| format!("give Docker the image {name}"))
    };
    let given_back = given_back.await;
    fs::remove_dir_all(&spool).with_context(|| format!("remove {}", spool.display()))?;
    Ok((given_back?, name))
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

impl Stored<'_> {
    /// A small file of it.
    async fn file(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let what = || format!("read {name} of {} in the backup {}", self.source.name, self.id);
        let tree = self.node.subtree.with_context(what)?;
        let tree = self.repository.tree(self.index, &tree).await.with_context(what)?;
        let content = tree.find(name.as_bytes()).and_then(|node| node.content.clone()).with_context(what)?;
        let mut all = Vec::new();
        for id in content {
            all.extend(self.repository.blob(self.index, BlobKind::Data, &id).await.with_context(what)?);
        }
        Ok(all)
    }

    /// All of it, as files.
    async fn fetch(&self, context: &Context<'_>, to: &Path) -> anyhow::Result<()> {
        let watch = Watch::new(context, self.source.bytes);
        let wish = Wish {
            to: to.to_owned(),
            replace: false,
            dry_run: false,
            only: None,
            id: self.id.clone(),
            is_database: false,
        };
        let listener = Arc::clone(&watch.listener) as Arc<dyn Listener>;
        let done =
            self.repository.restore(self.index, self.node.clone(), wish, listener, watch.cancelled.clone()).await;
        watch.end();
        let failures = done?.failures;
        if !failures.is_empty() {
            bail!("the image cannot be brought back whole: {}", failures.join("; "));
        }
        Ok(())
    }
}
