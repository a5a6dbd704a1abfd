//! PromQL queries of metrics in the catalogue.

use std::fmt;

use crate::monitoring::names::{METRICS, POOL_LABEL};

/// The series of a metric in the catalogue. An unknown name does not compile.
macro_rules! metric {
    ($name:literal) => {
        $crate::monitoring::dashboards::query::Series::of(const { $crate::monitoring::names::metric($name) })
    };
}
pub(super) use metric;

/// A metric that is not in the catalogue: from Prometheus itself, or from the `prometheus` crate's process collector.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ExternalMetric {
    /// The name.
    pub name: &'static str,
    /// The labels that queries may use, beside those of the target.
    pub labels: &'static [&'static str],
}

macro_rules! external_metrics {
    ($($constant:ident = $name:literal $labels:expr;)+) => {
        $(pub(super) const $constant: ExternalMetric = ExternalMetric { name: $name, labels: &$labels };)+
        /// The metrics that dashboards may query beside the catalogue and the recording rules.
        pub const EXTERNAL_METRICS: &[ExternalMetric] = &[$($constant,)+];
    };
}

external_metrics! {
    ALERTS = "ALERTS" ["alertname", "alertstate", "severity"];
    UP = "up" [];
    SCRAPE_DURATION = "scrape_duration_seconds" [];
    SCRAPE_SAMPLES = "scrape_samples_scraped" [];
    CPU_SECONDS = "process_cpu_seconds_total" [];
    MAX_FILES = "process_max_fds" [];
    OPEN_FILES = "process_open_fds" [];
    RESIDENT_MEMORY = "process_resident_memory_bytes" [];
    START_TIME = "process_start_time_seconds" [];
    THREADS = "process_threads" [];
}

/// The matchers of the variables `job` and `instance`, which every query has.
const INSTANCE_MATCHERS: [&str; 2] = [r#"job=~"$job""#, r#"instance=~"$instance""#];

/// The series of a metric that the dashboard's variables select.
#[derive(Clone, Debug)]
pub(super) struct Series {
    name: String,
    matchers: Vec<String>,
}

impl Series {
    /// Returns the series of a metric in the catalogue; see [`metric!`].
    pub(super) fn of(name: &'static str) -> Self {
        let has_pool = METRICS.iter().any(|metric| metric.name == name && metric.has_pool_label());
        let series = Self::of_instance(name);
        if has_pool { series.only(format!(r#"{POOL_LABEL}=~"$pool""#)) } else { series }
    }

    /// Returns the series of a recording rule with the labels of a pool.
    pub(super) fn recorded(name: &str) -> Self {
        Self::of_instance(name).only(format!(r#"{POOL_LABEL}=~"$pool""#))
    }

    fn of_instance(name: &str) -> Self {
        Self { name: name.to_owned(), matchers: INSTANCE_MATCHERS.map(str::to_owned).into() }
    }

    /// Returns the firing alerts of poolscope. An alert on a whole job, or on the pools of one name, has no instance, and one
    /// that no job reports has no job; these are always selected.
    pub(super) fn firing_alerts() -> Self {
        let matchers = ["job", "instance"].map(|label| format!(r#"{label}=~"${label}|""#));
        let series = Self { name: ALERTS.name.to_owned(), matchers: matchers.into() };
        series.only(r#"alertname=~"Poolscope.+",alertstate="firing""#)
    }

    /// Adds a matcher.
    pub(super) fn only(mut self, matcher: impl Into<String>) -> Self {
        self.matchers.push(matcher.into());
        self
    }

    /// Selects the buckets of a histogram.
    pub(super) fn bucket(mut self) -> Self {
        self.name.push_str("_bucket");
        self
    }

    /// Selects the count of a histogram.
    pub(super) fn count(mut self) -> Self {
        self.name.push_str("_count");
        self
    }

    pub(super) fn rate(&self) -> String {
        format!("rate({self}[$__rate_interval])")
    }

    /// Returns the quantile of a histogram for each value of the labels `by`.
    pub(super) fn quantile(self, quantile: f64, by: &[&str]) -> String {
        let labels = [by, &["le"]].concat();
        format!("histogram_quantile({quantile}, {})", sum_by(&labels, self.bucket().rate()))
    }
}

impl From<ExternalMetric> for Series {
    fn from(metric: ExternalMetric) -> Self {
        Self::of_instance(metric.name)
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{{}}}", self.name, self.matchers.join(","))
    }
}

pub(super) fn sum(of: impl fmt::Display) -> String {
    format!("sum({of})")
}

pub(super) fn max(of: impl fmt::Display) -> String {
    format!("max({of})")
}

pub(super) fn sum_by(labels: &[&str], of: impl fmt::Display) -> String {
    format!("sum by ({}) ({of})", labels.join(", "))
}

/// Drops samples that are zero, so that inactive series do not fill the legend.
pub(super) fn unless_zero(of: impl fmt::Display) -> String {
    format!("{of} > 0")
}
