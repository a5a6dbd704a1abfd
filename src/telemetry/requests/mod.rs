//! What requests cost a pool, by route and method.
//!
//! Each event is counted twice when it ends, by the task that ends it: in the request's own
//! [`RequestUsage`](super::request_usage::RequestUsage), for its span and its response, and in the counters of its
//! route and method here, for the metrics.

mod table;
mod totals;

pub(crate) use self::table::{RouteKey, RouteTable};
pub use self::totals::RequestTotals;
use crate::labels::Activity;

/// The route label of requests without a known route.
pub(crate) const UNKNOWN_ROUTE: &str = "unknown";

/// The time for which a connection was held, in nanoseconds, by activity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UseBreakdown {
    pub(crate) executing: u64,
    pub(crate) in_transaction: u64,
    pub(crate) idle: u64,
}

impl UseBreakdown {
    /// Returns the times in the order of [`Activity::ALL`].
    pub(crate) fn by_activity(self) -> [u64; Activity::COUNT] {
        let mut nanos = [0; Activity::COUNT];
        nanos[Activity::Executing.index()] = self.executing;
        nanos[Activity::IdleInTransaction.index()] = self.in_transaction;
        nanos[Activity::Idle.index()] = self.idle;
        nanos
    }

    /// Returns the time for which the server was not executing anything.
    pub(crate) fn not_executing(self) -> u64 {
        self.in_transaction.saturating_add(self.idle)
    }
}
