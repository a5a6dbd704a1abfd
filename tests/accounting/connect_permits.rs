//! Who waits for a turn to connect: nobody is forgotten, nobody gets ahead, and nobody keeps the others from it.

use std::time::Duration;

use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, Outcome, Phase};

use super::backend::{Answer, End};
use super::harness::{Attempt, Got, Held, Rig, ms, settings, settle};

/// As long as connecting ever pauses, and more.
const PAUSE: Duration = ms(1000);

/// A pool whose checkouts wait for a server that is away.
fn patient(pool_size: usize, max_overflow: usize) -> Rig {
    let mut settings = settings(pool_size, max_overflow);
    settings.fail_fast = false;
    settings.checkout_timeout = ms(30_000);
    settings.connect_timeout = ms(5_000);
    settings.recycle_after = None;
    Rig::with(&settings)
}

/// Polls those that were woken, and those that this wakes, but not without end; answers how often.
#[track_caller]
fn polls(attempts: &mut Vec<Attempt>, held: &mut Vec<Held>) -> usize {
    const MOST: usize = 1000;
    let mut polls = 0;
    while let Some(place) = attempts.iter().position(|attempt| attempt.is_woken()) {
        polls += 1;
        assert!(polls < MOST, "they wake each other without end");
        if let Some(got) = attempts[place].poll() {
            attempts.remove(place);
            held.push(got.expect("a connection"));
        }
    }
    polls
}

/// Has the server come back, and another one wait that is served although those who connect are not polled.
async fn another_is_served_later(rig: &Rig) {
    rig.backend.recovers();
    let mut others = vec![rig.checkout("other").stays()];
    let mut got = Vec::new();
    for _ in 0..8 {
        rig.advance(PAUSE).await;
        polls(&mut others, &mut got);
    }
    assert_eq!(got.len(), 1);
}

fn is_unavailable(got: &Got) -> bool {
    matches!(got, Err(CheckoutError::Unavailable { .. }))
}

