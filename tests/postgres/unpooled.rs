//! Connections outside the pool: counted, but not by the pool's own metrics.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use poolscope::{ConnectError, PoolBuilder, UnpooledConnection};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{Admin, MonotonicCheck, TEST_TIMEOUT, TestPool, cancel_sleep, eventually, shared, with_deadline};

fn single_connection(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(1).max_overflow(0)
}

/// Returns how many connections were opened and how many are open, for `operation` or all.
fn connections(test: &TestPool, operation: Option<&str>) -> (u64, u64) {
    let labels: Vec<_> = operation.map(|operation| ("operation", operation)).into_iter().collect();
    let scrape = test.scrape();
    let count = |name: &str| scrape.count(name, &labels);
    (count("poolscope_unpooled_connections_total"), count("poolscope_unpooled_connections_active"))
}

/// Returns the seconds for which connections were open, and for which they were being established.
fn seconds(test: &TestPool) -> (f64, f64) {
    let scrape = test.scrape();
    let sum = |name: &str| scrape.sum(name, &[]);
    (sum("poolscope_unpooled_seconds_total"), sum("poolscope_unpooled_connect_seconds_total"))
}

async fn backend(connection: &UnpooledConnection) -> i32 {
    with_deadline("a result", connection.query_one("SELECT pg_backend_pid()", &[])).await.unwrap().get(0)
}

#[tokio::test]
async fn counted_by_call_site_and_closed_on_drop() {
    let test = TestPool::shared("unpooled_sites", single_connection).await;
    let admin = Admin::new(shared().await).await;
    let mut held = Vec::new();
    let line = line!() + 2;
    for _ in 0..2 {
        held.push(test.pool.connect_unpooled().await.unwrap());
    }
    let other = test.pool.connect_unpooled().await.unwrap();
    let (first, second) = (format!("{}:{line}", file!()), format!("{}:{}", file!(), line + 2));
    assert_eq!((connections(&test, Some(&first)), connections(&test, Some(&second))), ((2, 2), (1, 1)));
    admin.await_backends("unpooled_sites", 3).await;

    drop(held.pop());
    assert_eq!((connections(&test, Some(&first)), connections(&test, Some(&second))), ((2, 1), (1, 1)));
    admin.await_backends("unpooled_sites", 2).await;
    drop((held, other));
    assert_eq!((connections(&test, Some(&first)), connections(&test, Some(&second))), ((2, 0), (1, 0)));
    admin.await_backends("unpooled_sites", 0).await;
    // An operation without checkouts is listed as well.
    assert_eq!(test.scrape().count("poolscope_checkouts_started_total", &[("operation", &first)]), 0);
    assert!(test.pool.snapshot().operations.iter().any(|operation| *operation.name == *first));
}

#[tokio::test]
async fn time_is_counted_while_open() {
    let test = TestPool::shared("unpooled_time", single_connection).await;
    let (started, mut monotonic) = (Instant::now(), MonotonicCheck::default());
    let connection = test.pool.connect_unpooled().await.unwrap();
    let connecting = seconds(&test).1;
    assert!(connecting > 0.0 && connecting <= started.elapsed().as_secs_f64(), "{connecting}");
    let reached = Duration::from_millis(50).as_secs_f64();
    eventually("50 ms", async || {
        monotonic.observe(&test.scrape());
        seconds(&test).0 >= reached
    })
    .await;
    drop(connection);
    let ended = started.elapsed().as_secs_f64();
    monotonic.observe(&test.scrape());
    let (open, after) = seconds(&test);
    assert!((reached..=ended).contains(&open), "{open} of {ended}");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!((seconds(&test), after), ((open, connecting), connecting), "time stops after the drop");
}

