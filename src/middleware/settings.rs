//! The settings of a layer.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::route::RouteBy;
use super::shedding::SheddingLimits;
use crate::pool::request::LayerConfig;
use crate::pool::{Backend, Pool};
use crate::telemetry::clock::nanos;

/// The settings of a layer.
#[derive(Clone)]
pub(super) struct LayerSettings {
    pub(super) route_by: Option<RouteBy>,
    pub(super) insert_pool: bool,
    pub(super) shedding: SheddingLimits,
    /// Those that requests need after they have begun, which share them.
    pub(super) config: Arc<LayerConfig>,
}

impl LayerSettings {
    pub(super) fn new<M: Backend>(pool: &Pool<M>, call_site: &'static Location<'static>) -> Self {
        let config = LayerConfig {
            recorder: pool.shared().recorder.clone(),
            call_site,
            names_operations: true,
            idle_limit: nanos(Duration::from_millis(250)),
            route_limits: None,
            server_timing: false,
            server_span: true,
            max_checkouts: 10,
        };
        Self { route_by: None, insert_pool: true, shedding: SheddingLimits::default(), config: Arc::new(config) }
    }

    /// Returns the settings that requests share, to change them. Services that exist already keep theirs.
    pub(super) fn config_mut(&mut self) -> &mut LayerConfig {
        Arc::make_mut(&mut self.config)
    }
}

impl fmt::Debug for LayerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route_by, insert_pool, shedding, config } = self;
        let LayerConfig {
            names_operations, idle_limit, route_limits, server_timing, server_span, max_checkouts, ..
        } = &**config;
        f.debug_struct("LayerSettings")
            .field("route_by", &route_by.is_some())
            .field("insert_pool", insert_pool)
            .field("server_timing", server_timing)
            .field("warn_checkouts_over", max_checkouts)
            .field("shedding", shedding)
            .field("name_operations", names_operations)
            .field("server_span", server_span)
            .field("warn_idle_hold", &Duration::from_nanos(*idle_limit))
            .field("max_route_connections", &route_limits.as_ref().map(|limits| limits.connections()))
            .finish()
    }
}
