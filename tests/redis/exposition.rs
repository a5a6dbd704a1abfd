//! The metrics of Redis and of caches, as the exporter and the `prometheus` crate write them.

use std::convert::Infallible;
use std::time::Duration;

use poolscope::Collector;
use poolscope::cache::Cache;
use poolscope::redis::PoolBuilder;
use poolscope::telemetry::catalogue::METRICS;
use prometheus::Registry;

use crate::support::expositions::equal_expositions;
use crate::support::pages::Family;
use crate::support::server;

#[tokio::test]
async fn exposition_matches_the_prometheus_crate() {
    let server = server().await;
    let (collector, registry) = (Collector::new(), Registry::new());
    registry.register(Box::new(collector.clone())).unwrap();
    let pool = PoolBuilder::new().url(&server.url()).name("test").collector(collector.clone()).build().unwrap();
    let watching = tokio::spawn(pool.watch_server(Duration::from_millis(10)));
    let cache: Cache<String> = Cache::builder(&pool, "products").max_value_bytes(100).build().unwrap();
    // A miss, a hit, and a value that is too large to be stored.
    for (key, bytes) in [("small", 1), ("small", 1), ("large", 1000)] {
        let value = async || Ok::<_, Infallible>(Some("x".repeat(bytes)));
        cache.get_or_load(key, value).await.unwrap();
    }
    let is_seen = |text: &[Family]| text.iter().any(|family| family.name == "poolscope_redis_info");
    let (text, open_metrics) = equal_expositions(collector, &registry, is_seen).await;
    let names = METRICS.iter().map(|metric| metric.name);
    let of_redis = names.filter(|name| name.starts_with("poolscope_cache_") || name.starts_with("poolscope_redis_"));
    let missing: Vec<_> = of_redis.filter(|name| !text.iter().any(|family| family.name == *name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
    assert_eq!(text.len(), open_metrics.len());
    watching.abort();
}
