//! The trace context of incoming requests.

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Full;
use poolscope::Pool;
use poolscope::middleware::PoolLayer;
use tower::ServiceBuilder;
use tracing::Instrument as _;

use super::server::TestServer;
use crate::support::{TestPool, Trace};

fn request(trace: &str, flags: &str) -> Request<Full<Bytes>> {
    let parent = format!("00-{trace}-00f067aa0ba902b7-{flags}");
    Request::get("/orders/1").header("traceparent", parent).body(Full::default()).unwrap()
}

fn router(test: &TestPool) -> Router {
    let order = async |pool: Pool| drop(pool.get().await.unwrap().query("SELECT 1", &[]).await.unwrap());
    Router::new().route("/orders/{id}", get(order)).layer(PoolLayer::new(&test.pool))
}

#[tokio::test]
async fn request_joins_the_incoming_trace() {
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let trace = Trace::with_id(id);
    let test = TestPool::shared("parents_joined", |builder| builder.pool_size(1)).await;
    drop(test.get().await);
    let mut server = TestServer::start(router(&test)).await;
    server.connect().await.request(request(id, "01")).await;
    let mut spans = trace.spans_when("two spans", |spans| spans.len() == 2).await;
    spans.sort_by_key(|span| span.start);
    let [request, query] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((&*request.name, request.kind), ("GET /orders/{id}", "server"));
    assert_eq!(request.parent.as_deref(), Some("00f067aa0ba902b7"));
    let attribute = |name: &str| request.attributes.get(name).map(String::as_str);
    assert_eq!((attribute("http.route"), attribute("http.request.method")), (Some("/orders/{id}"), Some("GET")));
    assert_eq!((attribute("poolscope.request.checkouts"), attribute("poolscope.outcome")), (Some("1"), Some("ok")));
    assert_eq!((&*query.name, query.parent.as_ref()), ("SELECT", Some(&request.span_id)));
}

#[tokio::test]
async fn request_without_a_trace_begins_one() {
    let test = TestPool::shared("parents_begun", |builder| builder.pool_size(1)).await;
    drop(test.get().await);
    let begun = async |pool: Pool| {
        let query = async { drop(pool.get().await.unwrap().query("SELECT 1", &[]).await.unwrap()) };
        query.instrument(tracing::info_span!("load")).await;
    };
    let router = Router::new().route("/begun/{id}", get(begun)).layer(PoolLayer::new(&test.pool));
    let mut server = TestServer::start(router).await;
    let trace = Trace::begun_by("GET /begun/{id}", async { drop(server.get("/begun/7").await) }).await;
    let spans = trace.spans(3).await;
    let [request, load, query] = &spans[..] else { panic!("{spans:#?}") };
    let status = request.attributes.get("http.response.status_code").map(String::as_str);
    assert_eq!((request.kind, status), ("server", Some("200")));
    assert_eq!((&*load.name, load.parent.as_ref()), ("load", Some(&request.span_id)));
    assert_eq!((&*query.name, query.parent.as_ref()), ("SELECT", Some(&load.span_id)));
}

#[tokio::test]
async fn server_spans_can_be_turned_off() {
    let test = TestPool::shared("parents_off", |builder| builder.pool_size(1)).await;
    drop(test.get().await);
    let order = async |pool: Pool| drop(pool.get().await.unwrap().query("SELECT 1", &[]).await.unwrap());
    let layer = |enabled| PoolLayer::new(&test.pool).server_span(enabled);
    let routes = |path, enabled| Router::new().route(path, get(order)).layer(layer(enabled));
    let router = routes("/turned/off", false).merge(routes("/turned/on", true));
    let mut server = TestServer::start(router).await;
    let id = "4bf92f3577b34da6a3ce929d0e0e4738";
    let trace = Trace::with_id(id);
    let requested = Request::get("/turned/off").header("traceparent", format!("00-{id}-00f067aa0ba902b7-01"));
    server.connect().await.request(requested.body(Full::default()).unwrap()).await;
    // Earlier spans arrive before those of a later trace.
    let after = Trace::begun_by("GET /turned/on", async { drop(server.get("/turned/on").await) }).await;
    after.spans(2).await;
    assert!(trace.received().is_empty());
}

