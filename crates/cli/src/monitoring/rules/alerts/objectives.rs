//! Burn-rate alerts on the objectives for checkouts. Each objective has an error budget, and alerts on how fast it burns.
//!
//! The long window shows that much of the budget is gone, the short one that it is still burning; both must exceed the limit.

use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::WAIT_TIME;
use crate::monitoring::recording::{BurnWindow, slow_share, timeout_share};
use crate::monitoring::rules::alert::{Alert, Scope, Severity, cloned};
use crate::monitoring::rules::contributor::Contributor;
use crate::monitoring::thresholds::{Threshold, Thresholds};

/// The short and the long window of alerts that page.
const PAGE_FAST: [BurnWindow; 2] = [BurnWindow::M5, BurnWindow::H1];
const PAGE_SLOW: [BurnWindow; 2] = [BurnWindow::M30, BurnWindow::H6];
/// The short and the long window of tickets.
const TICKET_FAST: [BurnWindow; 2] = [BurnWindow::H2, BurnWindow::D1];
const TICKET_SLOW: [BurnWindow; 2] = [BurnWindow::H6, BurnWindow::D3];

/// An objective with its two alerts.
struct Objective<'a> {
    /// Returns the series with the error ratio over a window.
    ratio: fn(BurnWindow) -> String,
    objective: &'a Threshold,
    /// What happened to the checkouts that violate it, as a predicate.
    violation: String,
    page: BurnRateAlert,
    ticket: BurnRateAlert,
}

/// The constant parts of a burn-rate alert.
struct BurnRateAlert {
    name: &'static str,
    summary: &'static str,
    related: &'static [&'static [&'static str]],
}

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    let timeouts = Objective {
        ratio: timeout_share,
        objective: &t.timeout_objective,
        violation: "timed out".to_owned(),
        page: BurnRateAlert {
            name: "PoolscopeTimeoutBudgetBurnsFast",
            summary: "Checkouts time out: the error budget burns fast and requests fail.",
            related: &[&[
                "PoolscopePoolExhausted",
                "PoolscopeTimeoutBudgetBurns",
                "PoolscopeWaitBudgetBurnsFast",
                "PoolscopeWaitBudgetBurns",
            ]],
        },
        ticket: BurnRateAlert {
            name: "PoolscopeTimeoutBudgetBurns",
            summary: "Checkouts time out more often than the objective allows.",
            related: &[&["PoolscopeTimeoutBudgetBurnsFast", "PoolscopeWaitBudgetBurns"]],
        },
    };
    let waits = Objective {
        ratio: slow_share,
        objective: &t.wait_objective,
        violation: format!("took longer than {}", t.wait_objective_seconds.human()),
        page: BurnRateAlert {
            name: "PoolscopeWaitBudgetBurnsFast",
            summary: "Checkouts are slow: the error budget burns fast and users notice.",
            related: &[&["PoolscopePoolExhausted", "PoolscopeWaitBudgetBurns", "PoolscopeTimeoutBudgetBurnsFast"]],
        },
        ticket: BurnRateAlert {
            name: "PoolscopeWaitBudgetBurns",
            summary: "Checkouts are slow more often than the objective allows.",
            related: &[&["PoolscopeWaitBudgetBurnsFast", "PoolscopeTimeoutBudgetBurns"]],
        },
    };
    let mut alerts = Vec::new();
    for objective in [timeouts, waits] {
        let mut page = objective.alert(t, &objective.page, Severity::Critical);
        let mut ticket = objective.alert(t, &objective.ticket, Severity::Warning);
        if objective.objective.name == t.wait_objective.name {
            page.thresholds.push(t.wait_objective_seconds.clone());
            ticket.thresholds.push(t.wait_objective_seconds.clone());
        }
        alerts.extend([page, ticket]);
    }
    alerts
}

impl Objective<'_> {
    fn alert(&self, t: &Thresholds, alert: &BurnRateAlert, severity: Severity) -> Alert {
        let (fast, slow, for_duration) = match severity {
            Severity::Critical => ((PAGE_FAST, &t.burn_page_fast), (PAGE_SLOW, &t.burn_page_slow), &t.for_page),
            Severity::Warning => {
                ((TICKET_FAST, &t.burn_ticket_fast), (TICKET_SLOW, &t.burn_ticket_slow), &t.for_ticket)
            }
        };
        let objective = self.objective;
        let expr = |([short, long], factor): ([BurnWindow; 2], &Threshold)| {
            format!(
                "(\n  {} > ({factor} * (1 - {objective}))\nand\n  {} > ({factor} * (1 - {objective}))\nand\n  \
                 rate({WAIT_TIME}_count[{}]) > {}\n)",
                (self.ratio)(short),
                (self.ratio)(long),
                short.range(t),
                t.traffic_floor
            )
        };
        let condition = |([short, long], factor): ([BurnWindow; 2], &Threshold)| {
            format!("{} × the budget over both {} and {}", factor.human(), short.as_str(), long.as_str())
        };
        let budget = Threshold { value: 1.0 - objective.value, ..objective.clone() }.human();
        Alert {
            name: alert.name,
            severity,
            scope: Scope::Pool,
            expr: format!("{}\nor\n{}", expr(fast), expr(slow)),
            for_duration: for_duration.clone(),
            keep_firing_for: None,
            summary: alert.summary,
            description: format!(
                "{{{{ $value | humanizePercentage }}}} of the checkouts {}; the objective allows {budget}.",
                self.violation
            ),
            contributors: vec![Contributor::holder(), Contributor::waiter(), Contributor::unconnected(t)],
            condition: format!(
                "The share of checkouts that {} exceeded {}, or {}. The budget is {budget}, and checkouts exceeded {}. \
                 Shed checkouts do not count.",
                self.violation,
                condition(fast),
                condition(slow),
                t.traffic_floor.human()
            ),
            thresholds: cloned([objective, fast.1, slow.1, &t.traffic_floor]),
            panel: PanelId::Objectives,
            diagnosed: None,
            related: alert.related,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// With steady traffic, the slower pair of a ticket implies the faster one, so promtool would not notice a wrong factor.
    #[test]
    fn window_pairs_follow_the_sre_workbook() {
        let alerts = alerts(&Thresholds::committed().unwrap());
        assert_eq!(alerts.len(), 4);
        for (index, alert) in alerts.iter().enumerate() {
            let pairs = match alert.severity {
                Severity::Critical => [("5m", "1h", "14.4"), ("30m", "6h", "6")],
                Severity::Warning => [("2h", "1d", "3"), ("6h", "3d", "1")],
            };
            let share = ["timeouts:ratio_rate", "slow:ratio_rate"][index / 2];
            for (short, long, factor) in pairs {
                for window in [short, long] {
                    let burns = format!("{share}{window} > ({factor} * (1 - 0.999))");
                    assert!(alert.expr.contains(&burns), "{}: {burns}", alert.name);
                }
                assert!(alert.expr.contains(&format!("_count[{short}]) > 0.1")), "{}: {short}", alert.name);
            }
        }
    }
}
