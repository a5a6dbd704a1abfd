//! A handler that records what is reported and checks the invariants of the protocol, for the tests and for fuzzing.

use super::{MessageBody, ProtocolError, ProtocolHandler, ProtocolState, RequestOutcome, StatementProblem};
use crate::labels::ErrorCode;
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::names::fnv;
use crate::wire::sql::QueryRef;
use crate::wire::transaction::TransactionStatus;

/// A call of the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    QuerySent,
    QueriesFinished(u32),
    Ready(TransactionStatus),
    /// The error's code, and whether it is fatal.
    Error(ErrorCode, bool),
    StatementRefused(StatementProblem),
    BackendPid(i32),
}

/// Records everything that is reported.
#[derive(Debug, Default)]
pub(crate) struct CheckingHandler {
    pub(crate) reports: Vec<Report>,
    /// `None` if the server has no work, and otherwise whether all of it is ending.
    pub(crate) busy: Option<bool>,
    pub(crate) queries: u32,
    pub(crate) finished: u32,
    /// The number of requests with queries that were reported and have not ended.
    pub(crate) unanswered: u32,
    /// The number of requests that may have committed something.
    pub(crate) committed: u32,
    pub(crate) risk: Risk,
    /// The number of statements with a name that the client prepared.
    pub(crate) prepared: u32,
    /// The query and the error of the last request that ended.
    pub(crate) last: Option<(QueryRef, Option<ErrorCode>)>,
    /// The last error, unless a later request has cleared it.
    pub(crate) error: Option<ServerError>,
    /// Whether the pool itself uses the connection.
    pub(crate) maintenance: bool,
}

impl ProtocolHandler for CheckingHandler {
    fn busy(&mut self, ending: bool) {
        assert_ne!(self.busy, Some(ending), "reported twice");
        self.busy = Some(ending);
    }

    fn query_sent(&mut self, first: bool) {
        assert!(self.busy.is_some(), "a query is work");
        self.queries += 1;
        self.unanswered += u32::from(first);
        self.reports.push(Report::QuerySent);
    }

    fn queries_finished(&mut self, queries: u32) {
        self.finished += queries;
        assert!(queries > 0 && self.finished <= self.queries, "{} of {}", self.finished, self.queries);
        self.reports.push(Report::QueriesFinished(queries));
    }

    fn ready(&mut self, transaction: TransactionStatus) {
        self.busy = None;
        self.reports.push(Report::Ready(transaction));
    }

    fn server_error(&mut self, error: ServerError) {
        self.reports.push(Report::Error(error.code, error.fatal));
        self.error = Some(error);
    }

    /// Derives the reference from the text without allocating.
    fn query_ref(&mut self, text: &[u8], _: &[u8]) -> QueryRef {
        QueryRef::without_text(fnv(text) as u16)
    }

    fn is_maintenance(&mut self) -> bool {
        self.maintenance
    }

    fn now(&self) -> Nanos {
        Nanos::ZERO
    }

    fn request_ended(&mut self, RequestOutcome { started, query, error, committed, clears_error, .. }: RequestOutcome) {
        self.unanswered = self.unanswered.checked_sub(started).expect("the requests were reported");
        self.committed += u32::from(committed);
        self.last = Some((query, error));
        self.error = self.error.filter(|_| !clears_error);
    }

    fn risk_changed(&mut self, risk: Risk) {
        assert_ne!(self.risk, risk, "reported twice");
        self.risk = risk;
    }

    fn statement_prepared(&mut self) {
        self.prepared += 1;
    }

    fn statement_refused(&mut self, problem: StatementProblem) {
        self.reports.push(Report::StatementRefused(problem));
    }

    fn backend_pid(&mut self, pid: i32) {
        self.reports.push(Report::BackendPid(pid));
    }
}

/// The side that sent a part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The state of the protocol with a [`CheckingHandler`].
#[derive(Debug)]
pub(crate) struct CheckedProtocol {
    protocol: ProtocolState,
    pub(crate) handler: CheckingHandler,
}

impl CheckedProtocol {
    pub(crate) fn new() -> Self {
        Self { protocol: ProtocolState::new(), handler: CheckingHandler::default() }
    }

