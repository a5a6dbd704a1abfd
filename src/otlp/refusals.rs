//! Spans that a collector took the request for, and refused ("partial success").
//!
//! The exporter has such a request succeed and tells the number in its log alone; so it is read there. That is done on
//! the thread which exports, while it does.

use std::cell::Cell;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// What the exporter calls itself in the log.
const TARGET: &str = "opentelemetry-otlp";
const EVENT: &str = ".PartialSuccess";
const FIELD: &str = "rejected_spans";

thread_local! {
    static REFUSED: Cell<u64> = const { Cell::new(0) };
}

/// From here on refusals count.
pub(super) fn forget() {
    REFUSED.set(0);
}

/// How many spans were refused since.
pub(super) fn told() -> u64 {
    REFUSED.take()
}

/// Listens to the exporter.
#[derive(Debug)]
pub(super) struct Refusals;

impl Refusals {
    /// Whether it should be heard.
    pub(super) fn concern(metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == TARGET && metadata.name().ends_with(EVENT)
    }
}

impl<S: Subscriber> Layer<S> for Refusals {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Count);
    }
}

struct Count;

impl Visit for Count {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record_u64(field, u64::try_from(value).unwrap_or_default());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == FIELD {
            REFUSED.set(REFUSED.get() + value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
