//! Connections that are closed because they are idle.

use poolscope::labels::CloseReason;

use super::harness::{TestPool, ms, settings};

fn pool(min_idle: usize) -> TestPool {
    let mut settings = settings(5, 2);
    (settings.idle_timeout, settings.min_idle) = (Some(ms(1000)), min_idle);
    TestPool::with(&settings)
}

/// Reads the pool as a scrape does. Returns the number of idle connections.
fn scrape(test: &TestPool) -> usize {
    drop(test.collector.snapshots());
    test.snapshot().connections.idle
}

#[tokio::test(start_paused = true)]
async fn idle_connections_above_min_idle_are_closed() {
    let test = pool(2);
    drop(test.get_many("before", 5));
    test.advance(ms(999)).await;
    assert_eq!(scrape(&test), 5);
    test.advance(ms(1)).await;
    assert_eq!(test.snapshot().connections.idle, 5, "reading the pool alone closes nothing");
    assert_eq!((scrape(&test), test.closed(CloseReason::IdleTimeout)), (2, 3));
    test.advance(ms(60_000)).await;
    assert_eq!(scrape(&test), 2);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn connections_that_the_load_needs_stay() {
    let test = pool(0);
    drop(test.get_many("before", 5));
    for _ in 0..6 {
        test.advance(ms(250)).await;
        drop(test.get_many("load", 2));
        let _ = scrape(&test);
    }
    assert_eq!((test.snapshot().connections.idle, test.closed(CloseReason::IdleTimeout)), (2, 3));
    assert_eq!(test.backend.opened(), 5, "none was closed that was needed again");
    let held = test.get("holder");
    test.advance(ms(5000)).await;
    assert_eq!(scrape(&test), 0);
    drop(held);
    assert_eq!(scrape(&test), 1, "a connection that was in use was not idle");
}

#[tokio::test(start_paused = true)]
async fn watch_applies_it() {
    let test = pool(1);
    drop(test.get_many("before", 3));
    let watching = tokio::spawn(test.pool.watch());
    tokio::task::yield_now().await;
    test.advance_pool_clock(ms(1500));
    tokio::time::sleep(ms(1100)).await;
    assert_eq!(test.snapshot().connections.idle, 1);
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn idle_connections_stay_by_default() {
    let test = TestPool::new(3, 0);
    drop(test.get_many("before", 3));
    test.advance(ms(3_600_000)).await;
    assert_eq!(scrape(&test), 3);
}
