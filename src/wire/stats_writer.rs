//! Writes what an observer sees on the wire to the connection's statistics, whatever the protocol.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::labels::{ConnectionState, ErrorCode};
use crate::telemetry::clock::{Clock, Nanos, nanos};
use crate::telemetry::connection::{ConnectionStats, UnpackedState};
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::ledger::{Ledger, Recorder};
use crate::telemetry::operations::OperationId;
use crate::telemetry::queries::QueryId;
use crate::telemetry::trace::{QueryEnd, QuerySpans, ServerAddress, TraceContext};
use crate::telemetry::wire::SessionStatus;

/// Writes the statistics of one connection.
#[derive(Debug)]
pub(super) struct StatsWriter {
    stats: Arc<ConnectionStats>,
    clock: Clock,
    /// Weak, so that the task of a closing connection does not keep a dropped pool's series alive.
    pub(super) ledger: Weak<Ledger>,
    /// The packed state of the connection when it was last read, and the state unpacked from it.
    packed_state: u64,
    unpacked_state: UnpackedState,
    /// The time at which the bytes that are being read passed.
    at: Nanos,
    /// The queries of the last operation that were sent, and those that ended, and are not counted yet: they are counted
    /// with the bytes.
    sent: u64,
    finished: u64,
    spans: QuerySpans,
    /// The duration in nanoseconds from which on a query is logged; the maximum if none is.
    slow_query_nanos: u64,
}

/// The end of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestEnd {
    /// The number of spans that end.
    pub(super) started: u32,
    pub(super) query: QueryId,
    pub(super) sent_at: Nanos,
    pub(super) error: Option<ErrorCode>,
    /// Whether it committed something.
    pub(super) committed: bool,
    /// Whether its success makes earlier errors irrelevant.
    pub(super) clears_error: bool,
}

impl StatsWriter {
    /// Creates a writer for a connection that has passed no bytes.
    pub(super) fn new(stats: Arc<ConnectionStats>, ledger: &Arc<Ledger>, server: Option<Arc<ServerAddress>>) -> Self {
        let spans = ledger.query_spans(server);
        let slow_query_nanos = ledger.limits().slow_query_threshold.map_or(u64::MAX, nanos);
        let (clock, ledger) = (ledger.clock().clone(), Arc::downgrade(ledger));
        let packed_state = stats.packed_state();
        let unpacked_state = UnpackedState::unpack(packed_state);
        let (at, sent, finished) = (Nanos::ZERO, 0, 0);
        Self { stats, clock, ledger, packed_state, unpacked_state, at, sent, finished, spans, slow_query_nanos }
    }

    /// Reads the time at which bytes pass.
    #[inline(always)]
    pub(super) fn read_clock(&mut self) {
        self.at = self.clock.now();
    }

    /// Returns the time at which the bytes that are being read passed.
    pub(super) fn now(&self) -> Nanos {
        self.at
    }

    /// Counts bytes that were sent, and the queries in them.
    #[inline]
    pub(super) fn count_sent(&mut self, bytes: usize) {
        let queries = std::mem::take(&mut self.sent);
        self.stats.wire().count_sent(self.unpacked_state.operation, bytes as u64, queries, self.at);
    }

    /// Returns the operation that received bytes count for: the last one that is known before they are read.
    #[inline]
    pub(super) fn receiver(&self) -> OperationId {
        self.unpacked_state.operation
    }

    /// Counts bytes that were received for `operation`, and the queries that they ended.
    #[inline]
    pub(super) fn count_received(&mut self, operation: OperationId, bytes: usize) {
        if operation != self.unpacked_state.operation {
            self.count_queries();
        }
        let finished = std::mem::take(&mut self.finished);
        self.stats.wire().count_received(operation, bytes as u64, finished, self.at);
    }

    /// Counts queries that are not counted yet.
    #[cold]
    fn count_queries(&mut self) {
        let operation = self.unpacked_state.operation;
        self.stats.wire().count_queries(operation, std::mem::take(&mut self.sent));
        self.stats.wire().count_finished(operation, std::mem::take(&mut self.finished));
    }

    /// Reads the connection's state again, and so the operation that uses the connection now.
    #[inline]
    fn refresh_state(&mut self) {
        let packed_state = self.stats.packed_state();
        if packed_state != self.packed_state {
            self.change_state(packed_state);
        }
    }

    #[inline(never)]
    fn change_state(&mut self, packed_state: u64) {
        if self.sent + self.finished > 0 {
            self.count_queries();
        }
        self.packed_state = packed_state;
        let unpacked_state = UnpackedState::unpack(packed_state);
        if unpacked_state.label == ConnectionState::Used {
            self.unpacked_state = unpacked_state;
            if !unpacked_state.maintenance {
                self.stats.wire().begin_use(packed_state);
            }
        } else {
            // Late bytes still count for the last operation; the time counts for none.
            self.unpacked_state.label = unpacked_state.label;
        }
    }

    /// Returns whether the connection is being established.
    #[cfg(feature = "redis")]
    pub(super) fn is_creating(&self) -> bool {
        self.stats.state().label == ConnectionState::Creating
    }

    /// Returns whether queries count, since a caller uses the connection.
    #[cfg(feature = "redis")]
    pub(super) fn counts_queries(&self) -> bool {
        self.is_held()
    }

    /// Returns the operation that the time counts for: the one that uses the connection.
    #[inline(always)]
    fn user(&self) -> Option<OperationId> {
        (self.unpacked_state.label == ConnectionState::Used).then_some(self.unpacked_state.operation)
    }

