//! A maximum that changes while the pool is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use poolscope::labels::{CloseReason, Outcome, Phase};
use poolscope::pool::Pool;
use poolscope::{Collector, Settings};

use super::backend::{Behavior, Completion, ScriptedBackend};
use super::harness::{TestPool, ms, poll_woken, settings};
use super::invariants;

#[tokio::test(start_paused = true)]
async fn growing_serves_waiters_in_order() {
    let test = TestPool::new(2, 0);
    let held = test.get_many("holder", 2);
    let mut waiting: Vec<_> = (0..4).map(|_| test.checkout("waiter").assert_pending()).collect();
    for (index, waiter) in waiting.iter_mut().enumerate() {
        waiter.tag.0 = index;
    }
    test.resize(3, 1).unwrap();
    let status = test.pool.status();
    assert_eq!((status.size, status.max), (3, 4));
    let mut served = Vec::new();
    poll_woken(&mut waiting, |(index, _), result| served.push((index, result.unwrap())));
    assert_eq!(served.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((test.snapshot().connections.used, test.backend.live(), waiting.len()), (4, 4, 2));
    drop((held, waiting, served));
    assert_eq!(test.snapshot().connections.idle, 3);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn shrinking_while_all_are_in_use_closes_returns() {
    let test = TestPool::new(5, 0);
    let mut held = test.get_many("holder", 5);
    let mut waiting = vec![test.checkout("waiter").assert_pending(), test.checkout("waiter").assert_pending()];
    test.resize(2, 0).unwrap();
    for live in [4, 3, 2] {
        drop(held.pop());
        let snapshot = test.snapshot();
        assert_eq!((snapshot.connections.live(), snapshot.connections.idle, snapshot.queued), (live, 0, 2));
        assert!(waiting.iter().all(|waiter| !waiter.is_woken()), "a place that is gone wakes no checkout");
    }
    assert_eq!((test.closed(CloseReason::Resized), test.pool.status().max), (3, 2));
    // From now on it is a pool of two.
    drop(held.pop());
    let mut served = Vec::new();
    poll_woken(&mut waiting, |_, result| served.push(result.unwrap()));
    assert_eq!((served.len(), waiting.len(), test.backend.opened()), (1, 1, 5));
    drop(held.pop());
    poll_woken(&mut waiting, |_, result| served.push(result.unwrap()));
    assert_eq!((served.len(), test.backend.opened(), test.backend.live()), (2, 5, 2));
    drop(served);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn shrinking_closes_idle_connections_at_once() {
    let test = TestPool::new(5, 2);
    drop(test.get_many("before", 5));
    let held = test.get_many("holder", 2);
    test.resize(2, 1).unwrap();
    let snapshot = test.snapshot();
    assert_eq!((snapshot.connections.used, snapshot.connections.idle), (2, 1));
    assert_eq!(test.closed(CloseReason::Resized), 2);
    drop(held);
    assert_eq!((test.snapshot().connections.idle, test.closed(CloseReason::Overflow)), (2, 1));
    test.assert_usable();
}

/// deadpool alone keeps the places of a pool that was not full.
#[tokio::test(start_paused = true)]
async fn vacant_places_are_withheld() {
    let test = TestPool::new(6, 0);
    let held = test.get("holder");
    test.resize(2, 0).unwrap();
    let mut attempts: Vec<_> = (0..6).map(|_| test.checkout("further")).collect();
    let mut served = Vec::new();
    poll_woken(&mut attempts, |_, result| served.push(result.unwrap()));
    let snapshot = test.snapshot();
    assert_eq!((served.len(), snapshot.queued, test.backend.opened()), (1, 5, 2));
    assert!(snapshot.waiters.iter().all(|waiter| waiter.phase == Phase::Queue));
    test.resize(6, 0).unwrap();
    poll_woken(&mut attempts, |_, result| served.push(result.unwrap()));
    assert_eq!((served.len(), test.backend.live(), test.snapshot().queued), (5, 6, 1));
    drop((held, served, attempts));
    test.assert_usable();
    for (pool_size, max_overflow) in [(1, 0), (3, 2), (2, 0), (7, 1), (1, 1), (4, 0)] {
        test.resize(pool_size, max_overflow).unwrap();
        test.assert_usable();
    }
}

#[tokio::test(start_paused = true)]
async fn places_of_discarded_connections_are_withheld() {
    let test = TestPool::new(4, 0);
    let held = test.get_many("holder", 4);
    let first = test.checkout("waiter").assert_pending();
    test.resize(1, 0).unwrap();
    held.into_iter().for_each(|connection| connection.discard());
    let mut waiting = vec![first, test.checkout("waiter")];
    let mut served = Vec::new();
    poll_woken(&mut waiting, |_, result| served.push(result.unwrap()));
    assert_eq!((served.len(), test.backend.live(), test.backend.opened()), (1, 1, 5));
    drop((served, waiting));
    test.assert_usable();
}

/// A checkout that comes after another was woken, and before that is polled, waits behind it, but not for the next pause.
#[tokio::test(start_paused = true)]
async fn checkout_behind_a_woken_one_has_a_place() {
    let test = TestPool::new(1, 0);
    test.backend.set_end(Behavior::Blocked);
    for connection in test.get_many("holder", 1) {
        connection.mark_executing();
        connection.discard();
    }
    test.backend.set_connect(Behavior::After(ms(100), Completion::Ok));
    let mut waiting = vec![test.checkout("waiter").assert_pending()];
    test.resize(2, 1).unwrap();
    waiting.push(test.checkout("waiter").assert_pending());
    poll_woken(&mut waiting, |_, result| drop(result.unwrap()));
    let connections = test.snapshot().connections;
    assert_eq!((connections.creating, connections.closing), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn connection_that_was_being_opened_is_closed() {
    let test = TestPool::new(2, 0);
    test.backend.set_connect(Behavior::After(ms(100), Completion::Ok));
    let held = test.checkout("holder").assert_pending();
    let connecting = test.checkout("waiter").assert_pending();
    test.resize(1, 0).unwrap();
    assert_eq!(test.snapshot().connections.creating, 2, "an attempt that has begun ends by itself");
    drop(connecting);
    test.advance(ms(150)).await;
    test.run_detached().await;
    let mut holders = vec![held];
    poll_woken(&mut holders, |_, result| drop(result.unwrap()));
    assert_eq!((test.snapshot().connections.live(), test.closed(CloseReason::Resized)), (1, 1));
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn places_of_closing_connections_are_withheld() {
    let test = TestPool::new(3, 0);
    test.backend.set_end(Behavior::Blocked);
    let held = test.get_many("holder", 3);
    for connection in held {
        connection.mark_executing();
        connection.discard();
    }
    test.resize(1, 0).unwrap();
    assert_eq!(test.snapshot().connections.closing, 3);
    let mut waiting = vec![test.checkout("waiter").assert_pending(), test.checkout("waiter").assert_pending()];
    assert_eq!(test.backend.opened(), 3);
    // The tasks begin that wait for the server.
    test.run_detached().await;
    test.release_all(Completion::Ok).await;
    test.advance(ms(800)).await;
    let mut served = Vec::new();
    poll_woken(&mut waiting, |_, result| served.push(result.unwrap()));
    assert_eq!((served.len(), test.snapshot().connections.live()), (1, 1));
    drop((served, waiting));
    test.backend.recover();
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn invalid_sizes_change_nothing() {
    let mut settings = settings(5, 1);
    settings.min_idle = 3;
    let test = TestPool::with(&settings);
    for (pool_size, max_overflow, named) in [(0, 0, "pool_size"), (2, 5, "min_idle"), (4, 10_001, "max_overflow")] {
        let error = test.resize(pool_size, max_overflow).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
    assert_eq!(test.pool.status().max, 6);
    test.pool.close().await;
    test.resize(9, 0).unwrap();
    assert_eq!(test.pool.status().max, 6, "a closed pool stays as it is");
}

#[test]
fn no_connection_is_opened_beyond_the_current_maximum() {
    const DURATION: Duration = ms(1500);
    let mut settings = Settings::default();
    (settings.pool_size, settings.max_overflow) = (4, 0);
    settings.checkout_timeout = ms(5000);
    let backend = ScriptedBackend::default();
    let pool = Pool::new(backend.clone(), "resized", &settings, &Collector::new()).unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let end = Instant::now() + DURATION;
    for caller in 0..24 {
        let (pool, served) = (pool.clone(), Arc::clone(&served));
        runtime.spawn(async move {
            while Instant::now() < end {
                let connection = pool.get().await.unwrap();
                served.fetch_add(1, SeqCst);
                if caller % 3 == 0 {
                    tokio::time::sleep(Duration::from_micros(fastrand::u64(0..500))).await;
                } else {
                    tokio::task::yield_now().await;
                }
                if caller == 0 {
                    connection.discard();
                }
            }
        });
    }
    let mut before = pool.snapshot();
    while Instant::now() < end {
        let (pool_size, max_overflow) = (fastrand::usize(1..8), fastrand::usize(0..4));
        pool.resize(pool_size, max_overflow).unwrap();
        let mut live = usize::MAX;
        let until = Instant::now() + ms(fastrand::u64(0..4));
        while Instant::now() < until {
            let after = pool.snapshot();
            // Beyond the maximum, the number only decreases.
            invariants::check_resized(&after, live);
            invariants::check_monotonic(&before, &after);
            live = after.connections.live();
            before = after;
        }
    }
    assert!(served.load(SeqCst) > 100, "{served:?}");
    pool.resize(3, 0).unwrap();
    // Every checkout is served, so that no place was lost.
    runtime.block_on(async {
        while pool.status().in_flight > 0 || pool.status().used > 0 {
            tokio::time::sleep(ms(1)).await;
        }
        let held = [pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap()];
        assert!(tokio::time::timeout(ms(50), pool.get()).await.is_err());
        drop(held);
    });
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.connections.live(), backend.live()), (3, 3));
    let failed: u64 = snapshot.operations.iter().map(|totals| totals.outcomes[Outcome::Timeout.index()]).sum();
    assert_eq!(failed, 0);
}
