//! Connections that keep their places after they were closed, as the server executes for them.

use poolscope::labels::{CloseReason, Outcome};

use super::backend::{Behavior, Completion};
use super::harness::{ManualFuture, TestPool, ms, poll_woken};

/// Returns a pool of one connection, which the server does not let go of until the test releases it.
async fn exhausted() -> TestPool {
    let test = TestPool::new(1, 0);
    test.backend.set_end(Behavior::Blocked);
    discard_executing(&test).await;
    test
}

async fn discard_executing(test: &TestPool) {
    let guard = test.get("abandons");
    guard.mark_executing();
    guard.discard();
    // Lets its task begin.
    tokio::task::yield_now().await;
}

#[tokio::test(start_paused = true)]
async fn closing_connection_keeps_its_place() {
    let test = exhausted().await;
    let snapshot = test.snapshot();
    assert_eq!((snapshot.connections.closing, snapshot.connections.live()), (1, 1));
    assert_eq!(snapshot.closed[CloseReason::Discarded.index()], 0);
    let mut waiter = test.checkout("waiter").assert_pending();
    assert_eq!((test.pool.status().waiting, test.backend.opened()), (1, 1));
    test.advance(ms(500)).await;
    assert!(waiter.poll().is_none());
    test.backend.release(0, Completion::Ok);
    tokio::task::yield_now().await;
    assert!(waiter.is_woken());
    let guard = waiter.poll().unwrap().unwrap();
    assert_eq!((test.closed(CloseReason::Discarded), test.backend.opened()), (1, 2));
    assert_eq!(test.snapshot().close_timeouts, 0);
    drop(guard);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn place_is_free_after_close_timeout() {
    let test = exhausted().await;
    test.advance(ms(900)).await;
    let waiter = test.checkout("waiter").assert_pending();
    test.advance(ms(301)).await;
    assert!(waiter.is_woken());
    let mut served = Vec::new();
    poll_woken(&mut vec![waiter], |_, result| served.push(result.unwrap()));
    assert_eq!((served.len(), test.snapshot().close_timeouts), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn timeout_reports_closing_connections() {
    let test = exhausted().await;
    let mut waiter = test.checkout("waiter").assert_pending();
    test.advance(ms(1001)).await;
    let error = waiter.poll().unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Timeout);
    assert_eq!(
        error.to_string(),
        "no connection from pool `test` for waiter at tests/accounting/harness.rs:109 within 1s 1ms, waiting for one to be \
         returned: 0 used, 0 idle, 0 being created, \
         1 closing (the server still executes abandoned queries) of 1, 0 waiting"
    );
}

/// A connection that is returned while checkouts wait for places serves the first of them.
#[tokio::test(start_paused = true)]
async fn return_serves_a_checkout_that_waits_for_a_place() {
    let test = TestPool::new(2, 0);
    test.backend.set_end(Behavior::Blocked);
    let held = test.get("holder");
    discard_executing(&test).await;
    let mut waiting = vec![test.checkout("first").assert_pending(), test.checkout("second").assert_pending()];
    waiting[0].tag = (1, 0);
    drop(held);
    let mut served = Vec::new();
    poll_woken(&mut waiting, |tag, result| served.push((tag, result.unwrap())));
    assert_eq!((served.len(), served[0].0, test.backend.opened()), (1, (1, 0), 2));
    test.backend.release(0, Completion::Ok);
    tokio::task::yield_now().await;
    poll_woken(&mut waiting, |tag, result| served.push((tag, result.unwrap())));
    assert_eq!((served.len(), test.backend.opened()), (2, 3));
}

/// Waiting for a place takes no polls beyond those of its wake-ups.
#[tokio::test(start_paused = true)]
async fn checkouts_without_a_place_do_not_wake_each_other() {
    let test = exhausted().await;
    let mut waiting: Vec<_> = (0..4).map(|_| test.checkout("waiter").assert_pending()).collect();
    for _ in 0..9 {
        poll_woken(&mut waiting, |_, _| panic!("there is no place"));
        test.advance(ms(100)).await;
    }
    assert!(waiting.iter().all(|waiter| waiter.polls < 8), "{:?}", waiting.iter().map(|w| w.polls).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_closing_connections_within_its_limit() {
    let test = exhausted().await;
    let error = test.pool.close_within(ms(300)).await.unwrap_err();
    assert_eq!((error.waited, error.usage.status.closing), (ms(300), 1));
    assert!(error.to_string().contains("1 closing"), "{error}");
    let pool = test.pool.clone();
    let mut closing = ManualFuture::new(async move { pool.close().await }).assert_pending();
    test.backend.release(0, Completion::Ok);
    tokio::task::yield_now().await;
    assert!(closing.is_woken() && closing.poll().is_some());
    assert_eq!(test.snapshot().connections.live(), 0);
}

#[test]
fn end_of_its_runtime_frees_the_place() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let first = runtime();
    let test = first.block_on(exhausted());
    assert_eq!(test.pool.status().closing, 1);
    drop(first);
    assert_eq!((test.pool.status().live(), test.pool.snapshot().close_timeouts), (0, 1));
    runtime().block_on(async { test.assert_usable() });
}

/// The runtime of a connection exists, but nothing drives it.
#[test]
fn place_of_an_undriven_runtime_is_freed() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let first = runtime();
    let test = first.block_on(exhausted());
    runtime().block_on(async {
        let started = tokio::time::Instant::now();
        while test.pool.get().await.is_err() {
            assert!(started.elapsed() < ms(3000), "the place is kept");
        }
        assert_eq!(test.pool.snapshot().close_timeouts, 1);
    });
    drop(first);
}
