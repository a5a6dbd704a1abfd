//! The metrics of retries.

use super::table::active;
use super::{Kind, Metric};
use crate::telemetry::clock::to_f64;

pub(super) const RETRIES: Metric = Metric::of_own_pool(
    "poolscope_retries_total",
    Kind::Counter,
    &["operation", "sqlstate", "error_type"],
    "Retries of operations, by the error that was retried, with the labels of poolscope_connection_errors_total. At most 1000 combinations per pool; further ones have the error_type other.",
    |pool, sink| {
        for retries in &pool.retries {
            let [sqlstate, error_type] = retries.code.labels();
            sink.value(&[&retries.operation, sqlstate, error_type], to_f64(retries.count));
        }
    },
);

pub(super) const RECOVERED: Metric = Metric::of_own_pool(
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

pub(super) const EXHAUSTED: Metric = Metric::of_own_pool(
    "poolscope_retry_exhausted_total",
    Kind::Counter,
    &["operation", "reason", "sqlstate", "error_type"],
    "Operations with a retry policy that failed and were not retried (again), by reason: permanent, checkout_timeout, not_idempotent, commit_unknown, unseen, attempts, deadline, budget; and by the last error, with the labels of poolscope_connection_errors_total (error_type is none if the deadline of the policy interrupted an attempt).",
    |pool, sink| {
        for exhausted in &pool.retries_exhausted {
            let [sqlstate, error_type] = exhausted.code.labels();
            let labels = [&*exhausted.operation, exhausted.reason.as_str(), sqlstate, error_type];
            sink.value(&labels, to_f64(exhausted.count));
        }
    },
);

pub(super) const BUDGET: Metric = Metric::of_own_pool(
    "poolscope_retry_budget_available",
    Kind::Gauge,
    &[],
    "Retries that may currently be made: retry_floor for each of the last ten seconds plus retry_percent of the operations with a retry policy in them, minus the retries made in them. At 0, operations are not retried.",
    |pool, sink| sink.value(&[], pool.retry_budget),
);
