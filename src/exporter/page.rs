//! The memory that a page of metrics is written to: reused, sent and compressed.

use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flate2::{Compress, CompressError, Compression, Crc, FlushCompress, Status};
use hyper::body::Buf;

use super::exposition::{Format, PoolText};

/// The text of a page of metrics, in memory that the next page reuses.
///
/// The text is kept in many pieces: the pools are written one after the other, but all lines of a metric must be
/// adjacent. If the next page is of the same format, only what has changed of the pools' text is written. The page keeps
/// what it needs for that: a third as much as the text of a pool with 20 operations, more with fewer.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The format of the pools' text.
    format: Option<Format>,
    /// The text of the pools, each by metric. Empty while it is written.
    pools: Vec<PoolText>,
    /// What precedes and what follows the pools' lines of each metric, and last what follows all metrics.
    own: Vec<Vec<u8>>,
    /// The length in bytes.
    len: usize,
    sent: Sent,
}

/// How much of a page has been sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// Whole pieces.
    pieces: usize,
    /// Bytes of the next piece.
    of_next: usize,
    /// Bytes of all pieces.
    bytes: usize,
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
        self.pieces_from(0).filter(|piece| !piece.is_empty())
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the page has no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the text into one string.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = Vec::with_capacity(self.len);
        self.pieces().for_each(|piece| text.extend_from_slice(piece));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Empties the page for `metrics` metrics, and returns the pools' text if it is of this format.
    pub(super) fn begin(&mut self, metrics: usize, format: Format) -> Vec<PoolText> {
        let is_same = self.format.replace(format) == Some(format);
        let pools = if is_same { std::mem::take(&mut self.pools) } else { Vec::new() };
        self.reset(2 * metrics + 1);
        pools
    }

    /// Returns what precedes and what follows the pools' lines of each metric, and last what follows all metrics.
    pub(super) fn own_mut(&mut self) -> &mut [Vec<u8>] {
        &mut self.own
    }

    /// Completes the page with the pools' text, of this length.
    pub(super) fn complete(&mut self, pools: Vec<PoolText>, pools_len: usize) {
        self.pools = pools;
        self.len = pools_len + self.own.iter().map(Vec::len).sum::<usize>();
    }

    /// Makes this a page without pools, of `count` empty pieces.
    fn reset(&mut self, count: usize) {
        (self.len, self.sent) = (0, Sent::default());
        self.pools.clear();
        self.own.resize_with(count, Vec::new);
        for piece in &mut self.own {
            if piece.capacity() > MIN_SHRINK_BYTES && piece.capacity() / SHRINK_FACTOR > piece.len() {
                piece.shrink_to(2 * piece.len());
            }
            piece.clear();
        }
    }

    /// Makes this a page of the one piece that `write` appends.
    fn write_single<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.reset(1);
        self.format = None;
        let written = write(&mut self.own[0]);
        self.complete(Vec::new(), 0);
        written
    }

    /// Returns the pieces from this one on: for each metric what precedes the pools, each pool, and what follows them.
    fn pieces_from(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        let of_metric = self.pools.len() + 2;
        let piece = move |index: usize| {
            let (metric, place) = (index / of_metric, index % of_metric);
            match place.checked_sub(1).map(|place| self.pools.get(place)) {
                Some(Some(pool)) => pool.text(metric),
                Some(None) => self.own.get(2 * metric + 1).map(Vec::as_slice).unwrap_or_default(),
                None => self.own.get(2 * metric).map(Vec::as_slice).unwrap_or_default(),
            }
        };
        (first..self.own.len().div_ceil(2) * of_metric).map(piece)
    }

    fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        let mut pieces = self.pieces_from(self.sent.pieces);
        let rest = pieces.next().map(|piece| &piece[self.sent.of_next..]);
        rest.into_iter().chain(pieces).filter(|piece| !piece.is_empty())
    }
}

/// Reads what has not been sent yet.
impl Buf for Page {
    fn remaining(&self) -> usize {
        self.len - self.sent.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.unsent().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(self.unsent()).map(|(slice, piece)| *slice = IoSlice::new(piece));
        filled.count()
    }

    fn advance(&mut self, count: usize) {
        let Sent { pieces, of_next, bytes } = self.sent;
        let mut sent = Sent { pieces, of_next: of_next + count, bytes: bytes + count };
        for piece in self.pieces_from(pieces) {
            if sent.of_next < piece.len() {
                break;
            }
            sent.of_next -= piece.len();
            sent.pieces += 1;
        }
        self.sent = sent;
    }
}

