//! The PostgreSQL pool.

mod builder;
mod cancel;
mod client;
mod connect;
mod error;
mod error_source;
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
pub use self::server_watch::ServerViewError;
pub use self::unpooled::UnpooledConnection;
use super::release::Guard;

/// The error of a checkout.
pub type CheckoutError = crate::error::CheckoutError<ConnectError>;

/// The error of an operation given to [`Pool::run`](crate::Pool::run).
pub type RunError<T> = crate::error::RunError<T, ConnectError>;

/// A connection that was checked out; see [`Guard`](crate::pool::Guard).
///
/// It dereferences to [`Client`], and through that to [`deadpool_postgres::ClientWrapper`], like deadpool-postgres's
/// own `Client`: queries, transactions and cached statements work as they do there.
pub type Connection = Guard<PostgresManager>;
