//! The metrics that rules and dashboards query. A name that is not in the catalogue does not compile.

pub use poolscope::telemetry::MAX_OPERATIONS;
pub use poolscope::telemetry::catalogue::{METRICS, POOL_LABEL};

/// Returns `name` if the catalogue contains it.
///
/// # Panics
///
/// Panics for an unknown name, which in a constant is a compile error.
#[must_use]
pub const fn metric(name: &'static str) -> &'static str {
    let mut index = 0;
    while index < METRICS.len() {
        if eq(METRICS[index].name, name) {
            return name;
        }
        index += 1;
    }
    panic!("the catalogue has no metric of this name")
}

/// Compares two strings in a constant.
const fn eq(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Defines a constant for each metric, checked against the catalogue.
macro_rules! metrics {
    ($($constant:ident = $name:literal;)+) => {
        $(#[doc = concat!("`", $name, "`")] pub const $constant: &str = metric($name);)+
    };
}

metrics! {
    BUILD_INFO = "poolscope_build_info";
    CACHE_LOOKUPS = "poolscope_cache_lookups_total";
    CHECKOUT_PHASE_SECONDS = "poolscope_checkout_phase_seconds_total";
    CHECKOUT_OUTCOMES = "poolscope_checkouts_total";
    CLOSED = "poolscope_connections_closed_total";
    CONNECTION_ERRORS = "poolscope_connection_errors_total";
    COUNT = "db_client_connection_count";
    CREATE_TIME = "db_client_connection_create_time_seconds";
    DIAGNOSIS = "poolscope_diagnosis";
    DIAGNOSIS_SECONDS = "poolscope_diagnosis_seconds";
    DIRTY_RETURNS = "poolscope_dirty_returns_total";
    LOG_LINES_LOST = "poolscope_log_lines_lost_total";
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
