//! Encodes metric families, labels and numbers in either exposition format.

use std::io::Write as _;

use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

use crate::telemetry::Exemplar;
use crate::telemetry::clock::{nanos, to_f64};

/// An exposition format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0: the same samples, and units and exemplars.
    OpenMetrics,
}

impl Format {
    /// Returns the media type, as a `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Units that a name may end in. (The other endings in use are no units: `_info`, `_ratio`.)
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Writes the lines that precede a family's samples.
///
/// `is_taken` returns whether another family has a name. OpenMetrics names a counter family without `_total`. A counter
/// that does not end in `_total`, or whose shorter name belongs to another family, is `unknown` there, so that its
/// samples keep their name.
pub(super) fn family_head(
    out: &mut Vec<u8>,
    format: Format,
    name: &str,
    kind: &'static str,
    help: &str,
    is_taken: impl FnOnce(&str) -> bool,
) {
    if format == Format::Text {
        if !help.is_empty() {
            concat(out, &["# HELP ", name, " "]);
            escaped_help(out, help);
            out.push(b'\n');
        }
        concat(out, &["# TYPE ", name, " ", kind, "\n"]);
        return;
    }
    let (name, kind) = match (kind, name.strip_suffix("_total")) {
        ("counter", Some(base)) if !base.is_empty() && !is_taken(base) => (base, kind),
        ("counter", _) => (name, "unknown"),
        _ => (name, kind),
    };
    concat(out, &["# TYPE ", name, " ", kind, "\n"]);
    let unit = UNITS.iter().find(|unit| name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_')));
    if let Some(unit) = unit {
        concat(out, &["# UNIT ", name, " ", unit, "\n"]);
    }
    if !help.is_empty() {
        concat(out, &["# HELP ", name, " "]);
        escaped(out, help);
        out.push(b'\n');
    }
}

fn concat(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Returns the name of a gathered family's type, which is the same in both formats, or `None` for a family without a
/// type, of which the `prometheus` crate creates none.
pub(super) fn family_kind(family: &MetricFamily) -> Option<&'static str> {
    match family.get_field_type() {
        MetricType::COUNTER => Some("counter"),
        MetricType::GAUGE => Some("gauge"),
        MetricType::HISTOGRAM => Some("histogram"),
        MetricType::SUMMARY => Some("summary"),
        MetricType::UNTYPED => None,
    }
}

/// Writes the samples of a gathered metric, which is of a type that [`family_kind`] has a name for.
pub(super) fn samples(out: &mut Vec<u8>, format: Format, name: &str, kind: MetricType, metric: &Metric) {
    let mut line = Line { out, format, name, metric };
    match kind {
        MetricType::COUNTER => line.value("", None, metric.get_counter().value()),
        MetricType::GAUGE => line.value("", None, metric.get_gauge().value()),
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket();
            for bucket in buckets {
                line.count("_bucket", Some(("le", bucket.upper_bound())), bucket.cumulative_count());
            }
            if buckets.last().is_none_or(|last| last.upper_bound() != f64::INFINITY) {
                line.count("_bucket", Some(("le", f64::INFINITY)), histogram.get_sample_count());
            }
            line.value("_sum", None, histogram.get_sample_sum());
            line.count("_count", None, histogram.get_sample_count());
        }
        MetricType::SUMMARY => {
            let summary = metric.get_summary();
            for quantile in summary.get_quantile() {
                line.value("", Some(("quantile", quantile.quantile())), quantile.value());
            }
            line.value("_sum", None, summary.sample_sum());
            line.count("_count", None, summary.sample_count());
        }
        MetricType::UNTYPED => {}
    }
}

/// Writes the lines of one gathered metric.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
    name: &'a str,
    metric: &'a Metric,
}

impl Line<'_> {
    fn value(&mut self, suffix: &str, extra: Option<(&str, f64)>, value: f64) {
        self.series(suffix, extra);
        number(self.out, value);
        self.end();
    }

    fn count(&mut self, suffix: &str, extra: Option<(&str, f64)>, count: u64) {
        self.series(suffix, extra);
        integer(self.out, count);
        self.end();
    }

    fn series(&mut self, suffix: &str, extra: Option<(&str, f64)>) {
        let Self { out, format, name, metric } = self;
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        let mut separator = b'{';
        for pair in metric.get_label() {
            out.push(separator);
            out.extend_from_slice(pair.name().as_bytes());
            out.extend_from_slice(b"=\"");
            escaped(out, pair.value());
            out.push(b'"');
            separator = b',';
        }
        if let Some((label, value)) = extra {
            out.push(separator);
            out.extend_from_slice(label.as_bytes());
            out.extend_from_slice(b"=\"");
            bound(out, value, *format);
            out.push(b'"');
            separator = b',';
        }
        if separator == b',' {
            out.push(b'}');
        }
        out.push(b' ');
    }

    fn end(&mut self) {
        let millis = self.metric.timestamp_ms();
        if millis != 0 {
            self.out.push(b' ');
            #[allow(clippy::cast_precision_loss, reason = "exact for some 285,000 years")]
            let millis = millis as f64;
            number(self.out, if self.format == Format::OpenMetrics { millis / 1000.0 } else { millis });
        }
        self.out.push(b'\n');
    }
}

