//! A folder as a bucket: objects are files. An object is written beside its place, brought to the disk, then renamed.
use std::{
    fs,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use tokio::sync::mpsc;

use super::{Body, Bucket, BucketError, Object, Put, Result, Upload};

/// Files that are being written begin with this and are no objects.
const UNFINISHED: &str = ".rusuban-part-";
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// A folder whose files are the objects.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The bucket in this folder. The folder is made when the first object is put; the folder that holds it must be there, so
    /// that a disk that is not mounted is noticed.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        let fine = !key.is_empty()
            && !key.contains('\0')
            && key
                .split('/')
                .all(|part| !part.is_empty() && part != "." && part != ".." && !part.starts_with(UNFINISHED));
        if fine {
            Ok(self.root.join(key))
        } else {
            Err(BucketError::Other(format!("`{key}` cannot be an object's key")))
        }
    }

    /// Makes the folders above a file, and brings their names to the disk.
    fn make_parents(&self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) else { return Ok(()) };
        if parent == self.root || !self.root.is_dir() {
            let above = self.root.parent().unwrap_or(Path::new("/"));
            if !above.as_os_str().is_empty() && !above.is_dir() {
                return Err(BucketError::Other(format!(
                    "the folder {} is not there; is its disk mounted? Make it if it is meant to be new",
                    above.display()
                )));
            }
        }
        fs::create_dir_all(parent).map_err(|error| explain(&error, parent))?;
        let mut made = parent;
        while let Some(above) = made.parent() {
            sync_folder(above)?;
            if made == self.root {
                break;
            }
            made = above;
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| BucketError::Other(error.to_string()))?
}

fn explain(error: &std::io::Error, path: &Path) -> BucketError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        ErrorKind::NotFound => BucketError::NotFound(text),
        ErrorKind::AlreadyExists => BucketError::Exists(text),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => BucketError::Refused(text),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => BucketError::Full(text),
        ErrorKind::StaleNetworkFileHandle | ErrorKind::TimedOut => BucketError::Unreachable(text),
        _ => BucketError::Other(text),
    }
}

fn sync_folder(folder: &Path) -> Result<()> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| explain(&error, folder))
}

fn object(key: String, metadata: &fs::Metadata) -> Object {
    let modified = metadata.modified().map(Into::into).unwrap_or_default();
    Object { key, size: metadata.len(), modified }
}

/// A file beside its place, removed unless it is finished.
struct Unfinished {
    file: fs::File,
    path: PathBuf,
}

impl Unfinished {
    fn beside(path: &Path) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let unique = format!("{UNFINISHED}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let beside = path.with_file_name(unique);
        let file = fs::File::create(&beside).map_err(|error| explain(&error, &beside))?;
        Ok(Self { file, path: beside })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| explain(&error, &self.path))
    }

    fn finish(self, path: &Path, put: Put) -> Result<()> {
        self.file.sync_all().map_err(|error| explain(&error, &self.path))?;
        match put {
            Put::Replace => fs::rename(&self.path, path).map_err(|error| explain(&error, path))?,
            // A second name fails where one is there already, whoever was first.
            Put::IfAbsent => fs::hard_link(&self.path, path).map_err(|error| explain(&error, path))?,
        }
        path.parent().map_or(Ok(()), sync_folder)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}

#[async_trait]
impl Bucket for Folder {
    fn describe(&self) -> String {
        format!("folder {}", self.root.display())
    }

    fn local_folder(&self) -> Option<&std::path::Path> {
        Some(&self.root)
    }

