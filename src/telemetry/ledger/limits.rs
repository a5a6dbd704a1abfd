//! The limits of a pool.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The limits of a pool, from its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum number of idle connections.
    pub pool_size: usize,
    /// The maximum number of connections beyond `pool_size`.
    pub max_overflow: usize,
    /// The time limit of a checkout.
    pub checkout_timeout: Duration,
    /// The wait that 99 % of checkouts stay below with the recommended size.
    pub wait_target: Duration,
    /// How long a connection is held and silent before it is a suspected leak; `None` disables the detection.
    pub leak_threshold: Option<Duration>,
    /// The duration from which on a successful checkout is logged; `None`: never.
    pub slow_checkout_threshold: Option<Duration>,
    /// The duration from which on a query is logged; `None`: never.
    pub slow_query_threshold: Option<Duration>,
    /// Retries per second that are always allowed.
    pub retry_floor: usize,
    /// Retries allowed per hundred operations.
    pub retry_percent: usize,
}

impl Limits {
    /// The limits in a snapshot that was not read yet.
    pub(super) const NONE: Self = Self {
        pool_size: 0,
        max_overflow: 0,
        checkout_timeout: Duration::ZERO,
        wait_target: Duration::ZERO,
        leak_threshold: None,
        slow_checkout_threshold: None,
        slow_query_threshold: None,
        retry_floor: 0,
        retry_percent: 0,
    };

    /// Returns the limits of a pool that is in the clients of a proxy. Its size is zero if it is unknown.
    #[cfg(feature = "proxy")]
    pub(crate) const fn of_proxy(
        pool_size: usize,
        leak_threshold: Option<Duration>,
        slow_query_threshold: Option<Duration>,
    ) -> Self {
        Self { pool_size, leak_threshold, slow_query_threshold, ..Self::NONE }
    }

    /// Returns limits for unit tests of a ledger.
    #[cfg(test)]
    pub(crate) const fn for_tests() -> Self {
        Self { pool_size: 1, wait_target: Duration::from_millis(1), ..Self::NONE }
    }

    /// Returns the maximum number of connections: `pool_size + max_overflow`.
    #[must_use]
    pub fn max(&self) -> usize {
        self.pool_size.saturating_add(self.max_overflow)
    }
}

/// The limits of a pool at the moment. Its size is changed under the ledger's lock, and exact under it.
#[derive(Debug)]
pub(super) struct CurrentLimits {
    configured: Limits,
    pool_size: AtomicUsize,
    max_overflow: AtomicUsize,
}

impl CurrentLimits {
    pub(super) fn new(limits: Limits) -> Self {
        let (pool_size, max_overflow) = (limits.pool_size.into(), limits.max_overflow.into());
        Self { configured: limits, pool_size, max_overflow }
    }

    pub(super) fn get(&self) -> Limits {
        let (pool_size, max_overflow) = (self.pool_size.load(Relaxed), self.max_overflow.load(Relaxed));
        Limits { pool_size, max_overflow, ..self.configured }
    }

    pub(super) fn resize(&self, pool_size: usize, max_overflow: usize) {
        self.pool_size.store(pool_size, Relaxed);
        self.max_overflow.store(max_overflow, Relaxed);
    }
}
