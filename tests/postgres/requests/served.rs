//! Requests that are served.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::routing::get;
use http_body_util::Full;
use poolscope::labels::{Activity, Outcome, RequestWarning};
use poolscope::middleware::{PoolLayer, RequestScope};
use poolscope::{Pool, RetryPolicy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::server::TestServer;
use crate::support::{TestPool, eventually, with_deadline};

const SLEEP: Duration = Duration::from_millis(120);

#[tokio::test]
async fn request_use_is_split_by_route_and_activity() {
    let test = TestPool::shared("requests_served", |builder| builder.pool_size(2)).await;
    async fn order(pool: Pool) -> &'static str {
        let connection = pool.get().await.unwrap();
        connection.execute("SELECT pg_sleep(0.12)", &[]).await.unwrap();
        tokio::time::sleep(SLEEP).await;
        connection.batch_execute("BEGIN").await.unwrap();
        tokio::time::sleep(SLEEP).await;
        connection.batch_execute("COMMIT").await.unwrap();
        "served"
    }
    let layer = PoolLayer::new(&test.pool).server_timing(true);
    let mut server = TestServer::start(Router::new().route("/orders/{id}", get(order)).layer(layer)).await;
    let response = server.get("/orders/4711?token=secret").await;
    assert_eq!((response.status(), &**response.body()), (StatusCode::OK, &b"served"[..]));
    let timing = response.headers()["server-timing"].to_str().unwrap().to_owned();
    assert!(timing.contains("desc=\"1 checkout\", pool-use;dur="), "{timing}");

    let snapshot = test.pool.snapshot();
    let [order] = &snapshot.requests[..] else { panic!("{:?}", snapshot.requests) };
    assert_eq!((&*order.route, order.method.as_str(), order.checkouts), ("/orders/{id}", "GET", 1));
    let used = order.use_nanos.map(Duration::from_nanos);
    for (activity, used) in Activity::ALL.iter().zip(used) {
        assert!(used >= SLEEP && used < SLEEP * 3, "{activity:?}: {used:?}");
    }
    // The same time as in the pool's own total.
    assert_eq!(order.use_nanos.iter().sum::<u64>(), snapshot.use_time.sum_nanos);
    assert_eq!(order.durations[Outcome::Ok.index()].count(), 1);

    let labels = [("route", "/orders/{id}"), ("method", "GET")];
    let scrape = test.scrape();
    assert_eq!(scrape.count("poolscope_request_checkouts_total", &labels), 1);
    assert_eq!(scrape.count("poolscope_checkouts_total", &[("operation", "GET /orders/{id}"), ("outcome", "ok")]), 1);
    let page = prometheus::TextEncoder::new().encode_to_string(&test.registry().gather()).unwrap();
    assert!(!page.contains("4711") && !page.contains("secret"));
}

#[tokio::test]
async fn unmatched_paths_count_as_unknown() {
    let test = TestPool::shared("requests_unknown", |builder| builder.pool_size(1)).await;
    // axum's `layer` wraps the fallback only if the fallback is set before.
    let router = Router::new().route("/orders", get(async || "orders")).fallback(async || StatusCode::NOT_FOUND);
    let mut server = TestServer::start(router.layer(PoolLayer::new(&test.pool))).await;
    for path in ["/orders", "/../../etc/passwd", "/%00%22%7B", "/orders/1"] {
        server.get(path).await;
    }
    let requests = test.pool.snapshot().requests;
    let mut routes: Vec<_> = requests.iter().map(|totals| (&*totals.route, totals.started)).collect();
    routes.sort_unstable();
    assert_eq!(routes, [("/orders", 1), ("unknown", 3)]);
}

#[tokio::test]
async fn missing_layer_is_an_empty_500() {
    let router = Router::new().route("/", get(async |_: Pool| "served"));
    let response = TestServer::start(router).await.get("/").await;
    assert_eq!((response.status(), response.body().len()), (StatusCode::INTERNAL_SERVER_ERROR, 0));
}

