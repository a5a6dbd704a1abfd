//! The log lines of checkouts and queries that take long.

use std::fmt::Display;
use std::panic::Location;
use std::time::Duration;

use super::{Log, Site, call_site_text, event};
use crate::labels::{ErrorCode, Phase};
use crate::telemetry::operations::OperationId;
use crate::telemetry::queries::QueryId;

impl Log<'_> {
    /// Logs that a checkout of an operation, at a call site and in a request of a route, timed out; `report` displays as its
    /// error does.
    #[cold]
    pub(crate) fn checkout_timed_out(
        self,
        (id, operation, call_site, route): (OperationId, &str, &'static Location<'static>, Option<&str>),
        report: &dyn Display,
    ) {
        let Some(suppressed) = self.limiters.timeouts.pass(id.index(), self.clock.now()) else { return };
        let (pool, call_site) = (self.pool, call_site_text(Some(call_site)));
        event!(warn, pool, operation, route, call_site, suppressed, "checkout timed out: {report}");
    }

    /// Logs that a checkout succeeded after a long time; `phase` is what it waited for last, and for how long.
    #[cold]
    pub(crate) fn checkout_slow(
        self,
        (id, operation, call_site): (OperationId, &str, &'static Location<'static>),
        waited: Duration,
        (phase, phase_waited): (Phase, Duration),
    ) {
        let Some(suppressed) = self.limiters.slow_checkouts.pass(id.index(), self.clock.now()) else { return };
        event!(
            warn,
            pool = self.pool,
            operation,
            call_site = call_site_text(Some(call_site)),
            seconds = waited.as_secs_f64(),
            phase = phase.as_str(),
            phase_seconds = phase_waited.as_secs_f64(),
            suppressed,
            "slow checkout: a connection was available only after slow_checkout_threshold"
        );
    }

    /// Logs a query that took long, by its summary; `code` is its error's, if it failed.
    #[cold]
    pub(crate) fn query_slow(
        self,
        (id, summary): (QueryId, &str),
        operation: &str,
        call_site: Site,
        took: Duration,
        code: Option<ErrorCode>,
    ) {
        let Some(suppressed) = self.limiters.slow_queries.pass(id.index(), self.clock.now()) else { return };
        let (sqlstate, error_type) = code.as_ref().map_or((None, None), ErrorCode::fields);
        event!(
            warn,
            pool = self.pool,
            summary,
            operation,
            call_site = call_site_text(call_site),
            seconds = took.as_secs_f64(),
            sqlstate,
            error_type,
            suppressed,
            "slow query: it took longer than slow_query_threshold"
        );
    }
}
