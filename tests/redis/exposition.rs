//! The metrics of Redis and of caches, as the exporter and the `prometheus` crate write them.

use std::convert::Infallible;
use std::time::Duration;

use poolscope::Collector;
use poolscope::cache::Cache;
use poolscope::exporter::{Exposition, Format, Page};
use poolscope::redis::PoolBuilder;
use poolscope::telemetry::catalogue::METRICS;
use prometheus::{Registry, TextEncoder};

use crate::pages::{self, samples};
use crate::support::{poll_until, server};

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
    let mut exposition = Exposition::new(collector);
    let mut page = Page::new();
    let mut ours = |format| {
        exposition.write(format, &mut page).unwrap();
        pages::read(format, &page.to_text())
    };
    // The server's view and the retry budget change with time.
    let (text, open_metrics) = poll_until("three equal expositions", async || {
        let (text, open_metrics) = (ours(Format::Text), ours(Format::OpenMetrics));
        let theirs = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let same = samples(&text) == samples(&pages::read(Format::Text, &theirs));
        let is_seen = text.iter().any(|family| family.name == "poolscope_redis_info");
        (is_seen && same && samples(&text) == samples(&open_metrics)).then_some((text, open_metrics))
    })
    .await;
    let names = METRICS.iter().map(|metric| metric.name);
    let of_redis = names.filter(|name| name.starts_with("poolscope_cache_") || name.starts_with("poolscope_redis_"));
    let missing: Vec<_> = of_redis.filter(|name| !text.iter().any(|family| family.name == *name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
    assert_eq!(text.len(), open_metrics.len());
    watching.abort();
}
