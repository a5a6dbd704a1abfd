//! The pool of connections to Redis, Valkey or KeyDB.
//!
//! deadpool-redis's manager is not used: it opens its sockets itself, so that their bytes could not be observed, and does
//! not know what a holder has left in the session.

mod builder;
mod client;
mod connect;
mod error;
mod manager;
mod server_watch;

pub use self::builder::PoolBuilder;
pub use self::client::Client;
pub use self::error::ConnectError;
pub use self::manager::RedisManager;
use super::release::Guard;
use crate::net::{losses, peer, pool_name, socket, tcp_options, tls};

/// The error of a checkout.
pub type CheckoutError = crate::error::CheckoutError<ConnectError>;

/// The error of an operation given to [`Pool::run`].
pub type RunError<T> = crate::error::RunError<T, ConnectError>;

/// A pool of connections to Redis; see [`crate::Pool`] for its methods, and [`PoolBuilder`] to build one.
///
/// ```no_run
/// use poolscope::redis::redis::AsyncCommands;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = poolscope::redis::PoolBuilder::new().url("redis://localhost/0").pool_size(5).build()?;
/// let mut connection = pool.get().await?;
/// let price: Option<f64> = connection.get("price:42").await?;
/// # drop(price);
/// # Ok(())
/// # }
/// ```
pub type Pool = super::Pool<RedisManager>;

/// A connection that was checked out; see [`Guard`](crate::pool::Guard).
///
/// It is a [`ConnectionLike`](::redis::aio::ConnectionLike) of the crate `redis`: its commands, pipelines, transactions and
/// scripts work as they do there.
pub type Connection = Guard<RedisManager>;
