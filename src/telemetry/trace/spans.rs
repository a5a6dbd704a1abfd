//! The spans of operations, their attempts and the reset of connections, and the events on spans.

use std::panic::Location;
use std::time::Duration;

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::otel::{ids_of, link};
use super::{AttributeValue, SampledSpan, TARGET, TraceContext, current_context, current_span};
use crate::labels::{Dirt, ErrorCode, Outcome};

/// The span of a named operation with all its attempts.
#[derive(Debug)]
pub(crate) struct OperationSpan {
    span: Span,
    /// Whether the operation is part of a sampled trace. The span may be disabled nevertheless, because no layer of
    /// `tracing` is installed that passes spans on to OpenTelemetry.
    is_traced: bool,
}

impl OperationSpan {
    /// Returns a disabled span, for an operation outside a sampled trace.
    #[inline]
    pub(crate) fn untraced() -> Self {
        Self { span: Span::none(), is_traced: false }
    }

    #[cold]
    pub(crate) fn new(pool: &str, operation: &str, call_site: &'static Location<'static>) -> Self {
        let span = info_span!(
            target: TARGET,
            "operation",
            otel.name = operation,
            otel.kind = "internal",
            db.client.connection.pool.name = pool,
            poolscope.operation = operation,
            poolscope.call_site = %CallSite(call_site),
            poolscope.attempts = Empty,
            poolscope.outcome = Empty,
            "error.type" = Empty,
            db.response.status_code = Empty,
            otel.status_code = Empty,
        );
        Self { span, is_traced: true }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Records how the operation ended. Returns the ids of the span, or those of the current span if it is disabled.
    #[inline]
    pub(crate) fn end(&self, outcome: Outcome, code: Option<ErrorCode>, attempts: u32) -> Option<TraceContext> {
        if self.is_traced { self.end_traced(outcome, code, attempts) } else { None }
    }

    #[cold]
    fn end_traced(&self, outcome: Outcome, code: Option<ErrorCode>, attempts: u32) -> Option<TraceContext> {
        self.span.record("poolscope.attempts", i64::from(attempts));
        end(&self.span, outcome, code);
        ids_of(&self.span).or_else(current_context)
    }
}

/// Returns a span for an attempt at an operation, counted from 1, or a disabled one if the operation has none.
pub(crate) fn attempt(operation: &Span, number: u32) -> Span {
    if operation.is_disabled() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "attempt",
        otel.kind = "internal",
        poolscope.attempt = i64::from(number),
        poolscope.outcome = Empty,
        "error.type" = Empty,
        db.response.status_code = Empty,
        otel.status_code = Empty,
    )
}

/// Returns a span for the reset of a connection, in the trace of the holder that returned it dirty.
pub(crate) fn reset(pool: &str, operation: &str, cause: Option<&SampledSpan>) -> Span {
    let Some(cause) = cause else { return Span::none() };
    let span = info_span!(
        target: TARGET,
        parent: None,
        "clean",
        otel.kind = "internal",
        db.client.connection.pool.name = pool,
        poolscope.operation = operation,
        poolscope.outcome = Empty,
        "error.type" = Empty,
        db.response.status_code = Empty,
        otel.status_code = Empty,
    );
    cause.set_as_parent_of(&span);
    span
}

/// Records the outcome on a span when it is dropped.
#[derive(Debug)]
pub(crate) struct SpanOutcome {
    span: Span,
    /// Cancelled, unless it is set.
    pub(crate) outcome: Outcome,
    pub(crate) code: Option<ErrorCode>,
}

impl SpanOutcome {
    pub(crate) fn of(span: Span) -> Self {
        Self { span, outcome: Outcome::Cancelled, code: None }
    }

    /// Records that the code within the span panicked.
    pub(crate) fn record_panic(&mut self) {
        (self.outcome, self.code) = (Outcome::Error, Some(ErrorCode::PANIC));
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }
}

