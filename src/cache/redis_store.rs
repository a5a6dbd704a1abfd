//! Values in Redis.

use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, RedisError, cmd};

use super::core::millis;
use super::store::{Store, StoreError};
use crate::error::CheckoutError;
use crate::labels::{CacheError, ErrorCode};
use crate::pool::Operation;
use crate::redis::{Pool, RedisManager};

/// Deletes a lock if its token is that of its holder, since it may have ended and been taken by another process.
const UNLOCK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Values in Redis. Each call checks out a connection, for the operation `cache NAME`.
pub(super) struct RedisStore {
    operation: Operation<RedisManager>,
}

impl RedisStore {
    pub(super) fn new(pool: &Pool, cache: &str) -> Self {
        Self { operation: pool.operation(&format!("cache {cache}")) }
    }

    async fn execute<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut connection = self.operation.get().await.map_err(|error| match error {
            CheckoutError::Timeout(_) => StoreError::TIMEOUT,
            _ => StoreError { kind: CacheError::Unavailable, code: ErrorCode::IO },
        })?;
        command.query_async(&mut connection).await.map_err(|error| of_redis(&error))
    }
}

/// Classifies an error without its text, which may contain keys.
fn of_redis(error: &RedisError) -> StoreError {
    if error.is_timeout() {
        return StoreError::TIMEOUT;
    }
    if error.is_io_error() || error.is_connection_dropped() {
        return StoreError { kind: CacheError::Unavailable, code: ErrorCode::IO };
    }
    StoreError { kind: CacheError::Server, code: error.code().map_or(ErrorCode::OTHER, ErrorCode::new) }
}

impl Store for RedisStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.execute(cmd("GET").arg(key)).await
    }

    async fn set(&self, key: &str, value: &[u8], time_to_live: Duration) -> Result<(), StoreError> {
        self.execute(cmd("SET").arg(key).arg(value).arg("PX").arg(millis(time_to_live).max(1))).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.execute::<i64>(cmd("DEL").arg(key)).await.map(drop)
    }

    async fn lock(&self, key: &str, token: &str, time_to_live: Duration) -> Result<bool, StoreError> {
        let command = cmd("SET").arg(key).arg(token).arg("NX").arg("PX").arg(millis(time_to_live).max(1)).to_owned();
        // The reply is OK, or nil if the lock is taken.
        self.execute::<Option<String>>(&command).await.map(|reply| reply.is_some())
    }

    async fn unlock(&self, key: &str, token: &str) -> Result<(), StoreError> {
        self.execute::<i64>(cmd("EVAL").arg(UNLOCK).arg(1).arg(key).arg(token)).await.map(drop)
    }
}
