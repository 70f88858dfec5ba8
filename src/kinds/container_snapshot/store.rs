//! Snapshots on their way off the host: image configuration, layers and container, in a repository.
use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, bail, ensure};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::room::Room;
use crate::{
    docker::{Content, Engine, Image, Part, Spec, digest},
    kinds::{Cx, generations, listening::Listening},
    repository::{self, Piece},
    retention::Rule,
    text,
};

/// What is no layer is small.
const MOST_JSON: u64 = 16 << 20;

/// What is to be stored.
pub(super) struct Off<'a> {
    pub(super) cx: &'a Cx,
    pub(super) engine: &'a Engine,
    pub(super) room: &'a Room,
    /// Containers, and the images made of them.
    pub(super) taken: &'a [(String, Image)],
    /// Not all containers that were chosen are among them.
    pub(super) is_partial: bool,
}

impl Off<'_> {
    /// Stores them as one backup, and thins out older ones. Returns what was done, in words.
    pub(super) async fn store(&self, repository: &str, rule: Rule) -> anyhow::Result<String> {
        let cx = self.cx;
        let shelf = cx.repository(repository)?;
        let repository = shelf.open().await?;
        let listening = Listening::new(cx, "");
        let mut writer = listening.begin_backup(&repository, &cx.services.spool).await?;
        if self.is_partial {
            writer.is_partial();
        }
        for (container, image) in self.taken {
            let step = format!("store {container}");
            listening.begin(&step);
            let storing = self.container(&mut writer, container, image);
            if let Err(error) = cx.step(&step, storing).await {
                writer.abandon().await;
                return Err(error.context(format!("store {container}")));
            }
        }
        let (id, snapshot) = cx.step("store", writer.finish(&cx.clock)).await?;
        cx.info(format!("kept as snapshot {} in {}", id.short(), shelf.describe()));
        let summary = snapshot.summary.unwrap_or_default();
        let stored = format!(
            "{} in {}, {} new → {}, read back",
            text::size(summary.total_bytes_processed),
            shelf.name(),
            text::size(summary.data_added),
            text::size(summary.data_added_packed),
        );
        let thinned = async { Ok(generations::thin_repository(cx, &repository, &cx.job, &id, rule).await) };
        Ok(format!("{stored}; {}", cx.step("old generations", thinned).await?))
    }

    async fn container(&self, writer: &mut repository::Backup, name: &str, image: &Image) -> anyhow::Result<()> {
        // The engine lays all of the image on its own disk before it sends the first byte.
        let _held = self.room.take(image.bytes(), 1)?;
        let mut layers: BTreeMap<String, Piece> = BTreeMap::new();
        let mut small: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut saved = self.engine.save(image.id()).await?;
        while let Some(Part { name, bytes, content }) = saved.next().await.context("save its image")? {
            match Kind::of(&name, bytes, content).await? {
                Kind::Json(json) => drop(small.insert(name, json)),
                Kind::Layer(layer) => {
                    let digest = Arc::new(Mutex::new(None));
                    let piece = writer.piece(Digesting::new(layer, Arc::clone(&digest))).await?;
                    let digest = digest.lock().unwrap_or_else(PoisonError::into_inner).take();
                    layers.insert(digest.context("a layer was not read to its end")?, piece);
                }
                Kind::Other => {}
            }
        }
        let configuration = configuration(&small)?;
        let said: Value = serde_json::from_slice(configuration).context("read the image's configuration")?;
        let wanted: Vec<&str> =
            said["rootfs"]["diff_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        ensure!(
            !wanted.is_empty() && wanted == image.layers(),
            "the image that was saved is another than the one that was made"
        );
        let mut files = Vec::new();
        for digest in wanted {
            // Some engines have left out layers that images share: https://github.com/moby/moby/issues/49473
            let Some(piece) = layers.get(digest) else { bail!("the engine has not sent the layer {digest}") };
            let place = PathBuf::from(format!("layers/{}.tar", digest.trim_start_matches("sha256:")));
            if !files.iter().any(|(known, _)| *known == place) {
                files.push((place, piece.clone()));
            }
        }
        let mut of_container = vec![("image.json", configuration.clone())];
        match Spec::of(self.engine, name).await {
            Ok(specification) => of_container.push(("specification.json", serde_json::to_vec_pretty(&specification)?)),
            Err(error) => self.cx.warn(format!("{name}: its image is stored, but not how it is created: {error:#}")),
        }
        for (name, bytes) in of_container {
            files.push((name.into(), writer.piece(io::Cursor::new(bytes)).await?));
        }
        writer.several(name, "container-image", files);
        Ok(())
    }
}

/// The image's configuration, to the byte: its digest is the image's name.
fn configuration(small: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<&Vec<u8>> {
    let manifest = small.get("manifest.json").context("the engine has not said what the image consists of")?;
    let manifest: Value = serde_json::from_slice(manifest).context("read what the image consists of")?;
    let name = manifest[0]["Config"].as_str().context("the engine has not named the image's configuration")?;
    small.get(name).context("the engine has not sent the image's configuration")
}

/// What a part of the tar is.
enum Kind {
    Json(Vec<u8>),
    Layer(Box<dyn Read + Send>),
    Other,
}

impl Kind {
    async fn of(name: &str, bytes: u64, mut content: Content) -> anyhow::Result<Self> {
        let of_layer = name.ends_with("/layer.tar");
        if !of_layer && !name.ends_with(".json") && !name.starts_with("blobs/") {
            return Ok(Self::Other);
        }
        let reading = tokio::task::spawn_blocking(move || {
            let mut head = Vec::new();
            content.by_ref().take(2).read_to_end(&mut head)?;
            let is_json = head.starts_with(b"{") || head.starts_with(b"[");
            if !of_layer && is_json && bytes <= MOST_JSON {
                content.read_to_end(&mut head)?;
                return Ok(Self::Json(head));
            }
            // Engines with containerd's image store send layers as they hold them: compressed.
            let is_compressed = head == [0x1f, 0x8b];
            let whole = io::Cursor::new(head).chain(content);
            Ok(Self::Layer(if is_compressed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) }))
        });
        reading
            .await
            .context("a thread died")?
            .map_err(|error: io::Error| anyhow::anyhow!(error).context("save its image"))
    }
}

/// Counts a layer's digest while it is read, and tells it at its end.
struct Digesting<R> {
    from: R,
    hash: Sha256,
    digest: Arc<Mutex<Option<String>>>,
}

impl<R: Read> Digesting<R> {
    fn new(from: R, digest: Arc<Mutex<Option<String>>>) -> Self {
        Self { from, hash: Sha256::new(), digest }
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(to)?;
        if count == 0 && !to.is_empty() {
            let digest = digest(&self.hash.clone().finalize());
            *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        }
        self.hash.update(&to[..count]);
        Ok(count)
    }
}
