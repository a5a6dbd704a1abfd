//! Builds caches.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Cache;
use super::codec::{Codec, Json};
use super::core::Core;
use super::error::CacheConfigError;
use super::redis_store::RedisStore;
use super::settings::CacheSettings;
use crate::pool::{Backend, Pool};
use crate::redis;
use crate::telemetry::ledger::Ledger;

/// Builds a [`Cache`]. [`Cache::builder`] creates one.
pub struct CacheBuilder<V, C = Json> {
    name: String,
    redis: redis::Pool,
    database: Option<Arc<Ledger>>,
    codec: C,
    settings: CacheSettings,
    values: PhantomData<fn() -> V>,
}

impl<V> CacheBuilder<V> {
    pub(super) fn new(redis: &redis::Pool, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            redis: redis.clone(),
            database: None,
            codec: Json,
            settings: CacheSettings::default(),
            values: PhantomData,
        }
    }
}

impl<V, C> CacheBuilder<V, C> {
    /// Sets for how long a value is used, from the end of its load. Default: 1 min.
    #[must_use]
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.settings.time_to_live = time;
        self
    }

    /// Sets the share by which each time to live is shortened at random, from 0 to 1, so that values that were stored together
    /// do not expire together. Default: 0.1.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.settings.jitter = share;
        self
    }

    /// Sets for how long after its time to live a value is still used while one caller refreshes it, or its loader fails.
    /// Default: zero, which means that an expired value is a miss.
    #[must_use]
    pub fn stale_window(mut self, time: Duration) -> Self {
        self.settings.stale_window = time;
        self
    }

    /// Sets for how long it is stored that there is no value (the loader returned `None`). Default: zero, which means that
    /// it is not.
    #[must_use]
    pub fn negative_time_to_live(mut self, time: Duration) -> Self {
        self.settings.negative_time_to_live = time;
        self
    }

    /// Sets the maximum size of an encoded value. A larger one is returned but not stored. Default: 1 MiB.
    #[must_use]
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_value_bytes = bytes;
        self
    }

    /// Sets the version of the values' type, which is a part of each key: increase it when the type changes in a way that the
    /// codec does not tolerate, so that old and new processes do not read each other's values. Default: 1.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.settings.version = version;
        self
    }

    /// Sets the beginning of each key: `prefix:name:v1:key`. Default: `poolscope`.
    #[must_use]
    pub fn key_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.settings.key_prefix);
        self
    }

    /// Sets the maximum time of each call of Redis, including the wait for a connection. After it, a lookup calls the loader.
    /// Default: 100 ms.
    #[must_use]
    pub fn deadline(mut self, time: Duration) -> Self {
        self.settings.deadline = time;
        self
    }

    /// Sets the maximum number of concurrent loads: the load that the database receives if Redis is away or empty. Choose less
    /// than the database pool's size, so that other work gets connections. Default: 10.
    #[must_use]
    pub fn max_loads(mut self, loads: usize) -> Self {
        self.settings.max_loads = loads;
        self
    }

    /// Sets for how long a load waits while [`max_loads`](Self::max_loads) are running, before it fails with
    /// [`LoadError::TooManyLoads`](super::LoadError::TooManyLoads). Default: 5 s; zero to fail at once.
    #[must_use]
    pub fn load_wait(mut self, time: Duration) -> Self {
        self.settings.load_wait = time;
        self
    }

    /// Lets one process at a time load a key: it takes a lock in Redis (`SET NX PX`), and the others wait for its value, for at
    /// most this time. Choose more than a load takes. Without it, each process loads a cold key once. Default: off.
    ///
    /// The lock ends by itself if its holder does, so that two processes may load the same key, which is not an error.
    #[must_use]
    pub fn lock_across_processes(mut self, time: Duration) -> Self {
        self.settings.lock = Some(time);
        self
    }

    /// Sets the pool whose connections the loaders use. The cache's metrics carry its name, and its diagnosis explains the load
    /// that the lack of the cache causes (`cache_down`). Default: the Redis pool itself.
    #[must_use]
    pub fn loads_from<M: Backend>(mut self, database: &Pool<M>) -> Self {
        self.database = Some(Arc::clone(database.ledger()));
        self
    }

    /// Sets how values are encoded. Default: [`Json`].
    #[must_use]
    pub fn codec<D: Codec>(self, codec: D) -> CacheBuilder<V, D> {
        let Self { name, redis, database, codec: _, settings, values } = self;
        CacheBuilder { name, redis, database, codec, settings, values }
    }
}

impl<V, C> CacheBuilder<V, C>
where
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    C: Codec,
{
    /// Builds the cache, and does not connect yet.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of range.
    pub fn build(self) -> Result<Cache<V, C>, CacheConfigError> {
        let Self { name, redis, database, codec, settings, .. } = self;
        // An identifier of zero would mean that there is no value.
        const { assert!(C::ID != 0, "Codec::ID must not be 0") };
        settings.validate(&name)?;
        let ledger = database.unwrap_or_else(|| Arc::clone(redis.ledger()));
        let stats = ledger.caches().named(&name);
        let store = RedisStore::new(&redis, &name);
        Ok(Cache { core: Arc::new(Core::new(name.into(), store, codec, settings, stats, Box::new(unix_millis))) })
    }
}

/// Returns the time of day in milliseconds since 1970.
fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl<V, C: fmt::Debug> fmt::Debug for CacheBuilder<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, codec, settings, .. } = self;
        f.debug_struct("CacheBuilder").field("name", name).field("codec", codec).field("settings", settings).finish()
    }
}
