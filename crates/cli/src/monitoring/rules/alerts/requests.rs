//! What do requests have of the pool, and the pool of them?

use super::{Alert, Scope, Severity, uses};
use crate::monitoring::names::{REQUEST_TIME, REQUEST_WARNINGS};
use crate::monitoring::rules::blame::Blame;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    vec![requests_shed(t), many_checkouts(t)]
}

fn requests_shed(t: &Thresholds) -> Alert {
    let window = &t.window;
    let requests =
        |which: &str| format!("sum without (route, method, outcome) (rate({REQUEST_TIME}_count{which}[{window}]))");
    let (shed, all) = (requests("{outcome=\"shed\"}"), requests(""));
    Alert {
        name: "PoolscopeRequestsShed",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("{shed}\n/\n({all} > 0)\n> {}\nand\n{all} > {}", t.shed_share, t.traffic_floor),
        pending: t.for_ticket.clone(),
        summary: "Requests are refused, since the pool is overloaded.",
        says: format!("{{{{ $value | humanizePercentage }}}} of the requests of the last {window} were refused."),
        blame: vec![Blame::shed(t), Blame::holder()],
        meaning: format!(
            "Of the requests that ended in the last {window}, more than {} were refused at once, as the pool was \
             overloaded; and there were more than {}.",
            t.shed_share.human(),
            t.traffic_floor.human()
        ),
        thresholds: uses([&t.shed_share, &t.traffic_floor, window]),
        comes_with: &[&[
            "PoolscopePoolExhausted",
            "PoolscopePoolSaturated",
            "PoolscopeWaitersSustained",
            "PoolscopeCheckoutWaitHigh",
        ]],
    }
}

fn many_checkouts(t: &Thresholds) -> Alert {
    let window = &t.window;
    let warned = format!("rate({REQUEST_WARNINGS}{{kind=\"many_checkouts\"}}[{window}])");
    Alert {
        name: "PoolscopeManyCheckouts",
        severity: Severity::Warning,
        scope: Scope::Pool,
        // Of one route, or a busy one would hide it.
        expr: format!(
            "max without (route, method) (\n  sum without (kind) ({warned})\n  /\n  \
             (sum without (outcome) (rate({REQUEST_TIME}_count[{window}])) > 0)\n)\n> {}\nand\n\
             sum without (route, method, kind) ({warned}) > {}",
            t.many_checkouts_share, t.many_checkouts_floor
        ),
        pending: t.for_ticket.clone(),
        summary: "Requests of a route make many checkouts each.",
        says: format!(
            "{{{{ $value | humanizePercentage }}}} of the requests of a route made more checkouts than they should, over \
             {window}."
        ),
        blame: vec![Blame::many_checkouts(t)],
        meaning: format!(
            "Of the requests of one route that ended in the last {window}, more than {} made more checkouts than \
             `PoolLayer::warn_checkouts_over` allows, which is 10 by default; and of all routes more than {} did.",
            t.many_checkouts_share.human(),
            t.many_checkouts_floor.human()
        ),
        thresholds: uses([&t.many_checkouts_share, &t.many_checkouts_floor, window]),
        comes_with: &[],
    }
}
