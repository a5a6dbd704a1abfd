//! Limits on the connections that one route may hold.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, Outcome, Phase};
use poolscope::pool::Pool;
use tower::{Layer as _, service_fn};

use super::super::backend::ScriptedBackend;
use super::super::harness::{ManualFuture, TestPool, ms, poll_woken};
use super::{get, layer, response, serve, totals};

type Served = ManualFuture<Result<http::Response<Bytes>, Infallible>>;

/// Requests that hold a connection for 100 ms, and end if the checkout fails.
fn requests<'a>(test: &'a TestPool, percent: u8) -> impl Fn(&str) -> Served + 'a {
    let pool = test.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            if let Ok(held) = pool.get().await {
                tokio::time::sleep(ms(100)).await;
                drop(held);
            }
            Ok::<_, Infallible>(response())
        }
    });
    let service = layer(test).max_route_percent(percent).layer(handler);
    move |path| serve(service.clone(), get(path))
}

#[tokio::test(start_paused = true)]
async fn limited_route_leaves_capacity_to_others() {
    let test = TestPool::new(4, 0);
    let request = requests(&test, 50);
    let mut reports: Vec<_> = (0..6).map(|_| request("/report").assert_pending()).collect();
    assert_eq!(test.snapshot().connections.used, 2);
    let waiters = test.snapshot().waiters;
    assert!(waiters.len() == 4 && waiters.iter().all(|waiter| waiter.phase == Phase::Share), "{waiters:?}");
    assert_eq!(test.snapshot().queued, 0, "the pool has capacity");

    // The login does not wait.
    let mut login = request("/login").assert_pending();
    assert_eq!(test.snapshot().connections.used, 3);
    test.advance(ms(100)).await;
    login.poll().unwrap().unwrap();
    assert_eq!(totals(&test, "/login").wait_nanos, 0);

    for round in [2, 1, 0] {
        poll_woken(&mut reports, |_, _| ());
        assert_eq!(reports.len(), 2 * round);
        test.advance(ms(100)).await;
    }
    // Two waited for 100 ms, two for 200 ms.
    assert_eq!(test.phase(Phase::Share), ms(600));
    assert_eq!(totals(&test, "/report").wait_nanos, 600_000_000);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn unlimited_route_may_use_the_whole_pool() {
    let test = TestPool::new(4, 0);
    let request = requests(&test, 100);
    let _hogs: Vec<_> = (0..6).map(|_| request("/report").assert_pending()).collect();
    let mut login = request("/login").assert_pending();
    test.advance(ms(100)).await;
    assert!(login.poll().is_none(), "it is seventh in the queue");
}

#[tokio::test(start_paused = true)]
async fn route_may_always_use_one_connection() {
    let test = TestPool::new(4, 0);
    let request = requests(&test, 0);
    let _first = request("/report").assert_pending();
    assert_eq!(test.snapshot().connections.used, 1);
    let _second = request("/report").assert_pending();
    assert_eq!(test.snapshot().connections.used, 1);
    let _other = request("/login").assert_pending();
    assert_eq!(test.snapshot().connections.used, 2);
}

#[tokio::test(start_paused = true)]
async fn wait_for_route_permit_times_out() {
    let test = TestPool::new(2, 0);
    let request = requests(&test, 50);
    let held = request("/report").assert_pending();
    let mut waiting = request("/report").assert_pending();
    // The holder is not polled meanwhile.
    test.advance(ms(1000)).await;
    waiting.poll().unwrap().unwrap();
    assert_eq!(test.outcomes("GET /report", Outcome::Timeout), 1);
    assert_eq!(test.phase(Phase::Share), ms(1000));
    drop(held);
    let mut next = request("/report").assert_pending();
    test.advance(ms(100)).await;
    next.poll().unwrap().unwrap();
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn dropped_waiter_passes_its_permit_on() {
    let test = TestPool::new(2, 0);
    let request = requests(&test, 50);
    let mut held = request("/report").assert_pending();
    let dropped = request("/report").assert_pending();
    let mut next = request("/report").assert_pending();
    test.advance(ms(100)).await;
    held.poll().unwrap().unwrap();
    // It was woken, and is dropped without being polled.
    drop(dropped);
    assert_eq!(test.outcomes("GET /report", Outcome::Cancelled), 1);
    assert!(next.is_woken() && next.poll().is_none());
    test.advance(ms(100)).await;
    next.poll().unwrap().unwrap();
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn closing_ends_waits_for_route_permits() {
    let test = TestPool::new(2, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            match pool.get().await {
                Ok(held) => {
                    tokio::time::sleep(ms(100)).await;
                    drop(held);
                }
                Err(error) => assert!(matches!(error, CheckoutError::Closed { .. }), "{error}"),
            }
            Ok::<_, Infallible>(response())
        }
    });
    let service = layer(&test).max_route_percent(50).layer(handler);
    let mut held = serve(service.clone(), get("/report")).assert_pending();
    let mut waiting = serve(service.clone(), get("/report")).assert_pending();
    let pool = test.pool.clone();
    let mut closing = ManualFuture::new(async move { pool.close().await }).assert_pending();
    assert!(waiting.is_woken());
    waiting.poll().unwrap().unwrap();
    serve(service, get("/late")).poll().unwrap().unwrap();
    test.advance(ms(100)).await;
    held.poll().unwrap().unwrap();
    assert!(closing.poll().is_some());
    assert_eq!(test.outcomes("GET /report", Outcome::Closed), 1);
    assert_eq!(test.outcomes("GET /late", Outcome::Closed), 1);
}

#[tokio::test(start_paused = true)]
async fn overflow_is_kept_for_route_waiters() {
    let test = TestPool::new(1, 2);
    let request = requests(&test, 67);
    let others = test.get("others");
    let mut first = request("/report").assert_pending();
    let mut second = request("/report").assert_pending();
    let mut waiting = [request("/report").assert_pending(), request("/report").assert_pending()];
    assert_eq!(test.snapshot().connections.used, 3);
    drop(others);
    test.advance(ms(100)).await;
    first.poll().unwrap().unwrap();
    second.poll().unwrap().unwrap();
    for third in &mut waiting {
        assert!(third.is_woken() && third.poll().is_none());
    }
    assert_eq!(test.backend.opened(), 3, "existing connections were reused");
    test.advance(ms(100)).await;
    for third in &mut waiting {
        third.poll().unwrap().unwrap();
    }
    assert_eq!(test.closed(CloseReason::Overflow), 2);
    test.assert_usable();
}

/// A waker that tries to check out a connection.
struct CheckoutOnWake {
    pool: Pool<ScriptedBackend>,
    results: Mutex<Vec<bool>>,
}

impl Wake for CheckoutOnWake {
    fn wake(self: Arc<Self>) {
        // On another thread, outside any request with a route limit.
        let results = std::thread::scope(|scope| {
            let checkout = || pin!(self.pool.get()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
            scope.spawn(checkout).join().unwrap()
        });
        self.results.lock().unwrap().push(results);
    }
}

#[tokio::test(start_paused = true)]
async fn route_waiter_is_woken_after_the_return() {
    let test = TestPool::new(2, 0);
    let _others = test.get("others");
    let request = requests(&test, 50);
    let mut held = request("/report").assert_pending();
    let waker = Arc::new(CheckoutOnWake { pool: test.pool.clone(), results: Mutex::default() });
    let mut waiting = request("/report");
    assert!(waiting.poll_for(&Waker::from(Arc::clone(&waker))).is_none());
    test.advance(ms(100)).await;
    held.poll().unwrap().unwrap();
    assert_eq!(*waker.results.lock().unwrap(), [true]);
}
