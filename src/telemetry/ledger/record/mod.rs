//! The events of a pool, and how each changes its ledger.
//!
//! Everything but what every checkout and every return records (see [`Recorder`]), and what a checkout that waits does (see
//! `waiting`), takes the ledger's lock. Spans are
//! opened before the lock is taken and updated after it is released, and log lines are written after it is released.

mod checkouts;
mod queries;

use std::error::Error;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::deferred::DeferredSpan;
use super::in_flight::Ticket;
use super::state::LedgerState;
use super::{Ledger, Recorder};
use crate::labels::{CloseReason, ConnectionState, Dirt, ErrorCode, ErrorPhase, Phase};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace::{self, CheckoutSpan, SampledSpan};

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
