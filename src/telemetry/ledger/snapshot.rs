//! One moment of a pool, as plain data.

use std::sync::Arc;
use std::time::Duration;

use super::{Holder, Limits, UnpooledTotals, Waiter};
use crate::labels::{
    Activity, CloseReason, ConnectionState, Direction, Dirt, ErrorCode, ErrorPhase, GiveUp, Outcome, Phase,
};
use crate::telemetry::histogram::Histogram;
use crate::telemetry::requests::RequestTotals;
use crate::telemetry::seat::UnpackedState;
use crate::telemetry::server::ServerLook;

/// How many connections there are in each state. Their sum is how many are live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connections {
    /// Being established.
    pub creating: usize,
    /// In the pool.
    pub idle: usize,
    /// Held by callers, or being pinged for one.
    pub used: usize,
}

impl Connections {
    pub(super) fn of(standings: impl IntoIterator<Item = UnpackedState>) -> Self {
        let mut connections = Self::default();
        for unpacked_state in standings {
            match unpacked_state.state {
                ConnectionState::Creating => connections.creating += 1,
                ConnectionState::Idle => connections.idle += 1,
                ConnectionState::Used => connections.used += 1,
            }
        }
        connections
    }

    /// All of them.
    #[must_use]
    pub fn live(&self) -> usize {
        self.creating + self.idle + self.used
    }
}

/// What the checkouts of one operation came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OperationTotals {
    /// The operation's name.
    pub name: Arc<str>,
    /// Checkouts begun: the sum of `outcomes` and `in_flight`.
    pub started: u64,
    /// Checkouts that ended, by [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::COUNT],
    /// Checkouts that have not ended.
    pub in_flight: u64,
    /// Time spent waiting, in nanoseconds, by those in flight too.
    pub wait_nanos: u64,
    /// Time for which connections were held, in nanoseconds, counted when they are returned.
    pub use_nanos: u64,
    /// Uses that ended.
    pub returned: u64,
    /// Time for which connections were held by what they did, in nanoseconds, by [`Activity::ALL`]: those that are
    /// held now included, and the time for which they were pinged or cleaned for this operation.
    pub activity_nanos: [u64; Activity::COUNT],
    /// Queries sent.
    pub queries: u64,
    /// Queries that came to an end, with success or without.
    pub queries_finished: u64,
    /// Bytes on the wire, by [`Direction::ALL`].
    pub wire_bytes: [u64; Direction::COUNT],
    /// How often it succeeded after it had failed.
    pub recovered: u64,
    /// Durations of the operation as a whole, by [`Outcome::ALL`].
    pub durations: [Histogram; Outcome::COUNT],
}

/// How long the queries of one kind took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryDurations {
    /// What they are: operations and targets, as in `SELECT orders`.
    pub summary: Arc<str>,
    /// The error that they ended with; `None` of those that succeeded.
    pub error: Option<ErrorCode>,
    /// How long they took, from the request's first byte until the server was ready for the next.
    pub durations: Histogram,
}

/// How often the server reported an error to an operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryErrors {
    /// The operation's name.
    pub operation: Arc<str>,
    /// What the error said.
    pub code: ErrorCode,
    /// How often, since the pool was made.
    pub count: u64,
}

/// How often an operation was tried again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Retries {
    /// The operation's name.
    pub operation: Arc<str>,
    /// What had failed.
    pub code: ErrorCode,
    /// How often, since the pool was made.
    pub count: u64,
}

/// How often an operation with a retry policy failed, and was not tried again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetriesExhausted {
    /// The operation's name.
    pub operation: Arc<str>,
    /// Why it was not.
    pub reason: GiveUp,
    /// What had failed.
    pub code: ErrorCode,
    /// How often, since the pool was made.
    pub count: u64,
}

/// How often an operation returned a connection that was dirty.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DirtyReturns {
    /// The operation's name.
    pub operation: Arc<str>,
    /// In what way.
    pub dirt: Dirt,
    /// How often, since the pool was made.
    pub count: u64,
}

/// How often a connection reported an error.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionErrors {
    /// What was under way.
    pub phase: ErrorPhase,
    /// What the error said.
    pub code: ErrorCode,
    /// How often, since the pool was made.
    pub count: u64,
}

/// Everything a pool has counted, as of one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// The pool's name.
    pub name: Arc<str>,
    /// What it may hold.
    pub limits: Limits,
    /// What it holds.
    pub connections: Connections,
    /// By operation, `other` first; those that have a name but did nothing yet are there too.
    pub operations: Vec<OperationTotals>,
    /// Checkouts in flight that wait for capacity.
    pub queued: usize,
    /// All checkouts in flight.
    pub in_flight: usize,
    /// How long the oldest checkout in flight has been waiting; zero if there is none.
    pub oldest_wait: Duration,
    /// Durations of checkouts, failed ones included.
    pub wait_time: Histogram,
    /// Durations of uses, from getting a connection to returning it.
    pub use_time: Histogram,
    /// Durations of connecting, where it succeeded.
    pub create_time: Histogram,
    /// Where waits went, in nanoseconds, by [`Phase::ALL`].
    pub phase_nanos: [u64; Phase::COUNT],
    /// For how long somebody was waiting for capacity, in nanoseconds.
    pub saturated_nanos: u64,
    /// Connections begun: the sum of `closed` and of what lives.
    pub created: u64,
    /// Connections gone, by [`CloseReason::ALL`].
    pub closed: [u64; CloseReason::COUNT],
    /// Errors that connections reported.
    pub errors: Vec<ConnectionErrors>,
    /// Durations of queries by what they are.
    pub queries: Vec<QueryDurations>,
    /// Errors that the server reported to queries.
    pub query_errors: Vec<QueryErrors>,
    /// Connections that came back dirty.
    pub dirty_returns: Vec<DirtyReturns>,
    /// Connections that are held past `leak_threshold` and silent.
    pub suspected_leaks: usize,
    /// Checkouts that waited while their own task held a connection.
    pub self_deadlocks: u64,
    /// Connections whose wire was not understood, and is no longer read.
    pub wires_lost: u64,
    /// What was tried again.
    pub retries: Vec<Retries>,
    /// What had a retry policy, failed, and was not tried again.
    pub retries_exhausted: Vec<RetriesExhausted>,
    /// How many retries may be made now.
    pub retry_budget: f64,
    /// For how long connecting has been left to one checkout at a time since it failed; zero if it is not, or if nobody
    /// has tried for ten seconds.
    pub connecting_suspended: Duration,
    /// Connections outside the pool, of the operations that had any; no other account here counts them, but `errors`.
    pub unpooled: Vec<UnpooledTotals>,
    /// What requests cost, by route and method: those that a layer of [`middleware`](crate::middleware) serves.
    pub requests: Vec<RequestTotals>,
    /// What the server said of itself, if [`Pool::watch_server`](crate::Pool::watch_server) asks it.
    pub server: Option<ServerLook>,
    /// The size that the last minutes ask for, if they tell.
    pub recommended_size: Option<usize>,
    /// Who holds connections, oldest first.
    pub holders: Vec<Holder>,
    /// Who waits for one, oldest first.
    pub waiters: Vec<Waiter>,
}
