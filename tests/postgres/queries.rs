//! Query durations by summary and error, for every client API.

use futures_util::SinkExt;
use poolscope::telemetry::PoolSnapshot;
use tokio_postgres::types::Type;

use crate::support::{Admin, TestPool, eventually, shared};

/// Returns the number of finished queries by summary and error.
fn finished(snapshot: &PoolSnapshot) -> Vec<(String, u64)> {
    let mut finished: Vec<_> = snapshot
        .queries
        .iter()
        .map(|query| {
            let error = query.error.as_ref().map_or(String::new(), |code| format!(" {}", code.as_str()));
            (format!("{}{error}", query.summary), query.durations.count())
        })
        .collect();
    finished.sort();
    finished
}

#[tokio::test]
async fn queries_are_timed_by_summary_for_every_api() {
    Admin::new(shared().await).await.execute("CREATE TABLE queries_timed (id int PRIMARY KEY, name text)").await;
    let test = TestPool::shared("queries_timed", |builder| builder.pool_size(1).max_overflow(0)).await;
    let mut connection = test.get().await;
    let insert = "INSERT INTO queries_timed VALUES ($1, $2)";
    connection.execute(insert, &[&1, &"a"]).await.unwrap();
    let cached = connection.prepare_cached(insert).await.unwrap();
    connection.execute(&cached, &[&2, &"b"]).await.unwrap();
    connection.execute(&cached, &[&2, &"twice"]).await.unwrap_err();
    connection.query_typed("SELECT name FROM queries_timed WHERE id = $1", &[(&1, Type::INT4)]).await.unwrap();
    connection.batch_execute("UPDATE queries_timed SET name = 'it''s a secret' WHERE id = 1").await.unwrap();
    let transaction = connection.transaction().await.unwrap();
    let (one, two) = (transaction.query("SELECT 1", &[]), transaction.query("SELECT 2", &[]));
    tokio::try_join!(one, two).unwrap();
    transaction.commit().await.unwrap();
    let sink = connection.copy_in::<_, bytes::Bytes>("COPY queries_timed FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(bytes::Bytes::from_static(b"3\tc\n")).await.unwrap();
    sink.finish().await.unwrap();
    drop(connection);
    let scrape = test.scrape();
    let expected = [
        ("COMMIT", 1),
        ("COPY queries_timed", 1),
        ("INSERT queries_timed", 2),
        ("INSERT queries_timed 23505", 1),
        ("SELECT", 2),
        ("SELECT queries_timed", 1),
        ("START TRANSACTION", 1),
        ("UPDATE queries_timed", 1),
    ];
    assert_eq!(finished(&test.pool.snapshot()), expected.map(|(what, count)| (what.to_owned(), count)));
    let failed = [("db_query_summary", "INSERT queries_timed"), ("error_type", "23505")];
    assert_eq!(scrape.count("db_client_operation_duration_seconds_count", &failed), 1);
}

#[tokio::test]
async fn query_summaries_are_bounded() {
    let test = TestPool::shared("queries_bounded", |builder| builder.pool_size(1).max_overflow(0)).await;
    let connection = test.get().await;
    for table in 0..250 {
        connection.batch_execute(&format!("SELECT * FROM queries_none_{table}")).await.unwrap_err();
    }
    let count = |snapshot: &PoolSnapshot| snapshot.queries.iter().map(|query| query.durations.count()).sum::<u64>();
    // The caller has an error before the server is ready, which ends the query.
    eventually("the last query's end", async || count(&test.pool.snapshot()) == 250).await;
    drop(connection);
    let snapshot = test.pool.snapshot();
    assert_eq!((snapshot.queries.len(), count(&snapshot)), (201, 250));
}
