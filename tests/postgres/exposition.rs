//! What Prometheus is shown.

use poolscope::{Collector, Pool};

use super::server;

#[tokio::test]
async fn our_collector_goes_into_the_default_registry_too() {
    let server = server().await;
    let pool = Pool::builder().url(&server.url()).name("in the default registry").build().unwrap();
    drop(pool.get().await.unwrap());
    prometheus::register(Box::new(Collector::global())).unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather()).unwrap();
    assert!(text.contains("db_client_connection_max{db_client_connection_pool_name=\"in the default registry\"} 30"));
    drop(pool);
    let text = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather()).unwrap();
    assert!(!text.contains("in the default registry"), "a pool's series go with it: {text}");
}
