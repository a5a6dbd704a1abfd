//! What was observed on a connection's wire, written by the task that drives the connection.
//!
//! That task is not the holder's, so these cells are kept apart from those of
//! [`ConnectionStats`](super::connection::ConnectionStats): each group has a single writer. Readers may come at any
//! time; a sequence number shows them whether their reading is consistent, and they retry if it is not.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, fence};

use super::clock::Nanos;
use super::evidence::{Evidence, EvidenceCells, Risk, ServerError};
use super::histogram::Histogram;
use super::operations::{OPERATION_IDS, OperationId};
use super::owned::OwnedCounter;
use super::queries::{QueryHistograms, QueryId};
use crate::labels::{Activity, ErrorCode};

/// The counters of operations are allocated in groups of this size, when the first operation of a group is counted.
const GROUP: usize = 8;
const GROUPS: usize = OPERATION_IDS.div_ceil(GROUP);

/// The maximum number of attempts at a consistent reading. A change takes the writer some nanoseconds; if the writer is
/// preempted during one, the reading omits the activity in progress.
const MAX_READ_ATTEMPTS: usize = 64;

/// The state of a session, as observed on its wire. Ordered by activity: none, idle, executing, in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionStatus {
    /// Unknown: the wire is not observed, or no longer.
    Unread,
    /// The server is ready, outside a transaction.
    Idle,
    /// The server is executing.
    Executing,
    /// The server is executing a request that needs no cancellation: a ROLLBACK, the preparation of a statement, or a
    /// request that has failed.
    Ending,
    /// The server is ready, inside a transaction.
    InTransaction,
    /// The server is ready, inside a failed transaction.
    FailedTransaction,
}

impl SessionStatus {
    const ALL: [Self; 6] =
        [Self::Unread, Self::Idle, Self::Executing, Self::Ending, Self::InTransaction, Self::FailedTransaction];

    /// Returns the activity of a checked-out connection in this state, or `None` if it is unknown.
    pub(crate) const fn activity(self) -> Option<Activity> {
        match self {
            Self::Unread => None,
            Self::Idle => Some(Activity::Idle),
            Self::Executing | Self::Ending => Some(Activity::Executing),
            Self::InTransaction | Self::FailedTransaction => Some(Activity::IdleInTransaction),
        }
    }

    /// Returns whether the connection can be handed out without a reset, as far as is known.
    #[inline]
    pub(crate) const fn is_clean(self) -> bool {
        matches!(self, Self::Unread | Self::Idle)
    }
}

/// What one operation did on one connection's wire.
#[derive(Debug, Default)]
struct OperationCounters {
    executing_nanos: OwnedCounter,
    in_transaction_nanos: OwnedCounter,
    queries: OwnedCounter,
    finished: OwnedCounter,
    sent: OwnedCounter,
    received: OwnedCounter,
}

impl OperationCounters {
    /// Returns the nanoseconds executing and idle in a transaction.
    fn times(&self) -> (u64, u64) {
        (self.executing_nanos.get(), self.in_transaction_nanos.get())
    }
}

/// Aligned for the same reason as [`WireStats`]: other threads write none of its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Group([OperationCounters; GROUP]);

/// What one operation did on the wires of all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WireTotals {
    pub(crate) executing_nanos: u64,
    pub(crate) in_transaction_nanos: u64,
    pub(crate) queries: u64,
    pub(crate) finished: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// The statistics of one connection's wire. Laid out in declaration order: the fields that each message writes and each
/// return reads come first.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct WireStats {
    /// Odd while status, operation and times are being changed.
    sequence: AtomicU32,
    operation: AtomicU32,
    status: AtomicU8,
    /// Whether the session has ended: the server reported it, or the connection's task has ended.
    ended: AtomicBool,
    since: AtomicU64,
    /// When the last byte was sent or received.
    last_activity: AtomicU64,
    /// When the last byte was received.
    last_received: AtomicU64,
    /// The use that `use_queries` and `evidence` belong to, as the packed state of the connection.
    current_use: AtomicU64,
    use_queries: AtomicU64,
    evidence: EvidenceCells,
    /// The process id of the server's backend; zero if unknown.
    backend: AtomicI32,
    query_durations: QueryHistograms,
    operations: [OnceLock<Box<Group>>; GROUPS],
}

