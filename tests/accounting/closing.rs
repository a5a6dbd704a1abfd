//! Closing a pool, and dropping it.

use poolscope::labels::{CloseReason, Outcome, Phase};

use super::backend::{Answer, End};
use super::harness::{Attempt, Rig, ms, settle};

fn closing(rig: &Rig) -> Attempt<()> {
    let core = rig.core.clone();
    Attempt::new(async move { core.close().await })
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_gives_nothing_and_says_so() {
    let rig = Rig::new(2, 0);
    drop(rig.take("holder"));
    assert!(!rig.core.is_closed());
    assert!(closing(&rig).poll().is_some(), "nothing is out");
    assert!(rig.core.is_closed());
    assert_eq!((rig.closed(CloseReason::Shutdown), rig.backend.living()), (1, 0));
    let error = rig.checkout("late").poll().unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Closed);
    assert_eq!(error.to_string(), "pool `rig` is closed");
    let totals = rig.totals("late");
    assert_eq!((totals.started, totals.outcomes[Outcome::Closed.index()], totals.wait_nanos), (1, 1, 0));
    assert!(closing(&rig).poll().is_some(), "closing again is done at once");
    assert_eq!(rig.backend.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_what_is_out_and_those_who_wait_are_told() {
    let rig = Rig::new(1, 1);
    let mut held = rig.take_many("holder", 2);
    let mut waiting: Vec<_> = (0..3).map(|_| rig.checkout("waiter").stays()).collect();
    let mut one = closing(&rig).stays();
    let mut two = closing(&rig).stays();
    let mut told = 0;
    settle(&mut waiting, |_, got| told += usize::from(got.unwrap_err().outcome() == Outcome::Closed));
    assert_eq!((told, rig.outcomes("waiter", Outcome::Closed)), (3, 3));
    held.pop();
    assert!(one.poll().is_none() && two.poll().is_none(), "one is still out");
    assert_eq!(rig.snapshot().connections.used, 1);
    held.pop();
    assert!(one.is_woken() && two.is_woken());
    assert!(one.poll().is_some() && two.poll().is_some());
    assert_eq!((rig.closed(CloseReason::Shutdown), rig.backend.living()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_checkout_that_was_busy_when_the_pool_closed_gets_nothing_and_leaks_nothing() {
    for (phase, end) in [(Phase::Connect, End::Ok), (Phase::Connect, End::Error), (Phase::Ping, End::Ok)] {
        let rig = Rig::new(2, 0);
        if phase == Phase::Ping {
            drop(rig.take("first"));
            rig.advance(ms(500)).await;
        }
        rig.backend.connects(Answer::Held);
        rig.backend.answers_pings(Answer::Held);
        let mut attempt = rig.checkout("busy").stays();
        let mut close = closing(&rig).stays();
        rig.backend.release(0, end);
        let outcome = attempt.poll().unwrap().unwrap_err().outcome();
        assert_eq!(outcome, if end == End::Ok { Outcome::Closed } else { Outcome::Error }, "{phase:?}");
        assert!(close.is_woken());
        assert!(close.poll().is_some());
        assert_eq!((rig.snapshot().connections.live(), rig.backend.living()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn closing_goes_on_when_its_future_is_dropped() {
    let rig = Rig::new(1, 0);
    let held = rig.take("holder");
    drop(closing(&rig).stays());
    assert!(rig.core.is_closed());
    drop(held);
    assert_eq!((rig.backend.living(), rig.closed(CloseReason::Shutdown)), (0, 1));
    assert!(closing(&rig).poll().is_some());
}

#[tokio::test(start_paused = true)]
async fn close_within_names_those_who_still_hold_connections() {
    let rig = Rig::new(2, 2);
    let held = rig.take_many("report", 2);
    rig.advance(ms(5000)).await;
    let other = rig.take("export");
    let error = rig.core.close_within(ms(1000)).await.unwrap_err();
    assert_eq!(error.waited, ms(1000));
    assert_eq!(error.usage.status.used, 3);
    // The pool's own clock stood still while it waited.
    assert_eq!(
        error.to_string(),
        "pool `rig` is not closed after 1s: 3 used, 0 being created, 0 checkouts in flight; held by report ×2 (oldest 5s), export ×1 (oldest 0s)"
    );
    assert!(rig.core.is_closed(), "it stays closed");
    drop((held, other));
    assert_eq!(rig.backend.living(), 0, "what comes back later is closed all the same");
    assert!(rig.core.close_within(ms(1000)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_discarded_or_broken_while_the_pool_closes_is_closed_once() {
    let rig = Rig::new(3, 0);
    let mut held = rig.take_many("holder", 3);
    let mut close = closing(&rig).stays();
    held.remove(0).discard();
    held[0].break_it();
    drop(held);
    assert!(close.poll().is_some());
    let pool = rig.snapshot();
    assert_eq!(pool.closed.iter().sum::<u64>(), 3);
    assert_eq!(pool.closed[CloseReason::Discarded.index()], 1);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_dropped_closes_what_is_idle_and_later_what_is_out() {
    let rig = Rig::new(2, 1);
    let mut held = rig.take_many("holder", 2);
    held.pop();
    assert_eq!(rig.backend.living(), 2);
    let Rig { core, backend, collector, .. } = rig;
    let clone = core.clone();
    drop(core);
    assert_eq!(backend.living(), 2, "a clone is a handle to the same pool");
    drop(clone);
    assert_eq!(backend.living(), 1);
    let pool = collector.snapshots().remove(0);
    assert_eq!((pool.connections.used, pool.closed[CloseReason::Shutdown.index()]), (1, 1));
    super::invariants::check(&pool);
    std::thread::spawn(|| drop(held)).join().unwrap();
    assert_eq!(backend.living(), 0);
    assert!(collector.snapshots().is_empty(), "it left when its last connection did");
}

#[tokio::test(start_paused = true)]
async fn a_checkout_that_holds_the_last_handle_takes_the_pool_with_it() {
    let rig = Rig::new(1, 0);
    rig.backend.connects(Answer::Held);
    let attempt = rig.checkout("last").stays();
    let Rig { core, backend, collector, .. } = rig;
    drop(core);
    assert_eq!((backend.living(), collector.snapshots().len()), (1, 1));
    drop(attempt);
    assert_eq!((backend.living(), collector.snapshots().len()), (0, 0));
}
