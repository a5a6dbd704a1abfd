//! The spans of queries, as observed on a connection's wire.
//!
//! Source of the attribute names: OpenTelemetry's semantic conventions for database spans, version 1.44.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::otel::{ids_of, link};
use super::spans::{UNKNOWN, fail};
use super::{TARGET, TraceContext};
use crate::labels::ErrorCode;
use crate::telemetry::connection::QueryParent;
use crate::telemetry::names::NameTable;
use crate::telemetry::queries::QueryId;

/// The kind of a database server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DatabaseSystem {
    #[default]
    PostgreSql,
    #[cfg(feature = "redis")]
    Redis,
}

impl DatabaseSystem {
    /// Returns the value of `db.system.name`, also the name of spans of queries without a summary.
    const fn name(self) -> &'static str {
        match self {
            Self::PostgreSql => "postgresql",
            #[cfg(feature = "redis")]
            Self::Redis => "redis",
        }
    }

    /// Returns the port that `server.port` omits.
    const fn default_port(self) -> u16 {
        match self {
            Self::PostgreSql => 5432,
            #[cfg(feature = "redis")]
            Self::Redis => 6379,
        }
    }

    /// Returns whether a query is one command, whose name is `db.operation.name`, and whose answer has no rows.
    const fn has_commands(self) -> bool {
        match self {
            Self::PostgreSql => false,
            #[cfg(feature = "redis")]
            Self::Redis => true,
        }
    }
}

/// The server that a connection is established to.
#[derive(Debug)]
pub(crate) struct ServerAddress {
    pub(crate) system: DatabaseSystem,
    pub(crate) database: String,
    /// The host name or address, or the path of the socket.
    pub(crate) address: String,
    pub(crate) port: Option<u16>,
}

/// The query spans of one connection. Requests are answered in the order in which they were sent.
#[derive(Debug)]
pub(crate) struct QuerySpans {
    pool: Arc<str>,
    /// The query summaries of the pool, which a connection's task does not keep alive.
    summaries: Weak<NameTable>,
    server: Option<Arc<ServerAddress>>,
    /// The number of requests sent.
    begun: u64,
    /// The number of requests answered.
    ended: u64,
    /// The spans of requests that have one, each with the request's number.
    open: VecDeque<(u64, Span)>,
}

/// The result of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueryEnd<'a> {
    pub(crate) query: QueryId,
    /// The text without its literals, if it is to be recorded.
    pub(crate) text: Option<&'a str>,
    pub(crate) rows: u64,
    pub(crate) error: Option<ErrorCode>,
}

impl QuerySpans {
    pub(crate) fn new(pool: Arc<str>, summaries: &Arc<NameTable>, server: Option<Arc<ServerAddress>>) -> Self {
        Self { pool, summaries: Arc::downgrade(summaries), server, begun: 0, ended: 0, open: VecDeque::new() }
    }

    fn system(&self) -> DatabaseSystem {
        self.server.as_deref().map(|peer| peer.system).unwrap_or_default()
    }

    /// Records that a request with queries was sent.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.begun += 1;
    }

    /// Opens the span of the request that was sent last, as a child of `parent`.
    #[cold]
    pub(crate) fn open(&mut self, parent: &QueryParent) {
        if self.summaries.strong_count() == 0 {
            return;
        }
        let (peer, system) = (self.server.as_deref(), self.system());
        let port = peer.and_then(|peer| peer.port).filter(|port| *port != system.default_port());
        let span = info_span!(
            target: TARGET,
            parent: None,
            "query",
            otel.name = Empty,
            otel.kind = "client",
            db.system.name = system.name(),
            db.namespace = peer.map(|peer| &*peer.database),
            server.address = peer.map(|peer| &*peer.address),
            server.port = port.map(i64::from),
            db.client.connection.pool.name = &*self.pool,
            db.operation.name = Empty,
            db.query.summary = Empty,
            db.query.text = Empty,
            db.response.returned_rows = Empty,
            db.response.status_code = Empty,
            "error.type" = Empty,
            otel.status_code = Empty,
        );
        parent.span.set_as_parent_of(&span);
        if let Some(checkout) = &parent.checkout {
            link(&span, checkout, vec![("poolscope.link", "checkout".into())]);
        }
        self.open.push_back((self.begun, span));
    }

    /// Records that the next `requests` requests ended with the same result. Returns the ids of one of their spans.
    #[inline]
    pub(crate) fn end<'a>(&mut self, requests: u32, result: impl FnOnce() -> QueryEnd<'a>) -> Option<TraceContext> {
        self.ended += u64::from(requests);
        if self.open.is_empty() { None } else { self.close(result()) }
    }

    #[cold]
    fn close(&mut self, result: QueryEnd<'_>) -> Option<TraceContext> {
        let summaries = self.summaries.upgrade().filter(|_| result.query != QueryId::OTHER);
        let summary = summaries.as_ref().map(|summaries| summaries.name(result.query.as_u16()));
        let (system, mut closed) = (self.system(), None);
        while self.open.front().is_some_and(|(number, _)| *number <= self.ended)
            && let Some((_, span)) = self.open.pop_front()
        {
            close(&span, system, summary, result);
            // Read last, because it fixes the span's name.
            closed = ids_of(&span);
        }
        closed
    }

    /// Ends all open spans with an error, because the wire is no longer observed.
    pub(crate) fn abandon(&mut self) {
        let system = self.system();
        for (_, span) in self.open.drain(..) {
            close(
                &span,
                system,
                None,
                QueryEnd { query: QueryId::OTHER, text: None, rows: 0, error: Some(ErrorCode::OTHER) },
            );
        }
    }
}

fn close(span: &Span, system: DatabaseSystem, summary: Option<&str>, QueryEnd { text, rows, error, .. }: QueryEnd<'_>) {
    span.record("otel.name", summary.unwrap_or(system.name()));
    if let Some(summary) = summary {
        let field = if system.has_commands() { "db.operation.name" } else { "db.query.summary" };
        span.record(field, summary);
    }
    if let Some(text) = text {
        span.record("db.query.text", text);
    }
    match error {
        None if system.has_commands() => {}
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
    use crate::telemetry::trace::current_span;

    /// A span's name, and its `error.type`.
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
    fn each_traced_request_ends_once_when_answered() {
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder().with_span_processor(ended.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _entered = info_span!("request").entered();
            let summaries = Arc::new(NameTable::new(255));
            let mut queries = QuerySpans::new("shop".into(), &summaries, None);
            let answer = |error: Option<&str>| QueryEnd {
                query: QueryId::OTHER,
                text: None,
                rows: 0,
                error: error.map(ErrorCode::new),
            };
            let expect = |expected: &[Option<&str>]| {
                let ended = std::mem::take(&mut *ended.0.lock().unwrap());
                let expected: Vec<_> =
                    expected.iter().map(|error| ("postgresql".into(), error.map(str::to_owned))).collect();
                assert_eq!(ended, expected);
            };
            for traced in [true, false, true, true, true] {
                let parent = current_span().filter(|_| traced);
                queries.begin();
                if let Some(span) = parent {
                    queries.open(&QueryParent { span, checkout: None });
                }
            }
            expect(&[]);
            queries.end(1, || answer(None));
            expect(&[None]);
            // The second request has no span; it must not end the span of the third.
            queries.end(1, || answer(Some("23505")));
            expect(&[]);
            queries.end(2, || answer(Some("23505")));
            expect(&[Some("23505"), Some("23505")]);
            queries.abandon();
            expect(&[Some(UNKNOWN)]);
        });
    }
}