impl Default for WireStats {
    fn default() -> Self {
        Self {
            sequence: AtomicU32::new(0),
            status: AtomicU8::new(SessionStatus::Unread as u8),
            operation: AtomicU32::new(0),
            since: AtomicU64::new(0),
            last_activity: AtomicU64::new(0),
            last_received: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            backend: AtomicI32::new(0),
            current_use: AtomicU64::new(0),
            use_queries: AtomicU64::new(0),
            evidence: EvidenceCells::default(),
            query_durations: QueryHistograms::default(),
            operations: [const { OnceLock::new() }; GROUPS],
        }
    }
}

/// Methods for the single writer, the connection's task.
impl WireStats {
    /// Sets the status and the operation it belongs to, and counts the time spent in the previous status for its
    /// operation.
    pub(crate) fn enter(&self, status: SessionStatus, operation: Option<OperationId>, at: Nanos) {
        let (left_by, left) = (self.operation.load(Relaxed), self.status.load(Relaxed));
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        // A reader that gives up on a consistent reading then misses the activity in progress instead of counting it
        // twice: a counter must never decrease.
        self.operation.store(NO_OPERATION, Relaxed);
        fence(Release);
        if left_by != NO_OPERATION && left >= SessionStatus::Executing as u8 {
            let counters = self.counters(OperationId::from_index(u64::from(left_by)));
            let is_executing = left <= SessionStatus::Ending as u8;
            let time = if is_executing { &counters.executing_nanos } else { &counters.in_transaction_nanos };
            time.add(at.since(Nanos::from_nanos(self.since.load(Relaxed))));
        }
        self.operation.store(operation.map_or(NO_OPERATION, |operation| u32::from(operation.as_u16())), Relaxed);
        self.since.store(at.as_nanos(), Relaxed);
        self.status.store(status as u8, Release);
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    /// Begins to count the queries of a new use and to collect its evidence. `packed_state` identifies the use.
    pub(crate) fn begin_use(&self, packed_state: u64) {
        self.use_queries.store(0, Relaxed);
        self.evidence.begin();
        self.current_use.store(packed_state, Release);
    }

    /// Continues the current use under another packed state, since its operation has changed.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code, reason = "only a proxy names uses after they began"))]
    pub(crate) fn continue_use(&self, packed_state: u64) {
        self.current_use.store(packed_state, Release);
    }

    pub(crate) fn count_queries(&self, operation: OperationId, queries: u64) {
        self.use_queries.store(self.use_queries.load(Relaxed) + queries, Relaxed);
        self.counters(operation).queries.add(queries);
    }

    pub(crate) fn count_finished(&self, operation: OperationId, queries: u64) {
        self.counters(operation).finished.add(queries);
    }

    /// Counts bytes that were sent, and the queries in them.
    #[inline]
    pub(crate) fn count_sent(&self, operation: OperationId, bytes: u64, queries: u64, at: Nanos) {
        let counters = self.counters(operation);
        counters.sent.add(bytes);
        if queries > 0 {
            counters.queries.add(queries);
            self.use_queries.store(self.use_queries.load(Relaxed) + queries, Relaxed);
        }
        self.last_activity.store(at.as_nanos(), Relaxed);
    }

    /// Counts bytes that were received, and the queries that they ended.
    #[inline]
    pub(crate) fn count_received(&self, operation: OperationId, bytes: u64, finished: u64, at: Nanos) {
        let counters = self.counters(operation);
        counters.received.add(bytes);
        counters.finished.add(finished);
        self.last_activity.store(at.as_nanos(), Relaxed);
        self.last_received.store(at.as_nanos(), Relaxed);
    }

    pub(crate) fn record_error(&self, error: ServerError) {
        self.evidence.record_error(error);
    }

    /// Records the reply to a request: whether it committed something, and whether its success clears earlier errors;
    /// see [`Evidence`].
    #[inline]
    pub(crate) fn record_reply(&self, committed: bool, clears_error: bool) {
        if committed {
            self.evidence.commit();
        }
        if clears_error {
            self.evidence.clear_error();
        }
    }

    /// Records the duration of a successful request with this query, from the request's first byte to the reply.
    pub(crate) fn observe_query(&self, query: QueryId, nanos: u64) {
        self.query_durations.observe(query, nanos);
    }

    pub(crate) fn set_risk(&self, risk: Risk) {
        self.evidence.set_risk(risk);
    }

    /// Records that the session has ended.
    pub(crate) fn end(&self) {
        self.ended.store(true, Release);
    }

    pub(crate) fn set_backend(&self, pid: i32) {
        self.backend.store(pid, Relaxed);
    }

    #[inline]
    fn counters(&self, operation: OperationId) -> &OperationCounters {
        let index = operation.index();
        &self.operations[index / GROUP].get_or_init(Box::default).0[index % GROUP]
    }
}

/// Marks activity that is counted for no operation.
const NO_OPERATION: u32 = u32::MAX;

/// A status and the operation it is counted for. Only the writer may read both without checking the sequence number.
#[derive(Clone, Copy)]
struct CurrentStatus {
    status: SessionStatus,
    operation: Option<OperationId>,
}

/// Methods for readers.
impl WireStats {
    /// Returns the status. Never older than any reply that the connection's task has passed on.
    #[inline]
    pub(crate) fn status(&self) -> SessionStatus {
        SessionStatus::ALL.get(usize::from(self.status.load(Acquire))).copied().unwrap_or(SessionStatus::Unread)
    }

