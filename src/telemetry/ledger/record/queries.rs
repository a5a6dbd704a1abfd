//! The events of queries, of operations and their retries, and of connections outside the pool.

use std::time::Duration;

use super::super::{Recorder, UnpooledId};
use crate::labels::{ErrorCode, GiveUp, Outcome};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::OperationId;
use crate::telemetry::queries::QueryId;
use crate::telemetry::trace::{self, TraceContext};

/// Events of queries.
impl Recorder {
    /// Records that the server reported an error on the wire.
    #[cold]
    pub(crate) fn query_error(&self, operation: OperationId, code: ErrorCode) {
        self.ledger().update(|state| state.count_query_error(operation, code));
    }

    /// Records that a request with queries ended in an error or will not be answered; `trace` is its span, if it has
    /// one.
    #[cold]
    pub(crate) fn query_failed(&self, query: QueryId, code: ErrorCode, took: Duration, trace: Option<TraceContext>) {
        self.ledger().update(|state| state.failed_queries.count(query, code, took, trace));
    }

    /// Logs a request with queries that took longer than `slow_query_threshold`.
    #[cold]
    #[inline(never)]
    pub(crate) fn query_slow(
        &self,
        stats: &ConnectionStats,
        operation: OperationId,
        query: QueryId,
        took: Duration,
        code: Option<ErrorCode>,
    ) {
        let ledger = self.ledger();
        let (operation, call_site) = (ledger.operations.name(operation), ledger.operations.location(stats.site()));
        let summary = ledger.summaries.name(query.as_u16());
        self.log().query_slow((query, summary), operation, call_site, took, code);
    }

    /// Records the success of a request with queries that had a span.
    pub(crate) fn query_traced(&self, query: QueryId, took: Duration, trace: TraceContext) {
        self.ledger().query_exemplars[query.index()].record(nanos(took), trace);
    }

    /// Records that a connection's wire was not understood and is no longer observed.
    #[cold]
    pub(crate) fn wire_lost(&self, problem: &'static str) {
        self.ledger().update(|state| state.wires_lost += 1);
        self.log().wire_lost(problem);
    }
}

/// Events of operations and their retries.
impl Recorder {
    /// Records the duration of a named operation, including its checkout; `trace` is its span.
    pub(crate) fn operation_finished(
        &self,
        operation: OperationId,
        outcome: Outcome,
        since: Nanos,
        trace: Option<TraceContext>,
    ) {
        let took = self.now().since(since);
        let durations = self.ledger().durations[operation.index()].get_or_init(Box::default);
        durations[outcome.index()].get_or_init(Box::default).observe(took, trace);
    }

    /// Records that an operation failed and is retried after `pause`.
    #[cold]
    pub(crate) fn retrying(&self, operation: OperationId, code: ErrorCode, attempt: u32, pause: Duration) {
        let ledger = self.ledger();
        ledger.update(|state| state.retries.count_retry(operation, code));
        trace::record_retry(code, attempt, pause);
        self.log().retrying(ledger.operations.name(operation), code, attempt, pause);
    }

    /// Records that an operation succeeded after a retry.
    #[cold]
    pub(crate) fn retry_recovered(&self, operation: OperationId, attempts: u32) {
        let ledger = self.ledger();
        ledger.update(|state| state.retries.count_recovered(operation));
        self.log().retry_recovered(ledger.operations.name(operation), attempts);
    }

    /// Records that an operation failed and is not retried.
    #[cold]
    pub(crate) fn retry_exhausted(&self, operation: OperationId, code: ErrorCode, reason: GiveUp, attempts: u32) {
        let ledger = self.ledger();
        ledger.update(|state| state.retries.count_exhausted(operation, reason, code));
        self.log().retry_exhausted(ledger.operations.name(operation), code, reason, attempts);
    }
}

/// Events of connections outside the pool.
impl Recorder {
    /// Records that connecting outside the pool began, and returns the connection's id.
    #[cold]
    pub(crate) fn unpooled_connecting(&self, operation: OperationId, at: Nanos) -> UnpooledId {
        self.ledger().update(|state| state.unpooled.begin(operation, at))
    }

    /// Records that a connection outside the pool was established, `took` after connecting began.
    #[cold]
    pub(crate) fn unpooled_opened(&self, id: UnpooledId, operation: OperationId, took: Duration, at: Nanos) {
        let ledger = self.ledger();
        ledger.update(|state| state.unpooled.open(id, at));
        self.log().unpooled_opened(ledger.operations.name(operation), took);
    }

    /// Records that a connection outside the pool was closed; unless it was `open`, it was never established.
    #[cold]
    pub(crate) fn unpooled_closed(&self, id: UnpooledId, operation: OperationId, open: bool, at: Nanos) {
        let ledger = self.ledger();
        ledger.update(|state| state.unpooled.end(id, at));
        if open {
            self.log().unpooled_closed(ledger.operations.name(operation));
        }
    }
}
