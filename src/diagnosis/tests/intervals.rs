//! Synthetic intervals.

use std::panic::Location;
use std::sync::Arc;

use super::super::call_site::CallSite;
use super::super::interval::{CacheActivity, HolderGroup, Interval, OperationInterval, SelfBlocked, ServerState};
use super::super::locks::{LockBlock, LockParty};
use super::EXECUTING;
use crate::labels::{Activity, BackendState, ErrorCode, Outcome, Phase};

/// A second of a healthy pool of 10: 100 checkouts of 10 ms, which execute two queries each.
pub(in super::super) fn healthy() -> Interval {
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
pub(super) fn hold(second: &mut Interval, name: &str, held: [f64; Activity::COUNT]) {
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
pub(in super::super) fn exhausted(name: &str, held: [f64; Activity::COUNT]) -> Interval {
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

pub(super) fn lock(blocker: Option<LockParty>) -> LockBlock {
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

/// Returns an interval in which every member has a value other than the default.
pub(in super::super) fn full_interval() -> Interval {
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
    interval.caches = Some(CacheActivity { lookups: 40.0, bypassed: 30.0, most_bypassed: Some("products".into()) });
    let party = || LockParty { operation: "export".into(), call_site: Some(site()) };
    interval.first_lock = Some(LockBlock { waiter: party(), blocker: Some(party()), ..lock(None) });
    interval
}
