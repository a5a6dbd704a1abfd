//! Access to OpenTelemetry: sampling, parents, links, and events that are not log lines. Counterpart of `off.rs`.

use std::time::SystemTime;

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, KeyValue, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{AttributeValue, Attributes, CurrentSpan, TraceContext};

/// A span of a sampled trace, which may have ended. A span that was created with OpenTelemetry's own API, and is ended
/// only by dropping it, stays open while this is kept.
#[derive(Clone, Debug)]
pub(crate) struct SampledSpan {
    ids: TraceContext,
    pub(super) context: Context,
}

/// Returns the ids of this thread's current span, if it is sampled.
#[inline]
pub(crate) fn current_context() -> Option<TraceContext> {
    Context::map_current(sampled)
}

/// Returns this thread's current span, if it is sampled.
#[inline]
pub(crate) fn current_span() -> Option<SampledSpan> {
    Context::map_current(SampledSpan::of)
}

/// Returns this thread's current span, and whether it is sampled.
pub(crate) fn current() -> CurrentSpan {
    Context::map_current(|context| match SampledSpan::of(context) {
        Some(span) => CurrentSpan::Sampled(span),
        None if context.has_active_span() => CurrentSpan::Unsampled,
        None => CurrentSpan::Untraced,
    })
}

#[inline]
fn sampled(context: &Context) -> Option<TraceContext> {
    // Checked first, because `span()` would construct a context where there is no span.
    if !context.has_active_span() {
        return None;
    }
    let span = context.span();
    let span = span.span_context();
    (span.is_sampled() && span.is_valid())
        .then(|| TraceContext::new(span.trace_id().to_bytes(), span.span_id().to_bytes()))
}

impl SampledSpan {
    #[inline]
    fn of(context: &Context) -> Option<Self> {
        Some(Self { ids: sampled(context)?, context: context.clone() })
    }

    /// Returns a handle to a span of another process.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code, reason = "only a proxy reads the ids of spans"))]
    pub(crate) fn remote(ids: TraceContext) -> Option<Self> {
        use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
        let (trace, span) = (TraceId::from_bytes(ids.trace_id), SpanId::from_bytes(ids.span_id));
        let span = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
        Some(Self { ids, context: Context::new().with_remote_span_context(span) })
    }

    /// Returns the ids of the span.
    pub(crate) fn ids(&self) -> TraceContext {
        self.ids
    }

    /// Returns a handle with the same ids that does not keep the span open and cannot change it.
    pub(crate) fn released(&self) -> Self {
        let span = self.context.span().span_context().clone();
        Self { ids: self.ids, context: Context::new().with_remote_span_context(span) }
    }

    /// Makes `child`, which has not been entered yet, a child of this span.
    pub(super) fn set_as_parent_of(&self, child: &Span) {
        // Fails if no OpenTelemetry layer is installed for this thread; then there is no trace.
        let _ = child.set_parent(self.context.clone());
    }

    /// Adds an event to the span, unless it has ended.
    pub(super) fn add_event(&self, event: &'static str, attributes: Attributes) {
        self.context.span().add_event(event, key_values(attributes));
    }

    /// Adds a link from this span to another, unless this one has ended.
    pub(crate) fn add_link(&self, other: TraceContext, attributes: Attributes) {
        self.context.span().add_link(span_context(other), key_values(attributes));
    }
}

/// Adds a link from one span to another.
pub(crate) fn link(from: &Span, to: &SampledSpan, attributes: Attributes) {
    from.add_link_with_attributes(to.context.span().span_context().clone(), key_values(attributes));
}

/// Adds an event that happened at `at` to a span.
pub(super) fn add_event_at(span: &Span, event: &'static str, at: SystemTime) {
    span.add_event_with_timestamp(event, at, Vec::new());
}

/// Returns the ids of a span, or `None` if it is not part of a sampled trace. Fixes the span's name.
pub(crate) fn ids_of(span: &Span) -> Option<TraceContext> {
    sampled(&span.context())
}

fn span_context(ids: TraceContext) -> opentelemetry::trace::SpanContext {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    let (trace, span) = (TraceId::from_bytes(ids.trace_id), SpanId::from_bytes(ids.span_id));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

fn key_values(attributes: Attributes) -> Vec<KeyValue> {
    let convert = |value| match value {
        AttributeValue::Text(text) => Value::from(text),
        AttributeValue::Number(number) => Value::from(number),
        AttributeValue::Seconds(seconds) => Value::from(seconds),
    };
    attributes.into_iter().map(|(key, value)| KeyValue::new(key, convert(value))).collect()
}
