//! The server spans of requests, which continue a remote trace or begin one. Counterpart of `request_off.rs`.

use std::time::Duration;

use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{SampledSpan, TARGET, spans};
use crate::labels::{ErrorCode, Outcome, RequestMethod};

/// Returns whether this thread has a current span, sampled or not.
pub(crate) fn has_current_span() -> bool {
    Context::map_current(Context::has_active_span)
}

/// Returns a server span for a request that continues the remote trace of `parent`, or begins one. The sampler decides whether
/// it is exported. `None` if no OpenTelemetry layer is installed for this thread.
pub(crate) fn span(parent: Option<&SpanContext>, method: RequestMethod, route: Option<&str>) -> Option<Span> {
    // The name that OpenTelemetry's conventions prescribe for unknown methods.
    let name = if method == RequestMethod::Other { "HTTP" } else { method.as_str() };
    let span = info_span!(
        target: TARGET,
        "request",
        otel.name = route.map_or_else(|| name.to_owned(), |route| format!("{name} {route}")),
        otel.kind = "server",
        http.request.method = method.as_str(),
        http.route = route,
        http.response.status_code = Empty,
        poolscope.outcome = Empty,
        poolscope.request.checkouts = Empty,
        poolscope.request.wait_seconds = Empty,
        poolscope.request.executing_seconds = Empty,
        poolscope.request.idle_seconds = Empty,
        poolscope.request.retries = Empty,
        "error.type" = Empty,
        db.response.status_code = Empty,
        otel.status_code = Empty,
    );
    if let Some(parent) = parent {
        let _ = span.set_parent(Context::new().with_remote_span_context(parent.clone()));
    }
    // Whether sampled or not, so that the spans within follow the decision.
    span.context().has_active_span().then_some(span)
}

/// Records on its server span how a request ended.
pub(crate) fn end(span: &Span, outcome: Outcome, error: Option<ErrorCode>) {
    spans::end(span, outcome, error);
}

/// Marks a span as failed by a panic, if it declares the fields.
pub(crate) fn mark_panic(span: &Span) {
    spans::fail(span, Some(ErrorCode::PANIC), spans::UNKNOWN);
}

/// Sets attributes of a span, unless it has ended.
pub(crate) fn set_attributes(span: &SampledSpan, counts: &[(&'static str, u64)], times: &[(&'static str, Duration)]) {
    let counts = counts.iter().map(|(key, count)| KeyValue::new(*key, i64::try_from(*count).unwrap_or(i64::MAX)));
    let times = times.iter().map(|(key, time)| KeyValue::new(*key, time.as_secs_f64()));
    span.context.span().set_attributes(counts.chain(times));
}
