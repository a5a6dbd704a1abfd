//! The series that queries may select: the catalogue, the recording rules, and external metrics.

use std::collections::BTreeSet;

use poolscope::telemetry::catalogue::{self, METRICS, POOL_LABEL};
use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::dashboards::EXTERNAL_METRICS;
use poolscope_cli::monitoring::recording::{recordings, slow_recordings};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A counter, or a part of a histogram.
    Counter,
    /// A gauge or a recorded series.
    Gauge,
    /// The base name of a histogram, which has no series.
    Histogram,
}

/// The kind and the labels of a series.
#[derive(Clone, Debug)]
pub(super) struct KnownSeries {
    pub(super) kind: Kind,
    pub(super) has_pool: bool,
    pub(super) labels: Vec<&'static str>,
}

impl KnownSeries {
    pub(super) fn labels(&self) -> BTreeSet<String> {
        self.labels.iter().map(|label| (*label).to_owned()).collect()
    }
}

/// Returns the series of a name.
///
/// # Panics
///
/// Panics if the name is unknown.
pub(super) fn known(name: &str) -> KnownSeries {
    // Prometheus adds these to each target.
    let target = ["job", "instance"];
    if let Some(external) = EXTERNAL_METRICS.iter().find(|external| external.name == name) {
        let kind = if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
        let mut labels = [&target[..], external.labels].concat();
        if name == "ALERTS" {
            // An alert has the labels of its subject.
            labels.push(POOL_LABEL);
        }
        return KnownSeries { kind, has_pool: false, labels };
    }
    if name.contains(':') {
        return recorded(name);
    }
    let parts = ["_bucket", "_count", "_sum"];
    let part = parts.iter().find_map(|part| name.strip_suffix(part).map(|of| (of, *part)));
    let histogram = part.and_then(|(of, part)| METRICS.iter().find(|metric| metric.name == of).map(|it| (it, part)));
    let (metric, part) = match (histogram, METRICS.iter().find(|metric| metric.name == name)) {
        (_, Some(metric)) => (metric, None),
        (Some((metric, part)), None) if metric.kind == catalogue::Kind::Histogram => (metric, Some(part)),
        _ => panic!("unknown metric {name}"),
    };
    let kind = match (metric.kind, part) {
        (catalogue::Kind::Counter, _) | (catalogue::Kind::Histogram, Some(_)) => Kind::Counter,
        (catalogue::Kind::Histogram, None) => Kind::Histogram,
        _ => Kind::Gauge,
    };
    let pool: &[&str] = if metric.has_pool_label() { &[POOL_LABEL] } else { &[] };
    let le: &[&str] = if part == Some("_bucket") { &["le"] } else { &[] };
    KnownSeries { kind, has_pool: metric.has_pool_label(), labels: [&target[..], pool, metric.labels, le].concat() }
}

/// Returns a recorded series, whose labels follow from its level.
fn recorded(name: &str) -> KnownSeries {
    let thresholds = Thresholds::committed().unwrap();
    let mut rules = recordings(&thresholds).into_iter().chain(slow_recordings(&thresholds));
    assert!(rules.any(|rule| rule.name == name), "no rule records {name}");
    let labels = match name.split(':').next() {
        Some("pool") => vec!["job", "instance", POOL_LABEL],
        Some("operation") => vec!["job", "instance", POOL_LABEL, "operation"],
        Some("activity") => vec!["job", "instance", POOL_LABEL, "activity"],
        _ => panic!("{name} has no instance label to filter by"),
    };
    KnownSeries { kind: Kind::Gauge, has_pool: true, labels }
}