/// Objects that are expensive to create, kept for reuse. Clones share them.
#[derive(Debug)]
pub(super) struct ObjectPool<T> {
    /// Each with the time since when it is idle, in the order of these.
    idle: Arc<Mutex<Vec<(Instant, T)>>>,
    max_idle: usize,
}

/// Time after which an idle object is dropped, as soon as another one is taken. Longer than scrape intervals are.
const MAX_IDLE_TIME: Duration = Duration::from_secs(600);

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
        self.take_if(|_| true, create)
    }

    /// Takes the last used idle object that fits, or creates one.
    fn take_if(&self, fits: impl Fn(&T) -> bool, create: impl FnOnce() -> T) -> T {
        self.take_if_at(fits, Instant::now()).unwrap_or_else(create)
    }

    /// Takes an object, and drops those that were not used for some time. Not when one is put back: a task may do
    /// that, and to drop a large page takes some milliseconds.
    fn take_if_at(&self, fits: impl Fn(&T) -> bool, now: Instant) -> Option<T> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle.iter().rposition(|(_, object)| fits(object)).map(|index| idle.remove(index).1);
        let old = idle.iter().take_while(|(since, _)| now.saturating_duration_since(*since) > MAX_IDLE_TIME).count();
        let unused: Vec<_> = idle.drain(..old).collect();
        drop(idle);
        drop(unused);
        found
    }

    /// Keeps an object for reuse. If then more than `max_idle` are kept, the one that was used least recently is dropped.
    pub(super) fn put(&self, object: T) {
        self.put_at(object, Instant::now());
    }

    fn put_at(&self, object: T, now: Instant) {
        // They are dropped after the lock is released.
        let _surplus: Vec<_> = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((now, object));
            let surplus = idle.len().saturating_sub(self.max_idle);
            idle.drain(..surplus).collect()
        };
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

    /// Takes a page whose last text was of this format, or a new one.
    pub(super) fn take_of(pool: &ObjectPool<Page>, format: Format) -> Self {
        Self { page: pool.take_if(|page| page.format.is_none_or(|last| last == format), Page::new), pool: pool.clone() }
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

/// Pieces are collected until they have this length: a call of the encoder takes some microseconds, and most pieces are
/// short.
const GZIP_INPUT_BYTES: usize = 64 * 1024;

/// Compresses pages at level 1: their lines are so similar that more would cost time and save little. The tables take
/// some 300 KiB and are reused.
#[derive(Debug)]
pub(super) struct Gzip {
    deflate: Compress,
    /// Pieces that are not compressed yet.
    input: Vec<u8>,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self { deflate: Compress::new(Compression::fast(), false), input: Vec::new() }
    }

    /// Compresses `page` into `out`.
    pub(super) fn compress(&mut self, page: &Page, out: &mut Page) -> Result<(), CompressError> {
        out.write_single(|out| {
            out.extend_from_slice(&GZIP_HEADER);
            let Self { deflate: encoder, input } = self;
            encoder.reset();
            input.clear();
            let mut checksum = Crc::new();
            let mut compress = |text: &[u8], flush| {
                checksum.update(text);
                deflate(encoder, text, out, flush)
            };
            for piece in page.pieces() {
                input.extend_from_slice(piece);
                if input.len() >= GZIP_INPUT_BYTES {
                    compress(input, FlushCompress::None)?;
                    input.clear();
                }
            }
            compress(input, FlushCompress::Finish)?;
            input.shrink_to(2 * GZIP_INPUT_BYTES);
            out.extend_from_slice(&checksum.sum().to_le_bytes());
            out.extend_from_slice(&checksum.amount().to_le_bytes());
            Ok(())
        })
    }
}

