//! What a request's span is told where nobody traces.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response};
use poolscope::middleware::{FIELDS, PoolLayer};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tracing::field::{Empty, Field, Visit};
use tracing::span::{Id, Record};
use tracing::{Instrument as _, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::support::Counted;

/// What spans were told after they began.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<BTreeMap<String, String>>>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for Told {
    fn on_record(&self, _: &Id, record: &Record<'_>, _: Context<'_, S>) {
        record.record(&mut self.clone());
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().insert(field.name().to_owned(), format!("{value:?}"));
    }
}

#[tokio::test]
async fn a_span_that_declares_the_fields_is_told_them() {
    let told = Told::default();
    let _logged = tracing::subscriber::set_default(tracing_subscriber::registry().with(told.clone()));
    let counted = Counted::shared("requests_fields", |builder| builder.pool_size(1)).await;
    let pool = counted.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            for _ in 0..2 {
                pool.get().await.unwrap().execute("SELECT pg_sleep(0.02)", &[]).await.unwrap();
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let service = PoolLayer::new(&counted.pool).layer(handler);
    let span = tracing::info_span!(
        "request",
        poolscope.request.checkouts = Empty,
        poolscope.request.wait_seconds = Empty,
        poolscope.request.executing_seconds = Empty,
        poolscope.request.idle_seconds = Empty,
        poolscope.request.retries = Empty,
    );
    let answer = service.oneshot(Request::get("/").body(Full::default()).unwrap()).instrument(span).await.unwrap();
    answer.into_body().collect().await.unwrap();
    let told = told.0.lock().unwrap();
    let names: Vec<_> = told.keys().map(String::as_str).collect();
    let mut fields = FIELDS;
    fields.sort_unstable();
    assert_eq!(names, fields);
    assert_eq!((&*told["poolscope.request.checkouts"], &*told["poolscope.request.retries"]), ("2", "0"));
    let executing: f64 = told["poolscope.request.executing_seconds"].parse().unwrap();
    assert!(executing >= 0.04, "{executing}");
}
