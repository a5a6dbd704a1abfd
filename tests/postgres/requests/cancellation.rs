//! Clients that go away.

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

use super::server::Service;
use crate::support::{Admin, Counted, backend, eventually, patiently, shared};

fn cost(counted: &Counted) -> RequestTotals {
    counted.pool.snapshot().requests.remove(0)
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "test").body(Full::default()).unwrap()
}

#[tokio::test]
async fn client_disconnect_cancels_the_request() {
    let counted = Counted::shared("requests_gone", |builder| builder.pool_size(1).max_overflow(0)).await;
    let admin = Admin::new(shared().await).await;
    let backend = counted.next_backend().await;
    async fn slow(pool: Pool) {
        let connection = pool.get().await.unwrap();
        connection.batch_execute("BEGIN; SELECT pg_sleep(600)").await.unwrap();
    }
    let router = Router::new().route("/slow", get(slow)).layer(PoolLayer::new(&counted.pool));
    let mut service = Service::start(router).await;
    let mut client = service.connect().await;
    let answer = client.sender.send_request(request("/slow"));
    admin.await_busy(backend).await;
    assert_eq!(cost(&counted).in_flight, 1);
    drop((answer, client));

    eventually("the end of the request", async || cost(&counted).in_flight == 0).await;
    assert_eq!(cost(&counted).durations[Outcome::Cancelled.index()].count(), 1);
    let connection = counted.get().await;
    // A transaction of one statement begins with it.
    let begun = connection.simple_query("SELECT now() = statement_timestamp()").await.unwrap();
    let begun = begun.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(begun, Some("t"), "there is no other transaction");
    assert_eq!(crate::support::backend(&connection).await, backend, "it is the same one");
}

/// Rows, with the connection that they come from.
async fn export(pool: Pool) -> Body {
    let connection: Connection = pool.get().await.unwrap();
    let rows = connection.query_raw("SELECT repeat('x', 1000) FROM generate_series(1, 20000)", [""; 0]).await.unwrap();
    let lines = rows.map(move |row| {
        // It is held until the last row.
        let _held = &connection;
        row.map(|row| Bytes::from(row.get::<_, String>(0) + "\n"))
    });
    Body::from_stream(lines)
}

#[tokio::test]
async fn streamed_body_is_part_of_its_request() {
    let counted = Counted::shared("requests_export", |builder| builder.pool_size(1).max_overflow(0)).await;
    let router = Router::new().route("/export", get(export)).layer(PoolLayer::new(&counted.pool));
    let answer = Service::start(router).await.get("/export").await;
    assert_eq!(answer.body().len(), 20_000 * 1_001);
    eventually("the connection's return", async || counted.pool.status().used == 0).await;
    let cost = cost(&counted);
    assert_eq!((cost.in_flight, cost.durations[Outcome::Ok.index()].count()), (0, 1));
    assert_eq!(cost.use_nanos.iter().sum::<u64>(), counted.pool.snapshot().use_time.sum_nanos);
}

#[tokio::test]
async fn disconnect_during_body_frees_the_connection() {
    let counted = Counted::shared("requests_left", |builder| builder.pool_size(1).max_overflow(0)).await;
    let router = Router::new().route("/export", get(export)).layer(PoolLayer::new(&counted.pool));
    let mut service = Service::start(router).await;
    let mut client = service.connect().await;
    let mut answer = client.send(request("/export")).await;
    patiently("a first piece", answer.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!((cost(&counted).in_flight, counted.pool.status().used), (1, 1));
    drop((answer, client));
    eventually("the end of the request", async || cost(&counted).in_flight == 0).await;
    assert_eq!(cost(&counted).durations[Outcome::Cancelled.index()].count(), 1);
    backend(&counted.get().await).await;
}
