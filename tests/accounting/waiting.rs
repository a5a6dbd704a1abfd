//! What a wait is: where its time goes, whom it is counted for, and when it ends.

use std::error::Error;
use std::time::Duration;

use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, Outcome, Phase};

use super::backend::{Answer, End};
use super::harness::{Attempt, Rig, ms, settings, settle};

#[tokio::test(start_paused = true)]
async fn a_checkout_that_is_ready_at_its_first_poll_waits_for_no_time() {
    let rig = Rig::new(1, 0);
    drop(rig.take("first"));
    rig.advance(ms(100)).await;
    drop(rig.take("second"));
    let pool = rig.snapshot();
    assert_eq!((pool.wait_time.buckets[0], pool.wait_time.sum_nanos), (2, 0));
    assert_eq!(pool.phase_nanos, [0; Phase::COUNT]);
    assert_eq!(pool.saturated_nanos, 0);
    assert_eq!(rig.totals("second").wait_nanos, 0);
}

#[tokio::test(start_paused = true)]
async fn time_in_the_queue_is_the_queues_and_connecting_and_pinging_are_their_own() {
    let rig = Rig::new(1, 0);
    rig.backend.connects(Answer::After(ms(30), End::Ok));
    let mut attempt = rig.checkout("a").stays();
    assert_eq!(rig.snapshot().connections.creating, 1);
    rig.advance(ms(30)).await;
    let held = attempt.poll().unwrap().unwrap();
    assert_eq!((rig.phase(Phase::Connect), rig.phase(Phase::Queue)), (ms(30), ms(0)));

    let mut queued = rig.checkout("b").stays();
    rig.advance(ms(70)).await;
    assert_eq!(rig.phase(Phase::Queue), ms(70), "also while it lasts");
    drop(held);
    drop(queued.poll().unwrap().unwrap());
    rig.advance(ms(500)).await;
    assert_eq!(rig.phase(Phase::Queue), ms(70));

    rig.backend.answers_pings(Answer::After(ms(20), End::Ok));
    let mut pinged = rig.checkout("c").stays();
    assert_eq!(rig.snapshot().connections.used, 1, "being pinged is being used");
    rig.advance(ms(20)).await;
    drop(pinged.poll().unwrap().unwrap());
    assert_eq!(rig.snapshot().phase_nanos, [70_000_000, 30_000_000, 20_000_000, 0, 0, 0]);
    for (operation, wait) in [("a", 30), ("b", 70), ("c", 20)] {
        assert_eq!(Duration::from_nanos(rig.totals(operation).wait_nanos), ms(wait), "{operation}");
    }
    let create_time = rig.snapshot().create_time;
    assert_eq!((create_time.count(), create_time.sum_nanos), (1, 30_000_000));
}

#[tokio::test(start_paused = true)]
async fn a_checkout_may_pass_through_every_phase_and_each_is_counted() {
    let mut settings = settings(1, 0);
    settings.pre_ping_idle = Duration::ZERO;
    let rig = Rig::with(&settings);
    let held = rig.take("holder");
    rig.backend.answers_pings(Answer::After(ms(20), End::Error));
    rig.backend.connects(Answer::After(ms(40), End::Ok));
    let mut attempt = rig.checkout("all").stays();
    assert_eq!(rig.snapshot().waiters[0].phase, Phase::Queue);
    rig.advance(ms(10)).await;
    drop(held);
    for (phase, time) in [(Phase::Ping, 20), (Phase::Connect, 40)] {
        assert!(attempt.poll().is_none());
        assert_eq!(rig.snapshot().waiters[0].phase, phase);
        rig.advance(ms(time)).await;
    }
    let held = attempt.poll().unwrap().unwrap();
    assert_eq!(rig.snapshot().phase_nanos, [10_000_000, 40_000_000, 20_000_000, 0, 0, 0]);
    rig.advance(ms(7)).await;
    drop(held);
    let totals = rig.totals("all");
    assert_eq!((totals.wait_nanos, totals.use_nanos), (70_000_000, 7_000_000));
    assert_eq!(rig.closed(CloseReason::PingFailed), 1);
}

