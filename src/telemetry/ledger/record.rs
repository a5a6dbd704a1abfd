//! The events of a pool, and how each changes its ledger.
//!
//! Everything but what every checkout and every return records (see [`Recorder`]) takes the ledger's lock. Spans are
//! opened before the lock is taken and updated after it is released, and log lines are written after it is released.

use std::error::Error;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::deferred::DeferredSpan;
use super::holder_links::record_holders;
use super::in_flight::{CheckoutTrace, Extra, InFlight, Ticket};
use super::state::LedgerState;
use super::waiting::{Ended, Entered};
use super::{Ledger, Recorder, UnpooledId};
use crate::labels::{CloseReason, ConnectionState, Dirt, ErrorCode, ErrorPhase, GiveUp, Outcome, Phase};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::queries::QueryId;
use crate::telemetry::requests::RouteKey;
use crate::telemetry::trace::{self, CheckoutSpan, SampledSpan, TraceContext};

/// A checkout that has ended and is to be reported: it was slow, or is part of a sampled trace.
#[must_use = "the checkout's span would end without its outcome"]
pub(crate) struct EndedCheckout(Box<Ended>);

/// Events of the pool itself.
impl Recorder {
    /// Records that the pool was created.
    pub(crate) fn pool_opened(&self) {
        let limits = self.ledger().limits();
        self.log().pool_opened(limits.pool_size, limits.max_overflow);
    }

    /// Records that `close` was called or the last handle to the pool was dropped.
    pub(crate) fn pool_closing(&self) {
        self.log().pool_closing();
    }
}

/// Events of checkouts.
impl Recorder {
    /// Records that a checkout could not be served at once, and returns its ticket.
    #[cold]
    #[inline(never)]
    pub(crate) fn begin_wait(
        &self,
        operation: OperationId,
        (site, call_site): (SiteId, &'static Location<'static>),
        (task, request): (u64, Option<RouteKey>),
        started: Nanos,
        phase: Phase,
    ) -> Ticket {
        let ledger = &**self.ledger();
        let trace = trace::current_span().map(|within| {
            // Waits for a reset mostly take microseconds: their span is deferred.
            let has_span = phase != Phase::Clean;
            let span = has_span.then(|| ledger.checkout_span(operation, &within, call_site, (phase, started)));
            Box::new(CheckoutTrace { within, span })
        });
        let span = trace.as_ref().and_then(|trace| trace.span.as_ref()).filter(|_| phase == Phase::Queue);
        let span = span.map(|span| span.span().clone());
        let call_site = (site == SiteId::NONE).then_some(call_site);
        let extra = (trace.is_some() || call_site.is_some()).then_some(Extra { trace, call_site });
        let (phase_since, own_connection, has_extra) = (started, None, extra.is_some());
        let checkout =
            InFlight { operation, site, started, phase, phase_since, task, request, own_connection, has_extra };
        let ticket = ledger.begin(&checkout, extra);
        if let Some(span) = span {
            let held = ledger.state().held_connections(&ledger.operations, started);
            record_holders(&span, ledger.operations.name(operation), held);
        }
        ticket
    }

    /// Records that a checkout in flight now waits for something else.
    #[cold]
    #[inline(never)]
    pub(crate) fn enter_phase(&self, ticket: Ticket, phase: Phase, at: Nanos) {
        let ledger = &**self.ledger();
        let Entered { operation, deferred, span, found } = ledger.change_phase(ticket, phase, at);
        ledger.report_self_deadlocks(&found);
        let span = deferred.map(|deferred| deferred.attach(ledger, ticket)).or(span);
        if let Some(span) = span.filter(|_| phase == Phase::Queue) {
            let held = ledger.state().held_connections(&ledger.operations, at);
            record_holders(&span, ledger.operations.name(operation), held);
        }
    }

    /// Records that a checkout in flight ended without a connection.
    #[cold]
    #[inline(never)]
    pub(crate) fn finish_checkout(&self, ticket: Ticket, outcome: Outcome, code: Option<ErrorCode>, at: Nanos) {
        if let Some(ended) = self.end_checkout(ticket, None, outcome, at) {
            self.report_checkout(ended, outcome, code, at);
        }
    }

    /// Records that a checkout in flight got the connection with these statistics. What is returned is to be reported with
    /// [`Self::report_served`] once the connection has a guard.
    #[cold]
    #[inline(never)]
    pub(crate) fn finish_served(&self, ticket: Ticket, stats: &ConnectionStats, at: Nanos) -> Option<EndedCheckout> {
        self.end_checkout(ticket, Some(stats), Outcome::Ok, at)
    }

