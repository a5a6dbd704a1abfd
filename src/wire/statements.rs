//! The caches of prepared statements, as far as the protocol decides what they may hold.

use std::fmt;
use std::sync::OnceLock;

use crate::telemetry::clock::Nanos;

/// Drops cached statements that the server no longer executes.
///
/// The connection's task calls it before it passes the server's error on, so that the caller's next attempt prepares
/// the statement again, whichever interface it used.
pub(crate) struct StatementCaches {
    /// Whether statements are cached at all.
    enabled: bool,
    /// Makes every connection of the pool drop the statements that it cached before a time, at its next checkout.
    drop_in_pool: Box<dyn Fn(Nanos) + Send + Sync>,
    /// Drops those of this connection.
    drop_own: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl StatementCaches {
    pub(crate) fn new(enabled: bool, drop_in_pool: impl Fn(Nanos) + Send + Sync + 'static) -> Self {
        Self { enabled, drop_in_pool: Box::new(drop_in_pool), drop_own: OnceLock::new() }
    }

    /// Sets how the cache of the connection, which exists only after it was established, is cleared.
    pub(crate) fn set_own(&self, drop_own: impl Fn() + Send + Sync + 'static) {
        let _ = self.drop_own.set(Box::new(drop_own));
    }

    /// Drops the statements of this connection now, and those of the others at their next checkouts.
    #[cold]
    pub(super) fn invalidate(&self, at: Nanos) {
        (self.drop_in_pool)(at);
        self.drop_own();
    }

    /// Prevents the statement that is being prepared from being kept, unless statements are cached.
    pub(super) fn prepared(&self) {
        if !self.enabled {
            // The cache has an entry from before the statement was sent; the caller keeps the statement itself.
            self.drop_own();
        }
    }

    fn drop_own(&self) {
        if let Some(drop_own) = self.drop_own.get() {
            drop_own();
        }
    }
}

impl fmt::Debug for StatementCaches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatementCaches").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}
