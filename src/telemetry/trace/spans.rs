//! The spans of operations, their attempts and the cleaning of connections, and what spans are told.

use std::panic::Location;

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::otel::{ids_of, link};
use super::{Said, TARGET, Trace, TraceContext, current, entered};
use crate::labels::{Dirt, ErrorCode, Outcome};
use crate::telemetry::ledger::{Ledger, Suspicion};
use crate::telemetry::operations::OperationId;
#[cfg(all(feature = "middleware", feature = "otel"))]
use crate::telemetry::requests::RequestMethod;

/// A span for a named operation, all its attempts included; none unless it is to be part of a trace that is sampled.
#[inline]
pub(crate) fn operation(ledger: &Ledger, operation: OperationId, call_site: &'static Location<'static>) -> Span {
    if current().is_some() { new_operation(ledger, operation, call_site) } else { Span::none() }
}

#[cold]
fn new_operation(ledger: &Ledger, operation: OperationId, call_site: &'static Location<'static>) -> Span {
    let operation = ledger.operations().name(operation);
    info_span!(
        target: TARGET,
        "operation",
        otel.name = operation,
        otel.kind = "internal",
        db.client.connection.pool.name = &**ledger.name(),
        poolscope.operation = operation,
        poolscope.call_site = %Place(call_site),
        poolscope.attempts = Empty,
        poolscope.outcome = Empty,
        "error.type" = Empty,
        db.response.status_code = Empty,
        otel.status_code = Empty,
    )
}

/// Tells its span how an operation ended; answers the ids of that, or of what it would have been part of.
#[inline]
pub(crate) fn end_operation(
    span: &Span,
    outcome: Outcome,
    code: Option<ErrorCode>,
    attempts: u32,
) -> Option<TraceContext> {
    if span.is_none() {
        return None;
    }
    span.record("poolscope.attempts", i64::from(attempts));
    end(span, outcome, code);
    ids_of(span).or_else(current)
}

/// A span for one attempt at an operation, from 1 on; none if that has none.
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

