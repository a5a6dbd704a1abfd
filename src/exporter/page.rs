//! The memory that a page of metrics is written to: reused, sent and compressed.

use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Compress, CompressError, Compression, Crc, FlushCompress, Status};
use hyper::body::Buf;

/// The text of a page of metrics, in memory that the next page reuses.
///
/// The text is kept in several pieces, one for each metric: the pools are written one after the other, but all lines of
/// a metric must be adjacent.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pieces: Vec<Vec<u8>>,
    /// What has been sent: whole pieces, and bytes of the next one.
    sent: (usize, usize),
}

/// A piece shrinks when its capacity exceeds its last use by this factor, unless it is small.
const SHRINK_FACTOR: usize = 4;
const MIN_SHRINK_BYTES: usize = 64 * 1024;

impl Page {
    /// Creates an empty page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the text, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(Vec::as_slice).filter(|piece| !piece.is_empty())
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// Returns whether the page has no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the text into one string.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.pieces.concat()).into_owned()
    }

    /// Makes this a page of `count` empty pieces, and returns them.
    pub(super) fn reset(&mut self, count: usize) -> &mut [Vec<u8>] {
        self.sent = (0, 0);
        self.pieces.resize_with(count, Vec::new);
        for piece in &mut self.pieces {
            if piece.capacity() > MIN_SHRINK_BYTES && piece.capacity() / SHRINK_FACTOR > piece.len() {
                piece.shrink_to(2 * piece.len());
            }
            piece.clear();
        }
        &mut self.pieces
    }

    /// Makes this a page of a single empty piece, and returns it.
    fn reset_single(&mut self) -> &mut Vec<u8> {
        &mut self.reset(1)[0]
    }

    fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        let (whole, bytes) = self.sent;
        let rest = self.pieces.get(whole).map(|piece| &piece[bytes..]);
        let others = self.pieces.get(whole + 1..).unwrap_or_default().iter().map(Vec::as_slice);
        rest.into_iter().chain(others).filter(|piece| !piece.is_empty())
    }
}

/// Reads what has not been sent yet.
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

/// Objects that are expensive to create, kept for reuse. Clones share them.
#[derive(Debug)]
pub(super) struct ObjectPool<T> {
    idle: Arc<Mutex<Vec<T>>>,
    max_idle: usize,
}

impl<T> Clone for ObjectPool<T> {
    fn clone(&self) -> Self {
        Self { idle: Arc::clone(&self.idle), max_idle: self.max_idle }
    }
}

impl<T> ObjectPool<T> {
    pub(super) fn new(max_idle: usize) -> Self {
        Self { idle: Arc::default(), max_idle }
    }

    /// Takes an idle object, or creates one.
    pub(super) fn take(&self, create: impl FnOnce() -> T) -> T {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(create)
    }

    /// Keeps an object for reuse, unless `max_idle` are kept already.
    pub(super) fn put(&self, object: T) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.max_idle {
            idle.push(object);
        }
    }
}

/// A page that returns to its pool when it is dropped: once it has been sent, or its client has gone.
#[derive(Debug)]
pub(super) struct PooledPage {
    page: Page,
    pool: ObjectPool<Page>,
}

impl PooledPage {
    pub(super) fn take(pool: &ObjectPool<Page>) -> Self {
        Self { page: pool.take(Page::new), pool: pool.clone() }
    }

    pub(super) fn page(&self) -> &Page {
        &self.page
    }

    pub(super) fn page_mut(&mut self) -> &mut Page {
        &mut self.page
    }
}

impl Drop for PooledPage {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.page));
    }
}

/// A gzip header: no name, no time, fastest compression, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// Capacity that is reserved for the next part of the output.
const GZIP_OUTPUT_BYTES: usize = 32 * 1024;

/// Compresses pages at level 1: their lines are so similar that more would cost time and save little. The tables take
/// some 300 KiB and are reused.
#[derive(Debug)]
pub(super) struct Gzip {
    deflate: Compress,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self { deflate: Compress::new(Compression::fast(), false) }
    }

    /// Compresses `page` into `out`.
    pub(super) fn compress(&mut self, page: &Page, out: &mut Page) -> Result<(), CompressError> {
        let out = out.reset_single();
        out.extend_from_slice(&GZIP_HEADER);
        self.deflate.reset();
        let mut checksum = Crc::new();
        for piece in page.pieces() {
            checksum.update(piece);
            self.deflate(piece, out, FlushCompress::None)?;
        }
        self.deflate(&[], out, FlushCompress::Finish)?;
        out.extend_from_slice(&checksum.sum().to_le_bytes());
        out.extend_from_slice(&checksum.amount().to_le_bytes());
        Ok(())
    }

    fn deflate(&mut self, mut input: &[u8], out: &mut Vec<u8>, flush: FlushCompress) -> Result<(), CompressError> {
        loop {
            out.reserve(GZIP_OUTPUT_BYTES);
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(input, out, flush)?;
            let consumed = usize::try_from(self.deflate.total_in() - before).unwrap_or(input.len());
            input = &input[consumed..];
            let is_done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                // It has consumed everything when it leaves capacity unused.
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
    fn pages_are_read_in_any_portions() {
        for portion in 1..8 {
            let mut page = Page::new();
            for (piece, text) in page.reset(5).iter_mut().zip(["", "one", "", "two", ""]) {
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
    fn unused_capacity_is_released() {
        let mut page = Page::new();
        page.reset_single().resize(100 * MIN_SHRINK_BYTES, b'x');
        // The last use filled it, so the next one may.
        assert!(page.reset_single().capacity() >= 100 * MIN_SHRINK_BYTES);
        page.pieces[0].resize(MIN_SHRINK_BYTES, b'x');
        assert!(page.reset_single().capacity() < 3 * MIN_SHRINK_BYTES);
    }

    #[test]
    fn pooled_pages_are_reused_up_to_the_limit() {
        let pool = ObjectPool::new(1);
        let (mut one, other) = (PooledPage::take(&pool), PooledPage::take(&pool));
        one.page_mut().reset_single().extend_from_slice(&[b'x'; 5000]);
        drop(one);
        drop(other);
        let mut again = PooledPage::take(&pool);
        assert!(again.page_mut().reset_single().capacity() >= 5000, "it is the used one");
        assert_eq!(PooledPage::take(&pool).page_mut().reset_single().capacity(), 0);
    }

    #[test]
    fn compressed_pages_decompress_to_the_same() {
        let (mut gzip, mut page, mut compressed) = (Gzip::new(), Page::new(), Page::new());
        let mut random = fastrand::Rng::with_seed(7);
        for len in [0, 1, 100_000, 5, 3_000_000] {
            // Half of it is noise, which does not shrink.
            let piece = page.reset_single();
            piece.extend(std::iter::repeat_with(|| random.u8(..)).take(len / 2));
            piece.extend(std::iter::repeat_n(b'a', len - len / 2));
            gzip.compress(&page, &mut compressed).unwrap();
            let compressed: Vec<u8> = compressed.pieces().flatten().copied().collect();
            let mut read = Vec::new();
            let mut gunzip = flate2::read::GzDecoder::new(&*compressed);
            gunzip.read_to_end(&mut read).unwrap();
            assert!(page.pieces().flatten().eq(&read), "{len}");
            assert!(compressed.len() < len / 2 + len / 20 + 100, "{} of {len}", compressed.len());
        }
    }
}
