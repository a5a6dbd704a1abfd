//! Splits a byte stream, which arrives in arbitrary chunks, into the messages of PostgreSQL's protocol.
//!
//! Only headers are decoded. A body is skipped, or passed on as it arrives if requested. Nothing is copied except a
//! header that is split between two chunks.

use super::limits::{LARGE_MESSAGE_LENGTH, LimitExceeded, MAX_MESSAGE_LENGTH};

/// Why a stream is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProtocolError {
    /// The bytes do not follow the protocol as implemented here. Holds a description of the problem.
    Unknown(&'static str),
    /// The server sent more than it may.
    Limit(LimitExceeded),
}

#[cfg(feature = "proxy")]
impl ProtocolError {
    /// Returns a description.
    pub(crate) const fn problem(self) -> &'static str {
        match self {
            Self::Unknown(problem) => problem,
            Self::Limit(_) => "message length out of range",
        }
    }
}

/// A part of the stream found by [`FrameReader::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FramePart<'a> {
    /// The header of a message. `tag` is zero for messages without one.
    Header { tag: u8, length: u32 },
    /// The header of a message longer than [`LARGE_MESSAGE_LENGTH`].
    LargeHeader { tag: u8, length: u32 },
    /// A part of a body, if the body was requested.
    Body(&'a [u8]),
}

/// The read position in one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    /// A header that has arrived in part.
    header: [u8; 5],
    header_length: u8,
    /// The number of bytes of the body that have yet to arrive.
    body_left: u32,
    body_wanted: bool,
    /// Whether the next message has no tag, like a client's first ones.
    untagged: bool,
}

impl FrameReader {
    /// Creates a reader for the client's direction, in which the first message has no tag.
    pub(super) fn from_client() -> Self {
        Self { untagged: true, ..Self::default() }
    }

    /// Expects a tag from the next message on.
    pub(super) fn expect_tags(&mut self) {
        self.untagged = false;
    }

    /// Returns the tag of a message whose header has arrived in part; zero for a message without a tag.
    pub(super) fn partial_tag(&self) -> Option<u8> {
        (self.header_length > 0).then_some(self.header[0])
    }

    /// Returns whether the last message found has no tag.
    pub(super) fn is_untagged(&self) -> bool {
        self.untagged
    }

    /// Requests the body of the last message found.
    pub(super) fn want_body(&mut self) {
        self.body_wanted = true;
    }

    /// Skips the rest of the body.
    pub(super) fn skip_body(&mut self) {
        self.body_wanted = false;
    }

    /// Returns whether the next byte begins a message.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code, reason = "only a proxy ends sessions between messages"))]
    pub(super) fn is_between_messages(&self) -> bool {
        self.body_left == 0 && self.header_length == 0
    }

    /// Returns whether the next byte is the tag of a message.
    #[inline]
    pub(super) fn is_at_tag(&self) -> bool {
        self.body_left == 0 && self.header_length == 0 && !self.untagged
    }

    /// Returns whether the whole body of the last message has arrived.
    pub(super) fn is_body_read(&self) -> bool {
        self.body_left == 0
    }

