//! The metrics of connections outside the pool.

use super::{Kind, Metric};
use crate::telemetry::clock::{seconds, to_f64};
use crate::telemetry::ledger::UnpooledTotals;

/// Defines a metric with a sample for each operation: `$of` its [`UnpooledTotals`].
macro_rules! of_unpooled {
    ($name:literal, $kind:ident, $help:literal, $of:expr) => {
        Metric::of_own_pool($name, Kind::$kind, &["operation"], $help, |pool, sink| {
            let of: fn(&UnpooledTotals) -> f64 = $of;
            for unpooled in &pool.unpooled {
                sink.value(&[&unpooled.operation], of(unpooled));
            }
        })
    };
}

pub(super) const CONNECTIONS: Metric = of_unpooled!(
    "poolscope_unpooled_connections_total",
    Counter,
    "Connections established outside the pool (connect_unpooled, listen). Failed ones are counted in poolscope_connection_errors_total with the phase connect. No other metric of the pool includes them.",
    |unpooled| to_f64(unpooled.opened)
);

pub(super) const ACTIVE: Metric = of_unpooled!(
    "poolscope_unpooled_connections_active",
    Gauge,
    "Connections currently open outside the pool.",
    |unpooled| to_f64(unpooled.active as u64)
);

pub(super) const SECONDS: Metric = of_unpooled!(
    "poolscope_unpooled_seconds_total",
    Counter,
    "Time for which connections outside the pool were open, including those currently open. The rate is the mean number of open ones.",
    |unpooled| seconds(unpooled.open_nanos)
);

pub(super) const CONNECT_SECONDS: Metric = of_unpooled!(
    "poolscope_unpooled_connect_seconds_total",
    Counter,
    "Time spent connecting outside the pool, including failed and abandoned attempts and those in progress: the time that a pool would save.",
    |unpooled| seconds(unpooled.connect_nanos)
);
