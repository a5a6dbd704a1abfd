//! What was tried again, and what was not.

use super::table::active;
use super::{Kind, Metric};
use crate::telemetry::clock::to_f64;

pub(super) const RETRIES: Metric = Metric::of_pool(
    "poolscope_retries_total",
    Kind::Counter,
    &["operation", "sqlstate"],
    "Attempts after the first, by what had failed: an SQLSTATE, or one of the words that poolscope_connection_errors_total has where there is none. At most 1000 pairs are told apart, then the label says other.",
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
    "Operations that succeeded after they had failed at least once. Missing for operations that never did.",
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
    "Operations with a retry policy that failed, by why they were not tried (again): permanent, not_idempotent, commit_unknown, unseen, attempts, deadline, budget; and by what had failed last (none where the policy's deadline cut off an attempt).",
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
    "Retries that may currently be made: retry_floor for each of the last ten seconds and retry_percent of their operations with a retry policy, less the retries made in them. At 0 retries stop.",
    |pool, sink| sink.value(&[], pool.retry_budget),
);
