//! Waiting times of checkouts: their phases, who they count for, and their deadlines.

use std::error::Error;
use std::time::Duration;

use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, Outcome, Phase};

use super::backend::{Behavior, Completion};
use super::harness::{ManualFuture, TestPool, ms, poll_woken, settings};

#[tokio::test(start_paused = true)]
async fn immediate_checkout_waits_for_no_time() {
    let test = TestPool::new(1, 0);
    drop(test.get("first"));
    test.advance(ms(100)).await;
    drop(test.get("second"));
    let snapshot = test.snapshot();
    assert_eq!((snapshot.wait_time.buckets[0], snapshot.wait_time.sum_nanos), (2, 0));
    assert_eq!(snapshot.phase_nanos, [0; Phase::COUNT]);
    assert_eq!(snapshot.saturated_nanos, 0);
    assert_eq!(test.totals("second").wait_nanos, 0);
}

#[tokio::test(start_paused = true)]
async fn wait_time_is_split_by_phase() {
    let test = TestPool::new(1, 0);
    test.backend.set_connect(Behavior::After(ms(30), Completion::Ok));
    let mut attempt = test.checkout("a").assert_pending();
    assert_eq!(test.snapshot().connections.creating, 1);
    test.advance(ms(30)).await;
    let held = attempt.poll().unwrap().unwrap();
    assert_eq!((test.phase(Phase::Connect), test.phase(Phase::Queue)), (ms(30), ms(0)));

    let mut queued = test.checkout("b").assert_pending();
    test.advance(ms(70)).await;
    assert_eq!(test.phase(Phase::Queue), ms(70), "counted while waiting");
    drop(held);
    drop(queued.poll().unwrap().unwrap());
    test.advance(ms(500)).await;
    assert_eq!(test.phase(Phase::Queue), ms(70));

    test.backend.set_ping(Behavior::After(ms(20), Completion::Ok));
    let mut pinged = test.checkout("c").assert_pending();
    assert_eq!(test.snapshot().connections.used, 1, "being pinged is being used");
    test.advance(ms(20)).await;
    drop(pinged.poll().unwrap().unwrap());
    assert_eq!(test.snapshot().phase_nanos, [70_000_000, 30_000_000, 20_000_000, 0, 0, 0, 0]);
    for (operation, wait) in [("a", 30), ("b", 70), ("c", 20)] {
        assert_eq!(Duration::from_nanos(test.totals(operation).wait_nanos), ms(wait), "{operation}");
    }
    let create_time = test.snapshot().create_time;
    assert_eq!((create_time.count(), create_time.sum_nanos), (1, 30_000_000));
}

#[tokio::test(start_paused = true)]
async fn every_phase_of_one_checkout_is_counted() {
    let mut settings = settings(1, 0);
    settings.pre_ping_idle = Duration::ZERO;
    let test = TestPool::with(&settings);
    let held = test.get("holder");
    test.backend.set_ping(Behavior::After(ms(20), Completion::Error));
    test.backend.set_connect(Behavior::After(ms(40), Completion::Ok));
    let mut attempt = test.checkout("all").assert_pending();
    assert_eq!(test.snapshot().waiters[0].phase, Phase::Queue);
    test.advance(ms(10)).await;
    drop(held);
    for (phase, time) in [(Phase::Ping, 20), (Phase::Connect, 40)] {
        assert!(attempt.poll().is_none());
        assert_eq!(test.snapshot().waiters[0].phase, phase);
        test.advance(ms(time)).await;
    }
    let held = attempt.poll().unwrap().unwrap();
    assert_eq!(test.snapshot().phase_nanos, [10_000_000, 40_000_000, 20_000_000, 0, 0, 0, 0]);
    test.advance(ms(7)).await;
    drop(held);
    let totals = test.totals("all");
    assert_eq!((totals.wait_nanos, totals.use_nanos), (70_000_000, 7_000_000));
    assert_eq!(test.closed(CloseReason::PingFailed), 1);
}

