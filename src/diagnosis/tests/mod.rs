//! Verdicts from synthetic intervals.

mod caches;
pub(super) mod intervals;
pub(super) mod properties;

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use self::intervals::{exhausted, healthy, lock};
use super::engine::State;
use super::interval::{BUCKETS, Interval, SelfBlocked, ServerState};
use super::locks::{LockBlock, LockParty};
use crate::labels::{Activity, BackendState, Cause, CloseReason, ErrorCode, Outcome, Phase};
use crate::telemetry::clock::Clock;
use crate::telemetry::ledger::Ledger;
use crate::telemetry::{BlockedBackend, Evidence, Holder, Limits, ServerPoll, ServerView, Verdict};

const EXECUTING: usize = Activity::Executing.index();
const IDLE: usize = Activity::Idle.index();
const IN_TRANSACTION: usize = Activity::IdleInTransaction.index();

struct Diagnosis {
    state: State,
    verdict: Option<Verdict>,
}

impl Diagnosis {
    /// Starts with a healthy minute.
    fn new() -> Self {
        let mut diagnosis = Self { state: State::default(), verdict: None };
        diagnosis.run(60, healthy);
        diagnosis
    }

    fn run(&mut self, seconds: usize, second: impl Fn() -> Interval) -> &Verdict {
        for _ in 0..seconds {
            self.verdict = Some(self.state.push(second()));
        }
        self.verdict.as_ref().unwrap()
    }

    fn cause(&self) -> Cause {
        self.verdict.as_ref().unwrap().cause
    }
}

/// Returns the verdict after a healthy minute and half a minute of the fault.
fn diagnose(second: impl Fn() -> Interval) -> Verdict {
    Diagnosis::new().run(30, second).clone()
}

#[test]
fn healthy_pool_is_healthy() {
    let mut diagnosis = Diagnosis { state: State::default(), verdict: None };
    assert_eq!(diagnosis.run(2, healthy).cause, Cause::NotEnoughData);
    let verdict = diagnosis.run(60, healthy);
    assert_eq!((verdict.cause, &*verdict.advice), (Cause::Healthy, ""));
    let is_usual = |evidence: &Evidence| (evidence.usual.unwrap() - evidence.value).abs() <= 0.001 * evidence.value;
    assert!(verdict.evidence.iter().all(is_usual), "{verdict:?}");
    // At rest for an hour.
    let verdict = diagnosis.run(3600, || Interval { seconds: 1.0, max: 10.0, idle: 5.0, ..Interval::default() });
    assert_eq!(verdict.cause, Cause::Healthy);
}

#[test]
fn busy_pool_with_short_waits_is_healthy() {
    let verdict = diagnose(|| {
        let mut second = exhausted("list_orders", [9.5, 0.0, 0.0]);
        (second.saturated, second.oldest_wait, second.queued) = (0.8, 0.02, 1.0);
        second.outcomes = [0.0; Outcome::COUNT];
        second.outcomes[Outcome::Ok.index()] = 950.0;
        second.waits = [0.0; BUCKETS];
        (second.waits[0], second.waits[4]) = (200.0, 750.0);
        second
    });
    assert_eq!(verdict.cause, Cause::Healthy);
}

#[test]
fn one_burst_is_healthy_and_repeated_ones_are_not() {
    let mut diagnosis = Diagnosis::new();
    diagnosis.run(1, || exhausted("list_orders", [10.0, 0.0, 0.0]));
    for _ in 0..60 {
        diagnosis.run(1, healthy);
        assert_eq!(diagnosis.cause(), Cause::Healthy);
    }
    for _ in 0..8 {
        diagnosis.run(1, || exhausted("list_orders", [10.0, 0.0, 0.0]));
        diagnosis.run(5, healthy);
    }
    assert_eq!(diagnosis.cause(), Cause::Burst);
    assert_eq!(diagnosis.run(120, healthy).cause, Cause::Healthy);
}

