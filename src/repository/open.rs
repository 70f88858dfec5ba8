//! Making a repository and opening it.
use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::{
    Id, Index, IndexFile,
    cache::Cache,
    chunker::{Cutter, Polynomial, Rule},
    crypto::Key,
    objects::{self, Class, Damaged, Objects},
    password::KeyFile,
    snapshot::Snapshot,
};
use crate::{
    bucket::{Bucket, BucketError, Put},
    clock::Clock,
};

/// The format's own settings, readable by every program that knows the format.
const CONFIG: &str = "config";
/// And ours beside it: where streams are cut. Other programs leave it alone and do not need it.
const CHUNKING: &str = "rusuban";
/// Bytes of a chunk on average: of some times as many, several are held in memory.
const AVERAGES: std::ops::RangeInclusive<usize> = 4 << 10..=16 << 20;
/// Objects that are fetched at once while a repository is opened.
const AT_ONCE: usize = 8;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    version: u32,
    id: String,
    chunker_polynomial: Polynomial,
}

/// Where streams are cut; the same for all who write to a repository, for otherwise nothing would be found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunking {
    /// By which rule.
    pub chunker: Rule,
    /// Bytes of a chunk on average.
    pub average: u64,
}

impl Chunking {
    /// What restic does, and all that it knows.
    pub const RESTIC: Self = Self { chunker: Rule::Rabin, average: 1 << 20 };
}

/// There is nothing that could be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("there is no repository in {0}: `rusuban repository init NAME` makes one")]
pub struct Absent(pub String);

/// What opens a repository.
#[derive(Clone)]
pub enum Unlock {
    /// A person's password: it takes a moment and 32 MiB or more.
    Password(Vec<u8>),
    /// The repository's own key, as `rusuban repository keys` prints it.
    Key(Box<Key>),
}

impl std::fmt::Debug for Unlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unlock(…)")
    }
}

/// How a repository is read and written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a pack: it is stored when it has them.
    pub pack_size: usize,
    /// zstd's level; 0: not compressed.
    pub level: i32,
    /// Packs that are on their way at once.
    pub connections: usize,
    /// Threads that read, hash, compress and seal.
    pub threads: usize,
    /// Copies on this machine.
    pub cache: Cache,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { pack_size: 16 << 20, level: 3, connections: 6, threads, cache: Cache::default() }
    }
}

/// A repository that is open.
#[derive(Clone, Debug)]
pub struct Repository {
    objects: Objects,
    id: String,
    cutter: Cutter,
    chunking: Chunking,
    options: Options,
}

impl Repository {
    /// Makes a new one, empty, with one password.
    ///
    /// # Errors
    /// When there is one already, or it cannot be stored.
    pub async fn create(
        bucket: Arc<dyn Bucket>,
        password: &[u8],
        chunking: Chunking,
        options: Options,
        host: &str,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        ensure!(!password.is_empty(), "the password is empty");
        match bucket.head(CONFIG).await {
            Ok(_) => bail!("there is a repository already: {}", bucket.describe()),
            Err(BucketError::NotFound(_)) => {}
            Err(error) => return Err(error).context("look for a repository"),
        }
        clear(&bucket).await.context("look for what an interrupted `repository init` left")?;
        let key = Key::random()?;
        let (now, host, secret, sealing) = (clock.now(), host.to_owned(), password.to_vec(), key.clone());
        let file = tokio::task::spawn_blocking(move || KeyFile::seal(&sealing, &secret, &host, now));
        let file = serde_json::to_vec(&file.await.context("a thread died")??)?;
        let id = put_key(&bucket, file.clone()).await?;
        let put = async |name: &str, json: Vec<u8>| -> anyhow::Result<()> {
            let sealed = Bytes::from(key.seal(&json)?);
            bucket.put(name, sealed, Put::IfAbsent).await.with_context(|| format!("store {name}"))
        };
        put(CHUNKING, serde_json::to_vec(&chunking)?).await?;
        // Last: with it, there is a repository.
        let config = Config { version: 2, id: Id::random()?.to_string(), chunker_polynomial: Polynomial::random()? };
        put(CONFIG, serde_json::to_vec(&config)?).await?;
        // Another who began at the same moment may have taken our key for a leftover.
        if let Err(BucketError::NotFound(_)) = bucket.head(&Class::Key.key(&id)).await {
            put_key(&bucket, file).await?;
        }
        Self::open(bucket, &Unlock::Key(Box::new(key)), options).await
    }

