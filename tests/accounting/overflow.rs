//! Overflow connections: opened on demand, kept while a checkout waits, closed otherwise.

use poolscope::labels::{CloseReason, Outcome};

use super::backend::Behavior;
use super::harness::{TestPool, ms, poll_woken};

#[tokio::test(start_paused = true)]
async fn returns_beyond_pool_size_are_closed() {
    let test = TestPool::new(2, 3);
    let mut held = test.get_many("holder", 5);
    let status = test.pool.status();
    assert_eq!((status.used, status.overflow(), status.max), (5, 3, 5));
    for idle in [1, 2, 2, 2, 2] {
        held.pop();
        assert_eq!(test.snapshot().connections.idle, idle);
    }
    assert_eq!(test.closed(CloseReason::Overflow), 3);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn overflow_is_kept_for_a_waiter_and_closed_after() {
    let test = TestPool::new(1, 1);
    let held = test.get_many("holder", 2);
    let mut waiting = vec![test.checkout("waiter").assert_pending()];
    drop(held);
    assert_eq!((test.snapshot().connections.idle, test.closed(CloseReason::Overflow)), (2, 0));
    let mut served = Vec::new();
    poll_woken(&mut waiting, |_, result| served.push(result.unwrap()));
    assert_eq!(test.backend.opened(), 2, "no connection was opened");
    drop(served);
    assert_eq!((test.snapshot().connections.idle, test.closed(CloseReason::Overflow)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn overflow_kept_for_a_departed_waiter_is_closed() {
    for ending in [Outcome::Cancelled, Outcome::Timeout, Outcome::Error] {
        let test = TestPool::new(1, 1);
        let held = test.get_many("holder", 2);
        let mut waiter = test.checkout("waiter").assert_pending();
        if ending == Outcome::Timeout {
            // One is kept for the waiter, but the other is not returned before its deadline.
            test.advance(ms(1001)).await;
        }
        drop(held);
        match ending {
            Outcome::Cancelled => drop(waiter),
            Outcome::Timeout => drop(waiter.poll().unwrap()),
            _ => {
                test.backend.break_connection(0);
                test.backend.break_connection(1);
                test.backend.set_connect(Behavior::Error);
                assert_eq!(waiter.poll().unwrap().unwrap_err().outcome(), ending);
            }
        }
        let snapshot = test.snapshot();
        assert!(snapshot.connections.idle <= 1, "{ending:?}: {:?}", snapshot.connections);
        test.backend.recover();
        test.assert_usable();
    }
}

#[tokio::test(start_paused = true)]
async fn overflow_goes_to_the_next_waiter() {
    let test = TestPool::new(1, 1);
    let held = test.get_many("holder", 2);
    let first = test.checkout("waiter").assert_pending();
    let second = test.checkout("waiter").assert_pending();
    drop(held);
    assert_eq!(test.snapshot().connections.idle, 2);
    drop(first);
    assert_eq!(test.snapshot().connections.idle, 2, "one may be idle, and one is awaited");
    let mut waiting = vec![second];
    poll_woken(&mut waiting, |_, result| drop(result.unwrap()));
    assert_eq!((test.snapshot().connections.idle, test.backend.opened()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn pool_without_overflow_never_exceeds_its_size() {
    let test = TestPool::new(3, 0);
    let held = test.get_many("holder", 3);
    let waiter = test.checkout("waiter").assert_pending();
    assert_eq!((test.backend.live(), test.pool.status().waiting), (3, 1));
    drop(waiter);
    drop(held);
    assert_eq!(test.snapshot().connections.idle, 3);
    assert_eq!(test.backend.opened(), 3);
}

#[tokio::test(start_paused = true)]
async fn discarding_frees_capacity_at_once() {
    let test = TestPool::new(1, 1);
    let mut held = test.get_many("holder", 2);
    let waiter = test.checkout("waiter").assert_pending();
    held.remove(0).discard();
    assert!(waiter.is_woken());
    let mut waiting = vec![waiter];
    poll_woken(&mut waiting, |_, result| held.push(result.unwrap()));
    assert_eq!((test.closed(CloseReason::Discarded), test.backend.opened()), (1, 3));
    assert_eq!(test.totals("holder").returned, 1, "a discarded use is counted");
    drop(held);
    test.assert_usable();
}
