//! The lines of a pool's samples, which are kept from page to page.
//!
//! A pool has hundreds of lines, of which few change between two scrapes. The catalogue yields the samples in the same
//! order each time. Where the labels and the value are those of the last page, the text is left as it is; where only
//! the value differs, its digits are replaced. A line that was inserted or removed moves those behind it, so these are
//! written again.

use std::sync::{Arc, LazyLock};

use super::edit::{Edit, shrink};
use super::encode::{Digits, Format, bound, escaped, exemplar, integer, number, seconds};
use crate::telemetry::catalogue::{METRICS, Metric, POOL_LABEL, Sink};
use crate::telemetry::ledger::PoolSnapshot;
use crate::telemetry::{BOUNDS_SECONDS, BUCKETS, Exemplar, Histogram};

/// The lines of one pool in one format.
#[derive(Clone, Debug)]
pub(in crate::exporter) struct PoolText {
    pool: Arc<str>,
    /// By metric, in the order of the catalogue.
    sections: Vec<Section>,
}

/// Scratch memory.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    number: Vec<u8>,
    moved: Vec<u8>,
}

impl PoolText {
    pub(super) fn new(pool: &Arc<str>) -> Self {
        Self { pool: Arc::clone(pool), sections: vec![Section::default(); METRICS.len()] }
    }

    /// Returns whether these are the lines of a pool of this name. It may be another pool than that of the last page:
    /// every line is compared.
    pub(super) fn is_of(&self, pool: &str) -> bool {
        *self.pool == *pool
    }

    /// Returns the lines of the metric at `index` of the catalogue.
    pub(in crate::exporter) fn text(&self, index: usize) -> &[u8] {
        self.sections.get(index).map_or(&[], |section| &section.text)
    }

    /// Makes these the lines of `snapshot`. `format` must be that of the last time. Adds to `lengths`, by metric, the
    /// number of bytes.
    ///
    /// If this panics, the lines must not be used again.
    pub(super) fn update(
        &mut self,
        snapshot: &PoolSnapshot,
        format: Format,
        scratch: &mut Scratch,
        lengths: &mut [usize],
    ) {
        for ((metric, section), length) in METRICS.iter().zip(&mut self.sections).zip(lengths) {
            let mut lines = section.lines(&self.pool, metric, format, scratch);
            if let Some(read) = metric.reader(snapshot.kind) {
                read(snapshot, &mut lines);
            }
            lines.finish();
            *length += section.text.len();
        }
    }
}

/// The lines of one metric of a pool, and what they were written from.
#[derive(Clone, Debug, Default)]
struct Section {
    text: Vec<u8>,
    /// The label values of each entry, without that of the pool, and [`LABEL_END`] after each.
    labels: Vec<u8>,
    /// The entries of a counter or gauge.
    values: Vec<Value>,
    /// The entries of a histogram.
    histograms: Vec<HistogramLines>,
}

/// Follows a label value. No text contains this byte, so two lists of values are equal if their bytes are.
const LABEL_END: u8 = 0xff;

impl Section {
    fn lines<'a>(
        &'a mut self,
        pool: &'a str,
        metric: &'a Metric,
        format: Format,
        scratch: &'a mut Scratch,
    ) -> Lines<'a> {
        Lines {
            pool,
            metric,
            format,
            edit: Edit::new(&mut self.text, &mut scratch.moved),
            number: &mut scratch.number,
            labels: &mut self.labels,
            values: &mut self.values,
            histograms: &mut self.histograms,
            label: 0,
            entry: 0,
        }
    }
}

/// Receives the samples of one metric of one pool, and updates its section.
struct Lines<'a> {
    pool: &'a str,
    metric: &'a Metric,
    format: Format,
    edit: Edit<'a>,
    number: &'a mut Vec<u8>,
    labels: &'a mut Vec<u8>,
    values: &'a mut Vec<Value>,
    histograms: &'a mut Vec<HistogramLines>,
    /// Where the labels of the next entry are.
    label: usize,
    /// The index of the next entry.
    entry: usize,
}

