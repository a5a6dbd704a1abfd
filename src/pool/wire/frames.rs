//! Messages of PostgreSQL's protocol, found in a stream that comes in any pieces.
//!
//! Only headers are looked at; a body is skipped, or handed on as it comes if somebody wants it. Nothing is copied
//! but a header that was cut in two.

/// The longest message there is: a body as large as the largest block of memory that the server takes, and the length.
const LONGEST: u32 = 0x3fff_ffff + 4;

/// What was read is no protocol that is known here, or was cut in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfStep(pub(crate) &'static str);

/// What [`Frames::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A message begins. `tag` is zero for the messages that have none.
    Head { tag: u8, length: u32 },
    /// A part of a body that was asked for.
    Part(&'a [u8]),
}

/// The state of one direction of a stream.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// A header that has not come whole.
    head: [u8; 5],
    have: u8,
    /// How much of the body is still to come.
    left: u32,
    wanted: bool,
    /// Whether the next message has no tag, as a client's first ones.
    untagged: bool,
}

impl Frames {
    /// The client's direction: its first message has no tag.
    pub(super) fn from_client() -> Self {
        Self { untagged: true, ..Self::default() }
    }

    /// Says that the next message has a tag again.
    pub(super) fn expect_tags(&mut self) {
        self.untagged = false;
    }

    /// The tag of a message whose header was cut: what is known of it. Zero for those that have none.
    pub(super) fn begun(&self) -> Option<u8> {
        (self.have > 0).then_some(self.head[0])
    }

    /// Whether the message that was just found has no tag.
    pub(super) fn is_untagged(&self) -> bool {
        self.untagged
    }

    /// Asks for the body of the message that was just found.
    pub(super) fn want_body(&mut self) {
        self.wanted = true;
    }

    /// Says that the rest of the body is of no interest.
    pub(super) fn ignore_body(&mut self) {
        self.wanted = false;
    }

    /// Whether the body of the last message has come whole.
    pub(super) fn is_body_read(&self) -> bool {
        self.left == 0
    }

    /// The next thing of interest in `bytes`, which is shortened by what was read.
    #[inline]
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, OutOfStep> {
        if self.left > 0 {
            let here = bytes.len().min(self.left as usize);
            let (part, rest) = bytes.split_at(here);
            *bytes = rest;
            // Not more than `left`, which is a u32.
            self.left -= u32::try_from(here).unwrap_or(self.left);
            if self.wanted && here > 0 {
                return Ok(Some(Piece::Part(part)));
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        self.wanted = false;
        let (tag, length) = match (self.have, self.untagged, *bytes) {
            (0, false, [tag, a, b, c, d, rest @ ..]) => {
                let head = (*tag, u32::from_be_bytes([*a, *b, *c, *d]));
                *bytes = rest;
                head
            }
            _ => match self.collect(bytes) {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        // The length counts itself.
        if !(4..=LONGEST).contains(&length) {
            return Err(OutOfStep("a message of impossible length"));
        }
        self.left = length - 4;
        Ok(Some(Piece::Head { tag, length }))
    }

    /// Puts a header together that came in pieces, or that has no tag.
    #[cold]
    fn collect(&mut self, bytes: &mut &[u8]) -> Option<(u8, u32)> {
        if self.untagged && self.have == 0 {
            self.head[0] = 0;
            self.have = 1;
        }
        while usize::from(self.have) < self.head.len() {
            let (first, rest) = bytes.split_first()?;
            self.head[usize::from(self.have)] = *first;
            self.have += 1;
            *bytes = rest;
        }
        self.have = 0;
        let [tag, a, b, c, d] = self.head;
        Some((tag, u32::from_be_bytes([a, b, c, d])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every message found, with its body put together if it is a `K` one.
    fn read(frames: &mut Frames, pieces: &[&[u8]]) -> Result<Vec<(u8, u32, Vec<u8>)>, OutOfStep> {
        let mut found: Vec<(u8, u32, Vec<u8>)> = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(next) = frames.next(&mut piece)? {
                match next {
                    Piece::Head { tag, length } => {
                        found.push((tag, length, Vec::new()));
                        frames.expect_tags();
                        if tag == b'K' {
                            frames.want_body();
                        }
                    }
                    Piece::Part(part) => found.last_mut().unwrap().2.extend_from_slice(part),
                }
            }
            assert!(piece.is_empty());
        }
        Ok(found)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    proptest! {
        #[test]
        fn messages_are_found_however_the_stream_is_cut(
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
            let pieces: Vec<_> = at.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
            let mut frames = if from_client { Frames::from_client() } else { Frames::default() };
            prop_assert_eq!(read(&mut frames, &pieces).unwrap(), expected);
            prop_assert!(frames.is_body_read() && frames.have == 0);
        }

        #[test]
        fn no_bytes_make_it_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..20)) {
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            let _ = read(&mut Frames::from_client(), &pieces);
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_noticed() {
        for length in [0, 3, 0x4000_0004, u32::MAX] {
            let stream = [&[b'D'][..], &length.to_be_bytes()].concat();
            assert!(read(&mut Frames::default(), &[&stream]).is_err(), "{length}");
        }
        let longest = [&[b'D'][..], &0x4000_0003_u32.to_be_bytes()].concat();
        assert!(read(&mut Frames::default(), &[&longest]).is_ok());
    }
}