#[tokio::test(start_paused = true)]
async fn many_that_wait_for_few_places_rest_while_nothing_happens() {
    // More wait than the pool has places, for a server that is away.
    let rig = patient(1, 0);
    rig.backend.connects(Answer::Down);
    let mut attempts: Vec<_> = (0..3).map(|_| rig.checkout("waits")).collect();
    assert!(polls(&mut attempts, &mut Vec::new()) < 20);
    // For one without slots.
    let rig = patient(10, 0);
    let mut held = rig.take_many("holder", 4);
    rig.backend.connects(Answer::Full);
    let mut attempts: Vec<_> = (0..20).map(|_| rig.checkout("waits")).collect();
    assert!(polls(&mut attempts, &mut Vec::new()) < 60);
    for _ in 0..5 {
        let mut got = Vec::new();
        drop(std::mem::take(&mut held));
        polls(&mut attempts, &mut got);
        assert_eq!(got.len(), 4);
        held = got;
    }
    assert!(attempts.is_empty());
    // And for those that queued before it went away.
    let rig = patient(10, 0);
    let held = rig.take_many("holder", 10);
    let mut attempts: Vec<_> = (0..20).map(|_| rig.checkout("waits")).collect();
    polls(&mut attempts, &mut Vec::new());
    rig.backend.connects(Answer::Down);
    held.into_iter().for_each(Held::discard);
    assert!(polls(&mut attempts, &mut Vec::new()) < 100);
    rig.backend.recovers();
    rig.advance(PAUSE).await;
    let mut got = Vec::new();
    polls(&mut attempts, &mut got);
    assert_eq!(got.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn one_that_tries_and_is_not_polled_any_more_keeps_the_others_from_it_for_a_while_only() {
    let rig = patient(10, 0);
    rig.backend.next_connect(Answer::Down);
    let mut attempts = vec![rig.checkout("first").stays()];
    rig.advance(PAUSE).await;
    rig.backend.next_connect(Answer::Slow(End::Ok));
    // It tries, and is kept as it is.
    let _kept = attempts.pop().unwrap().stays();
    assert_eq!(rig.backend.creates().running(), 1);
    another_is_served_later(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn those_that_connect_first_and_are_not_polled_any_more_keep_the_others_from_it_for_a_while_only() {
    let rig = patient(10, 0);
    rig.backend.next_connect(Answer::Down);
    let mut first = rig.checkout("first").stays();
    rig.advance(PAUSE).await;
    let _held = first.poll().unwrap().unwrap();
    // Two may connect at once now.
    rig.backend.connects(Answer::Slow(End::Ok));
    let _kept = [rig.checkout("kept").stays(), rig.checkout("kept").stays()];
    another_is_served_later(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_goes_to_those_that_wait_in_the_order_they_came() {
    let rig = patient(10, 0);
    let mut held = vec![rig.take("holder")];
    rig.backend.connects(Answer::Down);
    let mut waiting: Vec<_> = (0..2)
        .map(|n| {
            let mut attempt = rig.checkout("waits").stays();
            attempt.tag = (n, 0);
            attempt
        })
        .collect();
    drop(held.pop());
    // Before the one that was called has run.
    let mut newcomer = rig.checkout("newcomer").stays();
    newcomer.tag = (2, 0);
    waiting.push(newcomer);
    for expected in 0..3 {
        let mut order = Vec::new();
        settle(&mut waiting, |(n, _), got| order.push((n, got.unwrap())));
        assert_eq!(order.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_those_that_wait_can_take_is_had_at_once() {
    let rig = patient(10, 0);
    let held = rig.take_many("holder", 5);
    rig.backend.connects(Answer::Full);
    let mut waits = rig.checkout("waits").stays();
    drop(held);
    drop(rig.take("newcomer"));
    drop(waits.poll().unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_others_wait_for_is_not_closed_for_being_too_much() {
    let rig = patient(1, 3);
    let held = rig.take_many("holder", 2);
    rig.backend.connects(Answer::Down);
    let mut waiting = vec![rig.checkout("waits").stays(), rig.checkout("waits").stays()];
    drop(held);
    let mut got = Vec::new();
    polls(&mut waiting, &mut got);
    assert_eq!((got.len(), rig.closed(CloseReason::Overflow)), (2, 0));
    drop(got);
    assert_eq!(rig.closed(CloseReason::Overflow), 1);
}

#[tokio::test(start_paused = true)]
async fn no_two_try_at_once_whatever_became_of_an_earlier_failure() {
    let rig = Rig::new(10, 0);
    rig.backend.next_connect(Answer::Held);
    let mut old = rig.checkout("old").stays();
    rig.backend.next_connect(Answer::Down);
    assert!(rig.checkout("first").poll().unwrap().is_err());
    rig.advance(ms(50)).await;
    rig.backend.next_connect(Answer::Held);
    let mut one = rig.checkout("tries").stays();
    // One from before succeeds, and another failure follows.
    rig.backend.release(0, End::Ok);
    let _held = old.poll().unwrap().unwrap();
    rig.backend.next_connect(Answer::Down);
    assert!(rig.checkout("second").poll().unwrap().is_err());
    rig.advance(ms(50)).await;
    rig.backend.next_connect(Answer::Held);
    let _two = rig.checkout("tries").stays();
    rig.backend.release(0, End::Down);
    assert!(one.poll().unwrap().is_err());
    rig.advance(ms(200)).await;
    assert!(is_unavailable(&rig.checkout("others").poll().unwrap()));
    assert_eq!(rig.backend.creates().running(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_a_turn_and_then_for_capacity_is_counted_as_both() {
    let rig = patient(1, 1);
    let held = rig.take("holder");
    rig.backend.connects(Answer::Down);
    let mut waiting: Vec<_> = (0..3).map(|_| rig.checkout("waits").stays()).collect();
    rig.backend.recovers();
    rig.advance(PAUSE).await;
    let mut got = Vec::new();
    polls(&mut waiting, &mut got);
    assert_eq!((got.len(), rig.core.status().waiting), (1, 2));
    rig.advance(ms(10_000)).await;
    assert_eq!(rig.phase(Phase::Queue), ms(20_000));
    assert_eq!(rig.phase(Phase::Suspended), 3 * PAUSE);
    // Nothing is closed that is waited for.
    drop((got, held));
    let mut got = Vec::new();
    polls(&mut waiting, &mut got);
    assert_eq!((got.len(), rig.closed(CloseReason::Overflow)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_better_than_none() {
    let rig = Rig::new(10, 0);
    drop(rig.take("makes"));
    rig.backend.next_connect(Answer::Down);
    let held = rig.take("holder");
    assert!(rig.checkout("fails").poll().unwrap().is_err());
    drop(held);
    rig.advance_own(ms(10_000));
    drop(rig.take("old"));
    assert_eq!(rig.closed(CloseReason::Recycled), 0);
    // It is replaced when another can be made.
    rig.advance(ms(20_000)).await;
    drop(rig.take("new"));
    assert_eq!(rig.closed(CloseReason::Recycled), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_of_connecting_when_nobody_has_tried_for_long() {
    let rig = Rig::new(10, 0);
    let held = rig.take("holder");
    rig.backend.next_connect(Answer::Down);
    assert!(rig.checkout("fails").poll().unwrap().is_err());
    rig.advance(ms(9_000)).await;
    assert_eq!(rig.snapshot().connecting_suspended, ms(9_000));
    rig.advance(ms(2_000)).await;
    assert_eq!(rig.snapshot().connecting_suspended, Duration::ZERO);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_closed_makes_room_at_a_server_without_slots() {
    let rig = patient(10, 0);
    let held = rig.take_many("holder", 2);
    rig.backend.next_connect(Answer::Full);
    let mut waiting = vec![rig.checkout("waits").stays()];
    held.into_iter().for_each(Held::discard);
    let mut got = Vec::new();
    polls(&mut waiting, &mut got);
    assert_eq!(got.len(), 1, "without a pause");
}

#[tokio::test(start_paused = true)]
async fn one_that_connects_is_none_that_may_come_back() {
    let rig = Rig::new(10, 0);
    rig.backend.next_connect(Answer::Full);
    assert!(rig.checkout("first").poll().unwrap().is_err());
    rig.advance(ms(50)).await;
    rig.backend.connects(Answer::Held);
    let _tries = rig.checkout("tries").stays();
    assert!(is_unavailable(&rig.checkout("others").poll().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn what_others_are_about_to_get_of_a_server_without_slots_is_waited_for() {
    let rig = Rig::new(10, 0);
    rig.backend.next_connect(Answer::After(ms(20), End::Ok));
    rig.backend.next_connect(Answer::Full);
    let mut first = rig.checkout("first").stays();
    // It is refused when nobody has a connection yet.
    let mut waiting = vec![rig.checkout("refused").stays(), rig.checkout("late").stays()];
    rig.advance(ms(20)).await;
    let served = first.poll().unwrap().unwrap();
    rig.backend.connects(Answer::Full);
    let mut got = Vec::new();
    polls(&mut waiting, &mut got);
    assert_eq!((got.len(), waiting.len()), (0, 2));
    drop(served);
    for _ in 0..2 {
        polls(&mut waiting, &mut got);
        got.clear();
    }
    assert_eq!((rig.outcomes("refused", Outcome::Ok), rig.outcomes("late", Outcome::Ok)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn when_none_of_them_gets_one_nobody_waits_on() {
    let rig = Rig::new(10, 0);
    rig.backend.next_connect(Answer::After(ms(20), End::Full));
    rig.backend.connects(Answer::Full);
    let mut first = rig.checkout("first").stays();
    let mut refused = rig.checkout("refused").stays();
    rig.advance(ms(20)).await;
    assert!(matches!(first.poll(), Some(Err(CheckoutError::Connect { .. }))));
    assert!(is_unavailable(&refused.poll().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_closed_lets_nobody_stand_in_line() {
    let rig = patient(10, 0);
    let held = rig.take_many("holder", 1);
    rig.backend.connects(Answer::Full);
    let mut waits = rig.checkout("waits").stays();
    let mut closing = Attempt::new({
        let core = rig.core.clone();
        async move { core.close().await }
    });
    assert!(closing.poll().is_none());
    assert!(matches!(rig.checkout("late").poll(), Some(Err(CheckoutError::Closed { .. }))));
    assert!(matches!(waits.poll(), Some(Err(CheckoutError::Closed { .. }))));
    assert_eq!(rig.outcomes("late", Outcome::Closed), 1);
    drop(held);
}
