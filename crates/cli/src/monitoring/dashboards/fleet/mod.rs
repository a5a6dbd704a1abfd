//! All pools, the worst first; made for a thousand instances.
//!
//! What is asked of each pool has one series for it: a recording rule, or a metric without further labels. Only who holds
//! and who waits go by operation, and those are recorded.

mod cures;
mod health;
mod load;
mod worst;

use serde_json::Value;

use super::Dashboard;
use super::frame::{frame, number};
use crate::monitoring::Thresholds;

pub(super) fn dashboard(thresholds: &Thresholds) -> Value {
    let rows = vec![
        health::row(thresholds),
        worst::row(thresholds),
        load::slots(thresholds),
        load::holders(),
        load::waiters(thresholds),
        cures::failures(),
        cures::retries(thresholds),
        cures::cycle(),
    ];
    let slots = thresholds.server_connections.value - thresholds.server_reserved.value;
    let description = "How many connections the server has for these pools: max_connections less \
                       superuser_reserved_connections and what others need.";
    frame(Dashboard::Fleet, rows, &[number("slots", "Slots of the server", description, slots)])
}