#[test]
fn quick_queries_that_exhaust_the_pool_mean_undersized() {
    let verdict = diagnose(|| {
        let mut second = exhausted("checkout_rush", [9.0, 0.5, 0.5]);
        second.operations[0].queries = 500.0;
        second
    });
    assert_eq!((verdict.cause, verdict.operation.as_deref()), (Cause::Undersized, Some("checkout_rush")));
    assert!(verdict.call_site.is_some() && verdict.consequences.is_empty(), "{verdict:?}");
}

#[test]
fn slow_queries_come_before_the_exhausted_pool() {
    let verdict = diagnose(|| {
        let mut second = exhausted("list_orders", [10.0, 0.0, 0.0]);
        second.operations[0].queries = 10.0;
        second
    });
    assert_eq!((verdict.cause, verdict.operation.as_deref()), (Cause::SlowQueries, Some("list_orders")));
    assert_eq!(verdict.consequences, [Cause::Undersized]);
    let query = verdict.evidence.iter().find(|evidence| evidence.name == "query_time").unwrap();
    // 150 connection-seconds of 150 queries that ended and 10 that run.
    assert!((query.value - 150.0 / 160.0).abs() < 1e-9 && query.usual.is_some_and(|usual| usual < 0.01), "{query:?}");
}

#[test]
fn holding_without_a_query_is_told_apart() {
    for (held, cause) in [([1.0, 9.0, 0.0], Cause::HeldIdle), ([1.0, 0.0, 9.0], Cause::IdleInTransaction)] {
        let verdict = diagnose(|| exhausted("export_report", held));
        assert_eq!((verdict.cause, verdict.operation.as_deref()), (cause, Some("export_report")));
        assert_eq!(verdict.consequences, [Cause::Undersized]);
    }
    assert_eq!((IDLE, IN_TRANSACTION), (1, 2), "the order of the arrays above");
}

#[test]
fn leak_explains_held_connections() {
    let verdict = diagnose(|| {
        let mut second = exhausted("count_customers", [0.0, 10.0, 0.0]);
        second.suspected_leaks = 9.0;
        second.holders[0].suspected_leaks = 9.0;
        second.holders[0].silent = 40.0;
        second
    });
    assert_eq!((verdict.cause, verdict.operation.as_deref()), (Cause::Leak, Some("count_customers")));
    assert_eq!(verdict.consequences, [Cause::HeldIdle, Cause::Undersized]);
}

#[test]
fn self_deadlock_names_holder_and_waiter() {
    let verdict = diagnose(|| {
        let mut second = exhausted("place_order", [0.0, 0.0, 10.0]);
        second.self_blocked = 10.0;
        second.first_self_blocked = Some(SelfBlocked {
            operation: "write_audit".into(),
            held_by: "place_order".into(),
            held_at: Some(Location::caller().into()),
            waits_at: Location::caller().into(),
        });
        second
    });
    assert_eq!((verdict.cause, verdict.operation.as_deref()), (Cause::SelfDeadlock, Some("place_order")));
    assert!(verdict.finding.contains("`write_audit`"), "{}", verdict.finding);
    assert!(verdict.consequences.contains(&Cause::IdleInTransaction));
}

#[test]
fn lock_wait_says_who_blocks_whom() {
    let second = |blocker: Option<LockParty>| {
        move || {
            let mut second = exhausted("update_stock", [10.0, 0.0, 0.0]);
            second.blocked_on_locks = 9.0;
            second.first_lock = Some(lock(blocker.clone()));
            second
        }
    };
    let verdict = diagnose(second(None));
    assert_eq!((verdict.cause, verdict.operation.as_deref()), (Cause::LockWait, Some("update_stock")));
    for part in ["`psql` (user admin, pid 4711)", "idle in a transaction for 5 min", "`update_stock` at src/"] {
        assert!(verdict.finding.contains(part), "{}", verdict.finding);
    }
    assert_eq!(verdict.consequences, [Cause::SlowQueries, Cause::Undersized]);
    let own = LockParty { operation: "export".into(), call_site: Some(Location::caller().into()) };
    let verdict = diagnose(second(Some(own)));
    assert_eq!(verdict.operation.as_deref(), Some("export"));
    assert!(verdict.finding.contains("`export` at src/diagnosis/tests/"), "{}", verdict.finding);
}

