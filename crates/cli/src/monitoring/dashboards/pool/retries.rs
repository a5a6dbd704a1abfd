//! What is tried again, and how much more may be?

use super::super::drawing::{Drawing, Says};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{metric, sum, sum_by, unless_zero};
use super::super::unit::Unit;

pub(super) fn row() -> Row {
    Row { title: "What is tried again?", panels: vec![retries(), ends(), budget()] }
}

fn retries() -> Drawing {
    let says = Says {
        means: "Attempts after the first, by operation and by what had failed.",
        bad: "Retries that grow with the load: they are load themselves. 40001 that stays: transactions in each other's way.",
        cure: "Mend what fails, rather than allowing more attempts.",
    };
    let retries = sum_by(&["operation", "sqlstate"], metric!("poolscope_retries_total").rate());
    Drawing::lines(Panel::Retries, "Retries: by operation and SQLSTATE", says)
        .size(10, 8)
        .asks(unless_zero(retries), "{{operation}} · {{sqlstate}}")
        .unit(Unit::PerSecond)
        .listed()
}

fn ends() -> Drawing {
    let says = Says {
        means: "What became of operations with a retry policy that failed at first: recovered, or given up and why.",
        bad: "budget: retries were stopped to spare the server. deadline: they came too late. commit_unknown: somebody has \
              to look whether it was done. not_idempotent: it may not be repeated as it is.",
        cure: "budget: see what fails. not_idempotent: say that it is idempotent, if it is.",
    };
    let exhausted = metric!("poolscope_retry_exhausted_total").rate();
    Drawing::lines(Panel::RetryEnds, "What became of them", says)
        .size(8, 8)
        .asks(sum(metric!("poolscope_retry_recovered_total").rate()), "recovered")
        .asks(unless_zero(sum_by(&["reason"], exhausted)), "given up: {{reason}}")
        .unit(Unit::PerSecond)
        .colours(&[
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

fn budget() -> Drawing {
    let says = Says {
        means: "How many retries the pool's operations may make now; of several instances, the least.",
        bad: "At 0 nothing is retried: failures pass straight to the callers.",
        cure: "See what fails. A larger budget (retry_percent) is more load on a server that is in trouble.",
    };
    Drawing::lines(Panel::RetryBudget, "Budget", says)
        .size(6, 8)
        .asks(format!("min({})", metric!("poolscope_retry_budget_available")), "retries left")
        .colours(&[("retries left", "blue")])
}
