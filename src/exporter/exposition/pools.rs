//! Writes the pools' samples, from text that is prepared beforehand.
//!
//! A pool has hundreds of lines, and of each only the number changes. The labels come from the catalogue in the same
//! order each time; so the text of each line's labels is kept, and compared with what comes: where it is the same,
//! which is nearly always, it is copied.

use std::ops::Range;
use std::sync::{Arc, LazyLock, Weak};

use super::format::Format;
use super::text::{Digits, bound, escaped, exemplar, integer, is_plain, number, seconds};
use crate::telemetry::catalogue::{Kind, METRICS, Metric, POOL_LABEL, Sink};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::{BOUNDS_SECONDS, Histogram};

/// What of one pool's lines is prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    ledger: Weak<Ledger>,
    /// By metric, in the catalogue's order.
    series: Vec<Series>,
}

impl Prepared {
    pub(super) fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            ledger: Arc::downgrade(ledger),
            series: METRICS.iter().map(|metric| Series::new(metric, ledger.name())).collect(),
        }
    }

    pub(super) fn is_of(&self, ledger: &Arc<Ledger>) -> bool {
        // It keeps the address from being another's, too.
        std::ptr::eq(self.ledger.as_ptr(), Arc::as_ptr(ledger))
    }

    /// Whether its pool is still there.
    pub(super) fn is_alive(&self) -> bool {
        self.ledger.strong_count() > 0
    }

    /// Where the samples of the metric of this place go. `common` is room for what is of use to nobody later.
    pub(super) fn lines<'a>(
        &'a mut self,
        place: usize,
        metric: &'a Metric,
        format: Format,
        common: &'a mut Vec<u8>,
        out: &'a mut Vec<u8>,
    ) -> Lines<'a> {
        let series = &mut self.series[place];
        Lines { out, metric, format, common, next: series.head, series }
    }
}

/// What comes before the numbers of one metric's lines. It has not been touched since the last page, so it lies in one
/// piece, in the order in which it is read: what takes time is to fetch it.
#[derive(Debug)]
struct Series {
    /// First with what all lines begin: the name and the label that says which pool; and what follows the labels, where
    /// there are no others. Of a histogram the name is followed by `_bucket`.
    ///
    /// Then the other labels of each line, as they stand in it: `,operation="list_orders",outcome="ok"} `, of a
    /// histogram without the end. Before each stands whether all its values stand for themselves, as only those can be
    /// found in the text as they are, and how long it is.
    text: Vec<u8>,
    /// How long the beginning is.
    head: usize,
    /// What the labels are followed by.
    tail: &'static [u8],
}

/// How long that is which stands before each line's labels.
const NOTE: usize = 5;

impl Series {
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

    /// Where the labels stand that come next, if their values are these.
    #[inline]
    fn find(&self, next: usize, names: &[&str], values: &[&str]) -> Option<Range<usize>> {
        let [plain, len @ ..] = *self.text.get(next..)?.first_chunk::<NOTE>()?;
        let start = next + NOTE;
        let end = start + usize::try_from(u32::from_le_bytes(len)).ok()?;
        let mut rest = self.text.get(start..end)?;
        if plain == 0 {
            return None;
        }
        for (name, value) in names.iter().zip(values) {
            // `,` name `="` value `"`: a plain value has no quote of its own, so that one marks its end.
            let (found, after) = rest.get(name.len() + 3..)?.split_at_checked(value.len())?;
            let (quote, after) = after.split_first()?;
            if *quote != b'"' || !same(found, value.as_bytes()) {
                return None;
            }
            rest = after;
        }
        (rest.len() == self.tail.len()).then_some(start..end)
    }

