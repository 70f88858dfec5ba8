//! Images on their way out of an engine: the tar of `docker save`, in parts as they come.
use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use reqwest::Method;
use tokio::sync::mpsc;

use super::client::{Engine, EngineError};
use crate::http;

/// So much is handed on at once, and so many of these wait at most.
const PIECE: usize = 256 << 10;
const WAITING: usize = 8;

/// An image that is being saved. The engine copies all of it to its own disk before the first part comes.
#[derive(Debug)]
pub struct Saved(mpsc::Receiver<io::Result<Part>>);

/// A file in the tar.
#[derive(Debug)]
pub struct Part {
    /// Its name: `manifest.json`, `…/layer.tar`, `blobs/sha256/…`.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its content, for a thread that reads. What is not read is passed over.
    pub content: Content,
}

/// Bytes that come in time; fewer than there should be are an error.
#[derive(Debug)]
pub struct Content {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
    /// How many are still to come, if that is known.
    left: Option<u64>,
}

impl Engine {
    /// Saves an image.
    ///
    /// # Errors
    /// When there is none; in what is read of the parts, when the connection breaks.
    pub async fn save(&self, image: &str) -> Result<Saved, EngineError> {
        let response = self.open(Method::GET, &format!("/images/{image}/get"), &[], None).await?;
        let (to_reader, chunks) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut stream = response.bytes_stream();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|error| io::Error::other(EngineError::Broken(http::why(error))));
                if to_reader.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        Ok(Saved::read(Content { chunks, chunk: Bytes::new(), left: None }))
    }
}

impl Saved {
    fn read(tar: impl Read + Send + 'static) -> Self {
        let (to_taker, parts) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = hand_out(tar, &to_taker) {
                // Nobody waits any more, or is told.
                let _ = to_taker.blocking_send(Err(error));
            }
        });
        Self(parts)
    }

    /// The next part; none at the end.
    ///
    /// # Errors
    /// When the tar breaks off or is none.
    pub async fn next(&mut self) -> io::Result<Option<Part>> {
        self.0.recv().await.transpose()
    }
}

fn hand_out(tar: impl Read, parts: &mpsc::Sender<io::Result<Part>>) -> io::Result<()> {
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let (name, bytes) = (entry.path()?.to_string_lossy().into_owned(), entry.size());
        let (to_reader, chunks) = mpsc::channel(WAITING);
        let content = Content { chunks, chunk: Bytes::new(), left: Some(bytes) };
        if parts.blocking_send(Ok(Part { name, bytes, content })).is_err() {
            return Ok(());
        }
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            match Read::by_ref(&mut entry).take(PIECE as u64).read_to_end(&mut piece) {
                Ok(0) => break,
                // A part that nobody reads to its end is passed over.
                Ok(_) => drop(to_reader.blocking_send(Ok(piece.into()))),
                Err(error) => {
                    let told = io::Error::new(error.kind(), error.to_string());
                    let _ = to_reader.blocking_send(Err(told));
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

impl Read for Content {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None if self.left.is_none_or(|left| left == 0) => return Ok(0),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = to.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut to[..count]);
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in [("a", vec![1; 3]), ("b/layer.tar", vec![2; 3 * PIECE + 5]), ("c", vec![])] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }

    async fn names(tar: Vec<u8>, read: bool) -> io::Result<Vec<(String, u64)>> {
        let mut saved = Saved::read(io::Cursor::new(tar));
        let mut names = Vec::new();
        while let Some(mut part) = saved.next().await? {
            if read {
                let reading = tokio::task::spawn_blocking(move || {
                    let mut all = Vec::new();
                    part.content.read_to_end(&mut all).map(|_| all)
                });
                assert_eq!(reading.await.unwrap()?.len() as u64, part.bytes);
            }
            names.push((part.name, part.bytes));
        }
        Ok(names)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn parts_come_whole_or_are_passed_over() {
        let expected = [("a", 3), ("b/layer.tar", 3 * PIECE as u64 + 5), ("c", 0)];
        let expected = expected.map(|(name, bytes)| (name.to_owned(), bytes));
        assert_eq!(names(tar(), true).await.unwrap(), expected);
        assert_eq!(names(tar(), false).await.unwrap(), expected);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tar_that_breaks_off_is_an_error() {
        for length in [600, 1600, 2 * PIECE, 3 * PIECE + 2000] {
            names(tar()[..length].to_vec(), true).await.unwrap_err();
        }
        names(vec![7; 2048], true).await.unwrap_err();
    }
}
