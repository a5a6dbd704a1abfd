//! What a query may ask for: the catalogue, the recording rules, and what is known of others.

use std::collections::BTreeSet;

use poolscope::telemetry::catalogue::{self, METRICS, POOL_LABEL};
use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::dashboards::FOREIGN;
use poolscope_cli::monitoring::rules::recording::{recordings, slow_recordings};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down, as what is recorded does.
    Gauge,
    /// A whole histogram, of which nobody can ask.
    Histogram,
}

/// What is known of the series of a name.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) kind: Kind,
    pub(super) of_a_pool: bool,
    pub(super) labels: Vec<&'static str>,
}

impl Known {
    pub(super) fn labels(&self) -> BTreeSet<String> {
        self.labels.iter().map(|label| (*label).to_owned()).collect()
    }
}

/// What is known of the name. Panics if nothing is.
pub(super) fn known(name: &str) -> Known {
    // Prometheus gives each target these two.
    let target = ["job", "instance"];
    if let Some(foreign) = FOREIGN.iter().find(|foreign| foreign.name == name) {
        let kind = if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
        let mut labels = [&target[..], foreign.labels].concat();
        if name == "ALERTS" {
            // An alert has the labels of what it is about.
            labels.push(POOL_LABEL);
        }
        return Known { kind, of_a_pool: false, labels };
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
        _ => panic!("there is no {name}"),
    };
    let kind = match (metric.kind, part) {
        (catalogue::Kind::Counter, _) | (catalogue::Kind::Histogram, Some(_)) => Kind::Counter,
        (catalogue::Kind::Histogram, None) => Kind::Histogram,
        _ => Kind::Gauge,
    };
    let pool: &[&str] = if metric.is_of_a_pool() { &[POOL_LABEL] } else { &[] };
    let le: &[&str] = if part == Some("_bucket") { &["le"] } else { &[] };
    Known { kind, of_a_pool: metric.is_of_a_pool(), labels: [&target[..], pool, metric.labels, le].concat() }
}

/// What is known of a recording rule: its level says which labels it has.
fn recorded(name: &str) -> Known {
    let thresholds = Thresholds::committed().unwrap();
    let mut rules = recordings(&thresholds).into_iter().chain(slow_recordings(&thresholds));
    assert!(rules.any(|rule| rule.name == name), "nothing is recorded as {name}");
    let labels = match name.split(':').next() {
        Some("pool") => vec!["job", "instance", POOL_LABEL],
        Some("operation") => vec!["job", "instance", POOL_LABEL, "operation"],
        Some("activity") => vec!["job", "instance", POOL_LABEL, "activity"],
        _ => panic!("{name} has no level with instances, and so cannot be filtered by them"),
    };
    Known { kind: Kind::Gauge, of_a_pool: true, labels }
}
