//! One request, from the call of its service until the body of its answer has ended.

use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body;
use tracing::Span;

use super::layer::Settings;
use super::outcome::is_failure;
use crate::labels::{Activity, Outcome};
use crate::pool::request::{ActiveRequest, ScopeGuard};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::requests::Request as Account;
use crate::telemetry::trace::{self, Trace};

/// The fields that a request's span is told of, if it declares them: the number of checkouts; the seconds they waited;
/// the seconds for which it held connections, executing and not; and the number of retries. A request that made no
/// checkout tells nothing.
pub const FIELDS: [&str; 5] = [
    "poolscope.request.checkouts",
    "poolscope.request.wait_seconds",
    "poolscope.request.executing_seconds",
    "poolscope.request.idle_seconds",
    "poolscope.request.retries",
];

/// A request that is being served. Dropped before it has ended, it is cancelled.
#[derive(Debug)]
pub(super) struct Tracking {
    /// Away while the request's code runs.
    serving: Option<ActiveRequest>,
    started: Nanos,
    /// What it comes to if it is dropped now; none if it was counted already.
    outcome: Option<Outcome>,
    /// What it comes to when its body has ended.
    at_end: Outcome,
    /// How much of its answer is still to be sent, if that is known.
    left: Option<u64>,
    many_checkouts: u64,
    server_timing: bool,
    is_head: bool,
    /// The span in which it was called.
    span: Span,
    /// What it is to OpenTelemetry, if its trace is sampled; kept apart, since few are.
    traced: Option<Box<Traced>>,
}

/// A request that is part of a trace.
#[derive(Debug)]
struct Traced {
    /// The layer's own span, where that has joined the trace which the request brought along.
    joined: Option<Span>,
    /// The span as OpenTelemetry knows it.
    trace: Option<Trace>,
}

impl Tracking {
    pub(super) fn begin<B>(serving: ActiveRequest, settings: &Settings, request: &Request<B>) -> Self {
        let recorder = &serving.config().recorder;
        let started = recorder.now();
        recorder.ledger().requests().start(serving.route_key());
        let joined = join(&serving, request);
        let trace = joined.as_ref().map_or_else(trace::entered, |joined| joined.in_scope(trace::entered));
        Self {
            serving: Some(serving),
            started,
            outcome: Some(Outcome::Cancelled),
            at_end: Outcome::Ok,
            left: None,
            many_checkouts: settings.many_checkouts,
            server_timing: settings.server_timing,
            is_head: request.method() == Method::HEAD,
            span: Span::current(),
            traced: (joined.is_some() || trace.is_some()).then(|| Box::new(Traced { joined, trace })),
        }
    }