#[tokio::test(start_paused = true)]
async fn pending_counts_only_queued_checkouts() {
    let test = TestPool::new(2, 0);
    drop(test.get("first"));
    test.advance(ms(500)).await;
    test.backend.set_connect(Behavior::Blocked);
    test.backend.set_ping(Behavior::Blocked);
    let pinging = test.checkout("pings").assert_pending();
    let connecting = test.checkout("connects").assert_pending();
    let status = test.pool.status();
    assert_eq!((status.waiting, status.in_flight, status.creating, status.used), (0, 2, 1, 1));
    let queued = test.checkout("queues").assert_pending();
    let status = test.pool.status();
    assert_eq!((status.waiting, status.in_flight, status.live()), (1, 3, 2));
    let phases: Vec<_> = test.snapshot().waiters.iter().map(|waiter| waiter.phase).collect();
    assert_eq!(phases, [Phase::Ping, Phase::Connect, Phase::Queue]);
    drop((pinging, connecting, queued));
    test.backend.recover();
    test.release_all(Completion::Ok).await;
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn oldest_wait_is_that_of_the_first_waiter() {
    let test = TestPool::new(1, 0);
    assert_eq!(test.snapshot().oldest_wait, Duration::ZERO);
    let held = test.get("holder");
    let first = test.checkout("waiter").assert_pending();
    test.advance(ms(30)).await;
    let mut second = test.checkout("waiter").assert_pending();
    test.advance(ms(12)).await;
    assert_eq!(test.snapshot().oldest_wait, ms(42));
    let ages: Vec<_> = test.snapshot().waiters.iter().map(|waiter| waiter.age).collect();
    assert_eq!(ages, [ms(42), ms(12)]);
    drop(first);
    assert_eq!(test.snapshot().oldest_wait, ms(12));
    drop(held);
    drop(second.poll().unwrap().unwrap());
    assert_eq!(test.snapshot().oldest_wait, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn saturation_counts_time_with_any_waiter() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    test.advance(ms(1000)).await;
    assert_eq!(test.snapshot().saturated_nanos, 0, "no checkout waits");
    let first = test.checkout("waiter").assert_pending();
    test.advance(ms(10)).await;
    let second = test.checkout("waiter").assert_pending();
    test.advance(ms(20)).await;
    assert_eq!(test.snapshot().saturated_nanos, 30_000_000, "counted while waiting");
    drop(first);
    test.advance(ms(40)).await;
    drop(second);
    assert_eq!(test.snapshot().saturated_nanos, 70_000_000);
    test.advance(ms(500)).await;
    let third = test.checkout("waiter").assert_pending();
    test.advance(ms(5)).await;
    drop(third);
    assert_eq!(test.snapshot().saturated_nanos, 75_000_000);
    assert_eq!(test.phase(Phase::Queue), ms(10 + 20 + 20 + 40 + 5));
    drop(held);

    test.backend.set_connect(Behavior::Blocked);
    test.get("holder").discard();
    let creating = test.checkout("connects").assert_pending();
    test.advance(ms(50)).await;
    assert_eq!(test.snapshot().saturated_nanos, 75_000_000, "a connecting pool is not saturated");
    drop(creating);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_fifo_order() {
    let test = TestPool::new(1, 1);
    let mut held = test.get_many("holder", 2);
    let mut queue: Vec<_> = (0..6)
        .map(|index| {
            let mut attempt = test.checkout("waiter").assert_pending();
            attempt.tag = (index, 0);
            attempt
        })
        .collect();
    // The fourth leaves. A slot is freed whether its connection is returned or closed.
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
        poll_woken(&mut queue, |(index, _), result| {
            served.push(index);
            held.push(result.unwrap());
        });
        test.snapshot();
    }
    assert_eq!(served, [0, 1, 2, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn newcomer_does_not_overtake_woken_waiter() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    let mut first = test.checkout("waiter").assert_pending();
    drop(held);
    let newcomer = test.checkout("newcomer").assert_pending();
    let held = first.poll().unwrap().unwrap();
    assert!(!newcomer.is_woken());
    drop(held);
    assert!(newcomer.is_woken());
}

#[tokio::test(start_paused = true)]
async fn deadline_starts_at_first_poll_and_bounds_all() {
    // Three stale connections with slow pings: together they take no longer than the checkout timeout.
    let mut settings = settings(3, 0);
    settings.checkout_timeout = ms(500);
    settings.pre_ping_idle = Duration::ZERO;
    let test = TestPool::with(&settings);
    drop(test.get_many("first", 3));
    // The pool's own clock stands still, so that no connection is older than the first failed ping.
    test.backend.set_ping(Behavior::After(ms(200), Completion::Error));
    let pool = test.pool.clone();
    let started = tokio::time::Instant::now();
    let error = pool.operation("late").get().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Timeout);
    let elapsed = started.elapsed();
    assert!((ms(500)..ms(503)).contains(&elapsed), "{elapsed:?}");
    assert_eq!((test.backend.pings().started(), test.closed(CloseReason::PingFailed)), (3, 2));

    // A future that is polled late still has its whole timeout.
    let attempt = test.checkout("late poll");
    test.advance(ms(5000)).await;
    test.backend.recover();
    let mut attempt = attempt;
    drop(attempt.poll().unwrap().unwrap());
    assert_eq!(test.totals("late poll").wait_nanos, 0);
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_every_phase_and_frees_capacity() {
    for phase in [Phase::Queue, Phase::Connect, Phase::Ping] {
        let mut settings = settings(1, 0);
        settings.ping_timeout = ms(5000);
        let test = TestPool::with(&settings);
        let mut held = None;
        match phase {
            Phase::Queue => held = Some(test.get("holder")),
            Phase::Ping => drop(test.get("holder")),
            _ => {}
        }
        test.advance(ms(500)).await;
        test.backend.set_connect(Behavior::Blocked);
        test.backend.set_ping(Behavior::Blocked);
        let mut attempt = test.checkout("late").assert_pending();
        test.advance(ms(998)).await;
        assert!(!attempt.is_woken());
        test.advance(ms(3)).await;
        assert!(attempt.is_woken(), "{phase:?}");
        let Some(Err(CheckoutError::Timeout(report))) = attempt.poll() else { panic!("{phase:?}: not a timeout") };
        assert_eq!((report.phase, report.waited, report.usage.status.in_flight), (phase, ms(1001), 0));
        assert_eq!(test.outcomes("late", Outcome::Timeout), 1);
        assert_eq!(test.phase(phase), ms(1001));
        let closed = match phase {
            Phase::Ping => Some(CloseReason::PingAbandoned),
            _ => None,
        };
        for reason in CloseReason::ALL {
            assert_eq!(test.closed(*reason), u64::from(Some(*reason) == closed), "{reason:?}");
        }
        drop(held);
        test.backend.recover();
        test.release_all(Completion::Ok).await;
        test.assert_usable();
    }
}

#[tokio::test(start_paused = true)]
async fn connection_ready_at_the_deadline_is_used() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    let mut attempt = test.checkout("just").assert_pending();
    drop(held);
    test.advance(ms(1001)).await;
    assert!(attempt.poll().unwrap().is_ok());
    assert_eq!(test.outcomes("just", Outcome::Ok), 1);
}

#[tokio::test(start_paused = true)]
async fn timeout_reports_phase_and_holders() {
    let test = TestPool::new(1, 2);
    let mut held = test.get_many("report", 2);
    test.advance(ms(4000)).await;
    held.push(test.get("checkout"));
    let other = test.checkout("waiter").assert_pending();
    let mut attempt = test.checkout("late").assert_pending();
    test.advance(ms(500)).await;
    let last = test.checkout("waiter").assert_pending();
    test.advance(ms(501)).await;
    let error = attempt.poll().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no connection from pool `test` for late at tests/accounting/harness.rs:109 within 1s 1ms, waiting for one to be returned: 3 used, 0 idle, \
         0 being created of 3, 2 waiting (the first for 1s 1ms); held by report ×2 (oldest 5s 1ms), \
         checkout ×1 (oldest 1s 1ms); the waiting task itself held one, checked out for report at tests/accounting/harness.rs:109"
    );
    assert!(error.source().is_none());
    drop((other, last, held));

    test.advance(ms(10_000)).await;
    test.backend.set_connect(Behavior::Blocked);
    let mut attempt = test.checkout("late").assert_pending();
    test.advance(ms(1001)).await;
    let error = attempt.poll().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no connection from pool `test` for late at tests/accounting/harness.rs:109 within 1s 1ms, as connecting takes longer \
         than checkout_timeout: 0 used, 0 idle, 1 being created of 3, 0 waiting"
    );
}

#[tokio::test(start_paused = true)]
async fn connect_error_has_its_cause() {
    let test = TestPool::new(1, 0);
    test.backend.push_connect(Behavior::Error);
    let error = test.checkout("fails").poll().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "pool `test` cannot connect: the scripted failure");
    assert!(error.source().is_none(), "what prints the sources does not repeat it");
    assert_eq!(error.outcome(), Outcome::Error);
    assert_eq!(test.closed(CloseReason::ConnectFailed), 1);
    assert_eq!(test.snapshot().create_time.count(), 0, "successes only");
}

