//! A pool of connections to Redis, Valkey or KeyDB, which is observed as PostgreSQL's is.
//!
//! Checkouts, waits, holders, leaks, retries, spans and metrics are the same; `docs/redis.md` describes what differs. The
//! driver is the crate `redis`.
//!
//! ```no_run
//! use poolscope::redis::redis::AsyncCommands;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = poolscope::redis::PoolBuilder::new().url("redis://localhost/0").pool_size(5).build()?;
//! let visits: u64 = pool.operation("count_visit").run(async |connection| connection.incr("visits", 1).await).await?;
//! # drop(visits);
//! # Ok(())
//! # }
//! ```

pub use ::redis;

pub use crate::config::RedisUrl;
pub use crate::pool::redis::{
    CheckoutError, Client, ConnectError, Connection, Pool, PoolBuilder, RedisManager, RunError,
};

/// The error of an operation with a retry policy.
pub type RetryError<T> = crate::retry::RetryError<T, ConnectError>;
