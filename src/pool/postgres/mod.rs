//! The PostgreSQL pool.

mod builder;
mod cancel;
mod client;
mod connect;
mod error;
mod hosts;
mod manager;
mod peer;
#[cfg(test)]
mod scripted;
mod server;
mod session;
mod socket;
#[cfg(feature = "tls")]
mod tls;
mod unpooled;

pub use self::builder::PoolBuilder;
pub use self::cancel::CancelToken;
pub use self::client::Client;
#[cfg(feature = "cli")]
pub(crate) use self::connect::Connector;
pub use self::error::ConnectError;
pub use self::manager::PostgresManager;
pub use self::unpooled::UnpooledConnection;
use super::guard::Guard;
use super::pool::Pool;
use crate::config::{ConfigError, Settings};

/// Why a checkout gave no connection.
pub type CheckoutError = crate::error::CheckoutError<ConnectError>;

/// Why an operation given to [`Pool::run`] has no value to answer with.
pub type RunError<T> = crate::error::RunError<T, ConnectError>;

/// A connection that was checked out; see [`Guard`].
///
/// It derefs to [`Client`], and that to [`deadpool_postgres::ClientWrapper`], which is what deadpool-postgres's own
/// `Client` derefs to: queries, transactions and cached statements work as they do there.
pub type Connection = Guard<PostgresManager>;

impl Pool {
    /// Sets a pool up step by step.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    /// A pool for a `postgres://` URL, whose query may hold any of the settings too. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If the URL or a setting in it cannot be.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::builder().settings(Settings::from_url(url)?).build()
    }

    /// A pool as the environment says: `POOLSCOPE_DATABASE_URL`, `POOLSCOPE_POOL_SIZE` and so on. Connects to nothing
    /// yet.
    ///
    /// # Errors
    ///
    /// If a variable cannot be, or if there is none for the URL.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::builder().settings(Settings::from_env()?).build()
    }
}