#[tokio::test(start_paused = true)]
async fn pending_are_those_in_the_queue_and_not_those_who_connect_or_ping() {
    let rig = Rig::new(2, 0);
    drop(rig.take("first"));
    rig.advance(ms(500)).await;
    rig.backend.connects(Answer::Held);
    rig.backend.answers_pings(Answer::Held);
    let pinging = rig.checkout("pings").stays();
    let connecting = rig.checkout("connects").stays();
    let status = rig.core.status();
    assert_eq!((status.waiting, status.in_flight, status.creating, status.used), (0, 2, 1, 1));
    let queued = rig.checkout("queues").stays();
    let status = rig.core.status();
    assert_eq!((status.waiting, status.in_flight, status.live()), (1, 3, 2));
    let phases: Vec<_> = rig.snapshot().waiters.iter().map(|waiter| waiter.phase).collect();
    assert_eq!(phases, [Phase::Ping, Phase::Connect, Phase::Queue]);
    drop((pinging, connecting, queued));
    rig.backend.recovers();
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn the_oldest_wait_is_that_of_the_one_that_has_waited_longest() {
    let rig = Rig::new(1, 0);
    assert_eq!(rig.snapshot().oldest_wait, Duration::ZERO);
    let held = rig.take("holder");
    let first = rig.checkout("waiter").stays();
    rig.advance(ms(30)).await;
    let mut second = rig.checkout("waiter").stays();
    rig.advance(ms(12)).await;
    assert_eq!(rig.snapshot().oldest_wait, ms(42));
    let ages: Vec<_> = rig.snapshot().waiters.iter().map(|waiter| waiter.age).collect();
    assert_eq!(ages, [ms(42), ms(12)]);
    drop(first);
    assert_eq!(rig.snapshot().oldest_wait, ms(12));
    drop(held);
    drop(second.poll().unwrap().unwrap());
    assert_eq!(rig.snapshot().oldest_wait, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn saturation_is_the_time_for_which_somebody_queued_however_many_did() {
    let rig = Rig::new(1, 0);
    let held = rig.take("holder");
    rig.advance(ms(1000)).await;
    assert_eq!(rig.snapshot().saturated_nanos, 0, "nobody asks for more");
    let first = rig.checkout("waiter").stays();
    rig.advance(ms(10)).await;
    let second = rig.checkout("waiter").stays();
    rig.advance(ms(20)).await;
    assert_eq!(rig.snapshot().saturated_nanos, 30_000_000, "while it lasts");
    drop(first);
    rig.advance(ms(40)).await;
    drop(second);
    assert_eq!(rig.snapshot().saturated_nanos, 70_000_000);
    rig.advance(ms(500)).await;
    let third = rig.checkout("waiter").stays();
    rig.advance(ms(5)).await;
    drop(third);
    assert_eq!(rig.snapshot().saturated_nanos, 75_000_000);
    assert_eq!(rig.phase(Phase::Queue), ms(10 + 20 + 20 + 40 + 5));
    drop(held);

    rig.backend.connects(Answer::Held);
    rig.take("holder").discard();
    let creating = rig.checkout("connects").stays();
    rig.advance(ms(50)).await;
    assert_eq!(rig.snapshot().saturated_nanos, 75_000_000, "a pool of one that connects is not saturated");
    drop(creating);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_the_order_they_came() {
    let rig = Rig::new(1, 1);
    let mut held = rig.take_many("holder", 2);
    let mut queue: Vec<_> = (0..6)
        .map(|place| {
            let mut attempt = rig.checkout("waiter").stays();
            attempt.tag = (place, 0);
            attempt
        })
        .collect();
    // The fourth leaves; a place is a place, whether a connection came back or was closed.
    queue.remove(3);
    let mut served = Vec::new();
    for discard in [false, true, false, false, true] {
        let back = held.remove(0);
        if discard {
            back.discard();
        } else {
            drop(back);
        }
        assert_eq!(queue.iter().filter(|attempt| attempt.is_woken()).count(), 1);
        settle(&mut queue, |(place, _), got| {
            served.push(place);
            held.push(got.unwrap());
        });
        rig.snapshot();
    }
    assert_eq!(served, [0, 1, 2, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_overtake_one_that_was_woken_and_not_polled_yet() {
    let rig = Rig::new(1, 0);
    let held = rig.take("holder");
    let mut first = rig.checkout("waiter").stays();
    drop(held);
    let newcomer = rig.checkout("newcomer").stays();
    let held = first.poll().unwrap().unwrap();
    assert!(!newcomer.is_woken());
    drop(held);
    assert!(newcomer.is_woken());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_the_first_poll_and_bounds_the_whole() {
    // Three stale connections whose pings take long: their times do not add up to more than is allowed.
    let mut settings = settings(3, 0);
    settings.checkout_timeout = ms(500);
    settings.pre_ping_idle = Duration::ZERO;
    let rig = Rig::with(&settings);
    drop(rig.take_many("first", 3));
    // The pool's own clock stands still, so that none is older than the first ping that fails.
    rig.backend.answers_pings(Answer::After(ms(200), End::Error));
    let core = rig.core.clone();
    let begun = tokio::time::Instant::now();
    let error = core.operation("late").get().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Timeout);
    let took = begun.elapsed();
    assert!((ms(500)..ms(503)).contains(&took), "{took:?}");
    assert_eq!((rig.backend.pings().begun(), rig.closed(CloseReason::PingFailed)), (3, 2));

    // A future that lies around before it is polled has all of its time still.
    let attempt = rig.checkout("lies");
    rig.advance(ms(5000)).await;
    rig.backend.recovers();
    let mut attempt = attempt;
    drop(attempt.poll().unwrap().unwrap());
    assert_eq!(rig.totals("lies").wait_nanos, 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_in_every_phase_and_frees_the_place() {
    for phase in [Phase::Queue, Phase::Connect, Phase::Ping] {
        let mut settings = settings(1, 0);
        settings.ping_timeout = ms(5000);
        let rig = Rig::with(&settings);
        let mut held = None;
        match phase {
            Phase::Queue => held = Some(rig.take("holder")),
            Phase::Ping => drop(rig.take("holder")),
            _ => {}
        }
        rig.advance(ms(500)).await;
        rig.backend.connects(Answer::Held);
        rig.backend.answers_pings(Answer::Held);
        let mut attempt = rig.checkout("late").stays();
        rig.advance(ms(998)).await;
        assert!(!attempt.is_woken());
        rig.advance(ms(3)).await;
        assert!(attempt.is_woken(), "{phase:?}");
        let Some(Err(CheckoutError::Timeout(report))) = attempt.poll() else { panic!("{phase:?}: not a timeout") };
        assert_eq!((report.phase, report.waited, report.usage.status.in_flight), (phase, ms(1001), 0));
        assert_eq!(rig.outcomes("late", Outcome::Timeout), 1);
        assert_eq!(rig.phase(phase), ms(1001));
        let closed = match phase {
            Phase::Connect => Some(CloseReason::ConnectAbandoned),
            Phase::Ping => Some(CloseReason::PingAbandoned),
            _ => None,
        };
        for reason in CloseReason::ALL {
            assert_eq!(rig.closed(*reason), u64::from(Some(*reason) == closed), "{reason:?}");
        }
        drop(held);
        rig.backend.recovers();
        rig.works();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_at_the_deadline_is_given_out() {
    let rig = Rig::new(1, 0);
    let held = rig.take("holder");
    let mut attempt = rig.checkout("just").stays();
    drop(held);
    rig.advance(ms(1001)).await;
    assert!(attempt.poll().unwrap().is_ok());
    assert_eq!(rig.outcomes("just", Outcome::Ok), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_says_what_it_waited_for_and_who_holds_the_pool() {
    let rig = Rig::new(1, 2);
    let mut held = rig.take_many("report", 2);
    rig.advance(ms(4000)).await;
    held.push(rig.take("checkout"));
    let other = rig.checkout("waiter").stays();
    let mut attempt = rig.checkout("late").stays();
    rig.advance(ms(500)).await;
    let last = rig.checkout("waiter").stays();
    rig.advance(ms(501)).await;
    let error = attempt.poll().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no connection from pool `rig` within 1s 1ms, waiting for one to be returned: 3 used, 0 idle, \
         0 being created of 3, 2 waiting (the first for 1s 1ms); held by report ×2 (oldest 5s 1ms), \
         checkout ×1 (oldest 1s 1ms); this very task held one itself, checked out for report at tests/accounting/harness.rs:81"
    );
    assert!(error.source().is_none());
    drop((other, last, held));

    rig.advance(ms(10_000)).await;
    rig.backend.connects(Answer::Held);
    let mut attempt = rig.checkout("late").stays();
    rig.advance(ms(1001)).await;
    let error = attempt.poll().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no connection from pool `rig` within 1s 1ms, while connecting: 0 used, 0 idle, 0 being created of 3, 0 waiting"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_to_connect_is_passed_on_and_said_once() {
    let rig = Rig::new(1, 0);
    rig.backend.next_connect(Answer::Error);
    let error = rig.checkout("fails").poll().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "pool `rig` cannot connect");
    assert_eq!(error.source().unwrap().to_string(), "the scripted failure");
    assert_eq!(error.outcome(), Outcome::Error);
    assert_eq!(rig.closed(CloseReason::ConnectFailed), 1);
    assert_eq!(rig.snapshot().create_time.count(), 0, "successes only");
}

#[tokio::test(start_paused = true)]
async fn who_panicked_and_was_kept_is_in_flight_until_it_is_dropped() {
    let rig = Rig::new(1, 0);
    rig.backend.next_connect(Answer::Panic);
    // Not wrapped in a future of the test's, which would drop it as the panic passes.
    let operation: &'static _ = Box::leak(Box::new(rig.core.operation("kept")));
    let mut attempt = Attempt::new(operation.get());
    assert!(attempt.try_poll().is_err());
    let pool = rig.core.snapshot();
    assert_eq!((pool.in_flight, pool.connections.live(), rig.backend.living()), (1, 0, 0));
    drop(attempt);
    assert_eq!(rig.outcomes("kept", Outcome::Cancelled), 1);
    rig.works();
}
