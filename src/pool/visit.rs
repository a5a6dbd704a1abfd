//! What a request makes of one checkout: from its first poll until the connection is returned.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::share::RoutePermits;
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::requests::{Request, UseBreakdown};
use crate::telemetry::seat::ConnectionStats;
use crate::telemetry::wire::Status;

/// A checkout of a request's, and the hold that comes of it.
#[derive(Debug)]
pub(super) struct RequestCheckout {
    request: Arc<Request>,
    share: Share,
    /// What the connection had done for the operation before, executing and in a transaction.
    before: (u64, u64),
}

/// Its place among those of its route.
#[derive(Debug)]
enum Share {
    /// The route may hold what it gets.
    Unlimited,
    Wanted(Arc<RoutePermits>),
    /// To be given back when the connection is.
    Held(OwnedSemaphorePermit),
}

/// Whether a checkout may go on.
#[derive(Debug)]
pub(super) enum Entry {
    Free,
    /// It is to wait for one of these places.
    Full(Arc<RoutePermits>),
    /// The pool is closed.
    Closed,
}

impl RequestCheckout {
    /// A checkout begins; of its route's places, if those are limited, it has none yet.
    pub(super) fn begin(request: Arc<Request>, site: SiteId, share: Option<Arc<RoutePermits>>) -> Self {
        request.begin_checkout(site);
        Self { request, share: share.map_or(Share::Unlimited, Share::Wanted), before: (0, 0) }
    }

    /// Takes a place, if it needs one and there is one.
    pub(super) fn enter(&mut self) -> Entry {
        let Share::Wanted(places) = &self.share else { return Entry::Free };
        match places.take() {
            Ok(place) => {
                self.admit(place);
                Entry::Free
            }
            Err(TryAcquireError::NoPermits) => Entry::Full(Arc::clone(places)),
            Err(TryAcquireError::Closed) => Entry::Closed,
        }
    }

    /// It has a place.
    pub(super) fn admit(&mut self, place: OwnedSemaphorePermit) {
        self.share = Share::Held(place);
    }

    /// Its place, if it has one, for who brings the connection back after the hold has ended.
    pub(super) fn into_place(self) -> Option<OwnedSemaphorePermit> {
        match self.share {
            Share::Held(place) => Some(place),
            Share::Unlimited | Share::Wanted(_) => None,
        }
    }

    /// The checkout ended after so long.
    pub(super) fn end_wait(&self, nanos: u64) {
        if nanos > 0 {
            self.request.end_wait(nanos);
        }
    }

    /// The connection of this seat is handed out to it, after a wait of so long.
    #[cold]
    pub(super) fn begin_use(&mut self, stats: &ConnectionStats, operation: OperationId, waited: u64, at: Nanos) {
        self.end_wait(waited);
        self.before = stats.wire().times_of(operation, at);
    }

    /// It is returned. Its place is given back when this is dropped, which is to be after the connection is back.
    #[cold]
    pub(super) fn end_use(&self, stats: &ConnectionStats, operation: OperationId, since: Nanos, at: Nanos) {
        let (executing, in_transaction) = stats.wire().times_of(operation, at);
        let held = at.since(since);
        let executing = executing.saturating_sub(self.before.0).min(held);
        let in_transaction = in_transaction.saturating_sub(self.before.1).min(held - executing);
        let idle = held - executing - in_transaction;
        let spent = UseBreakdown { executing, in_transaction, idle };
        self.request.end_use(spent);
        // Where the wire is not read it is not known what it did.
        if stats.wire().status() != Status::Unread {
            self.request.warn_of_hold(stats.site(), spent);
        }
    }
}