/// The server's view may be a second older than the list of holders.
#[test]
fn later_holder_of_a_connection_is_not_blamed_for_a_lock() {
    let ledger = Ledger::new("shop".into(), Limits::for_tests(), Clock::new());
    let mut snapshot = ledger.snapshot();
    let seconds = Duration::from_secs;
    let holder = |pid: i32, operation: &str, age: u64| Holder {
        operation: operation.into(),
        call_site: None,
        age: seconds(age),
        activity: Some(Activity::Executing),
        silent: Duration::ZERO,
        queries: 1,
        backend_pid: Some(pid),
        maintenance: false,
        suspected_leak: false,
        waits_for_own_pool: false,
        trace: None,
        request: None,
    };
    let blocked = BlockedBackend {
        pid: 1,
        waiting: seconds(8),
        blocker_pid: 2,
        blocker_application: "shop".into(),
        blocker_user: "app".into(),
        blocker_state: BackendState::IdleInTransaction,
        blocker_state_age: seconds(9),
    };
    snapshot.server = Some(ServerPoll::Seen(Arc::new(ServerView {
        lock_waiters: 1,
        oldest_transaction: seconds(9),
        oldest_idle_in_transaction: seconds(9),
        blocked: vec![blocked],
        ..ServerView::for_tests()
    })));
    snapshot.holders = vec![holder(1, "update_stock", 8), holder(2, "import", 9)];
    let (count, block) = LockBlock::find(&snapshot);
    assert_eq!((count, block.unwrap().blocker.unwrap().operation.as_ref()), (1.0, "import"));
    // The connection was returned, and the next one has it.
    snapshot.holders[1] = holder(2, "update_stock", 0);
    assert!(matches!(LockBlock::find(&snapshot), (0.0, None)));
    snapshot.holders = vec![holder(1, "browse", 0), holder(2, "import", 9)];
    assert!(matches!(LockBlock::find(&snapshot), (0.0, None)));
}

#[test]
fn failing_connects_are_told_apart() {
    let failing = |full: bool| {
        move || {
            let mut second = exhausted("list_orders", [0.0, 0.0, 0.0]);
            (second.connecting, second.suspended) = (1.0, 5.0);
            if full {
                second.refused = 1.0;
                let top_application = Some(("nightly".into(), 80.0));
                second.server = Some(ServerState { slots: 97.0, top_application, ..ServerState::default() });
            } else {
                second.connect_failures = 1.0;
                second.last_connect_failure = Some(ErrorCode::IO);
            }
            second
        }
    };
    let verdict = diagnose(failing(false));
    assert_eq!((verdict.cause, verdict.operation), (Cause::ServerDown, None));
    let verdict = diagnose(failing(true));
    assert_eq!(verdict.cause, Cause::ServerFull);
    assert!(verdict.finding.contains("`nightly` has 80"), "{}", verdict.finding);
}

#[test]
fn slow_connects_churn_and_retries_are_recognized() {
    let verdict = diagnose(|| {
        let mut second = healthy();
        second.connecting = 2.0;
        second.phases[Phase::Connect.index()] = 2.0;
        second.waits[10] = 2.0;
        second
    });
    assert_eq!(verdict.cause, Cause::ConnectSlow);
    let verdict = diagnose(|| {
        let mut second = healthy();
        second.closed[CloseReason::Discarded.index()] = 30.0;
        second
    });
    assert_eq!(verdict.cause, Cause::Churn);
    assert!(verdict.finding.contains("discarded"), "{}", verdict.finding);
    // Connections of a pool that shrinks are not replaced.
    let verdict = diagnose(|| {
        let mut second = healthy();
        second.closed[CloseReason::Overflow.index()] = 30.0;
        second.closed[CloseReason::Resized.index()] = 60.0;
        second
    });
    assert!(verdict.finding.contains("most with reason overflow"), "{}", verdict.finding);
    let verdict = diagnose(|| {
        let mut second = healthy();
        second.retries = 30.0;
        second.operations[0].retries = 30.0;
        second
    });
    assert_eq!((verdict.cause, verdict.operation.as_deref()), (Cause::RetryStorm, Some("list_orders")));
}