fn deflate(
    encoder: &mut Compress,
    mut input: &[u8],
    out: &mut Vec<u8>,
    flush: FlushCompress,
) -> Result<(), CompressError> {
    loop {
        out.reserve(GZIP_OUTPUT_BYTES);
        let before = encoder.total_in();
        let status = encoder.compress_vec(input, out, flush)?;
        let consumed = usize::try_from(encoder.total_in() - before).unwrap_or(input.len());
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Makes this a page of one piece.
    fn write(page: &mut Page, text: &[u8]) {
        page.write_single(|piece| {
            piece.extend_from_slice(text);
            Ok::<_, ()>(())
        })
        .unwrap();
    }

    #[test]
    fn pages_are_read_in_any_portions() {
        for portion in 1..8 {
            let mut page = Page::new();
            let pools = page.begin(2, Format::Text);
            for (piece, text) in page.own_mut().iter_mut().zip(["", "one", "", "two", ""]) {
                piece.extend_from_slice(text.as_bytes());
            }
            page.complete(pools, 0);
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
        write(&mut page, &[b'x'; 100 * MIN_SHRINK_BYTES]);
        // The last use filled it, so the next one may.
        write(&mut page, &[b'x'; MIN_SHRINK_BYTES]);
        assert!(page.own[0].capacity() >= 100 * MIN_SHRINK_BYTES);
        write(&mut page, b"");
        assert!(page.own[0].capacity() < 3 * MIN_SHRINK_BYTES);
    }

    #[test]
    fn pooled_pages_are_reused_up_to_the_limit() {
        let pool = ObjectPool::new(1);
        let (mut one, other) = (PooledPage::take(&pool), PooledPage::take(&pool));
        write(one.page_mut(), &[b'x'; 5000]);
        drop(other);
        drop(one);
        let again = PooledPage::take(&pool);
        assert_eq!(again.page().len(), 5000, "it is the last used one");
        assert_eq!(PooledPage::take(&pool).page().len(), 0);
    }

    #[test]
    fn page_of_the_same_format_is_reused() {
        let pool = ObjectPool::new(2);
        for format in [Format::Text, Format::OpenMetrics] {
            let mut taken = PooledPage::take_of(&pool, format);
            assert_eq!(taken.page().format, None, "it is new");
            taken.page_mut().begin(1, format);
        }
        for format in [Format::Text, Format::OpenMetrics, Format::OpenMetrics, Format::Text] {
            assert_eq!(PooledPage::take_of(&pool, format).page().format, Some(format));
        }
    }

    #[test]
    fn objects_that_are_not_used_are_dropped() {
        let (pool, start) = (ObjectPool::new(3), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        for (object, seconds) in [("a", 0), ("b", 300), ("c", 600)] {
            pool.put_at(object, after(seconds));
        }
        let kept = || pool.idle.lock().unwrap().iter().map(|(_, object)| *object).collect::<Vec<_>>();
        let take_at = |seconds| pool.take_if_at(|_| true, after(seconds));
        assert_eq!(kept(), ["a", "b", "c"]);
        pool.put_at("d", after(601));
        assert_eq!(kept(), ["b", "c", "d"], "at most three");
        assert_eq!(take_at(900), Some("d"));
        assert_eq!(kept(), ["b", "c"]);
        pool.put_at("d", after(900));
        assert_eq!(take_at(901), Some("d"));
        assert_eq!(kept(), ["c"], "b was not used for more than ten minutes");
        assert_eq!(take_at(2000), Some("c"), "it is used again");
        assert_eq!(take_at(2000), None);
    }

    #[test]
    fn compressed_pages_decompress_to_the_same() {
        let (mut gzip, mut page, mut compressed) = (Gzip::new(), Page::new(), Page::new());
        let mut random = fastrand::Rng::with_seed(7);
        for len in [0, 1, 100_000, 5, 3_000_000] {
            // Half of it is noise, which does not shrink.
            let noise = std::iter::repeat_with(|| random.u8(..)).take(len / 2);
            let piece: Vec<u8> = noise.chain(std::iter::repeat_n(b'a', len - len / 2)).collect();
            write(&mut page, &piece);
            gzip.compress(&page, &mut compressed).unwrap();
            let compressed: Vec<u8> = compressed.pieces().flatten().copied().collect();
            let mut read = Vec::new();
            let mut gunzip = flate2::read::GzDecoder::new(&*compressed);
            gunzip.read_to_end(&mut read).unwrap();
            assert!(page.pieces().flatten().eq(&read), "{len}");
            assert!(compressed.len() < len / 2 + len / 20 + 100, "{} of {len}", compressed.len());
        }
    }

    #[test]
    fn many_pieces_are_compressed_as_one() {
        let (mut gzip, mut page, mut compressed) = (Gzip::new(), Page::new(), Page::new());
        let mut random = fastrand::Rng::with_seed(8);
        let (full, double) = (GZIP_INPUT_BYTES, 2 * GZIP_INPUT_BYTES);
        for (metrics, lengths) in [(500, 0..300), (500, 0..3), (5, full - 2..full + 2), (5, 0..double)] {
            let pools = page.begin(metrics, Format::Text);
            for piece in page.own_mut() {
                let line = format!("metric{{pool=\"{}\"}} 1\n", random.u16(..));
                piece.extend(line.bytes().cycle().take(random.usize(lengths.clone())));
            }
            page.complete(pools, 0);
            gzip.compress(&page, &mut compressed).unwrap();
            let mut read = String::new();
            flate2::read::GzDecoder::new(&*compressed.own[0]).read_to_string(&mut read).unwrap();
            assert_eq!(read, page.to_text(), "pieces of {lengths:?} bytes");
            assert!(gzip.input.capacity() <= double);
        }
    }
}
