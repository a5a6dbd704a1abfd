//! A cell for a pool that is created once.

use std::panic::Location;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::error::GlobalPoolError;
use crate::config::ConfigError;
use crate::pool::Pool;
use crate::pool::postgres::PoolBuilder;

/// A cell for a pool that is created once.
#[derive(Debug)]
pub(super) struct PoolCell {
    created: OnceLock<Created>,
    /// Locked while a pool is created, so that only one is.
    creating: Mutex<()>,
}

#[derive(Debug)]
struct Created {
    pool: Pool,
    /// Where it was initialised or first used.
    call_site: &'static Location<'static>,
    from_environment: bool,
}

impl PoolCell {
    pub(super) const fn new() -> Self {
        Self { created: OnceLock::new(), creating: Mutex::new(()) }
    }

    /// Creates the pool; an error if there is one.
    pub(super) fn init(
        &self,
        call_site: &'static Location<'static>,
        builder: PoolBuilder,
    ) -> Result<Pool, GlobalPoolError> {
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Created { pool, call_site, from_environment }) = self.created.get() {
            let (pool, from_environment) = (pool.name().to_owned(), *from_environment);
            return Err(GlobalPoolError::AlreadyInitialised { pool, call_site, from_environment });
        }
        let pool = builder.build().map_err(GlobalPoolError::Settings)?;
        Ok(self.created.get_or_init(|| Created { pool, call_site, from_environment: false }).pool.clone())
    }

    /// Returns the pool, or creates it with `create`.
    pub(super) fn get_or_create(
        &self,
        call_site: &'static Location<'static>,
        create: impl FnOnce() -> Result<Pool, ConfigError>,
    ) -> Result<&Pool, GlobalPoolError> {
        if let Some(created) = self.created.get() {
            return Ok(&created.pool);
        }
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have created it meanwhile.
        if let Some(created) = self.created.get() {
            return Ok(&created.pool);
        }
        let pool = create().map_err(GlobalPoolError::Environment)?;
        Ok(&self.created.get_or_init(|| Created { pool, call_site, from_environment: true }).pool)
    }
}