#[test]
fn late_timers_mean_that_the_runtime_stalls() {
    let verdict = diagnose(|| {
        let mut second = exhausted("list_orders", [10.0, 0.0, 0.0]);
        (second.late, second.seconds) = (0.8, 1.8);
        second
    });
    assert_eq!(verdict.cause, Cause::RuntimeStalled);
    assert!(verdict.consequences.contains(&Cause::Undersized), "{verdict:?}");
}

/// A stall between two samples delays no checkout if checkouts begin after it, but everything else.
#[test]
fn long_stalls_need_no_waits() {
    let mut churning = healthy();
    churning.closed[CloseReason::Overflow.index()] = 12.0;
    let stalled = |late: f64| {
        let verdict = diagnose(|| Interval { late, ..churning.clone() });
        (verdict.cause, verdict.consequences)
    };
    assert_eq!(stalled(0.3), (Cause::RuntimeStalled, vec![Cause::Churn]));
    // Late, but by less than a request takes.
    assert_eq!(stalled(0.15).0, Cause::Churn);
}

/// Samples become fewer while the runtime stalls.
#[test]
fn late_samples_are_weighed_by_their_length() {
    let mut diagnosis = Diagnosis::new();
    diagnosis.run(5, || {
        let mut second = exhausted("list_orders", [10.0, 0.0, 0.0]);
        (second.late, second.seconds) = (1.5, 2.5);
        second
    });
    assert_eq!(diagnosis.cause(), Cause::RuntimeStalled);
}

#[test]
fn consequence_waits_for_its_cause() {
    let mut diagnosis = Diagnosis::new();
    let mut causes = Vec::new();
    for second in 0..20 {
        // All connections leak; what holds them is idle long before they count as leaks.
        diagnosis.run(1, || {
            let mut leaking = exhausted("count_customers", [0.0, 10.0, 0.0]);
            let leaks = if second < 6 { 0.0 } else { 10.0 };
            (leaking.suspected_leaks, leaking.holders[0].suspected_leaks) = (leaks, leaks);
            leaking
        });
        causes.push(diagnosis.cause());
    }
    causes.dedup();
    assert_eq!(causes, [Cause::Healthy, Cause::Leak]);
}

/// A cause that only ever seems near does not suppress its consequence.
#[test]
fn waiting_for_an_explanation_ends() {
    let verdict = diagnose(|| {
        // A quarter is held idle: enough for the relaxed condition of `held_idle` only.
        let mut second = exhausted("checkout_rush", [5.0, 2.5, 0.0]);
        second.operations[0].queries = 500.0;
        second.operations[0].held = [0.5, 2.5, 0.0];
        second.held = [2.3, 2.5, 0.0];
        second
    });
    assert_eq!((verdict.cause, verdict.consequences.len()), (Cause::Undersized, 0));
}

/// One checkout of a hundred decides about the percentile of a single second.
#[test]
fn few_waits_of_a_second_are_no_peak() {
    let peak = |waits: f64| {
        let mut diagnosis = Diagnosis::new();
        for _ in 0..6 {
            diagnosis.run(1, || {
                let mut second = healthy();
                (second.saturated, second.phases[Phase::Queue.index()]) = (0.3, 1.0);
                (second.waits[0], second.waits[9]) = (100.0 - waits, waits);
                second
            });
            diagnosis.run(4, healthy);
        }
        diagnosis.cause()
    };
    assert_eq!((peak(2.0), peak(10.0)), (Cause::Healthy, Cause::Burst));
}

