//! The handle through which the pool records its events.

use std::panic::Location;
use std::sync::Arc;

use tracing::Span;

use super::Ledger;
use crate::labels::RequestMethod;
use crate::telemetry::clock::Nanos;
use crate::telemetry::log::Log;
use crate::telemetry::names::MAX_NAMES;
use crate::telemetry::operations::{Interned, MAX_OPERATIONS, OperationId, SiteId};
use crate::telemetry::queries::QueryId;
use crate::telemetry::requests::{RouteKey, RouteTable};
use crate::telemetry::trace::{self, OperationSpan, SampledSpan};

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

    /// Returns a span for the cleaning of a connection, in the trace of the holder that returned it dirty.
    pub(crate) fn cleaning_span(&self, operation: OperationId, cause: Option<&SampledSpan>) -> Span {
        trace::cleaning(&self.ledger.name, self.ledger.operations.name(operation), cause)
    }
}
