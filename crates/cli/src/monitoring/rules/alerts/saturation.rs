//! Alerts on full pools and waiting checkouts.

use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::CHECKOUT_PHASE_SECONDS;
use crate::monitoring::recording::{CHECKOUTS, SATURATED_SHARE, WAIT_P99, saturated_share};
use crate::monitoring::rules::alert::{Alert, EXHAUSTION_SYMPTOMS, Scope, Severity, cloned};
use crate::monitoring::rules::contributor::Contributor;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    let (window, now) = (&t.window, &t.window_now);
    vec![
        Alert {
            name: "PoolscopePoolExhausted",
            severity: Severity::Critical,
            scope: Scope::Pool,
            expr: format!("{} > {}", saturated_share(now), t.exhausted_share),
            for_duration: t.for_page.clone(),
            // Otherwise the budgets, whose windows are longer, would page again when the pool is no longer exhausted.
            keep_firing_for: Some(t.keep_diagnosis.clone()),
            summary: "Connection pool exhausted: every connection is in use and checkouts are waiting.",
            description: format!(
                "for {{{{ $value | humanizePercentage }}}} of the last {now}, every connection was in use and at least \
                 one checkout was waiting."
            ),
            contributors: vec![Contributor::holder(), Contributor::waiter()],
            condition: format!(
                "For more than {} of the last {now}, every connection up to the maximum was in use and at least one \
                 checkout was waiting. The alert fires until {} after the last time.",
                t.exhausted_share.human(),
                t.keep_diagnosis
            ),
            thresholds: cloned([&t.exhausted_share, now]),
            panel: PanelId::Saturation,
            diagnosed: None,
            related: &[EXHAUSTION_SYMPTOMS],
        },
        Alert {
            name: "PoolscopePoolSaturated",
            severity: Severity::Warning,
            scope: Scope::Pool,
            expr: format!("{SATURATED_SHARE} > {}", t.saturated_share),
            for_duration: t.for_ticket.clone(),
            keep_firing_for: None,
            summary: "Connection pool saturated: it can no longer absorb bursts.",
            description: format!(
                "for {{{{ $value | humanizePercentage }}}} of the last {window}, every connection was in use and at \
                 least one checkout was waiting."
            ),
            contributors: vec![Contributor::holder(), Contributor::waiter()],
            condition: format!(
                "For more than {} of the last {window}, every connection up to the maximum was in use and at least one \
                 checkout was waiting.",
                t.saturated_share.human()
            ),
            thresholds: cloned([&t.saturated_share, window]),
            panel: PanelId::Saturation,
            diagnosed: None,
            related: &[&["PoolscopeWaitersSustained", "PoolscopeCheckoutWaitHigh"]],
        },
        Alert {
            name: "PoolscopeWaitersSustained",
            severity: Severity::Warning,
            scope: Scope::Pool,
            expr: format!(
                "sum without (phase) (rate({CHECKOUT_PHASE_SECONDS}{{phase=\"queue\"}}[{window}])) > {}",
                t.waiters
            ),
            for_duration: t.for_ticket.clone(),
            keep_firing_for: None,
            summary: "Checkouts are continuously waiting for a connection.",
            description: format!(
                "{{{{ $value | humanize }}}} checkouts were waiting for capacity, on average over the last {window}."
            ),
            contributors: vec![Contributor::waiter(), Contributor::holder()],
            condition: format!(
                "On average over the last {window}, more than {} checkout was waiting for capacity.",
                t.waiters.human()
            ),
            thresholds: cloned([&t.waiters, window]),
            panel: PanelId::Waiters,
            diagnosed: None,
            related: &[&["PoolscopePoolSaturated", "PoolscopeCheckoutWaitHigh"]],
        },
        Alert {
            name: "PoolscopeCheckoutWaitHigh",
            severity: Severity::Warning,
            scope: Scope::Pool,
            expr: format!("{WAIT_P99} > {}\nand\n{CHECKOUTS} > {}", t.wait_p99_seconds, t.traffic_floor),
            for_duration: t.for_ticket.clone(),
            keep_firing_for: None,
            summary: "Checkouts are slow (99th percentile).",
            description: format!(
                "one checkout in a hundred took longer than {{{{ $value | humanizeDuration }}}} over the last {window}."
            ),
            contributors: vec![Contributor::phase(t), Contributor::holder()],
            condition: format!(
                "The 99th percentile of the checkout time over the last {window} was above {}, and checkouts exceeded \
                 {}.",
                t.wait_p99_seconds.human(),
                t.traffic_floor.human()
            ),
            thresholds: cloned([&t.wait_p99_seconds, &t.traffic_floor, window]),
            panel: PanelId::WaitTime,
            diagnosed: None,
            related: &[&[
                "PoolscopePoolSaturated",
                "PoolscopeWaitersSustained",
                "PoolscopeWaitBudgetBurnsFast",
                "PoolscopeWaitBudgetBurns",
            ]],
        },
    ]
}
