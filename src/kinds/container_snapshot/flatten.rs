//! An image of too many layers made into one of a single layer, with all of its configuration.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::{
    docker::{Engine, Image, Once, digest, mark, short_id},
    kinds::Cx,
    model::Debt,
};

/// Makes an image with the files and the configuration of `image`, in one layer. Returns its id. The image itself stays.
///
/// A container of it, never started, is exported: so the files are those of the snapshot, whatever its container does meanwhile.
pub(super) async fn flatten(cx: &Cx, engine: &Engine, image: &Image) -> anyhow::Result<String> {
    let name = format!("rusuban-flatten-{}-{}", cx.run, short_id(image.id()));
    let spool = cx.services.spool.join(&name);
    let spooled = cx.record.owe(Debt::Remove { path: spool.clone() }).await?;
    tokio::fs::create_dir_all(&spool).await.with_context(|| format!("make the folder {}", spool.display()))?;
    let made = async {
        let layer = export(cx, engine, &name, image, &spool.join("layer.tar")).await?;
        load(engine, image, &layer).await
    };
    let made = made.await;
    tokio::fs::remove_dir_all(&spool).await.with_context(|| format!("remove {}", spool.display()))?;
    cx.record.paid(spooled).await?;
    made
}

/// A layer in a file.
struct Layer {
    file: PathBuf,
    /// Its SHA-256, as `sha256:…`.
    digest: String,
}

/// The files of an image, by way of a container that never runs.
async fn export(cx: &Cx, engine: &Engine, name: &str, image: &Image, file: &Path) -> anyhow::Result<Layer> {
    let once = Once {
        name: name.to_owned(),
        mark: mark()?,
        image: image.id().to_owned(),
        // An image that names no command cannot be created without one.
        entrypoint: Some(vec!["true".to_owned()]),
        network: Some("none".to_owned()),
        ..Once::default()
    };
    let removed = cx.record.owe(Debt::Container { name: name.to_owned(), mark: once.mark.clone() }).await?;
    let exported = async {
        let container = engine.create_once(&once).await.context("create a container of the snapshot")?;
        let mut from = std::pin::pin!(engine.export(container.id()).await?);
        let mut to = tokio::fs::File::create(file).await.with_context(|| format!("make {}", file.display()))?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(piece) = from.next().await {
            let piece = piece?;
            hash.update(&piece);
            bytes += piece.len() as u64;
            to.write_all(&piece).await.with_context(|| format!("write {}", file.display()))?;
        }
        to.flush().await.with_context(|| format!("write {}", file.display()))?;
        ensure!(bytes > 1024, "the snapshot came out empty");
        Ok(Layer { file: file.to_owned(), digest: digest(&hash.finalize()) })
    };
    let exported = exported.await;
    engine.remove_once(name, &once.mark).await.context("remove the container of the snapshot")?;
    cx.record.paid(removed).await?;
    exported
}

/// Gives the layer back to the engine, under the configuration of `image`.
async fn load(engine: &Engine, image: &Image, layer: &Layer) -> anyhow::Result<String> {
    let raw = image.raw();
    let configuration = json!({
        "architecture": raw["Architecture"], "variant": raw["Variant"], "os": raw["Os"],
        "created": raw["Created"], "author": raw["Author"], "comment": image.comment(), "config": raw["Config"],
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
        "history": [{ "created": raw["Created"], "created_by": "rusuban: all layers in one", "comment": image.comment() }],
    });
    let configuration = without_nothing(configuration).to_string().into_bytes();
    let loaded = engine.load_layers(configuration, std::slice::from_ref(&layer.file), None).await;
    let loaded = loaded.context("give the engine the snapshot in one layer")?;
    ensure!(
        loaded.layers() == [layer.digest.as_str()],
        "the snapshot in one layer is not what was given to the engine"
    );
    Ok(loaded.id().to_owned())
}

/// The engine writes some things as nothing that it does not read as such.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nothing(value)))
            .collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nothing_is_left_out() {
        let value = json!({ "a": null, "b": { "c": null, "d": [null] }, "e": false });
        assert_eq!(without_nothing(value), json!({ "b": { "d": [null] }, "e": false }));
    }
}
