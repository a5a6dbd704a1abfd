//! What is outside the pool, by the operation that is named after its call site.

use super::{Kind, Metric};
use crate::telemetry::clock::{seconds, to_f64};
use crate::telemetry::ledger::UnpooledTotals;

/// A metric with a sample for each operation, which is `$of` its [`UnpooledTotals`].
macro_rules! of_unpooled {
    ($name:literal, $kind:ident, $help:literal, $of:expr) => {
        Metric::of_pool($name, Kind::$kind, &["operation"], $help, |pool, sink| {
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
    "Connections opened outside the pool (connect_unpooled), counted when they are established. Those that cannot be are in poolscope_connection_errors_total, phase connect. None of the pool's other metrics count any of them.",
    |unpooled| to_f64(unpooled.opened)
);

pub(super) const ACTIVE: Metric = of_unpooled!(
    "poolscope_unpooled_connections_active",
    Gauge,
    "Connections currently open outside the pool: established, and not dropped by their holder.",
    |unpooled| to_f64(unpooled.active as u64)
);

pub(super) const SECONDS: Metric = of_unpooled!(
    "poolscope_unpooled_seconds_total",
    Counter,
    "Time for which connections outside the pool were open, from established to dropped; those that are open now included. Its rate is how many of them the operation has on average.",
    |unpooled| seconds(unpooled.open_nanos)
);

pub(super) const CONNECT_SECONDS: Metric = of_unpooled!(
    "poolscope_unpooled_connect_seconds_total",
    Counter,
    "Time spent connecting outside the pool, from the first poll until it was established, failed or was given up; what is connecting now included. What a pool would save.",
    |unpooled| seconds(unpooled.connect_nanos)
);
