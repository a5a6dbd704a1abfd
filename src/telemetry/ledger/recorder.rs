//! The handle through which the pool records its events.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use tracing::Span;

use super::Ledger;
use crate::labels::RequestMethod;
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::log::Log;
use crate::telemetry::names::MAX_NAMES;
use crate::telemetry::operations::{Interned, MAX_OPERATIONS, OperationId, SiteId};
use crate::telemetry::queries::QueryId;
use crate::telemetry::requests::{RouteKey, RouteTable};
use crate::telemetry::trace::{self, OperationSpan, SampledSpan};

/// Records the events of one pool in its [`Ledger`], and logs those that have a log line. Clones are handles to the
/// same ledger.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    ledger: Arc<Ledger>,
}

impl Recorder {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger }
    }

    #[inline]
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        self.ledger.clock.now()
    }

    /// Returns the log alone, for events that were recorded in the ledger before.
    pub(crate) fn log(&self) -> Log<'_> {
        self.ledger.log()
    }

    /// Returns the interned name of an operation.
    pub(crate) fn operation(&self, name: &str) -> OperationId {
        match self.ledger.operations.by_name(name) {
            Interned::Known(id) => id,
            Interned::Refused => {
                self.log().operations_full(name, MAX_OPERATIONS);
                OperationId::OTHER
            }
        }
    }

    /// Returns the interned summary of a query.
    pub(crate) fn query(&self, summary: &str) -> QueryId {
        match self.ledger.summaries.id(summary) {
            Interned::Known(id) => QueryId::from_u16(id),
            Interned::Refused => {
                self.log().queries_full(summary, MAX_NAMES);
                QueryId::OTHER
            }
        }
    }

    /// Returns the key under which requests of this route and method are counted.
    #[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "only the middleware serves requests"))]
    pub(crate) fn route_key(&self, route: &str, method: RequestMethod) -> RouteKey {
        self.ledger.routes().key(route, method).unwrap_or_else(|| {
            self.log().routes_full(route, MAX_NAMES);
            RouteTable::other(method)
        })
    }

    /// Returns the operation named after a call site's file and line, and the interned call site.
    #[inline]
    pub(crate) fn operation_at(&self, site: &'static Location<'static>) -> (OperationId, SiteId) {
        match self.ledger.operations.by_site(site) {
            (Interned::Known(operation), id) => (operation, id),
            (Interned::Refused, id) => {
                self.log().operations_full(site.file(), MAX_OPERATIONS);
                (OperationId::OTHER, id)
            }
        }
    }

    /// Returns the interned call site.
    #[inline]
    pub(crate) fn site(&self, site: &'static Location<'static>) -> SiteId {
        self.ledger.operations.site(site)
    }

    /// Returns a span for a named operation with all its attempts, or a disabled one outside a sampled trace.
    #[inline]
    pub(crate) fn operation_span(
        &self,
        operation: OperationId,
        call_site: &'static Location<'static>,
    ) -> OperationSpan {
        if trace::current_context().is_none() {
            return OperationSpan::untraced();
        }
        OperationSpan::new(&self.ledger.name, self.ledger.operations.name(operation), call_site)
    }

    /// Returns a span for the reset of a connection, in the trace of the holder that returned it dirty.
    pub(crate) fn reset_span(&self, operation: OperationId, cause: Option<&SampledSpan>) -> Span {
        trace::reset(&self.ledger.name, self.ledger.operations.name(operation), cause)
    }
}

/// What every checkout and every return reads and records. It is inlined, and touches only hints and the connection's
/// own statistics.
impl Recorder {
    /// Returns a recent number of live connections, without taking the lock.
    #[inline]
    pub(crate) fn live_hint(&self) -> usize {
        self.ledger.hints.live()
    }

    /// Returns whether checkouts recently waited for capacity, without taking the lock.
    #[inline]
    pub(crate) fn queue_hint(&self) -> bool {
        self.ledger.hints.is_queued()
    }

    /// Records that a connection is about to be handed out to `task`, for a checkout at `site`.
    #[inline(always)]
    pub(crate) fn handing_out(&self, stats: &ConnectionStats, site: SiteId, task: u64) {
        stats.set_holder(site, task);
        if cfg!(feature = "otel") {
            stats.set_span(trace::current_span());
        }
    }

    /// Records a checkout that was served at its first poll, without a wait.
    #[inline(always)]
    pub(crate) fn checkout_served(&self, stats: &ConnectionStats, operation: OperationId, at: Nanos) {
        stats.set_used(operation, at);
        stats.count_served(operation);
    }

    /// Records that the holder returned a connection. Its next state is recorded separately.
    #[inline(always)]
    pub(crate) fn connection_returned(&self, stats: &ConnectionStats, operation: OperationId, since: Nanos, at: Nanos) {
        // The state changes first, so that a concurrent reader does not count the time twice.
        stats.set_used(operation, at);
        stats.count_use(operation, at.since(since));
        if stats.is_traced() {
            self.record_use_exemplar(stats, at.since(since));
        }
    }

    /// Records a use as an exemplar of the trace in which the connection was checked out.
    #[cold]
    pub(crate) fn record_use_exemplar(&self, stats: &ConnectionStats, nanos: u64) {
        if let Some(trace) = stats.span_ids() {
            self.ledger().use_exemplars.record(nanos, trace);
        }
    }

    /// Records that a connection went back into the pool.
    #[inline(always)]
    pub(crate) fn connection_idle(&self, stats: &ConnectionStats, at: Nanos) {
        stats.set_idle(at);
        stats.release_span();
    }
}

/// What every checkout and return reads of the state without its lock. Written under it, or under that of a shard, and only when it changes,
/// which is rare under load, so that it stays in the caches of all threads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Hints {
    /// The number of live connections.
    live: AtomicUsize,
    /// Whether checkouts wait for capacity.
    pub(super) queued: AtomicBool,
}

impl Hints {
    pub(super) fn update(&self, live: usize) {
        if self.live.load(Relaxed) != live {
            self.live.store(live, Relaxed);
        }
    }

    #[inline]
    pub(super) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    #[inline]
    pub(super) fn is_queued(&self) -> bool {
        self.queued.load(Relaxed)
    }
}
