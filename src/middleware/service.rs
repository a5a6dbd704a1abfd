//! The service that the layer creates.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::accounting::Accounting;
use super::body::ResponseBody;
use super::future::ResponseFuture;
use super::matched_path::matched_path;
use super::route::{Head, method};
use super::settings::LayerSettings;
use crate::pool::request::{ActiveRequest, LayerConfig, is_active};
use crate::pool::{Backend, Pool};
use crate::telemetry::requests::{RouteKey, UNKNOWN_ROUTE};

/// A service that accounts its requests; see [`PoolLayer`](super::PoolLayer).
///
/// It is ready when the inner service is. A refused request does not reach the inner service, whose readiness then remains
/// for the next request.
pub struct PoolService<M: Backend, S> {
    inner: S,
    pool: Pool<M>,
    settings: LayerSettings,
    config: Arc<LayerConfig>,
}

impl<M: Backend, S> PoolService<M, S> {
    pub(super) fn new(inner: S, pool: Pool<M>, settings: LayerSettings, config: Arc<LayerConfig>) -> Self {
        Self { inner, pool, settings, config }
    }

    fn route_key<B>(&self, request: &Request<B>) -> RouteKey {
        let head = Head::of(request);
        let method = method(head.method);
        let recorder = &self.config.recorder;
        match &self.settings.route_by {
            Some(route_by) => recorder.route_key(route_by(head).as_deref().unwrap_or(UNKNOWN_ROUTE), method),
            None => recorder.route_key(matched_path(&head).unwrap_or(UNKNOWN_ROUTE), method),
        }
    }
}

impl<M, S, B, R> Service<Request<B>> for PoolService<M, S>
where
    M: Backend,
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.settings.insert_pool {
            request.extensions_mut().insert(self.pool.clone());
        }
        // An outer layer of this pool does the accounting.
        if is_active(self.config.recorder.ledger()) {
            return ResponseFuture::unaccounted(self.inner.call(request));
        }
        let route = self.route_key(&request);
        let active = ActiveRequest::new(Arc::clone(&self.config), route);
        let mut accounting = Accounting::begin(active, &self.settings, &request);
        if let Some(overload) = self.settings.shedding.overload(&self.config, Some(route)) {
            accounting.shed();
            return ResponseFuture::refused(overload);
        }
        // A service may start a checkout before its future is polled.
        let inner = accounting.enter(|| self.inner.call(request));
        ResponseFuture::accounted(inner, accounting)
    }
}

impl<M: Backend, S: Clone> Clone for PoolService<M, S> {
    fn clone(&self) -> Self {
        let Self { inner, pool, settings, config } = self;
        Self { inner: inner.clone(), pool: pool.clone(), settings: settings.clone(), config: Arc::clone(config) }
    }
}

impl<M: Backend, S: fmt::Debug> fmt::Debug for PoolService<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner, pool, settings, .. } = self;
        f.debug_struct("PoolService")
            .field("inner", inner)
            .field("pool", pool)
            .field("settings", settings)
            .finish_non_exhaustive()
    }
}
