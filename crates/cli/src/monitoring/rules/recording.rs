//! The recording rules: what alerts and dashboards share, so that both say the same.
//!
//! They are named `level:metric:operation`, where the level says what a series is about:
//!
//! * `pool:` -- a pool of one instance,
//! * `operation:` -- an operation of such a pool,
//! * `activity:` -- an activity of its connections,
//! * `fleet:` -- the pools of one name and job, of all instances together.
//!
//! Nothing is aggregated by name: what its owners have labelled a target with stays.

use crate::monitoring::names::{
    CHECKOUT_OUTCOMES, CLOSED, COUNT, CREATE_TIME, MAX, OPERATION_WAIT_SECONDS, PENDING, QUERY_TIME, RETRIES,
    SATURATED_SECONDS, TIMEOUTS, USE_SECONDS, WAIT_TIME,
};
use crate::monitoring::thresholds::{Threshold, Thresholds};

/// A recording rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recording {
    /// What it is recorded as.
    pub name: String,
    /// What is recorded.
    pub expr: String,
    /// What it says, in a sentence.
    pub help: String,
}

/// Defines the names of recorded series.
macro_rules! recorded {
    ($($(#[$meta:meta])+ $constant:ident = $name:literal;)+) => {
        $($(#[$meta])+ pub const $constant: &str = $name;)+
    };
}

recorded! {
    /// The share of the pool's maximum that is used now.
    USED_SHARE = "pool:db_client_connection_used:ratio";
    /// The share of time with every connection taken and somebody waiting.
    SATURATED_SHARE = "pool:poolscope_saturated:ratio_rate5m";
    /// Checkouts ended a second, whatever their outcome.
    CHECKOUTS = "pool:poolscope_checkouts:rate5m";
    /// Half of the checkouts took no longer.
    WAIT_P50 = "pool:db_client_connection_wait_time_seconds:p50_rate5m";
    /// Ninety-nine of a hundred checkouts took no longer.
    WAIT_P99 = "pool:db_client_connection_wait_time_seconds:p99_rate5m";
    /// Connections held on average, by activity.
    HELD_BY_ACTIVITY = "activity:poolscope_connection_use:rate5m";
    /// Connections that each operation holds on average: who holds the pool.
    HELD_BY_OPERATION = "operation:poolscope_connection_use:rate5m";
    /// Checkouts of each operation that wait on average: who suffers.
    WAITING_BY_OPERATION = "operation:poolscope_operation_wait:rate5m";
    /// Connections established a second.
    CONNECTED = "pool:poolscope_connections_established:rate5m";
    /// Attempts to connect that failed, a second.
    CONNECT_FAILURES = "pool:poolscope_connect_failures:rate5m";
    /// Queries that ended, a second.
    QUERIES = "pool:poolscope_queries_ended:rate5m";
    /// The share of queries that were slow.
    SLOW_QUERY_SHARE = "pool:poolscope_queries_slow:ratio_rate5m";
    /// Retries for each checkout.
    RETRY_SHARE = "pool:poolscope_retries:ratio_rate5m";
    /// Connections that the pools of one name may have together, of all instances.
    FLEET_MAX = "fleet:db_client_connection_max:sum";
    /// Connections used now by the pools of one name, of all instances.
    FLEET_USED = "fleet:db_client_connection_used:sum";
    /// Checkouts waiting for capacity now, of all instances.
    FLEET_PENDING = "fleet:db_client_connection_pending_requests:sum";
    /// Checkouts ended a second, of all instances.
    FLEET_CHECKOUTS = "fleet:poolscope_checkouts:rate5m";
}

/// The labels that tell the instances of a job apart. A sum over instances is without them.
pub const INSTANCE_LABELS: &str = "instance, pod, node, host";

/// A window over which a budget's burning is looked at.
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
    /// All of them, the shortest first.
    pub const ALL: [Self; 7] = [Self::M5, Self::M30, Self::H1, Self::H2, Self::H6, Self::D1, Self::D3];

    /// As it stands in names.
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

    /// Whether it is so long that it is taken anew less often.
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

    /// As PromQL has it, at the pace of `thresholds`: there `window` is five minutes, unless time was made to pass faster.
    pub(super) fn range(self, thresholds: &Thresholds) -> Threshold {
        let window = &thresholds.window;
        Threshold { value: window.value / 5.0 * self.minutes(), ..window.clone() }
    }
}

/// The share of checkouts that timed out, over this window.
#[must_use]
pub fn timeout_share(window: BurnWindow) -> String {
    format!("pool:poolscope_checkout_timeouts:ratio_rate{}", window.as_str())
}

/// The share of checkouts that took longer than the objective allows, over this window.
#[must_use]
pub fn slow_share(window: BurnWindow) -> String {
    format!("pool:poolscope_checkouts_slow:ratio_rate{}", window.as_str())
}

/// The share of time with every connection taken and somebody waiting, over this window. A scrape that comes late makes a
/// second seem longer than it was.
pub(super) fn saturated_share(window: &Threshold) -> String {
    format!("clamp_max(rate({SATURATED_SECONDS}[{window}]), 1)")
}

/// The bucket of `seconds`, whether the scrape was in the text format, which writes 1, or in OpenMetrics, which writes 1.0.
pub(in crate::monitoring) fn bucket(seconds: &Threshold) -> String {
    let mut bounds = format!("{:?}", seconds.value);
    if let Some(whole) = bounds.strip_suffix(".0") {
        bounds = format!("{whole}|{}[.]0", whole.to_owned());
    } else {
        bounds = bounds.replace('.', "[.]");
    }
    format!("le=~\"{bounds}\"")
}

/// The rules that are taken anew whenever Prometheus evaluates, in the order in which they stand in the file.
#[must_use]
pub fn recordings(thresholds: &Thresholds) -> Vec<Recording> {
    let w = &thresholds.window;
    let used = format!("sum without (db_client_connection_state) ({COUNT}{{db_client_connection_state=\"used\"}})");
    let fleet = |of: &str| format!("sum without ({INSTANCE_LABELS}) ({of})");
    let quantile = |q: &str| format!("histogram_quantile({q}, rate({WAIT_TIME}_bucket[{w}]))");
    let checkouts = format!("rate({WAIT_TIME}_count[{w}])");
    let queries = format!("sum without (db_query_summary, error_type) (rate({QUERY_TIME}_count[{w}]))");
    let slow = bucket(&thresholds.slow_query_seconds);
    let of = |name: &str, help: &str, expr: String| Recording { name: name.to_owned(), expr, help: help.to_owned() };
    let mut all = vec![
        of(USED_SHARE, "The share of the pool's maximum that is used now.", format!("{used}\n/\n({MAX} > 0)")),
        of(SATURATED_SHARE, "The share of time with every connection taken and somebody waiting.", saturated_share(w)),
        of(CHECKOUTS, "Checkouts ended a second, whatever their outcome.", checkouts.clone()),
        of(WAIT_P50, "Half of the checkouts took no longer.", quantile("0.5")),
        of(WAIT_P99, "Ninety-nine of a hundred checkouts took no longer.", quantile("0.99")),
        of(
            HELD_BY_ACTIVITY,
            "Connections held on average, by activity.",
            format!("sum without (operation) (rate({USE_SECONDS}[{w}]))"),
        ),
        of(
            HELD_BY_OPERATION,
            "Connections that each operation holds on average: who holds the pool.",
            format!("sum without (activity) (rate({USE_SECONDS}[{w}]))"),
        ),
        of(
            WAITING_BY_OPERATION,
            "Checkouts of each operation that wait on average: who suffers.",
            format!("rate({OPERATION_WAIT_SECONDS}[{w}])"),
        ),
        of(CONNECTED, "Connections established a second.", format!("rate({CREATE_TIME}_count[{w}])")),
        of(
            CONNECT_FAILURES,
            "Attempts to connect that failed, a second.",
            format!("sum without (reason) (rate({CLOSED}{{reason=\"connect_failed\"}}[{w}]))"),
        ),
        of(QUERIES, "Queries that ended, a second.", queries.clone()),
        of(
            SLOW_QUERY_SHARE,
            "The share of queries that were slow.",
            format!(
                "1 -\nsum without (le, db_query_summary, error_type) (rate({QUERY_TIME}_bucket{{{slow}}}[{w}]))\n/\n({queries} > 0)"
            ),
        ),
        of(
            RETRY_SHARE,
            "Retries for each checkout.",
            format!("sum without (operation, sqlstate) (rate({RETRIES}[{w}]))\n/\n({checkouts} > 0)"),
        ),
        of(FLEET_MAX, "Connections that the pools of one name may have together, of all instances.", fleet(MAX)),
        of(
            FLEET_USED,
            "Connections used now by the pools of one name, of all instances.",
            format!(
                "sum without ({INSTANCE_LABELS}, db_client_connection_state) \
                 ({COUNT}{{db_client_connection_state=\"used\"}})"
            ),
        ),
        of(FLEET_PENDING, "Checkouts waiting for capacity now, of all instances.", fleet(PENDING)),
        of(FLEET_CHECKOUTS, "Checkouts ended a second, of all instances.", fleet(&checkouts)),
    ];
    all.extend(burning(thresholds, |window| !window.is_slow()));
    all
}

/// Those over long windows, which are taken anew less often.
#[must_use]
pub fn slow_recordings(thresholds: &Thresholds) -> Vec<Recording> {
    burning(thresholds, BurnWindow::is_slow)
}

/// Checkouts that were not refused: those that are shed have waited for nothing and got nothing. As waits of zero they would
/// make an overloaded pool look quick, and as failures they would tell of the alert for them once more. Nobody is there until
/// the first is shed.
fn admitted(range: &Threshold) -> String {
    let all = format!("rate({WAIT_TIME}_count[{range}])");
    let shed = format!("sum without (operation, outcome) (rate({CHECKOUT_OUTCOMES}{{outcome=\"shed\"}}[{range}]))");
    format!("(\n  {all} - {shed}\nor\n  {all}\n)")
}

/// What the objectives are held against, over the windows that are chosen.
fn burning(thresholds: &Thresholds, chosen: impl Fn(BurnWindow) -> bool) -> Vec<Recording> {
    let bucket = bucket(&thresholds.wait_objective_seconds);
    let limit = thresholds.wait_objective_seconds.human();
    let mut rules = Vec::new();
    for window in BurnWindow::ALL.into_iter().filter(|window| chosen(*window)) {
        let range = window.range(thresholds);
        let all = format!("({} > 0)", admitted(&range));
        let over = window.as_str();
        rules.push(Recording {
            name: timeout_share(window),
            expr: format!("rate({TIMEOUTS}[{range}])\n/\n{all}"),
            help: format!("The share of checkouts that timed out, over {over}."),
        });
        rules.push(Recording {
            name: slow_share(window),
            expr: format!(
                "(\n  rate({WAIT_TIME}_count[{range}])\n-\n  \
                 sum without (le) (rate({WAIT_TIME}_bucket{{{bucket}}}[{range}]))\n)\n/\n{all}"
            ),
            help: format!("The share of checkouts that took longer than {limit}, over {over}."),
        });
    }
    rules
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_windows_are_those_that_the_names_say() {
        let thresholds = Thresholds::committed().unwrap();
        assert_eq!(thresholds.window.to_string(), "5m");
        for window in BurnWindow::ALL {
            assert_eq!(window.range(&thresholds).to_string(), window.as_str());
        }
    }

    #[test]
    fn a_bucket_is_found_in_both_formats() {
        let thresholds = Thresholds::committed().unwrap();
        assert_eq!(bucket(&thresholds.wait_objective_seconds), r#"le=~"1|1[.]0""#);
        assert_eq!(bucket(&thresholds.wait_p99_seconds), r#"le=~"0[.]25""#);
    }
}
