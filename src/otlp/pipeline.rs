//! From the end of a span to its destinations.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor};
use tokio::time::Instant;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::error::OtlpError;
use super::export_thread::{ExportThread, Timing};
use super::filter;
use super::partial_success::PartialSuccess;
use super::queue::SpanQueue;
use super::sampling::{SamplingWatch, WatchedSampler};
use super::settings::Settings;
use super::transport;
use crate::telemetry::spans::Destination;

/// The instrumentation scope of the spans.
const SCOPE: &str = "poolscope";

/// The timing of an exporter in this process: a viewer should show recent spans.
const IN_PROCESS: Timing = Timing { delay: Duration::from_millis(500), timeout: Duration::from_secs(5) };

/// Exports the spans of a process.
///
/// Dropping it drops the spans that are still queued; [`shutdown`](Self::shutdown) exports them.
pub struct Pipeline {
    provider: Option<SdkTracerProvider>,
    threads: Vec<ExportThread>,
}

impl Pipeline {
    /// Starts a thread that exports, if the settings have an endpoint. It connects when it exports the first batch, and
    /// tries again with each further one.
    ///
    /// # Errors
    ///
    /// Returns an error if the endpoint is invalid, or the thread cannot be started.
    pub fn start(settings: &Settings) -> Result<Self, OtlpError> {
        let mut pipeline = Builder::new(settings);
        pipeline.add_endpoint()?;
        Ok(pipeline.build())
    }

    /// Like [`start`](Self::start), and also exports to `exporter`, which is in this process: a viewer of traces, for
    /// example.
    ///
    /// # Errors
    ///
    /// Returns an error if the endpoint is invalid, or a thread cannot be started.
    pub fn start_with(settings: &Settings, exporter: impl SpanExporter + 'static) -> Result<Self, OtlpError> {
        let mut pipeline = Builder::new(settings);
        pipeline.add_endpoint()?;
        pipeline.add_exporter(exporter)?;
        Ok(pipeline.build())
    }

    /// Returns a layer that exports the spans of [`tracing`], and the events within them; `None` if tracing is disabled.
    ///
    /// It ignores the spans of the crates that export (hyper, h2, tonic …), which would create further ones, and those of
    /// database drivers. Of events, it exports those of poolscope, and those of the service: whose target is their module, and
    /// whose file is in the workspace that was compiled. Those of dependencies may contain statements and values.
    pub fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        self.layer_with_filter(filter::exports)
    }

    /// Returns a layer that exports only the spans and events for which `filter` returns `true`; `None` if tracing is
    /// disabled. Events of drivers contain statements and values, and spans of the crates that export create further ones.
    ///
    /// ```
    /// # fn layer(pipeline: &poolscope::otlp::Pipeline) -> impl tracing_subscriber::Layer<tracing_subscriber::Registry> {
    /// // No events but poolscope's.
    /// pipeline.layer_with_filter(|metadata| {
    ///     let of = |name| metadata.target().split("::").next() == Some(name);
    ///     of("poolscope") || (metadata.is_span() && of("shop"))
    /// })
    /// # }
    /// ```
    pub fn layer_with_filter<S>(
        &self,
        filter: fn(&Metadata<'_>) -> bool,
    ) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let tracer = self.provider.as_ref()?.tracer(SCOPE);
        let spans = tracing_opentelemetry::layer().with_tracer(tracer).with_threads(false);
        let spans = spans.with_filter(filter_fn(filter));
        Some(spans.and_then(PartialSuccess.with_filter(filter_fn(PartialSuccess::needs))))
    }

    /// Returns the counts of spans for each destination.
    #[cfg(test)]
    pub(super) fn accounts(&self) -> Vec<Arc<dyn crate::telemetry::spans::SpanCounters>> {
        self.threads.iter().map(ExportThread::accounts).collect()
    }

    #[cfg(test)]
    pub(super) fn sampling(&self) -> &SamplingWatch {
        self.threads[0].sampling()
    }

    /// Exports the queued spans, and ends. Spans that are not exported `within` this time count as failed or dropped, and
    /// spans that end later are dropped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the shutdown continues in the background.
    pub async fn shutdown(mut self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut threads = std::mem::take(&mut self.threads);
        for thread in &threads {
            thread.close(deadline);
        }
        for thread in &mut threads {
            thread.ended().await;
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for thread in &self.threads {
            thread.close(Instant::now());
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Starts the threads of a pipeline.
struct Builder<'a> {
    settings: &'a Settings,
    processors: Vec<QueueProcessor>,
    threads: Vec<ExportThread>,
    sampling: Arc<SamplingWatch>,
}

impl<'a> Builder<'a> {
    fn new(settings: &'a Settings) -> Self {
        let sampling = SamplingWatch::new(settings.sampling);
        Self { settings, processors: Vec::new(), threads: Vec::new(), sampling }
    }

    fn add_endpoint(&mut self) -> Result<(), OtlpError> {
        let Some(endpoint) = &self.settings.endpoint else { return Ok(()) };
        if self.settings.disabled {
            return Ok(());
        }
        let runtime = runtime()?;
        let created = {
            let _entered = runtime.enter();
            transport::exporter(self.settings, endpoint)
        };
        let exporter = match created {
            Ok(exporter) => exporter,
            Err(problem) => {
                // Dropping the runtime could block, which an asynchronous caller must not.
                runtime.shutdown_background();
                return Err(OtlpError::Exporter(problem));
            }
        };
        let timing = Timing { delay: self.settings.delay, timeout: self.settings.timeout };
        self.add(runtime, Destination::Otlp, exporter, timing)
    }

    fn add_exporter(&mut self, exporter: impl SpanExporter + 'static) -> Result<(), OtlpError> {
        if self.settings.disabled {
            return Ok(());
        }
        self.add(runtime()?, Destination::Page, exporter, IN_PROCESS)
    }

    fn add(
        &mut self,
        runtime: tokio::runtime::Runtime,
        destination: Destination,
        mut exporter: impl SpanExporter + 'static,
        timing: Timing,
    ) -> Result<(), OtlpError> {
        exporter.set_resource(&self.settings.sdk_resource());
        let queue = SpanQueue::new(destination, self.settings.queue_size, self.settings.batch_size);
        let sampling = Arc::clone(&self.sampling);
        let thread = ExportThread::start(runtime, Arc::clone(&queue), exporter, timing, sampling);
        self.threads.push(thread.map_err(OtlpError::Thread)?);
        self.processors.push(QueueProcessor(queue));
        Ok(())
    }

    fn build(self) -> Pipeline {
        if self.settings.disabled {
            return Pipeline { provider: None, threads: self.threads };
        }
        let provider = SdkTracerProvider::builder()
            .with_sampler(WatchedSampler::new(self.sampling))
            .with_resource(self.settings.sdk_resource());
        let provider =
            self.processors.into_iter().fold(provider, |provider, processor| provider.with_span_processor(processor));
        Pipeline { provider: Some(provider.build()), threads: self.threads }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, OtlpError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OtlpError::Thread)
}

/// Pushes ended spans to a queue. The SDK calls it on the thread that ends a span.
#[derive(Debug)]
struct QueueProcessor(Arc<SpanQueue<SpanData>>);

impl SpanProcessor for QueueProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.push(span);
        }
    }

    /// Does nothing: the provider is private to the pipeline, which does not call it.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.0.close();
        Ok(())
    }
}
