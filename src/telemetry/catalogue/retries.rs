//! The metrics of retries.

use super::table::active;
use super::{Kind, Metric};
use crate::telemetry::clock::to_f64;

pub(super) const RETRIES: Metric = Metric::of_pool(
    "poolscope_retries_total",
    Kind::Counter,
    &["operation", "sqlstate"],
    "Retries of operations, by the SQLSTATE of the error that was retried, or the value that poolscope_connection_errors_total has where there is none. At most 1000 combinations per pool; further codes are counted as other.",
    |pool, sink| {
        for retries in &pool.retries {
            sink.value(&[&retries.operation, retries.code.as_str()], to_f64(retries.count));
        }
    },
);

pub(super) const RECOVERED: Metric = Metric::of_pool(
    "poolscope_retry_recovered_total",
    Kind::Counter,
    &["operation"],
    "Operations that succeeded after at least one retry. Missing for operations that never did.",
    |pool, sink| {
        for operation in active(pool).filter(|operation| operation.recovered > 0) {
            sink.value(&[&operation.name], to_f64(operation.recovered));
        }
    },
);

pub(super) const EXHAUSTED: Metric = Metric::of_pool(
    "poolscope_retry_exhausted_total",
    Kind::Counter,
    &["operation", "reason", "sqlstate"],
    "Operations with a retry policy that failed and were not retried (again), by reason: permanent, not_idempotent, commit_unknown, unseen, attempts, deadline, budget; and by the SQLSTATE of the last error (none if the deadline of the policy interrupted an attempt).",
    |pool, sink| {
        for exhausted in &pool.retries_exhausted {
            let labels = [&*exhausted.operation, exhausted.reason.as_str(), exhausted.code.as_str()];
            sink.value(&labels, to_f64(exhausted.count));
        }
    },
);

pub(super) const BUDGET: Metric = Metric::of_pool(
    "poolscope_retry_budget_available",
    Kind::Gauge,
    &[],
    "Retries that may currently be made: retry_floor for each of the last ten seconds plus retry_percent of the operations with a retry policy in them, minus the retries made in them. At 0, operations are not retried.",
    |pool, sink| sink.value(&[], pool.retry_budget),
);
