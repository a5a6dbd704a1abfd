//! From a span's end to its destination.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor};
use tokio::time::Instant;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::OtlpError;
use super::queue::Queue;
use super::refusals::Refusals;
use super::settings::{Sampling, Settings};
use super::transport::Collector;
use super::worker::{Deliver, Pace, Worker};
use crate::telemetry::spans::Destination;

/// The name of the scope that spans come from.
const SCOPE: &str = "poolscope";

/// What the exporter itself is made of. Its spans would be exported, which makes further ones, and so on.
const MACHINERY: [&str; 8] = ["h2", "hyper", "hyper_util", "opentelemetry", "rustls", "tokio", "tonic", "tower"];

/// Takes the spans of a process to where they are to go.
///
/// Dropping it gives up what still waits; [`shutdown`](Self::shutdown) does not.
pub struct Pipeline {
    provider: Option<SdkTracerProvider>,
    workers: Vec<Worker>,
}

impl Pipeline {
    /// Starts a thread that exports, if there is an endpoint. Connects to nothing yet; a collector that is away is
    /// tried again with each batch.
    ///
    /// # Errors
    ///
    /// When the endpoint cannot be, or the system has no thread to give.
    pub fn start(settings: &Settings) -> Result<Self, OtlpError> {
        Self::start_with(settings, None::<Nowhere>)
    }

    /// The same, with a destination in this process as well.
    pub fn start_with(settings: &Settings, page: Option<impl Deliver>) -> Result<Self, OtlpError> {
        if settings.disabled {
            return Ok(Self { provider: None, workers: Vec::new() });
        }
        let resource = settings.as_resource();
        let mut provider =
            SdkTracerProvider::builder().with_sampler(sampler(settings.sampling)).with_resource(resource.clone());
        let mut workers = Vec::new();
        if let Some(endpoint) = &settings.endpoint {
            let runtime = runtime()?;
            let collector = {
                let _entered = runtime.enter();
                Collector::new(settings, endpoint, &resource)
            };
            let collector = match collector {
                Ok(collector) => collector,
                Err(problem) => {
                    // Dropped here it might block, which an asynchronous caller must not.
                    runtime.shutdown_background();
                    return Err(OtlpError::Exporter(problem));
                }
            };
            let queue = Queue::new(Destination::Otlp, settings.queue_size, settings.batch_size);
            let pace = Pace { delay: settings.delay, patience: settings.timeout };
            workers.push(Worker::start(runtime, Arc::clone(&queue), collector, pace).map_err(OtlpError::Thread)?);
            provider = provider.with_span_processor(Enqueue(queue));
        }
        if let Some(page) = page {
            let queue = Queue::new(Destination::Page, settings.queue_size, settings.batch_size);
            workers.push(Worker::start(runtime()?, Arc::clone(&queue), page, PAGE).map_err(OtlpError::Thread)?);
            provider = provider.with_span_processor(Enqueue(queue));
        }
        Ok(Self { provider: Some(provider.build()), workers })
    }

    /// Makes the spans of [`tracing`] those of OpenTelemetry; `None` if nothing is to be traced.
    ///
    /// The spans of the exporter's own machinery (hyper, h2, tonic …) are left out: they would make further ones.
    pub fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        self.layer_of(|metadata| !is_machinery(metadata))
    }

    /// The same for such spans and events only.
    pub fn layer_of<S>(&self, wanted: fn(&Metadata<'_>) -> bool) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let tracer = self.provider.as_ref()?.tracer(SCOPE);
        let spans = tracing_opentelemetry::layer().with_tracer(tracer).with_threads(false);
        let spans = spans.with_filter(filter_fn(wanted));
        Some(spans.and_then(Refusals.with_filter(filter_fn(Refusals::concern))))
    }

    /// What became of the spans, for each destination.
    #[cfg(test)]
    pub(super) fn accounts(&self) -> Vec<Arc<dyn crate::telemetry::spans::Accounts>> {
        self.workers.iter().map(Worker::accounts).collect()
    }

    /// Exports what still waits, for as long as `within`, and ends. What is not exported by then is given up, and
    /// counted. Spans that end later are dropped.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the rest of it goes on without anyone who waits for it.
    pub async fn shutdown(mut self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut workers = std::mem::take(&mut self.workers);
        for worker in &workers {
            worker.close(deadline);
        }
        for worker in &mut workers {
            worker.ended().await;
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.close(Instant::now());
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// A page shows what has ended a moment ago.
const PAGE: Pace = Pace { delay: Duration::from_millis(500), patience: Duration::from_secs(5) };

fn runtime() -> Result<tokio::runtime::Runtime, OtlpError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OtlpError::Thread)
}

fn sampler(sampling: Sampling) -> Sampler {
    let own = Sampler::TraceIdRatioBased(sampling.ratio);
    if sampling.parent_based { Sampler::ParentBased(Box::new(own)) } else { own }
}

fn is_machinery(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    MACHINERY.contains(&crate_name) || crate_name.starts_with("opentelemetry")
}

/// Hands spans that ended to a queue. The SDK calls it on whatever thread ends them.
#[derive(Debug)]
struct Enqueue(Arc<Queue<SpanData>>);

impl SpanProcessor for Enqueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.push(span);
        }
    }

    /// Nobody but the pipeline has the provider, and that needs none of this.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.0.close();
        Ok(())
    }
}

/// No destination.
enum Nowhere {}

impl Deliver for Nowhere {
    async fn send(&mut self, _: Vec<SpanData>) -> Result<u64, String> {
        match *self {}
    }
}
