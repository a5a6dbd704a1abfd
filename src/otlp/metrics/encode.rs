//! Builds requests from the catalogue.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, exemplar, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::super::settings::Settings;
use super::names;
use crate::telemetry::catalogue::{self, Kind, METRICS, POOL_LABEL, Sink, Source};
use crate::telemetry::clock::{seconds, to_f64};
use crate::telemetry::{BOUNDS_SECONDS, Collector, incidents, spans};

/// The instrumentation scope of the metrics.
const SCOPE: &str = "poolscope";

/// Returns a request with the current values of all pools, and of the process.
pub(super) fn request(collector: &Collector, settings: &Settings, now: SystemTime) -> ExportMetricsServiceRequest {
    let snapshots = collector.snapshots();
    let spans = spans::totals();
    let mut metrics = Vec::with_capacity(METRICS.len());
    for metric in METRICS {
        let mut points =
            Points { metric, pool: None, started: 0, at: nanos(now), values: Vec::new(), histograms: Vec::new() };
        match metric.source {
            Source::Pool(_) | Source::OwnPool(_) => {
                for snapshot in &snapshots {
                    if let Some(read) = metric.reader(snapshot.kind) {
                        points.pool = Some(&snapshot.name);
                        points.count_since(snapshot.counting_since);
                        read(snapshot, &mut points);
                    }
                }
            }
            Source::Spans(read) => {
                points.count_since(spans::counting_since());
                for (destination, totals) in &spans {
                    points.value(&[destination.as_str()], to_f64(read(totals)));
                }
            }
            Source::Incidents(read) => {
                if let (Some(totals), Some(since)) = (incidents::totals(), incidents::counting_since()) {
                    points.count_since(since);
                    points.value(&[], to_f64(read(&totals)));
                }
            }
            Source::Build => points.value(&[env!("CARGO_PKG_VERSION")], 1.0),
            Source::Exporter | Source::Binary => {}
        }
        metrics.extend(points.into_metric());
    }
    let attributes = settings.sdk_resource();
    let attributes = attributes.iter().map(|(key, value)| attribute(key.as_str(), &value.as_str())).collect();
    let scope = InstrumentationScope {
        name: SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..Default::default() }];
    let resource = Some(Resource { attributes, ..Default::default() });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    }
}

/// The samples of one metric, as points.
struct Points<'a> {
    metric: &'a catalogue::Metric,
    pool: Option<&'a str>,
    /// Since when the next samples count.
    started: u64,
    at: u64,
    values: Vec<NumberDataPoint>,
    histograms: Vec<HistogramDataPoint>,
}

impl Points<'_> {
    /// Sets the start of the next samples, which is no later than their time, whatever the system's clock has done.
    fn count_since(&mut self, start: SystemTime) {
        self.started = nanos(start).min(self.at);
    }

    fn attributes(&self, values: &[&str]) -> Vec<KeyValue> {
        let pool = self.pool.map(|pool| (POOL_LABEL, pool));
        let own = self.metric.labels.iter().copied().zip(values.iter().copied());
        pool.into_iter().chain(own).map(|(label, value)| attribute(names::of_label(label), value)).collect()
    }

    /// Returns the metric; `None` if it has no points.
    fn into_metric(self) -> Option<Metric> {
        let cumulative = AggregationTemporality::Cumulative.into();
        let data = match self.metric.kind {
            Kind::Histogram if !self.histograms.is_empty() => {
                metric::Data::Histogram(Histogram { data_points: self.histograms, aggregation_temporality: cumulative })
            }
            Kind::Counter if !self.values.is_empty() => metric::Data::Sum(Sum {
                data_points: self.values,
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
            Kind::Gauge if !self.values.is_empty() => metric::Data::Gauge(Gauge { data_points: self.values }),
            _ => return None,
        };
        let (name, unit) = names::of_metric(self.metric);
        let (name, unit, description) = (name.to_owned(), unit.to_owned(), self.metric.help.to_owned());
        Some(Metric { name, unit, description, data: Some(data), ..Default::default() })
    }
}

impl Sink for Points<'_> {
    fn value(&mut self, labels: &[&str], value: f64) {
        let start_time_unix_nano = if self.metric.kind == Kind::Counter { self.started } else { 0 };
        self.values.push(NumberDataPoint {
            attributes: self.attributes(labels),
            start_time_unix_nano,
            time_unix_nano: self.at,
            value: Some(number_data_point::Value::AsDouble(value)),
            ..Default::default()
        });
    }

    fn histogram(&mut self, labels: &[&str], histogram: &crate::telemetry::Histogram) {
        let exemplars = histogram.exemplars().iter().map(|it| Exemplar {
            time_unix_nano: nanos(it.at),
            trace_id: it.trace.trace_id.to_vec(),
            span_id: it.trace.span_id.to_vec(),
            value: Some(exemplar::Value::AsDouble(it.value.as_secs_f64())),
            ..Default::default()
        });
        self.histograms.push(HistogramDataPoint {
            attributes: self.attributes(labels),
            start_time_unix_nano: self.started,
            time_unix_nano: self.at,
            count: histogram.count(),
            sum: Some(seconds(histogram.sum_nanos)),
            bucket_counts: histogram.buckets.to_vec(),
            explicit_bounds: BOUNDS_SECONDS.to_vec(),
            exemplars: exemplars.collect(),
            ..Default::default()
        });
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
