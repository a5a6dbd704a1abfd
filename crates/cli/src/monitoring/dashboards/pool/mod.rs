//! The pool dashboard: one pool, from health through causes to details.

mod failures;
mod health;
mod holders;
mod lifecycle;
mod requests;
mod retries;
mod saturation;
mod server;
mod unpooled;
mod waiters;

use serde_json::Value;

use super::dashboard::Dashboard;
use super::layout::render;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn dashboard(thresholds: &Thresholds) -> Value {
    let rows = vec![
        health::row(thresholds),
        saturation::row(thresholds),
        holders::row(thresholds),
        waiters::waiters_row(thresholds),
        waiters::latency_row(thresholds),
        failures::row(thresholds),
        retries::row(),
        lifecycle::dirty_returns_row(thresholds),
        lifecycle::lifecycle_row(thresholds),
        server::row(thresholds),
        unpooled::row(),
        requests::row(),
    ];
    render(Dashboard::Pool, rows, &[])
}
