//! The cache of products: a private Redis server, its pool, and the cache.

use std::sync::Arc;
use std::time::Duration;

use poolscope::cache::Cache;
use poolscope::redis::{self, PoolBuilder};
use poolscope::{Collector, Pool};
use poolscope_testing::redis::Server;
use serde_json::Value;

use super::error::DemoError;

/// The name of the Redis server's pool.
const POOL_NAME: &str = "shop-cache";

/// The pool of the Redis server. Most commands take less than a millisecond.
const POOL_SIZE: usize = 5;

/// As in production, a cache has a limit and forgets what was not read for longest.
const MAX_MEMORY: &str = "64mb";

const TIME_TO_LIVE: Duration = Duration::from_secs(60);
const NEGATIVE_TIME_TO_LIVE: Duration = Duration::from_secs(5);

/// Half of the shop's pool of ten, so that other requests get connections while the cache is away.
const MAX_LOADS: usize = 5;

/// As long as a checkout may take.
const LOAD_WAIT: Duration = Duration::from_secs(2);

/// The cache of products, with what it runs on.
#[derive(Clone, Debug)]
pub(super) struct ProductCache {
    pub(super) server: Arc<Server>,
    pub(super) pool: redis::Pool,
    pub(super) products: Cache<Value>,
}

impl ProductCache {
    /// Starts a private Redis server, and builds the cache in front of the shop's pool.
    pub(super) async fn start(shop: &Pool, collector: &Collector) -> Result<Self, DemoError> {
        let server = Server::builder().setting("maxmemory", MAX_MEMORY).setting("maxmemory-policy", "allkeys-lru");
        let server = server.start().await.map_err(DemoError::Redis)?;
        let builder = PoolBuilder::new().url(&server.url()).name(POOL_NAME).collector(collector.clone());
        let pool = builder.pool_size(POOL_SIZE).build().map_err(DemoError::Settings)?;
        let products = Cache::builder(&pool, "products")
            .time_to_live(TIME_TO_LIVE)
            .negative_time_to_live(NEGATIVE_TIME_TO_LIVE)
            .max_loads(MAX_LOADS)
            .load_wait(LOAD_WAIT)
            .loads_from(shop)
            .build()
            .map_err(DemoError::system)?;
        Ok(Self { server: Arc::new(server), pool, products })
    }

    /// Stops the server.
    pub(super) async fn stop(self) {
        // Stopping a server blocks the thread.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}
