//! The table of all metrics.

use super::{
    BUILD_INFO, Kind, LOG_LINES_LOST, Metric, SCRAPE_DURATION, SCRAPES, caches, diagnosis, incidents, redis, requests,
    retries, server, spans, unpooled,
};
use crate::labels::{Activity, CloseReason, Direction, ErrorCode, Outcome, Phase};
use crate::telemetry::clock::{seconds, to_f64};
use crate::telemetry::ledger::{OperationTotals, PoolSnapshot};

/// All metrics, in the order of `docs/metrics.md`.
pub const METRICS: &[Metric] = &[
    Metric::of_pool(
        "db_client_connection_count",
        Kind::Gauge,
        &["db_client_connection_state"],
        "Connections by state: idle (in the pool) or used (checked out, or being pinged or reset by the pool).",
        |pool, sink| {
            sink.value(&["idle"], count(pool.connections.idle));
            sink.value(&["used"], count(pool.connections.used));
        },
    ),
    Metric::of_pool(
        "db_client_connection_max",
        Kind::Gauge,
        &[],
        "Maximum number of connections: pool_size + max_overflow. Missing for the pools of a proxy, unless it is configured there.",
        |pool, sink| {
            if pool.limits.max() > 0 {
                sink.value(&[], count(pool.limits.max()));
            }
        },
    ),
    Metric::of_own_pool(
        "db_client_connection_idle_max",
        Kind::Gauge,
        &[],
        "Maximum number of idle connections: pool_size. A connection that is returned beyond it is closed.",
        |pool, sink| sink.value(&[], count(pool.limits.pool_size)),
    ),
    Metric::of_own_pool(
        "db_client_connection_idle_min",
        Kind::Gauge,
        &[],
        "Minimum number of idle connections. Always 0, because the pool connects on demand.",
        |_, sink| sink.value(&[], 0.0),
    ),
    Metric::of_own_pool(
        "db_client_connection_pending_requests",
        Kind::Gauge,
        &[],
        "Checkouts currently waiting for capacity, without those that are connecting or pinging.",
        |pool, sink| sink.value(&[], count(pool.queued)),
    ),
    Metric::of_own_pool(
        "db_client_connection_timeouts_total",
        Kind::Counter,
        &[],
        "Checkouts that timed out, whatever they were waiting for.",
        |pool, sink| sink.value(&[], to_f64(sum(pool, |operation| operation.outcomes[Outcome::Timeout.index()]))),
    ),
    Metric::of_pool(
        "db_client_connection_create_time_seconds",
        Kind::Histogram,
        &[],
        "Duration of successful connects, from opening the socket until the server is ready.",
        |pool, sink| sink.histogram(&[], &pool.create_time),
    ),
    Metric::of_own_pool(
        "db_client_connection_wait_time_seconds",
        Kind::Histogram,
        &[],
        "Duration of checkouts, from their first poll to their end, including failed and cancelled ones. A checkout that is ready at its first poll, without connecting or pinging, counts as zero.",
        |pool, sink| sink.histogram(&[], &pool.wait_time),
    ),
    Metric::of_pool(
        "db_client_connection_use_time_seconds",
        Kind::Histogram,
        &[],
        "Time from a successful checkout to the return of the connection; counted at the return.",
        |pool, sink| sink.histogram(&[], &pool.use_time),
    ),
    Metric::of_own_pool(
        "poolscope_checkout_phase_seconds_total",
        Kind::Counter,
        &["phase"],
        "Time spent in checkouts, by what they waited for: queue (capacity), connect, ping, clean (a reset), hook (before_checkout), suspended (a turn to connect, after connecting had failed), share (a turn within a route that holds its share of the pool). Includes checkouts in flight.",
        |pool, sink| {
            for phase in Phase::ALL {
                sink.value(&[phase.as_str()], seconds(pool.phase_nanos[phase.index()]));
            }
        },
    ),
    Metric::of_own_pool(
        "poolscope_operation_duration_seconds",
        Kind::Histogram,
        &["operation", "outcome"],
        "Duration of operations passed to run, including their checkout. A failed checkout has its own outcome, a failed operation has the outcome error.",
        |pool, sink| {
            for operation in &pool.operations {
                for outcome in Outcome::ALL {
                    let durations = &operation.durations[outcome.index()];
                    if durations.count() > 0 {
                        sink.histogram(&[&operation.name, outcome.as_str()], durations);
                    }
                }
            }
        },
    ),
    Metric::of_own_pool(
        "poolscope_checkouts_started_total",
        Kind::Counter,
        &["operation"],
        "Checkouts started. At every scrape equal to the sum of poolscope_checkouts_total plus poolscope_checkouts_in_flight.",
        |pool, sink| {
            for operation in active(pool) {
                sink.value(&[&operation.name], to_f64(operation.started));
            }
        },
    ),
    Metric::of_own_pool(
        "poolscope_checkouts_total",
        Kind::Counter,
        &["operation", "outcome"],
        "Checkouts ended, by outcome; each has exactly one: ok, timeout, error (connecting failed, or was suspended after a failure), closed, shed, cancelled (the caller dropped the future).",
        |pool, sink| {
            for operation in active(pool) {
                for outcome in Outcome::ALL {
                    sink.value(&[&operation.name, outcome.as_str()], to_f64(operation.outcomes[outcome.index()]));
                }
            }
        },
    ),
    Metric::of_own_pool(
        "poolscope_checkouts_in_flight",
        Kind::Gauge,
        &[],
        "Checkouts started and not yet ended, whatever they are waiting for.",
        |pool, sink| sink.value(&[], count(pool.in_flight)),
    ),
    Metric::of_own_pool(
        "poolscope_operation_wait_seconds_total",
        Kind::Counter,
        &["operation"],
        "Time that the checkouts of an operation spent waiting, including checkouts in flight. The rate is the mean number of its checkouts that are waiting.",
        |pool, sink| {
            for operation in active(pool) {
                sink.value(&[&operation.name], seconds(operation.wait_nanos));
            }
        },
    ),
    Metric::of_own_pool(
        "poolscope_checkout_wait_oldest_seconds",
        Kind::Gauge,
        &[],
        "Age of the oldest checkout in flight; 0 if there is none.",
        |pool, sink| sink.value(&[], pool.oldest_wait.as_secs_f64()),
    ),
    Metric::of_pool(
        "poolscope_connections_creating",
        Kind::Gauge,
        &[],
        "Connections currently being established, counted neither as idle nor as used.",
        |pool, sink| sink.value(&[], count(pool.connections.creating)),
    ),
    Metric::of_own_pool(
        "poolscope_connections_closing",
        Kind::Gauge,
        &[],
        "Connections that the pool has closed and that keep their places, because the server may still execute their queries; counted neither as idle nor as used. See the setting close_timeout.",
        |pool, sink| sink.value(&[], count(pool.connections.closing)),
    ),
    Metric::of_pool(
        "poolscope_connections_created_total",
        Kind::Counter,
        &[],
        "Connections created, counted when connecting starts. At every scrape equal to the sum of poolscope_connections_closed_total plus the idle, used, creating and closing connections.",
        |pool, sink| sink.value(&[], to_f64(pool.created)),
    ),
    Metric::of_pool(
        "poolscope_connections_closed_total",
        Kind::Counter,
        &["reason"],
        "Connections closed, by reason; connect_failed and connect_abandoned were never established.",
        |pool, sink| {
            for reason in CloseReason::ALL {
                sink.value(&[reason.as_str()], to_f64(pool.closed[reason.index()]));
            }
        },
    ),
    Metric::of_own_pool(
        "poolscope_close_timeouts_total",
        Kind::Counter,
        &[],
        "Closed connections whose places were given up after close_timeout, or because their runtime did not run, although the server may not have let go of them. Each may be a backend beyond the pool's maximum until its query ends.",
        |pool, sink| sink.value(&[], to_f64(pool.close_timeouts)),
    ),
    Metric::of_pool(
        "poolscope_connection_errors_total",
        Kind::Counter,
        &["phase", "sqlstate", "error_type"],
        "Errors on connections, by phase: connect (a failed attempt, also outside the pool), ping, query (reported by the server while the connection was checked out or idle), reset, hook (before_checkout), or checkout (a checkout that needed a new connection and ended without one: refused or timed out while connecting is suspended, counted with the error of the last attempt; too_slow if its own attempt took longer than checkout_timeout, and dropped if its caller gave up meanwhile). error_type is the SQLSTATE or, where the server sent none, io, timeout, tls, auth, hook or other; sqlstate is empty then.",
        |pool, sink| {
            for errors in &pool.errors {
                let [sqlstate, error_type] = errors.code.labels();
                sink.value(&[errors.phase.as_str(), sqlstate, error_type], to_f64(errors.count));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_connection_use_seconds_total",
        Kind::Counter,
        &["operation", "activity"],
        "Time for which connections were held, by activity: executing (from the first byte of a request until the server is ready for the next one), idle_in_transaction, idle. Includes connections currently held, and pinging and resetting. The rate is the mean number of connections that the operation holds; the sum over all operations is the time integral of the used connections.",
        |pool, sink| {
            for operation in active(pool) {
                for activity in Activity::ALL {
                    sink.value(
                        &[&operation.name, activity.as_str()],
                        seconds(operation.activity_nanos[activity.index()]),
                    );
                }
            }
        },
    ),
    Metric::of_pool(
        "db_client_operation_duration_seconds",
        Kind::Histogram,
        &["db_query_summary", "error_type"],
        "Duration of queries as observed on the wire, by summary: operations and tables, for example SELECT orders; including BEGIN and COMMIT. From the first byte of the request until the server is ready for the next one, so pipelined queries include the wait for earlier ones. error_type is the SQLSTATE (io if there was no reply), empty on success. At most 200 summaries per pool; further ones are counted as other.",
        |pool, sink| {
            for query in &pool.queries {
                let error = query.error.as_ref().map_or("", ErrorCode::as_str);
                sink.histogram(&[&query.summary, error], &query.durations);
            }
        },
    ),
    Metric::of_pool(
        "poolscope_queries_total",
        Kind::Counter,
        &["operation"],
        "Queries sent, as observed on the wire: simple queries, executions of statements and function calls, including BEGIN, COMMIT and ROLLBACK, without pinging and resetting by the pool.",
        |pool, sink| {
            for operation in active(pool) {
                sink.value(&[&operation.name], to_f64(operation.queries));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_queries_finished_total",
        Kind::Counter,
        &["operation"],
        "Queries ended, successfully or not. Queries sent but not finished are executing, or were on a connection that was closed.",
        |pool, sink| {
            for operation in active(pool) {
                sink.value(&[&operation.name], to_f64(operation.queries_finished));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_query_errors_total",
        Kind::Counter,
        &["operation", "sqlstate", "error_type"],
        "Errors reported by the server, by SQLSTATE, which error_type repeats. At most 1000 combinations per pool; further ones have the error_type other and an empty sqlstate.",
        |pool, sink| {
            for errors in &pool.query_errors {
                let [sqlstate, error_type] = errors.code.labels();
                sink.value(&[&errors.operation, sqlstate, error_type], to_f64(errors.count));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_wire_bytes_total",
        Kind::Counter,
        &["operation", "direction"],
        "Protocol bytes sent to and received from the server, before encryption, including connecting, pinging and resetting.",
        |pool, sink| {
            for operation in active(pool) {
                for direction in Direction::ALL {
                    sink.value(&[&operation.name, direction.as_str()], to_f64(operation.wire_bytes[direction.index()]));
                }
            }
        },
    ),
    Metric::of_pool(
        "poolscope_wires_lost_total",
        Kind::Counter,
        &[],
        "Connections whose protocol stream was not understood: they remain usable but are no longer observed. Should be 0.",
        |pool, sink| sink.value(&[], to_f64(pool.wires_lost)),
    ),
    Metric::of_pool(
        "poolscope_dirty_returns_total",
        Kind::Counter,
        &["operation", "kind"],
        "Connections returned dirty, by the operation that held them and by kind: in_transaction, failed_transaction, busy (executing an abandoned query); with reset_session also session state that was left behind. They are reset before they are handed out again, or else closed.",
        |pool, sink| {
            for returns in &pool.dirty_returns {
                sink.value(&[&returns.operation, returns.dirt.as_str()], to_f64(returns.count));
            }
        },
    ),
    retries::RETRIES,
    retries::RECOVERED,
    retries::EXHAUSTED,
    retries::BUDGET,
    Metric::of_own_pool(
        "poolscope_connecting_suspended_seconds",
        Kind::Gauge,
        &[],
        "Time for which connecting has been left to one checkout at a time since it failed; 0 if it is not, or if no checkout has needed to connect for ten seconds. The rate of poolscope_connections_created_total is the rate of its attempts.",
        |pool, sink| sink.value(&[], pool.connecting_suspended.as_secs_f64()),
    ),
    Metric::of_pool(
        "poolscope_suspected_leaks",
        Kind::Gauge,
        &[],
        "Connections currently held longer than leak_threshold, silent on the wire for as long, and not executing.",
        |pool, sink| sink.value(&[], count(pool.suspected_leaks)),
    ),
    Metric::of_own_pool(
        "poolscope_self_deadlocks_total",
        Kind::Counter,
        &["operation"],
        "Checkouts that waited for capacity for at least 10 ms while their own task held a connection of the same pool, by the operation that waited: each may have waited for itself.",
        |pool, sink| {
            for deadlocks in &pool.self_deadlocks {
                sink.value(&[&deadlocks.operation], to_f64(deadlocks.count));
            }
        },
    ),
    Metric::of_own_pool(
        "poolscope_saturated_seconds_total",
        Kind::Counter,
        &[],
        "Time during which every connection was taken and at least one checkout was waiting for capacity.",
        |pool, sink| sink.value(&[], seconds(pool.saturated_nanos)),
    ),
    requests::DURATION,
    requests::IN_FLIGHT,
    requests::CHECKOUTS,
    requests::WAIT,
    requests::USE,
    requests::RETRIES,
    requests::WARNINGS,
    caches::LOOKUPS_STARTED,
    caches::LOOKUPS,
    caches::LOAD_DURATION,
    caches::LOADS_IN_FLIGHT,
    caches::LOADS_MAX,
    caches::SAVED,
    caches::ERRORS,
    caches::BYTES,
    server::UP,
    server::SEEN,
    server::INFO,
    server::BACKENDS,
    server::UNOWNED,
    server::SLOTS,
    server::SLOTS_LEFT,
    server::LOCK_WAITERS,
    server::OLDEST_TRANSACTION,
    server::OLDEST_IDLE_IN_TRANSACTION,
    redis::INFO,
    redis::CLIENTS,
    redis::CLIENTS_BLOCKED,
    redis::CLIENTS_MAX,
    redis::REJECTED,
    redis::MEMORY,
    redis::MEMORY_MAX,
    redis::EVICTED,
    redis::HITS,
    redis::MISSES,
    unpooled::CONNECTIONS,
    unpooled::ACTIVE,
    unpooled::SECONDS,
    unpooled::CONNECT_SECONDS,
    diagnosis::CAUSE,
    diagnosis::SECONDS,
    diagnosis::EVIDENCE,
    diagnosis::EVIDENCE_USUAL,
    Metric::of_own_pool(
        "poolscope_recommended_size",
        Kind::Gauge,
        &[],
        "Number of connections with which 99 % of checkouts would have waited for less than wait_target, by a replay of the arrivals and use times of the last half hour; at most as many as the server has slots for. Missing until 100 checkouts in 10 s were recorded, and while poolscope_diagnosis names a fault that inflates the demand: held_idle, idle_in_transaction, leak, lock_wait, retry_storm, runtime_stalled, self_deadlock, server_down or slow_queries. docs/sizing.md explains it.",
        |pool, sink| {
            if let Some(size) = pool.recommended_size {
                sink.value(&[], count(size));
            }
        },
    ),
    spans::ENDED,
    spans::QUEUED,
    spans::EXPORTED,
    spans::DROPPED,
    spans::FAILED,
    incidents::FILES,
    incidents::ERRORS,
    BUILD_INFO,
    SCRAPES,
    SCRAPE_DURATION,
    LOG_LINES_LOST,
];

/// Returns the operations to report: all that have a name, and `other` once it has been used.
pub(super) fn active(pool: &PoolSnapshot) -> impl Iterator<Item = &OperationTotals> {
    pool.operations
        .iter()
        .enumerate()
        .filter(|(id, operation)| *id > 0 || operation.started > 0)
        .map(|(_, operation)| operation)
}

fn sum(pool: &PoolSnapshot, of: impl Fn(&OperationTotals) -> u64) -> u64 {
    pool.operations.iter().map(of).sum()
}

fn count(value: usize) -> f64 {
    to_f64(value as u64)
}
