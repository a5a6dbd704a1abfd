//! The recording rules, shared by alerts and dashboards.
//!
//! They are named `level:metric:operation`, where the level is the subject of a series:
//!
//! * `pool:` -- a pool of one instance,
//! * `operation:` -- an operation of such a pool,
//! * `activity:` -- an activity of its connections,
//! * `cause:` -- a cause of the diagnosis of the pools of one name and job, over all instances,
//! * `fleet:` -- the pools of one name and job, over all instances.
//!
//! Aggregations use `without`, so that additional target labels are kept.

use super::names::{
    CHECKOUT_OUTCOMES, CLOSED, COUNT, CREATE_TIME, DIAGNOSIS, DIAGNOSIS_SECONDS, MAX, OPERATION_WAIT_SECONDS, PENDING,
    QUERY_TIME, RETRIES, SATURATED_SECONDS, TIMEOUTS, USE_SECONDS, WAIT_TIME,
};
use super::thresholds::{Threshold, Thresholds};

/// A recording rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recording {
    /// The name of the recorded series.
    pub name: String,
    /// The recorded expression.
    pub expr: String,
    /// The meaning of the series, as a sentence.
    pub help: String,
}

/// Defines the names of recorded series, each documented by its help text.
macro_rules! recorded {
    ($($(#[$meta:meta])+ $constant:ident = $name:literal;)+) => {
        $($(#[$meta])+ pub const $constant: &str = $name;)+
    };
}

recorded! {
    /// Share of the pool's maximum that is in use.
    USED_SHARE = "pool:db_client_connection_used:ratio";
    /// Share of time with every connection in use and a checkout waiting.
    SATURATED_SHARE = "pool:poolscope_saturated:ratio_rate5m";
    /// Checkouts that ended per second, with any outcome.
    CHECKOUTS = "pool:poolscope_checkouts:rate5m";
    /// Median checkout time in seconds.
    WAIT_P50 = "pool:db_client_connection_wait_time_seconds:p50_rate5m";
    /// 99th percentile of the checkout time in seconds.
    WAIT_P99 = "pool:db_client_connection_wait_time_seconds:p99_rate5m";
    /// Average number of held connections, by activity.
    HELD_BY_ACTIVITY = "activity:poolscope_connection_use:rate5m";
    /// Average number of held connections, by operation.
    HELD_BY_OPERATION = "operation:poolscope_connection_use:rate5m";
    /// Average number of waiting checkouts, by operation.
    WAITING_BY_OPERATION = "operation:poolscope_operation_wait:rate5m";
    /// Connections established per second.
    CONNECTED = "pool:poolscope_connections_established:rate5m";
    /// Failed connection attempts per second.
    CONNECT_FAILURES = "pool:poolscope_connect_failures:rate5m";
    /// Queries that ended per second.
    QUERIES = "pool:poolscope_queries_ended:rate5m";
    /// Share of queries that took longer than the slow-query threshold.
    SLOW_QUERY_SHARE = "pool:poolscope_queries_slow:ratio_rate5m";
    /// Retries per checkout.
    RETRY_SHARE = "pool:poolscope_retries:ratio_rate5m";
    /// Sum of the pools' maxima, over all instances.
    FLEET_MAX = "fleet:db_client_connection_max:sum";
    /// Connections in use, over all instances.
    FLEET_USED = "fleet:db_client_connection_used:sum";
    /// Checkouts waiting for capacity, over all instances.
    FLEET_PENDING = "fleet:db_client_connection_pending_requests:sum";
    /// Checkouts that ended per second, over all instances.
    FLEET_CHECKOUTS = "fleet:poolscope_checkouts:rate5m";
    /// Number of instances that are diagnosed with a cause.
    CAUSE_INSTANCES = "cause:poolscope_diagnosis:sum";
    /// For how long the first of the instances has been diagnosed with a cause, in seconds.
    CAUSE_SECONDS = "cause:poolscope_diagnosis_seconds:max";
}

/// The labels that differ between the instances of a job. Sums over instances drop them.
pub const INSTANCE_LABELS: &str = "instance, pod, node, host";

/// A window of a burn rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BurnWindow {
    /// 5 minutes.
    M5,
    /// 30 minutes.
    M30,
    /// An hour.
    H1,
    /// Two hours.
    H2,
    /// Six hours.
    H6,
    /// A day.
    D1,
    /// Three days.
    D3,
}

impl BurnWindow {
    /// All windows, the shortest first.
    pub const ALL: [Self; 7] = [Self::M5, Self::M30, Self::H1, Self::H2, Self::H6, Self::D1, Self::D3];

    /// Returns the window as part of a series name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::M5 => "5m",
            Self::M30 => "30m",
            Self::H1 => "1h",
            Self::H2 => "2h",
            Self::H6 => "6h",
            Self::D1 => "1d",
            Self::D3 => "3d",
        }
    }

    /// Whether its rules are evaluated less often.
    #[must_use]
    pub const fn is_slow(self) -> bool {
        matches!(self, Self::H2 | Self::H6 | Self::D1 | Self::D3)
    }

    const fn minutes(self) -> f64 {
        match self {
            Self::M5 => 5.0,
            Self::M30 => 30.0,
            Self::H1 => 60.0,
            Self::H2 => 120.0,
            Self::H6 => 360.0,
            Self::D1 => 1440.0,
            Self::D3 => 4320.0,
        }
    }

    /// Returns the range in PromQL at the pace of `thresholds`, whose `window` is five minutes unless it was scaled.
    pub(super) fn range(self, thresholds: &Thresholds) -> Threshold {
        let window = &thresholds.window;
        Threshold { value: window.value / 5.0 * self.minutes(), ..window.clone() }
    }
}

/// Returns the name of the series with the share of checkouts that timed out.
#[must_use]
pub fn timeout_share(window: BurnWindow) -> String {
    format!("pool:poolscope_checkout_timeouts:ratio_rate{}", window.as_str())
}

/// Returns the name of the series with the share of checkouts that exceeded the objective's time limit.
#[must_use]
pub fn slow_share(window: BurnWindow) -> String {
    format!("pool:poolscope_checkouts_slow:ratio_rate{}", window.as_str())
}

/// Returns the share of time with every connection in use and a checkout waiting. The rate may exceed 1 after a late scrape,
/// and is clamped.
pub(super) fn saturated_share(window: &Threshold) -> String {
    format!("clamp_max(rate({SATURATED_SECONDS}[{window}]), 1)")
}

/// Returns the matcher of the bucket of `seconds`, written as 1 in the text format and as 1.0 in OpenMetrics.
pub(super) fn bucket(seconds: &Threshold) -> String {
    let mut bounds = format!("{:?}", seconds.value);
    if let Some(whole) = bounds.strip_suffix(".0") {
        bounds = format!("{whole}|{}[.]0", whole.to_owned());
    } else {
        bounds = bounds.replace('.', "[.]");
    }
    format!("le=~\"{bounds}\"")
}

/// Returns the rules that are evaluated at Prometheus' default interval, in the order of the file.
#[must_use]
pub fn recordings(thresholds: &Thresholds) -> Vec<Recording> {
    let w = &thresholds.window;
    let used = format!("sum without (db_client_connection_state) ({COUNT}{{db_client_connection_state=\"used\"}})");
    let fleet = |of: &str| format!("sum without ({INSTANCE_LABELS}) ({of})");
    let quantile = |q: &str| format!("histogram_quantile({q}, rate({WAIT_TIME}_bucket[{w}]))");
    let checkouts = format!("rate({WAIT_TIME}_count[{w}])");
    let queries = format!("sum without (db_query_summary, error_type) (rate({QUERY_TIME}_count[{w}]))");
    let slow = bucket(&thresholds.slow_query_seconds);
    let rule = |name: &str, help: &str, expr: String| Recording { name: name.to_owned(), expr, help: help.to_owned() };
    let mut all = vec![
        rule(USED_SHARE, "Share of the pool's maximum that is in use.", format!("{used}\n/\n({MAX} > 0)")),
        rule(SATURATED_SHARE, "Share of time with every connection in use and a checkout waiting.", saturated_share(w)),
        rule(CHECKOUTS, "Checkouts that ended per second, with any outcome.", checkouts.clone()),
        rule(WAIT_P50, "Median checkout time in seconds.", quantile("0.5")),
        rule(WAIT_P99, "99th percentile of the checkout time in seconds.", quantile("0.99")),
        rule(
            HELD_BY_ACTIVITY,
            "Average number of held connections, by activity.",
            format!("sum without (operation) (rate({USE_SECONDS}[{w}]))"),
        ),
        rule(
            HELD_BY_OPERATION,
            "Average number of held connections, by operation.",
            format!("sum without (activity) (rate({USE_SECONDS}[{w}]))"),
        ),
        rule(
            WAITING_BY_OPERATION,
            "Average number of waiting checkouts, by operation.",
            format!("rate({OPERATION_WAIT_SECONDS}[{w}])"),
        ),
        rule(CONNECTED, "Connections established per second.", format!("rate({CREATE_TIME}_count[{w}])")),
        rule(
            CONNECT_FAILURES,
            "Failed connection attempts per second.",
            format!("sum without (reason) (rate({CLOSED}{{reason=\"connect_failed\"}}[{w}]))"),
        ),
        rule(QUERIES, "Queries that ended per second.", queries.clone()),
        rule(
            SLOW_QUERY_SHARE,
            "Share of queries that took longer than the slow-query threshold.",
            format!(
                "1 -\nsum without (le, db_query_summary, error_type) \
                 (rate({QUERY_TIME}_bucket{{{slow}}}[{w}]))\n/\n({queries} > 0)"
            ),
        ),
        rule(
            RETRY_SHARE,
            "Retries per checkout.",
            format!("sum without (operation, sqlstate, error_type) (rate({RETRIES}[{w}]))\n/\n({checkouts} > 0)"),
        ),
        rule(FLEET_MAX, "Sum of the pools' maxima, over all instances.", fleet(MAX)),
        rule(
            FLEET_USED,
            "Connections in use, over all instances.",
            format!(
                "sum without ({INSTANCE_LABELS}, db_client_connection_state) \
                 ({COUNT}{{db_client_connection_state=\"used\"}})"
            ),
        ),
        rule(FLEET_PENDING, "Checkouts waiting for capacity, over all instances.", fleet(PENDING)),
        rule(FLEET_CHECKOUTS, "Checkouts that ended per second, over all instances.", fleet(&checkouts)),
        rule(CAUSE_INSTANCES, "Number of instances that are diagnosed with a cause.", fleet(DIAGNOSIS)),
        rule(
            CAUSE_SECONDS,
            "For how long the first of the instances has been diagnosed with a cause, in seconds.",
            format!("max without ({INSTANCE_LABELS}, operation, call_site) ({DIAGNOSIS_SECONDS})"),
        ),
    ];
    all.extend(error_ratios(thresholds, |window| !window.is_slow()));
    all
}

/// Returns the rules over long windows, which are evaluated less often.
#[must_use]
pub fn slow_recordings(thresholds: &Thresholds) -> Vec<Recording> {
    error_ratios(thresholds, BurnWindow::is_slow)
}

/// Returns the rate of checkouts that were not shed. Shed checkouts have a wait of zero, which would make an overloaded pool
/// look fast, and have an alert of their own. Their series does not exist until the first is shed.
fn admitted(range: &Threshold) -> String {
    let all = format!("rate({WAIT_TIME}_count[{range}])");
    let shed = format!("sum without (operation, outcome) (rate({CHECKOUT_OUTCOMES}{{outcome=\"shed\"}}[{range}]))");
    format!("(\n  {all} - {shed}\nor\n  {all}\n)")
}

/// Returns the error ratios of the objectives over the selected windows.
fn error_ratios(thresholds: &Thresholds, selected: impl Fn(BurnWindow) -> bool) -> Vec<Recording> {
    let bucket = bucket(&thresholds.wait_objective_seconds);
    let limit = thresholds.wait_objective_seconds.human();
    let mut rules = Vec::new();
    for window in BurnWindow::ALL.into_iter().filter(|window| selected(*window)) {
        let range = window.range(thresholds);
        let all = format!("({} > 0)", admitted(&range));
        let over = window.as_str();
        rules.push(Recording {
            name: timeout_share(window),
            expr: format!("rate({TIMEOUTS}[{range}])\n/\n{all}"),
            help: format!("Share of checkouts that timed out, over {over}."),
        });
        rules.push(Recording {
            name: slow_share(window),
            expr: format!(
                "(\n  rate({WAIT_TIME}_count[{range}])\n-\n  \
                 sum without (le) (rate({WAIT_TIME}_bucket{{{bucket}}}[{range}]))\n)\n/\n{all}"
            ),
            help: format!("Share of checkouts that took longer than {limit}, over {over}."),
        });
    }
    rules
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn windows_match_series_names() {
        let thresholds = Thresholds::committed().unwrap();
        assert_eq!(thresholds.window.to_string(), "5m");
        for window in BurnWindow::ALL {
            assert_eq!(window.range(&thresholds).to_string(), window.as_str());
        }
    }

    #[test]
    fn bucket_matches_both_formats() {
        let thresholds = Thresholds::committed().unwrap();
        assert_eq!(bucket(&thresholds.wait_objective_seconds), r#"le=~"1|1[.]0""#);
        assert_eq!(bucket(&thresholds.wait_p99_seconds), r#"le=~"0[.]25""#);
    }
}
