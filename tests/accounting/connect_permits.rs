//! Fairness of connect permits: no waiter is forgotten, none overtakes, and none blocks the others.

use std::time::Duration;

use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, Outcome, Phase};

use super::backend::{Behavior, Completion};
use super::harness::{CheckoutResult, ManualFuture, TestGuard, TestPool, ms, poll_woken, settings};

/// At least the longest pause between attempts to connect.
const MAX_BACKOFF: Duration = ms(1000);

/// Returns a pool whose checkouts wait while the server is down.
fn pool_without_fail_fast(pool_size: usize, max_overflow: usize) -> TestPool {
    let mut settings = settings(pool_size, max_overflow);
    settings.fail_fast = false;
    settings.checkout_timeout = ms(30_000);
    settings.connect_timeout = ms(5_000);
    settings.recycle_after = None;
    TestPool::with(&settings)
}

/// Polls woken futures until none is woken, for a bounded number of polls. Returns that number.
#[track_caller]
fn poll_until_idle(attempts: &mut Vec<ManualFuture>, held: &mut Vec<TestGuard>) -> usize {
    const MAX_POLLS: usize = 1000;
    let mut polls = 0;
    while let Some(index) = attempts.iter().position(|attempt| attempt.is_woken()) {
        polls += 1;
        assert!(polls < MAX_POLLS, "waiters wake each other endlessly");
        if let Some(served) = attempts[index].poll() {
            attempts.remove(index);
            held.push(served.expect("a connection"));
        }
    }
    polls
}

/// Checks that, once the server recovers, another checkout is served although those that hold permits are not polled.
async fn assert_other_is_served(test: &TestPool) {
    test.backend.recover();
    let mut others = vec![test.checkout("other").assert_pending()];
    let mut served = Vec::new();
    for _ in 0..8 {
        test.advance(MAX_BACKOFF).await;
        poll_until_idle(&mut others, &mut served);
    }
    assert_eq!(served.len(), 1);
}

fn is_unavailable(served: &CheckoutResult) -> bool {
    matches!(served, Err(CheckoutError::Unavailable { .. }))
}

/// More checkouts than capacity wait for a server that is down or full: they stay idle until something changes.
#[tokio::test(start_paused = true)]
async fn waiters_do_not_wake_each_other_endlessly() {
    // More waiters than slots, and the server is down.
    let test = pool_without_fail_fast(1, 0);
    test.backend.set_connect(Behavior::Down);
    let mut attempts: Vec<_> = (0..3).map(|_| test.checkout("waiter")).collect();
    assert!(poll_until_idle(&mut attempts, &mut Vec::new()) < 20);
    // The server is full.
    let test = pool_without_fail_fast(10, 0);
    let mut held = test.get_many("holder", 4);
    test.backend.set_connect(Behavior::Full);
    let mut attempts: Vec<_> = (0..20).map(|_| test.checkout("waiter")).collect();
    assert!(poll_until_idle(&mut attempts, &mut Vec::new()) < 60);
    for _ in 0..5 {
        let mut served = Vec::new();
        drop(std::mem::take(&mut held));
        poll_until_idle(&mut attempts, &mut served);
        assert_eq!(served.len(), 4);
        held = served;
    }
    assert!(attempts.is_empty());
    // Waiters that queued before the server went down.
    let test = pool_without_fail_fast(10, 0);
    let held = test.get_many("holder", 10);
    let mut attempts: Vec<_> = (0..20).map(|_| test.checkout("waiter")).collect();
    poll_until_idle(&mut attempts, &mut Vec::new());
    test.backend.set_connect(Behavior::Down);
    held.into_iter().for_each(TestGuard::discard);
    assert!(poll_until_idle(&mut attempts, &mut Vec::new()) < 100);
    test.backend.recover();
    test.advance(MAX_BACKOFF).await;
    let mut served = Vec::new();
    poll_until_idle(&mut attempts, &mut served);
    assert_eq!(served.len(), 10);
}

/// A checkout that probes the server and is no longer polled blocks the others only until its lease expires.
#[tokio::test(start_paused = true)]
async fn unpolled_probe_lease_expires() {
    let test = pool_without_fail_fast(10, 0);
    test.backend.push_connect(Behavior::Down);
    let mut attempts = vec![test.checkout("first").assert_pending()];
    test.advance(MAX_BACKOFF).await;
    test.backend.push_connect(Behavior::Slow(Completion::Ok));
    // It probes the server, and is not polled again.
    let _unpolled = attempts.pop().unwrap().assert_pending();
    assert_eq!(test.backend.creates().running(), 1);
    assert_other_is_served(&test).await;
}

