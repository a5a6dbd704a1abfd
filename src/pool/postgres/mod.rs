//! The PostgreSQL pool.

mod builder;
mod cancel;
mod client;
mod connect;
mod connect_failure;
mod deadpool_client;
mod drive;
mod error;
mod hook;
mod hosts;
mod listen;
mod manager;
mod password;
#[cfg(test)]
mod scripted_server;
mod server_watch;
mod session;
#[cfg_attr(not(feature = "tls"), path = "session_no_tls.rs")]
mod session_tls;
#[cfg(all(test, feature = "tls"))]
mod tls_connect_tests;
mod unpooled;

pub use self::builder::PoolBuilder;
pub use self::cancel::CancelToken;
pub use self::client::Client;
pub use self::error::ConnectError;
pub use self::listen::{ListenError, Listener, Notification};
pub use self::manager::PostgresManager;
pub use self::password::Secret;
pub use self::server_watch::ServerViewError;
pub use self::unpooled::UnpooledConnection;
use super::release::Guard;
use crate::net::{error_source, losses, peer, pool_name, socket, tcp_options, tls};

/// The error of a checkout.
pub type CheckoutError = crate::error::CheckoutError<ConnectError>;

/// The error of an operation given to [`Pool::run`](crate::Pool::run).
pub type RunError<T> = crate::error::RunError<T, ConnectError>;

/// A connection that was checked out; see [`Guard`](crate::pool::Guard).
///
/// It dereferences to [`Client`], and through that to [`deadpool_postgres::Client`]: queries, transactions and cached
/// statements work as they do there. A function that takes a `&deadpool_postgres::Client` takes `&connection`, and one
/// that is generic over [`deadpool_postgres::GenericClient`] takes `&**connection`:
///
/// ```no_run
/// use poolscope::deadpool_postgres::GenericClient;
/// use poolscope::{Error, Pool};
///
/// async fn newest(client: &impl GenericClient) -> Result<i64, poolscope::tokio_postgres::Error> {
///     Ok(client.query_one("SELECT max(id) FROM orders", &[]).await?.get(0))
/// }
///
/// async fn newest_twice(pool: &Pool) -> Result<(i64, i64), Error> {
///     let mut connection = pool.get().await?;
///     let first = newest(&**connection).await?;
///     let transaction = connection.transaction().await?;
///     Ok((first, newest(&transaction).await?))
/// }
/// ```
pub type Connection = Guard<PostgresManager>;
