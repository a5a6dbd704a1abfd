//! Accounting of requests: each checkout counts for its own request, and for no other.

mod bodies;
mod panics;
mod readiness;
mod route_limits;
mod scopes;
mod shedding;

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use poolscope::labels::{Activity, Outcome, RequestMethod, RequestWarning};
use poolscope::middleware::{Head, PoolLayer};
use poolscope::pool::Pool;
use poolscope::telemetry::RequestTotals;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

use super::backend::ScriptedBackend;
use super::harness::{ManualFuture, TestPool, ms};

/// Returns a layer that uses paths as routes.
fn layer(test: &TestPool) -> PoolLayer<ScriptedBackend> {
    fn route<'a>(head: Head<'a>) -> Option<Cow<'a, str>> {
        Some(head.uri.path().into())
    }
    PoolLayer::new(&test.pool).route_by(route)
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

type TestResponse = Response<Full<Bytes>>;

fn response() -> TestResponse {
    Response::new(Full::from("done"))
}

/// Serves a request to the end of its response body.
fn serve<S, B, E>(service: S, request: Request<Full<Bytes>>) -> ManualFuture<Result<Response<Bytes>, E>>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = E, Future: Send> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send,
    E: Send,
{
    ManualFuture::new(async move {
        let (head, body) = service.oneshot(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await.unwrap().to_bytes()))
    })
}

/// Serves one request with one checkout.
pub(super) fn serve_one(test: &TestPool) {
    let pool = test.pool.clone();
    let handler = service_fn(move |_| {
        let pool = pool.clone();
        async move { pool.get().await.map(|_| response()) }
    });
    serve(layer(test).layer(handler), get("/orders")).poll().unwrap().unwrap();
}

/// Returns the totals of a route's requests.
#[track_caller]
fn totals(test: &TestPool, route: &str) -> RequestTotals {
    let requests = test.snapshot().requests;
    requests.into_iter().find(|totals| &*totals.route == route).unwrap_or_else(|| panic!("no route {route}"))
}

#[track_caller]
fn request_count(test: &TestPool, route: &str, outcome: Outcome) -> u64 {
    totals(test, route).durations[outcome.index()].count()
}

/// The log of this thread.
#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || log.clone());
        tracing::subscriber::set_default(lines.finish())
    }

    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

impl std::io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn idle_time(totals: &RequestTotals) -> Duration {
    Duration::from_nanos(totals.use_nanos[Activity::Idle.index()])
}

