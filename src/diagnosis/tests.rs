//! Verdicts from synthetic intervals, and properties of all verdicts.

use std::panic::Location;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::call_site::CallSite;
use super::engine::State;
use super::interval::{BUCKETS, HolderGroup, Interval, OperationInterval, SelfBlocked, ServerState};
use super::locks::{LockBlock, LockParty};
use super::rules::RULES;
use crate::labels::{Activity, BackendState, Cause, CloseReason, ErrorCode, ErrorPhase, Outcome, Phase, ServerRole};
use crate::telemetry::clock::{Clock, Nanos};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::{
    Backends, BlockedBackend, ConnectionErrors, Evidence, Holder, Limits, OwnConnection, PoolSnapshot, Retries,
    ServerPoll, ServerView, Verdict, Waiter,
};

const EXECUTING: usize = Activity::Executing.index();
const IDLE: usize = Activity::Idle.index();
const IN_TRANSACTION: usize = Activity::IdleInTransaction.index();

/// A second of a healthy pool of 10: 100 checkouts of 10 ms, which execute two queries each.
pub(super) fn healthy() -> Interval {
    let mut second = Interval { seconds: 1.0, max: 10.0, used: 1.0, idle: 4.0, ..Interval::default() };
    second.started = 100.0;
    second.returned = 100.0;
    second.outcomes[Outcome::Ok.index()] = 100.0;
    second.waits[0] = 100.0;
    second.queries = 200.0;
    hold(&mut second, "list_orders", [0.9, 0.1, 0.0]);
    second.operations[0].queries = 200.0;
    second
}

/// Adds connections held by an operation.
#[track_caller]
fn hold(second: &mut Interval, name: &str, held: [f64; Activity::COUNT]) {
    let name: Arc<str> = name.into();
    for (sum, held) in second.held.iter_mut().zip(held) {
        *sum += held;
    }
    let connections = held.iter().sum();
    second.operations.push(OperationInterval {
        name: Arc::clone(&name),
        held,
        waited: 0.0,
        started: 100.0,
        queries: 0.0,
        retries: 0.0,
    });
    second.holders.push(HolderGroup {
        operation: name,
        call_site: Some(Location::caller().into()),
        connections,
        activities: held,
        suspected_leaks: 0.0,
        oldest: 1.0,
        silent: if held[EXECUTING] < connections { 1.0 } else { 0.0 },
    });
    second.used = second.held.iter().sum();
}

/// A second in which the pool is exhausted: most checkouts wait for a second and some time out.
#[track_caller]
pub(super) fn exhausted(name: &str, held: [f64; Activity::COUNT]) -> Interval {
    let mut second =
        Interval { seconds: 1.0, max: 10.0, idle: 0.0, queued: 20.0, oldest_wait: 1.5, ..Interval::default() };
    second.saturated = 1.0;
    second.started = 50.0;
    second.outcomes[Outcome::Ok.index()] = 45.0;
    second.outcomes[Outcome::Timeout.index()] = 5.0;
    second.waits[10] = 50.0;
    second.phases[Phase::Queue.index()] = 20.0;
    hold(&mut second, name, held);
    second
}

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

fn lock(blocker: Option<LockParty>) -> LockBlock {
    LockBlock {
        waiter: LockParty { operation: "update_stock".into(), call_site: Some(Location::caller().into()) },
        blocker,
        application: "psql".into(),
        user: "admin".into(),
        state: BackendState::IdleInTransaction,
        pid: 4711,
        state_seconds: 300.0,
        waiting: 12.0,
    }
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
    assert!(verdict.finding.contains("`export` at src/diagnosis/tests.rs"), "{}", verdict.finding);
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
        seen_at: SystemTime::UNIX_EPOCH,
        version: "17.2".into(),
        role: ServerRole::Primary,
        backends: Vec::new(),
        slots: 10,
        slots_left: 1,
        lock_waiters: 1,
        oldest_transaction: seconds(9),
        oldest_idle_in_transaction: seconds(9),
        blocked: vec![blocked],
        unowned: None,
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
    assert!(text.contains(" (src/diagnosis/tests.rs:") && text.contains("for 2"), "{text}");
    assert!(text.ends_with("share of the pool."), "{text}");
}

