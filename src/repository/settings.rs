//! `[repository.NAME]` in `rusuban.toml`, and the repository it describes.
use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::{
    cache::Cache,
    chunker::Rule,
    crypto::Key,
    open::{Chunking, Options, Repository, Unlock},
};
use crate::{
    bucket::{Bucket, prefixed::Prefixed},
    clock::Clock,
    config::{
        mistake::{Problem, suggest},
        secret::{SecretReader, SecretSource},
        units::Size,
    },
};

/// Chunks of repositories that hold databases: a database changes here and there.
const OF_DATABASES: u64 = 16 << 10;

/// A repository in the restic format: deduplicated and encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositorySettings {
    /// The bucket it is in, one of this file [default: local].
    #[serde(default = "local")]
    pub bucket: String,
    /// The folder in the bucket; "" is the bucket itself [default: the repository's name].
    #[serde(default)]
    pub path: Option<String>,
    /// The password that opens it.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// Instead: the repository's own key, as `rusuban repository keys NAME --own` prints it. It opens at once and without much memory.
    #[serde(default)]
    pub key: Option<SecretSource>,
    /// For a new one: how streams are cut. `rabin` as restic does it, for repositories that restic writes to as well
    /// [default: fastcdc].
    #[serde(default)]
    pub chunker: Option<Rule>,
    /// For a new one: bytes of a chunk on average [default: 16 KiB if a job keeps a database in it, else 1 MiB].
    #[serde(default)]
    pub chunk_size: Option<Size>,
    /// zstd's level, 1 to 19; 0: not compressed [default: 3].
    #[serde(default)]
    pub compression: Option<u8>,
    /// Bytes of a pack, which is one object in the bucket [default: 16 MiB].
    #[serde(default)]
    pub pack_size: Option<Size>,
    /// Packs that are on their way at once [default: 6; 2 in a folder].
    #[serde(default)]
    pub connections: Option<u8>,
    /// Threads that read, compress and encrypt [default: as many as the machine has cores].
    #[serde(default)]
    pub threads: Option<u8>,
}

fn local() -> String {
    "local".to_owned()
}

impl RepositorySettings {
    /// What only shows when the values are seen together. `key` is where the table is, such as `repository.home`.
    #[must_use]
    pub fn check(&self, key: &str, buckets: &[&str]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |name: &str, message: String, hint: &str| {
            let key = if name.is_empty() { key.to_owned() } else { format!("{key}.{name}") };
            problems.push(Problem::new(key, message).hint(hint));
        };
        if !buckets.contains(&self.bucket.as_str()) {
            let hint = suggest(&self.bucket, buckets, "the buckets are");
            problem("bucket", format!("there is no bucket `{}`", self.bucket), &hint);
        }
        match (&self.password, &self.key) {
            (None, None) => problem(
                "",
                "nothing opens this repository".to_owned(),
                "write `password = { file = \"secrets/home.key\" }`, and keep a copy of that password outside of this house",
            ),
            (Some(_), Some(_)) => problem(
                "key",
                "`password` and `key` are both given".to_owned(),
                "keep one of them: `key` opens faster, `password` is what a person can type",
            ),
            _ => {}
        }
        if self.compression.is_some_and(|level| level > 19) {
            problem("compression", "this goes from 0 to 19".to_owned(), "3 is the default, 0 does not compress");
        }
        let bounds =
            |size: Option<Size>, least: u64, most: u64| size.is_some_and(|size| !(least..=most).contains(&size.0));
        if bounds(self.chunk_size, 4 << 10, 16 << 20) {
            problem("chunk_size", "this goes from 4 KiB to 16 MiB".to_owned(), "16 KiB suits databases, 1 MiB files");
        }
        if self.chunk_size.is_some_and(|size| !size.0.is_power_of_two()) {
            problem("chunk_size", "this is a power of two".to_owned(), "such as 64 KiB, 128 KiB, 1 MiB");
        }
        if bounds(self.pack_size, 1 << 20, 512 << 20) {
            problem("pack_size", "this goes from 1 MiB to 512 MiB".to_owned(), "16 MiB is the default");
        }
        for (name, value) in [("connections", self.connections), ("threads", self.threads)] {
            if value.is_some_and(|value| !(1..=64).contains(&value)) {
                problem(name, "this goes from 1 to 64".to_owned(), "leave it out for the default");
            }
        }
        problems
    }

