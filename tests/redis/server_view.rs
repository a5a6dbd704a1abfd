//! The server's view of itself.

use std::time::Duration;

use poolscope::redis::redis::AsyncCommands;
use poolscope_testing::redis::Server;

use crate::support::{TestPool, eventually};

#[tokio::test]
async fn server_is_shown_while_it_is_up() {
    let server = Server::builder()
        .setting("maxclients", "50")
        .setting("maxmemory", "8mb")
        .setting("maxmemory-policy", "allkeys-lru")
        .start()
        .await
        .unwrap();
    for protocol in ["resp2", "resp3"] {
        let test = TestPool::single(&format!("{}?protocol={protocol}", server.url()));
        assert_eq!(test.scrape().names().filter(|name| name.starts_with("poolscope_redis_")).count(), 0);
        let watching = tokio::spawn(test.pool.watch_server(Duration::from_millis(10)));
        let mut connection = test.get().await;
        for key in 0..30 {
            let _: () = connection.set(key, "x".repeat(500_000)).await.unwrap();
        }
        let value = |name: &str| test.scrape().sum(name, &[]);
        eventually("evictions", async || value("poolscope_redis_evicted_keys_total") > 0.0).await;
        assert_eq!((value("poolscope_redis_clients_max"), value("poolscope_server_up")), (50.0, 1.0));
        assert!(value("poolscope_redis_clients") >= 2.0);
        assert_eq!(value("poolscope_redis_memory_max_bytes"), 8.0 * 1024.0 * 1024.0);
        assert!(value("poolscope_redis_memory_bytes") > 1_000_000.0);
        assert_eq!(test.scrape().sum("poolscope_redis_info", &[("role", "primary")]), 1.0);
        // No other metric counts its connection.
        assert_eq!(test.snapshot().created, 1);
        server.kill().unwrap();
        eventually("the failure", async || {
            let scrape = test.scrape();
            let is_down = scrape.values("poolscope_server_up", "db_client_connection_pool_name").len() == 1
                && scrape.sum("poolscope_server_up", &[]) == 0.0;
            is_down && !scrape.names().any(|name| name.starts_with("poolscope_redis_"))
        })
        .await;
        server.start().await.unwrap();
        eventually("the server is back", async || value("poolscope_server_up") == 1.0).await;
        drop(connection);
        watching.abort();
        eventually("no view", async || !test.scrape().names().any(|name| name == "poolscope_server_up")).await;
    }
}
