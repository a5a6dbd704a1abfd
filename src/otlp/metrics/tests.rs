//! The export of metrics to a collector.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Instant as StdInstant;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, exemplar, metric, number_data_point};
use poolscope_testing::otlp::Receiver;
use tracing::Level;

use super::super::settings::Protocol;
use super::*;
use crate::Pool;
use crate::telemetry::catalogue::{Kind, METRICS, Source};
use crate::telemetry::log::log_lines::LogLines;

fn settings(receiver: &Receiver, protocol: Protocol) -> Settings {
    let mut settings = Settings::new("shop");
    let path = if protocol == Protocol::HttpProtobuf { "/v1/metrics" } else { "" };
    settings.endpoint = Some(receiver.endpoint() + path);
    settings.protocol = protocol;
    settings.delay = Duration::from_millis(20);
    settings
}

/// Returns a pool without a server, and its collector.
fn pool() -> (Pool, Collector) {
    let collector = Collector::new();
    let builder = Pool::builder().url("postgres://app@127.0.0.1:1/shop").name("shop").collector(collector.clone());
    (builder.pool_size(3).max_overflow(0).build().unwrap(), collector)
}

/// Returns the metrics of a request by name.
fn metrics(request: &ExportMetricsServiceRequest) -> BTreeMap<String, Metric> {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    scopes.flat_map(|scope| &scope.metrics).map(|metric| (metric.name.clone(), metric.clone())).collect()
}

fn attributes(pairs: &[KeyValue]) -> Vec<(&str, &str)> {
    pairs.iter().map(pair).collect()
}

fn pair(pair: &KeyValue) -> (&str, &str) {
    match &pair.value.as_ref().unwrap().value {
        Some(any_value::Value::StringValue(text)) => (&pair.key, text),
        other => panic!("{other:?}"),
    }
}

/// Returns the values of a sum or a gauge, with their attributes.
fn values(metric: &Metric) -> Vec<(Vec<(&str, &str)>, f64)> {
    let points = match metric.data.as_ref().unwrap() {
        metric::Data::Gauge(gauge) => &gauge.data_points,
        metric::Data::Sum(sum) => &sum.data_points,
        other => panic!("{other:?}"),
    };
    let number = |value: &Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(number)) => *number,
        other => panic!("{other:?}"),
    };
    points.iter().map(|point| (attributes(&point.attributes), number(&point.value))).collect()
}

