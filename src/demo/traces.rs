//! Where the demo's spans go: a collector, if there is one.

use std::time::Duration;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::otlp::{OtlpError, Pipeline, Settings};

/// What the demo is called in a trace, unless the environment has another name.
pub const SERVICE_NAME: &str = "poolscope-demo";

/// How long the end waits for spans that are not exported yet.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The way of the demo's spans, from its start to its end.
#[derive(Debug)]
pub struct Traces {
    pipeline: Pipeline,
    /// Where to, and how.
    destination: Option<String>,
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
        Ok(Self { pipeline: Pipeline::start(settings)?, destination })
    }

    /// What makes spans of those that the demo and its pool tell of.
    pub fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        self.pipeline.layer_of(is_ours)
    }

    /// Where to, and how; `None` if they are sent nowhere.
    pub(super) fn destination(&self) -> Option<&str> {
        self.destination.as_deref()
    }

    /// Exports what waits still.
    pub(super) async fn end(self) {
        self.pipeline.shutdown(FLUSH_WITHIN).await;
    }
}

/// All spans of this crate, and of what happens in them what a log would have by default.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"));
    ours && (metadata.is_span() || *metadata.level() <= Level::INFO)
}
