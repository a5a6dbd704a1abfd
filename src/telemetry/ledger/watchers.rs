//! Who is told of what happens.

use std::panic::Location;
use std::sync::Arc;

use super::Ledger;
use crate::event::{Event, Outcome};
use crate::telemetry::clock::Nanos;
use crate::telemetry::log;
use crate::telemetry::operations::{Interned, OperationId, SiteId};
use crate::telemetry::queries::QueryId;
use crate::telemetry::requests::{RequestMethod, Requests, RouteKey};
use crate::telemetry::trace::TraceContext;

/// The accounts and the log of one pool: what the pool tells its events to.
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

    /// Tells every reader.
    #[inline(always)]
    pub(crate) fn emit(&self, event: Event<'_>) {
        self.ledger.record(event);
        self.log(event);
    }

    /// Tells the log alone, of what the ledger was told before.
    #[inline(always)]
    pub(crate) fn log(&self, event: Event<'_>) {
        log::record(&self.ledger, event);
    }

    pub(crate) fn operation(&self, name: &str) -> OperationId {
        match self.ledger.operations.by_name(name) {
            Interned::Known(id) => id,
            Interned::Refused => {
                self.emit(Event::OperationsFull { name });
                OperationId::OTHER
            }
        }
    }

    /// What a query is that has this summary.
    pub(crate) fn query(&self, summary: &str) -> QueryId {
        match self.ledger.queries.id(summary) {
            Interned::Known(id) => QueryId::from_u16(id),
            Interned::Refused => {
                self.emit(Event::QueriesFull { summary });
                QueryId::OTHER
            }
        }
    }

    /// What kind of request it is that has this route and method.
    #[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "nobody serves requests"))]
    pub(crate) fn request_kind(&self, route: &str, method: RequestMethod) -> RouteKey {
        self.ledger.requests().kind(route, method).unwrap_or_else(|| {
            self.emit(Event::RoutesFull { route });
            Requests::other(method)
        })
    }

    #[inline]
    pub(crate) fn operation_at(&self, site: &'static Location<'static>) -> (OperationId, SiteId) {
        match self.ledger.operations.by_site(site) {
            (Interned::Known(id), place) => (id, place),
            (Interned::Refused, place) => {
                self.emit(Event::OperationsFull { name: site.file() });
                (OperationId::OTHER, place)
            }
        }
    }

    #[inline]
    pub(crate) fn site(&self, site: &'static Location<'static>) -> SiteId {
        self.ledger.operations.site(site)
    }

    /// Emits [`Event::OperationFinished`].
    pub(crate) fn operation_finished(
        &self,
        operation: OperationId,
        outcome: Outcome,
        since: Nanos,
        trace: Option<TraceContext>,
    ) {
        let took = self.now().duration_since(since);
        self.emit(Event::OperationFinished { operation, outcome, took, trace });
    }
}
