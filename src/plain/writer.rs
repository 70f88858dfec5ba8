//! Writing a backup: each source's stream becomes an object, all are read back, and the manifest is put last.
//! Whatever goes wrong on the way, what was put is removed again and there is no manifest.
use std::{collections::BTreeMap, fs::File, io::Read, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    decode::{Reading, compare, compare_stretches, hand_on, small},
    encode::{Encoded, Hashed, Options, encode},
    manifest::{FORMAT, FileFacts, Fingerprint, Manifest, Source, SourceKind, folder, id_of, is_plain_name},
};
use crate::{
    bucket::{Bucket, BucketError, Put, Upload},
    clock::Clock,
    model::{DebtId, JobName},
    tree::{Listener, Notes, Tree, TreeReport},
};

/// Cleaning up after an error takes no longer than this; what is left is found later as a leftover.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pieces that are ready while a part is sent.
const AHEAD: usize = 4;

/// Bytes of what was spooled that are handed over at a time.
const SENT: usize = 1 << 20;

/// The manifest is tried so often: a conditional put is not tried again by the bucket itself.
const MANIFEST_TRIES: u32 = 3;

/// Whoever wants the backup: hears of it, and writes down what would have to be undone.
#[async_trait]
pub trait Watcher: Listener {
    /// An upload begins, and nothing of it was sent yet: if we die, it must be ended.
    async fn upload_begun(&self, key: &str, upload: &str) -> anyhow::Result<DebtId>;
    /// It is whole, or was taken back.
    async fn upload_ended(&self, debt: DebtId) -> anyhow::Result<()>;
}

/// A backup being written. End it with [`Writer::finish`] or [`Writer::abandon`].
pub struct Writer {
    bucket: Arc<dyn Bucket>,
    job: JobName,
    id: String,
    at: DateTime<Utc>,
    options: Options,
    spool: std::path::PathBuf,
    watcher: Arc<dyn Watcher>,
    cancelled: CancellationToken,
    sources: Vec<Source>,
    /// Objects that have been stored and not been read back.
    unread: Vec<(String, Hashed)>,
    warnings: Vec<String>,
    /// Keys that may hold something of ours.
    put: Vec<String>,
}

/// What a writer needs to know.
#[derive(Clone)]
pub struct Setting {
    /// Where to.
    pub bucket: Arc<dyn Bucket>,
    /// Whose backup.
    pub job: JobName,
    /// When it is begun: its name.
    pub at: DateTime<Utc>,
    /// How objects are written.
    pub options: Options,
    /// A folder for temporary copies of databases; the caller removes it.
    pub spool: std::path::PathBuf,
    /// Who hears of it.
    pub watcher: Arc<dyn Watcher>,
    /// Asked to stop.
    pub cancelled: CancellationToken,
}

/// A tree that was read and is not stored yet.
pub struct Spooled {
    name: String,
    path: Option<String>,
    key: String,
    encoded: Encoded<TreeReport>,
    file: File,
}

impl Spooled {
    /// What was read.
    #[must_use]
    pub fn report(&self) -> &TreeReport {
        &self.encoded.made
    }
}

/// Facts of a source that is a single stream.
#[derive(Clone, Debug)]
pub struct Single {
    /// What it is.
    pub kind: SourceKind,
    /// Where it was read.
    pub path: Option<String>,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// Owner, mode and time.
    pub file: Option<FileFacts>,
    /// Its size, if known.
    pub bytes: Option<u64>,
}