    /// Opens one, whoever made it.
    ///
    /// # Errors
    /// When there is none, the password is another, or it cannot be read.
    pub async fn open(bucket: Arc<dyn Bucket>, unlock: &Unlock, options: Options) -> anyhow::Result<Self> {
        // A server may be far away: all that can be asked for at once is.
        let (config, chunking, keys) = tokio::join!(
            objects::whole(&bucket, CONFIG, objects::SMALL),
            objects::whole(&bucket, CHUNKING, objects::SMALL),
            async {
                match unlock {
                    Unlock::Key(_) => Ok(Vec::new()),
                    Unlock::Password(_) => read_keys(&bucket).await,
                }
            }
        );
        let sealed = match config {
            Ok(sealed) => sealed,
            Err(error) if objects::is_missing(&error) => {
                return Err(Absent(bucket.describe()).into());
            }
            Err(error) => return Err(error.context("read its configuration")),
        };
        let key = match unlock {
            Unlock::Key(key) => (**key).clone(),
            Unlock::Password(password) => unlock_by_password(&bucket, keys?, password, &sealed).await?,
        };
        let json = key.open(&sealed).context("the repository's configuration does not open with this key")?;
        let config: Config = serde_json::from_slice(&json).context("read the repository's configuration")?;
        ensure!(
            matches!(config.version, 1 | 2),
            "the repository has version {} of the format; 1 and 2 are known here",
            config.version
        );
        let chunking = match chunking {
            Ok(sealed) => {
                let json = key.open(&sealed).context("open `rusuban`, where the repository says how it cuts")?;
                serde_json::from_slice::<Chunking>(&json)
                    .context("read `rusuban`, where the repository says how it cuts")?
            }
            Err(error) if objects::is_missing(&error) => Chunking::RESTIC,
            Err(error) => return Err(error.context("read how the repository cuts")),
        };
        let average = usize::try_from(chunking.average).ok().filter(|average| AVERAGES.contains(average));
        let average = average.with_context(|| {
            format!("the repository is cut in chunks of {} bytes, and 4 KiB to 16 MiB are known here", chunking.average)
        })?;
        let cutter = match chunking.chunker {
            Rule::Rabin => Cutter::rabin(config.chunker_polynomial, average),
            Rule::FastCdc => Cutter::fastcdc(&key.derive("chunker"), average),
        };
        let objects = Objects::new(bucket, key, config.version);
        Ok(Self { objects, id: config.id, cutter, chunking, options })
    }

