//! The catalogue of all metrics: their names, types, labels and help texts.
//!
//! The collector, the exporter and `docs/metrics.md` are driven by it. Tools that generate queries, dashboards or
//! alerts can read it too:
//!
//! ```
//! use poolscope::telemetry::catalogue::{METRICS, POOL_LABEL};
//!
//! let timeouts = METRICS.iter().find(|metric| metric.name == "db_client_connection_timeouts_total").unwrap();
//! assert!(timeouts.has_pool_label());
//! assert_eq!(format!("sum by ({POOL_LABEL}) (rate({}[5m]))", timeouts.name),
//!     "sum by (db_client_connection_pool_name) (rate(db_client_connection_timeouts_total[5m]))");
//! ```

mod caches;
mod diagnosis;
mod incidents;
mod redis;
#[cfg(test)]
mod reference;
mod requests;
mod retries;
mod server;
mod spans;
mod table;
mod unpooled;

pub use self::table::METRICS;
use super::histogram::Histogram;
use super::incidents::IncidentTotals;
use super::ledger::PoolSnapshot;
use super::spans::SpanTotals;
use crate::labels::PoolKind;

/// The label that the metrics of pools carry: the pool's name, OpenTelemetry's `db.client.connection.pool.name`.
pub const POOL_LABEL: &str = "db_client_connection_pool_name";

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A count that starts at zero when the pool is created and only increases.
    Counter,
    /// A value that can increase and decrease.
    Gauge,
    /// Observations counted by bucket.
    Histogram,
}

impl Kind {
    /// Returns the name of the type in the exposition formats.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric of the catalogue.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The label names, without [`POOL_LABEL`].
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
    /// The source of the samples.
    pub(crate) source: Source,
}

/// The source of a metric's samples.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// The snapshot of each pool; the samples carry [`POOL_LABEL`] first.
    Pool(fn(&PoolSnapshot, &mut dyn Sink)),
    /// The same of a pool in this process: what a proxy cannot see is absent, not zero.
    OwnPool(fn(&PoolSnapshot, &mut dyn Sink)),
    /// The build: one sample for the process.
    Build,
    /// The process's exported spans, by destination.
    Spans(fn(&SpanTotals) -> u64),
    /// The process's incident files, if it writes them.
    Incidents(fn(&IncidentTotals) -> u64),
    /// The exporter.
    Exporter,
    /// The `poolscope` binary.
    Binary,
}

/// Receives the samples of one metric of one pool. `labels` are the values of [`Metric::labels`], in order.
pub(crate) trait Sink {
    /// Adds a sample of a counter or a gauge.
    fn value(&mut self, labels: &[&str], value: f64);
    /// Adds a sample of a histogram.
    fn histogram(&mut self, labels: &[&str], histogram: &Histogram);
}

impl Metric {
    /// Returns whether the metric is recorded per pool, with the label [`POOL_LABEL`].
    #[must_use]
    pub const fn has_pool_label(&self) -> bool {
        matches!(self.source, Source::Pool(_) | Source::OwnPool(_))
    }

    /// Returns what reads the samples of a pool of this kind, if the metric has any.
    pub(crate) const fn reader(&self, kind: PoolKind) -> Option<fn(&PoolSnapshot, &mut dyn Sink)> {
        match (self.source, kind) {
            (Source::Pool(read), _) | (Source::OwnPool(read), PoolKind::Pool) => Some(read),
            _ => None,
        }
    }

    /// Returns whether the pools of a proxy have the metric.
    #[cfg(test)]
    const fn is_seen_by_proxies(&self) -> bool {
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

    const fn of_own_pool(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
        read: fn(&PoolSnapshot, &mut dyn Sink),
    ) -> Self {
        Self { name, kind, labels, help, source: Source::OwnPool(read) }
    }

    const fn of_spans(name: &'static str, kind: Kind, help: &'static str, read: fn(&SpanTotals) -> u64) -> Self {
        Self { name, kind, labels: &["destination"], help, source: Source::Spans(read) }
    }
}

/// The build of this process.
pub(crate) const BUILD_INFO: Metric = Metric {
    name: "poolscope_build_info",
    kind: Kind::Gauge,
    labels: &["version"],
    help: "Always 1. The version of poolscope.",
    source: Source::Build,
};

/// Scrapes by HTTP status.
pub(crate) const SCRAPES: Metric = Metric {
    name: "poolscope_scrapes_total",
    kind: Kind::Counter,
    labels: &["code"],
    help: "Scrapes ended, by HTTP status: 200, 401 (the web configuration has users, and the credentials were missing or wrong), 499 (the client closed the connection first), 500 (a collector panicked or the metrics could not be encoded), 503 (too many concurrent scrapes).",
    source: Source::Exporter,
};

/// The duration of scrapes.
pub(crate) const SCRAPE_DURATION: Metric = Metric {
    name: "poolscope_scrape_duration_seconds",
    kind: Kind::Histogram,
    labels: &[],
    help: "Time from the request of a scrape until its response was encoded, including the wait for its turn and failed and abandoned scrapes, without refused ones (401).",
    source: Source::Exporter,
};

/// The lost log lines of the binary.
pub(crate) const LOG_LINES_LOST: Metric = Metric {
    name: "poolscope_log_lines_lost_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Log lines that the poolscope binary could not write, because standard error was not read in time or failed. Missing in services that embed poolscope, which write their log themselves.",
    source: Source::Binary,
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
