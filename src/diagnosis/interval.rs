//! What happened in a pool between two snapshots, and its state at the second one.

use std::sync::Arc;

use super::call_site::CallSite;
use super::locks::LockBlock;
use crate::labels::{Activity, ClientAddress, CloseReason, ErrorCode, Outcome, Phase};

/// The number of operations that an interval keeps: those that held connections or waited longest.
pub(super) const MAX_OPERATIONS: usize = 16;

/// The number of groups of holders that an interval keeps: those with the most connections.
pub(super) const MAX_HOLDER_GROUPS: usize = 16;

/// The number of error codes that an interval keeps: the most frequent ones.
pub(super) const MAX_ERROR_CODES: usize = 8;

/// The number of buckets of a histogram.
pub(super) const BUCKETS: usize = crate::telemetry::BOUNDS_SECONDS.len() + 1;

/// What one operation did in an interval. Times are connection-seconds.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct OperationInterval {
    pub(super) name: Arc<str>,
    /// Time for which it held connections, by [`Activity::ALL`].
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::activity"))]
    pub(super) held: [f64; Activity::COUNT],
    pub(super) waited: f64,
    pub(super) started: f64,
    pub(super) queries: f64,
    pub(super) retries: f64,
}

impl OperationInterval {
    pub(super) fn held_in_all(&self) -> f64 {
        self.held.iter().sum()
    }
}

/// The connections that one operation held at a call site at the end of an interval.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct HolderGroup {
    pub(super) operation: Arc<str>,
    pub(super) call_site: Option<CallSite>,
    pub(super) connections: f64,
    /// By [`Activity::ALL`]; zero if the wire is not observed.
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::activity"))]
    pub(super) activities: [f64; Activity::COUNT],
    pub(super) suspected_leaks: f64,
    /// The longest time for which one of them has been held, in seconds.
    pub(super) oldest: f64,
    /// The longest time for which one of them has been held without traffic and without a running query, in seconds.
    pub(super) silent: f64,
}

/// A task that holds a connection and waits for another.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct SelfBlocked {
    pub(super) operation: Arc<str>,
    pub(super) held_by: Arc<str>,
    pub(super) held_at: Option<CallSite>,
    pub(super) waits_at: CallSite,
}

/// The server's view of itself at the end of an interval.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct ServerState {
    pub(super) unreachable: bool,
    pub(super) slots: f64,
    pub(super) slots_left: f64,
    /// Backends with the pool's name that no pool of this process owns, by [`ClientAddress::ALL`].
    pub(super) unowned: [f64; ClientAddress::COUNT],
    /// The application with the most backends, and their number.
    pub(super) top_application: Option<(Arc<str>, f64)>,
}

/// What the caches in front of the pool did in an interval.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct CacheActivity {
    /// Lookups that a cache answered, or should have answered.
    pub(super) lookups: f64,
    /// Those that bypassed the cache, because it did not answer in time.
    pub(super) bypassed: f64,
    /// The cache with most of them.
    pub(super) most_bypassed: Option<Arc<str>>,
}

/// What happened in a pool between two snapshots, and its state at the second one.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct Interval {
    /// The length in seconds; positive.
    pub(super) seconds: f64,
    /// The delay of the timer that took the second snapshot, in seconds.
    pub(super) late: f64,

    /// Whether a proxy observes the pool, which sees neither checkouts nor what waits for a connection.
    #[cfg_attr(feature = "exporter", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub(super) is_proxied: bool,
    // The state at the end.
    /// The maximum of connections; for a proxy's pool of unknown size, the connections at the end.
    pub(super) max: f64,
    pub(super) used: f64,
    pub(super) idle: f64,
    pub(super) creating: f64,
    pub(super) closing: f64,
    pub(super) queued: f64,
    /// Checkouts in flight, whatever they wait for.
    pub(super) in_flight: f64,
    pub(super) oldest_wait: f64,
    pub(super) suspected_leaks: f64,
    pub(super) suspended: f64,
    pub(super) self_blocked: f64,
    pub(super) server: Option<ServerState>,
    #[cfg_attr(
        feature = "exporter",
        serde(deserialize_with = "super::recording::lists::at_most::<_, _, MAX_HOLDER_GROUPS>")
    )]
    pub(super) holders: Vec<HolderGroup>,
    pub(super) first_self_blocked: Option<SelfBlocked>,
    /// The pool's connections that wait for a lock.
    pub(super) blocked_on_locks: f64,
    pub(super) first_lock: Option<LockBlock>,

    // What happened.
    pub(super) started: f64,
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::outcome"))]
    pub(super) outcomes: [f64; Outcome::COUNT],
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::buckets"))]
    pub(super) waits: [f64; BUCKETS],
    /// Connection-seconds by [`Activity::ALL`].
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::activity"))]
    pub(super) held: [f64; Activity::COUNT],
    pub(super) returned: f64,
    pub(super) queries: f64,
    /// Seconds that checkouts spent, by [`Phase::ALL`].
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::phase"))]
    pub(super) phases: [f64; Phase::COUNT],
    pub(super) saturated: f64,
    /// Attempts to connect.
    pub(super) connecting: f64,
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::close_reason"))]
    pub(super) closed: [f64; CloseReason::COUNT],
    /// Errors on connections, by code.
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::errors"))]
    pub(super) errors: Vec<(ErrorCode, f64)>,
    /// Failures to connect, without those of a full server.
    pub(super) connect_failures: f64,
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::error_code"))]
    pub(super) last_connect_failure: Option<ErrorCode>,
    /// Refusals of a full server.
    pub(super) refused: f64,
    pub(super) retries: f64,
    /// Operations that were not retried because the budget was spent.
    pub(super) budget_refusals: f64,
    #[cfg_attr(
        feature = "exporter",
        serde(deserialize_with = "super::recording::lists::at_most::<_, _, MAX_OPERATIONS>")
    )]
    pub(super) operations: Vec<OperationInterval>,
    /// `None` without a cache.
    #[cfg_attr(feature = "exporter", serde(skip_serializing_if = "Option::is_none"))]
    pub(super) caches: Option<CacheActivity>,
}

/// Returns whether a connection that was closed for this reason may have been replaced by another.
pub(super) fn may_be_replaced(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::ConnectFailed | CloseReason::ConnectAbandoned | CloseReason::Resized | CloseReason::Shutdown
    )
}

/// The smallest number of connections in use that is taken for an exhausted pool.
const MIN_PLATEAU: f64 = 3.0;

impl Interval {
    /// Returns the connections that were closed and may have been replaced.
    pub(super) fn replaced(&self) -> f64 {
        let reasons = CloseReason::ALL.iter().copied().filter(|reason| may_be_replaced(*reason));
        reasons.map(|reason| self.closed[reason.index()]).sum()
    }

    /// Returns whether all connections of a proxy's pool are in use, `max` of them. One or two are no pool.
    pub(super) fn is_plateau(&self, max: f64) -> bool {
        max >= MIN_PLATEAU && self.used >= max
    }

    /// Returns whether a connection was idle while a checkout waited for capacity: it was woken and not polled.
    pub(super) fn has_unpolled_waiter(&self) -> bool {
        self.idle > 0.0 && self.queued > 0.0 && self.creating == 0.0 && self.suspended == 0.0
    }
}
