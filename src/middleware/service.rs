//! The service that the layer makes.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::ResponseBody;
use super::future::ResponseFuture;
use super::layer::Settings;
use super::route::{Head, matched, method};
use super::tracking::Tracking;
use crate::pool::request::{ActiveRequest, LayerConfig, is_active};
use crate::pool::{Backend, Pool};
use crate::telemetry::requests::{RouteKey, UNKNOWN_ROUTE};

/// A service whose requests are accounted; see [`PoolLayer`](super::PoolLayer).
///
/// It is ready when the inner service is. A request that it refuses never reaches that one, which stays as ready as it was
/// for the next.
pub struct PoolService<M: Backend, S> {
    inner: S,
    pool: Pool<M>,
    settings: Settings,
    terms: Arc<LayerConfig>,
}

impl<M: Backend, S> PoolService<M, S> {
    pub(super) fn new(inner: S, pool: Pool<M>, settings: Settings, terms: Arc<LayerConfig>) -> Self {
        Self { inner, pool, settings, terms }
    }

    fn kind<B>(&self, request: &Request<B>) -> RouteKey {
        let head = Head::of(request);
        let method = method(head.method);
        let recorder = &self.terms.recorder;
        match &self.settings.route_by {
            Some(route_by) => recorder.request_kind(route_by(head).as_deref().unwrap_or(UNKNOWN_ROUTE), method),
            None => recorder.request_kind(matched(&head).unwrap_or(UNKNOWN_ROUTE), method),
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
        if self.settings.inserts_pool {
            request.extensions_mut().insert(self.pool.clone());
        }
        // Another layer of this pool's is around this one, and counts it.
        if is_active(self.terms.recorder.ledger()) {
            return ResponseFuture::passed(self.inner.call(request));
        }
        let kind = self.kind(&request);
        let serving = ActiveRequest::new(Arc::clone(&self.terms), kind);
        let mut tracking = Tracking::begin(serving, &self.settings, &request);
        if let Some(overload) = self.settings.limits.overload(&self.terms, Some(kind)) {
            tracking.shed();
            return ResponseFuture::refused(overload);
        }
        // A service may ask for a connection before its future is polled.
        let inner = tracking.enter(|| self.inner.call(request));
        ResponseFuture::serving(inner, tracking)
    }
}

impl<M: Backend, S: Clone> Clone for PoolService<M, S> {
    fn clone(&self) -> Self {
        let Self { inner, pool, settings, terms } = self;
        Self { inner: inner.clone(), pool: pool.clone(), settings: settings.clone(), terms: Arc::clone(terms) }
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
