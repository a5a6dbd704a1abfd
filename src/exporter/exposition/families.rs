//! Writes families that somebody else gathered.

use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

use super::ExpositionError;
use super::format::Format;
use super::text::{bound, escaped, integer, number};

/// The word for a family's type in both formats, if it is one that either knows how to write.
pub(super) fn kind(family: &MetricFamily) -> Result<&'static str, ExpositionError> {
    match family.get_field_type() {
        MetricType::COUNTER => Ok("counter"),
        MetricType::GAUGE => Ok("gauge"),
        MetricType::HISTOGRAM => Ok("histogram"),
        MetricType::SUMMARY => Ok("summary"),
        // The crate that defines it has nothing that makes one.
        MetricType::UNTYPED => Err(ExpositionError::Untyped { name: family.name().to_owned() }),
    }
}

/// Writes a family's samples.
pub(super) fn samples(
    out: &mut Vec<u8>,
    format: Format,
    name: &str,
    family: &MetricFamily,
) -> Result<(), ExpositionError> {
    let kind = family.get_field_type();
    for metric in family.get_metric() {
        let mut line = Line { out: &mut *out, format, name, metric };
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
            MetricType::UNTYPED => return Err(ExpositionError::Untyped { name: name.to_owned() }),
        }
    }
    Ok(())
}

/// Where the samples of one series go.
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
        let mut before = b'{';
        for pair in metric.get_label() {
            out.push(before);
            out.extend_from_slice(pair.name().as_bytes());
            out.extend_from_slice(b"=\"");
            escaped(out, pair.value());
            out.push(b'"');
            before = b',';
        }
        if let Some((label, value)) = extra {
            out.push(before);
            out.extend_from_slice(label.as_bytes());
            out.extend_from_slice(b"=\"");
            bound(out, value, format.is_open_metrics());
            out.push(b'"');
            before = b',';
        }
        if before == b',' {
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
            number(self.out, if self.format.is_open_metrics() { millis / 1000.0 } else { millis });
        }
        self.out.push(b'\n');
    }
}

/// Reads a value by the one name that is used here.
///
/// With its feature `protobuf`, which any crate beside this one may turn on, `prometheus` names it `value`, and
/// `get_value` without. Where it has a method of its own that one is meant; the other is made of it here.
trait Valued {
    fn value(&self) -> f64;
}

/// The same by the other name.
#[allow(dead_code, reason = "where `get_value` is there already, this one is not asked")]
trait GetValued {
    fn get_value(&self) -> f64;
}

macro_rules! valued {
    ($($kind:ty),*) => { $(
        impl Valued for $kind {
            fn value(&self) -> f64 {
                self.get_value()
            }
        }

        impl GetValued for $kind {
            fn get_value(&self) -> f64 {
                self.value()
            }
        }
    )* };
}

valued!(Counter, Gauge);
