//! The rates of requests.

use std::time::Duration;

use crate::demo::shop::Endpoint;

/// A kind of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum Arrival {
    /// A request of a client.
    Customer(Endpoint),
    /// A run of the job that archives orders.
    Archiving,
}

/// The rates of all arrivals.
#[derive(Debug)]
pub(in crate::demo) struct Load {
    /// Mean rates per second. Those of the same kind add up.
    pub(in crate::demo) rates: &'static [(Arrival, f64)],
    /// Additional rates.
    pub(in crate::demo) extra: &'static [(Arrival, f64)],
    /// Bursts of requests, if there are any.
    pub(in crate::demo) bursts: Option<Bursts>,
    /// After which time clients cancel a request for the order list; `None` for never.
    pub(in crate::demo) client_timeout: Option<Duration>,
}

impl Load {
    /// Returns all rates.
    pub(super) fn rates(&self) -> impl Iterator<Item = (Arrival, f64)> + use<> {
        self.rates.iter().chain(self.extra).copied()
    }
}

/// Bursts of checkout requests.
#[derive(Clone, Copy, Debug)]
pub(in crate::demo) struct Bursts {
    /// The time until the first burst.
    pub(in crate::demo) first: Duration,
    /// The bounds of the time between two bursts, in seconds.
    pub(in crate::demo) interval_seconds: [f64; 2],
    /// The bounds of the number of requests.
    pub(in crate::demo) size: [usize; 2],
    /// The bounds of the number of requests in every third burst.
    pub(in crate::demo) large_size: [usize; 2],
}
