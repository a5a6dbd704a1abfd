//! Attempts to connect whose checkouts have ended: they go on, they are bounded, and their ends count.

use std::time::Duration;

use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, Outcome};

use super::backend::{Behavior, Completion};
use super::harness::{ManualFuture, TestPool, ms, poll_woken, settings};

/// Starts a checkout that connects, and ends it while it does: by its deadline, or by dropping it.
async fn leave_connecting(test: &TestPool, by_deadline: bool) {
    let mut attempt = test.checkout("leaves").assert_pending();
    if by_deadline {
        test.advance(ms(1001)).await;
        assert!(matches!(attempt.poll(), Some(Err(CheckoutError::Timeout(_)))));
    }
    drop(attempt);
}

#[tokio::test(start_paused = true)]
async fn attempt_goes_on_after_its_checkout() {
    for by_deadline in [false, true] {
        let test = TestPool::new(2, 0);
        test.backend.set_connect(Behavior::Blocked);
        leave_connecting(&test, by_deadline).await;
        let snapshot = test.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.connections.creating), (0, 1));
        test.advance(ms(500)).await;
        test.release_all(Completion::Ok).await;
        let snapshot = test.snapshot();
        assert_eq!((snapshot.connections.idle, snapshot.connections.creating), (1, 0));
        assert_eq!((snapshot.created, snapshot.create_time.count()), (1, 1));
        drop(test.get("next"));
        assert_eq!(test.backend.opened(), 1, "the next checkout uses it");
        test.backend.recover();
        test.assert_usable();
    }
}

/// Returns the connection errors by phase and code.
fn errors(test: &TestPool) -> Vec<(&'static str, String, u64)> {
    let errors = test.snapshot().errors;
    errors.iter().map(|errors| (errors.phase.as_str(), errors.code.as_str().to_owned(), errors.count)).collect()
}

#[tokio::test(start_paused = true)]
async fn checkout_without_its_connection_is_a_connection_error() {
    for (by_deadline, code) in [(true, "too_slow"), (false, "dropped")] {
        let test = TestPool::new(2, 0);
        test.backend.set_connect(Behavior::Blocked);
        leave_connecting(&test, by_deadline).await;
        assert_eq!(errors(&test), [("checkout", code.to_owned(), 1)]);
        test.release_all(Completion::Ok).await;
        test.backend.recover();
        test.assert_usable();
        assert_eq!(errors(&test).len(), 1);
    }
}

/// Connecting did not take long, but began late.
#[tokio::test(start_paused = true)]
async fn timeout_after_a_queue_does_not_blame_connecting() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    let mut attempt = test.checkout("waits").assert_pending();
    test.advance(ms(900)).await;
    test.backend.set_connect(Behavior::Blocked);
    held.discard();
    assert!(attempt.poll().is_none());
    test.advance(ms(101)).await;
    let error = attempt.poll().unwrap().unwrap_err().to_string();
    assert!(error.contains("within 1s 1ms, while connecting: "), "{error}");
    assert_eq!(errors(&test), []);
    test.release_all(Completion::Ok).await;
}

#[tokio::test(start_paused = true)]
async fn failure_after_the_checkout_suspends_connecting() {
    let test = TestPool::new(2, 0);
    test.backend.set_connect(Behavior::Blocked);
    leave_connecting(&test, false).await;
    test.release_all(Completion::Down).await;
    assert!(matches!(test.checkout("next").poll(), Some(Err(CheckoutError::Unavailable { .. }))));
    let counted = [("connect", "57P03", 1), ("checkout", "57P03", 1), ("checkout", "dropped", 1)];
    assert_eq!(errors(&test), counted.map(|(phase, code, count)| (phase, code.to_owned(), count)));
    assert_eq!((test.closed(CloseReason::ConnectFailed), test.backend.creates().started()), (1, 1));
    test.advance(ms(50)).await;
    test.backend.recover();
    test.assert_usable();
}

/// A silent server: attempts end only by the pool's limit, and callers give up long before that.
#[tokio::test(start_paused = true)]
async fn silent_server_gets_few_attempts() {
    for dropped in [false, true] {
        let mut settings = settings(3, 2);
        settings.connect_timeout = ms(5_000);
        settings.checkout_timeout = if dropped { ms(30_000) } else { ms(50) };
        let test = TestPool::with(&settings);
        test.backend.set_connect(Behavior::Blocked);
        let mut started = Vec::new();
        for _ in 0..60 {
            for _ in 0..20 {
                let mut attempts: Vec<_> = (0..8).map(|_| test.checkout("impatient")).collect();
                poll_woken(&mut attempts, |_, result| assert!(result.is_err()));
                test.advance(ms(50)).await;
                poll_woken(&mut attempts, |_, result| assert!(result.is_err()));
                assert!(dropped || attempts.is_empty());
            }
            started.push(test.backend.creates().started());
        }
        // As many as the pool may have in the first 6 s, then one at a time, each for 6 s.
        assert_eq!((started[0], started[4]), (5, 5));
        assert!((8..=9 + 5).contains(started.last().unwrap()), "{started:?}");
        let snapshot = test.snapshot();
        assert_eq!(snapshot.connections.live(), 1);
        let code = |code: &str| snapshot.errors.iter().find(|errors| errors.code.as_str() == code).unwrap().count;
        assert_eq!(code("timeout") as usize + 1, test.backend.creates().started());
    }
}

