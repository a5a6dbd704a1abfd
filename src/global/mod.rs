//! The global pool, for processes without a better place to keep one.
//!
//! Each function reads its caller's location before it creates a future, so that operations are named after that
//! location instead of this file.

mod cell;
mod error;
mod result;
#[cfg(test)]
mod tests;

use std::panic::Location;

use self::cell::PoolCell;
pub use self::error::{GlobalError, GlobalPoolError};
pub use self::result::{ExecutionResult, ExecutionStatus};
use crate::pool::Pool;
use crate::pool::postgres::{CheckoutError, ConnectError, Connection, PoolBuilder, RunError, UnpooledConnection};
use crate::retry::RetryPolicy;

static GLOBAL: PoolCell = PoolCell::new();

/// Creates the process's global pool. Call it once, at the start, before the pool is first used. Opens no connection.
///
/// The pool exists for the life of the process; after it is closed, there is no other.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// poolscope::init_connection_pool(poolscope::Pool::builder().url("postgres://app@localhost/shop").pool_size(5))?;
///
/// // Anywhere else in the process:
/// let orders = poolscope::execute_with_pool(async |connection| connection.query("SELECT id FROM orders", &[]).await).await?;
/// # drop(orders);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns an error if the pool exists already, or its settings are invalid; in the latter case another call may
/// succeed.
#[track_caller]
pub fn init_connection_pool(builder: PoolBuilder) -> Result<Pool, GlobalPoolError> {
    GLOBAL.init(Location::caller(), builder)
}

/// Returns the global pool: that of [`init_connection_pool`], or else one that is created from the environment at the
/// first use (see [`Pool::from_env`]). Opens no connection.
///
/// # Errors
///
/// Returns an error if there is no pool and the environment does not define one. The next call tries again.
#[track_caller]
pub fn get_connection_pool() -> Result<Pool, GlobalPoolError> {
    GLOBAL.get_or_create(Location::caller(), Pool::from_env).cloned()
}

/// Checks out a connection of the global pool, for an operation named after the caller's file and line. See
/// [`Pool::get`].
///
/// # Errors
///
/// Returns an error if there is no global pool, or the checkout fails.
///
/// # Cancel safety
///
/// The same as for [`Pool::get`].
#[track_caller]
pub fn get_pooled_connection() -> impl Future<Output = Result<Connection, GlobalError<CheckoutError>>> + Send {
    let call_site = Location::caller();
    async move { GLOBAL.get_or_create(call_site, Pool::from_env)?.get_at(call_site).await.map_err(GlobalError::Failed) }
}

/// Checks out a connection of the global pool, passes it to `work`, and returns it. The operation is named after the
/// caller's file and line. See [`Pool::run`].
///
/// # Errors
///
/// Returns an error if there is no global pool, or the checkout or `work` fails.
///
/// # Cancel safety
///
/// Dropping the future drops that of `work` and returns the connection.
#[track_caller]
pub fn execute_with_pool<T, E, W>(work: W) -> impl Future<Output = Result<T, GlobalError<RunError<E>>>> + use<T, E, W>
where
    W: AsyncFnOnce(&mut Connection) -> Result<T, E>,
{
    let call_site = Location::caller();
    async move {
        GLOBAL.get_or_create(call_site, Pool::from_env)?.run_at(call_site, work).await.map_err(GlobalError::Failed)
    }
}

/// Checks out a connection of the global pool, passes it to `work`, and returns it; retries this where that is known to
/// be safe, see [`retry`](crate::retry). The operation is named after the caller's file and line. It counts as not
/// idempotent; use [`Operation::idempotent`](crate::pool::Operation::idempotent) for one that is.
///
/// ```no_run
/// # async fn example() {
/// use poolscope::{RetryPolicy, execute_with_pool_connection};
///
/// let execution = execute_with_pool_connection(RetryPolicy::default(), async |connection| {
///     connection.execute("UPDATE products SET stock = stock - 1 WHERE id = 1", &[]).await
/// })
/// .await;
/// match execution.result() {
///     Some(rows) => println!("{rows} rows after {} attempts", execution.attempts()),
///     None => println!("{}: {}", execution.status().as_str(), execution.message().unwrap_or_default()),
/// }
/// # }
/// ```
///
/// # Cancel safety
///
/// The same as for [`Retrying::run`](crate::retry::Retrying::run).
#[track_caller]
pub fn execute_with_pool_connection<T, E, W>(
    policy: RetryPolicy,
    work: W,
) -> impl Future<Output = ExecutionResult<T, E>>
where
    W: AsyncFnOnce(&mut Connection) -> Result<T, E> + Clone,
{
    let call_site = Location::caller();
    async move {
        let outcome = match GLOBAL.get_or_create(call_site, Pool::from_env) {
            Ok(pool) => {
                let retrying = pool.operation_at(call_site).retry(policy);
                retrying.run_at(call_site, work).await.map_err(GlobalError::Failed)
            }
            Err(error) => Err(GlobalError::Pool(error)),
        };
        ExecutionResult { outcome }
    }
}

/// Opens a connection outside the global pool, to the same database with the same settings, which the pool counts under
/// the caller's file and line. See [`Pool::connect_unpooled`].
///
/// # Errors
///
/// Returns an error if there is no global pool, or the connection cannot be established.
///
/// # Cancel safety
///
/// The same as for [`Pool::connect_unpooled`].
#[track_caller]
pub fn get_postgres_connection() -> impl Future<Output = Result<UnpooledConnection, GlobalError<ConnectError>>> + Send {
    let call_site = Location::caller();
    async move {
        let pool = GLOBAL.get_or_create(call_site, Pool::from_env)?;
        pool.connect_unpooled_at(call_site).await.map_err(GlobalError::Failed)
    }
}