    /// Adds a password. The key file's name.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn add_password(&self, password: &[u8], host: &str, clock: &Clock) -> anyhow::Result<Id> {
        ensure!(!password.is_empty(), "the password is empty");
        let (key, secret, host, now) = (self.objects.key().clone(), password.to_vec(), host.to_owned(), clock.now());
        let file = tokio::task::spawn_blocking(move || KeyFile::seal(&key, &secret, &host, now));
        put_key(self.objects.bucket(), serde_json::to_vec(&file.await.context("a thread died")??)?).await
    }

    /// Its objects.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Its name, the same for all who open it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where its streams are cut.
    #[must_use]
    pub fn cutter(&self) -> &Cutter {
        &self.cutter
    }

    /// The rule behind it.
    #[must_use]
    pub fn chunking(&self) -> Chunking {
        self.chunking
    }

    /// How it is read and written.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.options.cache
    }

    /// All key files, and what is in them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn keys(&self) -> anyhow::Result<Vec<(Id, KeyFile)>> {
        read_keys(self.objects.bucket()).await
    }

    /// Reads all index objects.
    ///
    /// # Errors
    /// When one cannot be read: without it, blobs would be taken for lost.
    pub async fn index(&self) -> anyhow::Result<Index> {
        self.index_from(EarlyIndex::default()).await?.settle().await
    }

    /// Reads the index objects that were not read already, or all where one of those is gone.
    pub(super) async fn index_from(&self, early: EarlyIndex) -> anyhow::Result<EarlyIndex> {
        let names: Vec<Id> = self.objects.list(Class::Index).await?.into_iter().map(|(id, _)| id).collect();
        self.cache().retain(Class::Index, &names);
        let EarlyIndex { mut index, read } = match early.read.iter().all(|id| names.binary_search(id).is_ok()) {
            true => early,
            false => EarlyIndex::default(),
        };
        let missing: Vec<Id> = names.iter().filter(|id| read.binary_search(id).is_err()).copied().collect();
        let mut files =
            stream::iter(missing).map(|id| async move { self.index_file(&id).await }).buffer_unordered(AT_ONCE);
        while let Some(file) = files.try_next().await? {
            index.add_all(&file.packs);
        }
        drop(files);
        Ok(EarlyIndex { index, read: names })
    }

    /// Reads ahead, as far as that is possible.
    pub(super) async fn early(&self) -> Early {
        let (index, snapshots) = tokio::join!(self.index_from(EarlyIndex::default()), self.snapshots());
        Early { index: index.unwrap_or_default(), snapshots: snapshots.map(|(found, _)| found).unwrap_or_default() }
    }

    /// One index object.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn index_file(&self, id: &Id) -> anyhow::Result<IndexFile> {
        let (this, id) = (self.clone(), *id);
        let cached = tokio::task::spawn_blocking(move || {
            let sealed = this.cache().get(Class::Index, &id)?;
            let json = this.objects.open(Class::Index, &id, sealed).ok();
            if json.is_none() {
                this.cache().forget(Class::Index, &id);
            }
            json
        });
        let json = match cached.await.context("a thread died")? {
            Some(json) => json,
            None => {
                let sealed = self.objects.raw(Class::Index, &id).await?;
                let this = self.clone();
                let opening = tokio::task::spawn_blocking(move || {
                    let json = this.objects.open(Class::Index, &id, sealed.clone())?;
                    this.cache().put(Class::Index, &id, &sealed);
                    Ok::<_, Damaged>(json)
                });
                opening.await.context("a thread died")??
            }
        };
        let parsing = tokio::task::spawn_blocking(move || IndexFile::from_json(&json));
        let read = parsing.await.context("a thread died")?;
        Ok(read.map_err(|error| Damaged { class: Class::Index, id, why: format!("{error:#}") })?)
    }

    /// All snapshots, the oldest first, and what cannot be read of them.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn snapshots(&self) -> anyhow::Result<(Vec<(Id, Snapshot)>, Vec<Damaged>)> {
        self.snapshots_from(Vec::new()).await
    }

    /// The same; those of `early` that are still there are not read again.
    pub(super) async fn snapshots_from(
        &self,
        early: Vec<(Id, Snapshot)>,
    ) -> anyhow::Result<(Vec<(Id, Snapshot)>, Vec<Damaged>)> {
        let mut early: BTreeMap<Id, Snapshot> = early.into_iter().collect();
        let names = self.objects.list(Class::Snapshot).await?.into_iter().map(|(id, _)| (id, early.remove(&id)));
        let mut loading = stream::iter(names.collect::<Vec<_>>())
            .map(|(id, known)| async move {
                match known {
                    Some(snapshot) => (id, Ok(snapshot)),
                    None => (id, Snapshot::load(&self.objects, &id).await),
                }
            })
            .buffer_unordered(AT_ONCE);
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        while let Some((id, loaded)) = loading.next().await {
            match loaded {
                Ok(snapshot) => found.push((id, snapshot)),
                // Forgotten by another between the listing and the reading.
                Err(error) if objects::is_missing(&error) => {}
                Err(error) => match error.downcast::<Damaged>() {
                    Ok(wrong) => damaged.push(wrong),
                    Err(error) => return Err(error),
                },
            }
        }
        found.sort_by(|(one, first), (other, second)| (first.time, one).cmp(&(second.time, other)));
        Ok((found, damaged))
    }
}