/// The same for the first checkouts to connect after recovery.
#[tokio::test(start_paused = true)]
async fn unpolled_ramp_leases_expire() {
    let test = pool_without_fail_fast(10, 0);
    test.backend.push_connect(Behavior::Down);
    let mut first = test.checkout("first").assert_pending();
    test.advance(MAX_BACKOFF).await;
    let _held = first.poll().unwrap().unwrap();
    // Two checkouts may connect at once now.
    test.backend.set_connect(Behavior::Slow(Completion::Ok));
    let _unpolled = [test.checkout("kept").assert_pending(), test.checkout("kept").assert_pending()];
    assert_other_is_served(&test).await;
}

#[tokio::test(start_paused = true)]
async fn returned_connections_are_served_in_fifo_order() {
    let test = pool_without_fail_fast(10, 0);
    let mut held = vec![test.get("holder")];
    test.backend.set_connect(Behavior::Down);
    let mut waiting: Vec<_> = (0..2)
        .map(|n| {
            let mut attempt = test.checkout("waiter").assert_pending();
            attempt.tag = (n, 0);
            attempt
        })
        .collect();
    drop(held.pop());
    // Arrives before the woken waiter was polled.
    let mut newcomer = test.checkout("newcomer").assert_pending();
    newcomer.tag = (2, 0);
    waiting.push(newcomer);
    for expected in 0..3 {
        let mut order = Vec::new();
        poll_woken(&mut waiting, |(n, _), served| order.push((n, served.unwrap())));
        assert_eq!(order.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn surplus_idle_connections_skip_the_queue() {
    let test = pool_without_fail_fast(10, 0);
    let held = test.get_many("holder", 5);
    test.backend.set_connect(Behavior::Full);
    let mut waiter = test.checkout("waiter").assert_pending();
    drop(held);
    drop(test.get("newcomer"));
    drop(waiter.poll().unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn awaited_overflow_connections_are_kept() {
    let test = pool_without_fail_fast(1, 3);
    let held = test.get_many("holder", 2);
    test.backend.set_connect(Behavior::Down);
    let mut waiting = vec![test.checkout("waiter").assert_pending(), test.checkout("waiter").assert_pending()];
    drop(held);
    let mut served = Vec::new();
    poll_until_idle(&mut waiting, &mut served);
    assert_eq!((served.len(), test.closed(CloseReason::Overflow)), (2, 0));
    drop(served);
    assert_eq!(test.closed(CloseReason::Overflow), 1);
}

/// No two checkouts probe at once, whatever becomes of attempts started before the failure.
#[tokio::test(start_paused = true)]
async fn only_one_probe_runs_at_a_time() {
    let test = TestPool::new(10, 0);
    test.backend.push_connect(Behavior::Blocked);
    let mut old = test.checkout("old").assert_pending();
    test.backend.push_connect(Behavior::Down);
    assert!(test.checkout("first").poll().unwrap().is_err());
    test.advance(ms(50)).await;
    test.backend.push_connect(Behavior::Blocked);
    let mut first = test.checkout("probe").assert_pending();
    // An earlier attempt succeeds, and another failure follows.
    test.backend.release(0, Completion::Ok);
    let _held = old.poll().unwrap().unwrap();
    test.backend.push_connect(Behavior::Down);
    assert!(test.checkout("second").poll().unwrap().is_err());
    test.advance(ms(50)).await;
    test.backend.push_connect(Behavior::Blocked);
    let _second = test.checkout("probe").assert_pending();
    test.backend.release(0, Completion::Down);
    assert!(first.poll().unwrap().is_err());
    test.advance(ms(200)).await;
    assert!(is_unavailable(&test.checkout("others").poll().unwrap()));
    assert_eq!(test.backend.creates().running(), 1);
}

/// A checkout that waits for a connect permit and then for capacity is counted in both phases.
#[tokio::test(start_paused = true)]
async fn wait_is_split_into_suspended_and_queue() {
    let test = pool_without_fail_fast(1, 1);
    let held = test.get("holder");
    test.backend.set_connect(Behavior::Down);
    let mut waiting: Vec<_> = (0..3).map(|_| test.checkout("waiter").assert_pending()).collect();
    test.backend.recover();
    test.advance(MAX_BACKOFF).await;
    let mut served = Vec::new();
    poll_until_idle(&mut waiting, &mut served);
    assert_eq!((served.len(), test.pool.status().waiting), (1, 2));
    test.advance(ms(10_000)).await;
    assert_eq!(test.phase(Phase::Queue), ms(20_000));
    assert_eq!(test.phase(Phase::Suspended), 3 * MAX_BACKOFF);
    // No awaited connection is closed.
    drop((served, held));
    let mut served = Vec::new();
    poll_until_idle(&mut waiting, &mut served);
    assert_eq!((served.len(), test.closed(CloseReason::Overflow)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn expired_connection_is_kept_during_outage() {
    let test = TestPool::new(10, 0);
    drop(test.get("makes"));
    test.backend.push_connect(Behavior::Down);
    let held = test.get("holder");
    assert!(test.checkout("fails").poll().unwrap().is_err());
    drop(held);
    test.advance_pool_clock(ms(10_000));
    drop(test.get("old"));
    assert_eq!(test.closed(CloseReason::Recycled), 0);
    // It is replaced once the pool can connect again.
    test.advance(ms(20_000)).await;
    drop(test.get("new"));
    assert_eq!(test.closed(CloseReason::Recycled), 1);
}

#[tokio::test(start_paused = true)]
async fn suspension_is_not_reported_without_attempts() {
    let test = TestPool::new(10, 0);
    let held = test.get("holder");
    test.backend.push_connect(Behavior::Down);
    assert!(test.checkout("fails").poll().unwrap().is_err());
    test.advance(ms(9_000)).await;
    assert_eq!(test.snapshot().connecting_suspended, ms(9_000));
    test.advance(ms(2_000)).await;
    assert_eq!(test.snapshot().connecting_suspended, Duration::ZERO);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn closing_a_connection_frees_a_server_slot() {
    let test = pool_without_fail_fast(10, 0);
    let held = test.get_many("holder", 2);
    test.backend.push_connect(Behavior::Full);
    let mut waiting = vec![test.checkout("waiter").assert_pending()];
    held.into_iter().for_each(TestGuard::discard);
    let mut served = Vec::new();
    poll_until_idle(&mut waiting, &mut served);
    assert_eq!(served.len(), 1, "without a pause");
}

/// At a full server, checkouts wait only for connections that may be returned; one being established does not count.
#[tokio::test(start_paused = true)]
async fn connecting_checkout_is_no_expected_return() {
    let test = TestPool::new(10, 0);
    test.backend.push_connect(Behavior::Full);
    assert!(test.checkout("first").poll().unwrap().is_err());
    test.advance(ms(50)).await;
    test.backend.set_connect(Behavior::Blocked);
    let _probe = test.checkout("probe").assert_pending();
    assert!(is_unavailable(&test.checkout("others").poll().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn full_server_waits_for_connections_in_progress() {
    let test = TestPool::new(10, 0);
    test.backend.push_connect(Behavior::After(ms(20), Completion::Ok));
    test.backend.push_connect(Behavior::Full);
    let mut first = test.checkout("first").assert_pending();
    // It is refused while no connection exists yet.
    let mut waiting = vec![test.checkout("refused").assert_pending(), test.checkout("late").assert_pending()];
    test.advance(ms(20)).await;
    let first_guard = first.poll().unwrap().unwrap();
    test.backend.set_connect(Behavior::Full);
    let mut served = Vec::new();
    poll_until_idle(&mut waiting, &mut served);
    assert_eq!((served.len(), waiting.len()), (0, 2));
    drop(first_guard);
    for _ in 0..2 {
        poll_until_idle(&mut waiting, &mut served);
        served.clear();
    }
    assert_eq!((test.outcomes("refused", Outcome::Ok), test.outcomes("late", Outcome::Ok)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn full_server_fails_if_no_attempt_succeeds() {
    let test = TestPool::new(10, 0);
    test.backend.push_connect(Behavior::After(ms(20), Completion::Full));
    test.backend.set_connect(Behavior::Full);
    let mut first = test.checkout("first").assert_pending();
    let mut refused = test.checkout("refused").assert_pending();
    test.advance(ms(20)).await;
    assert!(matches!(first.poll(), Some(Err(CheckoutError::Connect { .. }))));
    assert!(is_unavailable(&refused.poll().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn closed_pool_admits_no_waiters() {
    let test = pool_without_fail_fast(10, 0);
    let held = test.get_many("holder", 1);
    test.backend.set_connect(Behavior::Full);
    let mut waiter = test.checkout("waiter").assert_pending();
    let mut closing = ManualFuture::new({
        let pool = test.pool.clone();
        async move { pool.close().await }
    });
    assert!(closing.poll().is_none());
    assert!(matches!(test.checkout("late").poll(), Some(Err(CheckoutError::Closed { .. }))));
    assert!(matches!(waiter.poll(), Some(Err(CheckoutError::Closed { .. }))));
    assert_eq!(test.outcomes("late", Outcome::Closed), 1);
    drop(held);
}
