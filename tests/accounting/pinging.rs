//! When a connection is pinged, when it is replaced, and what one failure says of the others.

use std::time::Duration;

use poolscope::labels::{CloseReason, ErrorPhase};

use super::backend::{Answer, End};
use super::harness::{Rig, ms, settings};

#[tokio::test(start_paused = true)]
async fn a_connection_is_pinged_only_when_it_was_not_seen_alive_lately() {
    let rig = Rig::new(1, 0);
    drop(rig.take("fresh"));
    assert_eq!(rig.backend.pings().begun(), 0, "a new one never is");
    rig.advance(ms(499)).await;
    let held = rig.take("recent");
    assert_eq!(rig.backend.pings().begun(), 0);
    // Its return counts, not when it was given out.
    rig.advance(ms(2000)).await;
    drop(held);
    rig.advance(ms(499)).await;
    drop(rig.take("recent"));
    assert_eq!(rig.backend.pings().begun(), 0);
    rig.advance(ms(500)).await;
    drop(rig.take("stale"));
    assert_eq!(rig.backend.pings().begun(), 1);
    assert_eq!(rig.backend.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_pre_ping_nothing_is_pinged_and_with_zero_idle_time_everything_is() {
    for (pre_ping, pings) in [(false, 0), (true, 3)] {
        let mut settings = settings(1, 0);
        settings.pre_ping = pre_ping;
        settings.pre_ping_idle = Duration::ZERO;
        let rig = Rig::with(&settings);
        drop(rig.take("first"));
        for _ in 0..3 {
            drop(rig.take("again"));
        }
        assert_eq!(rig.backend.pings().begun(), pings);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_ping_invalidates_all_that_are_older_without_pinging_them_one_by_one() {
    let rig = Rig::new(4, 0);
    let mut held = rig.take_many("first", 4);
    let kept = held.remove(0);
    drop(held);
    rig.advance(ms(600)).await;
    rig.backend.answers_pings(Answer::Error);
    let replaced = rig.take("second");
    assert_eq!(rig.backend.pings().begun(), 1);
    assert_eq!(rig.backend.opened(), 5);
    assert_eq!((rig.closed(CloseReason::PingFailed), rig.closed(CloseReason::Invalidated)), (1, 2));
    let errors = rig.snapshot().errors;
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].phase, errors[0].code.as_str(), errors[0].count), (ErrorPhase::Ping, "57P03", 1));

    // The new one is younger, and good; what was out at the time is not given to another.
    rig.backend.recovers();
    let (young, old) = (replaced.id(), kept.id());
    drop((kept, replaced));
    let (one, two) = (rig.take("third"), rig.take("third"));
    assert!([one.id(), two.id()].contains(&young));
    assert!(![one.id(), two.id()].contains(&old));
    assert_eq!(rig.closed(CloseReason::Invalidated), 3);
}

#[tokio::test(start_paused = true)]
async fn a_ping_without_an_answer_is_a_failed_one_after_the_ping_timeout() {
    let rig = Rig::new(2, 0);
    drop(rig.take_many("first", 2));
    rig.advance(ms(500)).await;
    rig.backend.answers_pings(Answer::Held);
    let mut attempt = rig.checkout("second").stays();
    rig.advance(ms(302)).await;
    drop(attempt.poll().unwrap().unwrap());
    assert_eq!((rig.closed(CloseReason::PingFailed), rig.closed(CloseReason::Invalidated)), (1, 1));
    let errors = rig.snapshot().errors;
    assert_eq!((errors[0].phase, errors[0].code.as_str(), errors[0].count), (ErrorPhase::Ping, "timeout", 1));
    rig.backend.recovers();
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_ping_says_nothing_of_the_others() {
    let rig = Rig::new(2, 0);
    drop(rig.take_many("first", 2));
    rig.advance(ms(500)).await;
    rig.backend.answers_pings(Answer::Held);
    drop(rig.checkout("second").stays());
    assert_eq!((rig.closed(CloseReason::PingAbandoned), rig.snapshot().connections.idle), (1, 1));
    rig.backend.recovers();
    drop(rig.take("third"));
    assert_eq!(rig.closed(CloseReason::Invalidated), 0);
    assert!(rig.snapshot().errors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_panics_closes_its_connection_alone() {
    let rig = Rig::new(2, 0);
    drop(rig.take_many("first", 2));
    rig.advance(ms(500)).await;
    rig.backend.answers_pings(Answer::Slow(End::Panic));
    let mut attempt = rig.checkout("second").stays().stays();
    assert!(attempt.try_poll().is_err());
    drop(attempt);
    assert_eq!((rig.closed(CloseReason::PingAbandoned), rig.snapshot().connections.idle), (1, 1));
    rig.backend.recovers();
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn connections_are_replaced_at_an_age_of_nine_to_ten_tenths_and_not_all_at_once() {
    const MANY: u32 = 400;
    let mut settings = settings(MANY as usize, 0);
    settings.pre_ping = false;
    let rig = Rig::with(&settings);
    drop(rig.take_many("first", MANY as usize));
    // Only the pool's clock matters; a checkout of all of them finds who is too old.
    rig.advance_own(ms(9_000) - Duration::from_nanos(1));
    drop(rig.take_many("look", MANY as usize));
    assert_eq!(rig.closed(CloseReason::Recycled), 0, "none is replaced before nine tenths");
    let mut at_tenths = Vec::new();
    for _ in 0..10 {
        rig.advance_own(ms(100));
        drop(rig.take_many("look", MANY as usize));
        at_tenths.push(u32::try_from(rig.closed(CloseReason::Recycled)).unwrap());
    }
    rig.advance_own(Duration::from_nanos(1));
    drop(rig.take_many("look", MANY as usize));
    assert_eq!(rig.closed(CloseReason::Recycled), u64::from(MANY), "all are at ten tenths");
    // Spread evenly: six standard deviations of a binomial are allowed.
    for (tenths, replaced) in (1..).zip(at_tenths) {
        let expected = f64::from(MANY * tenths) / 10.0;
        let deviation = (expected * (1.0 - f64::from(tenths) / 10.0)).sqrt();
        let off = (f64::from(replaced) - expected).abs();
        assert!(off <= 6.0 * deviation + 1.0, "{replaced} of {MANY} replaced after {tenths} tenths of the spread");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_gets_too_old_is_kept() {
    let mut settings = settings(1, 0);
    settings.recycle_after = None;
    let rig = Rig::with(&settings);
    drop(rig.take("first"));
    rig.advance(Duration::from_secs(365 * 24 * 3600)).await;
    drop(rig.take("second"));
    assert_eq!((rig.backend.opened(), rig.backend.pings().begun()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn age_is_checked_at_checkout_and_not_while_a_connection_is_held() {
    let rig = Rig::new(1, 0);
    let held = rig.take("long");
    rig.advance(ms(20_000)).await;
    drop(held);
    assert_eq!(rig.snapshot().connections.idle, 1);
    drop(rig.take("next"));
    assert_eq!((rig.closed(CloseReason::Recycled), rig.backend.pings().begun()), (1, 0), "nor is it pinged first");
}

#[tokio::test(start_paused = true)]
async fn a_connection_known_to_be_broken_is_neither_given_out_nor_taken_back() {
    let rig = Rig::new(2, 0);
    let held = rig.take_many("first", 2);
    held[0].break_it();
    drop(held);
    assert_eq!((rig.closed(CloseReason::Broken), rig.snapshot().connections.idle), (1, 1));
    rig.backend.break_one(0);
    let held = rig.take("second");
    assert_eq!((rig.closed(CloseReason::Broken), held.id()), (2, 2));
}