/// What was read before nobody could remove it any more. What is still there then is what it was.
#[derive(Default)]
pub(super) struct Early {
    pub(super) index: EarlyIndex,
    pub(super) snapshots: Vec<(Id, Snapshot)>,
}

/// An index, and which objects it was read from, sorted.
#[derive(Default)]
pub(super) struct EarlyIndex {
    index: Index,
    read: Vec<Id>,
}

impl EarlyIndex {
    /// Makes it ready to be asked.
    pub(super) async fn settle(self) -> anyhow::Result<Index> {
        let mut index = self.index;
        let settled = tokio::task::spawn_blocking(move || {
            index.settle();
            index
        });
        settled.await.context("a thread died")
    }
}

/// Removes what an interrupted making left: a key that opens nothing would be tried with the others. Where there is data,
/// nothing is touched.
async fn clear(bucket: &Arc<dyn Bucket>) -> anyhow::Result<()> {
    let keys = objects::list(bucket, Class::Key).await?;
    let is_said = match bucket.head(CHUNKING).await {
        Ok(_) => true,
        Err(BucketError::NotFound(_)) => false,
        Err(error) => return Err(error.into()),
    };
    if keys.is_empty() && !is_said {
        return Ok(());
    }
    for class in [Class::Snapshot, Class::Index, Class::Pack] {
        ensure!(
            objects::list(bucket, class).await?.is_empty(),
            "{} has a repository's data, whose `config` is missing: bring that back, or make the new one elsewhere",
            bucket.describe()
        );
    }
    for (id, _) in keys {
        bucket.delete(&Class::Key.key(&id)).await?;
    }
    Ok(bucket.delete(CHUNKING).await?)
}

async fn put_key(bucket: &Arc<dyn Bucket>, file: Vec<u8>) -> anyhow::Result<Id> {
    let id = Id::of(&file);
    let name = Class::Key.key(&id);
    bucket.put(&name, file.into(), Put::Replace).await.with_context(|| format!("store {name}"))?;
    Ok(id)
}

async fn read_keys(bucket: &Arc<dyn Bucket>) -> anyhow::Result<Vec<(Id, KeyFile)>> {
    let mut files = stream::iter(objects::list(bucket, Class::Key).await?)
        .map(|(id, _)| async move {
            let name = Class::Key.key(&id);
            (id, objects::whole(bucket, &name, objects::SMALL).await, name)
        })
        .buffered(AT_ONCE);
    let mut keys = Vec::new();
    while let Some((id, file, name)) = files.next().await {
        // One that cannot be read does not keep the others from opening the repository.
        let read = match file {
            Ok(file) => serde_json::from_slice(&file).map_err(anyhow::Error::from),
            Err(error) if error.is::<objects::TooLarge>() => Err(error),
            Err(error) => return Err(error.context(format!("read {name}"))),
        };
        match read {
            Ok(file) => keys.push((id, file)),
            Err(error) => tracing::warn!(key = name, error = format!("{error:#}"), "a key file cannot be read"),
        }
    }
    Ok(keys)
}

/// The key that a password opens, and that opens the configuration.
async fn unlock_by_password(
    bucket: &Arc<dyn Bucket>,
    keys: Vec<(Id, KeyFile)>,
    password: &[u8],
    config: &[u8],
) -> anyhow::Result<Key> {
    ensure!(!keys.is_empty(), "the repository in {} has no key file", bucket.describe());
    let mut damaged = String::new();
    for (id, file) in keys {
        let secret = password.to_vec();
        let opening = tokio::task::spawn_blocking(move || file.open(&secret));
        match opening.await.context("a thread died")? {
            Ok(Some(key)) if key.open(config).is_ok() => return Ok(key),
            Ok(Some(_)) => damaged.push_str(&format!("; the key {} is another repository's", id.short())),
            Ok(None) => {}
            // Another may open it.
            Err(error) => damaged.push_str(&format!("; the key {} is damaged: {error:#}", id.short())),
        }
    }
    bail!("the password opens none of the repository's keys in {}{damaged}", bucket.describe())
}
