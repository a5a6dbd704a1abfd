//! The table of metrics.

use super::{BUILD_INFO, Kind, Metric, SCRAPE_DURATION, SCRAPES, requests, retries, server, spans, unpooled};
use crate::labels::{Activity, CloseReason, Direction, ErrorCode, Outcome, Phase};
use crate::telemetry::clock::{seconds, to_f64};
use crate::telemetry::ledger::{OperationTotals, PoolSnapshot};

/// Every metric, in the order of the reference.
pub const METRICS: &[Metric] = &[
    Metric::of_pool(
        "db_client_connection_count",
        Kind::Gauge,
        &["db_client_connection_state"],
        "Connections currently in the state: idle (in the pool) or used (held by a caller, or being pinged for one).",
        |pool, sink| {
            sink.value(&["idle"], count(pool.connections.idle));
            sink.value(&["used"], count(pool.connections.used));
        },
    ),
    Metric::of_pool(
        "db_client_connection_max",
        Kind::Gauge,
        &[],
        "How many connections there may be at once: pool_size + max_overflow.",
        |pool, sink| sink.value(&[], count(pool.limits.max())),
    ),
    Metric::of_pool(
        "db_client_connection_idle_max",
        Kind::Gauge,
        &[],
        "How many connections may lie idle: pool_size. What comes back beyond that is closed.",
        |pool, sink| sink.value(&[], count(pool.limits.pool_size)),
    ),
    Metric::of_pool(
        "db_client_connection_idle_min",
        Kind::Gauge,
        &[],
        "How many idle connections the pool keeps ready: none, it connects when asked.",
        |_, sink| sink.value(&[], 0.0),
    ),
    Metric::of_pool(
        "db_client_connection_pending_requests",
        Kind::Gauge,
        &[],
        "Checkouts currently waiting for capacity; those that are connecting or pinging are not among them.",
        |pool, sink| sink.value(&[], count(pool.queued)),
    ),
    Metric::of_pool(
        "db_client_connection_timeouts_total",
        Kind::Counter,
        &[],
        "Checkouts that met their deadline, whatever they were waiting for.",
        |pool, sink| sink.value(&[], to_f64(sum(pool, |operation| operation.outcomes[Outcome::Timeout.index()]))),
    ),
    Metric::of_pool(
        "db_client_connection_create_time_seconds",
        Kind::Histogram,
        &[],
        "Time to establish a connection, from the first socket to the server's readiness; successes only.",
        |pool, sink| sink.histogram(&[], &pool.create_time),
    ),
    Metric::of_pool(
        "db_client_connection_wait_time_seconds",
        Kind::Histogram,
        &[],
        "Time of a whole checkout, from its first poll until it ended, failed and cancelled ones included. One that is ready at its first poll, without connecting or pinging, counts as zero.",
        |pool, sink| sink.histogram(&[], &pool.wait_time),
    ),
    Metric::of_pool(
        "db_client_connection_use_time_seconds",
        Kind::Histogram,
        &[],
        "Time from a successful checkout until the connection was returned; counted at the return.",
        |pool, sink| sink.histogram(&[], &pool.use_time),
    ),
    Metric::of_pool(
        "poolscope_checkout_phase_seconds_total",
        Kind::Counter,
        &["phase"],
        "Where the time of checkouts went: queue (for capacity), connect, ping, clean, suspended (for their turn to connect, after connecting had failed), share (for others of their route, which may hold no more of the pool). Those in flight included.",
        |pool, sink| {
            for phase in Phase::ALL {
                sink.value(&[phase.as_str()], seconds(pool.phase_nanos[phase.index()]));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_operation_duration_seconds",
        Kind::Histogram,
        &["operation", "outcome"],
        "Time of a whole operation given to run: its checkout and its work. A checkout that failed gives its own outcome, work that failed gives error.",
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
    Metric::of_pool(
        "poolscope_checkouts_started_total",
        Kind::Counter,
        &["operation"],
        "Checkouts begun. At every scrape: the sum of poolscope_checkouts_total + poolscope_checkouts_in_flight.",
        |pool, sink| {
            for operation in active(pool) {
                sink.value(&[&operation.name], to_f64(operation.started));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_checkouts_total",
        Kind::Counter,
        &["operation", "outcome"],
        "Checkouts ended, each with exactly one outcome: ok, timeout, error (connecting failed), closed, shed, cancelled (the caller dropped the future).",
        |pool, sink| {
            for operation in active(pool) {
                for outcome in Outcome::ALL {
                    sink.value(&[&operation.name, outcome.as_str()], to_f64(operation.outcomes[outcome.index()]));
                }
            }
        },
    ),
    Metric::of_pool(
        "poolscope_checkouts_in_flight",
        Kind::Gauge,
        &[],
        "Checkouts currently begun and not ended, whatever they wait for.",
        |pool, sink| sink.value(&[], count(pool.in_flight)),
    ),
    Metric::of_pool(
        "poolscope_operation_wait_seconds_total",
        Kind::Counter,
        &["operation"],
        "Time that checkouts of the operation spent waiting, those in flight included. Its rate is how many of them wait on average: who suffers.",
        |pool, sink| {
            for operation in active(pool) {
                sink.value(&[&operation.name], seconds(operation.wait_nanos));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_checkout_wait_oldest_seconds",
        Kind::Gauge,
        &[],
        "Current age of the checkout that has been in flight for longest; 0 if there is none.",
        |pool, sink| sink.value(&[], pool.oldest_wait.as_secs_f64()),
    ),
    Metric::of_pool(
        "poolscope_connections_creating",
        Kind::Gauge,
        &[],
        "Connections currently being established: neither idle nor used.",
        |pool, sink| sink.value(&[], count(pool.connections.creating)),
    ),
    Metric::of_pool(
        "poolscope_connections_created_total",
        Kind::Counter,
        &[],
        "Connections begun, counted when connecting starts. At every scrape: the sum of poolscope_connections_closed_total + idle + used + creating.",
        |pool, sink| sink.value(&[], to_f64(pool.created)),
    ),
    Metric::of_pool(
        "poolscope_connections_closed_total",
        Kind::Counter,
        &["reason"],
        "Connections gone, by reason; connect_failed and connect_abandoned were never established.",
        |pool, sink| {
            for reason in CloseReason::ALL {
                sink.value(&[reason.as_str()], to_f64(pool.closed[reason.index()]));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_connection_errors_total",
        Kind::Counter,
        &["phase", "sqlstate"],
        "Errors that connections reported, by what was under way: connect (outside the pool, too), ping, query (whatever the server reported while the connection was held or idle) or reset (cleaning). Where the server sent no SQLSTATE the label says io, timeout, tls, auth or other.",
        |pool, sink| {
            for errors in &pool.errors {
                sink.value(&[errors.phase.as_str(), errors.code.as_str()], to_f64(errors.count));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_connection_use_seconds_total",
        Kind::Counter,
        &["operation", "activity"],
        "Time for which connections were held, by what they did: executing (from the first byte of a request until the server is ready for the next), idle_in_transaction, idle. Those that are held now included; pinging and cleaning too. Its rate is how many connections the operation holds on average: who holds the pool. The sum over operations is the integral of the used connections.",
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
        "Time of queries, read off the wire, by what they are: operations and tables, as in SELECT orders; BEGIN and COMMIT too. From a request's first byte until the server is ready for the next, so behind others in a pipeline the wait for those included. error_type is the SQLSTATE (io if no answer came), and empty for those that succeeded. At most 200 summaries are told apart, then the label says other.",
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
        "Queries sent, read off the wire: simple queries, executions of statements, function calls; BEGIN, COMMIT and ROLLBACK are queries too, the pool's own pings and cleaning are not.",
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
        "Queries that came to an end, with success or without. What is sent and not finished is executing, or was on a connection that is gone.",
        |pool, sink| {
            for operation in active(pool) {
                sink.value(&[&operation.name], to_f64(operation.queries_finished));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_query_errors_total",
        Kind::Counter,
        &["operation", "sqlstate"],
        "Errors that the server reported, by SQLSTATE. At most 1000 pairs are told apart, then the label says other.",
        |pool, sink| {
            for errors in &pool.query_errors {
                sink.value(&[&errors.operation, errors.code.as_str()], to_f64(errors.count));
            }
        },
    ),
    Metric::of_pool(
        "poolscope_wire_bytes_total",
        Kind::Counter,
        &["operation", "direction"],
        "Bytes of the protocol that passed on connections: sent to the server and received from it, before encryption; connecting, pinging and cleaning included.",
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
        "Connections on which something passed that was not understood: they work on, but nothing more is known of them. Should be zero.",
        |pool, sink| sink.value(&[], to_f64(pool.wires_lost)),
    ),
    Metric::of_pool(
        "poolscope_dirty_returns_total",
        Kind::Counter,
        &["operation", "kind"],
        "Connections that came back dirty, by the operation that held them: in_transaction, failed_transaction, busy (at a query that nobody waits for any more); with reset_session also what was left in the session. Nobody else got one before it was clean.",
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
    Metric::of_pool(
        "poolscope_connecting_suspended_seconds",
        Kind::Gauge,
        &[],
        "For how long connecting has currently been left to one checkout at a time, since it failed; 0 if it is not, or if nobody has needed to connect for ten seconds. How often that one tries is the rate of poolscope_connections_created_total.",
        |pool, sink| sink.value(&[], pool.connecting_suspended.as_secs_f64()),
    ),
    Metric::of_pool(
        "poolscope_suspected_leaks",
        Kind::Gauge,
        &[],
        "Connections currently held past leak_threshold, silent on the wire for as long, and not executing.",
        |pool, sink| sink.value(&[], count(pool.suspected_leaks)),
    ),
    Metric::of_pool(
        "poolscope_self_deadlocks_total",
        Kind::Counter,
        &[],
        "Checkouts that waited for capacity, 10 ms at least, while their own task held a connection of this pool: each may have waited for itself.",
        |pool, sink| sink.value(&[], to_f64(pool.self_deadlocks)),
    ),
    Metric::of_pool(
        "poolscope_saturated_seconds_total",
        Kind::Counter,
        &[],
        "Time during which every connection was taken and somebody was waiting for one.",
        |pool, sink| sink.value(&[], seconds(pool.saturated_nanos)),
    ),
    requests::DURATION,
    requests::IN_FLIGHT,
    requests::CHECKOUTS,
    requests::WAIT,
    requests::USE,
    requests::RETRIES,
    requests::WARNINGS,
    server::UP,
    server::SEEN,
    server::INFO,
    server::BACKENDS,
    server::SLOTS,
    server::SLOTS_LEFT,
    server::LOCK_WAITERS,
    server::OLDEST_TRANSACTION,
    server::OLDEST_IDLE_IN_TRANSACTION,
    unpooled::CONNECTIONS,
    unpooled::ACTIVE,
    unpooled::SECONDS,
    unpooled::CONNECT_SECONDS,
    Metric::of_pool(
        "poolscope_recommended_size",
        Kind::Gauge,
        &[],
        "Connections that the last five minutes' arrivals and use time ask for, so that the mean wait stays within wait_target (Erlang's C formula). Missing until there is enough to tell.",
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
    BUILD_INFO,
    SCRAPES,
    SCRAPE_DURATION,
];

/// Operations that did something, or were named; `other` only once it was needed.
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
