//! Are the objectives kept? Each has a budget of what may go wrong, and an alert for how fast it burns.
//!
//! A long window tells that much was burnt, a short one that it still burns; both must say so.

use super::{Alert, Scope, Severity, uses};
use crate::monitoring::names::WAIT_TIME;
use crate::monitoring::rules::blame::Blame;
use crate::monitoring::rules::recording::{BurnWindow, slow_share, timeout_share};
use crate::monitoring::thresholds::{Threshold, Thresholds};

/// The windows of a page: the short one, the long one.
const PAGE_FAST: [BurnWindow; 2] = [BurnWindow::M5, BurnWindow::H1];
const PAGE_SLOW: [BurnWindow; 2] = [BurnWindow::M30, BurnWindow::H6];
/// Those of a ticket.
const TICKET_FAST: [BurnWindow; 2] = [BurnWindow::H2, BurnWindow::D1];
const TICKET_SLOW: [BurnWindow; 2] = [BurnWindow::H6, BurnWindow::D3];

/// An objective: what goes wrong, in what share over a window, and how much may.
struct Objective<'a> {
    share: fn(BurnWindow) -> String,
    objective: &'a Threshold,
    /// What goes wrong with a checkout.
    wrong: String,
    page: Told,
    ticket: Told,
}

/// An alert's name, summary and company.
struct Told {
    name: &'static str,
    summary: &'static str,
    comes_with: &'static [&'static [&'static str]],
}

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    let timeouts = Objective {
        share: timeout_share,
        objective: &t.timeout_objective,
        wrong: "timed out".to_owned(),
        page: Told {
            name: "PoolscopeTimeoutBudgetBurnsFast",
            summary: "Checkouts time out, so many that requests are failing.",
            comes_with: &[&["PoolscopePoolExhausted", "PoolscopeTimeoutBudgetBurns", "PoolscopeWaitBudgetBurnsFast"]],
        },
        ticket: Told {
            name: "PoolscopeTimeoutBudgetBurns",
            summary: "Checkouts time out more often than the objective allows.",
            comes_with: &[&["PoolscopeTimeoutBudgetBurnsFast", "PoolscopeWaitBudgetBurns"]],
        },
    };
    let waits = Objective {
        share: slow_share,
        objective: &t.wait_objective,
        wrong: format!("took longer than {}", t.wait_objective_seconds.human()),
        page: Told {
            name: "PoolscopeWaitBudgetBurnsFast",
            summary: "Checkouts are slow, so many that users notice.",
            comes_with: &[&["PoolscopePoolExhausted", "PoolscopeWaitBudgetBurns", "PoolscopeTimeoutBudgetBurnsFast"]],
        },
        ticket: Told {
            name: "PoolscopeWaitBudgetBurns",
            summary: "Checkouts are slow more often than the objective allows.",
            comes_with: &[&["PoolscopeWaitBudgetBurnsFast", "PoolscopeTimeoutBudgetBurns"]],
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
    fn alert(&self, t: &Thresholds, told: &Told, severity: Severity) -> Alert {
        let (fast, slow, pending) = match severity {
            Severity::Critical => ((PAGE_FAST, &t.burn_page_fast), (PAGE_SLOW, &t.burn_page_slow), &t.for_page),
            Severity::Warning => {
                ((TICKET_FAST, &t.burn_ticket_fast), (TICKET_SLOW, &t.burn_ticket_slow), &t.for_ticket)
            }
        };
        let objective = self.objective;
        let pair = |(windows, factor): ([BurnWindow; 2], &Threshold)| {
            let [short, long] = windows;
            format!(
                "(\n  {} > ({factor} * (1 - {objective}))\nand\n  {} > ({factor} * (1 - {objective}))\nand\n  \
                 rate({WAIT_TIME}_count[{}]) > {}\n)",
                (self.share)(short),
                (self.share)(long),
                short.range(t),
                t.traffic_floor
            )
        };
        let says = |([short, long], factor): ([BurnWindow; 2], &Threshold)| {
            format!(
                "{} and over {} more than {} × what the objective allows",
                short.as_str(),
                long.as_str(),
                factor.human()
            )
        };
        let allowed = Threshold { value: 1.0 - objective.value, ..objective.clone() };
        Alert {
            name: told.name,
            severity,
            scope: Scope::Pool,
            expr: format!("{}\nor\n{}", pair(fast), pair(slow)),
            pending: pending.clone(),
            summary: told.summary,
            says: format!(
                "{{{{ $value | humanizePercentage }}}} of the checkouts {}, where {} may.",
                self.wrong,
                allowed.human()
            ),
            blame: vec![Blame::holder(), Blame::waiter()],
            meaning: format!(
                "The share of checkouts that {} was over {}; or over {}. The objective allows {}, and there were more \
                 than {}. What was shed counts for nothing.",
                self.wrong,
                says(fast),
                says(slow),
                allowed.human(),
                t.traffic_floor.human()
            ),
            thresholds: uses([objective, fast.1, slow.1, &t.traffic_floor]),
            comes_with: told.comes_with,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Where traffic is steady, the slower pair of a ticket says all that the faster one does, so no test of Prometheus' own
    /// would miss a wrong factor there.
    #[test]
    fn the_pairs_of_windows_are_those_of_the_workbook() {
        let alerts = alerts(&Thresholds::committed().unwrap());
        assert_eq!(alerts.len(), 4);
        for (at, alert) in alerts.iter().enumerate() {
            let pairs = match alert.severity {
                Severity::Critical => [("5m", "1h", "14.4"), ("30m", "6h", "6")],
                Severity::Warning => [("2h", "1d", "3"), ("6h", "3d", "1")],
            };
            let share = ["timeouts:ratio_rate", "slow:ratio_rate"][at / 2];
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
