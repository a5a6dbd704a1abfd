//! Does somebody keep connections without need, or return them dirty?

use super::{Alert, SHORT, Scope, Severity, uses};
use crate::monitoring::names::{DIRTY_RETURNS, MAX, SELF_DEADLOCKS, SUSPECTED_LEAKS, USE_TIME};
use crate::monitoring::rules::blame::Blame;
use crate::monitoring::rules::recording::{CHECKOUTS, HELD_BY_ACTIVITY};
use crate::monitoring::thresholds::Thresholds;

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    vec![suspected_leak(t), held_idle(t), idle_in_transaction(t), dirty_returns(t), self_deadlock(t)]
}

fn suspected_leak(t: &Thresholds) -> Alert {
    Alert {
        name: "PoolscopeSuspectedLeak",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("{SUSPECTED_LEAKS} >= {}", t.suspected_leaks),
        pending: t.for_ticket.clone(),
        summary: "Connections are held and not used: somebody may have forgotten them.",
        says: "{{ $value | humanize }} connections have been held past leak_threshold, silent and not executing."
            .to_owned(),
        blame: vec![Blame::idler(t, "activity!=\"executing\"")],
        meaning: format!(
            "At least {} connection has been held past `leak_threshold`, and neither executed nor heard anything for as \
             long.",
            t.suspected_leaks.human()
        ),
        thresholds: uses([&t.suspected_leaks]),
        comes_with: &[
            &["PoolscopeHeldIdle", "PoolscopeIdleInTransaction", "PoolscopeSelfDeadlock", "PoolscopePoolExhausted"],
            SHORT,
        ],
    }
}

fn held_idle(t: &Thresholds) -> Alert {
    let window = &t.window;
    Alert {
        name: "PoolscopeHeldIdle",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!(
            "sum without (activity) ({HELD_BY_ACTIVITY}{{activity=\"idle\"}})\n/\n({MAX} > 0)\n> {}",
            t.held_idle_share
        ),
        pending: t.for_ticket.clone(),
        summary: "Much of a pool is held while nothing is asked of the server.",
        says: format!(
            "{{{{ $value | humanizePercentage }}}} of it was held without a query or a transaction, on average of the \
             last {window}."
        ),
        blame: vec![Blame::idler(t, "activity=\"idle\"")],
        meaning: format!(
            "On average of the last {window}, more than {} of the connections that there may be were held, neither \
             executing nor in a transaction.",
            t.held_idle_share.human()
        ),
        thresholds: uses([&t.held_idle_share, window]),
        comes_with: &[&["PoolscopeSuspectedLeak", "PoolscopePoolExhausted"], SHORT],
    }
}

fn idle_in_transaction(t: &Thresholds) -> Alert {
    let window = &t.window;
    Alert {
        name: "PoolscopeIdleInTransaction",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!(
            "sum without (activity) ({HELD_BY_ACTIVITY}{{activity=\"idle_in_transaction\"}})\n/\n({MAX} > 0)\n> {}",
            t.idle_in_transaction_share
        ),
        pending: t.for_ticket.clone(),
        summary: "Much of a pool is held in transactions that do nothing.",
        says: format!(
            "{{{{ $value | humanizePercentage }}}} of it was idle in a transaction, on average of the last {window}."
        ),
        blame: vec![Blame::idler(t, "activity=\"idle_in_transaction\"")],
        meaning: format!(
            "On average of the last {window}, more than {} of the connections that there may be were held in an open or \
             failed transaction, while nothing was asked of the server.",
            t.idle_in_transaction_share.human()
        ),
        thresholds: uses([&t.idle_in_transaction_share, window]),
        comes_with: &[&["PoolscopeSuspectedLeak", "PoolscopePoolExhausted"], SHORT],
    }
}

fn dirty_returns(t: &Thresholds) -> Alert {
    let window = &t.window;
    Alert {
        name: "PoolscopeDirtyReturns",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!(
            "sum without (operation, kind) (rate({DIRTY_RETURNS}[{window}]))\n/\n\
             (rate({USE_TIME}_count[{window}]) > 0)\n> {}\nand\n{CHECKOUTS} > {}",
            t.dirty_share, t.traffic_floor
        ),
        pending: t.for_ticket.clone(),
        summary: "Connections come back dirty.",
        says: format!(
            "{{{{ $value | humanizePercentage }}}} of the connections returned in the last {window} were in a \
             transaction, busy or otherwise dirty."
        ),
        blame: vec![Blame::dirty(t)],
        meaning: format!(
            "Of the connections that were returned in the last {window}, more than {} were in a transaction, at a query \
             that nobody waited for, or had a session that was changed; and there were more than {} checkouts.",
            t.dirty_share.human(),
            t.traffic_floor.human()
        ),
        thresholds: uses([&t.dirty_share, &t.traffic_floor, window]),
        comes_with: &[&["PoolscopeConnectionChurn"]],
    }
}

fn self_deadlock(t: &Thresholds) -> Alert {
    let window = &t.window_rare;
    Alert {
        name: "PoolscopeSelfDeadlock",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("increase({SELF_DEADLOCKS}[{window}]) > 0"),
        pending: t.for_event.clone(),
        summary: "A task waits for a connection while it holds one.",
        says: format!(
            "{{{{ $value | humanize }}}} checkouts of the last {window} waited while their own task held a connection."
        ),
        // Whoever waits most may be anybody whom the rest of the pool does not suffice.
        blame: vec![Blame::holder()],
        meaning: format!(
            "In the last {window} a checkout waited for capacity while its own task held a connection of the same pool: \
             enough of these at once wait for each other until they time out."
        ),
        thresholds: uses([window]),
        comes_with: &[&["PoolscopeHeldIdle", "PoolscopePoolExhausted"], SHORT],
    }
}
