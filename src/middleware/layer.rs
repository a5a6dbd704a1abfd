//! The layer, and what can be set.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::route::{Head, RouteBy};
use super::service::PoolService;
use super::shed::{Limits, Overload};
use crate::pool::request::{LayerConfig, RouteLimits};
use crate::pool::{Backend, Pool};
use crate::telemetry::clock::nanos;

/// Accounts to each request what it costs the pool. See [the module](crate::middleware).
///
/// Clones, and all services that it makes, share the pool and the shares of its routes.
pub struct PoolLayer<M: Backend> {
    pool: Pool<M>,
    settings: Settings,
    /// What its requests have in common; made anew when a setting changes that is part of it.
    terms: Arc<LayerConfig>,
}

/// What is set, but for what is part of the [`LayerConfig`].
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) route_by: Option<RouteBy>,
    pub(super) inserts_pool: bool,
    pub(super) server_timing: bool,
    pub(super) many_checkouts: u64,
    pub(super) limits: Limits,
    names_operations: bool,
    held_elsewhere: Duration,
    share: Option<usize>,
    /// Where it was made.
    call_site: &'static Location<'static>,
}

impl<M: Backend> PoolLayer<M> {
    /// A layer with its defaults: it accounts and warns, and refuses nothing.
    #[must_use]
    #[track_caller]
    pub fn new(pool: &Pool<M>) -> Self {
        let settings = Settings {
            route_by: None,
            inserts_pool: true,
            server_timing: false,
            many_checkouts: 10,
            limits: Limits::default(),
            names_operations: true,
            held_elsewhere: Duration::from_millis(250),
            share: None,
            call_site: Location::caller(),
        };
        let terms = settings.terms(pool);
        Self { pool: pool.clone(), settings, terms }
    }

    fn renewed(mut self) -> Self {
        self.terms = self.settings.terms(&self.pool);
        self
    }

    /// Says what the route of a request is: the template of its path, from a set that is bounded; `None` if it is not
    /// known. By default it is axum's `MatchedPath`, with the feature `axum`, and not known without.
    ///
    /// ```
    /// use std::borrow::Cow;
    /// use poolscope::middleware::{Head, PoolLayer};
    ///
    /// # fn layer(pool: &poolscope::Pool) -> PoolLayer<poolscope::pool::postgres::PostgresManager> {
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

    /// Whether the pool is put into each request's extensions, as the type that it was given as. Default: yes. To put it
    /// there costs two allocations, as anything does; whoever has the pool at hand anyway spares them.
    #[must_use]
    pub fn insert_pool(mut self, inserts: bool) -> Self {
        self.settings.inserts_pool = inserts;
        self
    }

    /// Whether what is done without a name of its own is named after the request's method and route, if that is known.
    /// Default: yes.
    #[must_use]
    pub fn name_operations(mut self, names: bool) -> Self {
        self.settings.names_operations = names;
        self.renewed()
    }

    /// Whether answers to requests that checked out have a `Server-Timing` header: `pool-wait` and `pool-use`, in
    /// milliseconds until the answer's head was ready, and the number of checkouts. Default: no, as whoever asks can read
    /// it.
    #[must_use]
    pub fn server_timing(mut self, tells: bool) -> Self {
        self.settings.server_timing = tells;
        self
    }

    /// Warns of a request that makes more checkouts than that. Default: 10.
    #[must_use]
    pub fn many_checkouts(mut self, most: u64) -> Self {
        self.settings.many_checkouts = most;
        self
    }

    /// Warns of a request that holds a connection for so long, or longer, while the server has nothing to do for it: the sum
    /// over one hold. Default: 250 ms. Where the wire is not read (`read_wire`), that is not known, and nothing is said.
    #[must_use]
    pub fn held_elsewhere(mut self, longest: Duration) -> Self {
        self.settings.held_elsewhere = longest;
        self.renewed()
    }

    /// Refuses a request at once, with 503 and `Retry-After`, when more checkouts than that wait for capacity. Default:
    /// off.
    ///
    /// It is counted as `shed`: the request, and a checkout that was refused, for the operation that is named after its route
    /// (or for `other`, if nothing was done yet that is). With [`route_share`](Self::route_share) those who wait for a place of
    /// the request's own route count as a queue of their own.
    #[must_use]
    pub fn shed_queue(mut self, longest: usize) -> Self {
        self.settings.limits.queue = Some(longest);
        self
    }

    /// Refuses a request at once, with 503 and `Retry-After`, when a checkout can be expected to wait for longer than that:
    /// as many times the mean interval in which connections were last had as there are checkouts before it, and for how
    /// long none was had at all. Counted as with [`shed_queue`](Self::shed_queue). Default: off.
    #[must_use]
    pub fn shed_wait(mut self, longest: Duration) -> Self {
        self.settings.limits.wait = Some(longest);
        self
    }

    /// How much of the pool one route may hold, whatever the method, as a percentage of `pool_size + max_overflow`, rounded
    /// down; but one connection always. Default: all of it.
    ///
    /// A checkout beyond that waits for one of its own route's to be returned, in the order in which they came; that is
    /// time of the phase `share`, and part of `checkout_timeout`. Requests whose route is not known share one share. A
    /// request that needs two connections at once may wait for itself, as with a pool that is too small.
    #[must_use]
    pub fn route_share(mut self, percent: u8) -> Self {
        let max = self.terms.recorder.ledger().limits().max();
        self.settings.share = (percent < 100).then(|| max.saturating_mul(usize::from(percent)) / 100);
        self.renewed()
    }

    /// Why requests are refused now, if they are: for a readiness probe that is to follow it, such as that of the exporter
    /// (`Readiness::unless`). Always `None` while neither limit is set.
    #[must_use]
    pub fn overload(&self) -> Option<Overload> {
        self.settings.limits.overload(&self.terms, None)
    }
}

impl Settings {
    fn terms<M: Backend>(&self, pool: &Pool<M>) -> Arc<LayerConfig> {
        let Self { names_operations, held_elsewhere, share, call_site, .. } = *self;
        let shared = pool.shared();
        let route_limits = share.map(|connections| Arc::new(RouteLimits::new(connections)));
        if let Some(limits) = &route_limits {
            shared.route_limits.add(limits, || shared.is_closing());
        }
        let (recorder, idle_limit) = (shared.recorder.clone(), nanos(held_elsewhere));
        Arc::new(LayerConfig { recorder, names_operations, idle_limit, route_limits, call_site })
    }
}

impl<M: Backend> Clone for PoolLayer<M> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), settings: self.settings.clone(), terms: Arc::clone(&self.terms) }
    }
}

impl<M: Backend> fmt::Debug for PoolLayer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolLayer").field("pool", &self.pool).field("settings", &self.settings).finish()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route_by, inserts_pool, server_timing, many_checkouts, limits, .. } = self;
        let Self { names_operations, held_elsewhere, share, .. } = self;
        f.debug_struct("Settings")
            .field("route_by", &route_by.is_some())
            .field("inserts_pool", inserts_pool)
            .field("server_timing", server_timing)
            .field("many_checkouts", many_checkouts)
            .field("limits", limits)
            .field("names_operations", names_operations)
            .field("held_elsewhere", held_elsewhere)
            .field("share", share)
            .finish()
    }
}

impl<M: Backend, S> Layer<S> for PoolLayer<M> {
    type Service = PoolService<M, S>;

    fn layer(&self, inner: S) -> Self::Service {
        PoolService::new(inner, self.pool.clone(), self.settings.clone(), Arc::clone(&self.terms))
    }
}
