//! A folder as a bucket: objects are files. An object is written beside its place, brought to the disk, then renamed.
use std::{
    fs,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    ops::Range,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tokio::sync::mpsc;

use super::{Body, Bucket, BucketError, Object, Put, Result, Upload};

/// Files that are being written begin with this and are no objects.
const UNFINISHED: &str = ".rusuban-part-";
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// A folder whose files are the objects.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    /// The folder that must be there already.
    above: PathBuf,
}

impl Folder {
    /// The bucket in this folder. The folder is made when the first object is put; the folder that holds it must be there, so
    /// that a disk that is not mounted is noticed.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let above = root.parent().unwrap_or(Path::new("/")).to_owned();
        Self { root, above }
    }

    /// The same, of which all the folders below `home` may be made.
    #[must_use]
    pub fn at_home(mut self, home: &Path) -> Self {
        if self.root.starts_with(home) {
            home.clone_into(&mut self.above);
        }
        self
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

    /// Whether there is a place for the bucket. A bucket on a disk that is not mounted is not an empty one.
    fn is_mounted(&self) -> Result<()> {
        // Without these files nothing is known of mounts.
        let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
        if let Some(disk) = not_mounted(&text("/etc/fstab"), &text("/proc/self/mountinfo"), &self.root) {
            return Err(BucketError::Other(format!(
                "the disk at {} is not mounted, and {} belongs on it: mount it (`mount {}`), or remove its line in /etc/fstab",
                disk.display(),
                self.root.display(),
                disk.display()
            )));
        }
        let above = &self.above;
        if self.root.is_dir() || above.as_os_str().is_empty() || above.is_dir() {
            return Ok(());
        }
        Err(BucketError::Other(format!(
            "the folder {} is not there; is its disk mounted? Make it if it is meant to be new",
            above.display()
        )))
    }

    /// What was read at `path`; of a disk that is not mounted, that rather than that nothing was found.
    fn at<T>(&self, path: &Path, read: std::io::Result<T>) -> Result<T> {
        read.map_err(|error| match error.kind() {
            // A file where a key has a folder: nothing can be there.
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                self.is_mounted().err().unwrap_or_else(|| BucketError::NotFound(format!("{}: {error}", path.display())))
            }
            _ => explain(&error, path),
        })
    }

    /// What a prefix of keys can stand for: a folder below the root.
    fn prefix(&self, prefix: &str) -> Option<PathBuf> {
        let whole = prefix.strip_suffix('/').unwrap_or(prefix);
        if whole.is_empty() && prefix.is_empty() { Some(self.root.clone()) } else { self.path(whole).ok() }
    }

    /// Makes the folders above a file, and brings their names to the disk.
    fn make_parents(&self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) else { return Ok(()) };
        self.is_mounted()?;
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

    /// A file to be written that will become the object at `path`.
    fn begin(&self, path: &Path) -> Result<Unfinished> {
        self.is_mounted()?;
        let mut tries = 0;
        loop {
            let begun = self.make_parents(path).and_then(|()| Unfinished::beside(path, &self.root));
            match begun {
                // Somebody who removed the folder's last object removed the folder that we were about to write to.
                Err(BucketError::NotFound(_)) if tries < 100 => tries += 1,
                begun => return begun,
            }
        }
    }
}

impl Folder {
    /// Removes a file, or finds that it is not there.
    fn remove(&self, path: &Path) -> Result<()> {
        match self.at(path, fs::remove_file(path)) {
            Ok(()) => {
                // The folder may be gone too, by somebody who removed its last object.
                match path.parent().map_or(Ok(()), sync_folder) {
                    Err(BucketError::NotFound(_)) => {}
                    synced => synced?,
                }
            }
            Err(BucketError::NotFound(_)) => {}
            // A folder is no object.
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(error),
        }
        remove_empty(path, &self.root);
        Ok(())
    }
}

/// Removes folders that have become empty: they are no part of any key.
fn remove_empty(path: &Path, root: &Path) {
    let mut parent = path.parent();
    while let Some(folder) = parent.filter(|folder| *folder != root && folder.starts_with(root)) {
        if fs::remove_dir(folder).is_err() {
            return;
        }
        parent = folder.parent();
    }
}