    pub(crate) fn feed(&mut self, from: Side, bytes: &[u8]) -> Result<(), ProtocolError> {
        match from {
            Side::Client => self.protocol.sent(bytes, &mut self.handler),
            Side::Server => self.protocol.received(&mut &*bytes, &mut self.handler),
        }?;
        // The state agrees with the reports.
        let ProtocolState { pending, work, client_body, .. } = &self.protocol;
        assert_eq!(work.requests, pending.iter().filter(|request| request.work).count());
        assert_eq!(work.endings, pending.iter().filter(|request| request.ending).count());
        assert_eq!(self.handler.busy, work.state());
        // A query is reported once it is known whether it is a ROLLBACK.
        let unreported = u32::from(matches!(client_body, MessageBody::Query { rollback_match: Some(_), .. }));
        let started: u32 = pending.iter().map(|request| request.started).sum();
        assert_eq!(self.handler.unanswered + unreported, started);
        assert!(self.handler.risk == Risk::None || pending.iter().any(|request| request.queries > 0));
        Ok(())
    }

    /// Returns what later messages depend on.
    fn state(&self) -> impl PartialEq + std::fmt::Debug + '_ {
        let ProtocolState { client, server, pending, work, copying, ignored_syncs, .. } = &self.protocol;
        let ProtocolState { silent_since_ready, negotiating, transaction, prepared, .. } = &self.protocol;
        let ProtocolState { rows, reported_work, reported_risk, .. } = &self.protocol;
        let ends = (client.is_at_tag(), client.partial_tag(), server.is_at_tag(), server.partial_tag());
        let requests = (pending, work, copying, ignored_syncs, silent_since_ready, negotiating);
        (ends, requests, (transaction, prepared.state(), rows, reported_work, reported_risk))
    }

    /// Feeds the bytes one by one.
    pub(crate) fn feed_bytewise(&mut self, from: Side, bytes: &[u8]) -> Result<(), ProtocolError> {
        bytes.chunks(1).try_for_each(|byte| self.feed(from, byte))
    }
}

/// Replays a stream by whole reads and byte by byte, up to its end or the first protocol error, and checks that both
/// report the same.
pub(crate) fn replay(stream: &[(Side, &[u8])]) -> (CheckedProtocol, Result<(), ProtocolError>) {
    let (mut fast, mut slow) = (CheckedProtocol::new(), CheckedProtocol::new());
    for (from, bytes) in stream {
        let known = fast.handler.reports.len();
        let result = fast.feed(*from, bytes);
        assert_eq!(slow.feed_bytewise(*from, bytes), result);
        assert_eq!(slow.handler.reports[known..], fast.handler.reports[known..]);
        if result.is_err() {
            return (fast, result);
        }
        assert_eq!(slow.handler.busy, fast.handler.busy);
        assert_eq!(slow.state(), fast.state());
        let outcome =
            |CheckingHandler { committed, risk, error, last, .. }: &CheckingHandler| (*committed, *risk, *error, *last);
        assert_eq!(outcome(&slow.handler), outcome(&fast.handler));
    }
    (fast, Ok(()))
}

/// Returns the reads of a recorded stream. Each is preceded by two bytes: the highest bit is set for the server's, and
/// the others are the length.
pub(crate) fn reads(mut recorded: &[u8]) -> Vec<(Side, &[u8])> {
    let mut reads = Vec::new();
    while let [high, low, rest @ ..] = recorded {
        let from = if high & 0x80 == 0 { Side::Client } else { Side::Server };
        let length = usize::from(u16::from_be_bytes([high & 0x7f, *low])).min(rest.len());
        let (bytes, after) = rest.split_at(length);
        reads.push((from, bytes));
        recorded = after;
    }
    reads
}

