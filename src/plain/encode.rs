//! From a source's bytes to an object's, in bounded memory: hash, compress, encrypt, hash, cut. Hashing has threads of its
//! own: it takes as long as reading and would hold up the threads that compress.
use std::{
    io::{self, BufWriter, IntoInnerError, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread::JoinHandle,
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zstd::stream::raw::CParameter;

use super::{
    age::{Encryptor, Recipient},
    manifest::Fingerprint,
};
use crate::{text, tree::cancelled_error};

/// Each thread of the compressor is given pieces of so many bytes: zstd's own choice is four times as much memory for
/// no gain that could be measured.
const PIECE_PER_THREAD: u32 = 2 << 20;

/// Bytes that are gathered, hashed and compressed at a time.
const PIECE: usize = 256 << 10;

/// Bytes that are handed to the upload at a time.
const SENT: usize = 1 << 20;

/// How objects are written.
#[derive(Clone, Debug)]
pub struct Options {
    /// zstd's level, 1 to 19.
    pub level: i32,
    /// Threads that compress; 0: in the thread that reads.
    pub threads: u32,
    /// Who can read it; nobody named: not encrypted.
    pub recipients: Vec<Recipient>,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: 3, threads: 1, recipients: Vec::new() }
    }
}

/// What became of a stream.
pub(super) struct Encoded<T> {
    pub(super) plain: Fingerprint,
    pub(super) stored: Hashed,
    pub(super) made: T,
}

/// A stream's fingerprint, and its hash at the end of every [`STRETCH`] on the way: with these its stretches can be hashed
/// side by side and still be told as one.
#[derive(Clone, Debug)]
pub(super) struct Hashed {
    pub(super) whole: Fingerprint,
    pub(super) on_the_way: Vec<Sha256>,
}

/// Bytes between two of the hashes on the way.
pub(super) const STRETCH: usize = 16 << 20;

/// Lets `produce` write a source's bytes and sends the object's bytes, in pieces of [`SENT`] but the last.
pub(super) fn encode<T>(
    options: &Options,
    pieces: mpsc::Sender<Bytes>,
    cancelled: CancellationToken,
    produce: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
) -> anyhow::Result<Encoded<T>> {
    let stored = Pieces { pieces, piece: Vec::new(), hashing: Aside::new(), cancelled: cancelled.clone() };
    let sealed = if options.recipients.is_empty() {
        Sealed::Open(stored)
    } else {
        Sealed::Age(Box::new(Encryptor::new(stored, &options.recipients)?))
    };
    let mut compressed = zstd::Encoder::new(sealed, options.level)?;
    compressed.include_checksum(true)?;
    if options.threads > 0 {
        compressed.multithread(options.threads)?;
        compressed.set_parameter(CParameter::JobSize(PIECE_PER_THREAD))?;
    }
    // Headers of small files are gathered: each call of the compressor has its price.
    let mut plain = BufWriter::with_capacity(PIECE, Plain { compressed, hashing: Aside::new(), cancelled });
    let made = produce(&mut plain)?;
    let Plain { compressed, hashing, .. } = plain.into_inner().map_err(IntoInnerError::into_error)?;
    let stored = match compressed.finish()? {
        Sealed::Open(stored) => stored,
        Sealed::Age(encryptor) => encryptor.finish()?,
    };
    Ok(Encoded { plain: hashing.end()?.whole, stored: stored.finish()?, made })
}

/// Bytes counted and hashed on their way.
pub(super) struct Hashing<W> {
    pub(super) inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    pub(super) fn end(self) -> (W, Fingerprint) {
        (self.inner, Fingerprint { bytes: self.bytes, sha256: text::hexadecimal(&self.hash.finalize()) })
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.add(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: io::Read> io::Read for Hashing<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(to)?;
        self.add(&to[..count]);
        Ok(count)
    }
}

/// Hashes in a thread of its own.
struct Aside {
    pieces: SyncSender<Bytes>,
    hashing: JoinHandle<Hashed>,
}

impl Aside {
    fn new() -> Self {
        let (pieces, coming) = sync_channel::<Bytes>(4);
        // Ends when the sender is dropped, which every path does.
        let hashing = std::thread::spawn(move || {
            let (mut hashing, mut on_the_way) = (Hashing::new(()), Vec::new());
            for mut piece in coming {
                while !piece.is_empty() {
                    let stretch = STRETCH as u64;
                    let left = usize::try_from(stretch - hashing.bytes % stretch).unwrap_or(STRETCH);
                    hashing.add(&piece.split_to(left.min(piece.len())));
                    if hashing.bytes % stretch == 0 {
                        on_the_way.push(hashing.hash.clone());
                    }
                }
            }
            Hashed { whole: hashing.end().1, on_the_way }
        });
        Self { pieces, hashing }
    }

    fn add(&self, piece: Bytes) -> io::Result<()> {
        self.pieces.send(piece).map_err(|_| Self::died())
    }

    fn end(self) -> io::Result<Hashed> {
        drop(self.pieces);
        self.hashing.join().map_err(|_| Self::died())
    }

    fn died() -> io::Error {
        io::Error::other("the thread that hashes died")
    }
}

/// A source's bytes on their way to the compressor; ends soon after it was asked to.
struct Plain<W: Write> {
    compressed: zstd::Encoder<'static, W>,
    hashing: Aside,
    cancelled: CancellationToken,
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancelled.is_cancelled() {
            return Err(cancelled_error());
        }
        let count = self.compressed.write(bytes)?;
        self.hashing.add(Bytes::copy_from_slice(&bytes[..count]))?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.compressed.flush()
    }
}

enum Sealed<W: Write> {
    Open(W),
    Age(Box<Encryptor<W>>),
}

impl<W: Write> Write for Sealed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Open(inner) => inner.write(bytes),
            Self::Age(inner) => inner.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Open(inner) => inner.flush(),
            Self::Age(inner) => inner.flush(),
        }
    }
}

/// Hands the stream to the upload, which may be slower.
struct Pieces {
    pieces: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
    hashing: Aside,
    cancelled: CancellationToken,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.hashing.add(piece.clone())?;
        // The other side hangs up when it was cancelled or the bucket refused: it has the reason.
        self.pieces.blocking_send(piece).map_err(|_| {
            if self.cancelled.is_cancelled() { cancelled_error() } else { io::Error::other("the upload was given up") }
        })
    }

    fn finish(mut self) -> io::Result<Hashed> {
        if !self.piece.is_empty() {
            self.send()?;
        }
        self.hashing.end()
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Grows as it fills: a small source takes little memory.
        let count = bytes.len().min(SENT - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == SENT {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
