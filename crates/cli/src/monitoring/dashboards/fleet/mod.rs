//! The fleet dashboard: all pools, for up to about a thousand instances.
//!
//! Queries use series that exist once per pool: recording rules, or metrics without further labels. Only holders and waiters
//! are by operation, and use recording rules.

mod failures;
mod health;
mod load;
mod top_pools;

use serde_json::Value;

use super::dashboard::Dashboard;
use super::layout::{number_variable, render};
use crate::monitoring::thresholds::Thresholds;

pub(super) fn dashboard(thresholds: &Thresholds) -> Value {
    let rows = vec![
        health::row(thresholds),
        top_pools::row(thresholds),
        load::saturation_row(thresholds),
        load::holders_row(),
        load::waiters_row(thresholds),
        failures::failures_row(),
        failures::retries_row(thresholds),
        failures::lifecycle_row(),
    ];
    let slots = thresholds.server_connections.value - thresholds.server_reserved.value;
    let description = "Connection slots that the server has for these pools: max_connections less \
                       superuser_reserved_connections and the slots of other clients. It is used where no \
                       process polls the server.";
    render(Dashboard::Fleet, rows, &[number_variable("slots", "Server slots", description, slots)])
}
