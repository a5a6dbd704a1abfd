//! One pool: its story in order.
//!
//! The diagnosis of a cause goes after `health`.

mod failures;
mod fullness;
mod health;
mod holders;
mod life;
mod migration;
mod requests;
mod retries;
mod server;
mod waiters;

use serde_json::Value;

use super::Dashboard;
use super::frame::frame;
use crate::monitoring::Thresholds;

/// Quantiles, the more of it the darker.
const QUANTILES: [(&str, &str); 3] = [("p50", "light-blue"), ("p90", "blue"), ("p99", "purple")];

pub(super) fn dashboard(thresholds: &Thresholds) -> Value {
    let rows = vec![
        health::row(thresholds),
        fullness::row(thresholds),
        holders::row(thresholds),
        waiters::who(thresholds),
        waiters::how_long(thresholds),
        failures::row(thresholds),
        retries::row(),
        life::dirt(thresholds),
        life::cycle(thresholds),
        server::row(thresholds),
        migration::row(),
        requests::row(),
    ];
    frame(Dashboard::Pool, rows, &[])
}
