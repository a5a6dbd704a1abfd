//! Clients that disconnect.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use poolscope::labels::Outcome;
use poolscope::middleware::PoolLayer;
use poolscope::telemetry::RequestTotals;
use poolscope::{Connection, Pool};
use tokio_postgres::SimpleQueryMessage;

use super::server::TestServer;
use crate::support::{Admin, TestPool, backend, eventually, shared, with_deadline};

fn totals(test: &TestPool) -> RequestTotals {
    test.pool.snapshot().requests.remove(0)
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "test").body(Full::default()).unwrap()
}

#[tokio::test]
async fn client_disconnect_cancels_the_request() {
    let test = TestPool::shared("requests_gone", |builder| builder.pool_size(1).max_overflow(0)).await;
    let admin = Admin::new(shared().await).await;
    let backend = test.next_backend().await;
    async fn slow(pool: Pool) {
        let connection = pool.get().await.unwrap();
        connection.batch_execute("BEGIN; SELECT pg_sleep(600)").await.unwrap();
    }
    let router = Router::new().route("/slow", get(slow)).layer(PoolLayer::new(&test.pool));
    let mut server = TestServer::start(router).await;
    let mut client = server.connect().await;
    let response = client.sender.send_request(request("/slow"));
    admin.await_busy(backend).await;
    assert_eq!(totals(&test).in_flight, 1);
    drop((response, client));

    eventually("the request ends", async || totals(&test).in_flight == 0).await;
    assert_eq!(totals(&test).durations[Outcome::Cancelled.index()].count(), 1);
    let connection = test.get().await;
    // A transaction of one statement starts with it.
    let started = connection.simple_query("SELECT now() = statement_timestamp()").await.unwrap();
    let started = started.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(started, Some("t"), "it is outside any other transaction");
    assert_eq!(crate::support::backend(&connection).await, backend, "the same connection");
}

/// Returns rows, with the connection they come from.
async fn export(pool: Pool) -> Body {
    let connection: Connection = pool.get().await.unwrap();
    let rows = connection.query_raw("SELECT repeat('x', 1000) FROM generate_series(1, 20000)", [""; 0]).await.unwrap();
    let lines = rows.map(move |row| {
        // Held until the last row.
        let _held = &connection;
        row.map(|row| Bytes::from(row.get::<_, String>(0) + "\n"))
    });
    Body::from_stream(lines)
}

#[tokio::test]
async fn streamed_body_is_part_of_its_request() {
    let test = TestPool::shared("requests_export", |builder| builder.pool_size(1).max_overflow(0)).await;
    let router = Router::new().route("/export", get(export)).layer(PoolLayer::new(&test.pool));
    let response = TestServer::start(router).await.get("/export").await;
    assert_eq!(response.body().len(), 20_000 * 1_001);
    eventually("the connection is returned", async || test.pool.status().used == 0).await;
    let totals = totals(&test);
    assert_eq!((totals.in_flight, totals.durations[Outcome::Ok.index()].count()), (0, 1));
    assert_eq!(totals.use_nanos.iter().sum::<u64>(), test.pool.snapshot().use_time.sum_nanos);
}

#[tokio::test]
async fn disconnect_during_body_frees_the_connection() {
    let test = TestPool::shared("requests_left", |builder| builder.pool_size(1).max_overflow(0)).await;
    let router = Router::new().route("/export", get(export)).layer(PoolLayer::new(&test.pool));
    let mut server = TestServer::start(router).await;
    let mut client = server.connect().await;
    let mut response = client.send(request("/export")).await;
    with_deadline("a first frame", response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!((totals(&test).in_flight, test.pool.status().used), (1, 1));
    drop((response, client));
    eventually("the request ends", async || totals(&test).in_flight == 0).await;
    assert_eq!(totals(&test).durations[Outcome::Cancelled.index()].count(), 1);
    backend(&test.get().await).await;
}