    /// Runs code of the request's.
    #[inline]
    pub(super) fn enter<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let _span = self.traced.as_ref().and_then(|traced| traced.joined.as_ref()).map(Span::enter);
        let _entered = ScopeGuard::enter(&mut self.serving);
        run()
    }

    /// It is refused.
    pub(super) fn shed(&mut self) {
        if let Some(serving) = &self.serving {
            let recorder = &serving.config().recorder;
            // Whoever is refused names nothing: the table of operations is not to be filled by that.
            let operation = serving.named_operation().unwrap_or(OperationId::OTHER);
            let (call_site, at) = (serving.config().call_site, recorder.now());
            recorder.refuse_checkout(operation, call_site, Outcome::Shed, None, at);
        }
        self.end(Outcome::Shed);
    }

    /// Its answer is there, and its body comes.
    pub(super) fn answered<R: Body>(&mut self, answer: &mut Response<R>) {
        if is_failure(answer.status(), answer.headers()) {
            self.at_end = Outcome::Error;
        }
        let declared = content_length(answer.headers());
        self.left = declared.or_else(|| answer.body().size_hint().exact());
        if self.server_timing
            && let Some(timing) = self.account().map(|account| server_timing(account))
        {
            answer.headers_mut().append(HeaderName::from_static("server-timing"), timing);
        }
        // Its body is not read, but dropped.
        if self.is_head || self.left == Some(0) {
            self.may_end();
        }
    }

    /// So many bytes of its answer are on their way.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
            // With the last byte that was announced the server may let go of the body.
            if *left == 0 {
                self.may_end();
            }
        }
    }

    /// When its body has ended, it has failed.
    pub(super) fn will_fail(&mut self) {
        self.at_end = Outcome::Error;
    }

    /// All of its answer was read.
    pub(super) fn complete(&mut self) {
        self.end(self.at_end);
    }

    /// If its body is dropped from now on, that is its end.
    pub(super) fn may_end(&mut self) {
        if self.outcome.is_some() {
            self.outcome = Some(self.at_end);
        }
    }

    /// The service, or the body, has failed.
    pub(super) fn failed(&mut self) {
        self.end(Outcome::Error);
    }

    fn account(&self) -> Option<&Arc<Account>> {
        self.serving.as_ref()?.account()
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(serving) = &self.serving else { return };
        if self.outcome.take().is_none() {
            return;
        }
        let recorder = &serving.config().recorder;
        let took = recorder.now().since(self.started);
        let traced = self.traced.take();
        let trace = traced.as_ref().and_then(|traced| traced.trace.as_ref());
        recorder.ledger().requests().end(serving.route_key(), outcome, took, trace.map(Trace::ids));
        if let Some(account) = serving.account() {
            account.warn_of_many(self.many_checkouts);
            self.tell(account, traced.as_deref());
        }
        if let Some(joined) = traced.as_ref().and_then(|traced| traced.joined.as_ref()) {
            trace::end_server(joined, outcome);
        }
        self.span = Span::none();
    }

    /// Tells its span what it cost.
    fn tell(&self, account: &Account, traced: Option<&Traced>) {
        let idle = account.used(Activity::Idle) + account.used(Activity::IdleInTransaction);
        let counts = [(FIELDS[0], account.checkouts()), (FIELDS[4], account.retries())];
        let times = [(FIELDS[1], account.waited()), (FIELDS[2], account.used(Activity::Executing)), (FIELDS[3], idle)];
        let joined = traced.and_then(|traced| traced.joined.as_ref());
        for span in [Some(&self.span), joined].into_iter().flatten() {
            for (field, count) in counts {
                span.record(field, count);
            }
            for (field, time) in times {
                span.record(field, time.as_secs_f64());
            }
        }
        // A span that was told already would have each attribute twice.
        let was_told = joined.is_some() || self.span.has_field(FIELDS[0]);
        if let Some(trace) = traced.and_then(|traced| traced.trace.as_ref()).filter(|_| !was_told) {
            trace.describe(&counts, &times);
        }
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.end(outcome);
        }
    }
}

/// `pool-wait;dur=12.345;desc="3 checkouts", pool-use;dur=45.678`: milliseconds, as
/// [the specification](https://www.w3.org/TR/server-timing/) has it.
fn server_timing(account: &Account) -> HeaderValue {
    let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let used = Activity::ALL.iter().map(|activity| account.used(*activity)).sum();
    let mut timing = String::with_capacity(64);
    let checkouts = account.checkouts();
    let s = if checkouts == 1 { "" } else { "s" };
    let _ = write!(
        timing,
        "pool-wait;dur={:.3};desc=\"{checkouts} checkout{s}\", pool-use;dur={:.3}",
        millis(account.waited()),
        millis(used)
    );
    HeaderValue::try_from(timing).unwrap_or_else(|_| HeaderValue::from_static("pool"))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A span that joins the trace which the request brings along, if nobody else has.
#[cfg(feature = "otel")]
fn join<B>(serving: &ActiveRequest, request: &Request<B>) -> Option<Span> {
    super::traceparent::join(serving, request)
}

#[cfg(not(feature = "otel"))]
fn join<B>(_: &ActiveRequest, _: &Request<B>) -> Option<Span> {
    None
}
