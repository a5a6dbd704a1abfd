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
use crate::pool::request::{ActiveRequest, is_active};
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
}

impl<M: Backend, S> PoolService<M, S> {
    pub(super) fn new(inner: S, pool: Pool<M>, settings: LayerSettings) -> Self {
        Self { inner, pool, settings }
    }

    fn route_key<B>(&self, request: &Request<B>) -> RouteKey {
        let head = Head::of(request);
        let method = method(head.method);
        let recorder = &self.settings.config.recorder;
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
        let config = &self.settings.config;
        // An outer layer of this pool does the accounting.
        if is_active(config.recorder.ledger()) {
            return ResponseFuture::new(self.inner.call(request), None);
        }
        let route = self.route_key(&request);
        let mut accounting = Accounting::begin(ActiveRequest::new(Arc::clone(config), route), &request);
        if let Some(overload) = self.settings.shedding.overload(config, Some(route)) {
            accounting.shed();
            return ResponseFuture::refused(overload);
        }
        // A service may start a checkout before its future is polled.
        let inner = accounting.enter(|| self.inner.call(request));
        ResponseFuture::new(inner, Some(accounting))
    }
}

impl<M: Backend, S: Clone> Clone for PoolService<M, S> {
    fn clone(&self) -> Self {
        let Self { inner, pool, settings } = self;
        Self { inner: inner.clone(), pool: pool.clone(), settings: settings.clone() }
    }
}

impl<M: Backend, S: fmt::Debug> fmt::Debug for PoolService<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner, pool, settings } = self;
        f.debug_struct("PoolService").field("inner", inner).field("pool", pool).field("settings", settings).finish()
    }
}