impl Drop for SpanOutcome {
    fn drop(&mut self) {
        end(&self.span, self.outcome, self.code);
    }
}

/// Records the outcome on a span.
pub(super) fn end(span: &Span, outcome: Outcome, code: Option<ErrorCode>) {
    if span.is_none() {
        return;
    }
    span.record("poolscope.outcome", outcome.as_str());
    match outcome {
        Outcome::Ok | Outcome::Cancelled => {}
        Outcome::Timeout | Outcome::Error | Outcome::Closed | Outcome::Shed => {
            let fallback = if outcome == Outcome::Error { UNKNOWN } else { outcome.as_str() };
            fail(span, code, fallback);
        }
    }
}

/// The `error.type` of unknown errors, as in OpenTelemetry's conventions.
pub(super) const UNKNOWN: &str = "_OTHER";

/// Marks a span as failed, with the code as its `error.type`, or else with `fallback`.
pub(super) fn fail(span: &Span, code: Option<ErrorCode>, fallback: &str) {
    span.record("otel.status_code", "ERROR");
    let code = code.filter(|code| ![ErrorCode::OTHER, ErrorCode::NONE].contains(code));
    span.record("error.type", code.as_ref().map_or(fallback, ErrorCode::as_str));
    if let Some(code) = code.filter(ErrorCode::is_of_server) {
        span.record("db.response.status_code", code.as_str());
    }
}

/// Adds an event to the current span, that of an attempt: it failed, and another follows after `pause`.
pub(crate) fn record_retry(code: ErrorCode, attempt: u32, pause: Duration) {
    if let Some(span) = current_span() {
        span.add_event(
            "poolscope.retry",
            vec![
                ("error.type", code.as_str().into()),
                ("poolscope.attempt", AttributeValue::Number(attempt.into())),
                ("poolscope.pause_seconds", AttributeValue::Seconds(pause.as_secs_f64())),
            ],
        );
    }
}

/// Adds an event to the span of the holder that returned a connection dirty, and a link to it from the checkout that
/// found the connection so.
pub(crate) fn record_dirty_return(cause: Option<&SampledSpan>, operation: &str, dirt: Dirt, found_by: Option<&Span>) {
    let Some(cause) = cause else { return };
    let kind = ("poolscope.dirty.kind", dirt.as_str().into());
    let attributes = vec![kind.clone(), ("poolscope.operation", operation.into())];
    // The holder's span may have ended by now; the span of the reset, which is in the same trace, has not.
    let is_reset = |span: &SampledSpan| is_in_trace_of(span.ids(), cause) && span.ids() != cause.ids();
    if let Some(reset) = current_span().filter(is_reset) {
        reset.add_event(DIRTY_RETURN, attributes.clone());
    }
    cause.add_event(DIRTY_RETURN, attributes);
    if let Some(checkout) = found_by
        && !ids_of(checkout).is_some_and(|found_by| is_in_trace_of(found_by, cause))
    {
        link(checkout, cause, vec![("poolscope.link", "left_dirty".into()), kind]);
    }
}

const DIRTY_RETURN: &str = "poolscope.dirty_return";

fn is_in_trace_of(span: TraceContext, other: &SampledSpan) -> bool {
    span.trace_id == other.ids().trace_id
}

/// Adds an event to a holder's span: its connection is a suspected leak.
pub(crate) fn record_suspected_leak(holder: &SampledSpan, operation: &str, held: Duration) {
    holder.add_event(
        "poolscope.suspected_leak",
        vec![
            ("poolscope.operation", operation.into()),
            ("poolscope.held_seconds", AttributeValue::Seconds(held.as_secs_f64())),
        ],
    );
}

/// Displays as `src/orders.rs:42`.
pub(super) struct CallSite(pub(super) &'static Location<'static>);

impl std::fmt::Display for CallSite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0.file(), self.0.line())
    }
}