    /// The secrets it names.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        self.password.iter().chain(&self.key)
    }

    /// How a new repository cuts, if it will keep databases or not.
    #[must_use]
    pub fn chunking(&self, databases: bool) -> Chunking {
        let average = if databases { OF_DATABASES } else { 1 << 20 };
        Chunking {
            chunker: self.chunker.unwrap_or(Rule::FastCdc),
            average: self.chunk_size.map_or(average, |size| size.0),
        }
    }

    fn options(&self, cache: Option<PathBuf>, bucket: &dyn Bucket) -> Options {
        let mut default = Options::default();
        if bucket.local_folder().is_some() {
            default.connections = 2;
        }
        Options {
            pack_size: self.pack_size.and_then(|size| usize::try_from(size.0).ok()).unwrap_or(default.pack_size),
            level: self.compression.map_or(default.level, i32::from),
            connections: self.connections.map_or(default.connections, usize::from),
            threads: self.threads.map_or(default.threads, usize::from),
            cache: cache.map(Cache::in_folder).unwrap_or_default(),
        }
    }
}

/// A repository of the settings, opened when somebody needs it, and kept open.
#[derive(Debug)]
pub struct Shelf {
    name: String,
    settings: RepositorySettings,
    bucket: Arc<dyn Bucket>,
    secrets: SecretReader,
    cache: Option<PathBuf>,
    opened: OnceCell<Repository>,
}

impl Shelf {
    /// Not opened yet. `caches` is the folder of all repositories' caches.
    #[must_use]
    pub fn new(
        name: &str,
        settings: RepositorySettings,
        bucket: Arc<dyn Bucket>,
        secrets: SecretReader,
        caches: Option<PathBuf>,
    ) -> Self {
        let path = settings.path.clone().unwrap_or_else(|| name.to_owned());
        let cache = caches.map(|caches| caches.join(name));
        let bucket = Arc::new(Prefixed::new(bucket, &path));
        Self { name: name.to_owned(), settings, bucket, secrets, cache, opened: OnceCell::new() }
    }

    /// Its name in the settings.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    #[must_use]
    pub fn describe(&self) -> String {
        self.bucket.describe()
    }

    /// What the settings say of it.
    #[must_use]
    pub fn settings(&self) -> &RepositorySettings {
        &self.settings
    }

    /// The repository, open.
    ///
    /// # Errors
    /// When there is none, or it does not open.
    pub async fn open(&self) -> anyhow::Result<Repository> {
        let opening = async {
            let unlock = self.unlock().await?;
            let options = self.settings.options(self.cache.clone(), &*self.bucket);
            Repository::open(Arc::clone(&self.bucket), &unlock, options).await
        };
        let what = || format!("open the repository `{}`", self.name);
        self.opened.get_or_try_init(|| opening).await.cloned().with_context(what)
    }

    /// Makes it.
    ///
    /// # Errors
    /// When there is one already, or it cannot be stored.
    pub async fn create(&self, databases: bool, host: &str, clock: &Clock) -> anyhow::Result<Repository> {
        let Unlock::Password(password) = self.unlock().await? else {
            bail!("a new repository needs a `password` in rusuban.toml: its `key` is made with it")
        };
        let chunking = self.settings.chunking(databases);
        let options = self.settings.options(self.cache.clone(), &*self.bucket);
        Repository::create(Arc::clone(&self.bucket), &password, chunking, options, host, clock)
            .await
            .with_context(|| format!("make the repository `{}`", self.name))
    }

    async fn unlock(&self) -> anyhow::Result<Unlock> {
        let (secrets, source) = (self.secrets.clone(), self.settings.secrets().next().cloned());
        let source = source.context("nothing in rusuban.toml opens it")?;
        let secret = tokio::task::spawn_blocking(move || (secrets.0)(&source)).await.context("a thread died")??;
        if self.settings.password.is_some() {
            return Ok(Unlock::Password(secret.reveal().as_bytes().to_vec()));
        }
        let key = Key::from_json(secret.reveal().as_bytes()).context("the `key` is no key of a repository")?;
        Ok(Unlock::Key(Box::new(key)))
    }
}
