//! Writes the samples of pools, with their labels from a cache.
//!
//! A pool has hundreds of lines, of which only the numbers change. The catalogue yields the labels in the same order
//! each time, so the encoded labels of each line are kept and compared with the next values: where they are equal,
//! which is nearly always, the text is copied.

use std::ops::Range;
use std::sync::{Arc, LazyLock, Weak};

use super::encode::{Digits, Format, bound, escaped, exemplar, integer, is_plain, number, seconds};
use crate::telemetry::catalogue::{Kind, METRICS, Metric, POOL_LABEL, Sink};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::{BOUNDS_SECONDS, Histogram};

/// The cached labels of one pool.
#[derive(Debug)]
pub(super) struct PoolLabels {
    ledger: Weak<Ledger>,
    /// By metric, in the order of the catalogue.
    metrics: Vec<MetricLabels>,
}

impl PoolLabels {
    pub(super) fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            ledger: Arc::downgrade(ledger),
            metrics: METRICS.iter().map(|metric| MetricLabels::new(metric, ledger.name())).collect(),
        }
    }

    pub(super) fn is_of(&self, ledger: &Arc<Ledger>) -> bool {
        // The weak reference also keeps the address from being reused.
        std::ptr::eq(self.ledger.as_ptr(), Arc::as_ptr(ledger))
    }

    /// Returns whether the pool still exists.
    pub(super) fn is_alive(&self) -> bool {
        self.ledger.strong_count() > 0
    }

    /// Returns a sink for the samples of the metric at `index` of the catalogue. `buffer` is scratch memory.
    pub(super) fn lines<'a>(
        &'a mut self,
        index: usize,
        metric: &'a Metric,
        format: Format,
        buffer: &'a mut Vec<u8>,
        out: &'a mut Vec<u8>,
    ) -> Lines<'a> {
        let labels = &mut self.metrics[index];
        Lines { out, metric, format, buffer, next: labels.head, labels }
    }
}

/// The cached labels of one metric of a pool. They are in one buffer, in the order in which they are read, because
/// fetching them from memory is what takes time.
#[derive(Debug)]
struct MetricLabels {
    /// The head: the start of every line, which is the name and the label of the pool, and `tail` if the metric has no
    /// other labels. The name of a histogram is followed by `_bucket`.
    ///
    /// Then, for each line, an [entry header](ENTRY_HEADER_BYTES) and the other labels with `tail`:
    /// `,operation="list_orders",outcome="ok"} `.
    text: Vec<u8>,
    /// The length of the head.
    head: usize,
    /// What follows the labels; nothing for a histogram.
    tail: &'static [u8],
}

/// The size of an entry header: whether all values are unescaped (only those can be compared with the text), and the
/// length of the entry as a `u32`.
const ENTRY_HEADER_BYTES: usize = 5;

impl MetricLabels {
    fn new(metric: &Metric, pool: &str) -> Self {
        let (suffix, tail): (&str, &'static [u8]) = match metric.kind {
            Kind::Histogram => ("_bucket", b""),
            Kind::Counter | Kind::Gauge => ("", b"} "),
        };
        let mut text = [metric.name, suffix, "{", POOL_LABEL, "=\""].concat().into_bytes();
        escaped(&mut text, pool);
        text.push(b'"');
        if metric.labels.is_empty() {
            text.extend_from_slice(tail);
        }
        Self { head: text.len(), text, tail }
    }

    /// Returns the entry at `next`, if it has these values.
    #[inline]
    fn find(&self, next: usize, names: &[&str], values: &[&str]) -> Option<Range<usize>> {
        let [plain, len @ ..] = *self.text.get(next..)?.first_chunk::<ENTRY_HEADER_BYTES>()?;
        let start = next + ENTRY_HEADER_BYTES;
        let end = start + usize::try_from(u32::from_le_bytes(len)).ok()?;
        let mut rest = self.text.get(start..end)?;
        if plain == 0 {
            return None;
        }
        for (name, value) in names.iter().zip(values) {
            // `,` name `="` value `"`: a plain value contains no quote, so the quote marks its end.
            let (found, after) = rest.get(name.len() + 3..)?.split_at_checked(value.len())?;
            let (quote, after) = after.split_first()?;
            if *quote != b'"' || !equal(found, value.as_bytes()) {
                return None;
            }
            rest = after;
        }
        (rest.len() == self.tail.len()).then_some(start..end)
    }

    /// Replaces the entry at `next` and all that follow it: a new line moves those behind it.
    #[cold]
    fn replace(&mut self, next: usize, names: &[&str], values: &[&str]) -> Range<usize> {
        self.text.truncate(next);
        self.text.extend_from_slice(&[0; ENTRY_HEADER_BYTES]);
        let start = self.text.len();
        for (name, value) in names.iter().zip(values) {
            self.text.push(b',');
            self.text.extend_from_slice(name.as_bytes());
            self.text.extend_from_slice(b"=\"");
            escaped(&mut self.text, value);
            self.text.push(b'"');
        }
        self.text.extend_from_slice(self.tail);
        let end = self.text.len();
        if let Ok(len) = u32::try_from(end - start) {
            self.text[next] = u8::from(values.iter().all(|value| is_plain(value)));
            self.text[next + 1..start].copy_from_slice(&len.to_le_bytes());
        }
        start..end
    }
}

