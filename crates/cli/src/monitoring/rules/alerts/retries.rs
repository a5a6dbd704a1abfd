//! Is too much tried again, or no longer anything?

use super::{Alert, SHORT, Scope, Severity, grew, indented, uses};
use crate::monitoring::names::{RETRIES, RETRY_EXHAUSTED};
use crate::monitoring::rules::blame::Blame;
use crate::monitoring::rules::recording::RETRY_SHARE;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    let window = &t.window;
    let refused = format!("{RETRY_EXHAUSTED}{{reason=\"budget\"}}");
    vec![
        Alert {
            name: "PoolscopeRetryBudgetSpent",
            severity: Severity::Critical,
            scope: Scope::Pool,
            expr: format!("sum without (operation, reason, sqlstate) (\n{}\n) > 0", indented(&grew(&refused, window))),
            pending: t.for_page.clone(),
            summary: "Operations fail that would be tried again: the budget for retries is spent.",
            says: format!(
                "{{{{ $value | humanize }}}} operations of the last {window} failed without another attempt, since the \
                 budget for retries was spent."
            ),
            blame: vec![Blame::refused_retry(t)],
            meaning: format!(
                "In the last {window} an operation that could have been tried again was not, because the pool's budget \
                 for retries was spent."
            ),
            thresholds: uses([window]),
            comes_with: &[&["PoolscopeRetryStorm", "PoolscopeConnectingFails", "PoolscopeServerDown"]],
        },
        Alert {
            name: "PoolscopeRetryStorm",
            severity: Severity::Warning,
            scope: Scope::Pool,
            expr: format!(
                "{RETRY_SHARE} > {}\nand\nsum without (operation, sqlstate) (rate({RETRIES}[{window}])) > {}",
                t.retry_share, t.retry_floor
            ),
            pending: t.for_ticket.clone(),
            summary: "Much is tried again: retries are a considerable part of the load.",
            says: format!(
                "there were {{{{ $value | humanizePercentage }}}} as many retries as checkouts, over {window}."
            ),
            blame: vec![Blame::retried(t), Blame::retried_for(t)],
            meaning: format!(
                "Over the last {window} there was more than one retry for each {} checkouts, and more than {}.",
                1.0 / t.retry_share.value,
                t.retry_floor.human()
            ),
            thresholds: uses([&t.retry_share, &t.retry_floor, window]),
            comes_with: &[&["PoolscopeRetryBudgetSpent", "PoolscopeConnectingFails", "PoolscopeServerDown"], SHORT],
        },
    ]
}
