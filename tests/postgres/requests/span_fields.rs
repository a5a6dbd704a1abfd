//! Fields of a request's span without an OpenTelemetry layer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{Request, Response};
use poolscope::middleware::{FIELDS, PoolLayer};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tracing::field::{Empty, Field, Visit};
use tracing::span::{Id, Record};
use tracing::{Instrument as _, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::support::TestPool;

/// The fields recorded on spans after their creation.
#[derive(Clone, Default)]
struct RecordedFields(Arc<Mutex<BTreeMap<String, String>>>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for RecordedFields {
    fn on_record(&self, _: &Id, record: &Record<'_>, _: Context<'_, S>) {
        record.record(&mut self.clone());
    }
}

impl Visit for RecordedFields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().insert(field.name().to_owned(), format!("{value:?}"));
    }
}

fn span() -> tracing::Span {
    tracing::info_span!(
        "request",
        poolscope.request.checkouts = Empty,
        poolscope.request.wait_seconds = Empty,
        poolscope.request.executing_seconds = Empty,
        poolscope.request.idle_seconds = Empty,
        poolscope.request.retries = Empty,
    )
}

/// A span that declares the fields gets them, even if the request carries a trace and no OpenTelemetry layer is
/// installed.
#[tokio::test]
async fn declared_fields_are_recorded_without_otel() {
    let recorded = RecordedFields::default();
    let _logged = tracing::subscriber::set_default(tracing_subscriber::registry().with(recorded.clone()));
    let test = TestPool::shared("requests_fields", |builder| builder.pool_size(1)).await;
    let pool = test.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            for _ in 0..2 {
                pool.get().await.unwrap().execute("SELECT pg_sleep(0.02)", &[]).await.unwrap();
            }
            let within = tracing::Span::current().metadata().map(tracing::Metadata::name);
            assert_eq!(within, Some("request"), "without OpenTelemetry the span is not replaced");
            assert!(tracing::Span::current().has_field("poolscope.request.checkouts"));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let service = PoolLayer::new(&test.pool).layer(handler);
    let request = Request::get("/").header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let response = service.oneshot(request.body(Full::default()).unwrap()).instrument(span()).await.unwrap();
    response.into_body().collect().await.unwrap();
    let recorded = recorded.0.lock().unwrap();
    let names: Vec<_> = recorded.keys().map(String::as_str).collect();
    let mut fields = FIELDS;
    fields.sort_unstable();
    assert_eq!(names, fields);
    assert_eq!((&*recorded["poolscope.request.checkouts"], &*recorded["poolscope.request.retries"]), ("2", "0"));
    let executing: f64 = recorded["poolscope.request.executing_seconds"].parse().unwrap();
    assert!(executing >= 0.04, "{executing}");
}

#[tokio::test]
async fn fields_include_use_by_the_body() {
    let recorded = RecordedFields::default();
    let _logged = tracing::subscriber::set_default(tracing_subscriber::registry().with(recorded.clone()));
    let test = TestPool::shared("requests_streamed", |builder| builder.pool_size(1)).await;
    let pool = test.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            let connection = pool.get().await.unwrap();
            let rows = connection.query_raw("SELECT pg_sleep(0.05)", [""; 0]).await.unwrap();
            let frames = rows.map(move |_| {
                let _held = &connection;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"row")))
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
        }
    });
    let request = Request::get("/").body(Full::default()).unwrap();
    let response = PoolLayer::new(&test.pool).layer(handler).oneshot(request).instrument(span()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "row");
    let executing: f64 = recorded.0.lock().unwrap()["poolscope.request.executing_seconds"].parse().unwrap();
    assert!(executing >= 0.05, "{executing}");
}