    fn current(&self) -> CurrentStatus {
        let operation = match self.operation.load(Relaxed) {
            NO_OPERATION => None,
            id => Some(OperationId::from_index(u64::from(id))),
        };
        CurrentStatus { status: self.status(), operation }
    }

    /// Returns when the last byte was sent or received; zero if none was.
    pub(crate) fn last_activity(&self) -> Nanos {
        Nanos::from_nanos(self.last_activity.load(Relaxed))
    }

    /// Returns when the last byte was received; zero if none was.
    #[inline]
    pub(crate) fn last_received(&self) -> Nanos {
        Nanos::from_nanos(self.last_received.load(Relaxed))
    }

    /// Returns whether the server executes a request, as far as is known.
    pub(crate) fn is_executing(&self) -> bool {
        self.status() == SessionStatus::Executing && !self.is_ended()
    }

    /// Returns whether the session is known to have ended.
    #[inline]
    pub(crate) fn is_ended(&self) -> bool {
        // Acquire: everything recorded before the end must be visible to the caller.
        self.ended.load(Acquire)
    }

    /// Returns the process id of the server's backend, if known.
    pub(crate) fn backend(&self) -> Option<i32> {
        Some(self.backend.load(Relaxed)).filter(|pid| *pid != 0)
    }

    /// Returns the number of queries sent in the use identified by `packed_state`.
    pub(crate) fn queries_of(&self, packed_state: u64) -> u64 {
        if self.current_use.load(Acquire) == packed_state { self.use_queries.load(Relaxed) } else { 0 }
    }

    /// Returns the evidence of the use identified by `packed_state`, or `None` if the wire is not observed.
    pub(crate) fn evidence(&self, packed_state: u64) -> Option<Evidence> {
        let ended = self.is_ended();
        let is_current = || self.current_use.load(Acquire) == packed_state;
        (self.status() != SessionStatus::Unread).then(|| self.evidence.read(is_current(), ended))
    }

