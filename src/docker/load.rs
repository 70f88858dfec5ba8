//! Images on their way into an engine: their parts, from files, as the tar of `docker save`.
use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncReadExt as _};

use super::{
    client::{Engine, EngineError},
    image::{Image, digest},
};
use crate::http;

/// So much is read at once.
const PIECE: usize = 256 << 10;

impl Engine {
    /// Takes in an image: its configuration, and its layers, the lowest first. It gets `name`, if one is given.
    ///
    /// # Errors
    /// When a layer cannot be read, or the engine refuses it; it looks whether the layers are those of the configuration.
    pub async fn load_layers(
        &self,
        configuration: Vec<u8>,
        layers: &[PathBuf],
        name: Option<&str>,
    ) -> anyhow::Result<Image> {
        let id = digest(&Sha256::digest(&configuration));
        let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
        let manifest =
            json!([{ "Config": "configuration.json", "RepoTags": name.map(|name| [name]), "Layers": names }]);
        let mut parts = vec![Part::of_bytes("configuration.json", configuration)];
        for (name, path) in names.iter().zip(layers) {
            parts.push(Part::of_file(name, path).await.with_context(|| format!("read {}", path.display()))?);
        }
        parts.push(Part::of_bytes("manifest.json", manifest.to_string().into_bytes()));
        self.load(Body::wrap_stream(tar(parts)?)).await?;
        // An engine with containerd's image store calls it by another digest.
        match self.image(&id).await {
            Err(error) if error.is_not_found() && name.is_some() => Ok(self.image(name.unwrap_or_default()).await?),
            found => Ok(found?),
        }
    }

    /// Takes in the images of a tar as `docker save` writes it.
    async fn load(&self, tar: Body) -> Result<(), EngineError> {
        let response =
            self.open(Method::POST, "/images/load", &[("quiet", "1")], Some((tar, "application/x-tar"))).await?;
        // The head says 200 before the tar was looked at.
        let said = response.text().await.map_err(|error| EngineError::Broken(http::why(error)))?;
        let error = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["error"].as_str()?.to_owned());
        match said.lines().find_map(error) {
            Some(message) => Err(EngineError::Refused { status: 200, message }),
            None => Ok(()),
        }
    }
}

/// A file in the tar.
struct Part {
    name: String,
    bytes: u64,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    File(File),
}

impl Part {
    fn of_bytes(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), bytes: bytes.len() as u64, content: Content::Bytes(bytes) }
    }

    async fn of_file(name: &str, path: &Path) -> io::Result<Self> {
        let file = File::open(path).await?;
        Ok(Self { name: name.to_owned(), bytes: file.metadata().await?.len(), content: Content::File(file) })
    }
}

/// A tar, made as it is read.
fn tar(parts: Vec<Part>) -> anyhow::Result<impl Stream<Item = io::Result<Bytes>> + Send> {
    let mut pieces = Vec::new();
    for part in parts {
        pieces.push(Content::Bytes(header(&part.name, part.bytes)?));
        pieces.push(part.content);
        pieces.push(Content::Bytes(vec![0; padding(part.bytes)]));
    }
    pieces.push(Content::Bytes(vec![0; 1024]));
    Ok(stream::iter(pieces).flat_map(|piece| match piece {
        Content::Bytes(bytes) => stream::once(async move { Ok(Bytes::from(bytes)) }).boxed(),
        Content::File(file) => read(file).boxed(),
    }))
}

fn read(file: File) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        let count = file.read(&mut piece).await?;
        piece.truncate(count);
        Ok((count > 0).then(|| (Bytes::from(piece), file)))
    })
}

fn header(name: &str, bytes: u64) -> anyhow::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_cksum();
    Ok(header.as_bytes().to_vec())
}

/// Bytes to the next multiple of 512.
fn padding(bytes: u64) -> usize {
    usize::try_from(bytes.wrapping_neg() % 512).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn the_parts_come_out_as_a_tar() {
        for bytes in [1, 512, 1025, 3 * PIECE + 7] {
            let place = tempfile::tempdir().unwrap();
            let file = place.path().join("layer");
            std::fs::write(&file, vec![7; bytes]).unwrap();
            let parts =
                vec![Part::of_bytes("a.json", b"{}".to_vec()), Part::of_file("0/layer.tar", &file).await.unwrap()];
            let tar: Vec<Bytes> = tar(parts).unwrap().try_collect().await.unwrap();
            let tar = tar.concat();
            let mut archive = tar::Archive::new(&tar[..]);
            let found = archive.entries().unwrap().map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.size())
            });
            let expected = [("a.json", 2), ("0/layer.tar", bytes as u64)];
            assert_eq!(found.collect::<Vec<_>>(), expected.map(|(name, size)| (name.to_owned(), size)));
            assert_eq!(tar.len() % 512, 0);
        }
    }
}
