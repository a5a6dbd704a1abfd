//! The handle through which the pool records its events.

use std::panic::Location;
use std::sync::Arc;

use super::Ledger;
use crate::telemetry::clock::Nanos;
use crate::telemetry::log::Log;
use crate::telemetry::names::MAX_NAMES;
use crate::telemetry::operations::{Interned, MAX_OPERATIONS, OperationId, SiteId};
use crate::telemetry::queries::QueryId;
use crate::telemetry::requests::{RequestMethod, Requests, RouteKey};

/// Records the events of one pool in its [`Ledger`], and logs those that have a log line. Clones are handles to the same
/// ledger.
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
        match self.ledger.queries.id(summary) {
            Interned::Known(id) => QueryId::from_u16(id),
            Interned::Refused => {
                self.log().queries_full(summary, MAX_NAMES);
                QueryId::OTHER
            }
        }
    }

    /// Returns the key under which requests of this route and method are counted.
    #[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "nobody serves requests"))]
    pub(crate) fn request_kind(&self, route: &str, method: RequestMethod) -> RouteKey {
        self.ledger.requests().kind(route, method).unwrap_or_else(|| {
            self.log().routes_full(route, MAX_NAMES);
            Requests::other(method)
        })
    }

    /// Returns the operation that is named after the caller's file and line, and its call site.
    #[inline]
    pub(crate) fn operation_at(&self, site: &'static Location<'static>) -> (OperationId, SiteId) {
        match self.ledger.operations.by_site(site) {
            (Interned::Known(id), place) => (id, place),
            (Interned::Refused, place) => {
                self.log().operations_full(site.file(), MAX_OPERATIONS);
                (OperationId::OTHER, place)
            }
        }
    }

    /// Returns the interned call site.
    #[inline]
    pub(crate) fn site(&self, site: &'static Location<'static>) -> SiteId {
        self.ledger.operations.site(site)
    }
}
