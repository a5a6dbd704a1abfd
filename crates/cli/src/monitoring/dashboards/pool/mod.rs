//! The pool dashboard: one pool, from health through causes to details.

mod caches;
mod diagnosis;
mod failures;
mod health;
mod holders;
mod lifecycle;
mod redis;
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
        diagnosis::row(),
        health::row(thresholds),
        saturation::row(thresholds),
        holders::row(thresholds),
        waiters::waiters_row(thresholds),
        waiters::latency_row(thresholds).collapsed(),
        failures::row(thresholds).collapsed(),
        retries::row().collapsed(),
        lifecycle::dirty_returns_row(thresholds).collapsed(),
        lifecycle::lifecycle_row(thresholds).collapsed(),
        server::row(thresholds).collapsed(),
        unpooled::row().collapsed(),
        requests::row().collapsed(),
        caches::row(thresholds).collapsed(),
        redis::row().collapsed(),
    ];
    render(Dashboard::Pool, rows, &[])
}
