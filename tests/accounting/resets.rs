//! Checkouts while connections are reset after their return.

use std::time::Duration;

use poolscope::labels::Outcome;
use tokio::time::{Instant, timeout};

use super::backend::{Behavior, Completion};
use super::harness::{TestGuard, TestPool, ms, settings};

fn resetting(pool_size: usize, max_overflow: usize, behavior: Behavior) -> TestPool {
    let mut settings = settings(pool_size, max_overflow);
    settings.reset_session = true;
    let test = TestPool::with(&settings);
    test.backend.set_reset(behavior);
    test
}

async fn get(test: &TestPool) -> TestGuard {
    timeout(ms(2000), test.pool.operation("next").get()).await.expect("a connection in time").unwrap()
}

async fn timed_get(test: &TestPool) -> (TestGuard, Duration) {
    let started = Instant::now();
    let guard = get(test).await;
    (guard, started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn checkout_awaits_a_reset_before_it_connects() {
    let test = resetting(1, 5, Behavior::After(ms(50), Completion::Ok));
    for _ in 0..10 {
        let (guard, took) = timed_get(&test).await;
        assert!(took <= ms(52), "{took:?}");
        drop(guard);
    }
    assert_eq!(test.backend.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn wait_for_a_reset_is_bounded() {
    let test = resetting(1, 5, Behavior::Blocked);
    drop(get(&test).await);
    let (guard, took) = timed_get(&test).await;
    assert_eq!((test.backend.opened(), guard.id()), (2, 1));
    assert!(took >= ms(100) && took <= ms(102), "{took:?}");
}

/// One reset serves one checkout: others connect at once.
#[tokio::test(start_paused = true)]
async fn no_more_checkouts_wait_than_resets_are_under_way() {
    let test = resetting(2, 5, Behavior::Blocked);
    let held = (get(&test).await, get(&test).await);
    drop(held);
    tokio::task::yield_now().await;
    let waiting = (test.checkout("next").assert_pending(), test.checkout("next").assert_pending());
    assert_eq!(test.backend.opened(), 2);
    let (guard, took) = timed_get(&test).await;
    assert_eq!((guard.id(), took), (2, Duration::ZERO));
    drop(waiting);
    assert_eq!(test.pool.status().waiting, 0);
}

/// The end of a reset that nobody awaited does not end the wait for the next one.
#[tokio::test(start_paused = true)]
async fn unawaited_end_of_a_reset_is_not_kept() {
    let test = resetting(1, 5, Behavior::After(ms(10), Completion::Ok));
    drop(get(&test).await);
    let left = test.checkout("leaves").assert_pending();
    drop(left);
    tokio::time::sleep(ms(20)).await;
    drop(get(&test).await);
    drop(get(&test).await);
    assert_eq!(test.backend.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn checkout_connects_when_the_awaited_reset_fails() {
    let test = resetting(1, 5, Behavior::After(ms(10), Completion::Error));
    drop(get(&test).await);
    let (guard, took) = timed_get(&test).await;
    assert_eq!((test.backend.opened(), guard.id()), (2, 1));
    assert!(took >= ms(10) && took <= ms(12), "{took:?}");
    drop(guard);
}

#[tokio::test(start_paused = true)]
async fn checkout_that_awaits_a_reset_keeps_its_deadline() {
    let mut settings = settings(1, 5);
    settings.reset_session = true;
    settings.checkout_timeout = ms(40);
    settings.wait_target = ms(40);
    let test = TestPool::with(&settings);
    test.backend.set_reset(Behavior::Blocked);
    drop(get(&test).await);
    let error = test.pool.operation("next").get().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Timeout);
    assert!(error.to_string().contains("while resetting one"), "{error}");
}
