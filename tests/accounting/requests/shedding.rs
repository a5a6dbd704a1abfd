//! Load shedding: requests that are refused instead of left to wait.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use poolscope::labels::Outcome;
use poolscope::middleware::PoolLayer;
use tower::{Layer as _, Service, service_fn};

use super::super::backend::ScriptedBackend;
use super::super::harness::{ManualFuture, TestPool, ms};
use super::{TestResponse, get, layer, request_count, response, serve, totals};

/// Holds a connection for 100 ms in each request, and counts requests that arrive.
fn handler(
    test: &TestPool,
    arrived: &Arc<AtomicUsize>,
) -> impl Service<Request<Full<Bytes>>, Response = TestResponse, Error = Infallible, Future: Send> + Clone + Send + use<>
{
    let (pool, arrived) = (test.pool.clone(), Arc::clone(arrived));
    service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        arrived.fetch_add(1, SeqCst);
        async move {
            let mut response = response();
            match pool.get().await {
                Ok(held) => {
                    tokio::time::sleep(ms(100)).await;
                    drop(held);
                }
                Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            }
            Ok(response)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn request_behind_long_queue_is_shed() {
    let test = TestPool::new(1, 0);
    let arrived = Arc::default();
    let service = layer(&test).max_queue_len(2).layer(handler(&test, &arrived));
    // One holds the connection, and the third of the waiters finds two before it.
    let mut waiting: Vec<_> = (0..4).map(|_| serve(service.clone(), get("/orders")).assert_pending()).collect();
    assert_eq!((test.snapshot().queued, arrived.load(SeqCst)), (3, 4));
    let shed = serve(service.clone(), get("/orders")).poll().unwrap().unwrap();
    assert_eq!((shed.status(), shed.body().len()), (StatusCode::SERVICE_UNAVAILABLE, 0));
    assert_eq!(shed.headers()[RETRY_AFTER], "1");
    assert_eq!(arrived.load(SeqCst), 4, "the inner service was not called");
    assert_eq!(request_count(&test, "/orders", Outcome::Shed), 1);
    assert_eq!(test.outcomes("GET /orders", Outcome::Shed), 1, "counted as a checkout too");

    // The queue has room again.
    test.advance(ms(100)).await;
    waiting[0].poll().unwrap().unwrap();
    assert!(waiting[1].poll().is_none());
    let served = serve(service, get("/orders")).assert_pending();
    assert_eq!(arrived.load(SeqCst), 5);
    drop((served, waiting));
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn request_with_long_expected_wait_is_shed() {
    let test = TestPool::new(1, 0);
    let service = layer(&test).max_expected_wait(ms(350)).layer(handler(&test, &Arc::default()));
    let mut waiting: Vec<_> = (0..4).map(|_| serve(service.clone(), get("/orders")).assert_pending()).collect();
    // Throughput is unknown yet; only the stall so far is known.
    for _ in 0..2 {
        test.advance(ms(100)).await;
        waiting.retain_mut(|request| request.poll().is_none());
    }
    assert_eq!(waiting.len(), 2);
    // One waiter before it, at 100 ms each: 200 ms.
    let fourth = serve(service.clone(), get("/orders")).assert_pending();
    // Two waiters: 300 ms, plus 60 ms since the last return.
    test.advance(ms(60)).await;
    let layer = layer(&test).max_expected_wait(ms(350));
    assert_eq!(
        layer.overload().unwrap().to_string(),
        "the pool is overloaded: 2 checkouts wait, expected wait 360.0ms"
    );
    let shed = serve(service.clone(), get("/orders")).poll().unwrap().unwrap();
    assert_eq!(shed.headers()[RETRY_AFTER], "1");
    drop(fourth);
    assert!(layer.overload().is_none());
    let _served = serve(service, get("/orders")).assert_pending();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_shed_by_default() {
    let test = TestPool::new(1, 0);
    let service = layer(&test).layer(handler(&test, &Arc::default()));
    let _waiting: Vec<_> = (0..100).map(|_| serve(service.clone(), get("/orders")).assert_pending()).collect();
    test.advance(ms(900)).await;
    let _one_more = serve(service, get("/orders")).assert_pending();
    assert_eq!(totals(&test, "/orders").in_flight, 101);
    assert!(layer(&test).overload().is_none());
}

/// A checkout that is queued and not polled does not count as backlog while there is capacity.
#[tokio::test(start_paused = true)]
async fn unpolled_checkout_is_no_backlog() {
    let test = TestPool::new(2, 0);
    let held = test.get_many("a", 2);
    let _parked = test.checkout("parked").assert_pending();
    let layer = layer(&test).max_queue_len(0).max_expected_wait(ms(100));
    test.advance(ms(500)).await;
    assert!(layer.overload().is_some(), "both are in use");
    drop(held);
    for _ in 0..5 {
        test.advance(ms(100)).await;
        drop(test.get("others"));
        assert_eq!(test.snapshot().queued, 1);
        assert!(layer.overload().is_none(), "one is available");
    }
}

#[tokio::test(start_paused = true)]
async fn old_waits_do_not_shed_new_requests() {
    let mut settings = super::super::harness::settings(1, 0);
    settings.checkout_timeout = ms(60_000);
    settings.pre_ping = false;
    settings.recycle_after = None;
    let test = TestPool::with(&settings);
    let layer = layer(&test).max_expected_wait(ms(2_000));
    for held_for in [5_000, 1] {
        let held = test.get("a");
        let mut queued = test.checkout("b").assert_pending();
        test.advance(ms(held_for)).await;
        assert_eq!(layer.overload().is_some(), held_for > 2_000);
        drop(held);
        drop(queued.poll().unwrap().unwrap());
        test.advance(ms(3_600_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn route_waiters_shed_only_their_own_route() {
    let test = TestPool::new(4, 0);
    let service = layer(&test).max_route_percent(50).max_queue_len(1).layer(handler(&test, &Arc::default()));
    let mut reports: Vec<_> = (0..4).map(|_| serve(service.clone(), get("/report")).assert_pending()).collect();
    let shed = serve(service.clone(), get("/report")).poll().unwrap().unwrap();
    assert_eq!(shed.status(), StatusCode::SERVICE_UNAVAILABLE);
    let _login = serve(service.clone(), get("/login")).assert_pending();
    assert_eq!((request_count(&test, "/report", Outcome::Shed), totals(&test, "/login").in_flight), (1, 1));
    test.advance(ms(100)).await;
    reports.retain_mut(|report| report.poll().is_none());
    assert_eq!(reports.len(), 2);
    let _report = serve(service, get("/report")).assert_pending();
}

#[tokio::test(start_paused = true)]
async fn shed_requests_intern_no_operation_names() {
    let test = TestPool::new(1, 0);
    let _held = test.get("a");
    let _queued = test.checkout("b").assert_pending();
    let service = layer(&test).max_queue_len(0).layer(handler(&test, &Arc::default()));
    for route in 0..300 {
        serve(service.clone(), get(&format!("/{route}"))).poll().unwrap().unwrap();
    }
    let operations = test.snapshot().operations;
    assert_eq!(operations.len(), 3, "other, a and b");
    assert_eq!(operations[0].outcomes[Outcome::Shed.index()], 300);
}

type Served = ManualFuture<Result<Response<Bytes>, Infallible>>;

/// Runs twice the sustainable load for three seconds. Returns the 99th percentile of the latency of served requests,
/// and the numbers of served and shed requests.
async fn overloaded(
    shed: impl FnOnce(PoolLayer<ScriptedBackend>) -> PoolLayer<ScriptedBackend>,
) -> (Duration, usize, usize) {
    let mut settings = super::super::harness::settings(4, 0);
    settings.checkout_timeout = ms(5_000);
    settings.pre_ping = false;
    let test = TestPool::with(&settings);
    let service = shed(layer(&test)).layer(handler(&test, &Arc::default()));
    let mut in_flight: Vec<(u64, Served)> = Vec::new();
    let (mut served, mut shed) = (Vec::new(), 0);
    let mut millis = 0;
    while millis < 3_000 || !in_flight.is_empty() {
        // The pool serves four requests per 100 ms, and eight arrive.
        if millis < 3_000 && millis % 25 == 0 {
            in_flight.extend([(); 2].map(|()| (millis, serve(service.clone(), get("/orders")))));
        }
        in_flight.retain_mut(|(arrived, request)| {
            let Some(response) = request.is_woken().then(|| request.poll()).flatten() else { return true };
            match response.unwrap().status() {
                StatusCode::OK => served.push(millis - *arrived),
                StatusCode::SERVICE_UNAVAILABLE => shed += 1,
                status => panic!("{status}"),
            }
            false
        });
        test.advance(ms(5)).await;
        millis += 5;
    }
    served.sort_unstable();
    (ms(served[served.len() * 99 / 100]), served.len(), shed)
}

#[tokio::test(start_paused = true)]
async fn shedding_bounds_latency_of_served_requests() {
    let (without, all, none) = overloaded(|layer| layer).await;
    let (with, served, shed) = overloaded(|layer| layer.max_expected_wait(ms(200))).await;
    let (by_queue, ..) = overloaded(|layer| layer.max_queue_len(7)).await;
    assert_eq!((all, none, served + shed), (240, 0, 240));
    // Without shedding, each request waits for all earlier ones; with shedding, for 200 ms besides its own 100 ms.
    assert!(without >= ms(2_900), "{without:?}");
    assert!(with <= ms(350), "{with:?}");
    assert!(by_queue <= ms(350), "{by_queue:?}");
    // The pool stays busy nevertheless.
    assert!(served >= 120, "{served}");
}