/// The sampler's clock is monotonic; a jump is a process or machine that was suspended.
#[test]
fn suspension_is_a_gap_and_no_problem() {
    let mut diagnosis = Diagnosis::new();
    let gap = |seconds: f64| {
        let mut gap = exhausted("list_orders", [0.0, 8.0, 0.0]);
        (gap.seconds, gap.late, gap.saturated) = (seconds, seconds - 1.0, seconds);
        gap.held.iter_mut().for_each(|held| *held *= seconds);
        gap
    };
    for seconds in [3600.0, 20.0, 4.0] {
        // The last verdict remains, or a single late sample proves nothing.
        assert!(diagnosis.state.add(gap(seconds)).is_none_or(|verdict| !verdict.is_problem()), "{seconds}");
        for _ in 0..40 {
            let cause = diagnosis.run(1, healthy).cause;
            assert!(matches!(cause, Cause::Healthy | Cause::NotEnoughData), "{seconds}: {}", cause.as_str());
        }
    }
}

#[test]
fn percentiles_are_interpolated() {
    let mut diagnosis = Diagnosis::new();
    let p99 = |verdict: &Verdict| verdict.evidence.iter().find(|evidence| evidence.name == "wait_p99").unwrap().value;
    // 2 of 100 waited for 100 to 250 ms: the 99th percentile is in the middle of them.
    let verdict = diagnosis.run(20, || {
        let mut second = healthy();
        second.waits = [0.0; BUCKETS];
        (second.waits[0], second.waits[8]) = (98.0, 2.0);
        second
    });
    assert!((p99(verdict) - 0.175).abs() < 1e-9, "{verdict:?}");
}

#[test]
fn restart_of_all_connections_is_no_churn() {
    let mut diagnosis = Diagnosis::new();
    diagnosis.run(1, || {
        let mut second = healthy();
        second.closed[CloseReason::Broken.index()] = 10.0;
        (second.connecting, second.connect_failures) = (12.0, 2.0);
        second
    });
    for _ in 0..60 {
        assert_eq!(diagnosis.run(1, healthy).cause, Cause::Healthy);
    }
}

#[test]
fn verdict_comes_within_30_seconds_and_does_not_flap() {
    let mut diagnosis = Diagnosis::new();
    let held = || exhausted("export_report", [1.0, 9.0, 0.0]);
    let mut causes = vec![diagnosis.cause()];
    let mut follow = |diagnosis: &Diagnosis| {
        if causes.last() != Some(&diagnosis.cause()) {
            causes.push(diagnosis.cause());
        }
    };
    for _ in 0..25 {
        diagnosis.run(1, held);
        follow(&diagnosis);
    }
    // On and off, several times a minute.
    for _ in 0..20 {
        diagnosis.run(4, held);
        follow(&diagnosis);
        diagnosis.run(4, healthy);
        follow(&diagnosis);
    }
    for _ in 0..60 {
        diagnosis.run(1, healthy);
        follow(&diagnosis);
    }
    assert_eq!(causes, [Cause::Healthy, Cause::HeldIdle, Cause::Healthy]);
}

#[test]
fn coarse_samples_suffice_and_are_mentioned() {
    let mut diagnosis = Diagnosis { state: State::default(), verdict: None };
    let coarse = |mut second: Interval| {
        second.seconds *= 15.0;
        second.saturated *= 15.0;
        second.held.iter_mut().for_each(|held| *held *= 15.0);
        second.operations[0].held.iter_mut().for_each(|held| *held *= 15.0);
        second
    };
    diagnosis.run(4, || coarse(healthy()));
    assert_eq!(diagnosis.cause(), Cause::Healthy);
    let verdict = diagnosis.run(2, || coarse(exhausted("export_report", [1.0, 9.0, 0.0])));
    assert_eq!(verdict.cause, Cause::HeldIdle);
    assert!(verdict.to_string().contains("sampled every 15s"), "{verdict}");
}

#[test]
fn message_has_finding_call_site_duration_and_advice() {
    let text = diagnose(|| exhausted("export_report", [1.0, 9.0, 0.0])).to_string();
    assert!(text.starts_with("`export_report` holds most of the 9 of 10 connections"), "{text}");
    assert!(text.contains(" (src/diagnosis/tests/") && text.contains("for 2"), "{text}");
    assert!(text.ends_with("share of the pool."), "{text}");
}