    /// Returns whether a caller uses the connection, rather than the pool itself.
    #[inline(always)]
    fn is_held(&self) -> bool {
        self.unpacked_state.label == ConnectionState::Used && !self.unpacked_state.maintenance
    }

    /// Returns whether the pool itself uses the connection.
    pub(super) fn is_maintenance(&mut self) -> bool {
        self.refresh_state();
        !self.is_held()
    }

    /// Records that the bytes are not understood any more.
    #[cold]
    pub(super) fn protocol_error(&mut self, problem: &'static str) {
        self.stats.wire().enter(SessionStatus::Unread, None, self.at);
        self.spans.abandon();
        self.record(|recorder| recorder.wire_lost(problem));
    }

    pub(super) fn record(&self, event: impl FnOnce(&Recorder)) {
        if let Some(ledger) = self.ledger.upgrade() {
            event(&Recorder::new(ledger));
        }
    }

    /// Returns the id of a query's summary; `None` if the pool no longer exists.
    pub(super) fn query<S: AsRef<str>>(&self, summary: impl FnOnce() -> S) -> Option<QueryId> {
        let ledger = self.ledger.upgrade()?;
        Some(Recorder::new(ledger).query(summary().as_ref()))
    }

    /// Records that the server works.
    #[inline(always)]
    pub(super) fn busy(&mut self, status: SessionStatus) {
        self.refresh_state();
        self.stats.wire().enter(status, self.user(), self.at);
    }

    /// Records that the server is ready for the next request.
    #[inline(always)]
    pub(super) fn ready(&mut self, status: SessionStatus) {
        if status != self.stats.wire().status() {
            self.stats.wire().enter(status, self.user(), self.at);
        }
    }

    /// Records that a query was sent. `first` is whether it is the first one of its request, and `traced` whether a span of
    /// the request is wanted.
    #[inline(always)]
    pub(super) fn query_sent(&mut self, first: bool, traced: bool) {
        let is_held = self.is_held();
        self.sent += u64::from(is_held);
        if first {
            self.spans.begin();
            if is_held && traced && self.stats.is_traced() {
                self.open_span();
            }
        }
    }

    #[cold]
    fn open_span(&mut self) {
        if let Some(parent) = self.stats.begin_request() {
            self.spans.open(&parent);
        }
    }

    #[inline(always)]
    pub(super) fn queries_finished(&mut self, queries: u32) {
        if self.is_held() {
            self.finished += u64::from(queries);
        }
    }

    /// Records the end of a request; `span` is the end of its spans.
    #[inline(always)]
    pub(super) fn request_ended<'a>(&mut self, end: RequestEnd, span: impl FnOnce() -> QueryEnd<'a>) {
        let RequestEnd { started, query, sent_at, error, committed, clears_error } = end;
        let trace = self.spans.end(started, span);
        if !self.is_held() {
            return;
        }
        let wire = self.stats.wire();
        wire.record_reply(committed, clears_error);
        let nanos = self.at.since(sent_at);
        if error.is_none() {
            wire.observe_query(query, nanos);
        }
        if error.is_some() || trace.is_some() || nanos >= self.slow_query_nanos {
            self.unusual_end(query, nanos, error, trace);
        }
    }

    /// Records the end of a request that failed, is traced or was slow.
    #[cold]
    fn unusual_end(&self, query: QueryId, nanos: u64, error: Option<ErrorCode>, trace: Option<TraceContext>) {
        let took = Duration::from_nanos(nanos);
        if nanos >= self.slow_query_nanos {
            let (stats, operation) = (&self.stats, self.unpacked_state.operation);
            self.record(|recorder| recorder.query_slow(stats, operation, query, took, error));
        }
        match (error, trace) {
            (Some(code), trace) => self.record(|recorder| recorder.query_failed(query, code, took, trace)),
            (None, Some(trace)) => self.record(|recorder| recorder.query_traced(query, took, trace)),
            (None, None) => {}
        }
    }

    #[inline(always)]
    pub(super) fn risk_changed(&mut self, risk: Risk) {
        self.stats.wire().set_risk(risk);
    }

    #[cold]
    pub(super) fn server_error(&mut self, error: ServerError) {
        // The error may be unsolicited, and precede the first query of this use.
        self.refresh_state();
        if self.is_held() {
            self.stats.wire().record_error(error);
        }
        let ServerError { code, fatal, .. } = error;
        if fatal {
            self.stats.wire().end();
        }
        let unpacked_state = UnpackedState::unpack(self.stats.packed_state());
        match unpacked_state.label {
            // The pool receives the error of its own queries, and records it.
            ConnectionState::Creating | ConnectionState::Closing => {}
            ConnectionState::Used if unpacked_state.maintenance => {}
            ConnectionState::Used => {
                self.record(|recorder| recorder.query_error(unpacked_state.operation, code));
            }
            ConnectionState::Idle => self.record(|recorder| recorder.query_error(OperationId::OTHER, code)),
        }
    }

    pub(super) fn set_backend(&self, pid: i32) {
        self.stats.wire().set_backend(pid);
    }

    /// Ends the time that the server works for the connection's current user: no more bytes will pass.
    pub(super) fn end(&mut self) {
        // While a connection is closing, the server may execute beyond the end of its driver.
        let closing = self.stats.state().label == ConnectionState::Closing;
        if !closing && !self.stats.wire().status().is_clean() {
            self.refresh_state();
            self.stats.wire().enter(SessionStatus::Idle, self.user(), self.clock.now());
        }
    }
}
