//! Alerts on requests that are rejected or make many checkouts.

use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::{REQUEST_TIME, REQUEST_WARNINGS};
use crate::monitoring::rules::alert::{Alert, Scope, Severity, cloned};
use crate::monitoring::rules::contributor::Contributor;
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
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "Requests are rejected because the pool is overloaded.",
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the requests in the last {window} were rejected."
        ),
        contributors: vec![Contributor::shed(t), Contributor::holder()],
        condition: format!(
            "More than {} of the requests that ended in the last {window} were rejected because the pool was \
             overloaded, and requests exceeded {}.",
            t.shed_share.human(),
            t.traffic_floor.human()
        ),
        thresholds: cloned([&t.shed_share, &t.traffic_floor, window]),
        panel: PanelId::FailuresByOutcome,
        diagnosed: None,
        related: &[&[
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
        // Per route: summed over routes, a busy one would hide it.
        expr: format!(
            "max without (route, method) (\n  sum without (kind) ({warned})\n  /\n  \
             (sum without (outcome) (rate({REQUEST_TIME}_count[{window}])) > 0)\n)\n> {}\nand\n\
             sum without (route, method, kind) ({warned}) > {}",
            t.many_checkouts_share, t.many_checkouts_floor
        ),
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "Requests of one route make many checkouts each.",
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the requests of one route exceeded the checkout limit over the \
             last {window}."
        ),
        contributors: vec![Contributor::many_checkouts(t)],
        condition: format!(
            "More than {} of the requests of one route that ended in the last {window} made more checkouts than \
             `PoolLayer::warn_checkouts_over` (10 by default), and such requests exceeded {} over all routes.",
            t.many_checkouts_share.human(),
            t.many_checkouts_floor.human()
        ),
        thresholds: cloned([&t.many_checkouts_share, &t.many_checkouts_floor, window]),
        panel: PanelId::Checkouts,
        diagnosed: None,
        related: &[],
    }
}
