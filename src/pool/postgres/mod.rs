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
mod scripted_server;
mod server_watch;
mod session;
mod socket;
mod tcp_options;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
#[cfg_attr(not(unix), path = "no_unix.rs")]
mod unix;
mod unpooled;

pub use self::builder::PoolBuilder;
pub use self::cancel::CancelToken;
pub use self::client::Client;
pub use self::error::ConnectError;
pub use self::manager::PostgresManager;
pub use self::unpooled::UnpooledConnection;
use super::pool::Pool;
use super::release::Guard;
use crate::config::{ConfigError, Settings};

/// The error of a checkout.
pub type CheckoutError = crate::error::CheckoutError<ConnectError>;

/// The error of an operation given to [`Pool::run`].
pub type RunError<T> = crate::error::RunError<T, ConnectError>;

/// A connection that was checked out; see [`Guard`].
///
/// It dereferences to [`Client`], and through that to [`deadpool_postgres::ClientWrapper`], like deadpool-postgres's own
/// `Client`: queries, transactions and cached statements work as they do there.
pub type Connection = Guard<PostgresManager>;

impl Pool {
    /// Returns a builder.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    /// Creates a pool from a `postgres://` URL, whose query may contain any of the settings. Does not connect yet.
    ///
    /// # Errors
    ///
    /// If the URL or a setting in it is invalid.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::builder().settings(Settings::from_url(url)?).build()
    }

    /// Creates a pool from environment variables: `POOLSCOPE_DATABASE_URL`, `POOLSCOPE_POOL_SIZE` and so on. Does not
    /// connect yet.
    ///
    /// # Errors
    ///
    /// If a variable is invalid, or the one with the URL is missing.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::builder().settings(Settings::from_env()?).build()
    }
}