/// Names the accessor of a value `value`, whatever the features of `prometheus` are.
///
/// With its feature `protobuf`, which any crate of the build may enable, `prometheus` names it `value`, else
/// `get_value`. An inherent method wins over these traits; the missing one is derived from it.
trait Value {
    fn value(&self) -> f64;
}

/// The counterpart of [`Value`] for the other name.
#[allow(dead_code, reason = "unused where `get_value` is an inherent method")]
trait GetValue {
    fn get_value(&self) -> f64;
}

macro_rules! value_accessors {
    ($($kind:ty),*) => { $(
        impl Value for $kind {
            fn value(&self) -> f64 {
                self.get_value()
            }
        }

        impl GetValue for $kind {
            fn get_value(&self) -> f64 {
                self.value()
            }
        }
    )* };
}

value_accessors!(Counter, Gauge);

/// The first integer after which not every integer is a double: 2^53.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Writes an integer.
#[inline]
pub(super) fn integer(out: &mut Vec<u8>, number: u64) {
    // Most are small, and pushing one byte is faster than making and copying several.
    match u8::try_from(number) {
        Ok(digit @ 0..10) => out.push(b'0' + digit),
        _ => out.extend_from_slice(Digits::of(number).as_bytes()),
    }
}

/// The decimal digits of an integer.
#[derive(Clone, Copy)]
pub(super) struct Digits {
    digits: [u8; 20],
    start: usize,
}

