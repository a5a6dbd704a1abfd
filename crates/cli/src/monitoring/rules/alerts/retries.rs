//! Alerts on retries and their budget.

use super::growth::{increase_with_new_series, indented};
use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::{RETRIES, RETRY_EXHAUSTED};
use crate::monitoring::recording::RETRY_SHARE;
use crate::monitoring::rules::alert::{Alert, EXHAUSTION_SYMPTOMS, Scope, Severity, cloned};
use crate::monitoring::rules::contributor::Contributor;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    let window = &t.window;
    let refused = format!("{RETRY_EXHAUSTED}{{reason=\"budget\"}}");
    vec![
        Alert {
            name: "PoolscopeRetryBudgetSpent",
            severity: Severity::Critical,
            scope: Scope::Pool,
            expr: format!(
                "sum without (operation, reason, sqlstate, error_type) (\n{}\n) > 0",
                indented(&increase_with_new_series(&refused, window))
            ),
            for_duration: t.for_page.clone(),
            keep_firing_for: None,
            summary: "The retry budget is spent: retryable operations fail.",
            description: format!(
                "{{{{ $value | humanize }}}} operations failed without a retry in the last {window} because the retry \
                 budget was spent."
            ),
            contributors: vec![Contributor::refused_retry(t)],
            condition: format!(
                "In the last {window}, a retryable operation was not retried because the pool's retry budget was spent."
            ),
            thresholds: cloned([window]),
            panel: PanelId::RetryBudget,
            diagnosed: None,
            related: &[&["PoolscopeRetryStorm", "PoolscopeConnectingFails", "PoolscopeServerDown"]],
        },
        Alert {
            name: "PoolscopeRetryStorm",
            severity: Severity::Warning,
            scope: Scope::Pool,
            expr: format!(
                "{RETRY_SHARE} > {}\nand\nsum without (operation, sqlstate, error_type) (rate({RETRIES}[{window}])) > {}",
                t.retry_share, t.retry_floor
            ),
            for_duration: t.for_ticket.clone(),
            keep_firing_for: None,
            summary: "Retries are a considerable part of the load.",
            description: format!(
                "there were {{{{ $value | humanizePercentage }}}} as many retries as checkouts over the last {window}."
            ),
            contributors: vec![Contributor::retrying(t), Contributor::retry_cause(t)],
            condition: format!(
                "Over the last {window}, there was more than one retry per {} checkouts, and retries exceeded {}.",
                1.0 / t.retry_share.value,
                t.retry_floor.human()
            ),
            thresholds: cloned([&t.retry_share, &t.retry_floor, window]),
            panel: PanelId::Retries,
            diagnosed: None,
            related: &[
                &["PoolscopeRetryBudgetSpent", "PoolscopeConnectingFails", "PoolscopeServerDown"],
                EXHAUSTION_SYMPTOMS,
            ],
        },
    ]
}
