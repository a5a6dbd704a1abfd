//! Accounting of a request, from the call of its service to the end of its response body.

use std::num::NonZeroU64;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;

use super::outcome::of_response;
use super::request_span::RequestSpan;
use super::server_timing;
use crate::labels::{ErrorCode, Outcome};
use crate::pool::request::{ActiveRequest, ScopeGuard};
use crate::pool::unwind::run_guarded;
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;

/// The accounting of a request. If dropped before the request has ended, the request counts as cancelled.
///
/// It moves from the call into the future, and from there into the response, which other layers move on. So it is small, and
/// what does not change is in the layer's configuration.
#[derive(Debug)]
pub(super) struct Accounting {
    /// Taken while the request's code runs.
    request: Option<ActiveRequest>,
    started: Nanos,
    /// The bytes of the body that are still to be sent, if known. `None` after the last.
    remaining: Option<NonZeroU64>,
    ending: Ending,
    is_head: bool,
    span: RequestSpan,
}

/// How a request ends.
#[derive(Debug)]
struct Ending {
    /// The outcome if the accounting is dropped now; `None` once the request has ended.
    if_dropped: Option<Outcome>,
    /// The outcome at the end of the body.
    at_end: Outcome,
    /// Why the request failed, if that is known.
    error: Option<ErrorCode>,
}

impl Ending {
    #[cold]
    fn fail(&mut self) {
        self.at_end = Outcome::Error;
        self.error = Some(ErrorCode::PANIC);
        self.if_dropped = self.if_dropped.map(|_| Outcome::Error);
    }

    /// Counts dropping the body as its end from now on.
    fn complete_on_drop(&mut self) {
        self.if_dropped = self.if_dropped.map(|_| self.at_end);
    }
}

impl Accounting {
    #[inline]
    pub(super) fn begin<B>(active: ActiveRequest, request: &Request<B>) -> Self {
        let config = active.config();
        let started = config.recorder.now();
        config.recorder.ledger().routes().start(active.route_key());
        let span = RequestSpan::begin(&active, request, config.server_span);
        Self {
            request: Some(active),
            started,
            remaining: None,
            ending: Ending { if_dropped: Some(Outcome::Cancelled), at_end: Outcome::Ok, error: None },
            is_head: request.method() == Method::HEAD,
            span,
        }
    }

    /// Runs code of the request in its scope. If it panics, the request has failed.
    #[inline]
    pub(super) fn enter<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let Self { request, span, ending, .. } = self;
        let in_scope = || {
            let _span = span.enter();
            let _scope = ScopeGuard::enter(request);
            run()
        };
        run_guarded(in_scope, || ending.fail())
    }

    /// Ends the request as refused, and records a refused checkout of it.
    pub(super) fn shed(&mut self) {
        if let Some(request) = &self.request {
            let config = request.config();
            let recorder = &config.recorder;
            // A refused request registers no operation, so that it cannot fill the table of operations.
            let operation = request.named_operation().unwrap_or(OperationId::OTHER);
            recorder.refuse_checkout(operation, config.call_site, Outcome::Shed, None, recorder.now());
        }
        self.end(Outcome::Shed);
    }

    /// Records the head of the response, whose body follows.
    #[inline]
    pub(super) fn respond<R: Body>(&mut self, response: &mut Response<R>) {
        let status = response.status();
        self.ending.at_end = of_response(status, response.headers());
        // As OpenTelemetry's conventions prescribe.
        self.ending.error = status.is_server_error().then(|| ErrorCode::new(status.as_str()));
        self.span.respond(status);
        let declared = content_length(response.headers());
        let remaining = declared.or_else(|| response.body().size_hint().exact());
        self.remaining = remaining.and_then(NonZeroU64::new);
        if let Some(request) = &self.request
            && request.config().server_timing
            && let Some(account) = request.account()
        {
            let timing = server_timing::header(account);
            response.headers_mut().append(server_timing::NAME, timing);
        }
        // The server drops such a body without reading it.
        if self.is_head || remaining == Some(0) || response.body().is_end_stream() {
            self.ending.complete_on_drop();
        }
    }

    /// Records that this many bytes of the body were read.
    pub(super) fn send(&mut self, bytes: usize) {
        if let Some(remaining) = self.remaining {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            self.remaining = NonZeroU64::new(remaining.get().saturating_sub(bytes));
            // After the last declared byte the server may drop the body.
            if self.remaining.is_none() {
                self.ending.complete_on_drop();
            }
        }
    }

    /// Records an outcome that takes effect at the end of the body.
    pub(super) fn end_as(&mut self, outcome: Outcome) {
        self.ending.at_end = outcome;
    }

    /// Counts dropping the body as its end from now on.
    pub(super) fn complete_on_drop(&mut self) {
        self.ending.complete_on_drop();
    }

    /// Ends the request, whose body was read to its end.
    pub(super) fn complete(&mut self) {
        self.end(self.ending.at_end);
    }

    /// Ends the request with this outcome, if it has not ended.
    #[inline]
    pub(super) fn end(&mut self, outcome: Outcome) {
        let Some(request) = &self.request else { return };
        if self.ending.if_dropped.take().is_none() {
            return;
        }
        let config = request.config();
        let recorder = &config.recorder;
        let took = recorder.now().since(self.started);
        recorder.ledger().routes().end(request.route_key(), outcome, took, self.span.context());
        if let Some(account) = request.account() {
            account.warn_of_many_checkouts(config.max_checkouts);
            self.span.record(account);
        }
        self.span.end(outcome, self.ending.error);
    }
}

impl Drop for Accounting {
    #[inline]
    fn drop(&mut self) {
        if let Some(outcome) = self.ending.if_dropped {
            self.end(outcome);
        }
    }
}

#[inline]
fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.is_empty() {
        return None;
    }
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