#[tokio::test(start_paused = true)]
async fn checkouts_are_attributed_to_their_request() {
    let test = TestPool::new(1, 0);
    let held = test.get("another task");
    let pool = test.pool.clone();
    let handler = service_fn(move |_| {
        let pool = pool.clone();
        async move {
            for _ in 0..2 {
                let connection = pool.get().await.unwrap();
                tokio::time::sleep(ms(10)).await;
                drop(connection);
            }
            Ok::<_, Infallible>(response())
        }
    });
    let mut request = serve(layer(&test).layer(handler), get("/orders")).assert_pending();
    test.advance(ms(30)).await;
    let waiting = totals(&test, "/orders");
    assert_eq!((waiting.started, waiting.in_flight, waiting.checkouts, waiting.wait_nanos), (1, 1, 1, 0));
    drop(held);
    for _ in 0..2 {
        assert!(request.poll().is_none());
        test.advance(ms(10)).await;
    }
    assert_eq!(request.poll().unwrap().unwrap().into_body(), "done");

    let totals = totals(&test, "/orders");
    assert_eq!((totals.method, totals.started, totals.in_flight, totals.checkouts), (RequestMethod::Get, 1, 0, 2));
    assert_eq!((Duration::from_nanos(totals.wait_nanos), idle_time(&totals)), (ms(30), ms(20)));
    let duration = &totals.durations[Outcome::Ok.index()];
    assert_eq!((duration.count(), duration.sum_nanos), (1, 50_000_000));
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn request_without_checkout_is_counted() {
    let test = TestPool::new(1, 0);
    let handler = service_fn(async |_| Ok::<_, Infallible>(response()));
    serve(layer(&test).layer(handler), get("/about")).poll().unwrap().unwrap();
    let totals = totals(&test, "/about");
    assert_eq!((totals.started, totals.checkouts, totals.use_nanos), (1, 0, [0; Activity::COUNT]));
    assert_eq!(request_count(&test, "/about", Outcome::Ok), 1);
    assert_eq!(test.backend.opened(), 0);
}

#[tokio::test(start_paused = true)]
async fn failed_and_dropped_checkouts_count_as_waits() {
    let test = TestPool::new(1, 0);
    let _held = test.get("another task");
    let pool = test.pool.clone();
    let handler = service_fn(move |_| {
        let pool = pool.clone();
        async move {
            // One is cancelled, and one times out.
            let _ = tokio::time::timeout(ms(40), pool.get()).await;
            pool.get().await.map(|_| response())
        }
    });
    let mut request = serve(layer(&test).layer(handler), get("/orders")).assert_pending();
    test.advance(ms(40)).await;
    assert!(request.poll().is_none());
    test.advance(ms(1000)).await;
    request.poll().unwrap().unwrap_err();
    let totals = totals(&test, "/orders");
    assert_eq!((totals.checkouts, Duration::from_nanos(totals.wait_nanos)), (2, ms(1040)));
    assert_eq!(request_count(&test, "/orders", Outcome::Error), 1, "the service failed");
    assert_eq!(test.outcomes("GET /orders", Outcome::Cancelled), 1);
    assert_eq!(test.outcomes("GET /orders", Outcome::Timeout), 1);
}

#[tokio::test(start_paused = true)]
async fn unnamed_operations_are_named_after_the_route() {
    let test = TestPool::new(1, 0);
    let handler = |pool: &Pool<ScriptedBackend>| {
        let pool = pool.clone();
        service_fn(move |_| {
            let pool = pool.clone();
            async move {
                drop(pool.get().await.unwrap());
                drop(pool.operation("named").get().await.unwrap());
                pool.run(async |_| Ok::<_, Infallible>(())).await.unwrap();
                Ok::<_, Infallible>(response())
            }
        })
    };
    serve(layer(&test).layer(handler(&test.pool)), get("/orders/{id}")).poll().unwrap().unwrap();
    assert_eq!(test.outcomes("GET /orders/{id}", Outcome::Ok), 2);
    assert_eq!(test.outcomes("named", Outcome::Ok), 1);
    assert_eq!(test.snapshot().operations.len(), 3, "with `other`");

    let call_sites =
        |test: &TestPool| test.snapshot().operations.iter().filter(|totals| totals.name.contains(".rs:")).count();
    serve(layer(&test).name_operations(false).layer(handler(&test.pool)), get("/orders")).poll().unwrap().unwrap();
    assert_eq!(call_sites(&test), 2, "each by its call site");
    serve(PoolLayer::new(&test.pool).layer(handler(&test.pool)), get("/whatever")).poll().unwrap().unwrap();
    assert_eq!(call_sites(&test), 2, "an unknown route names no operation");
    assert_eq!(totals(&test, "unknown").checkouts, 3);
}

#[tokio::test(start_paused = true)]
async fn panic_ends_the_request_scope() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_| {
        let pool = pool.clone();
        async move {
            let _held = pool.get().await.unwrap();
            std::panic::resume_unwind(Box::new("scripted"));
            #[allow(unreachable_code, reason = "determines the type of the response")]
            Ok::<_, Infallible>(response())
        }
    });
    let mut request = serve(layer(&test).layer(handler), get("/orders"));
    request.try_poll().unwrap_err();
    drop(request);
    assert_eq!(request_count(&test, "/orders", Outcome::Error), 1);
    drop(test.get("afterwards"));
    assert_eq!(totals(&test, "/orders").checkouts, 1, "later checkouts belong to no request");
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn many_checkouts_are_logged_with_call_sites() {
    let log = CapturedLog::default();
    let _logged = log.start();
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        let pool = pool.clone();
        let times: u32 = request.uri().query().unwrap().parse().unwrap();
        async move {
            for _ in 0..times {
                drop(pool.get().await.unwrap());
            }
            let held = pool.get().await.unwrap();
            tokio::time::sleep(ms(1000)).await;
            drop(held);
            Ok::<_, Infallible>(response())
        }
    });
    let service = layer(&test).warn_checkouts_over(10).layer(handler);
    for (times, many) in [(9, 0), (10, 1), (11, 2)] {
        let mut request = serve(service.clone(), get(&format!("/orders?{times}"))).assert_pending();
        // Warnings of one kind are logged at most once a second.
        test.advance(ms(1000)).await;
        request.poll().unwrap().unwrap();
        // What a connection does is unknown without the protocol observer.
        assert_eq!(totals(&test, "/orders").warnings, [many, 0], "after {times} + 1");
    }
    // Other lines may be missing: `tracing` caches globally whether any subscriber is interested.
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.contains("many checkouts")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for part in ["route=\"/orders\"", "method=\"GET\"", "checkouts=11", "requests/mod.rs:", " ×10, "] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
    let warnings = RequestWarning::ALL.iter().map(|warning| warning.as_str());
    assert!(warnings.eq(["many_checkouts", "held_elsewhere"]));
}

#[tokio::test(start_paused = true)]
async fn only_the_outer_layer_of_a_pool_counts() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_| {
        let pool = pool.clone();
        async move { pool.get().await.map(|_| response()) }
    });
    let inner = PoolLayer::new(&test.pool).server_timing(true).layer(handler);
    let response = serve(layer(&test).layer(inner), get("/orders")).poll().unwrap().unwrap();
    assert_eq!((response.headers().len(), response.into_body()), (0, "done".into()));
    let requests = test.snapshot().requests;
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!((&*requests[0].route, requests[0].started, requests[0].checkouts), ("/orders", 1, 1));
}
