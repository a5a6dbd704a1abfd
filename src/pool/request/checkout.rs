//! A request's checkout, from its first poll until the connection is returned.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::route_limits::RoutePermits;
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::request_usage::RequestUsage;
use crate::telemetry::requests::UseBreakdown;
use crate::telemetry::wire::SessionStatus;

/// A checkout for a request, and the use that follows it.
#[derive(Debug)]
pub(in crate::pool) struct RequestCheckout {
    request: Arc<RequestUsage>,
    permit: Permit,
    /// For how long the connection had been executing, and in a transaction, for the operation before this use.
    before: (u64, u64),
    /// For how long holders had waited for another connection before this use.
    own_wait_before: u64,
}

/// The permit of the request's route.
#[derive(Debug)]
enum Permit {
    /// The route has no limit.
    Unlimited,
    Wanted(Arc<RoutePermits>),
    /// Released after the connection is returned.
    Held(OwnedSemaphorePermit),
}

/// Whether a checkout may go on.
#[derive(Debug)]
pub(in crate::pool) enum Entry {
    Admitted,
    /// It waits for one of these permits.
    Full(Arc<RoutePermits>),
    /// The pool is closed.
    Closed,
}

impl RequestCheckout {
    /// Counts a checkout. It holds none of `permits` yet.
    pub(super) fn begin(request: Arc<RequestUsage>, site: SiteId, permits: Option<Arc<RoutePermits>>) -> Self {
        request.begin_checkout(site);
        Self { request, permit: permits.map_or(Permit::Unlimited, Permit::Wanted), before: (0, 0), own_wait_before: 0 }
    }

    /// Acquires a permit of the route, if the checkout needs one and there is one.
    pub(in crate::pool) fn enter(&mut self) -> Entry {
        let Permit::Wanted(permits) = &self.permit else { return Entry::Admitted };
        match permits.try_acquire() {
            Ok(permit) => {
                self.admit(permit);
                Entry::Admitted
            }
            Err(TryAcquireError::NoPermits) => Entry::Full(Arc::clone(permits)),
            Err(TryAcquireError::Closed) => Entry::Closed,
        }
    }

    /// Keeps a permit that was waited for.
    pub(in crate::pool) fn admit(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Permit::Held(permit);
    }

    /// Returns the permit, if there is one, to be released when the connection is back after the use.
    pub(in crate::pool) fn into_permit(self) -> Option<OwnedSemaphorePermit> {
        match self.permit {
            Permit::Held(permit) => Some(permit),
            Permit::Unlimited | Permit::Wanted(_) => None,
        }
    }

    /// Returns the request's method and route, as in `GET /orders/{id}`.
    #[cold]
    pub(in crate::pool) fn route(&self) -> Arc<str> {
        self.request.route_text()
    }

    /// Records that the checkout ended after so many nanoseconds.
    pub(in crate::pool) fn end_wait(&self, nanos: u64) {
        if nanos > 0 {
            self.request.end_wait(nanos);
        }
    }

    /// Records that the connection is handed out, after a wait of so many nanoseconds.
    #[cold]
    pub(in crate::pool) fn begin_use(
        &mut self,
        stats: &ConnectionStats,
        operation: OperationId,
        waited: u64,
        at: Nanos,
    ) {
        self.end_wait(waited);
        stats.set_request(Some(self.request.route_key()));
        self.before = stats.wire().times_of(operation, at);
        self.own_wait_before = stats.own_wait();
    }

    /// Records that the connection is released. The permit is released when this is dropped, which must be after the
    /// connection is returned.
    #[cold]
    pub(in crate::pool) fn end_use(&self, stats: &ConnectionStats, operation: OperationId, since: Nanos, at: Nanos) {
        stats.set_request(None);
        let (executing, in_transaction) = stats.wire().times_of(operation, at);
        let held = at.since(since);
        let executing = executing.saturating_sub(self.before.0).min(held);
        let in_transaction = in_transaction.saturating_sub(self.before.1).min(held - executing);
        let idle = held - executing - in_transaction;
        let breakdown = UseBreakdown { executing, in_transaction, idle };
        self.request.end_use(breakdown);
        // Unless the protocol is observed, it is unknown what the connection did.
        if stats.wire().status() != SessionStatus::Unread {
            let own_wait = stats.own_wait().saturating_sub(self.own_wait_before);
            self.request.warn_of_idle_hold(stats.site(), breakdown, own_wait);
        }
    }
}