    /// Logs a checkout that got its connection, if it was slow, and ends its span. A subscriber may panic.
    #[inline]
    pub(crate) fn report_served(&self, ended: EndedCheckout, at: Nanos) {
        self.report_checkout(ended, Outcome::Ok, None, at);
    }

    fn end_checkout(
        &self,
        ticket: Ticket,
        stats: Option<&ConnectionStats>,
        outcome: Outcome,
        at: Nanos,
    ) -> Option<EndedCheckout> {
        let ledger = &**self.ledger();
        let slow = ledger.limits().slow_checkout_threshold.filter(|_| outcome == Outcome::Ok).map_or(u64::MAX, nanos);
        ledger.finish(ticket, (outcome, slow), stats, at).map(EndedCheckout)
    }

    fn report_checkout(&self, ended: EndedCheckout, outcome: Outcome, code: Option<ErrorCode>, at: Nanos) {
        let ledger = &**self.ledger();
        let Ended { checkout, extra, is_slow } = *ended.0;
        let Extra { trace, call_site } = extra;
        let Some(call_site) = ledger.operations.location(checkout.site).or(call_site) else { return };
        if is_slow {
            let names = (checkout.operation, ledger.operations.name(checkout.operation), call_site);
            let waited = at.duration_since(checkout.started);
            self.log().checkout_slow(names, waited, (checkout.phase, at.duration_since(checkout.phase_since)));
        }
        let Some(trace) = trace else { return };
        let deferred = DeferredSpan::of(&checkout, &trace, call_site).filter(|_| outcome != Outcome::Ok);
        if let Some(span) = trace.span.or_else(|| Some(deferred?.open(ledger))) {
            span.end(outcome, code, at);
        }
    }

    /// Records a checkout that ended at its first poll without a connection.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse_checkout(
        &self,
        operation: OperationId,
        call_site: &'static Location<'static>,
        outcome: Outcome,
        code: Option<ErrorCode>,
        at: Nanos,
    ) {
        let ledger = &**self.ledger();
        let within = trace::current_span();
        let span = within.map(|within| ledger.checkout_span(operation, &within, call_site, (Phase::Queue, at)));
        ledger.update(|state| state.refuse(operation, outcome));
        if let Some(span) = span {
            span.without_phases().end(outcome, code, at);
        }
    }
}

/// Events of connections.
impl Recorder {
    /// Records that connecting began: `stats` is live from now on. Returns `false`, and records nothing, if the pool has
    /// its maximum of connections, some of which deadpool no longer knows because they are closing.
    #[cold]
    #[inline(never)]
    pub(crate) fn connection_creating(&self, stats: &Arc<ConnectionStats>) -> bool {
        let ledger = self.ledger();
        ledger.update(|state| state.open(stats, ledger.max_live()))
    }

    /// Records that a connection was established, `took` after connecting began.
    #[cold]
    #[inline(never)]
    pub(crate) fn connection_created(&self, stats: &ConnectionStats, took: Duration) {
        let ledger = self.ledger();
        let within = trace::current_span();
        ledger.update(|state| {
            state.create_time.observe(nanos(took));
            if let Some(within) = &within {
                state.create_exemplars.record(nanos(took), within.ids());
            }
            let connection = stats.state();
            if connection.label == ConnectionState::Creating {
                stats.set_used(connection.operation, ledger.clock.now());
            }
        });
        self.log().connection_created(took);
    }

