//! The log lines about requests.

use std::fmt::Display;

use super::{Limiter, Log, Site, call_site_text, event};
use crate::labels::RequestMethod;
use crate::telemetry::clock::seconds;

impl Log<'_> {
    /// Logs that a request held a connection without executing a query. The times are in nanoseconds.
    #[cold]
    pub(crate) fn request_held_idle(
        self,
        limiter: &Limiter,
        (route, method): (&str, RequestMethod),
        call_site: Site,
        (idle, executing): (u64, u64),
    ) {
        let Some(suppressed) = self.pass(limiter) else { return };
        event!(
            warn,
            pool = self.pool,
            route,
            method = method.as_str(),
            call_site = call_site_text(call_site),
            idle_seconds = seconds(idle),
            executing_seconds = seconds(executing),
            suppressed,
            "request held a connection without running a query; check for calls to other services while it is checked out"
        );
    }

    /// Logs that a request made many checkouts.
    #[cold]
    pub(crate) fn request_many_checkouts(
        self,
        limiter: &Limiter,
        (route, method): (&str, RequestMethod),
        checkouts: u64,
        call_sites: &dyn Display,
    ) {
        let Some(suppressed) = self.pass(limiter) else { return };
        event!(
            warn,
            pool = self.pool,
            route,
            method = method.as_str(),
            checkouts,
            %call_sites,
            suppressed,
            "request made many checkouts; consider using one connection for all of them"
        );
    }
}
