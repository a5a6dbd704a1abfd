//! The metrics that rules and dashboards speak of. A name that the catalogue does not have does not compile.

use poolscope::telemetry::catalogue::METRICS;
pub use poolscope::telemetry::catalogue::POOL_LABEL;

/// The name itself, if the catalogue has it.
///
/// # Panics
///
/// If it does not, which in a constant means that the code does not compile.
#[must_use]
pub const fn metric(name: &'static str) -> &'static str {
    let mut at = 0;
    while at < METRICS.len() {
        if same(METRICS[at].name, name) {
            return name;
        }
        at += 1;
    }
    panic!("there is no metric of this name in the catalogue")
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Defines a constant for each metric, with the catalogue's name.
macro_rules! metrics {
    ($($constant:ident = $name:literal;)+) => {
        $(#[doc = concat!("`", $name, "`")] pub const $constant: &str = metric($name);)+
    };
}

metrics! {
    BUILD_INFO = "poolscope_build_info";
    CHECKOUT_PHASE_SECONDS = "poolscope_checkout_phase_seconds_total";
    CHECKOUT_OUTCOMES = "poolscope_checkouts_total";
    CLOSED = "poolscope_connections_closed_total";
    CONNECTION_ERRORS = "poolscope_connection_errors_total";
    COUNT = "db_client_connection_count";
    CREATE_TIME = "db_client_connection_create_time_seconds";
    DIRTY_RETURNS = "poolscope_dirty_returns_total";
    MAX = "db_client_connection_max";
    OPERATION_WAIT_SECONDS = "poolscope_operation_wait_seconds_total";
    PENDING = "db_client_connection_pending_requests";
    QUERY_TIME = "db_client_operation_duration_seconds";
    REQUEST_TIME = "poolscope_request_duration_seconds";
    REQUEST_WARNINGS = "poolscope_request_warnings_total";
    RETRIES = "poolscope_retries_total";
    RETRY_EXHAUSTED = "poolscope_retry_exhausted_total";
    SATURATED_SECONDS = "poolscope_saturated_seconds_total";
    SCRAPES = "poolscope_scrapes_total";
    SELF_DEADLOCKS = "poolscope_self_deadlocks_total";
    SERVER_BACKENDS = "poolscope_server_backends";
    SERVER_SLOTS = "poolscope_server_slots";
    SERVER_SLOTS_LEFT = "poolscope_server_slots_left";
    SERVER_UP = "poolscope_server_up";
    SPANS_DROPPED = "poolscope_spans_dropped_total";
    SPANS_ENDED = "poolscope_spans_ended_total";
    SPANS_FAILED = "poolscope_spans_failed_total";
    SUSPECTED_LEAKS = "poolscope_suspected_leaks";
    TIMEOUTS = "db_client_connection_timeouts_total";
    USE_SECONDS = "poolscope_connection_use_seconds_total";
    USE_TIME = "db_client_connection_use_time_seconds";
    WAIT_TIME = "db_client_connection_wait_time_seconds";
    WIRES_LOST = "poolscope_wires_lost_total";
}
