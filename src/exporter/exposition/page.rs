//! A page of metrics, in memory that the next page finds again.

use std::io::IoSlice;

use hyper::body::Buf;

/// What was written, in pieces: the lines of one metric stand together, and those of one pool are written one after the
/// other, so each metric has a piece of its own.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pieces: Vec<Vec<u8>>,
    /// How far it has been sent: whole pieces, and bytes of the next one.
    sent: (usize, usize),
}

/// A piece that has room for so many times what it was last used for gives the rest back, unless it is small.
const SLACK: usize = 4;
const SMALL: usize = 64 * 1024;

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(Vec::as_slice).filter(|piece| !piece.is_empty())
    }

    /// How many bytes that is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole in one piece of text.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.pieces.concat()).into_owned()
    }

    /// Empties so many pieces for what is to be written.
    pub(super) fn clear(&mut self, pieces: usize) -> &mut [Vec<u8>] {
        self.sent = (0, 0);
        self.pieces.resize_with(pieces, Vec::new);
        for piece in &mut self.pieces {
            if piece.capacity() > SMALL && piece.capacity() / SLACK > piece.len() {
                piece.shrink_to(2 * piece.len());
            }
            piece.clear();
        }
        &mut self.pieces
    }

    /// The one piece of a page that has no more, emptied.
    pub(in crate::exporter) fn only(&mut self) -> &mut Vec<u8> {
        &mut self.clear(1)[0]
    }

    fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        let (whole, bytes) = self.sent;
        let rest = self.pieces.get(whole).map(|piece| &piece[bytes..]);
        let others = self.pieces.get(whole + 1..).unwrap_or_default().iter().map(Vec::as_slice);
        rest.into_iter().chain(others).filter(|piece| !piece.is_empty())
    }
}

/// Reads what was not read yet.
impl Buf for Page {
    fn remaining(&self) -> usize {
        self.unsent().map(<[u8]>::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.unsent().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(self.unsent()).map(|(slice, piece)| *slice = IoSlice::new(piece));
        filled.count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.get(self.sent.0) {
            let left = piece.len() - self.sent.1;
            if count < left {
                self.sent.1 += count;
                return;
            }
            count -= left;
            self.sent = (self.sent.0 + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_piece_by_piece_and_in_any_portions() {
        for portion in 1..8 {
            let mut page = Page::new();
            for (piece, text) in page.clear(5).iter_mut().zip(["", "one", "", "two", ""]) {
                piece.extend_from_slice(text.as_bytes());
            }
            assert_eq!((page.len(), page.to_text()), (6, "onetwo".to_owned()));
            let mut read = Vec::new();
            while page.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = page.chunks_vectored(&mut slices);
                let whole: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                assert_eq!(whole.len(), page.remaining());
                assert!(whole.starts_with(page.chunk()) && !page.chunk().is_empty());
                let count = portion.min(whole.len());
                read.extend_from_slice(&whole[..count]);
                page.advance(count);
            }
            assert_eq!(read, b"onetwo");
            assert_eq!(page.chunk(), b"");
        }
    }

    #[test]
    fn room_that_is_no_longer_needed_is_given_back() {
        let mut page = Page::new();
        page.only().resize(100 * SMALL, b'x');
        // Filled last time, so it may be again.
        assert!(page.only().capacity() >= 100 * SMALL);
        page.pieces[0].resize(SMALL, b'x');
        assert!(page.only().capacity() < 3 * SMALL);
    }
}
