//! The spans of queries, as they pass on a connection's wire.
//!
//! Source of the names: OpenTelemetry's semantic conventions for database spans, version 1.44.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::otel::ids_of;
use super::spans::{UNKNOWN, fail};
use super::{TARGET, Trace, TraceContext};
use crate::labels::ErrorCode;
use crate::telemetry::ledger::Ledger;
use crate::telemetry::queries::QueryId;

/// The default port, which goes without saying.
const DEFAULT_PORT: u16 = 5432;

/// What a query is called of which no summary is known.
const NAMELESS: &str = "postgresql";

/// Where a connection leads.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) database: String,
    /// The server's name or address, or the path of its socket.
    pub(crate) address: String,
    pub(crate) port: Option<u16>,
}

/// Those of one connection. Its requests are answered in the order in which they were sent.
#[derive(Debug)]
pub(crate) struct Queries {
    /// Not to be kept alive by a connection's task.
    ledger: Weak<Ledger>,
    server: Option<Arc<Server>>,
    /// How many requests were sent, and how many came to their end.
    begun: u64,
    ended: u64,
    /// Those of them that have a span, each with its number.
    open: VecDeque<(u64, Span)>,
}

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending<'a> {
    pub(crate) query: QueryId,
    /// Without its literals, if it is to be told.
    pub(crate) text: Option<&'a str>,
    pub(crate) rows: u64,
    pub(crate) error: Option<ErrorCode>,
}

impl Queries {
    pub(crate) fn new(ledger: &Arc<Ledger>, server: Option<Arc<Server>>) -> Self {
        Self { ledger: Arc::downgrade(ledger), server, begun: 0, ended: 0, open: VecDeque::new() }
    }

    /// A request with queries was sent, by whom is known if it is part of a trace that is sampled.
    #[inline]
    pub(crate) fn begin(&mut self, holder: Option<Trace>) {
        self.begun += 1;
        if let Some(holder) = holder {
            self.open(&holder);
        }
    }

    #[cold]
    fn open(&mut self, holder: &Trace) {
        let Some(ledger) = self.ledger.upgrade() else { return };
        let to = self.server.as_deref();
        let port = to.and_then(|to| to.port).filter(|port| *port != DEFAULT_PORT);
        let span = info_span!(
            target: TARGET,
            parent: None,
            "query",
            otel.name = Empty,
            otel.kind = "client",
            db.system.name = "postgresql",
            db.namespace = to.map(|to| &*to.database),
            server.address = to.map(|to| &*to.address),
            server.port = port.map(i64::from),
            db.client.connection.pool.name = &**ledger.name(),
            db.query.summary = Empty,
            db.query.text = Empty,
            db.response.returned_rows = Empty,
            db.response.status_code = Empty,
            "error.type" = Empty,
            otel.status_code = Empty,
        );
        holder.adopt(&span);
        self.open.push_back((self.begun, span));
    }

    /// So many of the requests came to their end, all in the same way. Answers which span one of them had.
    #[inline]
    pub(crate) fn end<'a>(&mut self, requests: u32, how: impl FnOnce() -> Ending<'a>) -> Option<TraceContext> {
        self.ended += u64::from(requests);
        if self.open.is_empty() { None } else { self.close(how()) }
    }

    #[cold]
    fn close(&mut self, how: Ending<'_>) -> Option<TraceContext> {
        let ledger = self.ledger.upgrade();
        let summary = ledger.as_ref().and_then(|ledger| ledger.summary(how.query));
        let mut closed = None;
        while self.open.front().is_some_and(|(number, _)| *number <= self.ended)
            && let Some((_, span)) = self.open.pop_front()
        {
            close(&span, summary, how);
            // Asked last: whoever asks fixes the name.
            closed = ids_of(&span);
        }
        closed
    }

    /// What passes is not understood any more: nobody knows when they end.
    pub(crate) fn lose(&mut self) {
        for (_, span) in self.open.drain(..) {
            close(&span, None, Ending { query: QueryId::OTHER, text: None, rows: 0, error: Some(ErrorCode::OTHER) });
        }
    }
}

fn close(span: &Span, summary: Option<&str>, Ending { text, rows, error, .. }: Ending<'_>) {
    span.record("otel.name", summary.unwrap_or(NAMELESS));
    if let Some(summary) = summary {
        span.record("db.query.summary", summary);
    }
    if let Some(text) = text {
        span.record("db.query.text", text);
    }
    match error {
        None => {
            span.record("db.response.returned_rows", i64::try_from(rows).unwrap_or(i64::MAX));
        }
        Some(code) => fail(span, Some(code), UNKNOWN),
    }
}

#[cfg(all(test, feature = "otlp"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;
    use std::time::Duration;

    use opentelemetry::trace::{Status, TracerProvider as _};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, Span as Started, SpanData, SpanProcessor};
    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::telemetry::clock::Clock;
    use crate::telemetry::ledger::Limits;
    use crate::telemetry::trace::entered;

    /// A span's name, and the error with which it ended.
    type End = (String, Option<String>);

    #[derive(Clone, Debug, Default)]
    struct Ended(Arc<Mutex<Vec<End>>>);

    impl SpanProcessor for Ended {
        fn on_start(&self, _: &mut Started, _: &opentelemetry::Context) {}

        fn on_end(&self, span: SpanData) {
            let error = span.attributes.iter().find(|attribute| attribute.key.as_str() == "error.type");
            let error = error.map(|error| error.value.to_string());
            assert_eq!(matches!(span.status, Status::Error { .. }), error.is_some());
            self.0.lock().unwrap().push((span.name.to_string(), error));
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    #[test]
    fn each_request_that_is_part_of_a_trace_ends_once_and_when_it_is_answered() {
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder().with_span_processor(ended.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _entered = info_span!("request").entered();
            let ledger = Arc::new(Ledger::new("shop".into(), Limits::of_one(), Clock::mock().0));
            let mut queries = Queries::new(&ledger, None);
            let answer = |error: Option<&str>| Ending {
                query: QueryId::OTHER,
                text: None,
                rows: 0,
                error: error.map(ErrorCode::word),
            };
            let expect = |expected: &[Option<&str>]| {
                let ended = std::mem::take(&mut *ended.0.lock().unwrap());
                let expected: Vec<_> =
                    expected.iter().map(|error| (NAMELESS.into(), error.map(str::to_owned))).collect();
                assert_eq!(ended, expected);
            };
            for traced in [true, false, true, true, true] {
                queries.begin(entered().filter(|_| traced));
            }
            expect(&[]);
            queries.end(1, || answer(None));
            expect(&[None]);
            // The second has no span; it is not to end the third one's.
            queries.end(1, || answer(Some("23505")));
            expect(&[]);
            queries.end(2, || answer(Some("23505")));
            expect(&[Some("23505"), Some("23505")]);
            queries.lose();
            expect(&[Some(UNKNOWN)]);
        });
    }
}