#[tokio::test]
async fn independent_of_the_pool() {
    let test = TestPool::shared("unpooled_apart", single_connection).await;
    let held = test.pool.operation("holder").get().await.unwrap();
    held.batch_execute("SELECT 1").await.unwrap();
    let of_the_pool = || {
        let scrape = test.scrape();
        let names = [
            "db_client_connection_count",
            "db_client_connection_create_time_seconds_count",
            "db_client_connection_use_time_seconds_count",
            "db_client_connection_wait_time_seconds_count",
            "poolscope_checkouts_started_total",
            "poolscope_connections_created_total",
            "poolscope_connections_closed_total",
            "poolscope_queries_total",
        ];
        (names.map(|name| scrape.count(name, &[])), scrape.sum("poolscope_wire_bytes_total", &[]).to_bits())
    };
    let (before, status) = (of_the_pool(), test.pool.status());
    // The pool's only connection is in use.
    let connection = with_deadline("a connection", test.pool.connect_unpooled()).await.unwrap();
    connection.batch_execute("SELECT 1").await.unwrap();
    assert_eq!((of_the_pool(), test.pool.status()), (before, status));
    assert_eq!(test.pool.holders().len(), 1);
    drop(connection);
    assert_eq!((of_the_pool(), test.pool.status()), (before, status));
    assert_eq!(connections(&test, None), (1, 0));

    // Closing neither waits for it nor closes it.
    let connection = test.pool.connect_unpooled().await.unwrap();
    drop(held);
    with_deadline("closing completes", test.pool.close()).await;
    let late = test.pool.connect_unpooled().await.unwrap();
    assert_ne!(backend(&connection).await, backend(&late).await);
    assert_eq!(connections(&test, None), (3, 2));
}

#[tokio::test]
async fn connect_failure_is_counted_with_its_time() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("postgres://u@{}/d?sslmode=disable", silent.local_addr().unwrap());
    let limit = Duration::from_millis(50);
    let test = TestPool::new("unpooled_mute", &url, |builder| builder.connect_timeout(limit));
    let error = with_deadline("a timeout", test.pool.connect_unpooled()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { after, .. } if after == limit), "{error:?}");
    assert_eq!((test.errors("connect", "timeout"), connections(&test, None)), (1, (0, 0)));
    let (open, connecting) = seconds(&test);
    assert!(open == 0.0 && connecting >= limit.as_secs_f64(), "{open} {connecting}");
    let snapshot = test.pool.snapshot();
    assert_eq!((snapshot.created, snapshot.connections.live()), (0, 0));
}

#[tokio::test]
async fn drop_while_connecting_closes_the_socket() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("postgres://u@{}/d?sslmode=disable", listener.local_addr().unwrap());
    let test = TestPool::new("unpooled_dropped", &url, |builder| builder.connect_timeout(TEST_TIMEOUT));
    drop(test.pool.connect_unpooled());
    assert!(test.pool.snapshot().unpooled.is_empty(), "a future that was never polled is not counted");
    let connecting = tokio::spawn({
        let pool = test.pool.clone();
        async move { pool.connect_unpooled().await.map(drop) }
    });
    let (mut peer, _) = with_deadline("a client", listener.accept()).await.unwrap();
    let during = seconds(&test).1;
    assert!(during > 0.0, "connect time in progress is counted");
    connecting.abort();
    with_deadline("the socket is closed", peer.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(connecting.await.unwrap_err().is_cancelled());
    let (open, after) = seconds(&test);
    assert!(open == 0.0 && after > during, "{open} {after}");
    assert_eq!(connections(&test, None), (0, 0));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(seconds(&test), (open, after), "no connect is in progress");
}

#[tokio::test]
async fn terminated_connection_counts_until_dropped() {
    let test = TestPool::shared("unpooled_ended", single_connection).await;
    let admin = Admin::new(shared().await).await;
    let connection = test.pool.connect_unpooled().await.unwrap();
    admin.terminate(backend(&connection).await).await;
    eventually("the connection is closed", async || connection.is_closed()).await;
    assert_eq!(connections(&test, None), (1, 1));
    drop(connection);
    assert_eq!(connections(&test, None), (1, 0));
}

#[tokio::test]
async fn client_api_is_that_of_pooled_connections() {
    let test = TestPool::shared("unpooled_client", single_connection).await;
    let admin = Admin::new(shared().await).await;
    let mut connection = test.pool.connect_unpooled().await.unwrap();
    let (pid, token) = (backend(&connection).await, connection.cancel_token());
    cancel_sleep(&admin, pid, connection.batch_execute("SELECT pg_sleep(60)"), token.cancel()).await;
    let transaction = connection.transaction().await.unwrap();
    let statement = transaction.prepare_cached("SELECT 7::bigint").await.unwrap();
    let seven: i64 = transaction.query_one(&statement, &[]).await.unwrap().get(0);
    transaction.commit().await.unwrap();
    assert_eq!((seven, connection.statement_cache.size()), (7, 1));
}
