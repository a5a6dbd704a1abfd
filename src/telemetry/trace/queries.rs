//! The spans of queries, as they pass on a connection's wire.
//!
//! Source of the names: OpenTelemetry's semantic conventions for database spans, version 1.44.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::spans::fail;
use super::{TARGET, Trace};
use crate::event::ErrorCode;
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

    /// So many of the requests came to their end, all in the same way.
    #[inline]
    pub(crate) fn end<'a>(&mut self, requests: u32, how: impl FnOnce() -> Ending<'a>) {
        self.ended += u64::from(requests);
        if !self.open.is_empty() {
            self.close(how());
        }
    }

    #[cold]
    fn close(&mut self, how: Ending<'_>) {
        let ledger = self.ledger.upgrade();
        let summary = ledger.as_ref().and_then(|ledger| ledger.summary(how.query));
        while self.open.front().is_some_and(|(number, _)| *number <= self.ended)
            && let Some((_, span)) = self.open.pop_front()
        {
            close(&span, summary, how);
        }
    }

    /// What passes is not understood any more: nobody knows when they end.
    pub(crate) fn lose(&mut self) {
        self.open.clear();
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
        Some(code) => fail(span, Some(code), code.as_str()),
    }
}
