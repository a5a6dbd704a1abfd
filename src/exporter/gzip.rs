//! Compresses a page.

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::exposition::Page;

/// Of gzip's header: no name, no time, made for speed, by nobody knows what system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// How much room the next part of the output finds at least.
const ROOM: usize = 32 * 1024;

/// Compresses at level 1: the lines of a page are so much alike that more would cost time and save little. Its tables
/// take some 300 KiB, and are used again.
#[derive(Debug)]
pub(super) struct Press {
    deflate: Compress,
}

impl Press {
    pub(super) fn new() -> Self {
        Self { deflate: Compress::new(Compression::fast(), false) }
    }

    /// Writes `page` to `out`, as gzip.
    pub(super) fn press(&mut self, page: &Page, out: &mut Page) -> Result<(), flate2::CompressError> {
        let out = out.only();
        out.extend_from_slice(&HEADER);
        self.deflate.reset();
        let mut check = Crc::new();
        for piece in page.pieces() {
            check.update(piece);
            self.deflate(piece, out, FlushCompress::None)?;
        }
        self.deflate(&[], out, FlushCompress::Finish)?;
        out.extend_from_slice(&check.sum().to_le_bytes());
        out.extend_from_slice(&check.amount().to_le_bytes());
        Ok(())
    }

    fn deflate(
        &mut self,
        mut input: &[u8],
        out: &mut Vec<u8>,
        flush: FlushCompress,
    ) -> Result<(), flate2::CompressError> {
        loop {
            out.reserve(ROOM);
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(input, out, flush)?;
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(input.len());
            input = &input[taken..];
            let is_done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                // With room left it has taken note of all.
                _ => input.is_empty() && out.len() < out.capacity(),
            };
            if is_done {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_pressed_can_be_read_by_others_and_a_press_is_used_again() {
        let (mut press, mut page, mut pressed) = (Press::new(), Page::new(), Page::new());
        let mut random = fastrand::Rng::with_seed(7);
        for len in [0, 1, 100_000, 5, 3_000_000] {
            // Half of it noise, which does not get smaller.
            page.only().extend(std::iter::repeat_with(|| random.u8(..)).take(len / 2));
            let piece = page.only();
            piece.extend(std::iter::repeat_with(|| random.u8(..)).take(len / 2));
            piece.extend(std::iter::repeat_n(b'a', len - len / 2));
            press.press(&page, &mut pressed).unwrap();
            let pressed: Vec<u8> = pressed.pieces().flatten().copied().collect();
            let mut read = Vec::new();
            let mut gunzip = flate2::read::GzDecoder::new(&*pressed);
            gunzip.read_to_end(&mut read).unwrap();
            assert!(page.pieces().flatten().eq(&read), "{len}");
            assert!(pressed.len() < len / 2 + len / 20 + 100, "{} of {len}", pressed.len());
        }
    }
}