#[test]
fn names_translate_back_to_the_catalogue() {
    for metric in METRICS {
        let (name, unit) = names::of_metric(metric);
        assert_eq!(names::in_prometheus(name, unit, metric.kind), metric.name);
        assert_eq!(name.starts_with("db."), metric.name.starts_with("db_"), "{name}");
        for label in metric.labels {
            assert_eq!(names::of_label(label).replace('.', "_"), *label);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn catalogue_reaches_the_collector() {
    for (receiver, protocol, gzip) in [
        (Receiver::grpc(), Protocol::Grpc, false),
        (Receiver::grpc(), Protocol::Grpc, true),
        (Receiver::http(), Protocol::HttpProtobuf, false),
        (Receiver::http(), Protocol::HttpProtobuf, true),
    ] {
        let (pool, collector) = pool();
        pool.operation("list").get().await.unwrap_err();
        let mut settings = settings(&receiver, protocol);
        settings.gzip = gzip;
        settings.headers = vec![("x-token".to_owned(), "secret".to_owned())];
        let export = MetricsExport::start(&settings, collector).unwrap();
        let request = receiver.metrics_after(1);
        export.shutdown(Duration::from_secs(10)).await;

        let resource = request.resource_metrics[0].resource.as_ref().unwrap();
        assert!(attributes(&resource.attributes).contains(&("service.name", "shop")));
        let found = metrics(&request);
        // Everything that the page would have, but what concerns its server.
        let always = ["poolscope_build_info", "db.client.connection.max", "poolscope_saturated_seconds_total"];
        assert!(always.iter().all(|name| found.contains_key(*name)), "{:?}", found.keys());
        assert!(
            METRICS
                .iter()
                .filter(|it| matches!(it.source, Source::Exporter | Source::Binary))
                .all(|it| !found.contains_key(it.name))
        );
        let shop = ("db.client.connection.pool.name", "shop");
        assert_eq!(values(&found["db.client.connection.max"]), [(vec![shop], 3.0)]);
        let errors: Vec<_> = values(&found["poolscope_checkouts_total"])
            .into_iter()
            .filter(|(attributes, _)| {
                attributes.contains(&("operation", "list")) && attributes.contains(&("outcome", "error"))
            })
            .map(|(_, value)| value)
            .collect();
        assert_eq!(errors, [1.0]);
        let metric::Data::Sum(sum) = found["poolscope_checkouts_total"].data.as_ref().unwrap() else { panic!() };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);

        let wait = &found["db.client.connection.wait_time"];
        let metric::Data::Histogram(histogram) = wait.data.as_ref().unwrap() else { panic!("{wait:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((&*wait.unit, point.count, point.bucket_counts.iter().sum::<u64>()), ("s", 1, 1));
        assert_eq!(point.explicit_bounds.len() + 1, point.bucket_counts.len());
        assert!(point.sum.unwrap() > 0.0 && histogram.aggregation_temporality == 2);
        assert!(receiver.requests().iter().any(|headers| headers.get("x-token").is_some_and(|it| *it == "secret")));
        assert!(METRICS.iter().any(|metric| metric.kind == Kind::Histogram));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_configured_authority_only() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let receiver = Receiver::tls(protocol == Protocol::Grpc);
        let (_pool, collector) = pool();
        let mut settings = settings(&receiver, protocol);
        settings.delay = Duration::from_secs(3600);
        settings.certificate = Receiver::tls(true).certificate().map(|pem| pem.as_bytes().to_vec());
        let export = MetricsExport::start(&settings, collector.clone()).unwrap();
        export.shutdown(Duration::from_secs(30)).await;
        assert_eq!(receiver.metrics_requests(), 0, "{protocol:?}: the authority is unknown");

        settings.certificate = receiver.certificate().map(|pem| pem.as_bytes().to_vec());
        MetricsExport::start(&settings, collector).unwrap().shutdown(Duration::from_secs(30)).await;
        let found = metrics(&receiver.metrics_after(0));
        assert!(found.contains_key("db.client.connection.max"), "{protocol:?}: {:?}", found.keys());
    }
}

/// The wait of a checkout within a sampled trace has its identifiers, which are those of a span that is exported.
#[tokio::test(flavor = "multi_thread")]
async fn exemplars_name_exported_spans() {
    use tracing::Instrument as _;
    use tracing::instrument::WithSubscriber as _;
    use tracing_subscriber::prelude::*;

    let (traces, receiver) = (Receiver::grpc(), Receiver::grpc());
    let pipeline = crate::otlp::Pipeline::start(&settings(&traces, Protocol::Grpc)).unwrap();
    let subscriber = tracing_subscriber::registry().with(pipeline.layer());
    let (pool, collector) = pool();
    let mut settings = settings(&receiver, Protocol::Grpc);
    settings.delay = Duration::from_secs(3600);
    let export = MetricsExport::start(&settings, collector).unwrap();
    let checkout = async { pool.operation("list").get().await.unwrap_err() };
    async { checkout.instrument(tracing::info_span!("request")).await }.with_subscriber(subscriber).await;
    export.shutdown(Duration::from_secs(30)).await;
    pipeline.shutdown(Duration::from_secs(30)).await;

    let found = metrics(&receiver.metrics_after(0));
    let metric::Data::Histogram(waits) = found["db.client.connection.wait_time"].data.as_ref().unwrap() else {
        panic!()
    };
    let [exemplar] = &waits.data_points[0].exemplars[..] else { panic!("{waits:?}") };
    let spans = traces.spans();
    let trace = &spans.iter().find(|span| span.name == "request").unwrap().trace_id;
    let hex: String = exemplar.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&hex, exemplar.span_id.len()), (trace, 8));
    let point = &waits.data_points[0];
    assert!(matches!(exemplar.value, Some(exemplar::Value::AsDouble(value)) if Some(value) == point.sum), "{point:?}");
    assert!(exemplar.time_unix_nano >= point.start_time_unix_nano && exemplar.time_unix_nano <= point.time_unix_nano);
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_loses_no_counts_and_ends_in_time() {
    let receiver = Receiver::http();
    let (pool, collector) = pool();
    let export = MetricsExport::start(&settings(&receiver, Protocol::HttpProtobuf), collector).unwrap();
    receiver.metrics_after(0);
    receiver.refuse();
    pool.operation("list").get().await.unwrap_err();
    let refused = receiver.requests().len();
    let started = StdInstant::now();
    while receiver.requests().len() < refused + 2 {
        assert!(started.elapsed() < Duration::from_secs(30), "no export is tried during an outage");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    receiver.accept();
    let request = receiver.metrics_after(receiver.metrics_requests());
    let total: f64 = values(&metrics(&request)["poolscope_checkouts_total"]).iter().map(|(_, value)| value).sum();
    assert_eq!(total, 1.0);

    // A collector that does not answer delays the shutdown by no more than was asked for.
    receiver.slow(Duration::from_secs(600));
    let started = StdInstant::now();
    export.shutdown(Duration::from_millis(100)).await;
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_exports_once_more() {
    let receiver = Receiver::grpc();
    let (_pool, collector) = pool();
    let mut settings = settings(&receiver, Protocol::Grpc);
    settings.delay = Duration::from_secs(3600);
    MetricsExport::start(&settings, collector.clone()).unwrap().shutdown(Duration::from_secs(30)).await;
    assert_eq!(receiver.metrics_requests(), 1);

    // Nothing is exported without an endpoint, or if the SDK is disabled.
    settings.disabled = true;
    MetricsExport::start(&settings, collector.clone()).unwrap().shutdown(Duration::from_secs(30)).await;
    MetricsExport::start(&Settings::new("shop"), collector).unwrap().shutdown(Duration::from_secs(30)).await;
    assert_eq!(receiver.metrics_requests(), 1);
}

#[test]
fn flapping_collector_is_logged_at_growing_intervals() {
    let (failures, lines) = (ConditionLimiter::default(), LogLines::default());
    let _capture = lines.capture();
    for second in 1..=600 {
        let problem = (second % 2 == 0).then_some("refused");
        log(&failures, Nanos::from_nanos(second * 1_000_000_000), "http://collector", problem);
    }
    let failed = lines.count(Level::WARN, "exporting metrics failed");
    assert!(failed.lines <= 10, "{}", failed.lines);
    assert!(failed.suppressed > 100, "{}", failed.suppressed);
    assert!(lines.count(Level::INFO, "exporting metrics succeeded again").lines <= failed.lines);
}

/// Returns the start and the time of the only sum of saturated seconds, and of the first wait times.
fn starts(collector: &Collector, now: SystemTime) -> [(u64, u64); 2] {
    let found = metrics(&request(collector, &Settings::new("shop"), now));
    let metric::Data::Sum(sum) = found["poolscope_saturated_seconds_total"].data.as_ref().unwrap() else { panic!() };
    let [point] = &sum.data_points[..] else { panic!("{sum:?}") };
    let metric::Data::Histogram(waits) = found["db.client.connection.wait_time"].data.as_ref().unwrap() else {
        panic!()
    };
    let first = &waits.data_points[0];
    [(point.start_time_unix_nano, point.time_unix_nano), (first.start_time_unix_nano, first.time_unix_nano)]
}

#[tokio::test]
async fn sums_start_with_the_first_pool_of_the_name() {
    let before = SystemTime::now();
    let (pool, collector) = pool();
    pool.operation("list").get().await.unwrap_err();
    let later = SystemTime::now() + Duration::from_secs(3600);
    let [sum, waits] = starts(&collector, later);
    let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(sum.0);
    assert!(before <= start && start <= SystemTime::now(), "{start:?}");
    assert_eq!((waits, sum.1 > sum.0), (sum, true));

    let builder = Pool::builder().url("postgres://app@127.0.0.1:1/shop").collector(collector.clone());
    let new = builder.replaces(&pool).build().unwrap();
    assert_eq!(starts(&collector, later), [sum; 2]);
    drop(pool);
    assert_eq!(starts(&collector, later), [sum; 2]);
    drop(new);

    // A start after the samples, because the system's clock was set back, is their time.
    let (_pool, collector) = self::pool();
    let [sum, _] = starts(&collector, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    assert_eq!(sum.0, sum.1);
}
