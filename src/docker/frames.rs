//! What a process prints, as the engine sends it: pieces behind a head of eight bytes that says which of the two outputs
//! a piece is of, and how long it is.
use bytes::Bytes;

/// Where a process wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

/// Some bytes that a process wrote, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it wrote them.
    pub channel: Channel,
    /// Never none.
    pub bytes: Bytes,
}

/// What came is no such stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("a piece of it begins with {0:02x?}, which is of no known kind")]
    Unknown([u8; 4]),
    #[error("it ended in the middle of a piece, {0} bytes short")]
    Short(usize),
}

/// Reads the heads. It holds no bytes but those of a head, however long a piece says it is.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    head: Vec<u8>,
    /// The piece that is being handed out, and what is left of it.
    piece: Option<(Channel, usize)>,
}

const HEAD: usize = 8;

impl Decoder {
    /// Takes the next piece, or the part of it that is there, from what was read; none when more must be read first.
    pub(super) fn take(&mut self, read: &mut Bytes) -> Result<Option<Piece>, Broken> {
        while !read.is_empty() {
            let Some((channel, left)) = self.piece else {
                self.head.extend_from_slice(&read.split_to(read.len().min(HEAD - self.head.len())));
                if let [kind, x, y, z, length @ ..] = &self.head[..]
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    let channel = match [*kind, *x, *y, *z] {
                        [1, 0, 0, 0] => Channel::Output,
                        [2, 0, 0, 0] => Channel::Errors,
                        other => return Err(Broken::Unknown(other)),
                    };
                    self.piece = Some((channel, u32::from_be_bytes(length) as usize)).filter(|(_, left)| *left > 0);
                    self.head.clear();
                }
                continue;
            };
            let bytes = read.split_to(read.len().min(left));
            self.piece = Some((channel, left - bytes.len())).filter(|(_, left)| *left > 0);
            return Ok(Some(Piece { channel, bytes }));
        }
        Ok(None)
    }

    /// Nothing more comes.
    pub(super) fn finish(&self) -> Result<(), Broken> {
        match self.piece {
            Some((_, left)) => Err(Broken::Short(left)),
            None if self.head.is_empty() => Ok(()),
            None => Err(Broken::Short(HEAD - self.head.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(channel: Channel, bytes: &[u8]) -> Vec<u8> {
        let kind = if channel == Channel::Output { 1 } else { 2 };
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[kind, 0, 0, 0][..], &length, bytes].concat()
    }

    /// What came of a stream that was read in these lengths, neighbours of one channel joined.
    fn decoded(stream: &[u8], lengths: &[usize]) -> Result<Vec<(Channel, Vec<u8>)>, Broken> {
        let (mut decoder, mut rest) = (Decoder::default(), Bytes::copy_from_slice(stream));
        let mut all: Vec<(Channel, Vec<u8>)> = Vec::new();
        let mut lengths = lengths.iter().cycle();
        while !rest.is_empty() {
            let mut read = rest.split_to(rest.len().min(*lengths.next().unwrap()));
            while let Some(piece) = decoder.take(&mut read)? {
                assert!(!piece.bytes.is_empty());
                match all.last_mut() {
                    Some((channel, bytes)) if *channel == piece.channel => bytes.extend_from_slice(&piece.bytes),
                    _ => all.push((piece.channel, piece.bytes.to_vec())),
                }
            }
            assert!(read.is_empty());
        }
        decoder.finish()?;
        Ok(all)
    }

    fn any_frames() -> impl Strategy<Value = Vec<(Channel, Vec<u8>)>> {
        let channel = prop_oneof![Just(Channel::Output), Just(Channel::Errors)];
        prop::collection::vec((channel, prop::collection::vec(any::<u8>(), 0..40)), 0..12)
    }

    proptest! {
        #[test]
        fn however_it_is_read_the_pieces_are_the_same(
            frames in any_frames(),
            lengths in prop::collection::vec(1..50usize, 1..8),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|(channel, bytes)| frame(*channel, bytes)).collect();
            let all = decoded(&stream, &lengths).unwrap();
            prop_assert_eq!(&all, &decoded(&stream, &[usize::MAX]).unwrap());
            for channel in [Channel::Output, Channel::Errors] {
                let of = |all: &[(Channel, Vec<u8>)]| -> Vec<u8> {
                    all.iter().filter(|(one, _)| *one == channel).flat_map(|(_, bytes)| bytes.clone()).collect()
                };
                prop_assert_eq!(of(&all), of(&frames));
            }
        }

        #[test]
        fn a_stream_that_ends_too_early_is_an_error(
            frames in any_frames(),
            lengths in prop::collection::vec(1..50usize, 1..8),
            at in any::<prop::sample::Index>(),
        ) {
            let mut whole = vec![0];
            let mut stream = Vec::new();
            for (channel, bytes) in &frames {
                stream.extend(frame(*channel, bytes));
                whole.push(stream.len());
            }
            let end = at.index(stream.len() + 1);
            prop_assert_eq!(decoded(&stream[..end], &lengths).is_ok(), whole.contains(&end));
        }

        #[test]
        fn no_bytes_make_it_panic(stream in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&stream, &[7]);
        }
    }

    #[test]
    fn a_kind_that_nobody_knows_is_an_error_and_no_output() {
        for first in [[0, 0, 0, 0], [3, 0, 0, 0], [1, 0, 0, 1], *b"OCI "] {
            let stream = [&frame(Channel::Output, b"fine")[..], &first, &[0, 0, 0, 1], b"x"].concat();
            assert_eq!(decoded(&stream, &[5]), Err(Broken::Unknown(first)));
        }
    }

    #[test]
    fn a_piece_that_says_it_is_huge_takes_no_memory() {
        let mut decoder = Decoder::default();
        let mut read = Bytes::from([&[1, 0, 0, 0, 255, 255, 255, 255][..], b"few"].concat());
        assert_eq!(&decoder.take(&mut read).unwrap().unwrap().bytes[..], b"few");
        assert_eq!(decoder.take(&mut read), Ok(None));
        assert_eq!(decoder.finish(), Err(Broken::Short(u32::MAX as usize - 3)));
        assert!(decoder.head.capacity() < 100);
    }
}
