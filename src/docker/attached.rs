//! A connection to the outputs of a process, and to its input.
use bytes::{Bytes, BytesMut};
use reqwest::Upgraded;
use tokio::io::{AsyncReadExt as _, ReadHalf, WriteHalf};

use super::frames::{Broken, Decoder, Piece};

/// So much is read at once.
const ROOM: usize = 64 << 10;

/// The input of a process. Shut down, the process reads its end; what it prints is heard all the same.
pub type Input = WriteHalf<Upgraded>;

/// What a process prints, while it is connected.
#[derive(Debug)]
pub(super) struct Attached {
    connection: ReadHalf<Upgraded>,
    /// Kept though nobody writes: closed, some engines take it that nobody listens.
    input: Option<Input>,
    decoder: Decoder,
    read: Bytes,
    room: BytesMut,
    is_over: bool,
}

/// Why nothing more is heard.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the connection to Docker broke: {0}")]
    Connection(std::io::Error),
    #[error("the output that Docker sent is damaged: {0}")]
    Damaged(#[from] Broken),
}

impl Attached {
    pub(super) fn new(connection: Upgraded) -> Self {
        let (connection, input) = tokio::io::split(connection);
        let (decoder, read, room) = (Decoder::default(), Bytes::new(), BytesMut::new());
        Self { connection, input: Some(input), decoder, read, room, is_over: false }
    }

    pub(super) fn take_input(&mut self) -> Option<Input> {
        self.input.take()
    }

    /// The next piece; none at the end. Dropped half way, it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, Lost> {
        loop {
            if let Some(piece) = self.decoder.take(&mut self.read)? {
                return Ok(Some(piece));
            }
            if self.is_over {
                return Ok(None);
            }
            if self.room.capacity() < ROOM / 8 {
                self.room.reserve(ROOM);
            }
            if self.connection.read_buf(&mut self.room).await.map_err(Lost::Connection)? == 0 {
                self.is_over = true;
                self.decoder.finish()?;
            }
            self.read = self.room.split().freeze();
        }
    }
}
