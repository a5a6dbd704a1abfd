//! Who connects when connecting fails, and who does when it succeeds again.

use std::error::Error;
use std::time::Duration;

use poolscope::error::CheckoutError;
use poolscope::labels::{Outcome, Phase};

use super::backend::{Answer, End};
use super::harness::{Attempt, Got, Rig, ms, settings, settle};

/// As long as connecting ever pauses, and more.
const PAUSE: Duration = ms(1000);

/// A pool whose checkouts wait for a server that is away.
fn patient(pool_size: usize) -> Rig {
    let mut settings = settings(pool_size, 0);
    settings.fail_fast = false;
    settings.checkout_timeout = ms(30_000);
    Rig::with(&settings)
}

fn is_unavailable(got: &Got) -> bool {
    matches!(got, Err(CheckoutError::Unavailable { .. }))
}

/// Polls those that were woken; answers how many are done.
fn served(attempts: &mut Vec<Attempt>, held: &mut Vec<super::harness::Held>) -> usize {
    let before = held.len();
    settle(attempts, |_, got| held.push(got.expect("a connection")));
    held.len() - before
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_one_tries_after_a_pause_and_the_others_fail_at_once() {
    let rig = Rig::new(10, 0);
    rig.backend.connects(Answer::Down);
    let error = rig.checkout("first").poll().unwrap().unwrap_err();
    assert!(matches!(error, CheckoutError::Connect { .. }), "{error:?}");
    for _ in 0..20 {
        let error = rig.checkout("others").poll().unwrap().unwrap_err();
        let CheckoutError::Unavailable { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!((source.code.as_str(), &*source.message), ("57P03", "the scripted failure"));
        assert_eq!(error.to_string(), "pool `rig` cannot connect now");
        assert!(error.source().unwrap().to_string().starts_with("connecting has been failing for "), "{error:?}");
    }
    assert_eq!(rig.backend.creates().begun(), 1);
    assert_eq!(rig.outcomes("others", Outcome::Error), 20);
    rig.advance(ms(50)).await;
    let tries = rig.checkout("next").poll().unwrap().unwrap_err();
    assert!(matches!(tries, CheckoutError::Connect { .. }), "{tries:?}");
    assert!(is_unavailable(&rig.checkout("others").poll().unwrap()));
    assert_eq!(rig.backend.creates().begun(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_tried_some_two_times_a_second_and_for_how_long_is_told() {
    let rig = Rig::new(10, 0);
    rig.backend.connects(Answer::Down);
    for _ in 0..1000 {
        assert!(rig.checkout("asks").poll().unwrap().is_err());
        rig.advance(ms(10)).await;
    }
    // 50, 100, 200, 400 ms at most, and then 800 ms each, of all at least half.
    let tries = rig.backend.creates().begun();
    assert!((15..=30).contains(&tries), "{tries}");
    assert_eq!(rig.snapshot().connecting_suspended, ms(10_000));
    rig.backend.recovers();
    rig.advance(PAUSE).await;
    drop(rig.take("served"));
    assert_eq!(rig.snapshot().connecting_suspended, Duration::ZERO);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_server_that_is_away_is_served_when_one_has_tried_with_success() {
    let rig = patient(3);
    rig.backend.connects(Answer::Down);
    let mut attempts: Vec<_> = (0..3).map(|_| rig.checkout("waits").stays()).collect();
    let mut held = Vec::new();
    for _ in 0..50 {
        rig.advance(ms(100)).await;
        assert_eq!(served(&mut attempts, &mut held), 0);
        assert_eq!(rig.backend.creates().running(), 0);
    }
    let tries = rig.backend.creates().begun();
    assert!((9..=18).contains(&tries), "one at a time: {tries}");
    assert_eq!((rig.phase(Phase::Suspended), rig.phase(Phase::Queue)), (ms(15_000), ms(0)));
    rig.backend.recovers();
    rig.advance(PAUSE).await;
    assert_eq!(served(&mut attempts, &mut held), 3);
    drop(held);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn when_connecting_succeeds_again_one_then_two_then_four_connect_at_once() {
    let rig = patient(15);
    rig.backend.connects(Answer::Down);
    let mut attempts: Vec<_> = (0..15).map(|_| rig.checkout("waits").stays()).collect();
    rig.backend.connects(Answer::Held);
    rig.advance(PAUSE).await;
    let mut held = Vec::new();
    for at_once in [1, 2, 4, 8] {
        served(&mut attempts, &mut held);
        assert_eq!(rig.backend.held(), at_once, "{} are connected", held.len());
        for left in (0..at_once).rev() {
            rig.backend.release(left, End::Ok);
        }
    }
    served(&mut attempts, &mut held);
    assert_eq!((held.len(), rig.backend.held()), (15, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_on_the_way_back_suspends_connecting_anew() {
    let rig = Rig::new(5, 0);
    rig.backend.next_connect(Answer::Down);
    assert!(rig.checkout("first").poll().unwrap().is_err());
    rig.advance(ms(50)).await;
    let held = rig.take("second");
    rig.backend.connects(Answer::Down);
    assert!(!is_unavailable(&rig.checkout("third").poll().unwrap()));
    assert!(is_unavailable(&rig.checkout("fourth").poll().unwrap()));
    drop(held);
    // What is there is had all the same.
    drop(rig.take("fifth"));
}

#[tokio::test(start_paused = true)]
async fn who_tries_and_leaves_hands_the_turn_on() {
    let rig = patient(3);
    rig.backend.connects(Answer::Down);
    let mut attempts: Vec<_> = (0..3).map(|_| rig.checkout("waits").stays()).collect();
    rig.backend.connects(Answer::Held);
    rig.advance(PAUSE).await;
    let mut held = Vec::new();
    served(&mut attempts, &mut held);
    assert_eq!(rig.backend.held(), 1);
    // The one that tries was polled first.
    drop(attempts.remove(0));
    assert_eq!(rig.backend.held(), 0);
    rig.backend.recovers();
    assert_eq!(served(&mut attempts, &mut held), 2, "without another pause");
    assert_eq!(rig.outcomes("waits", Outcome::Cancelled), 1);
    drop(held);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_server_without_slots_is_waited_for_as_capacity_is_and_what_comes_back_is_had() {
    let rig = Rig::new(10, 0);
    let held = rig.take_many("holder", 2);
    rig.backend.connects(Answer::Full);
    let mut attempts: Vec<_> = (0..4).map(|_| rig.checkout("waits").stays()).collect();
    assert_eq!(rig.backend.creates().begun(), 3, "one has tried");
    let status = rig.core.status();
    assert_eq!((status.waiting, status.used, status.idle), (4, 2, 0));
    let mut got = Vec::new();
    drop(held);
    assert_eq!(served(&mut attempts, &mut got), 2);
    rig.advance(ms(10)).await;
    assert_eq!(served(&mut attempts, &mut got), 0);
    // First come, first served.
    drop(got);
    let mut late = rig.checkout("late").stays();
    let mut got = Vec::new();
    assert_eq!(served(&mut attempts, &mut got), 2);
    assert!(late.poll().is_none());
    drop(got);
    drop(late.poll().unwrap().unwrap());
    rig.backend.recovers();
    rig.advance(PAUSE).await;
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_server_without_slots_is_refused_where_nothing_may_come_back() {
    let rig = Rig::new(10, 0);
    rig.backend.connects(Answer::Full);
    assert!(matches!(rig.checkout("first").poll(), Some(Err(CheckoutError::Connect { .. }))));
    assert!(is_unavailable(&rig.checkout("second").poll().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_turn_meets_its_deadline_and_hears_why() {
    let rig = patient(2);
    rig.backend.connects(Answer::Down);
    let mut waits = rig.checkout("waits").stays();
    rig.advance(ms(30_000)).await;
    let error = waits.poll().unwrap().unwrap_err();
    let CheckoutError::Timeout(report) = &error else { panic!("{error:?}") };
    assert_eq!((report.phase, report.connecting.as_ref().unwrap().code.as_str()), (Phase::Suspended, "57P03"));
    assert!(error.to_string().ends_with("; connecting has been failing for 30s: the scripted failure"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn closing_the_pool_ends_the_wait_for_a_turn() {
    let rig = patient(2);
    rig.backend.connects(Answer::Down);
    let mut attempts = vec![rig.checkout("waits").stays(), rig.checkout("waits").stays()];
    let mut closing = Attempt::new({
        let core = rig.core.clone();
        async move { core.close().await }
    });
    assert!(closing.poll().is_none());
    let mut ended = 0;
    settle(&mut attempts, |_, got| ended += usize::from(matches!(got, Err(CheckoutError::Closed { .. }))));
    assert_eq!((ended, attempts.len()), (2, 0));
    assert!(closing.poll().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_says_nothing_of_others_keeps_nobody_from_connecting() {
    let rig = Rig::new(5, 0);
    rig.backend.connects(Answer::Error);
    for _ in 0..5 {
        assert!(matches!(rig.checkout("tries").poll(), Some(Err(CheckoutError::Connect { .. }))));
    }
    assert_eq!(rig.backend.creates().begun(), 5);
    assert_eq!(rig.snapshot().connecting_suspended, Duration::ZERO);
}
