//! Accounting of a request, from the call of its service to the end of its response body.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;

use super::outcome::of_response;
use super::request_span::RequestSpan;
use super::server_timing;
use super::settings::LayerSettings;
use crate::labels::{ErrorCode, Outcome};
use crate::pool::request::{ActiveRequest, ScopeGuard};
use crate::pool::unwind::run_guarded;
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::request_usage::RequestUsage;

/// The accounting of a request. If dropped before the request has ended, the request counts as cancelled.
#[derive(Debug)]
pub(super) struct Accounting {
    /// Taken while the request's code runs.
    request: Option<ActiveRequest>,
    started: Nanos,
    /// The outcome if this is dropped now; `None` once the request has ended.
    outcome_if_dropped: Option<Outcome>,
    /// The outcome at the end of the body.
    outcome_at_end: Outcome,
    /// Why the request failed, if that is known.
    error: Option<ErrorCode>,
    /// The bytes of the body that are still to be sent, if known.
    remaining: Option<u64>,
    warn_checkouts_over: u64,
    server_timing: bool,
    is_head: bool,
    span: RequestSpan,
}

impl Accounting {
    pub(super) fn begin<B>(active: ActiveRequest, settings: &LayerSettings, request: &Request<B>) -> Self {
        let recorder = &active.config().recorder;
        let started = recorder.now();
        recorder.ledger().routes().start(active.route_key());
        let span = RequestSpan::begin(&active, request, settings.server_span);
        Self {
            request: Some(active),
            started,
            outcome_if_dropped: Some(Outcome::Cancelled),
            outcome_at_end: Outcome::Ok,
            error: None,
            remaining: None,
            warn_checkouts_over: settings.warn_checkouts_over,
            server_timing: settings.server_timing,
            is_head: request.method() == Method::HEAD,
            span,
        }
    }

    /// Runs code of the request in its scope. If it panics, the request has failed.
    #[inline]
    pub(super) fn enter<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let Self { request, span, outcome_if_dropped, outcome_at_end, error, .. } = self;
        let in_scope = || {
            let _span = span.enter();
            let _scope = ScopeGuard::enter(request);
            run()
        };
        run_guarded(in_scope, || {
            *outcome_at_end = Outcome::Error;
            *error = Some(ErrorCode::PANIC);
            if let Some(outcome) = outcome_if_dropped {
                *outcome = Outcome::Error;
            }
        })
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
    pub(super) fn respond<R: Body>(&mut self, response: &mut Response<R>) {
        let status = response.status();
        self.outcome_at_end = of_response(status, response.headers());
        // As OpenTelemetry's conventions prescribe.
        self.error = status.is_server_error().then(|| ErrorCode::new(status.as_str()));
        self.span.respond(status);
        let declared = content_length(response.headers());
        self.remaining = declared.or_else(|| response.body().size_hint().exact());
        if let Some(account) = self.account().filter(|_| self.server_timing) {
            let timing = server_timing::header(account);
            response.headers_mut().append(server_timing::NAME, timing);
        }
        // The server drops such a body without reading it.
        if self.is_head || self.remaining == Some(0) {
            self.complete_on_drop();
        }
    }

    /// Records that this many bytes of the body were read.
    pub(super) fn send(&mut self, bytes: usize) {
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
            // After the last declared byte the server may drop the body.
            if *remaining == 0 {
                self.complete_on_drop();
            }
        }
    }

    /// Records an outcome that takes effect at the end of the body.
    pub(super) fn end_as(&mut self, outcome: Outcome) {
        self.outcome_at_end = outcome;
    }

    /// Ends the request, whose body was read to its end.
    pub(super) fn complete(&mut self) {
        self.end(self.outcome_at_end);
    }

    /// Counts dropping the body as its end from now on.
    pub(super) fn complete_on_drop(&mut self) {
        if self.outcome_if_dropped.is_some() {
            self.outcome_if_dropped = Some(self.outcome_at_end);
        }
    }

    /// Ends the request with this outcome, if it has not ended.
    pub(super) fn end(&mut self, outcome: Outcome) {
        let Some(request) = &self.request else { return };
        if self.outcome_if_dropped.take().is_none() {
            return;
        }
        let recorder = &request.config().recorder;
        let took = recorder.now().since(self.started);
        recorder.ledger().routes().end(request.route_key(), outcome, took, self.span.context());
        if let Some(account) = request.account() {
            account.warn_of_many_checkouts(self.warn_checkouts_over);
            self.span.record(account);
        }
        self.span.end(outcome, self.error);
    }

    /// Returns the account of the request, if it has checked out.
    fn account(&self) -> Option<&Arc<RequestUsage>> {
        self.request.as_ref()?.account()
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome_if_dropped {
            self.end(outcome);
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.is_empty() {
        return None;
    }
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
