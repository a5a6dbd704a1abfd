//! The interface through which [`ProtocolState`](super::ProtocolState) reports what it finds.

use crate::labels::ErrorCode;
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::{Risk, ServerError};
use crate::wire::sql::QueryRef;
use crate::wire::transaction::TransactionStatus;

/// Receives the protocol's events.
pub(crate) trait ProtocolHandler {
    /// Whether the end of long texts is read too, for the comment there.
    const READS_TAIL: bool = false;

    /// Whether the risk of the pending requests is reported.
    const REPORTS_RISK: bool = true;
    /// The maximum number of requests that were not answered. A pool's own driver bounds them itself.
    const MAX_REQUESTS: usize = usize::MAX;

    /// The server has pending work, or pending work of another kind than last reported. `ending` is true if all of it
    /// ends without a cancel and no caller can have abandoned it: a ROLLBACK, a `Parse`, a request that has failed.
    fn busy(&mut self, ending: bool);
    /// The client sent a query: a `Query`, an `Execute` or a `FunctionCall`. `first` is true for the first of its
    /// request.
    fn query_sent(&mut self, first: bool);
    /// `queries` queries that were sent have ended.
    fn queries_finished(&mut self, queries: u32);
    /// The server has no pending work.
    fn ready(&mut self, transaction: TransactionStatus);
    /// The server reported an error.
    fn server_error(&mut self, error: ServerError);
    /// Returns the reference of the query with this text, which may be truncated. `tail` is the end of a longer one, if
    /// [`Self::READS_TAIL`] is set.
    fn query_ref(&mut self, text: &[u8], tail: &[u8]) -> QueryRef;
    /// The client sent this query, or bound it to a portal.
    #[inline]
    fn query_begins(&mut self, _: QueryRef) {}
    /// The client ends the session.
    #[inline]
    fn terminated(&mut self) {}
    /// Returns whether no caller uses the connection, but the pool itself or nobody.
    fn is_maintenance(&mut self) -> bool;
    /// Returns the time at which the bytes that are being read passed.
    fn now(&self) -> Nanos;
    /// A request with queries was answered, or never will be.
    fn request_ended(&mut self, outcome: RequestOutcome);
    /// The risk has changed: what a lost connection would leave unknown of the pending requests.
    fn risk_changed(&mut self, risk: Risk);
    /// The client prepares a statement with a name.
    fn statement_prepared(&mut self);
    /// The server refused to use a statement with a name, and is about to report the error to the caller.
    fn statement_refused(&mut self, problem: StatementProblem);
    /// The server reported its process id.
    fn backend_pid(&mut self, pid: i32);
}

/// Why the server does not use a statement with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatementProblem {
    /// The type of its result has changed since it was prepared.
    Stale,
    /// The server does not know it.
    Missing,
    /// It was to be prepared, but the server knows another statement of its name.
    NameTaken,
}

impl StatementProblem {
    /// Returns the SQLSTATE that reports it.
    pub(crate) const fn code(self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Stale => "0A000",
            Self::Missing => "26000",
            Self::NameTaken => "42P05",
        })
    }
}

/// The outcome of a request with queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestOutcome {
    /// The number of requests, as counted by `first` in [`ProtocolHandler::query_sent`], that this outcome ends. More
    /// than one if requests turned out to be a single one.
    pub(crate) started: u32,
    /// The request's first query.
    pub(crate) query: QueryRef,
    pub(crate) sent_at: Nanos,
    /// The number of rows received.
    pub(crate) rows: u64,
    pub(crate) error: Option<ErrorCode>,
    /// Whether any of the request's work may have been committed.
    pub(crate) committed: bool,
    /// Whether the request's success shows that the caller has recovered from an earlier error.
    pub(crate) clears_error: bool,
}
