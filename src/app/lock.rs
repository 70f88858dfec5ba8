//! One process at a time starts runs on a home: two never run the same slot.
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

/// Held while this process may start runs; the operating system gives it back whatever happens to us.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of this data folder, or answers who has it. `doing` is what others are told, such as `serve`.
    ///
    /// # Errors
    /// When the lock's file cannot be made.
    pub(super) fn take(data: &Path, doing: &str) -> anyhow::Result<Result<Self, String>> {
        let path = data.join("rusuban.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0).and_then(|()| file.rewind()).with_context(|| format!("write {}", path.display()))?;
                // Only for people to read: a full disk must not keep the house from being kept.
                let _ = write!(file, "`rusuban {doing}` (process {})", std::process::id());
                Ok(Ok(Self { _file: file }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                Ok(Err(if holder.is_empty() { "another process".to_owned() } else { holder }))
            }
            Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_come_is_told_who_was_first() {
        let data = tempfile::tempdir().unwrap();
        let first = Lock::take(data.path(), "serve").unwrap().unwrap();
        let holder = Lock::take(data.path(), "run photos").unwrap().unwrap_err();
        assert_eq!(holder, format!("`rusuban serve` (process {})", std::process::id()));
        drop(first);
        Lock::take(data.path(), "run photos").unwrap().unwrap();
    }
}
