//! Traces as a collector gets them.

use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::trace::TraceContextExt;
use poolscope::otlp::{Pipeline, Protocol, Settings};
use tracing::{Instrument, Span as Open};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::prelude::*;

use super::otlp::{Receiver, Span};
use super::until;

/// From the first use on, every span of this process goes to a collector.
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

/// A trace that begins with a request.
pub(crate) struct Trace {
    id: String,
    request: String,
}

/// Does the work in a request's span, which is a trace of its own; answers which.
pub(crate) async fn traced<T>(request: &'static str, work: impl Future<Output = T>) -> (Trace, T) {
    LazyLock::force(&COLLECTOR);
    let span = tracing::info_span!("request", otel.name = request, otel.kind = "server");
    let id = id(&span);
    let done = work.instrument(span).await;
    (Trace { id, request: request.to_owned() }, done)
}

/// The id of the trace that a span is of.
fn id(span: &Open) -> String {
    span.context().span().span_context().trace_id().to_string()
}

impl Trace {
    /// Its number, in hexadecimal digits.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// A request of which it was decided elsewhere that its trace is not kept.
    pub(crate) async fn unsampled<T>(work: impl Future<Output = T>) -> (Self, T) {
        use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
        LazyLock::force(&COLLECTOR);
        let (trace, span) = (TraceId::from(0x1234_u128), SpanId::from(7));
        let caller = SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, true, TraceState::NONE);
        let span = tracing::info_span!("request");
        span.set_parent(opentelemetry::Context::new().with_remote_span_context(caller)).expect("a parent");
        (Self { id: trace.to_string(), request: "request".to_owned() }, work.instrument(span).await)
    }

    /// One that began elsewhere, and is kept.
    pub(crate) fn from_elsewhere(id: &str) -> Self {
        LazyLock::force(&COLLECTOR);
        Self { id: id.to_owned(), request: String::new() }
    }

    /// Its spans, once so many are there, in the order in which they began. The request's is the first.
    pub(crate) async fn spans(&self, count: usize) -> Vec<Span> {
        let all = |spans: &[Span]| spans.len() >= count && spans.iter().any(|span| span.parent.is_none());
        let mut spans = self.when(&format!("{count} spans and the request's"), all).await;
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans.sort_by_key(|span| (span.start, span.parent.is_some()));
        assert_eq!((&*spans[0].name, &spans[0].parent), (&*self.request, &None), "{spans:#?}");
        spans
    }

    /// Its spans, once they are what `enough` says.
    pub(crate) async fn when(&self, what: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        until(what, async || Some(self.so_far()).filter(|spans| enough(spans))).await
    }

    /// Its spans that have arrived so far.
    pub(crate) fn so_far(&self) -> Vec<Span> {
        COLLECTOR.0.spans().into_iter().filter(|span| span.trace_id == self.id).collect()
    }
}
