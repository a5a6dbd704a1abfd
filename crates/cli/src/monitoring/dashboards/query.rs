//! Queries: text in PromQL, made of metrics that exist.

use std::fmt;

use crate::monitoring::names::POOL_LABEL;
use poolscope::telemetry::catalogue::METRICS;

/// A metric of the catalogue. One that is not there does not compile.
macro_rules! metric {
    ($name:literal) => {
        $crate::monitoring::dashboards::query::Series::of(const { $crate::monitoring::names::metric($name) })
    };
}
pub(super) use metric;

/// A metric that others keep: Prometheus itself, or the `prometheus` crate's account of the process.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Foreign {
    /// Its name.
    pub name: &'static str,
    /// The labels that a query may name, beside those of its target.
    pub labels: &'static [&'static str],
}

macro_rules! foreign {
    ($($constant:ident = $name:literal $labels:expr;)+) => {
        $(pub(super) const $constant: Foreign = Foreign { name: $name, labels: &$labels };)+
        /// All that a dashboard may ask for beside the catalogue and the recording rules.
        pub const FOREIGN: &[Foreign] = &[$($constant,)+];
    };
}

foreign! {
    ALERTS = "ALERTS" ["alertname", "alertstate", "severity"];
    UP = "up" [];
    SCRAPE_DURATION = "scrape_duration_seconds" [];
    SAMPLES = "scrape_samples_scraped" [];
    CPU_SECONDS = "process_cpu_seconds_total" [];
    MAX_FILES = "process_max_fds" [];
    OPEN_FILES = "process_open_fds" [];
    RESIDENT_MEMORY = "process_resident_memory_bytes" [];
    STARTED = "process_start_time_seconds" [];
    THREADS = "process_threads" [];
}

/// The job's and the instance's variables, by which everything is filtered.
const OF_AN_INSTANCE: [&str; 2] = [r#"job=~"$job""#, r#"instance=~"$instance""#];

/// The series of a metric that the dashboard's variables choose.
#[derive(Clone, Debug)]
pub(super) struct Series {
    name: String,
    matchers: Vec<String>,
}

impl Series {
    /// Those of a metric of the catalogue; see [`metric!`].
    pub(super) fn of(name: &'static str) -> Self {
        let of_a_pool = METRICS.iter().any(|metric| metric.name == name && metric.is_of_a_pool());
        let series = Self::of_an_instance(name);
        if of_a_pool { series.only(format!(r#"{POOL_LABEL}=~"$pool""#)) } else { series }
    }

    /// Those of a recording rule, each of a pool of one instance.
    pub(super) fn recorded(name: &str) -> Self {
        Self::of_an_instance(name).only(format!(r#"{POOL_LABEL}=~"$pool""#))
    }

    fn of_an_instance(name: &str) -> Self {
        Self { name: name.to_owned(), matchers: OF_AN_INSTANCE.map(str::to_owned).into() }
    }

    /// Only those that match this, too.
    pub(super) fn only(mut self, matcher: impl Into<String>) -> Self {
        self.matchers.push(matcher.into());
        self
    }

    /// A histogram's buckets.
    pub(super) fn bucket(mut self) -> Self {
        self.name.push_str("_bucket");
        self
    }

    /// How many a histogram has counted.
    pub(super) fn count(mut self) -> Self {
        self.name.push_str("_count");
        self
    }

    pub(super) fn rate(&self) -> String {
        format!("rate({self}[$__rate_interval])")
    }

    /// The quantile of a histogram, for each value of these labels.
    pub(super) fn quantile(self, quantile: f64, by: &[&str]) -> String {
        let labels = [by, &["le"]].concat();
        format!("histogram_quantile({quantile}, {})", sum_by(&labels, self.bucket().rate()))
    }
}

impl From<Foreign> for Series {
    fn from(metric: Foreign) -> Self {
        Self::of_an_instance(metric.name)
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

/// What there is none of does not fill the legend: a series that is zero all the time is left out.
pub(super) fn unless_zero(of: impl fmt::Display) -> String {
    format!("{of} > 0")
}
