//! What requests cost, as plain data.

use std::sync::Arc;

use super::{RequestMethod, RequestWarning};
use crate::labels::{Activity, Outcome};
use crate::telemetry::histogram::Histogram;

/// What the requests of one route and method cost a pool; see [`middleware`](crate::middleware).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestTotals {
    /// The route: its template, never the path itself.
    pub route: Arc<str>,
    /// The method.
    pub method: RequestMethod,
    /// Requests begun: the sum of those that ended and `in_flight`.
    pub started: u64,
    /// Requests that have not ended.
    pub in_flight: u64,
    /// Durations of requests, by [`Outcome::ALL`].
    pub durations: [Histogram; Outcome::COUNT],
    /// Checkouts begun.
    pub checkouts: u64,
    /// Time of checkouts that ended, in nanoseconds.
    pub wait_nanos: u64,
    /// Time for which connections were held that were returned since, in nanoseconds, by [`Activity::ALL`].
    pub use_nanos: [u64; Activity::COUNT],
    /// Attempts of operations after the first.
    pub retries: u64,
    /// What was warned of, by [`RequestWarning::ALL`].
    pub warnings: [u64; RequestWarning::COUNT],
}

impl RequestTotals {
    pub(super) fn blank(route: Arc<str>) -> Self {
        Self {
            route,
            method: RequestMethod::Other,
            started: 0,
            in_flight: 0,
            durations: Default::default(),
            checkouts: 0,
            wait_nanos: 0,
            use_nanos: [0; Activity::COUNT],
            retries: 0,
            warnings: [0; RequestWarning::COUNT],
        }
    }

    pub(super) fn set_kind(&mut self, route: &Arc<str>, method: RequestMethod) {
        if !Arc::ptr_eq(&self.route, route) {
            self.route = Arc::clone(route);
        }
        self.method = method;
    }
}
