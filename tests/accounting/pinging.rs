//! When a connection is pinged, when it is replaced, and what one failed ping implies for the others.

use std::time::Duration;

use poolscope::labels::{CloseReason, ErrorPhase};

use super::backend::{Behavior, Completion};
use super::harness::{TestPool, ms, settings};

#[tokio::test(start_paused = true)]
async fn only_stale_connections_are_pinged() {
    let test = TestPool::new(1, 0);
    drop(test.get("fresh"));
    assert_eq!(test.backend.pings().started(), 0, "a new connection is not pinged");
    test.advance(ms(499)).await;
    let held = test.get("recent");
    assert_eq!(test.backend.pings().started(), 0);
    // Its return counts, not its checkout.
    test.advance(ms(2000)).await;
    drop(held);
    test.advance(ms(499)).await;
    drop(test.get("recent"));
    assert_eq!(test.backend.pings().started(), 0);
    test.advance(ms(500)).await;
    drop(test.get("stale"));
    assert_eq!(test.backend.pings().started(), 1);
    assert_eq!(test.backend.opened(), 1);
}

/// Without `pre_ping` nothing is pinged; with a `pre_ping_idle` of zero every checkout pings.
#[tokio::test(start_paused = true)]
async fn pre_ping_settings_are_respected() {
    for (pre_ping, pings) in [(false, 0), (true, 3)] {
        let mut settings = settings(1, 0);
        settings.pre_ping = pre_ping;
        settings.pre_ping_idle = Duration::ZERO;
        let test = TestPool::with(&settings);
        drop(test.get("first"));
        for _ in 0..3 {
            drop(test.get("again"));
        }
        assert_eq!(test.backend.pings().started(), pings);
    }
}

/// A failed ping invalidates all older connections, without pinging each of them.
#[tokio::test(start_paused = true)]
async fn failed_ping_invalidates_older_connections() {
    let test = TestPool::new(4, 0);
    let mut held = test.get_many("first", 4);
    let kept = held.remove(0);
    drop(held);
    test.advance(ms(600)).await;
    test.backend.set_ping(Behavior::Error);
    let replaced = test.get("second");
    assert_eq!(test.backend.pings().started(), 1);
    assert_eq!(test.backend.opened(), 5);
    assert_eq!((test.closed(CloseReason::PingFailed), test.closed(CloseReason::Invalidated)), (1, 2));
    let errors = test.snapshot().errors;
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].phase, errors[0].code.as_str(), errors[0].count), (ErrorPhase::Ping, "57P03", 1));

    // The new connection is younger, so it stays; the one in use meanwhile is not given out again.
    test.backend.recover();
    let (young, old) = (replaced.id(), kept.id());
    drop((kept, replaced));
    let (one, two) = (test.get("third"), test.get("third"));
    assert!([one.id(), two.id()].contains(&young));
    assert!(![one.id(), two.id()].contains(&old));
    assert_eq!(test.closed(CloseReason::Invalidated), 3);
}

