//! Connections outside the pool: counted, and none of the pool's.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use poolscope::{ConnectError, PoolBuilder, UnpooledConnection};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{Admin, Counted, Growth, PATIENCE, cancel_sleep, eventually, patiently, shared};

fn one(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(1).max_overflow(0)
}

/// What is counted for `operation`, or for all of them: opened, and open now.
fn connections(counted: &Counted, operation: Option<&str>) -> (u64, u64) {
    let labels: Vec<_> = operation.map(|operation| ("operation", operation)).into_iter().collect();
    let scrape = counted.scrape();
    let count = |name: &str| scrape.count(name, &labels);
    (count("poolscope_unpooled_connections_total"), count("poolscope_unpooled_connections_active"))
}

/// For how long connections were open, and for how long some were being established.
fn seconds(counted: &Counted) -> (f64, f64) {
    let scrape = counted.scrape();
    let sum = |name: &str| scrape.sum(name, &[]);
    (sum("poolscope_unpooled_seconds_total"), sum("poolscope_unpooled_connect_seconds_total"))
}

async fn backend(connection: &UnpooledConnection) -> i32 {
    patiently("an answer", connection.query_one("SELECT pg_backend_pid()", &[])).await.unwrap().get(0)
}

#[tokio::test]
async fn counted_by_call_site_and_closed_on_drop() {
    let counted = Counted::shared("unpooled_sites", one).await;
    let admin = Admin::new(shared().await).await;
    let mut held = Vec::new();
    let line = line!() + 2;
    for _ in 0..2 {
        held.push(counted.pool.connect_unpooled().await.unwrap());
    }
    let other = counted.pool.connect_unpooled().await.unwrap();
    let (first, second) = (format!("{}:{line}", file!()), format!("{}:{}", file!(), line + 2));
    assert_eq!((connections(&counted, Some(&first)), connections(&counted, Some(&second))), ((2, 2), (1, 1)));
    admin.await_backends("unpooled_sites", 3).await;

    drop(held.pop());
    assert_eq!((connections(&counted, Some(&first)), connections(&counted, Some(&second))), ((2, 1), (1, 1)));
    admin.await_backends("unpooled_sites", 2).await;
    drop((held, other));
    assert_eq!((connections(&counted, Some(&first)), connections(&counted, Some(&second))), ((2, 0), (1, 0)));
    admin.await_backends("unpooled_sites", 0).await;
    // An operation that did nothing else is listed with all others.
    assert_eq!(counted.scrape().count("poolscope_checkouts_started_total", &[("operation", &first)]), 0);
    assert!(counted.pool.snapshot().operations.iter().any(|operation| *operation.name == *first));
}

#[tokio::test]
async fn time_is_counted_while_open() {
    let counted = Counted::shared("unpooled_time", one).await;
    let (begun, mut growth) = (Instant::now(), Growth::default());
    let connection = counted.pool.connect_unpooled().await.unwrap();
    let connecting = seconds(&counted).1;
    assert!(connecting > 0.0 && connecting <= begun.elapsed().as_secs_f64(), "{connecting}");
    let reached = Duration::from_millis(50).as_secs_f64();
    eventually("50 ms", async || {
        growth.next(&counted.scrape());
        seconds(&counted).0 >= reached
    })
    .await;
    drop(connection);
    let ended = begun.elapsed().as_secs_f64();
    growth.next(&counted.scrape());
    let (open, after) = seconds(&counted);
    assert!((reached..=ended).contains(&open), "{open} of {ended}");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!((seconds(&counted), after), ((open, connecting), connecting), "what is over takes no more time");
}

