//! What a process in a container writes to its standard output, as the bytes of a file.
use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    ending::Ender,
    exec::{ExecError, Process},
    frames::Channel,
};

/// So much of standard error is kept: its end.
const LONGEST: usize = 64 << 10;

/// The standard output of a process. It has an end only when the process ended with exit code 0: whoever keeps what is read
/// keeps it only then.
#[derive(Debug)]
pub struct Dump {
    process: Process,
    said: Said,
    is_done: bool,
}

/// What the process said on its standard error, as far as it has come; the last 64 KiB of it.
#[derive(Clone, Debug, Default)]
pub struct Said(Arc<Mutex<VecDeque<u8>>>);

impl Dump {
    pub(super) fn new(process: Process) -> Self {
        Self { process, said: Said::default(), is_done: false }
    }

    /// What it says on standard error, to be looked at later.
    #[must_use]
    pub fn said(&self) -> Said {
        self.said.clone()
    }

    /// What ends the process, from elsewhere: the dump ends with an error then.
    #[must_use]
    pub fn ender(&self) -> Ender {
        self.process.ender()
    }

    /// The next bytes; none when that was all and the process ended with exit code 0. Dropped half way, it loses nothing.
    ///
    /// # Errors
    /// When the process ended otherwise or could not be started, and when the connection broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ExecError> {
        if self.is_done {
            return Ok(None);
        }
        while let Some(piece) = self.process.next().await? {
            match piece.channel {
                Channel::Output => return Ok(Some(piece.bytes)),
                Channel::Errors => self.said.add(&piece.bytes),
            }
        }
        let code = self.process.exit().await?;
        if code != 0 {
            return Err(ExecError::Failed { code, said: self.said.last_line() });
        }
        self.is_done = true;
        Ok(None)
    }

    /// As a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ExecError>> + Send + use<> {
        stream::try_unfold(self, |mut dump| async { Ok(dump.next().await?.map(|bytes| (bytes, dump))) })
    }

    /// As a reader. Its errors hold an [`ExecError`].
    #[must_use]
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin + use<> {
        Reader { stream: Box::pin(self.into_stream()), rest: Bytes::new() }
    }
}

impl Said {
    fn add(&self, bytes: &[u8]) {
        let mut kept = self.kept();
        kept.extend(&bytes[bytes.len().saturating_sub(LONGEST)..]);
        let too_many = kept.len().saturating_sub(LONGEST);
        kept.drain(..too_many);
    }

    /// The last line that says something.
    #[must_use]
    pub fn last_line(&self) -> Option<String> {
        let text = self.to_string();
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.kept().make_contiguous()))
    }
}

struct Reader<S> {
    stream: Pin<Box<S>>,
    rest: Bytes,
}

impl<S: Stream<Item = Result<Bytes, ExecError>>> AsyncRead for Reader<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.stream.as_mut().poll_next(cx)) {
                Some(bytes) => self.rest = bytes.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_said_the_end_is_kept() {
        let said = Said::default();
        said.add(&vec![b'x'; 2 * LONGEST]);
        for number in 0..10_000 {
            said.add(format!("line {number}\n").as_bytes());
        }
        said.add(b" \n");
        assert_eq!(said.to_string().len(), LONGEST);
        assert_eq!(said.last_line().unwrap(), "line 9999");
        assert_eq!(Said::default().last_line(), None);
    }
}