impl Writer {
    /// Begins a backup; nothing is stored yet.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn begin(setting: Setting) -> anyhow::Result<Self> {
        let Setting { bucket, job, at, options, spool, watcher, cancelled } = setting;
        let first = id_of(at);
        let mut id = first.clone();
        // A second backup within one second, or a clock that was set back: nothing is ever written over.
        for number in 2.. {
            let taken = futures_util::StreamExt::next(&mut bucket.list(&folder(&job, &id)).await?).await;
            match taken.transpose()? {
                None => break,
                Some(_) => id = format!("{first}-{number}"),
            }
        }
        let (sources, unread, warnings, put) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { bucket, job, id, at, options, spool, watcher, cancelled, sources, unread, warnings, put })
    }

    /// Copies a backup from another bucket, as it is: its objects are compared with its manifest on their way and where
    /// they arrive, and the manifest is put last. Objects that are there, from a copy that was cut off, are not sent again.
    ///
    /// # Errors
    /// When something cannot be read or stored, or is not what the manifest says. Objects that arrived stay for the next
    /// try; there is no manifest.
    pub async fn copy(from: &Arc<dyn Bucket>, manifest: &Manifest, setting: Setting) -> anyhow::Result<()> {
        let Setting { bucket, job, at, options, spool, watcher, cancelled } = setting;
        let (id, sources, unread) = (manifest.id.clone(), Vec::new(), Vec::new());
        let (warnings, put) = (Vec::new(), Vec::new());
        let mut writer =
            Self { bucket, job, id, at, options, spool, watcher, cancelled, sources, unread, warnings, put };
        let reading = Reading { cancelled: writer.cancelled.clone(), ..Reading::default() };
        for source in &manifest.sources {
            let (key, wanted) = (&source.key, &source.stored);
            let there = writer.bucket.head(key).await.is_ok_and(|found| found.size == wanted.bytes);
            if !there || compare(&writer.bucket, key, wanted, &reading).await.is_err() {
                let (from, source, fetching) = (Arc::clone(from), source.clone(), reading.clone());
                let watcher = Arc::clone(&writer.watcher);
                let fetch = move |sender: mpsc::Sender<Bytes>| {
                    let (total, mut done) = (source.stored.bytes, 0);
                    let each = move |piece: Bytes| {
                        done += piece.len() as u64;
                        watcher.progress(done, Some(total));
                        sender.blocking_send(piece).is_ok()
                    };
                    tokio::spawn(async move { hand_on(&from, &source.key, &source.stored, &fetching, each).await })
                };
                writer.put_pieces(key.clone(), fetch).await?;
                compare(&writer.bucket, key, wanted, &reading).await.context("read back what was stored")?;
            }
        }
        writer.put_manifest(manifest).await
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Stores files and folders as one tar archive.
    ///
    /// # Errors
    /// When something cannot be read or stored. Call [`Writer::abandon`] then.
    pub async fn tree(&mut self, name: &str, tree: Tree) -> anyhow::Result<TreeReport> {
        let (spool, cancelled) = (self.spool.clone(), self.cancelled.clone());
        let notes = Notes::new(Arc::clone(&self.watcher) as Arc<dyn Listener>);
        let path = tree.origin().map(|path| path.to_string_lossy().into_owned());
        let key = self.key(name, "tar.zst")?;
        let encoded =
            self.store(key.clone(), move |to| super::tar::write(&tree, to, &spool, &notes, &cancelled)).await?;
        Ok(self.add_tree(name, path, key, encoded))
    }

    /// The same in two steps. First all of it is read, and kept in a file in the spool, compressed and encrypted: however slow the
    /// bucket is, nobody waits for it.
    ///
    /// # Errors
    /// When something cannot be read, or there is no room for it. Call [`Writer::abandon`] then.
    pub async fn spool(&mut self, name: &str, tree: Tree) -> anyhow::Result<Spooled> {
        let (spool, cancelled) = (self.spool.clone(), self.cancelled.clone());
        let notes = Notes::new(Arc::clone(&self.watcher) as Arc<dyn Listener>);
        let path = tree.origin().map(|path| path.to_string_lossy().into_owned());
        let key = self.key(name, "tar.zst")?;
        let (sender, mut pieces) = mpsc::channel::<Bytes>(AHEAD);
        let (options, token) = (self.options.clone(), self.cancelled.clone());
        let keep = spool.clone();
        let encoding = tokio::task::spawn_blocking(move || {
            encode(&options, sender, token, |to| super::tar::write(&tree, to, &spool, &notes, &cancelled))
        });
        let keeping = tokio::task::spawn_blocking(move || {
            use std::io::{Seek as _, Write as _};
            // It lives on until it is closed, and is gone whatever happens to us.
            let mut file = nameless_file(&keep)?;
            while let Some(piece) = pieces.blocking_recv() {
                file.write_all(&piece)?;
            }
            file.rewind()?;
            Ok(file)
        });
        let (encoded, kept) = tokio::join!(encoding, keeping);
        let kept: std::io::Result<File> = kept.context("the thread that writes died")?;
        let file = kept.with_context(|| format!("keep {name} in {} until it is sent", self.spool.display()))?;
        let encoded = encoded.context("the thread that reads died")??;
        Ok(Spooled { name: name.to_owned(), path, key, encoded, file })
    }

    /// Then it is stored.
    ///
    /// # Errors
    /// When it cannot be stored. Call [`Writer::abandon`] then.
    pub async fn put_spooled(&mut self, spooled: Spooled) -> anyhow::Result<TreeReport> {
        let Spooled { name, path, key, encoded, mut file } = spooled;
        let (watcher, total) = (Arc::clone(&self.watcher), encoded.stored.whole.bytes);
        let reading = move |sender: mpsc::Sender<Bytes>| {
            tokio::task::spawn_blocking(move || {
                let mut done = 0;
                loop {
                    let mut piece = Vec::with_capacity(SENT);
                    let count = file.by_ref().take(SENT as u64).read_to_end(&mut piece).context("read it again")?;
                    // Nobody takes pieces any more after an error, which is told by whoever had it.
                    if count == 0 || sender.blocking_send(piece.into()).is_err() {
                        return anyhow::Ok(());
                    }
                    done += count as u64;
                    watcher.progress(done, Some(total));
                }
            })
        };
        self.put_pieces(key.clone(), reading).await?;
        self.unread.push((key.clone(), encoded.stored.clone()));
        Ok(self.add_tree(&name, path, key, encoded))
    }

    fn add_tree(&mut self, name: &str, path: Option<String>, key: String, encoded: Encoded<TreeReport>) -> TreeReport {
        let Encoded { plain, stored, made: report } = encoded;
        self.warnings.extend(report.warnings.iter().map(|warning| format!("{name}: {warning}")));
        let (entries, rows) = (report.entries, report.rows.clone());
        self.add(Source {
            name: name.to_owned(),
            kind: SourceKind::Tree,
            path,
            key,
            encrypted: self.encrypts(),
            stored: stored.whole,
            plain,
            entries,
            rows,
            file: None,
        });
        report
    }

    /// Stores one stream as it is.
    ///
    /// # Errors
    /// When it cannot be read or stored. Call [`Writer::abandon`] then.
    pub async fn stream(
        &mut self,
        name: &str,
        facts: Single,
        mut from: impl Read + Send + 'static,
    ) -> anyhow::Result<()> {
        let key = self.key(name, "zst")?;
        let (watcher, total) = (Arc::clone(&self.watcher), facts.bytes);
        let Encoded { plain, stored, .. } = self
            .store(key.clone(), move |to| {
                let mut buffer = vec![0; 256 << 10];
                let mut done = 0;
                loop {
                    let count = match from.read(&mut buffer) {
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                        count => count.context("read")?,
                    };
                    if count == 0 {
                        return Ok(());
                    }
                    to.write_all(&buffer[..count])?;
                    done += count as u64;
                    watcher.progress(done, total);
                }
            })
            .await?;
        let Single { kind, path, rows, file, .. } = facts;
        let (encrypted, stored) = (self.encrypts(), stored.whole);
        self.add(Source { name: name.to_owned(), kind, path, key, encrypted, stored, plain, entries: 1, rows, file });
        Ok(())
    }

    /// Stores one file as it is.
    ///
    /// # Errors
    /// When it cannot be read or stored. Call [`Writer::abandon`] then.
    pub async fn file(&mut self, name: &str, facts: Single, path: &Path) -> anyhow::Result<()> {
        let open = || format!("open {}", path.display());
        let file = File::open(path).with_context(open)?;
        let bytes = Some(file.metadata().with_context(open)?.len());
        self.stream(name, Single { bytes, ..facts }, file).await
    }

    /// Reads everything back, then puts the manifest: from here on there is a backup. On an error there is none, and
    /// what was put has been removed.
    ///
    /// # Errors
    /// When what is stored is not what was sent, or the manifest cannot be put.
    pub async fn finish(mut self, host: String, clock: &Clock) -> anyhow::Result<Manifest> {
        match self.read_back_and_put_manifest(host, clock).await {
            Ok(manifest) => Ok(manifest),
            Err(error) => {
                self.abandon().await;
                Err(error)
            }
        }
    }

    /// Removes what was put. What cannot be removed is told and found later as a leftover.
    pub async fn abandon(self) {
        let manifest = super::manifest::manifest_key(&self.job, &self.id);
        let removing = async {
            // A manifest without its data must never be, not even for a moment.
            if self.put.contains(&manifest) {
                self.bucket.delete(&manifest).await.with_context(|| format!("remove {manifest}"))?;
            }
            for key in self.put.iter().filter(|key| **key != manifest) {
                self.bucket.delete(key).await.with_context(|| format!("remove {key}"))?;
            }
            anyhow::Ok(())
        };
        let removed = tokio::time::timeout(PATIENCE, removing).await;
        let trouble = match removed {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer within a minute".to_owned(),
        };
        self.watcher.warn(&format!(
            "what was stored of this backup before it failed could not be removed ({trouble}); a later run will find it"
        ));
    }

    async fn read_back_and_put_manifest(&mut self, host: String, clock: &Clock) -> anyhow::Result<Manifest> {
        ensure!(!self.sources.is_empty(), "there is nothing in this backup");
        let reading = Reading { cancelled: self.cancelled.clone(), ..Reading::default() };
        for (key, wanted) in std::mem::take(&mut self.unread) {
            compare_stretches(&self.bucket, &key, &wanted, &reading).await.context("read back what was stored")?;
        }
        let manifest = Manifest {
            format: FORMAT,
            job: self.job.clone(),
            id: self.id.clone(),
            at: self.at,
            finished: clock.now(),
            host,
            rusuban: env!("CARGO_PKG_VERSION").to_owned(),
            recipients: self.options.recipients.iter().map(ToString::to_string).collect(),
            sources: std::mem::take(&mut self.sources),
            warnings: std::mem::take(&mut self.warnings),
        };
        self.put_manifest(&manifest).await?;
        Ok(manifest)
    }

    async fn put_manifest(&mut self, manifest: &Manifest) -> anyhow::Result<()> {
        let key = manifest.key();
        let json = serde_json::to_vec_pretty(manifest).context("write the manifest")?;
        // Asked to stop until here: no backup. From here on it is quicker to end it well.
        ensure!(!self.cancelled.is_cancelled(), "cancelled");
        self.put.push(key.clone());
        let mut tried = 1;
        let found = loop {
            let put = self.bucket.put(&key, Bytes::from(json.clone()), Put::IfAbsent).await;
            // What is there tells whether a put whose answer was lost has been done.
            let found = small(&self.bucket, &key).await;
            match (put, found) {
                (Ok(()) | Err(BucketError::Exists(_)), found) => {
                    break found.with_context(|| format!("read back {key}"))?;
                }
                (Err(_), Ok(found)) => break found,
                (Err(error), Err(_)) if error.worth_retrying() && tried < MANIFEST_TRIES => tried += 1,
                (Err(error), Err(_)) => return Err(error).with_context(|| format!("put {key}")),
            }
        };
        if found != json {
            // Somebody else's: its data is not ours to remove either.
            self.put.clear();
            bail!("{key} is not what was stored: does another host use this bucket with a job of the same name?");
        }
        Ok(())
    }

    fn encrypts(&self) -> bool {
        !self.options.recipients.is_empty()
    }

    fn key(&self, name: &str, ending: &str) -> anyhow::Result<String> {
        ensure!(is_plain_name(name), "`{name}` cannot be a source's name: it becomes a file's name");
        let sealed = if self.encrypts() { ".age" } else { "" };
        let key = format!("{}{name}.{ending}{sealed}", folder(&self.job, &self.id));
        ensure!(!self.put.contains(&key), "two sources of this backup would both be stored as {key}: name one of them");
        Ok(key)
    }

    fn add(&mut self, source: Source) {
        self.sources.push(source);
    }

    /// Sends what `produce` writes, compressed and encrypted, as the object `key`.
    async fn store<T: Send + 'static>(
        &mut self,
        key: String,
        produce: impl FnOnce(&mut dyn std::io::Write) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<Encoded<T>> {
        let (options, token) = (self.options.clone(), self.cancelled.clone());
        let encoding = |sender| tokio::task::spawn_blocking(move || encode(&options, sender, token, produce));
        let encoded = self.put_pieces(key.clone(), encoding).await?;
        self.unread.push((key, encoded.stored.clone()));
        Ok(encoded)
    }

    /// Sends the pieces that a task makes as the object `key`.
    async fn put_pieces<T>(
        &mut self,
        key: String,
        produce: impl FnOnce(mpsc::Sender<Bytes>) -> JoinHandle<anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        ensure!(!self.cancelled.is_cancelled(), "cancelled");
        let mut upload = self.bucket.upload(&key).await.with_context(|| format!("begin to store {key}"))?;
        self.put.push(key.clone());
        let debt = match self.watcher.upload_begun(&key, &upload.id()).await {
            Ok(debt) => debt,
            Err(error) => {
                self.take_back(upload, &key, None).await;
                return Err(error.context(format!("write down the upload of {key}")));
            }
        };
        let (sender, pieces) = mpsc::channel(AHEAD);
        let producing = produce(sender);
        let sent = self.send(&mut *upload, pieces).await.with_context(|| format!("store {key}"));
        // Its thread is never left behind: it ends at its next write, because nobody takes parts any more.
        let made = producing.await.context("the thread that reads died").and_then(|made| made);
        let made = match (sent, made) {
            (Ok(()), Ok(made)) => made,
            (Err(error), _) | (Ok(()), Err(error)) => {
                self.take_back(upload, &key, Some(debt)).await;
                return Err(error);
            }
        };
        let finished = tokio::select! {
            finished = upload.finish() => finished.with_context(|| format!("end the upload of {key}")),
            () = self.cancelled.cancelled() => Err(anyhow::anyhow!("cancelled")),
        };
        // After an error the debt stays: whether the server still keeps parts is not known.
        finished?;
        self.watcher.upload_ended(debt).await.context("write down the end of an upload")?;
        Ok(made)
    }

    async fn send(&self, upload: &mut dyn Upload, mut pieces: mpsc::Receiver<Bytes>) -> anyhow::Result<()> {
        let sending = async {
            while let Some(piece) = pieces.recv().await {
                upload.part(piece).await?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            sent = sending => sent,
            () = self.cancelled.cancelled() => bail!("cancelled"),
        }
    }

    async fn take_back(&self, upload: Box<dyn Upload>, key: &str, debt: Option<DebtId>) {
        let aborted = tokio::time::timeout(PATIENCE, upload.abort()).await;
        match (aborted, debt) {
            (Ok(Ok(())), Some(debt)) => {
                if let Err(error) = self.watcher.upload_ended(debt).await {
                    self.watcher.warn(&format!("write down the end of the upload of {key}: {error:#}"));
                }
            }
            (Ok(Ok(())), None) => {}
            // The debt stays and is paid later.
            (Ok(Err(error)), _) => self.watcher.warn(&format!("take back the upload of {key}: {error}")),
            (Err(_), _) => self.watcher.warn(&format!("take back the upload of {key}: no answer within a minute")),
        }
    }
}

/// A file in this folder that has no name any more.
fn nameless_file(folder: &Path) -> std::io::Result<File> {
    let path = folder.join("spooled");
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({}/{})", self.job, self.id)
    }
}

/// What a stored fingerprint is compared with in tests and reports.
impl Fingerprint {
    /// Of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hashing = super::encode::Hashing::new(std::io::sink());
        // A sink takes everything.
        let _ = std::io::Write::write_all(&mut hashing, bytes);
        hashing.end().1
    }
}
