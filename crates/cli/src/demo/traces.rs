//! The export of the demo's spans: to a collector, and to the Jaeger UI of builds with the feature `jaeger`.

use std::fmt;
use std::time::Duration;

use poolscope::otlp::{OtlpError, Pipeline, Settings};
#[cfg(feature = "jaeger")]
use tokio::task::JoinSet;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

#[cfg(feature = "jaeger")]
use super::error::DemoError;
#[cfg(feature = "jaeger")]
use super::jaeger::JaegerUi;

/// The service name in traces, unless the environment sets another.
pub(crate) const SERVICE_NAME: &str = "poolscope-demo";

/// How long shutdown waits for spans to be exported.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The exporter of the demo's spans.
pub(crate) struct Traces {
    pipeline: Pipeline,
    /// The collector's endpoint and protocol, if there is one.
    destination: Option<String>,
    /// `None` if tracing is disabled.
    #[cfg(feature = "jaeger")]
    ui: Option<JaegerUi>,
}

impl Traces {
    /// Starts the export.
    ///
    /// # Errors
    ///
    /// Returns an error as [`Pipeline::start`] does.
    pub(crate) fn start(settings: &Settings) -> Result<Self, OtlpError> {
        let destination = settings.destination().filter(|_| !settings.disabled);
        let destination = destination.map(|url| format!("{url}, {}", settings.protocol.as_str()));
        #[cfg(feature = "jaeger")]
        {
            let ui = JaegerUi::new();
            let pipeline = Pipeline::start_with(settings, ui.clone())?;
            Ok(Self { pipeline, destination, ui: (!settings.disabled).then_some(ui) })
        }
        #[cfg(not(feature = "jaeger"))]
        Ok(Self { pipeline: Pipeline::start(settings)?, destination })
    }

    /// Returns the layer that exports the spans of the demo and the pool.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        self.pipeline.layer_with_filter(is_ours)
    }

    /// Returns the collector's endpoint and protocol; `None` if there is no collector.
    pub(super) fn destination(&self) -> Option<&str> {
        self.destination.as_deref()
    }

    /// Serves the Jaeger UI in `tasks`. Returns its URL, or `None` if tracing is disabled.
    #[cfg(feature = "jaeger")]
    pub(super) async fn serve(&self, address: &str, tasks: &mut JoinSet<()>) -> Result<Option<String>, DemoError> {
        match &self.ui {
            Some(ui) => Ok(Some(format!("http://{}", ui.serve(address, tasks).await?))),
            None => Ok(None),
        }
    }

    /// Exports the remaining spans, and stops.
    pub(super) async fn shutdown(self) {
        self.pipeline.shutdown(FLUSH_TIMEOUT).await;
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// Accepts the spans of the pool and of the demo, and their events from level INFO on.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    let ours = ["poolscope", env!("CARGO_CRATE_NAME")].contains(&crate_name);
    ours && (metadata.is_span() || *metadata.level() <= Level::INFO)
}
