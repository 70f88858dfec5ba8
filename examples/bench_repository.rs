//! For `dev/bench-repository`: what takes a bucket or an index that cannot be had here.
//!
//! - `bench_repository latency MIB MILLISECONDS`: a backup into a bucket whose every PUT takes so long, one at a time and as
//!   many as are sent by default. Prints both times in seconds.
//! - `bench_repository index FOLDER BLOBS PASSWORD`: fills the index of the repository there as that of a large one is. No
//!   pack stands behind it.
#![expect(clippy::print_stdout, reason = "it is what the example is for")]
use std::{fs, io::Write as _, ops::Range, path::Path, sync::Arc, time::Duration};

use anyhow::bail;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use rusuban::{
    bucket::{Body, Bucket, Object, Put, Result, Upload, folder::Folder},
    clock::Clock,
    repository::{
        Backup, BlobKind, Cache, Chunking, Class, Id, IndexFile, IndexedBlob, IndexedPack, Options, Repository,
        Setting, Unlock, chunker::Rule,
    },
    tree::{Listener, Tree},
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["latency", mebibytes, milliseconds] => {
            let (mebibytes, wait) = (mebibytes.parse()?, Duration::from_millis(milliseconds.parse()?));
            let one = latency(mebibytes, wait, 1).await?;
            let many = latency(mebibytes, wait, Options::default().connections).await?;
            println!("{:.2} {:.2}", one.as_secs_f64(), many.as_secs_f64());
            Ok(())
        }
        ["index", folder, blobs, password] => index(Path::new(folder), blobs.parse()?, password).await,
        _ => bail!("usage: bench_repository latency MIB MILLISECONDS | index FOLDER BLOBS PASSWORD"),
    }
}

/// A bucket that is far away.
#[derive(Debug)]
struct Far(Folder, Duration);

#[async_trait]
impl Bucket for Far {
    fn describe(&self) -> String {
        self.0.describe()
    }
    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        tokio::time::sleep(self.1).await;
        self.0.put(key, body, put).await
    }
    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        tokio::time::sleep(self.1).await;
        self.0.upload(key).await
    }
    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.0.abort_upload(key, upload).await
    }
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        self.0.get(key, range).await
    }
    async fn head(&self, key: &str) -> Result<Object> {
        self.0.head(key).await
    }
    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        self.0.list(prefix).await
    }
    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.0.folders(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }
}

struct Deaf;

impl Listener for Deaf {
    fn info(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn progress(&self, _: u64, _: Option<u64>) {}
}

async fn latency(mebibytes: usize, wait: Duration, connections: usize) -> anyhow::Result<Duration> {
    let place = tempfile::tempdir()?;
    fs::create_dir_all(place.path().join("spool"))?;
    let mut file = fs::File::create(place.path().join("file"))?;
    let mut state = 1_u64;
    for _ in 0..mebibytes {
        // Nothing that can be compressed: xorshift.
        let piece: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(1 << 17)
        .flatten()
        .collect();
        file.write_all(&piece)?;
    }
    let clock = Clock::system();
    let bucket: Arc<dyn Bucket> = Arc::new(Far(Folder::new(place.path().join("bucket")), wait));
    let options = Options { connections, cache: Cache::default(), ..Options::default() };
    let chunking = Chunking { chunker: Rule::FastCdc, average: 1 << 20 };
    let repository = Repository::create(bucket, b"bench", chunking, options, "bench", &clock).await?;
    let setting = Setting {
        job: "bench".parse().map_err(anyhow::Error::msg)?,
        run: None,
        host: "bench".into(),
        tags: Vec::new(),
        spool: place.path().join("spool"),
        listener: Arc::new(Deaf),
        cancelled: CancellationToken::new(),
        patience: Duration::ZERO,
    };
    let begun = std::time::Instant::now();
    let mut backup = Backup::begin(repository, setting, &clock).await?;
    backup.tree("file", Tree::at(&place.path().join("file"))).await?;
    backup.finish(&clock).await?;
    Ok(begun.elapsed())
}

async fn index(folder: &Path, blobs: usize, password: &str) -> anyhow::Result<()> {
    /// A pack of 16 MiB holds so many chunks of 1 MiB.
    const IN_A_PACK: usize = 16;
    let bucket = Arc::new(Folder::new(folder.to_owned()));
    let unlock = Unlock::Password(password.into());
    let repository = Repository::open(bucket, &unlock, Options::default()).await?;
    let packs: Vec<usize> = (0..blobs.div_ceil(IN_A_PACK)).collect();
    for some in packs.chunks(3_000) {
        let packs = some.iter().map(|pack| {
            let blob = |at: usize| IndexedBlob {
                id: Id::of(format!("blob {pack} {at}").as_bytes()),
                kind: BlobKind::Data,
                offset: u32::try_from(at << 20).unwrap_or_default(),
                length: 1 << 20,
                uncompressed_length: None,
            };
            IndexedPack { id: Id::of(format!("pack {pack}").as_bytes()), blobs: (0..IN_A_PACK).map(blob).collect() }
        });
        let file = IndexFile { supersedes: Vec::new(), packs: packs.collect() };
        repository.objects().save(Class::Index, serde_json::to_vec(&file)?).await?;
    }
    Ok(())
}
