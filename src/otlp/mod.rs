//! Exports spans and metrics to an OpenTelemetry collector, over gRPC or HTTP.
//!
//! [`Pipeline`] exports spans; [`MetricsExport`] pushes the metrics for those who do not scrape them.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use poolscope::otlp::{Pipeline, Settings};
//! use tracing_subscriber::prelude::*;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let pipeline = Pipeline::start(&Settings::from_env("shop")?)?;
//! tracing_subscriber::registry().with(pipeline.layer()).init();
//! // … the service …
//! pipeline.shutdown(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Environment variables
//!
//! | variable | default |
//! |---|---|
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | none: nothing is exported |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `…_TRACES_PROTOCOL`: `grpc`, `http/protobuf` | `grpc` at port 4317, else `http/protobuf` |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `…_TRACES_HEADERS`: `key=value,…`, percent-encoded | none |
//! | `OTEL_EXPORTER_OTLP_TIMEOUT`, `…_TRACES_TIMEOUT`: milliseconds | 10000 |
//! | `OTEL_EXPORTER_OTLP_COMPRESSION`, `…_TRACES_COMPRESSION`: `gzip`, `none` | `none` |
//! | `OTEL_EXPORTER_OTLP_CERTIFICATE`, `…_TRACES_CERTIFICATE`: a PEM file of authorities, for `https` | the system's |
//! | `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`, `…_CLIENT_KEY`, or of traces: PEM files for client authentication | none |
//! | `OTEL_TRACES_EXPORTER`: `otlp` exports to this machine if there is no endpoint, `none` exports nothing | |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`: `key=value,…` | the argument of [`Settings::from_env`] |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | `parentbased_always_on` |
//! | `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` | 2048, 512 |
//! | `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_EXPORT_TIMEOUT`: milliseconds | 5000; the shorter timeout applies |
//! | `OTEL_SDK_DISABLED`: `true` disables tracing | `false` |
//!
//! A variable for traces overrides the one for all signals. As in the specification, HTTP appends `/v1/traces` to
//! `OTEL_EXPORTER_OTLP_ENDPOINT`, and uses the endpoint for traces unchanged. Unlike there, nothing is exported without
//! an endpoint, and an invalid value is an error.
//!
//! The settings of metrics ([`Settings::metrics_from_env`]) are read from the variables with `METRICS` in place of
//! `TRACES`. `OTEL_METRIC_EXPORT_INTERVAL` (60000 milliseconds) and `OTEL_METRIC_EXPORT_TIMEOUT` replace those of `BSP`.
//!
//! # Sampling
//!
//! `OTEL_TRACES_SAMPLER` decides which traces are sampled: all by default, and a trace that a caller has begun as the caller
//! decided. With `middleware`, a request without a span gets a [server span](crate::middleware#traces), which begins a trace or
//! continues the caller's. If no trace is sampled although some were to be expected, the pipeline logs that once.
//!
//! # What is exported
//!
//! [`Pipeline::layer`] exports the spans of the process, and the events within them that are poolscope's or come from the
//! service's own source. The events of dependencies stay in the process, because they may contain statements with their
//! literals, parameters, or messages of the server that quote values: tokio-postgres logs each statement.
//! Poolscope's own spans and events contain none of these ([`trace_query_text`](crate::PoolBuilder::trace_query_text) adds the
//! text of statements without literals). [`Pipeline::layer_with_filter`] exports another selection.
//!
//! # Cost and losses
//!
//! Ending a span adds it to a queue without blocking; if the queue is full, the span is dropped. A thread with a runtime
//! of its own exports the queue in batches, each of which is retried within its timeout. An unreachable or slow collector
//! therefore costs spans, and delays no request. At every scrape, `poolscope_spans_ended_total` is the sum of
//! `poolscope_spans_queued`, `poolscope_spans_exported_total`, `poolscope_spans_dropped_total` (never sent) and
//! `poolscope_spans_failed_total` (sent without success), for all pipelines of the process.

mod env;
mod error;
mod export_thread;
mod filter;
mod metrics;
mod partial_success;
mod pipeline;
mod queue;
mod sampling;
mod settings;
mod transport;

#[cfg(test)]
mod tests;

pub use self::error::OtlpError;
pub use self::metrics::MetricsExport;
pub use self::pipeline::Pipeline;
pub use self::settings::{Protocol, Sampling, Settings};
