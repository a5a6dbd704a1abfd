//! Is the pool full, and does anybody wait?

use super::{Alert, SHORT, Scope, Severity, uses};
use crate::monitoring::names::CHECKOUT_PHASE_SECONDS;
use crate::monitoring::rules::blame::Blame;
use crate::monitoring::rules::recording::{CHECKOUTS, SATURATED_SHARE, WAIT_P99, saturated_share};
use crate::monitoring::thresholds::Thresholds;

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    let (window, now) = (&t.window, &t.window_now);
    vec![
        Alert {
            name: "PoolscopePoolExhausted",
            severity: Severity::Critical,
            scope: Scope::Pool,
            expr: format!("{} > {}", saturated_share(now), t.exhausted_share),
            pending: t.for_page.clone(),
            summary: "A connection pool is exhausted: it is at its maximum, and somebody always waits.",
            says: format!(
                "for {{{{ $value | humanizePercentage }}}} of the last {now} every connection was taken and somebody \
                 was waiting."
            ),
            blame: vec![Blame::holder(), Blame::waiter()],
            meaning: format!(
                "For more than {} of the last {now} every connection that there may be was taken, and somebody was \
                 waiting for one.",
                t.exhausted_share.human()
            ),
            thresholds: uses([&t.exhausted_share, now]),
            comes_with: &[SHORT],
        },
        Alert {
            name: "PoolscopePoolSaturated",
            severity: Severity::Warning,
            scope: Scope::Pool,
            expr: format!("{SATURATED_SHARE} > {}", t.saturated_share),
            pending: t.for_ticket.clone(),
            summary: "A connection pool is saturated: bursts no longer fit into it.",
            says: format!(
                "for {{{{ $value | humanizePercentage }}}} of the last {window} every connection was taken and \
                 somebody was waiting."
            ),
            blame: vec![Blame::holder(), Blame::waiter()],
            meaning: format!(
                "For more than {} of the last {window} every connection that there may be was taken, and somebody was \
                 waiting for one.",
                t.saturated_share.human()
            ),
            thresholds: uses([&t.saturated_share, window]),
            comes_with: &[&["PoolscopeWaitersSustained", "PoolscopeCheckoutWaitHigh"]],
        },
        Alert {
            name: "PoolscopeWaitersSustained",
            severity: Severity::Warning,
            scope: Scope::Pool,
            expr: format!(
                "sum without (phase) (rate({CHECKOUT_PHASE_SECONDS}{{phase=\"queue\"}}[{window}])) > {}",
                t.waiters
            ),
            pending: t.for_ticket.clone(),
            summary: "Somebody always waits for a connection.",
            says: format!(
                "{{{{ $value | humanize }}}} checkouts were waiting for capacity, on average of the last {window}."
            ),
            blame: vec![Blame::waiter(), Blame::holder()],
            meaning: format!(
                "On average of the last {window} more than {} checkout was waiting for capacity.",
                t.waiters.human()
            ),
            thresholds: uses([&t.waiters, window]),
            comes_with: &[&["PoolscopePoolSaturated", "PoolscopeCheckoutWaitHigh"]],
        },
        Alert {
            name: "PoolscopeCheckoutWaitHigh",
            severity: Severity::Warning,
            scope: Scope::Pool,
            expr: format!("{WAIT_P99} > {}\nand\n{CHECKOUTS} > {}", t.wait_p99_seconds, t.traffic_floor),
            pending: t.for_ticket.clone(),
            summary: "Checkouts take long.",
            says: format!(
                "one checkout in a hundred took longer than {{{{ $value | humanizeDuration }}}}, over {window}."
            ),
            blame: vec![Blame::phase(t), Blame::holder()],
            meaning: format!(
                "Of the checkouts that ended in the last {window}, one in a hundred took longer than {}, and there were \
                 more than {}.",
                t.wait_p99_seconds.human(),
                t.traffic_floor.human()
            ),
            thresholds: uses([&t.wait_p99_seconds, &t.traffic_floor, window]),
            comes_with: &[&[
                "PoolscopePoolSaturated",
                "PoolscopeWaitersSustained",
                "PoolscopeWaitBudgetBurnsFast",
                "PoolscopeWaitBudgetBurns",
            ]],
        },
    ]
}