impl Lines<'_> {
    /// Returns whether the next of `count` entries has these labels.
    #[inline]
    fn is_next(&mut self, count: usize, labels: &[&str]) -> bool {
        if self.entry >= count {
            return false;
        }
        let len = len_if_equal(&self.labels[self.label..], labels);
        self.label += len.unwrap_or(0);
        len.is_some()
    }

    /// Removes the remaining entries, and begins one with these labels. Returns the text to append its lines to.
    #[cold]
    fn begin_entry(&mut self, labels: &[&str]) -> &mut Vec<u8> {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "labels of {}", self.metric.name);
        self.truncate();
        for label in labels {
            self.labels.extend_from_slice(label.as_bytes());
            self.labels.push(LABEL_END);
        }
        self.label = self.labels.len();
        self.edit.rest()
    }

    /// Removes the remaining entries, if there are any.
    #[inline]
    fn truncate(&mut self) {
        if self.entry < self.values.len().max(self.histograms.len()) {
            self.labels.truncate(self.label);
            self.values.truncate(self.entry);
            self.histograms.truncate(self.entry);
            shrink(self.labels);
            shrink(self.values);
            shrink(self.histograms);
        }
    }

    fn finish(mut self) {
        self.truncate();
        self.edit.finish();
    }
}

impl Sink for Lines<'_> {
    fn value(&mut self, labels: &[&str], value: f64) {
        if !self.is_next(self.values.len(), labels) {
            let (metric, pool) = (self.metric, self.pool);
            let new = Value::append(self.begin_entry(labels), metric, pool, labels, value);
            self.values.push(new);
        }
        self.values[self.entry].update(&mut self.edit, self.number, value);
        self.entry += 1;
    }

    fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        if !self.is_next(self.histograms.len(), labels) {
            let (metric, pool, format) = (self.metric, self.pool, self.format);
            let new = HistogramLines::append(self.begin_entry(labels), metric, pool, labels, format);
            self.histograms.push(new);
        }
        self.histograms[self.entry].update(&mut self.edit, self.number, histogram, self.format);
        self.entry += 1;
    }
}

/// Returns the length of the first values in `cached`, each with its end, if they are `values`.
#[inline]
fn len_if_equal(cached: &[u8], values: &[&str]) -> Option<usize> {
    let mut rest = cached;
    for value in values {
        let (found, after) = rest.split_at_checked(value.len())?;
        let (end, after) = after.split_first()?;
        if *end != LABEL_END || !equal(found, value.as_bytes()) {
            return None;
        }
        rest = after;
    }
    Some(cached.len() - rest.len())
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

/// Writes the start of a line, up to the last label.
fn series(text: &mut Vec<u8>, metric: &Metric, suffix: &str, pool: &str, labels: &[&str]) {
    for part in [metric.name, suffix, "{", POOL_LABEL, "=\""] {
        text.extend_from_slice(part.as_bytes());
    }
    escaped(text, pool);
    for (name, value) in metric.labels.iter().zip(labels) {
        text.extend_from_slice(b"\",");
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"=\"");
        escaped(text, value);
    }
    text.push(b'"');
}

/// The line of a sample of a counter or gauge.
#[derive(Clone, Debug)]
struct Value {
    /// Those of the value.
    bits: u64,
    /// The length of what precedes the value.
    series: usize,
    /// The length of the value. Zero until the first update.
    number: usize,
}

impl Value {
    /// Appends a line without its value.
    fn append(text: &mut Vec<u8>, metric: &Metric, pool: &str, labels: &[&str], value: f64) -> Self {
        let start = text.len();
        series(text, metric, "", pool, labels);
        text.extend_from_slice(b"} \n");
        // Other bits than those of the value, so that it is written.
        Self { bits: !value.to_bits(), series: text.len() - start - 1, number: 0 }
    }

    #[inline]
    fn update(&mut self, edit: &mut Edit<'_>, buffer: &mut Vec<u8>, value: f64) {
        if self.bits == value.to_bits() {
            return edit.keep(self.series + self.number + 1);
        }
        self.bits = value.to_bits();
        buffer.clear();
        number(buffer, value);
        edit.keep(self.series);
        edit.replace(self.number, buffer);
        edit.keep(1);
        self.number = buffer.len();
    }
}