impl Digits {
    #[inline]
    pub(super) fn of(mut number: u64) -> Self {
        let (mut digits, mut start) = ([b'0'; 20], 19);
        digits[start] = last_digit(number);
        while number > 9 {
            number /= 10;
            start -= 1;
            digits[start] = last_digit(number);
        }
        Self { digits, start }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

fn last_digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

/// Writes the value of a sample, so that it parses to the same double.
///
/// Most values are counts, or nanoseconds divided by 10^9. Their decimal digits are known, without a search for the
/// shortest sufficient ones: up to 2^53, the rounded quotient is the double that the digits parse to.
#[inline]
pub(super) fn number(out: &mut Vec<u8>, value: f64) {
    // Most counters of a pool, such as those of its errors.
    if value.to_bits() == 0 {
        return out.push(b'0');
    }
    if !(0.0..MAX_EXACT_INTEGER).contains(&value) {
        return unusual_number(out, value);
    }
    let whole = truncated(value);
    if to_f64(whole) == value {
        return integer(out, whole);
    }
    let nanos = value * 1e9 + 0.5;
    if nanos < MAX_EXACT_INTEGER && to_f64(truncated(nanos)) / 1e9 == value {
        return seconds(out, truncated(nanos));
    }
    unusual_number(out, value);
}

/// Writes nanoseconds as seconds.
pub(super) fn seconds(out: &mut Vec<u8>, nanos: u64) {
    integer(out, nanos / NANOS_PER_SECOND);
    let mut fraction = nanos % NANOS_PER_SECOND;
    if fraction == 0 {
        return;
    }
    let mut digits = [b'.'; 10];
    for place in (1..10).rev() {
        digits[place] = last_digit(fraction);
        fraction /= 10;
    }
    let end = digits.iter().rposition(|digit| *digit != b'0').unwrap_or(0);
    out.extend_from_slice(&digits[..=end]);
}

/// Writes a number that is negative, too large, or finer than a nanosecond, as the standard library does.
#[cold]
fn unusual_number(out: &mut Vec<u8>, value: f64) {
    if value == f64::INFINITY {
        out.extend_from_slice(b"+Inf");
    } else if value == f64::NEG_INFINITY {
        out.extend_from_slice(b"-Inf");
    } else {
        // Writing to memory never fails. `NaN` is spelt as the formats spell it.
        let _ = write!(out, "{value}");
    }
}

/// Writes the bound of a bucket, or a quantile. OpenMetrics requires a fraction, even if it is zero.
pub(super) fn bound(out: &mut Vec<u8>, value: f64, format: Format) {
    number(out, value);
    if format == Format::OpenMetrics && value.is_finite() && value.fract() == 0.0 {
        out.extend_from_slice(b".0");
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "called only for values that fit")]
fn truncated(value: f64) -> u64 {
    value as u64
}

/// Writes a label value, or the help of a family in OpenMetrics.
pub(super) fn escaped(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

/// Writes the help of a family in the text format, which does not escape quotes.
fn escaped_help(out: &mut Vec<u8>, help: &str) {
    for byte in help.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

/// Writes the exemplar of a sample: 63 characters of labels, of the 128 that are allowed.
#[cold]
pub(super) fn exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    out.extend_from_slice(b" # {trace_id=\"");
    out.extend(exemplar.trace.trace().digits());
    out.extend_from_slice(b"\",span_id=\"");
    out.extend(exemplar.trace.span().digits());
    out.extend_from_slice(b"\"} ");
    seconds(out, nanos(exemplar.value));
    // A system clock that is set before 1970 yields no timestamp.
    if let Ok(since) = exemplar.at.duration_since(std::time::UNIX_EPOCH) {
        out.push(b' ');
        // Prometheus keeps milliseconds.
        seconds(out, u64::try_from(since.as_millis()).unwrap_or(0).saturating_mul(1_000_000));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::TraceContext;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn head(format: Format, name: &str, kind: &'static str, taken: &[&str]) -> String {
        written(|out| family_head(out, format, name, kind, "Says \"it\".\n", |name| taken.contains(&name)))
    }

    #[test]
    fn each_format_has_its_own_head() {
        let name = "shop_wait_seconds_total";
        assert_eq!(
            head(Format::Text, name, "counter", &[]),
            "# HELP shop_wait_seconds_total Says \"it\".\\n\n# TYPE shop_wait_seconds_total counter\n"
        );
        assert_eq!(
            head(Format::OpenMetrics, name, "counter", &[]),
            "# TYPE shop_wait_seconds counter\n# UNIT shop_wait_seconds seconds\n\
             # HELP shop_wait_seconds Says \\\"it\\\".\\n\n"
        );
        assert!(head(Format::OpenMetrics, "shop_bytes", "gauge", &[]).contains("# UNIT shop_bytes bytes\n"));
        for no_unit in ["bytes", "shop_megabytes"] {
            assert!(!head(Format::OpenMetrics, no_unit, "gauge", &[]).contains("UNIT"));
        }
    }

    #[test]
    fn unknown_counters_keep_their_name() {
        for (name, taken) in [("orders", &[][..]), ("orders_total", &["orders"]), ("_total", &[])] {
            let head = head(Format::OpenMetrics, name, "counter", taken);
            assert!(head.starts_with(&format!("# TYPE {name} unknown\n")), "{head}");
        }
    }

    #[test]
    fn numbers_are_as_short_as_possible() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (9.0, "9"),
            (10.0, "10"),
            (1_234_567.0, "1234567"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (0.1, "0.1"),
            (0.25, "0.25"),
            (1.35, "1.35"),
            (12.000_000_001, "12.000000001"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e-10, "0.0000000001"),
            (-1.5, "-1.5"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(written(|out| number(out, value)), text);
        }
    }

    #[test]
    fn bounds_have_a_fraction_in_open_metrics() {
        for (value, plain, fractional) in [(1.0, "1", "1.0"), (0.5, "0.5", "0.5"), (f64::INFINITY, "+Inf", "+Inf")] {
            assert_eq!(written(|out| bound(out, value, Format::Text)), plain);
            assert_eq!(written(|out| bound(out, value, Format::OpenMetrics)), fractional);
        }
    }

    #[test]
    fn only_reserved_characters_are_escaped() {
        let hostile = "a\\b\"c\nd\u{0}é🦀}{,=#";
        assert_eq!(written(|out| escaped(out, hostile)), "a\\\\b\\\"c\\nd\u{0}é🦀}{,=#");
        assert_eq!(written(|out| escaped_help(out, hostile)), "a\\\\b\"c\\nd\u{0}é🦀}{,=#");
    }

    #[test]
    fn exemplars_have_trace_span_and_timestamp() {
        let exemplar = Exemplar {
            value: Duration::from_micros(1500),
            trace: TraceContext::new([0x0a; 16], [0xff; 8]),
            at: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
        };
        assert_eq!(
            written(|out| super::exemplar(out, &exemplar)),
            r##" # {trace_id="0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",span_id="ffffffffffffffff"} 0.0015 1700000000.123"##
        );
    }

    proptest! {
        #[test]
        fn numbers_parse_to_the_same_double(bits in any::<u64>(), nanos in any::<u64>(), shift in 0..64u32) {
            for value in [f64::from_bits(bits), to_f64(nanos >> shift), to_f64(nanos >> shift) / 1e9, -to_f64(nanos) / 1e9] {
                let text = written(|out| number(out, value));
                let read: f64 = text.parse().unwrap();
                prop_assert!(read == value || (read.is_nan() && value.is_nan()), "{} is {}", value, text);
            }
        }

        #[test]
        fn integers_equal_the_standard_librarys(value in any::<u64>(), shift in 0..64u32) {
            prop_assert_eq!(written(|out| integer(out, value >> shift)), (value >> shift).to_string());
        }
    }
}
