//! The log of connections that were lost.

use std::fmt::Display;

use super::error::error_code;
use super::pool_name::PoolName;
use crate::labels::ErrorCode;
use crate::telemetry::clock::Clock;
use crate::telemetry::log::{Limiter, event};
use crate::text::ErrorChain;

/// Logs the lost connections of one pool, whatever they were for. Many are lost at once when a server stops, and again and
/// again if it restarts, so they are counted together.
#[derive(Debug)]
pub(super) struct LossLog {
    pool: PoolName,
    clock: Clock,
    limiter: Limiter,
}

impl LossLog {
    pub(super) fn new(pool: PoolName, clock: Clock) -> Self {
        Self { pool, clock, limiter: Limiter::new() }
    }

    /// Returns the pool's name.
    pub(super) fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// Logs the error with which a connection ended. `is_held` is whether a caller used it, as far as is known.
    pub(super) fn record(&self, error: &tokio_postgres::Error, is_held: bool) {
        self.log(error_code(error), is_held, &ErrorChain(error));
    }

    fn log(&self, code: ErrorCode, is_held: bool, error: &dyn Display) {
        let (pool, (sqlstate, error_type)) = (self.pool.as_str(), code.fields());
        // By a shutdown, or by `idle_session_timeout`: no caller is affected.
        if !is_held && matches!(sqlstate, Some("57P01" | "57P05")) {
            event!(debug, pool, sqlstate, %error, "the server closed an idle connection");
        } else if let Some(suppressed) = self.limiter.pass(self.clock.now()) {
            event!(warn, pool, sqlstate, error_type, %error, suppressed, "connection lost");
        }
    }
}

#[cfg(test)]
#[path = "losses_tests.rs"]
mod tests;
