//! Sends spans to an OpenTelemetry collector, over gRPC or HTTP.
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
//! # The environment
//!
//! | variable | default |
//! |---|---|
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | none: nothing is sent |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `…_TRACES_PROTOCOL`: `grpc`, `http/protobuf` | `grpc` at port 4317, else `http/protobuf` |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `…_TRACES_HEADERS`: `key=value,…`, percent-encoded | none |
//! | `OTEL_EXPORTER_OTLP_TIMEOUT`, `…_TRACES_TIMEOUT`: milliseconds | 10000 |
//! | `OTEL_EXPORTER_OTLP_COMPRESSION`, `…_TRACES_COMPRESSION`: `gzip`, `none` | `none` |
//! | `OTEL_EXPORTER_OTLP_CERTIFICATE`, `…_TRACES_CERTIFICATE`: a file of authorities, for `https` | the system's |
//! | `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`, `…_CLIENT_KEY`, or of traces: what the collector is shown | none |
//! | `OTEL_TRACES_EXPORTER`: `otlp` sends to this machine if there is no endpoint, `none` sends nothing | |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`: `key=value,…` | what [`Settings::from_env`] is given |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | `parentbased_always_on` |
//! | `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` | 2048, 512 |
//! | `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_EXPORT_TIMEOUT`: milliseconds | 5000; the shorter timeout counts |
//! | `OTEL_SDK_DISABLED`: `true` traces nothing | `false` |
//!
//! A variable of traces wins over the one of all signals. As in the specification, HTTP adds `/v1/traces` to
//! `OTEL_EXPORTER_OTLP_ENDPOINT`, and takes the one of traces as it is. Unlike there, no endpoint means that nothing is
//! sent, and a value that cannot be is an error.
//!
//! # What it may cost
//!
//! Who ends a span puts it into a queue, for which nobody waits: if the queue is full, the span is dropped. A thread with a
//! runtime of its own sends what is in it. A collector that is away or slow costs spans, never a request; each batch is tried
//! again within its timeout. At every scrape `poolscope_spans_ended_total` is the sum of `poolscope_spans_queued`,
//! `poolscope_spans_exported_total`, `poolscope_spans_dropped_total` (never sent) and `poolscope_spans_failed_total` (sent in
//! vain), for all pipelines of the process.

mod env;
mod error;
mod pipeline;
mod queue;
mod refusals;
mod settings;
mod transport;
mod worker;

#[cfg(test)]
mod tests;

pub use self::error::OtlpError;
pub use self::pipeline::Pipeline;
pub use self::settings::{Protocol, Sampling, Settings};
pub use self::worker::Deliver;
