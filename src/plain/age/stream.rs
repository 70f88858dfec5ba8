//! The contents of an age file: pieces of 64 KiB, each sealed, the last one marked, so that no piece can be changed, moved or left out.
use std::io::{self, Read, Write};

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{AeadInOut, Buffer},
};

use super::{AgeError, Identity, Recipient, header, random};

const PIECE: usize = 64 << 10;
const TAG: usize = 16;

/// Encrypts what is written into it. Without [`Encryptor::finish`] the result is truncated, and known to be.
pub struct Encryptor<W> {
    inner: W,
    sealer: Sealer,
    piece: Vec<u8>,
}

/// Decrypts what is read through it. A byte is given out only after the seal of its piece was found whole.
pub struct Decryptor<R> {
    inner: R,
    sealer: Sealer,
    piece: Vec<u8>,
    given: usize,
    ended: bool,
    /// The first byte of the next piece, read to find out whether there is one.
    next: Option<u8>,
}

struct Sealer {
    cipher: ChaCha20Poly1305,
    counter: u64,
}

impl Sealer {
    fn new(file_key: &header::FileKey, nonce: &[u8; 16]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(&header::derive(nonce, file_key, b"payload").into()), counter: 0 }
    }

    /// Eleven bytes of counter and a mark on the last piece.
    fn nonce(&mut self, last: bool) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.counter.to_be_bytes());
        nonce[11] = u8::from(last);
        self.counter += 1;
        nonce
    }

    fn seal(&mut self, piece: &mut Vec<u8>, last: bool) -> io::Result<()> {
        let nonce = self.nonce(last);
        self.cipher
            .encrypt_in_place(&nonce.into(), &[], piece as &mut dyn Buffer)
            .map_err(|_| io::Error::other("a piece could not be encrypted"))
    }

    fn open(&mut self, piece: &mut Vec<u8>, last: bool) -> Result<(), AgeError> {
        let at = self.counter * PIECE as u64;
        let nonce = self.nonce(last);
        self.cipher.decrypt_in_place(&nonce.into(), &[], piece as &mut dyn Buffer).map_err(|_| AgeError::Changed(at))
    }
}

impl<W: Write> Encryptor<W> {
    /// Writes the header for `recipients` to `inner`.
    ///
    /// # Errors
    /// Those of `inner`, and an unusable recipient.
    pub fn new(mut inner: W, recipients: &[Recipient]) -> io::Result<Self> {
        let (file_key, header) = header::write(recipients)?;
        let nonce = random::<16>()?;
        inner.write_all(&header)?;
        inner.write_all(&nonce)?;
        Ok(Self { inner, sealer: Sealer::new(&file_key, &nonce), piece: Vec::with_capacity(PIECE + TAG) })
    }

    /// Seals the last piece and gives back what was written to.
    ///
    /// # Errors
    /// Those of `inner`.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush_piece(true)?;
        Ok(self.inner)
    }

    fn flush_piece(&mut self, last: bool) -> io::Result<()> {
        self.sealer.seal(&mut self.piece, last)?;
        self.inner.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full piece waits until there is more: it may be the last one.
        if self.piece.len() == PIECE && !bytes.is_empty() {
            self.flush_piece(false)?;
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Decryptor<R> {
    /// Reads the header and finds the identity that fits. `inner` should be buffered.
    ///
    /// # Errors
    /// [`AgeError`] within an [`io::Error`], and those of `inner`.
    pub fn new(mut inner: R, identities: &[Identity]) -> io::Result<Self> {
        let file_key = header::read(&mut inner, identities)?;
        let mut nonce = [0; 16];
        inner.read_exact(&mut nonce).map_err(ends)?;
        let sealer = Sealer::new(&file_key, &nonce);
        Ok(Self { inner, sealer, piece: Vec::with_capacity(PIECE + TAG), given: 0, ended: false, next: None })
    }

    /// What it read from.
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn next_piece(&mut self) -> io::Result<()> {
        self.piece.clear();
        self.given = 0;
        self.piece.extend(self.next.take());
        let wanted = PIECE + TAG + 1 - self.piece.len();
        (&mut self.inner).take(wanted as u64).read_to_end(&mut self.piece)?;
        // One byte beyond a whole piece: another follows.
        let last = self.piece.len() <= PIECE + TAG;
        if !last {
            self.next = self.piece.pop();
        }
        if self.piece.len() < TAG {
            return Err(AgeError::Truncated.into());
        }
        let first = self.sealer.counter == 0;
        if last && self.piece.len() == PIECE + TAG {
            // Whole, and nothing behind it: either the last one, or the rest is missing.
            let mut other = self.piece.clone();
            let counter = self.sealer.counter;
            if self.sealer.open(&mut self.piece, true).is_err() {
                self.sealer.counter = counter;
                let error = self.sealer.open(&mut other, false).err().unwrap_or(AgeError::Truncated);
                return Err(error.into());
            }
        } else {
            self.sealer.open(&mut self.piece, last)?;
        }
        if last && self.piece.is_empty() && !first {
            return Err(AgeError::NotAge("its last piece is empty").into());
        }
        self.ended = last;
        Ok(())
    }
}

impl<R: Read> Read for Decryptor<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.given == self.piece.len() {
            if self.ended || to.is_empty() {
                return Ok(0);
            }
            self.next_piece()?;
        }
        let count = to.len().min(self.piece.len() - self.given);
        to[..count].copy_from_slice(&self.piece[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

fn ends(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { AgeError::Truncated.into() } else { error }
}