/// The lines of a sample of a histogram: those of the buckets, the sum and the count.
#[derive(Clone, Debug)]
struct HistogramLines {
    buckets: [u64; BUCKETS],
    sum_nanos: u64,
    /// Empty in the text format, which has none.
    exemplars: Vec<Exemplar>,
    /// The length of the start of each bucket's line, up to the label `le`.
    series: usize,
    /// For each line, the length of what follows the labels, without the line end: the number, and perhaps an exemplar.
    /// Zero until the first update.
    numbers: [usize; BUCKETS + 2],
    /// The length of all lines.
    len: usize,
}

/// What follows the name of a histogram's metric.
const BUCKET: &str = "_bucket";
const SUM: &str = "_sum";
const COUNT: &str = "_count";

impl HistogramLines {
    /// Appends the lines without their numbers.
    fn append(text: &mut Vec<u8>, metric: &Metric, pool: &str, labels: &[&str], format: Format) -> Self {
        let start = text.len();
        series(text, metric, BUCKET, pool, labels);
        let series = start..text.len();
        for (bucket, label) in bucket_labels(format).iter().enumerate() {
            if bucket > 0 {
                text.extend_from_within(series.clone());
            }
            text.extend_from_slice(label);
            text.push(b'\n');
        }
        for suffix in [SUM, COUNT] {
            text.extend_from_slice(metric.name.as_bytes());
            text.extend_from_slice(suffix.as_bytes());
            text.extend_from_within(start + metric.name.len() + BUCKET.len()..series.end);
            text.extend_from_slice(b"} \n");
        }
        Self {
            buckets: [0; BUCKETS],
            sum_nanos: 0,
            exemplars: Vec::new(),
            series: series.len(),
            numbers: [0; BUCKETS + 2],
            len: text.len() - start,
        }
    }

    fn update(&mut self, edit: &mut Edit<'_>, buffer: &mut Vec<u8>, histogram: &Histogram, format: Format) {
        let exemplars = if format == Format::OpenMetrics { histogram.exemplars() } else { &[] };
        let is_new = self.numbers[0] == 0;
        if !is_new
            && self.sum_nanos == histogram.sum_nanos
            && self.buckets == histogram.buckets
            && self.exemplars == exemplars
        {
            return edit.keep(self.len);
        }
        let old_numbers: usize = self.numbers.iter().sum();
        let (mut old_total, mut total, mut digits) = (0, 0, Digits::of(0));
        let (mut old_exemplars, mut new_exemplars) = (self.exemplars.iter().peekable(), exemplars.iter().peekable());
        for (bucket, label) in bucket_labels(format).iter().enumerate() {
            old_total += self.buckets[bucket];
            // Most buckets are empty, and repeat the number of the one before.
            if histogram.buckets[bucket] > 0 {
                total += histogram.buckets[bucket];
                digits = Digits::of(total);
            }
            let is_here = |exemplar: &&Exemplar| exemplar.bucket() == bucket;
            let (old_exemplar, new_exemplar) = (old_exemplars.next_if(is_here), new_exemplars.next_if(is_here));
            edit.keep(self.series + label.len());
            let len = &mut self.numbers[bucket];
            if is_new || total != old_total || new_exemplar != old_exemplar {
                let old_len = *len;
                let number = match new_exemplar {
                    None => digits.as_bytes(),
                    Some(new_exemplar) => {
                        buffer.clear();
                        buffer.extend_from_slice(digits.as_bytes());
                        exemplar(buffer, new_exemplar);
                        &*buffer
                    }
                };
                *len = number.len();
                edit.replace(old_len, number);
            } else {
                edit.keep(*len);
            }
            edit.keep(1);
        }
        let [.., sum_len, count_len] = &mut self.numbers;
        // The series ends in `} ` instead of the label `le`.
        edit.keep(self.series - BUCKET.len() + SUM.len() + 2);
        buffer.clear();
        seconds(buffer, histogram.sum_nanos);
        edit.replace(std::mem::replace(sum_len, buffer.len()), buffer);
        edit.keep(1 + self.series - BUCKET.len() + COUNT.len() + 2);
        buffer.clear();
        integer(buffer, total);
        edit.replace(std::mem::replace(count_len, buffer.len()), buffer);
        edit.keep(1);
        self.len = self.len - old_numbers + self.numbers.iter().sum::<usize>();
        (self.buckets, self.sum_nanos) = (histogram.buckets, histogram.sum_nanos);
        self.exemplars.clear();
        self.exemplars.extend_from_slice(exemplars);
    }
}