/// Returns valid messages by number, so that random bytes make up sequences of them.
pub(crate) fn messages(numbers: &[u8]) -> Vec<(Side, &'static [u8])> {
    const MESSAGES: [(Side, &[u8]); 48] = [
        (Side::Client, b"Q\0\0\0\x0dSELECT 1\0"),
        (Side::Client, b"Q\0\0\0\x0dROLLBACK\0"),
        (Side::Client, b"Q\0\0\0\x11ROLLBACK TO "),
        (Side::Client, b"s\0"),
        (Side::Client, b"P\0\0\0\x08\0\0\0\0"),
        (Side::Client, b"B\0\0\0\x04"),
        (Side::Client, b"D\0\0\0\x06S\0"),
        (Side::Client, b"E\0\0\0\x09\0\0\0\0\0"),
        (Side::Client, b"C\0\0\0\x06S\0"),
        (Side::Client, b"H\0\0\0\x04"),
        (Side::Client, b"S\0\0\0\x04"),
        (Side::Client, b"S\0\0\0\x04"),
        (Side::Client, b"c\0\0\0\x04"),
        (Side::Client, b"f\0\0\0\x05\0"),
        (Side::Client, b"d\0\0\0\x06S\0"),
        (Side::Client, b"F\0\0\0\x05\0"),
        (Side::Client, b"B\0\0\0\x04E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"),
        (Side::Client, b"B\0\0\0\x04E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"),
        (Side::Client, b"Q\0\0\0\x11ROLLBACK TO a\0"),
        (Side::Client, b"Q\0"),
        (Side::Client, b"\0\0\x05\0"),
        (Side::Client, b"X\0\0\0\x04"),
        (Side::Server, b"Z\0\0\0\x05I"),
        (Side::Server, b"Z\0\0\0\x05T"),
        (Side::Server, b"Z\0\0\0\x05E"),
        (Side::Server, b"Z\0\0\0\x05I"),
        (Side::Server, b"G\0\0\0\x07\0\0\0"),
        (Side::Server, b"G\0\0\0\x07\0\0\0"),
        (Side::Server, b"C\0\0\0\x05\0"),
        (Side::Server, b"2\0\0\0\x04"),
        (Side::Server, b"D\0\0\0\x06\0\0"),
        (Side::Server, b"E\0\0\0\x15SERROR\0C22P02\0\0"),
        (Side::Server, b"E\0\0\0\x1cSF\0VFATAL\0C57P01\0\0\0\0\0\0"),
        (Side::Server, b"A\0\0\0\x05\0"),
        (Side::Server, b"N\0\0\0\x05\0"),
        (Side::Server, b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x02"),
        (Side::Server, b"Z\0\0"),
        (Side::Server, b"\0\x05"),
        (Side::Server, b"T"),
        (Side::Server, b"3\0\0\0\x04"),
        // Commits, as a query and as a prepared statement.
        (Side::Client, b"Q\0\0\0\x0bCOMMIT\0"),
        (Side::Client, b"Q\0\0\0\x11BEGIN;COMMIT\0"),
        (Side::Client, b"P\0\0\0\x0fs\0COMMIT\0\0\0"),
        (Side::Client, b"P\0\0\0\x0fs\0SELECT\0\0\0"),
        (Side::Client, b"B\0\0\0\x0d\0s\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"),
        (Side::Client, b"B\0\0\0\x0ep\0s\0\0\0\0\0\0\0"),
        (Side::Client, b"C\0\0\0\x07Ss\0"),
        (Side::Server, b"C\0\0\0\x0bCOMMIT\0"),
    ];
    numbers.iter().map(|number| MESSAGES[usize::from(*number) % MESSAGES.len()]).collect()
}

/// The startup of a session.
pub(crate) const STARTUP: [(Side, &[u8]); 2] = [
    (Side::Client, b"\0\0\0\x0d\0\x03\0\0user\0"),
    (Side::Server, b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x2a\0\0\0\x02Z\0\0\0\x05I"),
];

/// Replays a fuzzer's bytes as a recorded stream, and as numbers of messages.
#[cfg(fuzzing)]
pub(crate) fn fuzz_protocol(bytes: &[u8]) {
    let _ = replay(&reads(bytes));
    let mut stream = STARTUP.to_vec();
    // Long enough for every sequence of interest.
    stream.extend(messages(&bytes[..bytes.len().min(200)]));
    let _ = replay(&stream);
}
