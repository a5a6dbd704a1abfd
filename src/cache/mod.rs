//! A read-through cache in Redis, for reads of a database that are frequent, and may be some seconds old.
//!
//! [`Cache::get_or_load`] looks up a key, and calls a loader if nothing is stored. `docs/cache.md` describes which reads to
//! cache, and how to see that it helped.
//!
//! - Of concurrent callers that need the same key, one reads the cache and loads; the others share its result.
//! - At most [`max_loads`](CacheBuilder::max_loads) loads run at a time: a cache that is away or empty does not take the
//!   database down.
//! - Each call of Redis has a [`deadline`](CacheBuilder::deadline). After five failures in succession Redis is called once per
//!   second only, and the loaders are called at once. No request fails because of the cache.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use poolscope::cache::Cache;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = poolscope::Pool::builder().url("postgres://app@localhost/shop").build()?;
//! let redis = poolscope::redis::PoolBuilder::new().url("redis://localhost/0").build()?;
//! let names: Cache<String> = Cache::builder(&redis, "product_names")
//!     .time_to_live(Duration::from_secs(60))
//!     .negative_time_to_live(Duration::from_secs(5))
//!     .loads_from(&pool)
//!     .build()?;
//!
//! let id = 42;
//! let name = names
//!     .get_or_load(&id.to_string(), async || {
//!         let row = pool.get().await?.query_opt("SELECT name FROM products WHERE id = $1", &[&id]).await?;
//!         Ok::<_, poolscope::Error>(row.map(|row| row.get(0)))
//!     })
//!     .await?;
//! # drop(name);
//!
//! // After the transaction that changed the product was committed:
//! names.invalidate(&id.to_string()).await?;
//! # Ok(())
//! # }
//! ```

mod builder;
mod codec;
mod core;
mod entry;
mod error;
mod flights;
mod invalidations;
mod log;
mod recorded;
mod redis_store;
mod settings;
mod storage;
mod store;
mod suspension;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::builder::CacheBuilder;
pub use self::codec::{Codec, CodecError, Json, MessagePack};
use self::core::{Core, Looked};
pub use self::error::{CacheConfigError, InvalidateError, LoadError};
use self::redis_store::RedisStore;
use crate::redis;

/// A read-through cache of values `V` in Redis, encoded by the codec `C`. See the [module](self).
///
/// Clones are handles to the same cache.
pub struct Cache<V, C = Json> {
    core: Arc<Core<V, C, RedisStore>>,
}

impl<V> Cache<V> {
    /// Returns a builder of a cache in the server of `redis`. The name, of at most 64 bytes, is a part of the keys, and the
    /// label `cache` of the metrics. Caches of the same name, prefix and version share their values, in all processes.
    #[must_use = "a builder does nothing until `build`"]
    pub fn builder(redis: &redis::Pool, name: &str) -> CacheBuilder<V> {
        CacheBuilder::new(redis, name)
    }
}

impl<V, C> Cache<V, C>
where
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    C: Codec,
{
    /// Returns the value of a key; `None` if the loader returned that there is none.
    ///
    /// If nothing is stored, or the cache does not answer in time, it is loaded. The loader runs in this task, so that
    /// the middleware accounts its checkouts to the request, and may borrow. It should end by itself, as checkouts do after
    /// `checkout_timeout`.
    ///
    /// Of concurrent callers in this process, one reads the cache and calls its loader, and the others share the value or
    /// the error. If that one is dropped, or its loader panics, another one takes its place. A loader must not use the same
    /// cache: it would wait for itself if it came to the same key again, and it holds one of the loads that may run.
    ///
    /// Within the [stale window](CacheBuilder::stale_window), one caller at a time refreshes the value with its loader; the
    /// others get the stale value at once, and so does that one if its loader fails.
    /// [`get_or_refresh`](Self::get_or_refresh) waits for no refresh.
    ///
    /// # Errors
    ///
    /// Returns an error if the loader fails, or if the maximum number of loads was running for too long.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops that of the loader. A loaded value may then not be stored.
    pub async fn get_or_load<E, F, L>(&self, key: &str, load: F) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>, E>>,
    {
        let key = self.core.store_key(key);
        match self.core.look_up(&key, load).await? {
            Looked::Done(value) => Ok(value),
            Looked::Stale { value, refresh, load } => Ok(self.core.refresh(refresh, load).await.unwrap_or(value)),
        }
    }

    /// As [`get_or_load`](Self::get_or_load), but a stale value is refreshed in a task, and no caller waits for it. The loader
    /// must therefore own what it uses.
    ///
    /// # Errors
    ///
    /// Returns an error if the loader fails, or if the maximum number of loads was running for too long.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops that of the loader, unless it refreshes a stale value.
    ///
    /// # Panics
    ///
    /// Panics if a value is to be refreshed outside a tokio runtime.
    pub async fn get_or_refresh<E, F, L>(&self, key: &str, load: F) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Option<V>, E>> + Send + 'static,
    {
        let key = self.core.store_key(key);
        match self.core.look_up(&key, load).await? {
            Looked::Done(value) => Ok(value),
            Looked::Stale { value, refresh, load } => {
                let core = Arc::clone(&self.core);
                tokio::spawn(async move { drop(core.refresh(refresh, load).await) });
                Ok(value)
            }
        }
    }

    /// Removes the value of a key. Call it after the transaction that changed the value was committed.
    ///
    /// Once it has returned, also with an error, this process does not use a value whose load began before the call, and
    /// does not store one that is being loaded. Another process that was loading the value at the same time may store what
    /// it has read before the change, which is then used until its time to live and stale window have passed.
    ///
    /// # Errors
    ///
    /// Returns an error if Redis did not remove the value: other processes may use it until then.
    ///
    /// # Cancel safety
    ///
    /// From the first poll on, this process does not use the value. If the future is dropped, it may remain in Redis.
    pub async fn invalidate(&self, key: &str) -> Result<(), InvalidateError> {
        self.core.invalidate(&self.core.store_key(key)).await
    }
}

impl<V, C> Cache<V, C> {
    /// Returns the cache's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }
}

impl<V, C> Clone for Cache<V, C> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<V, C> fmt::Debug for Cache<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Core { name, settings, .. } = &*self.core;
        f.debug_struct("Cache").field("name", name).field("settings", settings).finish_non_exhaustive()
    }
}