/// Returns an interval in which every member has a value other than the default.
pub(super) fn full_interval() -> Interval {
    let site = || CallSite::Recorded("src/orders.rs:7".into());
    let mut interval = Interval {
        seconds: 1.25,
        late: 0.25,
        max: 10.0,
        used: 8.0,
        idle: 1.0,
        creating: 1.0,
        closing: 2.0,
        queued: 3.0,
        in_flight: 5.0,
        oldest_wait: 0.5,
        suspected_leaks: 2.0,
        suspended: 1.5,
        self_blocked: 1.0,
        blocked_on_locks: 2.0,
        started: 50.0,
        returned: 40.0,
        queries: 90.0,
        saturated: 0.75,
        connecting: 2.0,
        connect_failures: 1.0,
        refused: 1.0,
        retries: 3.0,
        budget_refusals: 1.0,
        last_connect_failure: Some(ErrorCode::new("28P01")),
        errors: vec![(ErrorCode::new("40001"), 3.0), (ErrorCode::new("08006"), 1.0)],
        ..Interval::default()
    };
    interval.outcomes = std::array::from_fn(|index| index as f64 + 1.0);
    interval.waits = std::array::from_fn(|index| index as f64 + 1.0);
    interval.held = [4.0, 2.0, 1.0];
    interval.phases = std::array::from_fn(|index| index as f64 + 0.5);
    interval.closed = std::array::from_fn(|index| index as f64 + 1.0);
    interval.operations.push(OperationInterval {
        name: "list_orders".into(),
        held: [4.0, 2.0, 1.0],
        waited: 1.5,
        started: 50.0,
        queries: 90.0,
        retries: 3.0,
    });
    interval.holders.push(HolderGroup {
        operation: "list_orders".into(),
        call_site: Some(site()),
        connections: 7.0,
        activities: [4.0, 2.0, 1.0],
        suspected_leaks: 2.0,
        oldest: 70.0,
        silent: 65.0,
    });
    interval.server = Some(ServerState {
        unreachable: true,
        slots: 97.0,
        slots_left: 4.0,
        unowned: [3.0, 9.0],
        top_application: Some(("nightly".into(), 80.0)),
    });
    interval.first_self_blocked = Some(SelfBlocked {
        operation: "write_audit".into(),
        held_by: "place_order".into(),
        held_at: Some(site()),
        waits_at: site(),
    });
    let party = || LockParty { operation: "export".into(), call_site: Some(site()) };
    interval.first_lock = Some(LockBlock { waiter: party(), blocker: Some(party()), ..lock(None) });
    interval
}

/// Any number that a counter or a gauge may have, with the extremes.
fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..100.0,
        2 => Just(0.0),
        1 => Just(u64::MAX as f64),
        1 => 0.0..1e-9,
        1 => any::<u32>().prop_map(f64::from),
    ]
}

prop_compose! {
    pub(super) fn any_interval()(
        numbers in prop::collection::vec(any_number(), 48),
        has in any::<[bool; 6]>(),
        length in prop_oneof![Just(1.0), Just(15.0), 1e-3..1e9],
    ) -> Interval {
        let mut next = numbers.into_iter().cycle();
        let mut number = || next.next().unwrap();
        let mut interval = Interval {
            seconds: length, late: number(), max: number(), used: number(), idle: number(), creating: number(),
            queued: number(), oldest_wait: number(), suspected_leaks: number(), suspended: number(),
            self_blocked: number(), blocked_on_locks: number(), started: number(), returned: number(),
            queries: number(), saturated: number(), connecting: number(), connect_failures: number(), refused: number(), retries: number(),
            budget_refusals: number(), ..Interval::default()
        };
        interval.outcomes = std::array::from_fn(|_| number());
        interval.waits = std::array::from_fn(|_| number());
        interval.phases = std::array::from_fn(|_| number());
        interval.closed = std::array::from_fn(|_| number());
        if has[0] {
            hold(&mut interval, "a", [number(), number(), number()]);
            interval.holders[0].suspected_leaks = number();
            interval.holders[0].silent = number();
            interval.operations[0].queries = number();
            interval.operations[0].retries = number();
        }
        if has[1] {
            hold(&mut interval, "b", [number(), number(), number()]);
        }
        if has[2] {
            interval.server = Some(ServerState {
                unreachable: has[3], slots: number(), slots_left: number(), unowned: [number(), number()],
                top_application: has[4].then(|| ("app".into(), number())),
            });
            interval.first_lock = Some(lock(None));
        }
        if has[5] {
            interval.last_connect_failure = Some(ErrorCode::new("28P01"));
        }
        interval
    }
}

