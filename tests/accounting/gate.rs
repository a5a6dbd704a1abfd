//! Which checkouts may connect after connecting failed, and after it succeeds again.

use std::error::Error;
use std::time::Duration;

use poolscope::error::CheckoutError;
use poolscope::labels::{ConnectFailure, Outcome, Phase};

use super::backend::{Behavior, Completion};
use super::harness::{CheckoutResult, ManualFuture, TestPool, ms, poll_woken, settings};

/// At least the longest pause between attempts to connect.
const MAX_BACKOFF: Duration = ms(1000);

/// Returns a pool whose checkouts wait while the server is down.
fn pool_without_fail_fast(pool_size: usize) -> TestPool {
    let mut settings = settings(pool_size, 0);
    settings.fail_fast = false;
    settings.checkout_timeout = ms(30_000);
    TestPool::with(&settings)
}

fn is_unavailable(result: &CheckoutResult) -> bool {
    matches!(result, Err(CheckoutError::Unavailable { .. }))
}

/// Polls woken futures. Returns how many completed.
fn poll_served(attempts: &mut Vec<ManualFuture>, held: &mut Vec<super::harness::TestGuard>) -> usize {
    let before = held.len();
    poll_woken(attempts, |_, result| held.push(result.expect("a connection")));
    held.len() - before
}

