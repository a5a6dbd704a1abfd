//! Connections beyond `pool_size`: made when they are needed, kept while somebody waits, closed when nobody does.

use poolscope::labels::{CloseReason, Outcome};

use super::backend::Answer;
use super::harness::{Rig, ms, settle};

#[tokio::test(start_paused = true)]
async fn what_comes_back_beyond_pool_size_is_closed() {
    let rig = Rig::new(2, 3);
    let mut held = rig.take_many("holder", 5);
    let status = rig.core.status();
    assert_eq!((status.used, status.overflow(), status.max), (5, 3, 5));
    for idle in [1, 2, 2, 2, 2] {
        held.pop();
        assert_eq!(rig.snapshot().connections.idle, idle);
    }
    assert_eq!(rig.closed(CloseReason::Overflow), 3);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn an_overflow_connection_is_kept_for_who_waits_and_closed_after() {
    let rig = Rig::new(1, 1);
    let held = rig.take_many("holder", 2);
    let mut waiting = vec![rig.checkout("waiter").stays()];
    drop(held);
    assert_eq!((rig.snapshot().connections.idle, rig.closed(CloseReason::Overflow)), (2, 0));
    let mut served = Vec::new();
    settle(&mut waiting, |_, got| served.push(got.unwrap()));
    assert_eq!(rig.backend.opened(), 2, "nothing was made anew");
    drop(served);
    assert_eq!((rig.snapshot().connections.idle, rig.closed(CloseReason::Overflow)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_for_somebody_who_left_is_closed() {
    for ending in [Outcome::Cancelled, Outcome::Timeout, Outcome::Error] {
        let rig = Rig::new(1, 1);
        let held = rig.take_many("holder", 2);
        let mut waiter = rig.checkout("waiter").stays();
        if ending == Outcome::Timeout {
            // One is kept for the waiter, but the other is not back when its deadline passes.
            rig.advance(ms(1001)).await;
        }
        drop(held);
        match ending {
            Outcome::Cancelled => drop(waiter),
            Outcome::Timeout => drop(waiter.poll().unwrap()),
            _ => {
                rig.backend.break_one(0);
                rig.backend.break_one(1);
                rig.backend.connects(Answer::Error);
                assert_eq!(waiter.poll().unwrap().unwrap_err().outcome(), ending);
            }
        }
        let pool = rig.snapshot();
        assert!(pool.connections.idle <= 1, "{ending:?}: {:?}", pool.connections);
        rig.backend.recovers();
        rig.works();
    }
}

#[tokio::test(start_paused = true)]
async fn an_overflow_connection_goes_to_the_second_waiter_when_the_first_leaves() {
    let rig = Rig::new(1, 1);
    let held = rig.take_many("holder", 2);
    let first = rig.checkout("waiter").stays();
    let second = rig.checkout("waiter").stays();
    drop(held);
    assert_eq!(rig.snapshot().connections.idle, 2);
    drop(first);
    assert_eq!(rig.snapshot().connections.idle, 2, "one may be idle, and one is waited for");
    let mut waiting = vec![second];
    settle(&mut waiting, |_, got| drop(got.unwrap()));
    assert_eq!((rig.snapshot().connections.idle, rig.backend.opened()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_overflow_keeps_all_and_never_exceeds_them() {
    let rig = Rig::new(3, 0);
    let held = rig.take_many("holder", 3);
    let waiter = rig.checkout("waiter").stays();
    assert_eq!((rig.backend.living(), rig.core.status().waiting), (3, 1));
    drop(waiter);
    drop(held);
    assert_eq!(rig.snapshot().connections.idle, 3);
    assert_eq!(rig.backend.opened(), 3);
}

#[tokio::test(start_paused = true)]
async fn discarding_frees_a_place_at_once_and_leaves_the_idle_ones_alone() {
    let rig = Rig::new(1, 1);
    let mut held = rig.take_many("holder", 2);
    let waiter = rig.checkout("waiter").stays();
    held.remove(0).discard();
    assert!(waiter.is_woken());
    let mut waiting = vec![waiter];
    settle(&mut waiting, |_, got| held.push(got.unwrap()));
    assert_eq!((rig.closed(CloseReason::Discarded), rig.backend.opened()), (1, 3));
    assert_eq!(rig.totals("holder").returned, 1, "a discarded use is a use");
    drop(held);
    rig.works();
}
