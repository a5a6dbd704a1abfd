//! A snapshot of a pool, as plain data.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Holder, Limits, UnpooledTotals, Waiter};
use crate::labels::{
    Activity, CloseReason, ConnectionState, Direction, Dirt, ErrorCode, ErrorPhase, GiveUp, Outcome, Phase, PoolKind,
};
use crate::telemetry::caches::CacheTotals;
use crate::telemetry::connection::UnpackedState;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::requests::RequestTotals;
use crate::telemetry::server::ServerPoll;
use crate::telemetry::sizing::Sizing;
use crate::telemetry::verdict::Verdict;

/// The number of connections in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connections {
    /// Connections being established.
    pub creating: usize,
    /// Idle connections.
    pub idle: usize,
    /// Connections that are checked out, or being pinged or reset by the pool.
    pub used: usize,
    /// Connections that the pool has closed, while the server may still execute their queries.
    pub closing: usize,
}

impl Connections {
    pub(super) fn of(states: impl IntoIterator<Item = UnpackedState>) -> Self {
        let mut connections = Self::default();
        for state in states {
            match state.label {
                ConnectionState::Creating => connections.creating += 1,
                ConnectionState::Idle => connections.idle += 1,
                ConnectionState::Used => connections.used += 1,
                ConnectionState::Closing => connections.closing += 1,
            }
        }
        connections
    }

    /// Returns the number of connections in all states.
    #[must_use]
    pub fn live(&self) -> usize {
        self.creating + self.idle + self.used + self.closing
    }
}

/// Counters of one operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OperationTotals {
    /// The operation's name.
    pub name: Arc<str>,
    /// Checkouts started: the sum of `outcomes` and `in_flight`.
    pub started: u64,
    /// Checkouts that ended, by [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::COUNT],
    /// Checkouts in flight.
    pub in_flight: u64,
    /// Time spent waiting, in nanoseconds, including checkouts in flight.
    pub wait_nanos: u64,
    /// Time for which connections were held, in nanoseconds; counted at their return.
    pub use_nanos: u64,
    /// Uses that ended.
    pub returned: u64,
    /// Time for which connections were held, in nanoseconds, by [`Activity::ALL`]; includes connections currently held,
    /// and pinging and resetting on behalf of this operation.
    pub activity_nanos: [u64; Activity::COUNT],
    /// Queries sent.
    pub queries: u64,
    /// Queries that ended, successfully or not.
    pub queries_finished: u64,
    /// Bytes sent and received, by [`Direction::ALL`].
    pub wire_bytes: [u64; Direction::COUNT],
    /// How often the operation succeeded after a retry.
    pub recovered: u64,
    /// Durations of the whole operation, by [`Outcome::ALL`].
    pub durations: [Histogram; Outcome::COUNT],
}

/// The durations of the queries with one summary and result.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryDurations {
    /// The summary: operations and targets, as in `SELECT orders`.
    pub summary: Arc<str>,
    /// The error code; `None` for successful queries.
    pub error: Option<ErrorCode>,
    /// The durations, from the first byte of a request until the server was ready for the next one.
    pub durations: Histogram,
}

/// The number of errors that the server reported to an operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryErrors {
    /// The operation's name.
    pub operation: Arc<str>,
    /// The error code.
    pub code: ErrorCode,
    /// The number since the pool was created.
    pub count: u64,
}

/// The number of retries of an operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Retries {
    /// The operation's name.
    pub operation: Arc<str>,
    /// The code of the error that was retried.
    pub code: ErrorCode,
    /// The number since the pool was created.
    pub count: u64,
}

/// The number of times that an operation with a retry policy failed and was not retried.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetriesExhausted {
    /// The operation's name.
    pub operation: Arc<str>,
    /// Why it was not retried.
    pub reason: GiveUp,
    /// The code of the error that was retried.
    pub code: ErrorCode,
    /// The number since the pool was created.
    pub count: u64,
}

/// The number of dirty connections that an operation returned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DirtyReturns {
    /// The operation's name.
    pub operation: Arc<str>,
    /// In what way they were dirty.
    pub dirt: Dirt,
    /// The number since the pool was created.
    pub count: u64,
}

/// The number of checkouts of an operation that waited for capacity while their own task held a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SelfDeadlocks {
    /// The name of the operation that waited.
    pub operation: Arc<str>,
    /// The number since the pool was created.
    pub count: u64,
}

/// The number of errors on connections.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionErrors {
    /// What the connection was doing.
    pub phase: ErrorPhase,
    /// The error code.
    pub code: ErrorCode,
    /// The number since the pool was created.
    pub count: u64,
}

