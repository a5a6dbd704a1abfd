//! What requests cost a pool, by the route that served them: the middleware's accounts.
//!
//! Two accounts are kept of each thing: the request's own, for its span and its answer, and that of its kind (route and
//! method), for the metrics. Both are written when the thing ends, by whatever task that is.

mod account;
mod kinds;
mod totals;

use crate::labels::label_enum;

#[cfg(feature = "middleware")]
pub(crate) use self::account::Request;
pub(crate) use self::account::{CallSites, UseBreakdown};
#[cfg(feature = "middleware")]
pub(crate) use self::kinds::ROUTES;
pub(crate) use self::kinds::{Requests, RouteKey};
pub use self::totals::RequestTotals;

label_enum! {
    /// A request's method, as OpenTelemetry tells them apart.
    RequestMethod {
        /// `GET`
        Get => "GET",
        /// `HEAD`
        Head => "HEAD",
        /// `POST`
        Post => "POST",
        /// `PUT`
        Put => "PUT",
        /// `DELETE`
        Delete => "DELETE",
        /// `PATCH`
        Patch => "PATCH",
        /// `OPTIONS`
        Options => "OPTIONS",
        /// `CONNECT`
        Connect => "CONNECT",
        /// `TRACE`
        Trace => "TRACE",
        /// Any other.
        Other => "_OTHER",
    }
}

label_enum! {
    /// What a request does with a pool that it had better not.
    RequestWarning {
        /// It makes many checkouts, one after the other: the n + 1 of pools.
        ManyCheckouts => "many_checkouts",
        /// It holds a connection while the server has nothing to do for it: it calls elsewhere, perhaps.
        HeldElsewhere => "held_elsewhere",
    }
}

/// What stands in the place of a route that is not known.
pub(crate) const UNKNOWN_ROUTE: &str = "unknown";
