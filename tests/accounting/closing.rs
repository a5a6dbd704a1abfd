//! Closing a pool, and dropping it.

use poolscope::labels::{CloseReason, Outcome, Phase};

use super::backend::{Behavior, Completion};
use super::harness::{ManualFuture, TestPool, ms, poll_woken};

fn closing(test: &TestPool) -> ManualFuture<()> {
    let pool = test.pool.clone();
    ManualFuture::new(async move { pool.close().await })
}

#[tokio::test(start_paused = true)]
async fn checkouts_of_closed_pool_fail_with_closed() {
    let test = TestPool::new(2, 0);
    drop(test.get("holder"));
    assert!(!test.pool.is_closed());
    assert!(closing(&test).poll().is_some(), "no connection is in use");
    assert!(test.pool.is_closed());
    assert_eq!((test.closed(CloseReason::Shutdown), test.backend.live()), (1, 0));
    let error = test.checkout("late").poll().unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Closed);
    assert_eq!(error.to_string(), "pool `test` is closed");
    let totals = test.totals("late");
    assert_eq!((totals.started, totals.outcomes[Outcome::Closed.index()], totals.wait_nanos), (1, 1, 0));
    assert!(closing(&test).poll().is_some(), "closing again completes at once");
    assert_eq!(test.backend.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiters_get_closed_and_close_awaits_returns() {
    let test = TestPool::new(1, 1);
    let mut held = test.get_many("holder", 2);
    let mut waiting: Vec<_> = (0..3).map(|_| test.checkout("waiter").assert_pending()).collect();
    let mut one = closing(&test).assert_pending();
    let mut two = closing(&test).assert_pending();
    let mut closed = 0;
    poll_woken(&mut waiting, |_, result| closed += usize::from(result.unwrap_err().outcome() == Outcome::Closed));
    assert_eq!((closed, test.outcomes("waiter", Outcome::Closed)), (3, 3));
    held.pop();
    assert!(one.poll().is_none() && two.poll().is_none(), "one is still in use");
    assert_eq!(test.snapshot().connections.used, 1);
    held.pop();
    assert!(one.is_woken() && two.is_woken());
    assert!(one.poll().is_some() && two.poll().is_some());
    assert_eq!((test.closed(CloseReason::Shutdown), test.backend.live()), (2, 0));
}

/// A checkout that is connecting or pinging when the pool closes gets no connection and leaks none.
#[tokio::test(start_paused = true)]
async fn checkout_in_progress_gets_closed() {
    for (phase, end) in
        [(Phase::Connect, Completion::Ok), (Phase::Connect, Completion::Error), (Phase::Ping, Completion::Ok)]
    {
        let test = TestPool::new(2, 0);
        if phase == Phase::Ping {
            drop(test.get("first"));
            test.advance(ms(500)).await;
        }
        test.backend.set_connect(Behavior::Blocked);
        test.backend.set_ping(Behavior::Blocked);
        let mut attempt = test.checkout("busy").assert_pending();
        let mut close = closing(&test).assert_pending();
        test.backend.release(0, end);
        let outcome = attempt.poll().unwrap().unwrap_err().outcome();
        assert_eq!(outcome, if end == Completion::Ok { Outcome::Closed } else { Outcome::Error }, "{phase:?}");
        assert!(close.is_woken());
        assert!(close.poll().is_some());
        assert_eq!((test.snapshot().connections.live(), test.backend.live()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn closing_continues_after_its_future_is_dropped() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    drop(closing(&test).assert_pending());
    assert!(test.pool.is_closed());
    drop(held);
    assert_eq!((test.backend.live(), test.closed(CloseReason::Shutdown)), (0, 1));
    assert!(closing(&test).poll().is_some());
}

#[tokio::test(start_paused = true)]
async fn close_within_reports_holders() {
    let test = TestPool::new(2, 2);
    let held = test.get_many("report", 2);
    test.advance(ms(5000)).await;
    let other = test.get("export");
    let error = test.pool.close_within(ms(1000)).await.unwrap_err();
    assert_eq!(error.waited, ms(1000));
    assert_eq!(error.usage.status.used, 3);
    // The pool's own clock stood still meanwhile.
    assert_eq!(
        error.to_string(),
        "pool `test` is not closed after 1s: 3 used, 0 being created, 0 checkouts in flight; held by report ×2 (oldest 5s), export ×1 (oldest 0s)"
    );
    assert!(test.pool.is_closed(), "the pool stays closed");
    drop((held, other));
    assert_eq!(test.backend.live(), 0, "later returns are closed");
    assert!(test.pool.close_within(ms(1000)).await.is_ok());
}

/// Connections that are discarded or break while the pool closes are closed exactly once.
#[tokio::test(start_paused = true)]
async fn discarded_and_broken_connections_are_closed_once() {
    let test = TestPool::new(3, 0);
    let mut held = test.get_many("holder", 3);
    let mut close = closing(&test).assert_pending();
    held.remove(0).discard();
    held[0].mark_broken();
    drop(held);
    assert!(close.poll().is_some());
    let snapshot = test.snapshot();
    assert_eq!(snapshot.closed.iter().sum::<u64>(), 3);
    assert_eq!(snapshot.closed[CloseReason::Discarded.index()], 1);
}

/// Dropping the last handle closes idle connections at once, and connections in use when they are returned.
#[tokio::test(start_paused = true)]
async fn dropped_pool_closes_all_connections() {
    let test = TestPool::new(2, 1);
    let mut held = test.get_many("holder", 2);
    held.pop();
    assert_eq!(test.backend.live(), 2);
    let TestPool { pool, backend, collector, .. } = test;
    let clone = pool.clone();
    drop(pool);
    assert_eq!(backend.live(), 2, "a clone is a handle to the same pool");
    drop(clone);
    assert_eq!(backend.live(), 1);
    let snapshot = collector.snapshots().remove(0);
    assert_eq!((snapshot.connections.used, snapshot.closed[CloseReason::Shutdown.index()]), (1, 1));
    super::invariants::check(&snapshot);
    std::thread::spawn(|| drop(held)).join().unwrap();
    assert_eq!(backend.live(), 0);
    assert!(collector.snapshots().is_empty(), "the pool is gone with its last connection");
}

#[tokio::test(start_paused = true)]
async fn dropping_last_checkout_drops_the_pool() {
    let test = TestPool::new(1, 0);
    test.backend.set_connect(Behavior::Blocked);
    let attempt = test.checkout("last").assert_pending();
    let TestPool { pool, backend, collector, .. } = test;
    drop(pool);
    assert_eq!((backend.live(), collector.snapshots().len()), (1, 1));
    drop(attempt);
    // The attempt to connect ends with the pool.
    tokio::task::yield_now().await;
    assert_eq!((backend.live(), collector.snapshots().len()), (0, 0));
}