/// Everything a pool has recorded, at one point in time.
///
/// ```no_run
/// # fn example(pool: &poolscope::Pool) {
/// use poolscope::labels::Outcome;
///
/// for operation in pool.snapshot().operations {
///     println!("{}: {} timeouts", operation.name, operation.outcomes[Outcome::Timeout.index()]);
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// The pool's name.
    pub name: Arc<str>,
    /// Where the pool is. What a proxy does not see is zero or empty: checkouts, waits, and the limits that are unknown.
    pub kind: PoolKind,
    /// Since when the counters count: when the pool was created, or in a [`Collector`](crate::Collector)'s snapshots the
    /// first of the pools that have replaced each other.
    pub counting_since: SystemTime,
    /// The pool's limits.
    pub limits: Limits,
    /// The number of connections in each state.
    pub connections: Connections,
    /// Counters by operation, `other` first, including operations that have a name but no checkout yet.
    pub operations: Vec<OperationTotals>,
    /// Checkouts waiting for capacity.
    pub queued: usize,
    /// Checkouts in flight, whatever they are waiting for.
    pub in_flight: usize,
    /// The age of the oldest checkout in flight; zero if there is none.
    pub oldest_wait: Duration,
    /// Durations of checkouts, including failed ones.
    pub wait_time: Histogram,
    /// Durations from checkout to return.
    pub use_time: Histogram,
    /// Durations of successful connects.
    pub create_time: Histogram,
    /// Time spent waiting, in nanoseconds, by [`Phase::ALL`].
    pub phase_nanos: [u64; Phase::COUNT],
    /// Time during which at least one checkout was waiting for capacity, in nanoseconds.
    pub saturated_nanos: u64,
    /// Connections for which connecting started: the sum of `closed` and `connections`.
    pub created: u64,
    /// Connections closed, by [`CloseReason::ALL`].
    pub closed: [u64; CloseReason::COUNT],
    /// Closed connections that the server may not have let go of, because `close_timeout` passed or their runtime ended.
    pub close_timeouts: u64,
    /// Errors on connections, by phase and code.
    pub errors: Vec<ConnectionErrors>,
    /// Durations of queries, by summary and error code.
    pub queries: Vec<QueryDurations>,
    /// Errors that the server reported, by operation and code.
    pub query_errors: Vec<QueryErrors>,
    /// Dirty returns, by operation and kind.
    pub dirty_returns: Vec<DirtyReturns>,
    /// Connections held longer than `leak_threshold`, silent and not executing.
    pub suspected_leaks: usize,
    /// Checkouts that waited for capacity while their own task held a connection, by the operation that waited.
    pub self_deadlocks: Vec<SelfDeadlocks>,
    /// Connections whose wire is no longer observed because it was not understood.
    pub wires_lost: u64,
    /// Retries, by operation and code.
    pub retries: Vec<Retries>,
    /// Operations with a retry policy that failed and were not retried, by operation, reason and code.
    pub retries_exhausted: Vec<RetriesExhausted>,
    /// The number of retries that may be made now.
    pub retry_budget: f64,
    /// For how long connecting has been left to one checkout at a time since it failed; zero if it is not, or if no
    /// checkout has tried to connect for ten seconds.
    pub connecting_suspended: Duration,
    /// Connections outside the pool, by operation. Of the other fields only `errors` includes them.
    pub unpooled: Vec<UnpooledTotals>,
    /// The cost of requests that a layer of [`middleware`](crate::middleware) serves, by route and method.
    pub requests: Vec<RequestTotals>,
    /// The caches in front of the pool, by name.
    pub caches: Vec<CacheTotals>,
    /// The server's view of itself, if [`Pool::watch_server`](crate::Pool::watch_server) queries it.
    pub server: Option<ServerPoll>,
    /// The number of connections with which 99 % of checkouts wait for less than `wait_target`, by a replay of the load of
    /// the last half hour; at most as many as the server has slots for, if it is watched. `None` until enough was recorded,
    /// and while the [verdict](Verdict::withheld_by) names a fault that inflates the demand.
    pub recommended_size: Option<usize>,
    /// The replay that `recommended_size` rests on; `None` until enough was recorded. It does not include the time of such
    /// faults.
    pub sizing: Option<Arc<Sizing>>,
    /// The verdict of the diagnosis as of the last sample; `None` before the first one.
    pub diagnosis: Option<Arc<Verdict>>,
    /// The holders of connections, oldest first.
    pub holders: Vec<Holder>,
    /// The checkouts in flight, oldest first.
    pub waiters: Vec<Waiter>,
}

impl PoolSnapshot {
    /// Returns the maximum number of connections. If it is unknown, as for most pools of a proxy, the number that are open.
    pub(crate) fn max(&self) -> usize {
        match self.limits.max() {
            0 => self.connections.live(),
            max => max,
        }
    }
}
