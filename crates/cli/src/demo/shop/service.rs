//! The HTTP service of the shop: spans, the middleware, and the router.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use poolscope::Pool;
use poolscope::middleware::{Head, PoolLayer, PoolService, ResponseBody};
use poolscope::pool::PostgresManager;
use tower_layer::Layer;
use tower_service::Service;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::endpoint::{allowed, endpoint, find_route};
use super::handlers::Handlers;
use super::response::{ShopResponse, failure, success, unknown_method, unknown_path};

/// After which time of an idle connection a request is reported. Above the half second for which the customer count holds
/// its connection.
const IDLE_HOLD_THRESHOLD: Duration = Duration::from_secs(1);

/// The router in the middleware.
pub(super) type ShopService = PoolService<PostgresManager, Router>;

/// Returns the service, which accounts pool usage to routes.
pub(super) fn service(pool: &Pool, handlers: Arc<Handlers>) -> ShopService {
    PoolLayer::new(pool)
        .route_by(route)
        // The handlers have the pool.
        .insert_pool(false)
        .warn_idle_hold(IDLE_HOLD_THRESHOLD)
        .server_timing(true)
        .layer(Router { handlers })
}

fn route<'a>(head: Head<'a>) -> Option<Cow<'a, str>> {
    find_route(head.uri.path()).map(|(route, _)| route.into())
}

/// Serves a request in a new span.
pub(super) async fn serve(
    mut service: ShopService,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody<Full<Bytes>>>, Infallible> {
    let span = span(&request);
    std::future::poll_fn(|cx| Service::<Request<Incoming>>::poll_ready(&mut service, cx)).await?;
    // The middleware reads the span in which it is called.
    let response = span.in_scope(|| service.call(request));
    let response = response.instrument(span.clone()).await?;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    Ok(response)
}

fn span(request: &Request<Incoming>) -> Span {
    let route = find_route(request.uri().path()).map(|(route, _)| route);
    let known = route.and_then(|route| endpoint(request.method(), route).map(|_| route));
    match known {
        Some(route) => tracing::info_span!(
            "request",
            otel.name = format!("{} {route}", request.method()),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = request.method().as_str(),
            http.route = route,
            http.response.status_code = Empty,
        ),
        // Unknown paths would result in an unlimited number of span names.
        None => tracing::info_span!(
            "request",
            otel.name = "HTTP",
            otel.kind = "server",
            otel.status_code = Empty,
            http.response.status_code = Empty,
        ),
    }
}

/// Routes requests to their handlers.
#[derive(Clone, Debug)]
pub(super) struct Router {
    handlers: Arc<Handlers>,
}

impl Router {
    async fn respond(self, method: Method, path: String, query: Option<String>) -> ShopResponse {
        let Some((route, id)) = find_route(&path) else { return unknown_path() };
        let Some(endpoint) = endpoint(&method, route) else { return unknown_method(&allowed(route)) };
        match self.handlers.serve(endpoint, id, query.as_deref()).await {
            Ok(value) => success(&value),
            Err(error) => {
                tracing::debug!(?endpoint, error = %error.source, "request failed");
                failure(error.status)
            }
        }
    }
}

impl<B> Service<Request<B>> for Router {
    type Response = ShopResponse;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<ShopResponse, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let uri = request.uri();
        let (path, query) = (uri.path().to_owned(), uri.query().map(str::to_owned));
        let response = self.clone().respond(request.method().clone(), path, query);
        Box::pin(async { Ok(response.await) })
    }
}