/// Writes the samples of one metric of one pool.
pub(super) struct Lines<'a> {
    out: &'a mut Vec<u8>,
    metric: &'a Metric,
    format: Format,
    /// The part that the bucket lines of one histogram share.
    buffer: &'a mut Vec<u8>,
    labels: &'a mut MetricLabels,
    /// Where the next entry is expected.
    next: usize,
}

impl Lines<'_> {
    /// Returns the position of the encoded labels.
    #[inline]
    fn labels(&mut self, values: &[&str]) -> Range<usize> {
        let names = self.metric.labels;
        debug_assert_eq!(values.len(), names.len(), "labels of {}", self.metric.name);
        if names.is_empty() {
            return 0..0;
        }
        let found = self.labels.find(self.next, names, values);
        let found = found.unwrap_or_else(|| self.labels.replace(self.next, names, values));
        self.next = found.end;
        found
    }

    /// Writes the `_sum` or `_count` line of a histogram.
    fn total(&mut self, suffix: &str, labels: Range<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        let Self { out, metric, labels: cached, .. } = self;
        out.extend_from_slice(metric.name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        out.extend_from_slice(&cached.text[metric.name.len() + "_bucket".len()..cached.head]);
        out.extend_from_slice(&cached.text[labels]);
        out.extend_from_slice(b"} ");
        write(out);
        out.push(b'\n');
    }
}

impl Sink for Lines<'_> {
    fn value(&mut self, labels: &[&str], value: f64) {
        let labels = self.labels(labels);
        self.out.extend_from_slice(&self.labels.text[..self.labels.head]);
        self.out.extend_from_slice(&self.labels.text[labels]);
        number(self.out, value);
        self.out.push(b'\n');
    }

    fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        let labels = self.labels(labels);
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.labels.text[..self.labels.head]);
        self.buffer.extend_from_slice(&self.labels.text[labels.clone()]);
        let exemplars = if self.format == Format::OpenMetrics { histogram.exemplars() } else { &[] };
        let mut exemplars = exemplars.iter().peekable();
        let (mut total, mut digits) = (0, Digits::of(0));
        for (bucket, (count, label)) in histogram.buckets.iter().zip(bucket_labels(self.format)).enumerate() {
            // Most buckets are empty, and repeat the number of the one before.
            if *count > 0 {
                total += count;
                digits = Digits::of(total);
            }
            self.out.extend_from_slice(self.buffer);
            label.write(self.out);
            digits.write(self.out);
            if let Some(example) = exemplars.next_if(|exemplar| exemplar.bucket() == bucket) {
                exemplar(self.out, example);
            }
            self.out.push(b'\n');
        }
        self.total("_sum", labels.clone(), |out| seconds(out, histogram.sum_nanos));
        self.total("_count", labels, |out| integer(out, total));
    }
}

/// Returns whether two slices of the same length are equal. Most values have a few letters, for which calling `memcmp`
/// takes longer than comparing them inline.
#[inline]
fn equal(one: &[u8], other: &[u8]) -> bool {
    fn ends<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        Some((bytes.first_chunk()?, bytes.last_chunk()?))
    }
    match one.len() {
        0..4 => one.iter().eq(other),
        4..8 => ends::<4>(one) == ends::<4>(other),
        8..=16 => ends::<8>(one) == ends::<8>(other),
        _ => one == other,
    }
}

/// The encoded `le` label of a bucket, which ends the labels: `,le="0.0005"} `. It is of a fixed size, because copying
/// a constant number of bytes takes half the time of copying a variable number.
#[derive(Debug)]
struct BucketLabel {
    text: [u8; 16],
    len: usize,
}

impl BucketLabel {
    fn new(seconds: f64, format: Format) -> Self {
        let mut written = b",le=\"".to_vec();
        bound(&mut written, seconds, format);
        written.extend_from_slice(b"\"} ");
        let mut text = [b' '; 16];
        text[..written.len()].copy_from_slice(&written);
        Self { text, len: written.len() }
    }

    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.len;
        out.extend_from_slice(&self.text);
        out.truncate(end);
    }
}

/// Returns the labels of all buckets, including the unbounded one.
fn bucket_labels(format: Format) -> &'static [BucketLabel] {
    fn all(format: Format) -> Vec<BucketLabel> {
        let bounds = BOUNDS_SECONDS.iter().chain(&[f64::INFINITY]);
        bounds.map(|seconds| BucketLabel::new(*seconds, format)).collect()
    }
    static TEXT: LazyLock<Vec<BucketLabel>> = LazyLock::new(|| all(Format::Text));
    static OPEN_METRICS: LazyLock<Vec<BucketLabel>> = LazyLock::new(|| all(Format::OpenMetrics));
    match format {
        Format::Text => &TEXT,
        Format::OpenMetrics => &OPEN_METRICS,
    }
}
