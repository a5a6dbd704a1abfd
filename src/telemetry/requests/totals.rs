//! The cost of requests in a snapshot.

use std::sync::Arc;

use crate::labels::{Activity, Outcome, RequestMethod, RequestWarning};
use crate::telemetry::histogram::Histogram;

/// The cost of the requests of one route and method; see [`middleware`](crate::middleware).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestTotals {
    /// The route's template, never the path of a request.
    pub route: Arc<str>,
    /// The method.
    pub method: RequestMethod,
    /// Requests started: the sum of those that ended and `in_flight`.
    pub started: u64,
    /// Requests that have not ended.
    pub in_flight: u64,
    /// Durations of requests, by [`Outcome::ALL`].
    pub durations: [Histogram; Outcome::COUNT],
    /// Checkouts started.
    pub checkouts: u64,
    /// Time spent waiting in checkouts that have ended, in nanoseconds.
    pub wait_nanos: u64,
    /// Time for which returned connections had been held, in nanoseconds, by [`Activity::ALL`].
    pub use_nanos: [u64; Activity::COUNT],
    /// Attempts of operations after their first.
    pub retries: u64,
    /// Warnings, by [`RequestWarning::ALL`].
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

    pub(super) fn set_key(&mut self, route: &Arc<str>, method: RequestMethod) {
        if !Arc::ptr_eq(&self.route, route) {
            self.route = Arc::clone(route);
        }
        self.method = method;
    }
}