/// Returns the encoded `le` labels of all buckets, which end the labels, as `,le="0.0005"} `.
fn bucket_labels(format: Format) -> &'static [Vec<u8>; BUCKETS] {
    fn all(format: Format) -> [Vec<u8>; BUCKETS] {
        std::array::from_fn(|bucket| {
            let mut label = b",le=\"".to_vec();
            bound(&mut label, BOUNDS_SECONDS.get(bucket).copied().unwrap_or(f64::INFINITY), format);
            label.extend_from_slice(b"\"} ");
            label
        })
    }
    static TEXT: LazyLock<[Vec<u8>; BUCKETS]> = LazyLock::new(|| all(Format::Text));
    static OPEN_METRICS: LazyLock<[Vec<u8>; BUCKETS]> = LazyLock::new(|| all(Format::OpenMetrics));
    match format {
        Format::Text => &TEXT,
        Format::OpenMetrics => &OPEN_METRICS,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::telemetry::TraceContext;
    use crate::telemetry::catalogue::Kind;

    const POOL: &str = "a \"pool\"\n";
    const FORMATS: [Format; 2] = [Format::Text, Format::OpenMetrics];

    /// An entry: its two labels, and what is written as a value or as a histogram.
    #[derive(Clone, Debug)]
    struct Entry {
        labels: [String; 2],
        value: f64,
        histogram: Histogram,
    }

    fn label() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[ab]{0,2}", 1 => "[\"\\\\\n,=é🦀]{0,4}", 1 => "[a-c]{15,18}"]
    }

    fn value() -> impl Strategy<Value = f64> {
        let special = [0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9.0, 10.0, -1.5, 1e300];
        prop_oneof![prop::sample::select(special.to_vec()), any::<f64>(), (0..2000u32).prop_map(f64::from)]
    }

    fn histogram() -> impl Strategy<Value = Histogram> {
        let observed = prop::collection::vec((0..40_000_000_000u64, 0..12u64), 0..4);
        let exemplars = prop::collection::btree_map(0..BUCKETS, 0..3u8, 0..3);
        (observed, exemplars).prop_map(|(observed, exemplars)| {
            let mut histogram = Histogram::default();
            for (nanos, count) in observed {
                // Mostly in the first buckets, so that totals repeat.
                (0..count).for_each(|_| histogram.observe(nanos >> (2 * count)));
            }
            histogram.exemplars = exemplars.into_iter().map(|(bucket, number)| exemplar_of(bucket, number)).collect();
            histogram
        })
    }

    fn exemplar_of(bucket: usize, number: u8) -> Exemplar {
        let seconds = BOUNDS_SECONDS.get(bucket).copied().unwrap_or(1e9);
        let at = UNIX_EPOCH + Duration::from_millis(u64::from(number) * 1050);
        Exemplar { value: Duration::from_secs_f64(seconds), trace: TraceContext::new([number; 16], [1; 8]), at }
    }

    fn entry() -> impl Strategy<Value = Entry> {
        ([label(), label()], value(), histogram()).prop_map(|(labels, value, histogram)| Entry {
            labels,
            value,
            histogram,
        })
    }

    /// What happens to a list of entries between two pages.
    #[derive(Clone, Debug)]
    enum Change {
        Value(Index, f64),
        Histogram(Index, Histogram),
        /// One observation of this many nanoseconds.
        Observe(Index, u64),
        Exemplar(Index, Index, u8),
        Label(Index, bool, String),
        Insert(Index, Entry),
        Remove(Index),
    }

    fn change() -> impl Strategy<Value = Change> {
        let at = any::<Index>;
        prop_oneof![
            4 => (at(), value()).prop_map(|(at, value)| Change::Value(at, value)),
            1 => (at(), histogram()).prop_map(|(at, histogram)| Change::Histogram(at, histogram)),
            4 => (at(), 0..40u32).prop_map(|(at, shift)| Change::Observe(at, 1 << shift)),
            1 => (at(), at(), any::<u8>()).prop_map(|(at, which, number)| Change::Exemplar(at, which, number)),
            1 => (at(), any::<bool>(), label()).prop_map(|(at, which, label)| Change::Label(at, which, label)),
            1 => (at(), entry()).prop_map(|(at, entry)| Change::Insert(at, entry)),
            1 => at().prop_map(Change::Remove),
        ]
    }

    fn apply(entries: &mut Vec<Entry>, change: Change) {
        match change {
            Change::Insert(at, entry) => entries.insert(at.index(entries.len() + 1), entry),
            _ if entries.is_empty() => {}
            Change::Value(at, value) => at.get_mut(entries).value = value,
            Change::Histogram(at, histogram) => at.get_mut(entries).histogram = histogram,
            Change::Observe(at, nanos) => at.get_mut(entries).histogram.observe(nanos),
            Change::Exemplar(at, which, number) => {
                let exemplars = &mut at.get_mut(entries).histogram.exemplars;
                if !exemplars.is_empty() {
                    let exemplar = which.get_mut(exemplars);
                    *exemplar = exemplar_of(exemplar.bucket(), number);
                }
            }
            Change::Label(at, which, label) => at.get_mut(entries).labels[usize::from(which)] = label,
            Change::Remove(at) => drop(entries.remove(at.index(entries.len()))),
        }
    }

    /// Returns a metric with two labels.
    fn metric(is_histogram: bool) -> &'static Metric {
        let fits = |metric: &&Metric| metric.labels.len() == 2 && (metric.kind == Kind::Histogram) == is_histogram;
        METRICS.iter().find(fits).unwrap()
    }

    fn update(section: &mut Section, entries: &[Entry], is_histogram: bool, format: Format, scratch: &mut Scratch) {
        let mut lines = section.lines(POOL, metric(is_histogram), format, scratch);
        for Entry { labels: [one, other], value, histogram } in entries {
            if is_histogram {
                lines.histogram(&[one, other], histogram);
            } else {
                lines.value(&[one, other], *value);
            }
        }
        lines.finish();
    }

    /// Returns the lines of the entries, written line by line.
    fn expected(entries: &[Entry], is_histogram: bool, format: Format) -> String {
        let metric = metric(is_histogram);
        let mut text = Vec::new();
        let mut line = |suffix: &str, labels: &[String; 2], more: &str, write: &dyn Fn(&mut Vec<u8>)| {
            let names = [POOL_LABEL, metric.labels[0], metric.labels[1]];
            text.extend_from_slice(format!("{}{suffix}", metric.name).as_bytes());
            for ((separator, name), value) in ["{", ",", ","].into_iter().zip(names).zip([POOL, &labels[0], &labels[1]])
            {
                text.extend_from_slice(format!("{separator}{name}=\"").as_bytes());
                escaped(&mut text, value);
                text.push(b'"');
            }
            text.extend_from_slice(more.as_bytes());
            text.extend_from_slice(b"} ");
            write(&mut text);
            text.push(b'\n');
        };
        for Entry { labels, value, histogram } in entries {
            if !is_histogram {
                line("", labels, "", &|text| number(text, *value));
                continue;
            }
            let mut total = 0;
            for (bucket, count) in histogram.buckets.iter().enumerate() {
                total += count;
                let mut le = Vec::new();
                bound(&mut le, BOUNDS_SECONDS.get(bucket).copied().unwrap_or(f64::INFINITY), format);
                let le = format!(",le=\"{}\"", String::from_utf8(le).unwrap());
                let example = histogram.exemplars.iter().find(|exemplar| exemplar.bucket() == bucket);
                line(BUCKET, labels, &le, &|text| {
                    integer(text, total);
                    if let Some(example) = example.filter(|_| format == Format::OpenMetrics) {
                        exemplar(text, example);
                    }
                });
            }
            line(SUM, labels, "", &|text| seconds(text, histogram.sum_nanos));
            line(COUNT, labels, "", &|text| integer(text, total));
        }
        String::from_utf8(text).unwrap()
    }

    proptest! {
        #[test]
        fn updated_lines_equal_new_ones(
            mut entries in prop::collection::vec(entry(), 0..5),
            pages in prop::collection::vec(prop::collection::vec(change(), 0..4), 1..8),
        ) {
            let mut scratch = Scratch::default();
            let mut sections = vec![Section::default(); 4];
            for changes in pages {
                changes.into_iter().for_each(|change| apply(&mut entries, change));
                for (index, section) in sections.iter_mut().enumerate() {
                    let (format, is_histogram) = (FORMATS[index % 2], index / 2 == 1);
                    update(section, &entries, is_histogram, format, &mut scratch);
                    let written = String::from_utf8_lossy(&section.text);
                    prop_assert_eq!(written, expected(&entries, is_histogram, format));
                }
            }
        }
    }

    #[test]
    fn texts_that_differ_in_one_byte_are_not_equal() {
        for len in 0..40 {
            let one = vec![b'a'; len];
            assert!(equal(&one, &one.clone()), "{len}");
            for at in 0..len {
                let mut other = one.clone();
                other[at] = b'b';
                assert!(!equal(&one, &other), "{at} of {len}");
            }
        }
    }

    #[test]
    fn sum_is_updated_if_only_it_has_changed() {
        let mut entry = Entry { labels: Default::default(), value: 0.0, histogram: Histogram::default() };
        let (mut section, mut scratch) = (Section::default(), Scratch::default());
        for sum_nanos in [0, 1_500_000_000, 2_500_000_000, 0] {
            entry.histogram.sum_nanos = sum_nanos;
            update(&mut section, std::slice::from_ref(&entry), true, Format::Text, &mut scratch);
            let written = String::from_utf8_lossy(&section.text);
            assert_eq!(written, expected(std::slice::from_ref(&entry), true, Format::Text));
        }
    }

    #[test]
    fn labels_are_divided_as_before() {
        for (one, other) in [(["ab", "c"], ["a", "bc"]), (["", "a"], ["a", ""]), (["a", "b"], ["b", "a"])] {
            let entry = |[one, other]: [&str; 2]| Entry {
                labels: [one.to_owned(), other.to_owned()],
                value: 1.0,
                histogram: Histogram::default(),
            };
            let (mut section, mut scratch) = (Section::default(), Scratch::default());
            for labels in [one, other, one] {
                update(&mut section, &[entry(labels)], false, Format::Text, &mut scratch);
                let written = String::from_utf8(section.text.clone()).unwrap();
                assert_eq!(written, expected(&[entry(labels)], false, Format::Text));
            }
        }
    }

    /// What many lines of values were written from takes less than half as much as their text, and that of many histograms less than
    /// a fifth.
    #[test]
    fn memory_is_bounded_by_the_text() {
        let entry = |number: u64| Entry {
            labels: [format!("operation_{number:04}"), "ok".to_owned()],
            value: 1.0,
            histogram: Histogram { buckets: [number; BUCKETS], ..Histogram::default() },
        };
        let entries: Vec<_> = (0..1000).map(entry).collect();
        let mut scratch = Scratch::default();
        for is_histogram in [false, true] {
            let mut section = Section::default();
            for count in [1000, 1000, 500, 1000, 10] {
                update(&mut section, &entries[..count], is_histogram, Format::Text, &mut scratch);
                assert!(section.text.capacity() <= section.text.len() + section.text.len() / 4);
            }
            let Section { labels, values, histograms, .. } = section;
            assert!(labels.capacity() <= 2 * labels.len());
            assert!(values.capacity().max(histograms.capacity()) <= 20, "of ten");
        }
        let mut section = Section::default();
        update(&mut section, &entries, false, Format::Text, &mut scratch);
        let kept = section.labels.capacity() + section.values.capacity() * size_of::<Value>();
        assert!(kept < section.text.len() / 2, "{kept} for {}", section.text.len());
        let mut section = Section::default();
        update(&mut section, &entries, true, Format::Text, &mut scratch);
        let kept = section.labels.capacity() + section.histograms.capacity() * size_of::<HistogramLines>();
        assert!(kept < section.text.len() / 5, "{kept} for {}", section.text.len());
    }
}
