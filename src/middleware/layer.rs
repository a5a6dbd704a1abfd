//! The layer and its builder methods.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::route::Head;
use super::route_limits::{max_connections, register};
use super::service::PoolService;
use super::settings::LayerSettings;
use super::shedding::Overload;
use crate::pool::{Backend, Pool, PostgresManager};
use crate::telemetry::clock::nanos;

/// A layer that accounts the use of a pool to requests. See [the module](crate::middleware).
///
/// Clones, and all services that the layer creates, share the pool and its route limits.
pub struct PoolLayer<M: Backend = PostgresManager> {
    pool: Pool<M>,
    settings: LayerSettings,
}

impl<M: Backend> PoolLayer<M> {
    /// Creates a layer with the defaults, which accounts and warns, and refuses no request.
    #[must_use]
    #[track_caller]
    pub fn new(pool: &Pool<M>) -> Self {
        Self { pool: pool.clone(), settings: LayerSettings::new(pool, Location::caller()) }
    }

    /// Sets the function that returns the route of a request: the template of its path, from a bounded set, or `None` if
    /// unknown. Default: axum's `MatchedPath` with the feature `axum`, and unknown without.
    ///
    /// ```
    /// use std::borrow::Cow;
    /// use poolscope::middleware::{Head, PoolLayer};
    ///
    /// # fn layer(pool: &poolscope::Pool) -> PoolLayer {
    /// fn route<'a>(head: Head<'a>) -> Option<Cow<'a, str>> {
    ///     match head.uri.path() {
    ///         "/orders" => Some("/orders".into()),
    ///         path if path.starts_with("/orders/") => Some("/orders/{id}".into()),
    ///         _ => None,
    ///     }
    /// }
    ///
    /// PoolLayer::new(pool).route_by(route)
    /// # }
    /// ```
    #[must_use]
    pub fn route_by(
        mut self,
        route: impl for<'a> Fn(Head<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    ) -> Self {
        self.settings.route_by = Some(Arc::new(route));
        self
    }

    /// Sets whether the pool is inserted into each request's extensions, with the type it was passed as. Default: yes. This
    /// costs two allocations per request; services that have the pool otherwise can avoid them.
    #[must_use]
    pub fn insert_pool(mut self, insert: bool) -> Self {
        self.settings.insert_pool = insert;
        self
    }

    /// Sets whether operations without a name are named after the request's method and route, if the route is known.
    /// Default: yes.
    #[must_use]
    pub fn name_operations(mut self, name: bool) -> Self {
        self.settings.config_mut().names_operations = name;
        self
    }

    /// Sets whether a request that is served outside any OpenTelemetry span gets a server span: a child of the caller's, if
    /// the request has a `traceparent`, or the first of a trace. Its sampling is that of the tracer. Default: yes, with the
    /// feature `otel` and an OpenTelemetry layer of `tracing`; without them there is no span.
    #[must_use]
    pub fn server_span(mut self, enabled: bool) -> Self {
        self.settings.config_mut().server_span = enabled;
        self
    }

    /// Sets whether responses to requests that checked out have a `Server-Timing` header: `pool-wait` and `pool-use` in
    /// milliseconds until the response's head was ready, and the number of checkouts. Default: no, as clients can read it.
    #[must_use]
    pub fn server_timing(mut self, enabled: bool) -> Self {
        self.settings.config_mut().server_timing = enabled;
        self
    }

    /// Logs and counts a warning for a request that makes more checkouts. Default: 10.
    #[must_use]
    pub fn warn_checkouts_over(mut self, max: u64) -> Self {
        self.settings.config_mut().max_checkouts = max;
        self
    }

    /// Logs and counts a warning for a request that holds a connection at least this long while the server executes
    /// nothing for it, summed over one hold, apart from waits of its task for another connection of this pool, which
    /// `poolscope_self_deadlocks_total` counts. Default: 250 ms. No warnings with `read_wire` off, where this time is unknown.
    #[must_use]
    pub fn warn_idle_hold(mut self, min: Duration) -> Self {
        self.settings.config_mut().idle_limit = nanos(min);
        self
    }

    /// Refuses a request immediately, with 503 and `Retry-After`, while more checkouts than this wait for a connection.
    /// Default: no limit.
    ///
    /// The request is counted with the outcome `shed`, and so is one checkout of the operation named after its route (of
    /// `other`, if there is no such operation yet). With [`max_route_percent`](Self::max_route_percent), checkouts that wait
    /// because of the limit of the request's route form a queue of their own.
    #[must_use]
    pub fn max_queue_len(mut self, max: usize) -> Self {
        self.settings.shedding.max_queue_len = Some(max);
        self
    }

    /// Refuses a request immediately, with 503 and `Retry-After`, while a checkout is expected to wait longer than this.
    /// Default: no limit.
    ///
    /// The expected wait is the length of the queue, including the new checkout, times the recent mean interval at which
    /// queued checkouts are served, plus the time since the last was served. Refused requests are counted as with
    /// [`max_queue_len`](Self::max_queue_len).
    #[must_use]
    pub fn max_expected_wait(mut self, max: Duration) -> Self {
        self.settings.shedding.max_expected_wait = Some(max);
        self
    }

    /// Limits the connections that one route may hold, regardless of the method, to a percentage of
    /// `pool_size + max_overflow`, rounded down, but at least one connection. Default: no limit.
    ///
    /// A checkout beyond the limit waits, in order of arrival, until a connection of its route is returned. That time
    /// belongs to the phase `share` and counts towards `checkout_timeout`. Requests whose route is unknown share one limit. A
    /// request that needs two connections at once may deadlock with itself, as in a pool that is too small.
    #[must_use]
    pub fn max_route_percent(mut self, percent: u8) -> Self {
        let pool_max = self.settings.config.recorder.ledger().limits().max();
        let limits = max_connections(percent, pool_max).map(|connections| register(&self.pool, connections));
        self.settings.config_mut().route_limits = limits;
        self
    }

    /// Returns the load of the pool if requests are shed now, for a readiness probe such as the exporter's
    /// (`Readiness::add_check`). Always `None` if neither [`max_queue_len`](Self::max_queue_len) nor
    /// [`max_expected_wait`](Self::max_expected_wait) is set.
    #[must_use]
    pub fn overload(&self) -> Option<Overload> {
        self.settings.shedding.overload(&self.settings.config, None)
    }
}

impl<M: Backend> Clone for PoolLayer<M> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), settings: self.settings.clone() }
    }
}

impl<M: Backend> fmt::Debug for PoolLayer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolLayer").field("pool", &self.pool).field("settings", &self.settings).finish()
    }
}

impl<M: Backend, S> Layer<S> for PoolLayer<M> {
    type Service = PoolService<M, S>;

    fn layer(&self, inner: S) -> Self::Service {
        PoolService::new(inner, self.pool.clone(), self.settings.clone())
    }
}