#[tokio::test(start_paused = true)]
async fn unanswered_ping_fails_after_ping_timeout() {
    let test = TestPool::new(2, 0);
    drop(test.get_many("first", 2));
    test.advance(ms(500)).await;
    test.backend.set_ping(Behavior::Blocked);
    let mut attempt = test.checkout("second").assert_pending();
    test.advance(ms(302)).await;
    drop(attempt.poll().unwrap().unwrap());
    assert_eq!((test.closed(CloseReason::PingFailed), test.closed(CloseReason::Invalidated)), (1, 1));
    let errors = test.snapshot().errors;
    assert_eq!((errors[0].phase, errors[0].code.as_str(), errors[0].count), (ErrorPhase::Ping, "timeout", 1));
    test.backend.recover();
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn abandoned_ping_invalidates_no_others() {
    let test = TestPool::new(2, 0);
    drop(test.get_many("first", 2));
    test.advance(ms(500)).await;
    test.backend.set_ping(Behavior::Blocked);
    drop(test.checkout("second").assert_pending());
    assert_eq!((test.closed(CloseReason::PingAbandoned), test.snapshot().connections.idle), (1, 1));
    test.backend.recover();
    drop(test.get("third"));
    assert_eq!(test.closed(CloseReason::Invalidated), 0);
    assert!(test.snapshot().errors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn panicking_ping_closes_only_its_connection() {
    let test = TestPool::new(2, 0);
    drop(test.get_many("first", 2));
    test.advance(ms(500)).await;
    test.backend.set_ping(Behavior::Slow(Completion::Panic));
    let mut attempt = test.checkout("second").assert_pending().assert_pending();
    assert!(attempt.try_poll().is_err());
    drop(attempt);
    assert_eq!((test.closed(CloseReason::PingAbandoned), test.snapshot().connections.idle), (1, 1));
    test.backend.recover();
    test.assert_usable();
}

/// Connections are replaced at 90 to 100 % of `recycle_after`, evenly spread, not all at once.
#[tokio::test(start_paused = true)]
async fn recycling_is_spread_over_the_last_tenth() {
    const MANY: u32 = 400;
    let mut settings = settings(MANY as usize, 0);
    settings.pre_ping = false;
    let test = TestPool::with(&settings);
    drop(test.get_many("first", MANY as usize));
    // Only the pool's clock matters; checking out all connections finds those past their age.
    test.advance_pool_clock(ms(9_000) - Duration::from_nanos(1));
    drop(test.get_many("look", MANY as usize));
    assert_eq!(test.closed(CloseReason::Recycled), 0, "none is replaced before 90 %");
    let mut at_tenths = Vec::new();
    for _ in 0..10 {
        test.advance_pool_clock(ms(100));
        drop(test.get_many("look", MANY as usize));
        at_tenths.push(u32::try_from(test.closed(CloseReason::Recycled)).unwrap());
    }
    test.advance_pool_clock(Duration::from_nanos(1));
    drop(test.get_many("look", MANY as usize));
    assert_eq!(test.closed(CloseReason::Recycled), u64::from(MANY), "all are replaced at 100 %");
    // Evenly spread: six standard deviations of a binomial are allowed.
    for (tenths, replaced) in (1..).zip(at_tenths) {
        let expected = f64::from(MANY * tenths) / 10.0;
        let deviation = (expected * (1.0 - f64::from(tenths) / 10.0)).sqrt();
        let error = (f64::from(replaced) - expected).abs();
        assert!(error <= 6.0 * deviation + 1.0, "{replaced} of {MANY} replaced after {tenths} tenths of the spread");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_without_age_limit_are_kept() {
    let mut settings = settings(1, 0);
    settings.recycle_after = None;
    let test = TestPool::with(&settings);
    drop(test.get("first"));
    test.advance(Duration::from_secs(365 * 24 * 3600)).await;
    drop(test.get("second"));
    assert_eq!((test.backend.opened(), test.backend.pings().started()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn age_is_checked_only_at_checkout() {
    let test = TestPool::new(1, 0);
    let held = test.get("long");
    test.advance(ms(20_000)).await;
    drop(held);
    assert_eq!(test.snapshot().connections.idle, 1);
    drop(test.get("next"));
    assert_eq!((test.closed(CloseReason::Recycled), test.backend.pings().started()), (1, 0), "it is not pinged first");
}

#[tokio::test(start_paused = true)]
async fn broken_connections_are_never_reused() {
    let test = TestPool::new(2, 0);
    let held = test.get_many("first", 2);
    held[0].mark_broken();
    drop(held);
    assert_eq!((test.closed(CloseReason::Broken), test.snapshot().connections.idle), (1, 1));
    test.backend.break_connection(0);
    let held = test.get("second");
    assert_eq!((test.closed(CloseReason::Broken), held.id()), (2, 2));
}