/// After a failed connect one checkout probes after a pause; all others fail at once.
#[tokio::test(start_paused = true)]
async fn after_failure_only_one_probes_and_others_fail() {
    let test = TestPool::new(10, 0);
    test.backend.set_connect(Behavior::Down);
    let error = test.checkout("first").poll().unwrap().unwrap_err();
    assert!(matches!(error, CheckoutError::Connect { .. }), "{error:?}");
    for _ in 0..20 {
        let error = test.checkout("others").poll().unwrap().unwrap_err();
        let CheckoutError::Unavailable { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!((source.code.as_str(), &*source.message), ("57P03", "the scripted failure"));
        let expected = "pool `test` cannot connect now: connecting has been failing for 0s: the scripted failure";
        assert_eq!((error.to_string().as_str(), error.source().is_none()), (expected, true));
    }
    assert_eq!(test.backend.creates().started(), 1);
    assert_eq!(test.outcomes("others", Outcome::Error), 20);
    test.advance(ms(50)).await;
    let probes = test.checkout("next").poll().unwrap().unwrap_err();
    assert!(matches!(probes, CheckoutError::Connect { .. }), "{probes:?}");
    assert!(is_unavailable(&test.checkout("others").poll().unwrap()));
    assert_eq!(test.backend.creates().started(), 2);
}

/// A server that is down is probed about twice a second, and the length of the outage is reported.
#[tokio::test(start_paused = true)]
async fn down_server_is_probed_about_twice_a_second() {
    let test = TestPool::new(10, 0);
    test.backend.set_connect(Behavior::Down);
    for _ in 0..1000 {
        assert!(test.checkout("checkout").poll().unwrap().is_err());
        test.advance(ms(10)).await;
    }
    // Pauses of 50, 100, 200 and 400 ms at most, then 800 ms each; all at least half of that.
    let probes = test.backend.creates().started();
    assert!((15..=30).contains(&probes), "{probes}");
    assert_eq!(test.snapshot().connecting_suspended, ms(10_000));
    test.backend.recover();
    test.advance(MAX_BACKOFF).await;
    drop(test.get("served"));
    assert_eq!(test.snapshot().connecting_suspended, Duration::ZERO);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_after_successful_probe() {
    let test = pool_without_fail_fast(3);
    test.backend.set_connect(Behavior::Down);
    let mut attempts: Vec<_> = (0..3).map(|_| test.checkout("waits").assert_pending()).collect();
    let mut held = Vec::new();
    for _ in 0..50 {
        test.advance(ms(100)).await;
        assert_eq!(poll_served(&mut attempts, &mut held), 0);
        assert_eq!(test.backend.creates().running(), 0);
    }
    let probes = test.backend.creates().started();
    assert!((9..=18).contains(&probes), "one at a time: {probes}");
    assert_eq!((test.phase(Phase::Suspended), test.phase(Phase::Queue)), (ms(15_000), ms(0)));
    test.backend.recover();
    test.advance(MAX_BACKOFF).await;
    assert_eq!(poll_served(&mut attempts, &mut held), 3);
    drop(held);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn recovery_doubles_concurrent_connects() {
    let test = pool_without_fail_fast(15);
    test.backend.set_connect(Behavior::Down);
    let mut attempts: Vec<_> = (0..15).map(|_| test.checkout("waits").assert_pending()).collect();
    test.backend.set_connect(Behavior::Blocked);
    test.advance(MAX_BACKOFF).await;
    let mut held = Vec::new();
    for at_once in [1, 2, 4, 8] {
        poll_served(&mut attempts, &mut held);
        assert_eq!(test.backend.blocked(), at_once, "{} connected", held.len());
        for left in (0..at_once).rev() {
            test.backend.release(left, Completion::Ok);
        }
    }
    poll_served(&mut attempts, &mut held);
    assert_eq!((held.len(), test.backend.blocked()), (15, 0));
}

#[tokio::test(start_paused = true)]
async fn failure_during_ramp_suspends_again() {
    let test = TestPool::new(5, 0);
    test.backend.push_connect(Behavior::Down);
    assert!(test.checkout("first").poll().unwrap().is_err());
    test.advance(ms(50)).await;
    let held = test.get("second");
    test.backend.set_connect(Behavior::Down);
    assert!(!is_unavailable(&test.checkout("third").poll().unwrap()));
    assert!(is_unavailable(&test.checkout("fourth").poll().unwrap()));
    drop(held);
    // Idle connections are still given out.
    drop(test.get("fifth"));
}

/// A probe goes on after its checkout was dropped: the others wait for it, and get its connection.
#[tokio::test(start_paused = true)]
async fn dropped_probe_goes_on() {
    let test = pool_without_fail_fast(3);
    test.backend.set_connect(Behavior::Down);
    let mut attempts: Vec<_> = (0..3).map(|_| test.checkout("waits").assert_pending()).collect();
    test.backend.set_connect(Behavior::Blocked);
    test.advance(MAX_BACKOFF).await;
    let mut held = Vec::new();
    poll_served(&mut attempts, &mut held);
    assert_eq!(test.backend.blocked(), 1);
    // The probing checkout was polled first.
    drop(attempts.remove(0));
    assert_eq!(test.backend.blocked(), 1);
    assert_eq!(poll_served(&mut attempts, &mut held), 0);
    test.backend.recover();
    test.release_all(Completion::Ok).await;
    assert_eq!(poll_served(&mut attempts, &mut held), 2, "without another pause");
    assert_eq!((test.outcomes("waits", Outcome::Cancelled), test.backend.opened()), (1, 3));
    drop(held);
    test.assert_usable();
}

/// Checkouts wait for a full server as they wait for capacity, and get connections that are returned.
#[tokio::test(start_paused = true)]
async fn full_server_is_awaited_like_capacity() {
    let test = TestPool::new(10, 0);
    let held = test.get_many("holder", 2);
    test.backend.set_connect(Behavior::Full);
    let mut attempts: Vec<_> = (0..4).map(|_| test.checkout("waits").assert_pending()).collect();
    assert_eq!(test.backend.creates().started(), 3, "one attempt was made");
    let status = test.pool.status();
    assert_eq!((status.waiting, status.used, status.idle), (4, 2, 0));
    let mut served = Vec::new();
    drop(held);
    assert_eq!(poll_served(&mut attempts, &mut served), 2);
    test.advance(ms(10)).await;
    assert_eq!(poll_served(&mut attempts, &mut served), 0);
    // First come, first served.
    drop(served);
    let mut late = test.checkout("late").assert_pending();
    let mut served = Vec::new();
    assert_eq!(poll_served(&mut attempts, &mut served), 2);
    assert!(late.poll().is_none());
    drop(served);
    drop(late.poll().unwrap().unwrap());
    test.backend.recover();
    test.advance(MAX_BACKOFF).await;
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn full_server_fails_if_nothing_is_checked_out() {
    let test = TestPool::new(10, 0);
    test.backend.set_connect(Behavior::Full);
    assert!(matches!(test.checkout("first").poll(), Some(Err(CheckoutError::Connect { .. }))));
    assert!(is_unavailable(&test.checkout("second").poll().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn suspended_checkout_times_out_with_the_cause() {
    let test = pool_without_fail_fast(2);
    test.backend.set_connect(Behavior::Down);
    let mut waits = test.checkout("waits").assert_pending();
    test.advance(ms(30_000)).await;
    let error = waits.poll().unwrap().unwrap_err();
    let CheckoutError::Timeout(report) = &error else { panic!("{error:?}") };
    assert_eq!((report.phase, report.backoff.as_ref().unwrap().code.as_str()), (Phase::Suspended, "57P03"));
    assert!(error.to_string().ends_with("; connecting has been failing for 30s: the scripted failure"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn closing_ends_suspended_waits() {
    let test = pool_without_fail_fast(2);
    test.backend.set_connect(Behavior::Down);
    let mut attempts = vec![test.checkout("waits").assert_pending(), test.checkout("waits").assert_pending()];
    let mut closing = ManualFuture::new({
        let pool = test.pool.clone();
        async move { pool.close().await }
    });
    assert!(closing.poll().is_none());
    let mut ended = 0;
    poll_woken(&mut attempts, |_, result| ended += usize::from(matches!(result, Err(CheckoutError::Closed { .. }))));
    assert_eq!((ended, attempts.len()), (2, 0));
    assert!(closing.poll().is_some());
}

#[tokio::test(start_paused = true)]
async fn transient_failure_does_not_suspend() {
    let test = TestPool::new(5, 0);
    test.backend.set_connect(Behavior::Error);
    for _ in 0..5 {
        assert!(matches!(test.checkout("probes").poll(), Some(Err(CheckoutError::Connect { .. }))));
    }
    assert_eq!(test.backend.creates().started(), 5);
    assert_eq!(test.snapshot().connecting_suspended, Duration::ZERO);
}

/// One shortage on this host, such as a full accept queue, fails no checkout: neither its own nor, with `fail_fast`, any
/// other.
#[tokio::test(start_paused = true)]
async fn one_local_shortage_fails_no_checkout() {
    let test = TestPool::new(10, 0);
    test.backend.push_connect(Behavior::Short);
    let mut attempts: Vec<_> = (0..10).map(|_| test.checkout("checkout").assert_pending()).collect();
    assert_eq!(test.backend.creates().started(), 1, "the others wait for the pause as well");
    test.advance(ms(50)).await;
    let mut held = Vec::new();
    assert_eq!(poll_served(&mut attempts, &mut held), 10);
    assert_eq!(test.backend.creates().failed(), 1);
    assert_eq!(test.snapshot().connecting_suspended, Duration::ZERO);
    drop(held);
    test.assert_usable();
}

/// After a shortage on this host half as many checkouts connect at once.
#[tokio::test(start_paused = true)]
async fn local_shortage_halves_concurrent_connects() {
    let test = pool_without_fail_fast(15);
    test.backend.set_connect(Behavior::Blocked);
    let mut attempts: Vec<_> = (0..8).map(|_| test.checkout("checkout").assert_pending()).collect();
    test.backend.release(0, Completion::Short);
    for _ in 0..7 {
        test.backend.release(0, Completion::Ok);
    }
    let mut held = Vec::new();
    assert_eq!(poll_served(&mut attempts, &mut held), 7);
    // Seven successes later, at most eleven may connect; all that want to do.
    test.advance(ms(50)).await;
    assert_eq!(poll_served(&mut attempts, &mut held), 0);
    assert_eq!(test.backend.blocked(), 1);
    let more: Vec<_> = (0..7).map(|_| test.checkout("more").assert_pending()).collect();
    assert_eq!(test.backend.blocked(), 8);
    // All fail together.
    for _ in 0..8 {
        test.backend.release(0, Completion::Short);
    }
    attempts.extend(more);
    assert_eq!(poll_served(&mut attempts, &mut held), 0);
    test.advance(ms(50)).await;
    poll_served(&mut attempts, &mut held);
    assert_eq!(test.backend.blocked(), 1, "halved eight times");
}

/// If every connect fails for a shortage, connecting is suspended after a second, and reports it.
#[tokio::test(start_paused = true)]
async fn lasting_local_shortage_suspends_connecting() {
    let mut settings = settings(10, 0);
    settings.checkout_timeout = ms(10_000);
    let test = TestPool::with(&settings);
    test.backend.set_connect(Behavior::Short);
    let mut attempts = vec![test.checkout("first").assert_pending()];
    // It is reported to the checkout that meets it.
    while !attempts.is_empty() {
        test.advance(ms(10)).await;
        assert!(test.now() < 1_100_000_000, "no suspension");
        poll_woken(&mut attempts, |_, result| assert!(result.is_err()));
    }
    let tries = test.backend.creates().started();
    assert!((10..=45).contains(&tries), "{tries} within a second");
    let error = test.checkout("others").poll().unwrap().unwrap_err();
    let CheckoutError::Unavailable { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.failure, ConnectFailure::LocalResource);
    assert!(source.failing_for >= ms(1000), "{source:?}");
    test.backend.recover();
    test.advance(MAX_BACKOFF).await;
    test.assert_usable();
}

/// A shortage does not turn a full server, at which checkouts wait for returned connections, into one that is down.
#[tokio::test(start_paused = true)]
async fn local_shortage_changes_no_outage() {
    let test = TestPool::new(10, 0);
    let held = test.get_many("holder", 2);
    test.backend.push_connect(Behavior::Full);
    test.backend.set_connect(Behavior::Short);
    let mut attempts = vec![test.checkout("waits").assert_pending()];
    test.advance(ms(50)).await;
    let mut served = Vec::new();
    assert_eq!(poll_served(&mut attempts, &mut served), 0);
    assert_eq!(test.backend.creates().started(), 4);
    assert!(test.checkout("waits").poll().is_none());
    drop(held);
    assert_eq!(poll_served(&mut attempts, &mut served), 1);
}

/// Wrong credentials or a wrong configuration are tried rarely, and reported as such.
#[tokio::test(start_paused = true)]
async fn wrong_configuration_is_tried_rarely() {
    let test = TestPool::new(10, 0);
    test.backend.set_connect(Behavior::Misconfigured);
    assert!(matches!(test.checkout("first").poll(), Some(Err(CheckoutError::Connect { .. }))));
    for _ in 0..600 {
        test.advance(ms(100)).await;
        let error = test.checkout("checkout").poll().unwrap().unwrap_err();
        if let CheckoutError::Unavailable { source, .. } = &error {
            assert_eq!(source.failure, ConnectFailure::Configuration);
            let text = source.to_string();
            assert!(text.contains(" because of the credentials or the configuration: "), "{text}");
        }
    }
    // Pauses of up to 1, 2, 4 and 8 s, then 10 s; all at least half of that.
    let tries = test.backend.creates().started();
    assert!((8..=18).contains(&tries), "{tries} in a minute");
    test.backend.recover();
    test.advance(ms(10_000)).await;
    test.assert_usable();
}

/// The pauses follow the kind of the last failure.
#[tokio::test(start_paused = true)]
async fn pauses_shorten_when_the_failure_changes() {
    let test = TestPool::new(10, 0);
    test.backend.set_connect(Behavior::Misconfigured);
    for _ in 0..3 {
        let _ = test.checkout("checkout").poll();
        test.advance(ms(10_000)).await;
    }
    test.backend.set_connect(Behavior::Down);
    assert!(!is_unavailable(&test.checkout("probe").poll().unwrap()));
    test.advance(ms(800)).await;
    assert!(!is_unavailable(&test.checkout("probe").poll().unwrap()));
}

/// A connection that is closing and the probe take all places: a checkout that could not connect anyway fails at once.
#[tokio::test(start_paused = true)]
async fn checkout_without_a_place_fails_at_once() {
    let test = TestPool::new(2, 0);
    test.backend.set_end(Behavior::Blocked);
    let held = test.get("abandons");
    test.backend.set_connect(Behavior::Down);
    assert!(test.checkout("first").poll().unwrap().is_err());
    test.advance(ms(50)).await;
    test.backend.set_connect(Behavior::Blocked);
    let _probe = test.checkout("probes").assert_pending();
    held.mark_executing();
    held.discard();
    let status = test.pool.status();
    assert_eq!((status.closing, status.creating), (1, 1));
    assert!(is_unavailable(&test.checkout("others").poll().unwrap()));
}
