//! The span of a request: joins the caller's trace or begins one, and records the cost of the request.

use http::{Request, StatusCode};
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing::span::Entered;

use super::traceparent::server_span;
use crate::labels::{Activity, ErrorCode, Outcome};
use crate::pool::request::ActiveRequest;
use crate::telemetry::request_usage::RequestUsage;
use crate::telemetry::trace::{self, SampledSpan, TraceContext};

/// The fields that the layer records on the span in which it is called, if the span declares them: the number of
/// checkouts; the seconds spent waiting; the seconds for which connections were held, executing and idle; and the number of
/// retries. Nothing is recorded for a request without checkouts.
pub const FIELDS: [&str; 5] = [
    "poolscope.request.checkouts",
    "poolscope.request.wait_seconds",
    "poolscope.request.executing_seconds",
    "poolscope.request.idle_seconds",
    "poolscope.request.retries",
];

/// The span of a request.
#[derive(Debug)]
pub(super) struct RequestSpan {
    /// The span in which the layer was called.
    caller: Span,
    /// Boxed, since most requests are not traced.
    traced: Option<Box<Traced>>,
}

/// The part of a request in a trace.
#[derive(Debug)]
struct Traced {
    /// The layer's own span, if there was none. If it is not sampled, neither are the spans within.
    own: Option<Span>,
    /// OpenTelemetry's current span, if it is sampled.
    sampled: Option<SampledSpan>,
}

impl RequestSpan {
    pub(super) fn begin<B>(active: &ActiveRequest, request: &Request<B>, opens_span: bool) -> Self {
        // Without a subscriber there is no span, and none can be opened.
        let has_spans = LevelFilter::current() != LevelFilter::OFF;
        let own = if opens_span && has_spans { server_span(active, request) } else { None };
        let sampled = own.as_ref().map_or_else(trace::current_span, |own| own.in_scope(trace::current_span));
        let traced = (own.is_some() || sampled.is_some()).then(|| Box::new(Traced { own, sampled }));
        Self { caller: if has_spans { Span::current() } else { Span::none() }, traced }
    }

    /// Enters the layer's own span, if there is one.
    #[inline]
    pub(super) fn enter(&self) -> Option<Entered<'_>> {
        self.own().map(Span::enter)
    }

    /// Returns the identifiers of the sampled span, for exemplars.
    pub(super) fn context(&self) -> Option<TraceContext> {
        self.sampled().map(SampledSpan::ids)
    }

    /// Records the cost of the request as [`FIELDS`].
    pub(super) fn record(&self, account: &RequestUsage) {
        let idle = account.used(Activity::Idle) + account.used(Activity::IdleInTransaction);
        let counts = [(FIELDS[0], account.checkouts()), (FIELDS[4], account.retries())];
        let times = [(FIELDS[1], account.waited()), (FIELDS[2], account.used(Activity::Executing)), (FIELDS[3], idle)];
        for span in [Some(&self.caller), self.own()].into_iter().flatten() {
            for (field, count) in counts {
                span.record(field, count);
            }
            for (field, time) in times {
                span.record(field, time.as_secs_f64());
            }
        }
        // Otherwise the span would have each attribute twice.
        let is_recorded = self.own().is_some() || self.caller.has_field(FIELDS[0]);
        if let Some(trace) = self.sampled().filter(|_| !is_recorded) {
            trace::request::set_attributes(trace, &counts, &times);
        }
    }

    /// Records the status of the response on the layer's own span.
    pub(super) fn respond(&self, status: StatusCode) {
        if let Some(own) = self.own() {
            own.record("http.response.status_code", i64::from(status.as_u16()));
        }
    }

    /// Ends the layer's own span, and releases the others. `error` is the reason of a failure.
    pub(super) fn end(&mut self, outcome: Outcome, error: Option<ErrorCode>) {
        if let Some(own) = self.own() {
            trace::request::end(own, outcome, error);
        }
        if error == Some(ErrorCode::PANIC) {
            // The layer that created the span sees neither a response nor an error.
            trace::request::mark_panic(&self.caller);
        }
        if self.traced.is_some() {
            self.traced = None;
        }
        if !self.caller.is_none() {
            self.caller = Span::none();
        }
    }

    fn own(&self) -> Option<&Span> {
        self.traced.as_ref()?.own.as_ref()
    }

    fn sampled(&self) -> Option<&SampledSpan> {
        self.traced.as_ref()?.sampled.as_ref()
    }
}