#[tokio::test]
async fn retries_count_for_the_request() {
    let test = TestPool::shared("requests_retries", |builder| builder.pool_size(1)).await;
    async fn work(pool: Pool) -> StatusCode {
        let policy = RetryPolicy::new().attempts(3).backoff(Duration::from_millis(1), Duration::from_millis(1));
        let fails = "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$";
        let done = pool
            .operation("fails")
            .idempotent(true)
            .retry(policy)
            .run(async |connection| connection.batch_execute(fails).await);
        if done.await.is_ok() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
    }
    let router = Router::new().route("/work", get(work)).layer(PoolLayer::new(&test.pool));
    assert_eq!(TestServer::start(router).await.get("/work").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let requests = test.pool.snapshot().requests;
    assert_eq!((requests[0].checkouts, requests[0].retries), (3, 2));
    assert_eq!(requests[0].durations[Outcome::Error.index()].count(), 1);
}

#[tokio::test]
async fn upgraded_connection_counts_within_its_scope() {
    let test = TestPool::shared("requests_upgraded", |builder| builder.pool_size(1)).await;
    async fn upgrade(pool: Pool, mut request: Request) -> axum::response::Response {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(RequestScope::current().scope(async move {
            let mut stream = hyper_util::rt::TokioIo::new(upgraded.await.unwrap());
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                pool.get().await.unwrap().execute("SELECT 1", &[]).await.unwrap();
                stream.write_all(&byte).await.unwrap();
            }
        }));
        let response = axum::http::Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        response.header("connection", "upgrade").header("upgrade", "echo").body(axum::body::Body::empty()).unwrap()
    }
    let router = Router::new().route("/echo", get(upgrade)).layer(PoolLayer::new(&test.pool));
    let mut server = TestServer::start(router).await;
    let mut client = server.connect().await;
    let request = Request::get("/echo").header("connection", "upgrade").header("upgrade", "echo");
    let response = client.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = with_deadline("the upgrade", hyper::upgrade::on(response)).await.unwrap();
    let mut stream = hyper_util::rt::TokioIo::new(upgraded);
    for byte in *b"abc" {
        stream.write_all(&[byte]).await.unwrap();
        assert_eq!(with_deadline("an echo", stream.read_u8()).await.unwrap(), byte);
    }
    drop(stream);
    let totals = || test.pool.snapshot().requests.remove(0);
    eventually("the connection is returned", async || test.pool.status().used == 0).await;
    assert_eq!((totals().started, totals().in_flight, totals().checkouts), (1, 0, 3));
    assert_eq!(totals().durations[Outcome::Ok.index()].count(), 1, "the request itself ended with the upgrade");
}

#[tokio::test]
async fn idle_hold_is_warned_of() {
    let test = TestPool::shared("requests_held", |builder| builder.pool_size(1)).await;
    async fn work(Path(idle): Path<u64>, pool: Pool) {
        let connection = pool.get().await.unwrap();
        connection.execute("SELECT pg_sleep(0.12)", &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(idle)).await;
        connection.execute("SELECT 1", &[]).await.unwrap();
    }
    let layer = PoolLayer::new(&test.pool).warn_idle_hold(Duration::from_secs(1));
    let mut server = TestServer::start(Router::new().route("/work/{idle}", get(work)).layer(layer)).await;
    for (idle, warned) in [(0, 0), (1_100, 1)] {
        server.get(&format!("/work/{idle}")).await;
        let totals = test.pool.snapshot().requests.remove(0);
        assert_eq!(totals.warnings[RequestWarning::HeldElsewhere.index()], warned, "{idle} ms: {totals:?}");
    }
}

/// It is a self-deadlock, and no call to another service.
#[tokio::test]
async fn wait_for_the_own_pool_is_no_idle_hold() {
    let settings =
        |builder: poolscope::PoolBuilder| builder.pool_size(1).max_overflow(0).checkout_timeout(Duration::from_secs(5));
    let test = TestPool::shared("requests_deadlocked", settings).await;
    async fn work(pool: Pool) {
        let connection = pool.get().await.unwrap();
        connection.execute("SELECT 1", &[]).await.unwrap();
        pool.operation("audit").get().await.unwrap_err();
    }
    let layer = PoolLayer::new(&test.pool).warn_idle_hold(Duration::from_secs(4));
    let mut server = TestServer::start(Router::new().route("/work", get(work)).layer(layer)).await;
    server.get("/work").await;
    let snapshot = test.pool.snapshot();
    assert_eq!(snapshot.requests[0].warnings, [0, 0], "{snapshot:?}");
    let [deadlocks] = &snapshot.self_deadlocks[..] else { panic!("{snapshot:?}") };
    assert_eq!((&*deadlocks.operation, deadlocks.count), ("audit", 1));
}

/// A route's permit is returned with the connection, after its reset.
#[tokio::test]
async fn route_permit_is_held_during_reset() {
    let test = TestPool::shared("requests_cleaned", |builder| builder.pool_size(4).max_overflow(0)).await;
    async fn dirty(pool: Pool) {
        // Resetting it takes a while.
        let connection = pool.get().await.unwrap();
        connection.batch_execute("BEGIN").await.unwrap();
        let abandoned = connection.batch_execute("SELECT pg_sleep(600)");
        let _ = tokio::time::timeout(Duration::from_millis(5), abandoned).await;
    }
    let layer = PoolLayer::new(&test.pool).max_route_percent(25);
    let server = TestServer::start(Router::new().route("/dirty", get(dirty)).layer(layer)).await;
    let server = tokio::sync::Mutex::new(server);
    let requests = (0..8).map(|_| async {
        let mut client = server.lock().await.connect().await;
        client.request(Request::get("/dirty").body(Full::default()).unwrap()).await
    });
    let most = async {
        let mut most = 0;
        loop {
            most = most.max(test.pool.status().used);
            tokio::task::yield_now().await;
            if test.pool.snapshot().requests.first().is_some_and(|totals| totals.started == 8 && totals.in_flight == 0)
            {
                return most;
            }
        }
    };
    let (_, most) = tokio::join!(futures_util::future::join_all(requests), most);
    assert_eq!(most, 1, "one is a quarter of the pool, and a connection being reset is in use");
}
