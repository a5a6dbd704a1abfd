//! How long a connection keeps its place in the pool: while it is reset, and while the server lets go of it.

use crate::support::TestPool;

/// One connection serves uses that follow each other, although each is reset after its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequential_uses_with_reset_open_one_connection() {
    let settings = |builder: poolscope::PoolBuilder| builder.pool_size(1).max_overflow(5).reset_session(true);
    let test = TestPool::shared("places_reset", settings).await;
    for round in 0..500 {
        let mut connection = test.get().await;
        if round % 2 == 0 {
            connection.query_one("SELECT 1", &[]).await.unwrap();
        } else {
            // Rolled back after the return.
            let transaction = connection.transaction().await.unwrap();
            transaction.batch_execute("SELECT 1").await.unwrap();
        }
    }
    let created = test.scrape().count("poolscope_connections_created_total", &[]);
    assert!(created <= 2, "{created} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequential_dropped_transactions_open_one_connection() {
    let test = TestPool::shared("places_rollback", |builder| builder.pool_size(1).max_overflow(5)).await;
    for _ in 0..500 {
        let mut connection = test.get().await;
        let transaction = connection.transaction().await.unwrap();
        transaction.batch_execute("SELECT 1").await.unwrap();
    }
    let created = test.scrape().count("poolscope_connections_created_total", &[]);
    assert!(created <= 2, "{created} connections");
}