/// Connecting takes 1.5 s, and callers wait 1 s: the pool is full after 1.5 s, and every connection is used.
#[tokio::test(start_paused = true)]
async fn slow_connects_fill_the_pool() {
    let mut settings = settings(10, 0);
    settings.recycle_after = None;
    let test = TestPool::with(&settings);
    test.backend.set_connect(Behavior::After(ms(1500), Completion::Ok));
    let mut served = 0;
    for _ in 0..16 {
        let mut attempts: Vec<_> = (0..20).map(|_| test.checkout("caller")).collect();
        for _ in 0..11 {
            poll_woken(&mut attempts, |_, result| served += usize::from(result.is_ok()));
            test.advance(ms(100)).await;
            if test.now() == 1_500_000_000 {
                assert_eq!(test.snapshot().connections.idle, 10);
            }
        }
        poll_woken(&mut attempts, |_, result| served += usize::from(result.is_ok()));
    }
    assert_eq!(test.backend.creates().started(), 10);
    assert_eq!(test.backend.creates().abandoned(), 0);
    assert_eq!(served, 15 * 20);
}

/// Connections beyond `pool_size` that no checkout waits for are closed, as when they are returned.
#[tokio::test(start_paused = true)]
async fn surplus_connections_are_closed() {
    let test = TestPool::new(1, 2);
    test.backend.set_connect(Behavior::Blocked);
    let attempts: Vec<_> = (0..3).map(|_| test.checkout("leaves").assert_pending()).collect();
    let mut waiting = vec![test.checkout("waits").assert_pending()];
    drop(attempts);
    test.release_all(Completion::Ok).await;
    let mut served = Vec::new();
    poll_woken(&mut waiting, |_, result| served.push(result.unwrap()));
    assert_eq!(served.len(), 1);
    assert_eq!((test.snapshot().connections.idle, test.closed(CloseReason::Overflow)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn closing_ends_detached_attempts() {
    let test = TestPool::new(2, 0);
    test.backend.set_connect(Behavior::Blocked);
    leave_connecting(&test, false).await;
    let pool = test.pool.clone();
    let mut closing = ManualFuture::new(async move { pool.close().await }).assert_pending();
    test.run_detached().await;
    assert!(closing.is_woken() && closing.poll().is_some(), "without waiting for the server");
    assert_eq!((test.backend.live(), test.closed(CloseReason::ConnectAbandoned)), (0, 1));
    // A checkout that is dropped after the pool was closed leaves no attempt.
    let test = TestPool::new(2, 0);
    test.backend.set_connect(Behavior::Blocked);
    let attempt = test.checkout("leaves").assert_pending();
    let pool = test.pool.clone();
    let mut closing = ManualFuture::new(async move { pool.close().await }).assert_pending();
    drop(attempt);
    assert!(closing.poll().is_some());
    assert_eq!(test.backend.live(), 0);
}

/// An attempt ends with its runtime, and leaves its place to others.
#[test]
fn attempt_ends_with_its_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let test = TestPool::new(1, 0);
    test.backend.set_connect(Behavior::Blocked);
    let ended = runtime();
    let (left, kept) = ended.block_on(async {
        drop(test.checkout("leaves").assert_pending());
        let other = TestPool::new(1, 0);
        other.backend.set_connect(Behavior::Blocked);
        let kept = other.checkout("kept").assert_pending();
        (test, (other, kept))
    });
    assert_eq!(left.backend.live(), 1);
    drop(ended);
    assert_eq!((left.backend.live(), left.closed(CloseReason::ConnectAbandoned)), (0, 1));
    // The same for a checkout that is dropped after its runtime.
    drop(kept.1);
    assert_eq!((kept.0.backend.live(), kept.0.outcomes("kept", Outcome::Cancelled)), (0, 1));
    for test in [left, kept.0] {
        test.backend.recover();
        runtime().block_on(async { test.assert_usable() });
    }
}

/// A backend may panic: neither the checkout nor its attempt is polled again.
#[tokio::test(start_paused = true)]
async fn panicked_attempt_frees_its_place() {
    let test = TestPool::new(1, 0);
    test.backend.push_connect(Behavior::Blocked);
    leave_connecting(&test, false).await;
    test.release_all(Completion::Panic).await;
    assert_eq!((test.backend.live(), test.closed(CloseReason::ConnectAbandoned)), (0, 1));
    test.assert_usable();
    assert_eq!(test.snapshot().connecting_suspended, Duration::ZERO);
}

/// The runtime of an attempt may exist and not run: a checkout that waits for the place ends the attempt when it is overdue.
#[tokio::test(start_paused = true)]
async fn attempt_of_an_idle_runtime_frees_its_place() {
    let mut settings = settings(1, 0);
    settings.connect_timeout = ms(1_000);
    settings.checkout_timeout = ms(30_000);
    let test = TestPool::with(&settings);
    test.backend.push_connect(Behavior::Blocked);
    let idle = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let attempt = std::thread::scope(|scope| {
        scope.spawn(|| idle.block_on(async { test.checkout("leaves").assert_pending() })).join().unwrap()
    });
    drop(attempt);
    let mut waiting = vec![test.checkout("waits").assert_pending()];
    for _ in 0..40 {
        test.advance(ms(100)).await;
        poll_woken(&mut waiting, |_, result| drop(result.unwrap()));
    }
    assert_eq!((waiting.len(), test.closed(CloseReason::ConnectAbandoned)), (0, 1));
    test.assert_usable();
    std::thread::spawn(move || drop(idle)).join().unwrap();
}
