//! Errors of the global pool.

use std::fmt;
use std::panic::Location;

use crate::config::ConfigError;

/// The error of creating or finding the global pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GlobalPoolError {
    /// The global pool exists already, and remains unchanged.
    #[error("the global pool `{pool}` exists already, {}", Origin { call_site, from_environment: *from_environment })]
    #[non_exhaustive]
    AlreadyInitialised {
        /// The name of the existing pool.
        pool: String,
        /// Where the existing pool was initialised or first used.
        call_site: &'static Location<'static>,
        /// Whether the existing pool was created from the environment, because it was used before it was initialised.
        from_environment: bool,
    },
    /// The settings given to [`init_connection_pool`](super::init_connection_pool) are invalid.
    #[error(transparent)]
    Settings(ConfigError),
    /// The global pool was not initialised, and the environment does not define one.
    #[error("no global pool: init_connection_pool was not called, and the environment does not define one: {0}")]
    Environment(ConfigError),
}

/// How the existing pool was created, and how to avoid creating another.
struct Origin<'a> {
    call_site: &'a Location<'a>,
    from_environment: bool,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (origin, remedy) = if self.from_environment {
            ("created from the environment for", "call init_connection_pool before the pool is first used")
        } else {
            ("initialised at", "initialise it once, then call get_connection_pool")
        };
        write!(f, "{origin} {}:{}: {remedy}", self.call_site.file(), self.call_site.line())
    }
}

/// The error of a function that uses the global pool.
///
/// Implements [`Error`](std::error::Error) if `E` does, and displays the contained error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GlobalError<E> {
    /// There is no global pool.
    #[error(transparent)]
    Pool(#[from] GlobalPoolError),
    /// The use of the pool failed.
    #[error(transparent)]
    Failed(E),
}