    async fn put(&self, key: &str, body: Bytes, put: Put) -> Result<()> {
        let (bucket, path) = (self.clone(), self.path(key)?);
        blocking(move || {
            bucket.make_parents(&path)?;
            let mut file = Unfinished::beside(&path)?;
            file.write(&body)?;
            file.finish(&path, put)
        })
        .await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let (bucket, path) = (self.clone(), self.path(key)?);
        blocking(move || {
            bucket.make_parents(&path)?;
            let file = Unfinished::beside(&path)?;
            Ok(Box::new(FolderUpload { path, file: Some(file) }) as Box<dyn Upload>)
        })
        .await
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        let path = self.path(key)?;
        if !upload.starts_with(UNFINISHED) || upload.contains('/') {
            return Err(BucketError::Other(format!("`{upload}` is no upload of this bucket")));
        }
        let path = path.with_file_name(upload);
        blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(explain(&error, &path)),
            _ => Ok(()),
        })
        .await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        let path = self.path(key)?;
        let opened = path.clone();
        let mut file = blocking(move || {
            let mut file = fs::File::open(&path).map_err(|error| explain(&error, &path))?;
            if let Some(range) = &range {
                file.seek(SeekFrom::Start(range.start)).map_err(|error| explain(&error, &path))?;
            }
            Ok(file.take(range.map_or(u64::MAX, |range| range.end.saturating_sub(range.start))))
        })
        .await?;
        let (send, receive) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut chunk = BytesMut::zeroed(CHUNK);
                let read = match file.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(count) => {
                        chunk.truncate(count);
                        Ok(chunk.freeze())
                    }
                    Err(error) => Err(explain(&error, &opened)),
                };
                let failed = read.is_err();
                // Nobody listens any more, or there is nothing more to say.
                if send.blocking_send(read).is_err() || failed {
                    return;
                }
            }
        });
        Ok(stream::unfold(receive, |mut receive| async { receive.recv().await.map(|chunk| (chunk, receive)) }).boxed())
    }

    async fn head(&self, key: &str) -> Result<Object> {
        let (path, key) = (self.path(key)?, key.to_owned());
        blocking(move || {
            let metadata = fs::metadata(&path).map_err(|error| explain(&error, &path))?;
            if metadata.is_file() { Ok(object(key, &metadata)) } else { Err(BucketError::NotFound(key)) }
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        let found = blocking(move || {
            let mut found = Vec::new();
            // Only the folder that the prefix names can hold matches.
            let top = prefix.rfind('/').map_or("", |end| &prefix[..=end]);
            walk(&root, top, &mut found)?;
            found.retain(|object| object.key.starts_with(&prefix));
            found.sort_by(|one, other| one.key.cmp(&other.key));
            Ok(found)
        })
        .await?;
        Ok(stream::iter(found.into_iter().map(Ok)).boxed())
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let folder = self.root.join(prefix);
        blocking(move || {
            let mut found = Vec::new();
            for (name, kind) in entries(&folder)? {
                if kind.is_dir() {
                    found.push(format!("{name}/"));
                }
            }
            found.sort();
            Ok(found)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let (root, path) = (self.root.clone(), self.path(key)?);
        blocking(move || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(explain(&error, &path)),
                _ => {}
            }
            // A folder that is empty now is no part of any key.
            let mut parent = path.parent();
            while let Some(folder) = parent.filter(|folder| *folder != root && folder.starts_with(&root)) {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
                parent = folder.parent();
            }
            Ok(())
        })
        .await
    }
}

fn entries(folder: &Path) -> Result<Vec<(String, fs::FileType)>> {
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(|error| explain(&error, folder))?,
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| explain(&error, folder))?;
        // A name that is no text was not put by us.
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with(UNFINISHED)
        {
            found.push((name, entry.file_type().map_err(|error| explain(&error, folder))?));
        }
    }
    Ok(found)
}

fn walk(root: &Path, prefix: &str, found: &mut Vec<Object>) -> Result<()> {
    for (name, kind) in entries(&root.join(prefix))? {
        let key = format!("{prefix}{name}");
        if kind.is_dir() {
            walk(root, &format!("{key}/"), found)?;
        } else if kind.is_file() {
            match fs::metadata(root.join(&key)) {
                Ok(metadata) => found.push(object(key, &metadata)),
                // Deleted while we looked.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(explain(&error, &root.join(&key))),
            }
        }
    }
    Ok(())
}

struct FolderUpload {
    path: PathBuf,
    file: Option<Unfinished>,
}

impl FolderUpload {
    fn take(&mut self) -> Result<Unfinished> {
        self.file.take().ok_or_else(|| BucketError::Other("an earlier part could not be written".to_owned()))
    }
}

#[async_trait]
impl Upload for FolderUpload {
    fn id(&self) -> String {
        let name = self.file.as_ref().and_then(|file| file.path.file_name());
        name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    async fn part(&mut self, part: Bytes) -> Result<()> {
        let mut file = self.take()?;
        self.file = Some(
            blocking(move || {
                file.write(&part)?;
                Ok(file)
            })
            .await?,
        );
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        let (file, path) = (self.take()?, self.path);
        blocking(move || file.finish(&path, Put::Replace)).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        blocking(move || {
            drop(self);
            Ok(())
        })
        .await
    }
}