/// Snapshots of which each counter has any value, also one that is smaller than before.
fn any_snapshot() -> impl Strategy<Value = PoolSnapshot> {
    let numbers = prop::collection::vec(prop_oneof![4 => 0..1000_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)], 97);
    (numbers, any::<[bool; 4]>()).prop_map(|(numbers, has)| {
        let mut numbers = numbers.into_iter().cycle();
        let mut number = || numbers.next().unwrap();
        let time = Duration::from_nanos;
        // A ledger is large.
        static SNAPSHOT: LazyLock<PoolSnapshot> =
            LazyLock::new(|| Ledger::new("any".into(), Limits::for_tests(), Clock::new()).snapshot());
        let mut snapshot = SNAPSHOT.clone();
        snapshot.connections.used = number() as usize;
        snapshot.connections.idle = number() as usize;
        snapshot.connections.creating = number() as usize;
        (snapshot.queued, snapshot.suspected_leaks) = (number() as usize, number() as usize);
        (snapshot.oldest_wait, snapshot.connecting_suspended) = (time(number()), time(number()));
        (snapshot.saturated_nanos, snapshot.created) = (number(), number());
        snapshot.wait_time.buckets = std::array::from_fn(|_| number());
        snapshot.phase_nanos = std::array::from_fn(|_| number());
        snapshot.closed = std::array::from_fn(|_| number());
        for operation in &mut snapshot.operations {
            (operation.started, operation.wait_nanos, operation.returned) = (number(), number(), number());
            operation.outcomes = std::array::from_fn(|_| number());
            operation.activity_nanos = std::array::from_fn(|_| number());
            operation.queries_finished = number();
        }
        let code = ErrorCode::new(if has[0] { "53300" } else { "08006" });
        snapshot.errors.push(ConnectionErrors { phase: ErrorPhase::Connect, code, count: number() });
        snapshot.retries.push(Retries { operation: "other".into(), code, count: number() });
        let here = Location::caller();
        for index in 0..usize::from(has[1]) * 20 {
            snapshot.holders.push(Holder {
                operation: format!("operation_{}", index % 18).into(),
                call_site: has[2].then_some(here),
                age: time(number()),
                activity: (index % 4 < 3).then(|| Activity::ALL[index % 4]),
                silent: time(number()),
                queries: number(),
                backend_pid: Some(index as i32),
                maintenance: false,
                suspected_leak: has[3],
                waits_for_own_pool: has[2],
                trace: None,
                request: None,
            });
        }
        if has[2] {
            snapshot.waiters.push(Waiter {
                operation: "other".into(),
                call_site: here,
                phase: Phase::Queue,
                age: time(number()),
                own_connection: Some(OwnConnection { operation: "other".into(), call_site: None }),
                trace: None,
                request: None,
            });
        }
        snapshot.server = has[3].then_some(ServerPoll::Failed);
        if has[0] {
            let blocked = (0..3).map(|index| BlockedBackend {
                pid: index,
                waiting: time(number()),
                blocker_pid: index + 1,
                blocker_application: "psql".into(),
                blocker_user: "admin".into(),
                blocker_state: BackendState::Active,
                blocker_state_age: time(number()),
            });
            let blocked = blocked.collect();
            let backends = vec![Backends { application: "a".into(), state: BackendState::Idle, count: number() }; 2];
            snapshot.server = Some(ServerPoll::Seen(Arc::new(ServerView {
                seen_at: SystemTime::UNIX_EPOCH,
                version: "17.2".into(),
                role: ServerRole::Primary,
                backends,
                slots: number(),
                slots_left: number(),
                lock_waiters: number(),
                oldest_transaction: time(number()),
                oldest_idle_in_transaction: time(number()),
                blocked,
                unowned: (number() % 2 == 0).then(|| [number(), number()]),
            })));
        }
        snapshot
    })
}

proptest! {
    #[test]
    fn verdicts_about_any_snapshots_have_evidence(
        snapshots in prop::collection::vec((any_snapshot(), prop_oneof![4 => Just(1_000_000_000), 1 => any::<u32>().prop_map(u64::from)], any::<u32>()), 2..40),
    ) {
        let (mut state, mut now) = (State::default(), Nanos::from_nanos(1));
        for (snapshot, step, late) in snapshots {
            now = Nanos::from_nanos(now.as_nanos() + step);
            let late = Duration::from_micros(late.into());
            if let Some(verdict) = state.observe(now, late, &snapshot) {
                prop_assert!(!verdict.evidence.is_empty());
                let is_sound = |evidence: &Evidence| {
                    evidence.value.is_finite() && evidence.value >= 0.0 && evidence.usual.is_none_or(f64::is_finite)
                };
                prop_assert!(verdict.evidence.iter().all(is_sound), "{verdict:?}");
                prop_assert_eq!(verdict.is_problem(), !verdict.advice.is_empty());
                let text = verdict.to_string();
                prop_assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            }
        }
    }

    #[test]
    fn every_verdict_has_finite_evidence(intervals in prop::collection::vec((any_interval(), 1..20usize), 1..12)) {
        let mut state = State::default();
        for (interval, times) in intervals {
            for _ in 0..times {
                let verdict = state.push(interval.clone());
                prop_assert!(!verdict.evidence.is_empty());
                for evidence in &verdict.evidence {
                    prop_assert!(evidence.value.is_finite() && evidence.value >= 0.0, "{evidence:?}");
                    prop_assert!(evidence.usual.is_none_or(f64::is_finite), "{evidence:?}");
                }
                let text = verdict.to_string();
                prop_assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
                prop_assert_eq!(verdict.is_problem(), !verdict.advice.is_empty());
                let position = |cause: Cause| RULES.iter().position(|rule| rule.cause == cause);
                prop_assert!(verdict.consequences.iter().all(|other| position(*other) > position(verdict.cause)));
            }
        }
    }
}