#[tokio::test]
async fn panicking_handler_fails_its_server_span() {
    let id = "4bf92f3577b34da6a3ce929d0e0e4737";
    let trace = Trace::with_id(id);
    let test = TestPool::shared("parents_panicking", |builder| builder.pool_size(1)).await;
    let panics = async || -> &'static str { std::panic::resume_unwind(Box::new("scripted")) };
    // Outside of the pool's layer, as is tower-http's `CatchPanicLayer`.
    let catch = axum::middleware::from_fn(async |request: Request, next: axum::middleware::Next| {
        let served = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind().await;
        served.unwrap_or_else(|_| axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response())
    });
    let router = Router::new().route("/orders/{id}", get(panics)).layer(PoolLayer::new(&test.pool)).layer(catch);
    let mut server = TestServer::start(router).await;
    assert_eq!(server.connect().await.request(request(id, "01")).await.status(), 500);
    let spans = trace.spans_when("a span", |spans| spans.len() == 1).await;
    let attribute = |name: &str| spans[0].attributes.get(name).map(String::as_str);
    assert_eq!((spans[0].status.0, attribute("poolscope.outcome")), ("error", Some("error")), "{spans:#?}");
    assert_eq!((attribute("error.type"), attribute("http.response.status_code")), (Some("panic"), None));
    let outcomes = &test.pool.snapshot().requests[0].durations;
    assert_eq!(outcomes[poolscope::labels::Outcome::Error.index()].count(), 1);
}

#[tokio::test]
async fn unsampled_trace_stays_unsampled() {
    let id = "0af7651916cd43dd8448eb211c80319c";
    let trace = Trace::with_id(id);
    let test = TestPool::shared("parents_unsampled", |builder| builder.pool_size(1)).await;
    let mut server = TestServer::start(router(&test)).await;
    server.connect().await.request(request(id, "00")).await;
    // Earlier spans arrive before those of a later trace.
    let after = Trace::with_id("0af7651916cd43dd8448eb211c803aaa");
    server.connect().await.request(request(after.id(), "01")).await;
    after.spans_when("its spans", |spans| spans.len() == 2).await;
    assert!(trace.received().is_empty());
}

#[tokio::test]
async fn no_span_if_another_layer_joined_the_trace() {
    let id = "b7ad6b71692033310af7651916cd43dd";
    let trace = Trace::with_id(id);
    let test = TestPool::shared("parents_silent", |builder| builder.pool_size(1)).await;
    drop(test.get().await);
    let spans = axum::middleware::from_fn(async |request: Request, next: axum::middleware::Next| {
        let span = tracing::info_span!("theirs", otel.kind = "server");
        let parent = opentelemetry::trace::SpanContext::new(
            opentelemetry::trace::TraceId::from_hex("b7ad6b71692033310af7651916cd43dd").unwrap(),
            opentelemetry::trace::SpanId::from(7),
            opentelemetry::trace::TraceFlags::SAMPLED,
            true,
            opentelemetry::trace::TraceState::NONE,
        );
        let parent =
            opentelemetry::trace::TraceContextExt::with_remote_span_context(&opentelemetry::Context::new(), parent);
        tracing_opentelemetry::OpenTelemetrySpanExt::set_parent(&span, parent).unwrap();
        next.run(request).instrument(span).await
    });
    let order = async |pool: Pool| drop(pool.get().await.unwrap().query("SELECT 1", &[]).await.unwrap());
    let layers = ServiceBuilder::new().layer(spans).layer(PoolLayer::new(&test.pool));
    let mut server = TestServer::start(Router::new().route("/orders/{id}", get(order)).layer(layers)).await;
    server.connect().await.request(request(id, "01")).await;
    let mut spans = trace.spans_when("two spans", |spans| spans.len() == 2).await;
    spans.sort_by_key(|span| span.start);
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["theirs", "SELECT"]);
    // The other layer's span gets the request's totals.
    assert_eq!(spans[0].attributes.get("poolscope.request.checkouts").map(String::as_str), Some("1"));
    assert_eq!(spans[0].attributes.keys().filter(|name| name.starts_with("poolscope.request.")).count(), 5);
}