#[tokio::test(start_paused = true)]
async fn panicked_checkout_is_in_flight_until_dropped() {
    let test = TestPool::new(1, 0);
    test.backend.push_connect(Behavior::Panic);
    // Not wrapped in a future of the test, which would be dropped as the panic passes.
    let operation: &'static _ = Box::leak(Box::new(test.pool.operation("kept")));
    let mut attempt = ManualFuture::new(operation.get());
    assert!(attempt.try_poll().is_err());
    let snapshot = test.pool.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.connections.live(), test.backend.live()), (1, 0, 0));
    drop(attempt);
    assert_eq!(test.outcomes("kept", Outcome::Cancelled), 1);
    test.assert_usable();
}

/// A future that is kept and not polled times out although it could have gone on: the error says so.
#[tokio::test(start_paused = true)]
async fn late_poll_is_reported() {
    let late_poll = |result: Option<super::harness::CheckoutResult>| {
        let Some(Err(CheckoutError::Timeout(report))) = result else { panic!("no timeout") };
        let text = report.to_string();
        let late = report.late_poll.map(|late| (late.ready_at, late.polled_at));
        assert_eq!(text.contains("its task did not poll the checkout: ready at "), late.is_some(), "{text}");
        late
    };
    // It queues, and is offered a connection that has to be pinged by now.
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    let mut kept = test.checkout("kept").assert_pending();
    test.advance(ms(20)).await;
    drop(held);
    test.backend.set_ping(Behavior::Blocked);
    test.advance(ms(5000)).await;
    let (ready, polled) = late_poll(kept.poll()).unwrap();
    // The state's time is kept in units of 1,024 ns.
    assert_eq!((ready.as_millis(), polled), (19, ms(5020)));

    // Its attempt to connect ends, and it would try again.
    let mut settings = settings(1, 0);
    settings.fail_fast = false;
    let test = TestPool::with(&settings);
    test.backend.set_connect(Behavior::Blocked);
    let mut kept = test.checkout("kept").assert_pending();
    test.advance(ms(30)).await;
    test.backend.release(0, Completion::Down);
    test.advance(ms(700)).await;
    assert!(kept.poll().is_none());
    test.advance(ms(271)).await;
    assert_eq!(late_poll(kept.poll()), Some((ms(30), ms(730))));

    // It waits for its turn to connect, which comes.
    let test = TestPool::with(&settings);
    test.backend.push_connect(Behavior::Down);
    test.backend.set_connect(Behavior::Blocked);
    let mut kept = test.checkout("kept").assert_pending();
    test.advance(ms(50)).await;
    test.advance(ms(3000)).await;
    assert_eq!(late_poll(kept.poll()), Some((ms(50), ms(3050))));

    // Only its deadline passes.
    let test = TestPool::new(1, 0);
    let _held = test.get("holder");
    let mut kept = test.checkout("kept").assert_pending();
    test.advance(ms(4000)).await;
    assert_eq!(late_poll(kept.poll()), Some((ms(1000), ms(4000))));

    // It is polled in time.
    let mut polled = test.checkout("polled").assert_pending();
    test.advance(ms(1001)).await;
    assert_eq!(late_poll(polled.poll()), None);
}

/// The pool's clock may jump, as when a machine is suspended; deadlines are timers of tokio.
#[tokio::test(start_paused = true)]
async fn jump_of_the_clock_keeps_waiters_and_counters() {
    let test = TestPool::new(1, 0);
    let held = test.get("holder");
    let mut waiting = test.checkout("waits").assert_pending();
    let before = test.snapshot();
    test.advance_pool_clock(ms(86_400_000));
    super::invariants::check_monotonic(&before, &test.snapshot());
    assert!(waiting.poll().is_none(), "it still waits");
    drop(held);
    // The connection seems to be a day old, and is replaced.
    drop(waiting.poll().expect("it is served").expect("backend succeeds"));
    assert_eq!(test.closed(CloseReason::Recycled), 1);
    test.assert_usable();
}
