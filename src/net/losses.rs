//! The log of connections that were lost.

use std::fmt::Display;

use super::pool_name::PoolName;
use crate::labels::ErrorCode;
use crate::telemetry::clock::Clock;
use crate::telemetry::log::{Limiter, event};

/// Logs the lost connections of one pool, whatever they were for. Many are lost at once when a server stops, and again and
/// again if it restarts, so they are counted together.
#[derive(Debug)]
pub(crate) struct LossLog {
    pool: PoolName,
    clock: Clock,
    limiter: Limiter,
}

impl LossLog {
    pub(crate) fn new(pool: PoolName, clock: Clock) -> Self {
        Self { pool, clock, limiter: Limiter::new() }
    }

    /// Returns the pool's name.
    pub(crate) fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// Logs the error with which a connection ended. `is_expected` is whether that is the usual end of one that no caller
    /// uses, and `is_held` whether a caller used this one, as far as is known.
    pub(crate) fn record(&self, code: ErrorCode, is_expected: bool, is_held: bool, error: &dyn Display) {
        let (pool, (sqlstate, error_type)) = (self.pool.as_str(), code.fields());
        if !is_held && is_expected {
            event!(debug, pool, sqlstate, error_type, %error, "the server closed an idle connection");
        } else if let Some(suppressed) = self.limiter.pass(self.clock.now()) {
            event!(warn, pool, sqlstate, error_type, %error, suppressed, "connection lost");
        }
    }
}

#[cfg(test)]
#[path = "losses_tests.rs"]
mod tests;
