//! The hook that is called before each checkout.

use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, ErrorPhase, Outcome, Phase};

use super::backend::{Behavior, Completion, ScriptedBackend, TRANSIENT_ERROR};
use super::harness::{TestPool, ms, settings, totals};

fn pool() -> TestPool {
    let backend = ScriptedBackend::default();
    backend.set_hook(Behavior::Ok);
    TestPool::with_backend(&settings(3, 0), backend)
}

fn errors(test: &TestPool) -> u64 {
    let snapshot = test.snapshot();
    snapshot.errors.iter().filter(|errors| errors.phase == ErrorPhase::Hook).map(|errors| errors.count).sum()
}

#[tokio::test(start_paused = true)]
async fn called_at_each_checkout() {
    let test = pool();
    for calls in 1..=4 {
        drop(test.get("load"));
        assert_eq!(test.backend.hooks().started(), calls);
    }
    // The ping is due after 0.5 s, as without a hook.
    assert_eq!(test.backend.pings().started(), 0);
    test.advance(ms(500)).await;
    drop(test.get("load"));
    assert_eq!((test.backend.pings().started(), test.backend.hooks().started()), (1, 5));
    assert_eq!((test.backend.opened(), errors(&test)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn failure_moves_on_to_the_next_connection() {
    let test = pool();
    drop(test.get_many("before", 3));
    test.backend.push_hook(Behavior::Error);
    test.backend.push_hook(Behavior::Error);
    drop(test.get("load"));
    assert_eq!((test.closed(CloseReason::HookFailed), errors(&test), test.backend.opened()), (2, 2, 3));
    // If all of them fail, it connects.
    test.backend.push_hook(Behavior::Error);
    drop(test.get("load"));
    assert_eq!((test.closed(CloseReason::HookFailed), test.backend.opened()), (3, 4));
    assert_eq!(test.outcomes("load", Outcome::Ok), 2);
}

#[tokio::test(start_paused = true)]
async fn failure_with_a_new_connection_fails_the_checkout() {
    let test = pool();
    drop(test.get("before"));
    test.backend.set_hook(Behavior::Error);
    let error = test.checkout("load").poll().unwrap().unwrap_err();
    assert!(matches!(error, CheckoutError::Connect { source: TRANSIENT_ERROR, .. }), "{error:?}");
    // One that was idle, and one that was opened.
    assert_eq!((test.closed(CloseReason::HookFailed), test.backend.opened(), errors(&test)), (2, 2, 2));
    assert_eq!(test.outcomes("load", Outcome::Error), 1);
    test.backend.recover();
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn deadline_of_the_checkout_bounds_it() {
    let test = pool();
    drop(test.get("before"));
    test.backend.set_hook(Behavior::Blocked);
    let mut waiting = test.checkout("load").assert_pending();
    let snapshot = test.pool.snapshot();
    assert_eq!((snapshot.waiters[0].phase, snapshot.connections.used), (Phase::Hook, 1));
    test.advance(ms(1001)).await;
    let CheckoutError::Timeout(report) = waiting.poll().unwrap().unwrap_err() else { panic!("no timeout") };
    assert_eq!(report.phase, Phase::Hook);
    assert!(report.to_string().contains("in the hook before_checkout"), "{report}");
    assert_eq!((test.pool.snapshot().closed[CloseReason::HookAbandoned.index()], test.backend.live()), (1, 0));
    assert_eq!(test.phase(Phase::Hook), ms(1001));
    test.backend.recover();
    test.assert_usable();
}

/// Returns for how many milliseconds these operations have held connections. States begin to the microsecond.
fn held(test: &TestPool) -> [u64; 2] {
    let snapshot = test.pool.snapshot();
    ["before", "load"].map(|operation| totals(&snapshot, operation).activity_nanos.iter().sum::<u64>() / 1_000_000)
}

/// The time of the hook belongs to the operation that called it, also while the server executes what the hook has left.
#[tokio::test(start_paused = true)]
async fn operation_that_called_it_owns_its_time() {
    for behavior in [Behavior::Blocked, Behavior::After(ms(1000), Completion::Error)] {
        let test = pool();
        test.backend.set_end(Behavior::Blocked);
        test.get("before").mark_executing();
        test.backend.push_hook(behavior);
        let mut waiting = test.checkout("load").assert_pending();
        test.advance(ms(1000)).await;
        assert_eq!(held(&test), [0, 1000]);
        test.advance(ms(1)).await;
        drop(waiting.poll());
        assert_eq!(test.snapshot().connections.closing, 1);
        test.advance(ms(500)).await;
        assert_eq!(held(&test), [0, 1501]);
        test.release_all(Completion::Ok).await;
        assert_eq!((held(&test), test.snapshot().connections.closing), ([0, 1501], 0));
    }
}

/// An attempt to connect has one limit, which includes the hook.
#[tokio::test(start_paused = true)]
async fn limit_of_an_attempt_includes_it() {
    let mut settings = settings(1, 0);
    (settings.connect_timeout, settings.checkout_timeout) = (ms(1000), ms(30_000));
    let backend = ScriptedBackend::default();
    backend.set_hook(Behavior::Blocked);
    backend.set_connect(Behavior::After(ms(1500), Completion::Ok));
    let test = TestPool::with_backend(&settings, backend);
    let mut waiting = test.checkout("load").assert_pending();
    for millis in [1500, 499] {
        test.advance(ms(millis)).await;
        assert!(waiting.poll().is_none());
    }
    assert_eq!(test.backend.hooks().running(), 1);
    test.advance(ms(2)).await;
    assert!(waiting.poll().is_some_and(|result| result.is_err()));
    assert_eq!((errors(&test), test.backend.live()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn dropped_checkout_closes_the_connection() {
    let test = pool();
    drop(test.get("before"));
    test.backend.set_hook(Behavior::Blocked);
    drop(test.checkout("load").assert_pending());
    assert_eq!((test.closed(CloseReason::HookAbandoned), test.outcomes("load", Outcome::Cancelled)), (1, 1));
    // A new connection goes to the pool once its hook has ended.
    drop(test.checkout("load").assert_pending());
    test.release_all(Completion::Ok).await;
    assert_eq!((test.snapshot().connections.idle, test.backend.opened()), (1, 2));
    test.backend.recover();
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn panic_closes_the_connection() {
    let test = pool();
    drop(test.get("before"));
    test.backend.push_hook(Behavior::Panic);
    assert!(test.checkout("load").try_poll().is_err());
    assert_eq!((test.closed(CloseReason::HookAbandoned), test.outcomes("load", Outcome::Cancelled)), (1, 1));
    test.assert_usable();
}
