//! The row with retries and their budget.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, PanelBuilder};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{metric, sum, sum_by, unless_zero};
use crate::monitoring::dashboards::unit::Unit;

pub(super) fn row() -> Row {
    Row::open("Retries", vec![retries(), retry_outcomes(), retry_budget()])
}

fn retries() -> PanelBuilder {
    let description = Description {
        shows: "Retries per second by operation and the error that caused them.",
        normal: "Few. Retries that grow with the load add to it; constant 40001 means conflicting transactions.",
        action: "Fix the cause rather than allowing more attempts.",
    };
    let retries = sum_by(&["operation", "error_type"], metric!("poolscope_retries_total").rate());
    PanelBuilder::lines(PanelId::Retries, "Retries by operation and error", description)
        .size(10, 8)
        .query(unless_zero(retries), "{{operation}} · {{error_type}}")
        .unit(Unit::PerSecond)
        .legend_table()
}

fn retry_outcomes() -> PanelBuilder {
    let description = Description {
        shows: "Operations per second with a retry policy whose first attempt failed: recovered, or given up by reason.",
        normal: "Mostly recovered. budget: retries were stopped to protect the server. deadline: no time was left. \
                 commit_unknown: check by hand whether the commit succeeded. not_idempotent: the operation must not be \
                 repeated.",
        action: "budget: fix the failures. not_idempotent: mark the operation as idempotent if it is.",
    };
    let exhausted = metric!("poolscope_retry_exhausted_total").rate();
    PanelBuilder::lines(PanelId::RetryOutcomes, "Outcomes of retried operations", description)
        .size(8, 8)
        .query(sum(metric!("poolscope_retry_recovered_total").rate()), "recovered")
        .query(unless_zero(sum_by(&["reason"], exhausted)), "given up: {{reason}}")
        .unit(Unit::PerSecond)
        .colors(&[
            ("recovered", "blue"),
            ("given up: permanent", "#6e7079"),
            ("given up: not_idempotent", "purple"),
            ("given up: commit_unknown", "dark-red"),
            ("given up: unseen", "light-purple"),
            ("given up: attempts", "orange"),
            ("given up: deadline", "yellow"),
            ("given up: budget", "red"),
        ])
}

fn retry_budget() -> PanelBuilder {
    let description = Description {
        shows: "Retries that the pool's operations may still make; the lowest instance.",
        normal: "Above 0. At 0 nothing is retried, and failures reach the callers.",
        action: "Fix the failures. A larger budget (retry_percent) adds load to a failing server.",
    };
    PanelBuilder::lines(PanelId::RetryBudget, "Retry budget", description)
        .size(6, 8)
        .query(format!("min({})", metric!("poolscope_retry_budget_available")), "retries left")
        .colors(&[("retries left", "blue")])
}
