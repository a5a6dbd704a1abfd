//! How a request reaches what serves it: its span, the layer that accounts it, its handler.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use tower_layer::Layer;
use tower_service::Service;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::answer::{Answer, failed, found, unknown_method, unknown_path};
use super::endpoint::{allowed, endpoint, routed};
use super::handlers::Handlers;
use poolscope::Pool;
use poolscope::middleware::{Head, PoolLayer, PoolService, ResponseBody};
use poolscope::pool::PostgresManager;

/// For how long a request may hold a connection idly before it is warned of. The one that forgets to give it back holds it
/// for half a second, which nobody wants to read each time.
const HELD_ELSEWHERE: Duration = Duration::from_secs(1);

/// The shop's service, within the layer.
pub(super) type ShopService = PoolService<PostgresManager, Dispatch>;

/// The shop's service: each request is accounted to its route.
pub(super) fn service(pool: &Pool, handlers: Arc<Handlers>) -> ShopService {
    PoolLayer::new(pool)
        .route_by(route)
        // The handlers have it already.
        .insert_pool(false)
        .warn_idle_hold(HELD_ELSEWHERE)
        .server_timing(true)
        .layer(Dispatch { handlers })
}

fn route<'a>(head: Head<'a>) -> Option<Cow<'a, str>> {
    routed(head.uri.path()).map(|(route, _)| route.into())
}

/// Serves a request in a span of its own.
pub(super) async fn serve(
    mut service: ShopService,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody<Full<Bytes>>>, Infallible> {
    let span = span(&request);
    std::future::poll_fn(|cx| Service::<Request<Incoming>>::poll_ready(&mut service, cx)).await?;
    // The layer looks at the span in which it is called.
    let answering = span.in_scope(|| service.call(request));
    let answer = answering.instrument(span.clone()).await?;
    span.record("http.response.status_code", answer.status().as_u16());
    if answer.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    Ok(answer)
}

fn span(request: &Request<Incoming>) -> Span {
    let route = routed(request.uri().path()).map(|(route, _)| route);
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
        // Whoever asks for what there is not could make up any number of names.
        None => tracing::info_span!(
            "request",
            otel.name = "HTTP",
            otel.kind = "server",
            otel.status_code = Empty,
            http.response.status_code = Empty,
        ),
    }
}

/// Where requests are told apart: a service as tower has it.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    handlers: Arc<Handlers>,
}

impl Dispatch {
    async fn answer(self, method: Method, path: String, query: Option<String>) -> Answer {
        let Some((route, id)) = routed(&path) else { return unknown_path() };
        let Some(endpoint) = endpoint(&method, route) else { return unknown_method(&allowed(route)) };
        match self.handlers.serve(endpoint, id, query.as_deref()).await {
            Ok(value) => found(&value),
            Err(failure) => {
                tracing::debug!(?endpoint, error = %failure.source, "a request failed");
                failed(failure.status)
            }
        }
    }
}

impl<B> Service<Request<B>> for Dispatch {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let uri = request.uri();
        let (path, query) = (uri.path().to_owned(), uri.query().map(str::to_owned));
        let answering = self.clone().answer(request.method().clone(), path, query);
        Box::pin(async { Ok(answering.await) })
    }
}