    /// Records that connecting, pinging or resetting failed.
    #[cold]
    #[inline(never)]
    pub(crate) fn connection_error(&self, phase: ErrorPhase, code: ErrorCode, error: &(dyn Error + 'static)) {
        self.ledger().update(|state| *state.errors.entry((phase, code)).or_insert(0) += 1);
        self.log().connection_error(phase, code, error);
    }

    /// Records that a checkout that needed a new connection ended without one; see [`ErrorPhase::Checkout`].
    #[cold]
    #[inline(never)]
    pub(crate) fn connection_missed(&self, code: ErrorCode) {
        self.ledger().update(|state| *state.errors.entry((ErrorPhase::Checkout, code)).or_insert(0) += 1);
    }

    /// Records that the pool itself uses a connection on behalf of `operation`: to ping it for a checkout, or to reset
    /// it.
    #[inline(always)]
    pub(crate) fn maintenance_started(&self, stats: &ConnectionStats, operation: OperationId, at: Nanos) {
        stats.set_maintenance(operation, at);
    }

    /// Records that the pool itself no longer uses a connection. Its next state is recorded separately.
    #[inline(always)]
    pub(crate) fn maintenance_finished(
        &self,
        stats: &ConnectionStats,
        operation: OperationId,
        since: Nanos,
        at: Nanos,
    ) {
        stats.set_maintenance(operation, at);
        stats.count_maintenance(operation, at.since(since));
    }

    /// Records that a connection is given up that the server may not have let go of; `operation` used it.
    #[cold]
    #[inline(never)]
    pub(crate) fn close_timed_out(&self, operation: OperationId) {
        let ledger = self.ledger();
        ledger.update(|state| state.close_timeouts += 1);
        self.log().close_timed_out(ledger.operations.name(operation));
    }

    /// Logs that a connection that `operation` returned stayed busy.
    #[cold]
    #[inline(never)]
    pub(crate) fn kept_busy(&self, stats: &ConnectionStats, operation: OperationId) {
        let operations = &self.ledger().operations;
        self.log().kept_busy(operations.name(operation), operations.location(stats.site()));
    }

    /// Records the return of a connection that was a suspected leak.
    #[cold]
    #[inline(never)]
    pub(crate) fn suspect_returned(&self, stats: &ConnectionStats, operation: OperationId, since: Nanos, at: Nanos) {
        stats.set_suspected(false);
        let operations = &self.ledger().operations;
        let (operation, call_site) = (operations.name(operation), operations.location(stats.site()));
        self.log().suspect_returned(operation, call_site, at.duration_since(since));
    }

    /// Records that a connection was returned dirty. `found_by` is the checkout that waits for it, if any.
    #[cold]
    #[inline(never)]
    pub(crate) fn connection_dirty(
        &self,
        stats: &ConnectionStats,
        operation: OperationId,
        dirt: Dirt,
        found_by: Option<Ticket>,
    ) {
        let ledger = &**self.ledger();
        let cause = stats.span();
        ledger.update(|state| *state.dirty.entry((operation, dirt)).or_insert(0) += 1);
        let traced = found_by.and_then(|ticket| {
            ledger.with_trace(ticket, |trace, checkout, call_site| {
                let deferred = DeferredSpan::of(checkout, trace, call_site).map(|deferred| (ticket, deferred));
                (deferred, trace.span.as_ref().map(|span| span.span().clone()))
            })
        });
        let (deferred, span) = traced.unwrap_or_default();
        let span = span.or_else(|| deferred.map(|(ticket, deferred)| deferred.attach(ledger, ticket)));
        let name = ledger.operations.name(operation);
        trace::record_dirty_return(cause.as_ref(), name, dirt, span.as_ref());
        self.log().connection_dirty(name, ledger.operations.location(stats.site()), dirt);
    }
}

/// Events of sessions that pass through a proxy.
#[cfg(feature = "proxy")]
impl Recorder {
    /// Records that a client left its session in this state instead of ending its transaction or its query.
    #[cold]
    pub(crate) fn session_dirty(&self, operation: OperationId, dirt: Dirt) {
        self.ledger().update(|state| *state.dirty.entry((operation, dirt)).or_insert(0) += 1);
        self.log().session_dirty(self.ledger().operations.name(operation), dirt);
    }
}

/// The events that the pool records under a lock of its own, and logs after releasing it.
impl Ledger {
    /// Records that the pool closes a connection, while the server may still execute what `operation` left: `stats`
    /// stays live.
    #[cold]
    #[inline(never)]
    pub(crate) fn connection_closing(&self, stats: &ConnectionStats, operation: OperationId) {
        self.update(|_| stats.set_closing(operation, self.clock.now()));
    }

    /// Records that a connection was closed: `stats` is no longer live.
    #[cold]
    #[inline(never)]
    pub(crate) fn connection_closed(&self, stats: &ConnectionStats, reason: CloseReason) {
        self.update(|state| state.close(stats, reason, self.clock.now()));
    }

    /// Returns the span of a checkout that began to wait in the span `within`.
    fn checkout_span(
        &self,
        operation: OperationId,
        within: &SampledSpan,
        call_site: &'static Location<'static>,
        since: (Phase, Nanos),
    ) -> CheckoutSpan {
        CheckoutSpan::begin(&self.name, self.operations.name(operation), within, call_site, since)
    }

    /// Changes the state under its lock, and updates the hints before the lock is released.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut LedgerState) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        self.hints.update(state.connections.len());
        changed
    }
}

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
