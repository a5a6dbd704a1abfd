//! The settings of a layer.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::route::RouteBy;
use super::route_limits::register;
use super::shedding::SheddingLimits;
use crate::pool::request::LayerConfig;
use crate::pool::{Backend, Pool};
use crate::telemetry::clock::nanos;

/// The settings of a layer.
#[derive(Clone)]
pub(super) struct LayerSettings {
    pub(super) route_by: Option<RouteBy>,
    pub(super) insert_pool: bool,
    pub(super) server_timing: bool,
    pub(super) warn_checkouts_over: u64,
    pub(super) shedding: SheddingLimits,
    pub(super) name_operations: bool,
    pub(super) server_span: bool,
    pub(super) warn_idle_hold: Duration,
    pub(super) max_route_connections: Option<usize>,
    /// Where the layer was created.
    call_site: &'static Location<'static>,
}

impl LayerSettings {
    pub(super) fn new(call_site: &'static Location<'static>) -> Self {
        Self {
            route_by: None,
            insert_pool: true,
            server_timing: false,
            warn_checkouts_over: 10,
            shedding: SheddingLimits::default(),
            name_operations: true,
            server_span: true,
            warn_idle_hold: Duration::from_millis(250),
            max_route_connections: None,
            call_site,
        }
    }

    /// Returns the part that the requests share.
    pub(super) fn config<M: Backend>(&self, pool: &Pool<M>) -> Arc<LayerConfig> {
        let Self { name_operations, warn_idle_hold, max_route_connections, call_site, .. } = *self;
        Arc::new(LayerConfig {
            recorder: pool.shared().recorder.clone(),
            names_operations: name_operations,
            idle_limit: nanos(warn_idle_hold),
            route_limits: max_route_connections.map(|connections| register(pool, connections)),
            call_site,
        })
    }
}

impl fmt::Debug for LayerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route_by, insert_pool, server_timing, warn_checkouts_over, shedding, .. } = self;
        let Self { name_operations, server_span, warn_idle_hold, max_route_connections, .. } = self;
        f.debug_struct("LayerSettings")
            .field("route_by", &route_by.is_some())
            .field("insert_pool", insert_pool)
            .field("server_timing", server_timing)
            .field("warn_checkouts_over", warn_checkouts_over)
            .field("shedding", shedding)
            .field("name_operations", name_operations)
            .field("server_span", server_span)
            .field("warn_idle_hold", warn_idle_hold)
            .field("max_route_connections", max_route_connections)
            .finish()
    }
}
