//! What only OpenTelemetry knows of spans: who is sampled, whose child one is, links, and events that are no log lines.

#[cfg(feature = "middleware")]
use std::time::Duration;
use std::time::SystemTime;

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, KeyValue, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{Attributes, Said, Surroundings, TraceContext};

/// A span of a trace that is sampled. It may have ended. (To keep this keeps a span open that OpenTelemetry's own API made, and
/// that nobody ends but by letting go of it.)
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    ids: TraceContext,
    context: Context,
}

/// The span that is entered on this thread, if it is sampled.
#[inline]
pub(crate) fn current() -> Option<TraceContext> {
    Context::map_current(sampled)
}

/// The same, to make it the parent of others.
#[inline]
pub(crate) fn entered() -> Option<Trace> {
    Context::map_current(Trace::of)
}

/// The same, told apart from the span of a trace that is not sampled, and from none.
pub(crate) fn surroundings() -> Surroundings {
    Context::map_current(|context| match Trace::of(context) {
        Some(trace) => Surroundings::Sampled(trace),
        None if context.has_active_span() => Surroundings::Unsampled,
        None => Surroundings::Untraced,
    })
}

#[inline]
fn sampled(context: &Context) -> Option<TraceContext> {
    // Asked first: the context of no span at all is not to be made up just to be found not sampled.
    if !context.has_active_span() {
        return None;
    }
    let span = context.span();
    let span = span.span_context();
    (span.is_sampled() && span.is_valid())
        .then(|| TraceContext::new(span.trace_id().to_bytes(), span.span_id().to_bytes()))
}

impl Trace {
    #[inline]
    fn of(context: &Context) -> Option<Self> {
        Some(Self { ids: sampled(context)?, context: context.clone() })
    }

    /// Its ids.
    pub(crate) fn ids(&self) -> TraceContext {
        self.ids
    }

    /// The same for whoever is not to keep it open: it can be told nothing any more.
    pub(crate) fn released(&self) -> Self {
        let span = self.context.span().span_context().clone();
        Self { ids: self.ids, context: Context::new().with_remote_span_context(span) }
    }

    /// Makes a span that was not entered yet its child, in whatever span that was made.
    pub(super) fn adopt(&self, span: &Span) {
        // It fails where no OpenTelemetry is installed for this thread: then there is no trace to be part of.
        let _ = span.set_parent(self.context.clone());
    }

    /// Tells it of something, if it has not ended.
    pub(super) fn tell(&self, event: &'static str, attributes: Attributes) {
        self.context.span().add_event(event, key_values(attributes));
    }

    /// Gives it attributes, if it has not ended.
    #[cfg(feature = "middleware")]
    pub(crate) fn describe(&self, counts: &[(&'static str, u64)], times: &[(&'static str, Duration)]) {
        let counts = counts.iter().map(|(key, count)| KeyValue::new(*key, i64::try_from(*count).unwrap_or(i64::MAX)));
        let times = times.iter().map(|(key, time)| KeyValue::new(*key, time.as_secs_f64()));
        self.context.span().set_attributes(counts.chain(times));
    }

    /// Points from it to another, if it has not ended.
    pub(super) fn point_to(&self, other: TraceContext, attributes: Attributes) {
        self.context.span().add_link(span_context(other), key_values(attributes));
    }
}

/// Whether a span is entered, sampled or not.
#[cfg(feature = "middleware")]
pub(crate) fn is_within_span() -> bool {
    Context::map_current(Context::has_active_span)
}

/// Makes a span that was not entered yet the child of another process's; answers whether anybody traces it, which nobody
/// does where no OpenTelemetry is installed for this thread.
#[cfg(feature = "middleware")]
pub(super) fn join(span: &Span, parent: &opentelemetry::trace::SpanContext) -> bool {
    span.set_parent(Context::new().with_remote_span_context(parent.clone())).is_ok()
}

/// Points from a span to another.
pub(super) fn link(from: &Span, to: &Trace, attributes: Attributes) {
    from.add_link_with_attributes(to.context.span().span_context().clone(), key_values(attributes));
}

/// Tells a span of something that happened at `at`.
pub(super) fn tell_at(span: &Span, event: &'static str, at: SystemTime) {
    span.add_event_with_timestamp(event, at, Vec::new());
}

/// The ids of a span; `None` if it is not part of a trace.
pub(super) fn ids_of(span: &Span) -> Option<TraceContext> {
    sampled(&span.context())
}

fn span_context(of: TraceContext) -> opentelemetry::trace::SpanContext {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    let (trace, span) = (TraceId::from_bytes(of.trace_id), SpanId::from_bytes(of.span_id));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

fn key_values(attributes: Attributes) -> Vec<KeyValue> {
    let value = |said| match said {
        Said::Text(text) => Value::from(text),
        Said::Number(number) => Value::from(number),
        Said::Seconds(seconds) => Value::from(seconds),
    };
    attributes.into_iter().map(|(key, said)| KeyValue::new(key, value(said))).collect()
}
