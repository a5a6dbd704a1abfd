//! The log lines of certificate files that are read again.

use super::super::pool_name::PoolName;
use crate::telemetry::log::{ReloadLimiter, event};

/// Logs that the certificate files of a pool, or of one side of a proxy, were read again.
#[derive(Debug, Default)]
pub(crate) struct ReloadLog {
    pool: Option<PoolName>,
    direction: Option<&'static str>,
    limiter: ReloadLimiter,
}

impl ReloadLog {
    pub(super) fn of_pool(name: &PoolName) -> Self {
        Self { pool: Some(name.clone()), ..Self::default() }
    }

    /// For TLS in this direction.
    #[cfg(feature = "proxy")]
    pub(crate) fn of_proxy(direction: &'static str) -> Self {
        Self { direction: Some(direction), ..Self::default() }
    }

    /// Logs that the files were read, or what is invalid.
    pub(crate) fn record(&self, result: Result<(), &str>) {
        let Some(suppressed) = self.limiter.pass(result) else { return };
        let (pool, direction) = (self.pool.as_ref().map(PoolName::as_str), self.direction);
        match result {
            Ok(()) => event!(info, pool, direction, suppressed, "reloaded the certificates for TLS"),
            Err(error) => event!(
                error,
                pool,
                direction,
                error,
                suppressed,
                "the certificate files have changed and cannot be used; new connections use the previous ones"
            ),
        }
    }
}
