//! Traces as a collector receives them.

use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::trace::TraceContextExt;
use poolscope::otlp::{Pipeline, Protocol, Settings};
use tracing::{Instrument, Span as TracingSpan};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::prelude::*;

use super::poll_until;
use poolscope_testing::otlp::{Receiver, Span};

/// The collector, to which every span of this process is exported from the first use on.
static COLLECTOR: LazyLock<(Receiver, Pipeline)> = LazyLock::new(|| {
    let receiver = Receiver::grpc();
    let mut settings = Settings::new("tests");
    settings.endpoint = Some(receiver.endpoint());
    settings.protocol = Protocol::Grpc;
    settings.delay = Duration::from_millis(20);
    let pipeline = Pipeline::start(&settings).expect("a pipeline");
    tracing_subscriber::registry().with(pipeline.layer()).init();
    (receiver, pipeline)
});

/// A trace that starts with a request.
pub(crate) struct Trace {
    id: String,
    request: String,
}

/// Runs `work` in the span of a request, which starts a trace. Returns the trace.
pub(crate) async fn traced<T>(request: &'static str, work: impl Future<Output = T>) -> (Trace, T) {
    LazyLock::force(&COLLECTOR);
    let span = tracing::info_span!("request", otel.name = request, otel.kind = "server");
    let id = id(&span);
    let done = work.instrument(span).await;
    (Trace { id, request: request.to_owned() }, done)
}

/// Returns the trace id of a span.
fn id(span: &TracingSpan) -> String {
    span.context().span().span_context().trace_id().to_string()
}

impl Trace {
    /// Returns the trace id in hexadecimal digits.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Runs `work` in a request whose incoming trace is not sampled.
    pub(crate) async fn unsampled<T>(work: impl Future<Output = T>) -> (Self, T) {
        use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
        LazyLock::force(&COLLECTOR);
        let (trace, span) = (TraceId::from(0x1234_u128), SpanId::from(7));
        let caller = SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, true, TraceState::NONE);
        let span = tracing::info_span!("request");
        span.set_parent(opentelemetry::Context::new().with_remote_span_context(caller)).expect("a parent");
        (Self { id: trace.to_string(), request: "request".to_owned() }, work.instrument(span).await)
    }

    /// Returns a trace that started elsewhere, and is sampled.
    pub(crate) fn with_id(id: &str) -> Self {
        LazyLock::force(&COLLECTOR);
        Self { id: id.to_owned(), request: String::new() }
    }

    /// Returns the trace whose first span was created by `request`, and is called `name`.
    pub(crate) async fn begun_by(name: &str, request: impl Future<Output = ()>) -> Self {
        LazyLock::force(&COLLECTOR);
        request.await;
        let id = poll_until("the first span", async || {
            let spans = COLLECTOR.0.spans();
            let first = spans.into_iter().find(|span| span.name == name && span.parent.is_none())?;
            Some(first.trace_id)
        });
        Self { id: id.await, request: name.to_owned() }
    }

    /// Waits for `count` spans. Returns them by start time; the request's is the first.
    pub(crate) async fn spans(&self, count: usize) -> Vec<Span> {
        let all = |spans: &[Span]| spans.len() >= count && spans.iter().any(|span| span.parent.is_none());
        let mut spans = self.spans_when(&format!("{count} spans and the request's"), all).await;
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans.sort_by_key(|span| (span.start, span.parent.is_some()));
        assert_eq!((&*spans[0].name, &spans[0].parent), (&*self.request, &None), "{spans:#?}");
        spans
    }

    /// Waits until `accept` is satisfied. Returns the spans.
    pub(crate) async fn spans_when(&self, what: &str, accept: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        poll_until(what, async || Some(self.received()).filter(|spans| accept(spans))).await
    }

    /// Returns the spans received so far.
    pub(crate) fn received(&self) -> Vec<Span> {
        COLLECTOR.0.spans().into_iter().filter(|span| span.trace_id == self.id).collect()
    }
}
