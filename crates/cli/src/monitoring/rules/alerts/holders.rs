//! Alerts on connections that are held without need or returned dirty.

use super::growth::{increase_with_new_series, indented};
use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::{DIRTY_RETURNS, MAX, SELF_DEADLOCKS, SUSPECTED_LEAKS, USE_TIME};
use crate::monitoring::recording::{CHECKOUTS, HELD_BY_ACTIVITY};
use crate::monitoring::rules::alert::{Alert, EXHAUSTION_SYMPTOMS, Scope, Severity, cloned};
use crate::monitoring::rules::contributor::Contributor;
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
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "Connections are held without being used: suspected leak.",
        description: "{{ $value | humanize }} connections have been held past leak_threshold without traffic."
            .to_owned(),
        contributors: vec![Contributor::idle_holder(t, "activity!=\"executing\"")],
        condition: format!(
            "At least {} connection has been held past `leak_threshold` without executing a query or receiving a \
             message for as long.",
            t.suspected_leaks.human()
        ),
        thresholds: cloned([&t.suspected_leaks]),
        panel: PanelId::SuspectedLeaks,
        diagnosed: None,
        related: &[
            &["PoolscopeHeldIdle", "PoolscopeIdleInTransaction", "PoolscopeSelfDeadlock", "PoolscopePoolExhausted"],
            EXHAUSTION_SYMPTOMS,
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
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "A large share of the pool is held without a query.",
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of it was held without a query or a transaction, on average over \
             the last {window}."
        ),
        contributors: vec![Contributor::idle_holder(t, "activity=\"idle\"")],
        condition: format!(
            "On average over the last {window}, more than {} of the pool's maximum was held without a running query or \
             an open transaction.",
            t.held_idle_share.human()
        ),
        thresholds: cloned([&t.held_idle_share, window]),
        panel: PanelId::HeldWithoutQuery,
        diagnosed: None,
        related: &[&["PoolscopeSuspectedLeak", "PoolscopePoolExhausted"], EXHAUSTION_SYMPTOMS],
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
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "A large share of the pool is held idle in transactions.",
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of it was idle in a transaction, on average over the last {window}."
        ),
        contributors: vec![Contributor::idle_holder(t, "activity=\"idle_in_transaction\"")],
        condition: format!(
            "On average over the last {window}, more than {} of the pool's maximum was held in an open or failed \
             transaction without a running query.",
            t.idle_in_transaction_share.human()
        ),
        thresholds: cloned([&t.idle_in_transaction_share, window]),
        panel: PanelId::Holders,
        diagnosed: None,
        related: &[&["PoolscopeSuspectedLeak", "PoolscopePoolExhausted"], EXHAUSTION_SYMPTOMS],
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
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "Connections are returned dirty and have to be reset.",
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the connections returned in the last {window} were in a \
             transaction, busy or had a changed session."
        ),
        contributors: vec![Contributor::dirty(t)],
        condition: format!(
            "More than {} of the connections returned in the last {window} were in a transaction, running an abandoned \
             query or had a changed session, and checkouts exceeded {}.",
            t.dirty_share.human(),
            t.traffic_floor.human()
        ),
        thresholds: cloned([&t.dirty_share, &t.traffic_floor, window]),
        panel: PanelId::DirtyReturns,
        diagnosed: None,
        related: &[&["PoolscopeConnectionChurn"]],
    }
}

fn self_deadlock(t: &Thresholds) -> Alert {
    let window = &t.window_rare;
    Alert {
        name: "PoolscopeSelfDeadlock",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!(
            "sum without (operation) (\n{}\n) > 0",
            indented(&increase_with_new_series(SELF_DEADLOCKS, window))
        ),
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "A task waits for a connection while it holds one: risk of a self-deadlock.",
        description: format!(
            "{{{{ $value | printf \"%.0f\" }}}} checkouts in the last {window} waited while their own task held a \
             connection."
        ),
        contributors: vec![Contributor::self_deadlock(t)],
        condition: format!(
            "In the last {window}, a checkout waited for capacity while its own task held a connection of the same \
             pool. Enough such tasks at once block each other until they time out."
        ),
        thresholds: cloned([window]),
        panel: PanelId::SelfDeadlocks,
        diagnosed: None,
        related: &[&["PoolscopeHeldIdle", "PoolscopePoolExhausted"], EXHAUSTION_SYMPTOMS],
    }
}