#[tokio::test]
async fn independent_of_the_pool() {
    let counted = Counted::shared("unpooled_apart", one).await;
    let held = counted.pool.operation("holder").get().await.unwrap();
    held.batch_execute("SELECT 1").await.unwrap();
    let of_the_pool = || {
        let scrape = counted.scrape();
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
    let (before, status) = (of_the_pool(), counted.pool.status());
    // Every connection is taken.
    let connection = patiently("a connection", counted.pool.connect_unpooled()).await.unwrap();
    connection.batch_execute("SELECT 1").await.unwrap();
    assert_eq!((of_the_pool(), counted.pool.status()), (before, status));
    assert_eq!(counted.pool.holders().len(), 1);
    drop(connection);
    assert_eq!((of_the_pool(), counted.pool.status()), (before, status));
    assert_eq!(connections(&counted, None), (1, 0));

    // Closing waits for none, and closes none.
    let connection = counted.pool.connect_unpooled().await.unwrap();
    drop(held);
    patiently("the end of closing", counted.pool.close()).await;
    let late = counted.pool.connect_unpooled().await.unwrap();
    assert_ne!(backend(&connection).await, backend(&late).await);
    assert_eq!(connections(&counted, None), (3, 2));
}

#[tokio::test]
async fn connect_failure_is_counted_with_its_time() {
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("postgres://u@{}/d?sslmode=disable", mute.local_addr().unwrap());
    let limit = Duration::from_millis(50);
    let counted = Counted::new("unpooled_mute", &url, |builder| builder.connect_timeout(limit));
    let error = patiently("a timeout", counted.pool.connect_unpooled()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { after, .. } if after == limit), "{error:?}");
    assert_eq!((counted.errors("connect", "timeout"), connections(&counted, None)), (1, (0, 0)));
    let (open, connecting) = seconds(&counted);
    assert!(open == 0.0 && connecting >= limit.as_secs_f64(), "{open} {connecting}");
    let snapshot = counted.pool.snapshot();
    assert_eq!((snapshot.created, snapshot.connections.live()), (0, 0));
}

#[tokio::test]
async fn drop_while_connecting_closes_the_socket() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("postgres://u@{}/d?sslmode=disable", listener.local_addr().unwrap());
    let counted = Counted::new("unpooled_dropped", &url, |builder| builder.connect_timeout(PATIENCE));
    drop(counted.pool.connect_unpooled());
    assert!(counted.pool.snapshot().unpooled.is_empty(), "one that was never polled is none");
    let connecting = tokio::spawn({
        let pool = counted.pool.clone();
        async move { pool.connect_unpooled().await.map(drop) }
    });
    let (mut peer, _) = patiently("a client", listener.accept()).await.unwrap();
    let during = seconds(&counted).1;
    assert!(during > 0.0, "what is under way is counted");
    connecting.abort();
    patiently("the end of the socket", peer.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(connecting.await.unwrap_err().is_cancelled());
    let (open, after) = seconds(&counted);
    assert!(open == 0.0 && after > during, "{open} {after}");
    assert_eq!(connections(&counted, None), (0, 0));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(seconds(&counted), (open, after), "nobody connects any more");
}

#[tokio::test]
async fn terminated_connection_counts_until_dropped() {
    let counted = Counted::shared("unpooled_ended", one).await;
    let admin = Admin::new(shared().await).await;
    let connection = counted.pool.connect_unpooled().await.unwrap();
    admin.terminate(backend(&connection).await).await;
    eventually("the end of the connection", async || connection.is_closed()).await;
    assert_eq!(connections(&counted, None), (1, 1));
    drop(connection);
    assert_eq!(connections(&counted, None), (1, 0));
}

#[tokio::test]
async fn client_api_is_that_of_pooled_connections() {
    let counted = Counted::shared("unpooled_client", one).await;
    let admin = Admin::new(shared().await).await;
    let mut connection = counted.pool.connect_unpooled().await.unwrap();
    let (pid, token) = (backend(&connection).await, connection.cancel_token());
    cancel_sleep(&admin, pid, connection.batch_execute("SELECT pg_sleep(60)"), token.cancel()).await;
    let transaction = connection.transaction().await.unwrap();
    let statement = transaction.prepare_cached("SELECT 7::bigint").await.unwrap();
    let seven: i64 = transaction.query_one(&statement, &[]).await.unwrap().get(0);
    transaction.commit().await.unwrap();
    assert_eq!((seven, connection.statement_cache.size()), (7, 1));
}
