//! An image of too many layers made into one of a single layer, with all of its configuration.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    docker::{Engine, Image, Once, mark},
    kinds::Cx,
    model::Debt,
    text,
};

/// So much is read at once.
const PIECE: usize = 256 << 10;

/// Makes an image with the files and the configuration of `image`, in one layer. Returns its id. The image itself stays.
///
/// A container of it, never started, is exported: so the files are those of the snapshot, whatever its container does meanwhile.
pub(super) async fn flatten(cx: &Cx, engine: &Engine, image: &Image) -> anyhow::Result<String> {
    let name = format!("rusuban-flatten-{}-{}", cx.run, digits(image.id()));
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
    bytes: u64,
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
        Ok(Layer { file: file.to_owned(), bytes, digest: format!("sha256:{}", text::hexadecimal(&hash.finalize())) })
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
    let configuration = without_nothing(configuration).to_string();
    let id = format!("sha256:{}", text::hexadecimal(&Sha256::digest(&configuration)));
    let manifest = json!([{ "Config": "configuration.json", "RepoTags": null, "Layers": ["layer.tar"] }]).to_string();
    let tar = archive(configuration, layer, manifest).await?;
    engine.load(reqwest::Body::wrap_stream(tar)).await.context("give the engine the snapshot in one layer")?;
    let loaded = engine.image(&id).await.context("look at the snapshot in one layer")?;
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

/// A tar as `docker save` writes it, made as it is read.
async fn archive(
    configuration: String,
    layer: &Layer,
    manifest: String,
) -> anyhow::Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
    let head = [entry("configuration.json", configuration.as_bytes())?, header("layer.tar", layer.bytes)?].concat();
    let gap = vec![0; padding(layer.bytes)];
    let tail = [gap, entry("manifest.json", manifest.as_bytes())?, vec![0; 1024]].concat();
    let file = tokio::fs::File::open(&layer.file).await.with_context(|| format!("open {}", layer.file.display()))?;
    let body = stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        let count = file.read(&mut piece).await?;
        piece.truncate(count);
        Ok::<_, std::io::Error>((count > 0).then(|| (Bytes::from(piece), file)))
    });
    let once = |bytes: Vec<u8>| stream::once(async move { Ok(Bytes::from(bytes)) });
    Ok(once(head).chain(body.into_stream()).chain(once(tail)))
}

fn header(name: &str, bytes: u64) -> anyhow::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_cksum();
    Ok(header.as_bytes().to_vec())
}

fn entry(name: &str, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = bytes.len() as u64;
    Ok([header(name, length)?, bytes.to_vec(), vec![0; padding(length)]].concat())
}

/// Bytes to the next multiple of 512.
fn padding(bytes: u64) -> usize {
    usize::try_from(bytes.wrapping_neg() % 512).unwrap_or_default()
}

fn digits(id: &str) -> &str {
    let digits = id.trim_start_matches("sha256:");
    digits.get(..12).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_archive_is_a_tar_of_three_files() {
        for bytes in [1, 512, 1025, 3 * PIECE as u64 + 7] {
            let place = tempfile::tempdir().unwrap();
            let file = place.path().join("layer");
            std::fs::write(&file, vec![7; usize::try_from(bytes).unwrap()]).unwrap();
            let layer = Layer { file, bytes, digest: String::new() };
            let tar = archive("{}".into(), &layer, "[]".into()).await.unwrap();
            let tar: Vec<Bytes> = tar.try_collect().await.unwrap();
            let tar = tar.concat();
            let mut entries = tar::Archive::new(&tar[..]);
            let found: Vec<_> = entries
                .entries()
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    (entry.path().unwrap().display().to_string(), entry.size())
                })
                .collect();
            let expected = [("configuration.json", 2), ("layer.tar", bytes), ("manifest.json", 2)];
            assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));
            assert_eq!(tar.len() % 512, 0);
        }
    }

    #[test]
    fn what_is_nothing_is_left_out() {
        let value = json!({ "a": null, "b": { "c": null, "d": [null] }, "e": false });
        assert_eq!(without_nothing(value), json!({ "b": { "d": [null] }, "e": false }));
    }
}
