//! Where the demo's spans go: its own page, if this build has it, and a collector, if there is one.

use std::fmt;
use std::time::Duration;

#[cfg(feature = "jaeger")]
use tokio::task::JoinSet;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

#[cfg(feature = "jaeger")]
use super::error::DemoError;
#[cfg(feature = "jaeger")]
use super::jaeger::Page;
use poolscope::otlp::{OtlpError, Pipeline, Settings};

/// What the demo is called in a trace, unless the environment has another name.
pub const SERVICE_NAME: &str = "poolscope-demo";

/// How long the end waits for spans that are not exported yet.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The way of the demo's spans, from its start to its end.
pub struct Traces {
    pipeline: Pipeline,
    /// Where to, and how.
    destination: Option<String>,
    /// `None` if nothing is traced.
    #[cfg(feature = "jaeger")]
    page: Option<Page>,
}

impl Traces {
    /// Starts what takes them there.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::start`].
    pub fn start(settings: &Settings) -> Result<Self, OtlpError> {
        let destination = settings.destination().filter(|_| !settings.disabled);
        let destination = destination.map(|url| format!("{url}, {}", settings.protocol.as_str()));
        #[cfg(feature = "jaeger")]
        {
            let page = Page::new();
            let pipeline = Pipeline::start_with(settings, page.clone())?;
            Ok(Self { pipeline, destination, page: (!settings.disabled).then_some(page) })
        }
        #[cfg(not(feature = "jaeger"))]
        Ok(Self { pipeline: Pipeline::start(settings)?, destination })
    }

    /// What makes spans of those that the demo and its pool tell of.
    pub fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        self.pipeline.layer_with_filter(is_ours)
    }

    /// Where to, and how; `None` if they are sent nowhere.
    pub(super) fn destination(&self) -> Option<&str> {
        self.destination.as_deref()
    }

    /// Serves the page in `tasks`, if there is one, and says at which URL.
    #[cfg(feature = "jaeger")]
    pub(super) async fn serve(&self, address: &str, tasks: &mut JoinSet<()>) -> Result<Option<String>, DemoError> {
        match &self.page {
            Some(page) => Ok(Some(format!("http://{}", page.serve(address, tasks).await?))),
            None => Ok(None),
        }
    }

    /// Exports what waits still.
    pub(super) async fn end(self) {
        self.pipeline.shutdown(FLUSH_WITHIN).await;
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
