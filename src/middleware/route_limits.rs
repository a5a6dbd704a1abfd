//! The maximum number of connections that one route may hold.

use std::sync::Arc;

use crate::pool::request::RouteLimits;
use crate::pool::{Backend, Pool};

/// Returns the number of connections for a percentage of the pool, rounded down; `None` for the whole pool.
pub(super) fn max_connections(percent: u8, pool_max: usize) -> Option<usize> {
    (percent < 100).then(|| pool_max.saturating_mul(usize::from(percent)) / 100)
}

/// Creates the limits of a layer, which the pool closes with itself.
pub(super) fn register<M: Backend>(pool: &Pool<M>, connections: usize) -> Arc<RouteLimits> {
    let limits = Arc::new(RouteLimits::new(connections));
    let shared = pool.shared();
    shared.route_limits.add(&limits, || shared.is_closing());
    limits
}

#[test]
fn percentage_is_rounded_down() {
    assert_eq!(
        [0, 33, 99, 100, 255].map(|percent| max_connections(percent, 10)),
        [Some(0), Some(3), Some(9), None, None]
    );
}