/// A span of the server's for a request, within the trace that it brings along; none where nobody makes spans of
/// OpenTelemetry's out of it.
#[cfg(all(feature = "middleware", feature = "otel"))]
pub(crate) fn server(
    parent: &opentelemetry::trace::SpanContext,
    method: RequestMethod,
    route: Option<&str>,
) -> Option<Span> {
    // As OpenTelemetry calls spans of methods that it does not know.
    let name = if method == RequestMethod::Other { "HTTP" } else { method.as_str() };
    let span = info_span!(
        target: TARGET,
        "request",
        otel.name = route.map_or_else(|| name.to_owned(), |route| format!("{name} {route}")),
        otel.kind = "server",
        http.request.method = method.as_str(),
        http.route = route,
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
    super::otel::join(&span, parent).then_some(span)
}

/// Tells that span how the request ended.
#[cfg(feature = "middleware")]
pub(crate) fn end_server(span: &Span, outcome: Outcome) {
    end(span, outcome, None);
}

/// A span for the cleaning of a connection, within the trace of who left it so.
pub(crate) fn cleaning(ledger: &Ledger, operation: OperationId, cause: Option<&Trace>) -> Span {
    let Some(cause) = cause else { return Span::none() };
    let span = info_span!(
        target: TARGET,
        parent: None,
        "clean",
        otel.kind = "internal",
        db.client.connection.pool.name = &**ledger.name(),
        poolscope.operation = ledger.operations().name(operation),
        poolscope.outcome = Empty,
        "error.type" = Empty,
        db.response.status_code = Empty,
        otel.status_code = Empty,
    );
    cause.adopt(&span);
    span
}

/// Tells a span how it ended, when this is dropped.
#[derive(Debug)]
pub(crate) struct Recount {
    span: Span,
    /// Until it is known, that it was cancelled.
    pub(crate) outcome: Outcome,
    pub(crate) code: Option<ErrorCode>,
}

impl Recount {
    pub(crate) fn of(span: Span) -> Self {
        Self { span, outcome: Outcome::Cancelled, code: None }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }
}

impl Drop for Recount {
    fn drop(&mut self) {
        end(&self.span, self.outcome, self.code);
    }
}

/// Tells a span how it ended.
pub(super) fn end(span: &Span, outcome: Outcome, code: Option<ErrorCode>) {
    if span.is_none() {
        return;
    }
    span.record("poolscope.outcome", outcome.as_str());
    match outcome {
        Outcome::Ok | Outcome::Cancelled => {}
        Outcome::Timeout | Outcome::Error | Outcome::Closed | Outcome::Shed => {
            let word = if outcome == Outcome::Error { UNKNOWN } else { outcome.as_str() };
            fail(span, code, word);
        }
    }
}

/// What `error.type` is where nothing is known, as OpenTelemetry's conventions have it.
pub(super) const UNKNOWN: &str = "_OTHER";

/// Marks a span as failed: with a code, or with a word if it has none.
pub(super) fn fail(span: &Span, code: Option<ErrorCode>, word: &str) {
    span.record("otel.status_code", "ERROR");
    let code = code.filter(|code| ![ErrorCode::OTHER, ErrorCode::NONE].contains(code));
    span.record("error.type", code.as_ref().map_or(word, ErrorCode::as_str));
    if let Some(code) = code.filter(|code| code.is_sqlstate()) {
        span.record("db.response.status_code", code.as_str());
    }
}

/// Tells the attempt that is entered that it failed and that another follows.
pub(crate) fn retrying(code: ErrorCode, attempt: u32, pause: std::time::Duration) {
    if let Some(trace) = entered() {
        trace.tell(
            "poolscope.retry",
            vec![
                ("error.type", code.as_str().into()),
                ("poolscope.attempt", Said::Number(attempt.into())),
                ("poolscope.pause_seconds", Said::Seconds(pause.as_secs_f64())),
            ],
        );
    }
}

/// Tells who left a connection dirty, and points to it from the checkout that found it so.
pub(crate) fn dirty(cause: Option<&Trace>, operation: &str, dirt: Dirt, found_by: Option<&Span>) {
    let Some(cause) = cause else { return };
    let kind = ("poolscope.dirty.kind", dirt.as_str().into());
    let attributes = vec![kind.clone(), ("poolscope.operation", operation.into())];
    // Its span may have ended by now; that of the cleaning, which is within its trace, has not.
    if let Some(cleaning) = entered().filter(|entered| is_within(entered.ids(), cause) && entered.ids() != cause.ids())
    {
        cleaning.tell(DIRTY_RETURN, attributes.clone());
    }
    cause.tell(DIRTY_RETURN, attributes);
    if let Some(checkout) = found_by
        && !ids_of(checkout).is_some_and(|found_by| is_within(found_by, cause))
    {
        link(checkout, cause, vec![("poolscope.link", "left_dirty".into()), kind]);
    }
}

const DIRTY_RETURN: &str = "poolscope.dirty_return";

fn is_within(span: TraceContext, other: &Trace) -> bool {
    span.trace_id == other.ids().trace_id
}

/// Tells a holder's span that it is suspected to have forgotten its connection.
pub(crate) fn leaking(ledger: &Ledger, suspicion: &Suspicion) {
    if let Some(trace) = suspicion.trace.as_ref().filter(|_| suspicion.suspected) {
        trace.tell(
            "poolscope.suspected_leak",
            vec![
                ("poolscope.operation", ledger.operations().name(suspicion.operation).into()),
                ("poolscope.held_seconds", Said::Seconds(suspicion.age.as_secs_f64())),
            ],
        );
    }
}

/// `src/orders.rs:42`
pub(super) struct Place(pub(super) &'static Location<'static>);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0.file(), self.0.line())
    }
}