    /// Returns whether the use identified by `packed_state` ended with a write that the server refused as read-only.
    #[inline]
    pub(crate) fn has_refused_write(&self, packed_state: u64) -> bool {
        /// read_only_sql_transaction
        const POSTGRES: u64 = ErrorCode::new("25006").to_bits();
        const REDIS: u64 = ErrorCode::new("READONLY").to_bits();
        matches!(self.evidence.error.load(Relaxed), POSTGRES | REDIS) && self.current_use.load(Acquire) == packed_state
    }

    /// Returns for how many nanoseconds, up to `now`, the connection was executing and was idle in a transaction for
    /// this operation.
    #[cfg(feature = "middleware")]
    pub(crate) fn times_of(&self, operation: OperationId, now: Nanos) -> (u64, u64) {
        let mut times = (0, 0);
        for _ in 0..MAX_READ_ATTEMPTS {
            let before = self.sequence.load(Acquire);
            let index = operation.index();
            let counters = self.operations[index / GROUP].get().map(|group| &group.0[index % GROUP]);
            times = counters.map_or((0, 0), OperationCounters::times);
            match self.in_progress(now) {
                Some((of, Activity::Executing, so_far)) if of == operation => times.0 += so_far,
                Some((of, Activity::IdleInTransaction, so_far)) if of == operation => times.1 += so_far,
                _ => {}
            }
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                break;
            }
            std::hint::spin_loop();
        }
        times
    }

    /// Adds the durations of successful queries to `totals`, by query id.
    pub(crate) fn add_query_durations_to(&self, totals: &mut [Histogram]) {
        self.query_durations.add_to(totals);
    }

    /// Adds the counters to `totals`, by operation id, including the activity in progress up to `now`.
    pub(crate) fn add_to(&self, totals: &mut [WireTotals], now: Nanos) {
        if self.sequence.load(Relaxed) == 0 {
            return;
        }
        let mut times = [(0, 0); OPERATION_IDS];
        let mut in_progress = None;
        for _ in 0..MAX_READ_ATTEMPTS {
            let before = self.sequence.load(Acquire);
            in_progress = self.read_times(&mut times, now);
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                break;
            }
            std::hint::spin_loop();
        }
        if let Some((operation, activity, so_far)) = in_progress {
            let total = &mut totals[operation.index()];
            match activity {
                Activity::Executing => total.executing_nanos += so_far,
                Activity::IdleInTransaction => total.in_transaction_nanos += so_far,
                Activity::Idle => {}
            }
        }
        for (group, first) in self.operations.iter().zip((0..).step_by(GROUP)) {
            let Some(group) = group.get() else { continue };
            for ((counters, total), (executing, in_transaction)) in
                group.0.iter().zip(&mut totals[first..]).zip(&times[first..])
            {
                total.executing_nanos += executing;
                total.in_transaction_nanos += in_transaction;
                // Finished queries are read first, so that never more are finished than were sent.
                total.finished += counters.finished.get();
                total.queries += counters.queries.get();
                total.sent += counters.sent.get();
                total.received += counters.received.get();
            }
        }
    }

    /// Reads the times counted so far, and returns the activity in progress.
    fn read_times(&self, times: &mut [(u64, u64); OPERATION_IDS], now: Nanos) -> Option<(OperationId, Activity, u64)> {
        for (group, first) in self.operations.iter().zip((0..).step_by(GROUP)) {
            let Some(group) = group.get() else { continue };
            for (counters, times) in group.0.iter().zip(&mut times[first..]) {
                *times = counters.times();
            }
        }
        self.in_progress(now)
    }

    /// Returns the activity in progress, its operation and its duration so far. Read after the counters.
    fn in_progress(&self, now: Nanos) -> Option<(OperationId, Activity, u64)> {
        fence(Acquire);
        let CurrentStatus { status, operation } = self.current();
        let so_far = now.since(Nanos::from_nanos(self.since.load(Relaxed)));
        Some((operation?, status.activity()?, so_far))
    }
}