    /// Puts these values in the place of what comes next, and of all that follows: where one comes, the others move.
    #[cold]
    fn put(&mut self, next: usize, names: &[&str], values: &[&str]) -> Range<usize> {
        self.text.truncate(next);
        self.text.extend_from_slice(&[0; NOTE]);
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

/// Takes the samples of one metric of one pool, and writes them.
pub(super) struct Lines<'a> {
    out: &'a mut Vec<u8>,
    metric: &'a Metric,
    format: Format,
    /// What the lines of one histogram have in common.
    common: &'a mut Vec<u8>,
    series: &'a mut Series,
    /// Where the next line's labels are to be found.
    next: usize,
}

impl Lines<'_> {
    /// Where the next line's labels stand.
    #[inline]
    fn labels(&mut self, values: &[&str]) -> Range<usize> {
        let names = self.metric.labels;
        debug_assert_eq!(values.len(), names.len(), "labels of {}", self.metric.name);
        if names.is_empty() {
            return 0..0;
        }
        let found = self.series.find(self.next, names, values);
        let found = found.unwrap_or_else(|| self.series.put(self.next, names, values));
        self.next = found.end;
        found
    }

    /// Writes one of the two lines that say the whole of a histogram.
    fn whole(&mut self, suffix: &str, labels: Range<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        let Self { out, metric, series, .. } = self;
        out.extend_from_slice(metric.name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        out.extend_from_slice(&series.text[metric.name.len() + "_bucket".len()..series.head]);
        out.extend_from_slice(&series.text[labels]);
        out.extend_from_slice(b"} ");
        write(out);
        out.push(b'\n');
    }
}

impl Sink for Lines<'_> {
    fn value(&mut self, labels: &[&str], value: f64) {
        let labels = self.labels(labels);
        self.out.extend_from_slice(&self.series.text[..self.series.head]);
        self.out.extend_from_slice(&self.series.text[labels]);
        number(self.out, value);
        self.out.push(b'\n');
    }

    fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        let labels = self.labels(labels);
        self.common.clear();
        self.common.extend_from_slice(&self.series.text[..self.series.head]);
        self.common.extend_from_slice(&self.series.text[labels.clone()]);
        let mut exemplars = if self.format.is_open_metrics() { histogram.exemplars() } else { &[] }.iter().peekable();
        let (mut total, mut digits) = (0, Digits::of(0));
        for (place, (count, bound)) in histogram.buckets.iter().zip(bounds(self.format)).enumerate() {
            // Most buckets are empty, and say what the one before them said.
            if *count > 0 {
                total += count;
                digits = Digits::of(total);
            }
            self.out.extend_from_slice(self.common);
            bound.write(self.out);
            digits.write(self.out);
            if let Some(example) = exemplars.next_if(|exemplar| exemplar.bucket() == place) {
                exemplar(self.out, example);
            }
            self.out.push(b'\n');
        }
        self.whole("_sum", labels.clone(), |out| seconds(out, histogram.sum_nanos));
        self.whole("_count", labels, |out| integer(out, total));
    }
}

/// Whether both are the same, which are of the same length. Most values are of some letters: to call for their comparison
/// would take longer than that.
#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
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

/// What follows the labels of a bucket: `,le="0.0005"} `. All of the same size, as a copy of a size that is known takes
/// half the time of one that is not.
#[derive(Debug)]
struct Bound {
    text: [u8; 16],
    len: usize,
}

impl Bound {
    fn new(seconds: f64, with_fraction: bool) -> Self {
        let mut written = b",le=\"".to_vec();
        bound(&mut written, seconds, with_fraction);
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

/// Those of all buckets, the one without a bound included.
fn bounds(format: Format) -> &'static [Bound] {
    fn written(with_fraction: bool) -> Vec<Bound> {
        let all = BOUNDS_SECONDS.iter().chain(&[f64::INFINITY]);
        all.map(|seconds| Bound::new(*seconds, with_fraction)).collect()
    }
    static TEXT: LazyLock<Vec<Bound>> = LazyLock::new(|| written(false));
    static OPEN_METRICS: LazyLock<Vec<Bound>> = LazyLock::new(|| written(true));
    match format {
        Format::Text => &TEXT,
        Format::OpenMetrics => &OPEN_METRICS,
    }
}
