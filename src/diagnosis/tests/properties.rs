//! Properties of the verdicts about any intervals and snapshots.

use std::panic::Location;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;

use super::super::engine::State;
use super::super::interval::{CacheActivity, Interval, ServerState};
use super::super::rules::RULES;
use super::intervals::{hold, lock};
use crate::labels::{Activity, BackendState, Cause, ErrorCode, ErrorPhase, Phase};
use crate::telemetry::clock::{Clock, Nanos};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::{
    Backends, BlockedBackend, ConnectionErrors, Evidence, Holder, Limits, OwnConnection, PoolSnapshot, Retries,
    ServerPoll, ServerView, Waiter,
};

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
    pub(in super::super) fn any_interval()(
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
        if has[4] {
            interval.caches = Some(CacheActivity {
                lookups: number(), bypassed: number(), most_bypassed: has[5].then(|| "products".into()),
            });
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
                backends,
                slots: number(),
                slots_left: number(),
                lock_waiters: number(),
                oldest_transaction: time(number()),
                oldest_idle_in_transaction: time(number()),
                blocked,
                unowned: (number() % 2 == 0).then(|| [number(), number()]),
                ..ServerView::for_tests()
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
