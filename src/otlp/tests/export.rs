//! The exported spans.

use tracing_subscriber::filter::filter_fn;

use super::super::partial_success::PartialSuccess;
use super::*;

#[tokio::test]
async fn spans_arrive_complete_over_both_protocols() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        let mut settings = settings(&receiver.endpoint(), protocol);
        settings.resource = vec![("deployment.environment.name".to_owned(), "test".to_owned())];
        let traced = Traced::start(&settings);
        traced.trace(|| {
            let request = tracing::info_span!("request", otel.name = "GET /orders", otel.kind = "server", customer = 7);
            let _entered = request.enter();
            let query = tracing::info_span!("query", otel.kind = "client", otel.status_code = tracing::field::Empty);
            query.in_scope(|| tracing::warn!(suppressed = 3, "connection error"));
            query.record("otel.status_code", "ERROR");
        });
        assert_eq!(traced.end(TEST_TIMEOUT).await.exported, 2);

        let spans = receiver.spans();
        let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        let (request, query) = (of("GET /orders"), of("query"));
        assert_eq!((request.kind, query.kind, &request.parent), ("server", "client", &None));
        assert_eq!(query.parent.as_ref(), Some(&request.span_id));
        assert_eq!(query.trace_id, request.trace_id);
        assert_eq!((request.status.0, query.status.0), ("unset", "error"));
        assert_eq!(request.attributes["customer"], "7");
        assert_eq!((&*query.events[0].0, &*query.events[0].1["suppressed"]), ("connection error", "3"));
        assert!(request.start <= query.start && query.end <= request.end, "{spans:?}");
        assert_eq!(request.scope, "poolscope");
        for (key, value) in
            [("service.name", "shop"), ("deployment.environment.name", "test"), ("telemetry.sdk.language", "rust")]
        {
            assert_eq!(request.resource[key], value);
        }
    }
}

#[tokio::test]
async fn headers_and_compression_of_both_protocols() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        let mut settings = settings(&receiver.endpoint(), protocol);
        settings.headers = vec![("x-tenant".to_owned(), "shop 7".to_owned())];
        settings.gzip = true;
        let traced = Traced::start(&settings);
        traced.spans(3);
        assert_eq!(traced.end(TEST_TIMEOUT).await.exported, 3);
        let encoding = if protocol == Protocol::Grpc { "grpc-encoding" } else { "content-encoding" };
        let request = &receiver.requests()[0];
        assert_eq!((&*request["x-tenant"], &*request[encoding]), ("shop 7", "gzip"));
        assert_eq!(receiver.spans().len(), 3);
    }
}

#[tokio::test]
async fn partially_rejected_batch_counts_as_failed_in_part() {
    // The exporter logs it on a thread of its own, which has only the global subscriber.
    let global = tracing_subscriber::registry().with(PartialSuccess.with_filter(filter_fn(PartialSuccess::needs)));
    tracing::subscriber::set_global_default(global).unwrap();
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        receiver.reject(2);
        let traced = Traced::start(&settings(&receiver.endpoint(), protocol));
        traced.spans(5);
        let totals = traced.end(TEST_TIMEOUT).await;
        assert_eq!((totals.exported, totals.failed), (3, 2), "{totals:?}");
        assert_eq!(receiver.spans().len(), 3);
    }
}

#[tokio::test]
async fn unsampled_spans_are_not_exported() {
    let receiver = Receiver::grpc();
    let mut settings = settings(&receiver.endpoint(), Protocol::Grpc);
    settings.sampling.ratio = 0.0;
    let traced = Traced::start(&settings);
    traced.spans(10);
    let begun = Instant::now();
    while !traced.pipeline.sampling().was_logged() {
        assert!(begun.elapsed() < TEST_TIMEOUT, "still waiting for the notice that nothing is sampled");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(traced.end(TEST_TIMEOUT).await, SpanTotals::default());
    settings.disabled = true;
    assert!(Pipeline::start(&settings).unwrap().layer::<tracing_subscriber::Registry>().is_none());
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn spans_have_ids_without_an_endpoint() {
    let traced = Traced::start(&Settings::new("shop"));
    let id = traced.trace(|| {
        tracing::info_span!("work").in_scope(|| {
            use opentelemetry::trace::TraceContextExt;
            opentelemetry::Context::current().span().span_context().trace_id()
        })
    });
    assert_ne!(id, opentelemetry::TraceId::INVALID);
    assert!(traced.pipeline.accounts().is_empty());
    traced.pipeline.shutdown(TEST_TIMEOUT).await;
}

#[tokio::test]
async fn spans_of_the_exporter_are_ignored() {
    let receiver = Receiver::grpc();
    let traced = Traced::start(&settings(&receiver.endpoint(), Protocol::Grpc));
    traced.trace(|| {
        drop(tracing::info_span!(target: "h2::client", "frame"));
        drop(tracing::info_span!(target: "tower_http::trace", "request"));
    });
    assert_eq!(traced.end(TEST_TIMEOUT).await.exported, 1);
    assert_eq!(receiver.spans()[0].name, "request");
}

#[tokio::test]
async fn tls_trusts_the_configured_authority_only() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::tls(protocol == Protocol::Grpc);
        let mut settings = settings(&receiver.endpoint(), protocol);
        settings.certificate = receiver.certificate().map(|pem| pem.as_bytes().to_vec());
        let traced = Traced::start(&settings);
        traced.spans(1);
        assert_eq!(traced.end(TEST_TIMEOUT).await.exported, 1);

        let other = Receiver::tls(true);
        settings.certificate = other.certificate().map(|pem| pem.as_bytes().to_vec());
        let traced = Traced::start(&settings);
        traced.spans(1);
        assert_eq!(traced.end(TEST_TIMEOUT).await.failed, 1);
        assert_eq!(receiver.spans().len(), 1);
    }
}