/// The mount point above `root` that `/etc/fstab` has and the kernel has not.
fn not_mounted(fstab: &str, mounts: &str, root: &Path) -> Option<PathBuf> {
    // Spaces and the like are written as three octal digits.
    let path = |field: &str| {
        PathBuf::from(field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
    };
    let mounted: Vec<PathBuf> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(path).collect();
    fstab
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter(|place| place.starts_with('/') && *place != "/")
        .map(path)
        .find(|place| root.starts_with(place) && !mounted.contains(place))
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
    root: PathBuf,
}

impl Unfinished {
    fn beside(path: &Path, root: &Path) -> Result<Self> {
        // Several machines may write to one folder.
        let mut unique = [0; 8];
        getrandom::fill(&mut unique).map_err(|error| BucketError::Other(format!("draw a name at random: {error}")))?;
        let beside = path.with_file_name(format!("{UNFINISHED}{:016x}", u64::from_ne_bytes(unique)));
        let file = fs::File::create_new(&beside).map_err(|error| explain(&error, &beside))?;
        Ok(Self { file, path: beside, root: root.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| explain(&error, &self.path))
    }

    fn finish(self, path: &Path, put: Put) -> Result<()> {
        self.file.sync_all().map_err(|error| explain(&error, &self.path))?;
        match put {
            Put::Replace => fs::rename(&self.path, path),
            Put::IfAbsent => rename_to_nothing(&self.path, path),
        }
        .map_err(|error| explain(&error, path))?;
        path.parent().map_or(Ok(()), sync_folder)
    }
}

/// Renames unless something is there, whoever was first.
fn rename_to_nothing(from: &Path, to: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems that do not know it may know a second name for a file, which fails where there is one already.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::hard_link(from, to),
        renamed => Ok(renamed?),
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        if fs::remove_file(&self.path).is_ok() {
            remove_empty(&self.path, &self.root);
        }
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
            let mut file = bucket.begin(&path)?;
            file.write(&body)?;
            file.finish(&path, put)
        })
        .await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let (bucket, path) = (self.clone(), self.path(key)?);
        blocking(move || {
            let file = bucket.begin(&path)?;
            Ok(Box::new(FolderUpload { path, file: Some(file) }) as Box<dyn Upload>)
        })
        .await
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        let path = self.path(key)?;
        if !upload.starts_with(UNFINISHED) || upload.contains('/') {
            return Err(BucketError::Other(format!("`{upload}` is no upload of this bucket")));
        }
        let (bucket, path) = (self.clone(), path.with_file_name(upload));
        blocking(move || bucket.remove(&path)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Body> {
        let (bucket, path) = (self.clone(), self.path(key)?);
        let opened = path.clone();
        let mut file = blocking(move || {
            let mut file = bucket.at(&path, fs::File::open(&path))?;
            if !file.metadata().map_err(|error| explain(&error, &path))?.is_file() {
                return Err(BucketError::NotFound(path.display().to_string()));
            }
            if let Some(range) = &range {
                file.seek(SeekFrom::Start(range.start)).map_err(|error| explain(&error, &path))?;
            }
            Ok(file.take(range.map_or(u64::MAX, |range| range.end.saturating_sub(range.start))))
        })
        .await?;
        let (send, receive) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let read = match file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
                    Ok(0) => return,
                    Ok(_) => Ok(Bytes::from(chunk)),
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
        let (bucket, path, key) = (self.clone(), self.path(key)?, key.to_owned());
        blocking(move || {
            let metadata = bucket.at(&path, fs::metadata(&path))?;
            if metadata.is_file() { Ok(object(key, &metadata)) } else { Err(BucketError::NotFound(key)) }
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Object>>> {
        let (bucket, prefix) = (self.clone(), prefix.to_owned());
        let found = blocking(move || {
            bucket.is_mounted()?;
            let mut found = Vec::new();
            // Only the folder that the prefix names can hold matches.
            let top = prefix.rfind('/').map_or("", |end| &prefix[..=end]);
            if let Some(folder) = bucket.prefix(top) {
                walk(&folder, top, &mut |object| {
                    if object.key.starts_with(&prefix) {
                        found.push(object);
                    }
                    true
                })?;
            }
            found.sort_by(|one, other| one.key.cmp(&other.key));
            Ok(found)
        })
        .await?;
        Ok(stream::iter(found.into_iter().map(Ok)).boxed())
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let (bucket, prefix) = (self.clone(), prefix.to_owned());
        blocking(move || {
            bucket.is_mounted()?;
            let mut found = Vec::new();
            let Some(folder) = bucket.prefix(&prefix) else { return Ok(found) };
            for (name, kind) in entries(&folder)? {
                // A folder without objects is no part of any key.
                if kind.is_dir() && !walk(&folder.join(&name), "", &mut |_| false)? {
                    found.push(format!("{name}/"));
                }
            }
            found.sort();
            Ok(found)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let (bucket, path) = (self.clone(), self.path(key)?);
        blocking(move || bucket.remove(&path)).await
    }
}

fn entries(folder: &Path) -> Result<Vec<(String, fs::FileType)>> {
    let listing = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
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

/// Calls `each` for the objects below `folder`, whose keys begin with `prefix`, until it returns false; then that.
fn walk(folder: &Path, prefix: &str, each: &mut impl FnMut(Object) -> bool) -> Result<bool> {
    for (name, kind) in entries(folder)? {
        let (path, key) = (folder.join(&name), format!("{prefix}{name}"));
        if kind.is_dir() {
            if !walk(&path, &format!("{key}/"), each)? {
                return Ok(false);
            }
        } else if kind.is_file() {
            match fs::metadata(&path) {
                Ok(metadata) if !each(object(key, &metadata)) => return Ok(false),
                Ok(_) => {}
                // Deleted while we looked.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(explain(&error, &path)),
            }
        }
    }
    Ok(true)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_should_be_mounted_and_is_not_is_known_by_fstab() {
        let fstab = "# static\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n/dev/sdb1 /mnt/nas ext4 noauto 0 2\n\
                     /dev/sdc1\t/mnt/my\\040disk\text4\tdefaults\t0\t2\n";
        let without = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        let with = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 8:17 / /mnt/nas rw - ext4 /dev/sdb1 rw\n\
                    31 22 8:33 / /mnt/my\\040disk rw - ext4 /dev/sdc1 rw\n";
        for (root, missing) in [
            ("/mnt/nas/backups", Some("/mnt/nas")),
            ("/mnt/my disk", Some("/mnt/my disk")),
            ("/mnt/nasty", None),
            ("/srv", None),
        ] {
            assert_eq!(not_mounted(fstab, without, Path::new(root)), missing.map(PathBuf::from), "{root}");
            assert_eq!(not_mounted(fstab, with, Path::new(root)), None, "{root}");
        }
    }
}
