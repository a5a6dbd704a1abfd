//! The one catalogue of metrics: what there is, what it means, and where its samples come from.
//!
//! The collector is driven by it, `docs/metrics.md` is generated from it, and whoever names a metric elsewhere is
//! held to it by a test.

mod reference;
mod requests;
mod retries;
mod server;
mod spans;
mod table;
mod unpooled;

pub use self::reference::reference;
pub use self::table::METRICS;
use super::histogram::Histogram;
use super::ledger::PoolSnapshot;
use super::spans::SpanTotals;

/// The label that every metric of a pool carries, as OpenTelemetry's `db.client.connection.pool.name` translates.
pub const POOL_LABEL: &str = "db_client_connection_pool_name";

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Only grows, from zero when the pool is made.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by bucket.
    Histogram,
}

impl Kind {
    /// The kind's name in the exposition formats.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Where a metric's samples come from.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Source {
    /// Read from each pool's snapshot; its samples carry [`POOL_LABEL`] first.
    Pool(fn(&PoolSnapshot, &mut dyn Sink)),
    /// One for the process, kept by the collector.
    Build,
    /// What became of the process's spans, by where they go.
    Spans(SpanReader),
    /// Kept by the exporter.
    Exporter,
}

/// Reads one figure of what became of the spans.
#[derive(Clone, Copy, Debug)]
pub struct SpanReader(fn(&SpanTotals) -> u64);

impl SpanReader {
    pub(crate) fn read(self, totals: &SpanTotals) -> u64 {
        (self.0)(totals)
    }
}

/// Takes the samples of one metric of one pool. `labels` are the values of the metric's own labels, in order.
pub trait Sink {
    /// A sample of a counter or a gauge.
    fn value(&mut self, labels: &[&str], value: f64);
    /// A sample of a histogram.
    fn histogram(&mut self, labels: &[&str], histogram: &Histogram);
}

/// A metric.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// Its labels, beside [`POOL_LABEL`] where it is a pool's.
    pub labels: &'static [&'static str],
    /// What it says, with its unit where the name does not tell.
    pub help: &'static str,
    /// Where its samples come from.
    pub source: Source,
}

impl Metric {
    /// Whether the samples carry [`POOL_LABEL`].
    #[must_use]
    pub const fn is_of_a_pool(&self) -> bool {
        matches!(self.source, Source::Pool(_))
    }

    const fn of_pool(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
        read: fn(&PoolSnapshot, &mut dyn Sink),
    ) -> Self {
        Self { name, kind, labels, help, source: Source::Pool(read) }
    }

    const fn of_spans(name: &'static str, kind: Kind, help: &'static str, read: fn(&SpanTotals) -> u64) -> Self {
        Self { name, kind, labels: &["destination"], help, source: Source::Spans(SpanReader(read)) }
    }
}

/// Which build this is.
pub const BUILD_INFO: Metric = Metric {
    name: "poolscope_build_info",
    kind: Kind::Gauge,
    labels: &["version"],
    help: "Always 1. The version of poolscope that this process runs.",
    source: Source::Build,
};

/// Scrapes by status code.
pub const SCRAPES: Metric = Metric {
    name: "poolscope_scrapes_total",
    kind: Kind::Counter,
    labels: &["code"],
    help: "Scrapes that ended, by HTTP status: 200, 500 (a collector panicked or the metrics could not be encoded), 503 (too many at once), 499 (the client left first), 401 (a web configuration has users, and whoever asked is none of them).",
    source: Source::Exporter,
};

/// How long scrapes took.
pub const SCRAPE_DURATION: Metric = Metric {
    name: "poolscope_scrape_duration_seconds",
    kind: Kind::Histogram,
    labels: &[],
    help: "Time from a scrape's request until its answer was encoded, the wait for its turn included; failed and abandoned ones too, those that were refused (401) not.",
    source: Source::Exporter,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_conventions() {
        for metric in METRICS {
            assert!(metric.name.starts_with("poolscope_") || metric.name.starts_with("db_client_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.kind != Kind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert_eq!(METRICS.iter().filter(|other| other.name == metric.name).count(), 1, "{}", metric.name);
        }
    }
}
