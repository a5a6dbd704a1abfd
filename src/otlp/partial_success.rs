//! Counts the spans that a collector rejected although it accepted the request ("partial success").
//!
//! The exporter reports such a request as successful and logs the number, so it is read from that log event, on the
//! thread that exports.

use std::cell::Cell;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The target and the name of the exporter's log event.
const TARGET: &str = "opentelemetry-otlp";
const EVENT: &str = ".PartialSuccess";
const FIELD: &str = "rejected_spans";

thread_local! {
    static REJECTED: Cell<u64> = const { Cell::new(0) };
}

/// Returns the number of spans that were rejected since the last call on this thread.
pub(super) fn take_rejected() -> u64 {
    REJECTED.take()
}

/// A layer that reads the exporter's log event.
#[derive(Debug)]
pub(super) struct PartialSuccess;

impl PartialSuccess {
    /// Returns whether the layer needs an event.
    pub(super) fn needs(metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == TARGET && metadata.name().ends_with(EVENT)
    }
}

impl<S: Subscriber> Layer<S> for PartialSuccess {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut RejectedSpans);
    }
}

struct RejectedSpans;

impl Visit for RejectedSpans {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record_u64(field, u64::try_from(value).unwrap_or_default());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == FIELD {
            REJECTED.set(REJECTED.get() + value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