    /// Returns the next part found in `bytes`, and advances `bytes` past what was read.
    #[inline]
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<FramePart<'a>>, ProtocolError> {
        if self.body_left > 0 {
            let here = bytes.len().min(self.body_left as usize);
            let (part, rest) = bytes.split_at(here);
            *bytes = rest;
            // At most `body_left`, which is a u32.
            self.body_left -= u32::try_from(here).unwrap_or(self.body_left);
            if self.body_wanted && here > 0 {
                return Ok(Some(FramePart::Body(part)));
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        self.body_wanted = false;
        let (tag, length) = match (self.header_length, self.untagged, *bytes) {
            (0, false, [tag, a, b, c, d, rest @ ..]) => {
                let header = (*tag, u32::from_be_bytes([*a, *b, *c, *d]));
                *bytes = rest;
                header
            }
            _ => match self.assemble_header(bytes) {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        // The length includes itself.
        if !(4..=LARGE_MESSAGE_LENGTH).contains(&length) {
            return self.unusual_length(tag, length);
        }
        self.body_left = length - 4;
        Ok(Some(FramePart::Header { tag, length }))
    }

    #[cold]
    fn unusual_length<'a>(&mut self, tag: u8, length: u32) -> Result<Option<FramePart<'a>>, ProtocolError> {
        if !(4..=MAX_MESSAGE_LENGTH).contains(&length) {
            return Err(ProtocolError::Limit(LimitExceeded::ImpossibleLength { length }));
        }
        self.body_left = length - 4;
        Ok(Some(FramePart::LargeHeader { tag, length }))
    }

    /// Assembles a header that is split between chunks or has no tag.
    #[cold]
    fn assemble_header(&mut self, bytes: &mut &[u8]) -> Option<(u8, u32)> {
        if self.untagged && self.header_length == 0 {
            self.header[0] = 0;
            self.header_length = 1;
        }
        while usize::from(self.header_length) < self.header.len() {
            let (first, rest) = bytes.split_first()?;
            self.header[usize::from(self.header_length)] = *first;
            self.header_length += 1;
            *bytes = rest;
        }
        self.header_length = 0;
        let [tag, a, b, c, d] = self.header;
        Some((tag, u32::from_be_bytes([a, b, c, d])))
    }
}

/// A message that has arrived whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct WholeMessage<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
    /// What has arrived behind it.
    pub(super) rest: &'a [u8],
}

impl<'a> WholeMessage<'a> {
    /// Returns the message at the beginning of `bytes`, unless it has arrived in part or its length is unusual. A reader
    /// that [is at a tag](FrameReader::is_at_tag) is at the next one behind it.
    #[inline]
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        Self::of_any_length(bytes).filter(|message| message.body.len() <= LARGE_MESSAGE_LENGTH as usize - 4)
    }

    /// The same whatever its length. A length below four, which is invalid, is taken for a huge one.
    #[inline(always)]
    pub(super) fn of_any_length(bytes: &'a [u8]) -> Option<Self> {
        let [tag, a, b, c, d, behind @ ..] = bytes else { return None };
        let length = u32::from_be_bytes([*a, *b, *c, *d]).wrapping_sub(4);
        let (body, rest) = behind.split_at_checked(length as usize)?;
        Some(Self { tag: *tag, body, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns every message found in `chunks`, with the bodies of `K` messages.
    fn read(frames: &mut FrameReader, chunks: &[&[u8]]) -> Result<Vec<(u8, u32, Vec<u8>)>, ProtocolError> {
        let mut found: Vec<(u8, u32, Vec<u8>)> = Vec::new();
        for mut chunk in chunks.iter().copied() {
            while let Some(next) = frames.next(&mut chunk)? {
                match next {
                    FramePart::Header { tag, length } | FramePart::LargeHeader { tag, length } => {
                        found.push((tag, length, Vec::new()));
                        frames.expect_tags();
                        if tag == b'K' {
                            frames.want_body();
                        }
                    }
                    FramePart::Body(part) => found.last_mut().unwrap().2.extend_from_slice(part),
                }
            }
            assert!(chunk.is_empty());
        }
        Ok(found)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    proptest! {
        #[test]
        fn messages_are_found_in_any_chunks(
            bodies in proptest::collection::vec((prop_oneof![Just(b'K'), Just(b'D')], proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..30),
            from_client in any::<bool>(),
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            if from_client {
                stream.extend([0, 0, 0, 9, 0, 3, 0, 0, 0]);
                expected.push((0, 9, Vec::new()));
            }
            for (tag, body) in &bodies {
                stream.extend(message(*tag, body));
                let kept = if *tag == b'K' { body.clone() } else { Vec::new() };
                expected.push((*tag, u32::try_from(body.len()).unwrap() + 4, kept));
            }
            let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            at.extend([0, stream.len()]);
            at.sort_unstable();
            let chunks: Vec<_> = at.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
            let mut frames = if from_client { FrameReader::from_client() } else { FrameReader::default() };
            prop_assert_eq!(read(&mut frames, &chunks).unwrap(), expected);
            prop_assert!(frames.is_body_read() && frames.header_length == 0);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..20)) {
            let chunks: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
            let _ = read(&mut FrameReader::from_client(), &chunks);
        }
    }

    #[test]
    fn impossible_length_is_an_error() {
        for length in [0, 3, 0x4000_0004, u32::MAX] {
            let stream = [&[b'D'][..], &length.to_be_bytes()].concat();
            assert!(read(&mut FrameReader::default(), &[&stream]).is_err(), "{length}");
        }
        let longest = [&[b'D'][..], &0x4000_0003_u32.to_be_bytes()].concat();
        assert!(read(&mut FrameReader::default(), &[&longest]).is_ok());
    }
}
